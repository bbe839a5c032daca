/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * All that can be told about one attached device, for list and status.
 */
#ifndef LF_REPORT_H
#define LF_REPORT_H

#include "../kmod/disk.h"
#include "dm.h"
#include "uuid.h"

struct json_object;

#define REPORT_COUNTERS	64

struct report_counter {
	char name[64];
	u64 value;
};

/* The files of a folder in sysfs that hold one number each, by name. */
struct report_counters {
	u32 count;
	struct report_counter counter[REPORT_COUNTERS];
};

/**
 * struct report - a device, its meta device and its counters
 * @meta: node of the meta device
 * @backing: the file behind it, or ""
 * @cow: node of the COW device, or ""
 * @cow_backing: the file behind it, or ""
 * @origin: name of the sealed device below, or ""
 * @store: name of the store's mapped device, or ""
 * @store_on: node of the device that the store lies on, or ""
 * @store_backing: the file behind it, or ""
 * @image: the image's UUID, "" where the meta device cannot be read
 * @own: of /sys/block/dm-N/lazyframe/
 * @module: of /sys/class/misc/lazyframe/: sums over all devices
 */
struct report {
	struct device device;
	struct device_info info;
	char meta[64];
	char backing[4096];
	char cow[64];
	char cow_backing[4096];
	char origin[DEVICE_NAME_MAX + 1];
	char store[DEVICE_NAME_MAX + 1];
	char store_on[64];
	char store_backing[4096];
	char image[UUID_TEXT];
	struct report_counters own;
	struct report_counters module;
};

/**
 * report_read - gather it
 * @report: out; release with report_drop()
 *
 * -ENXIO: no such device. -EMEDIUMTYPE: it is none of lazyframe's.
 */
int report_read(const char *name, struct report *report, struct error *e);
void report_drop(struct report *report);

/* What the overlay says to have of the image, in whole blocks. */
static inline u64 report_dirty_bytes(const struct report *report)
{
	return report->info.field[DEVICE_DIRTY_BLOCKS] * LF_META_BLOCK;
}

static inline u64 report_zero_bytes(const struct report *report)
{
	return report->info.field[DEVICE_ZERO_BLOCKS] * LF_META_BLOCK;
}

/**
 * report_json - as a JSON object that the caller owns
 */
struct json_object *report_json(const struct report *report);

/**
 * report_counters_read - read a folder's files
 * @counters: in: zeroed
 */
void report_counters_read(const char *path, struct report_counters *counters);

/**
 * report_counter - value of a counter by its file's name; 0 where there is none
 */
u64 report_counter(const struct report_counters *counters, const char *name);

/**
 * report_size - "1.5 GiB"
 */
void report_size(u64 bytes, char *text, size_t text_bytes);

#endif

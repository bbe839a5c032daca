/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * All that can be told about one attached device, for list and status.
 */
#ifndef LF_REPORT_H
#define LF_REPORT_H

#include "dm.h"
#include "uuid.h"

struct json_object;

/* One file of /sys/block/dm-N/lazyframe/. */
struct report_counter {
	char name[64];
	u64 value;
};

#define REPORT_COUNTERS	128

/**
 * struct report - a device, its meta device and its counters
 * @meta: node of the meta device
 * @backing: the file behind it, or ""
 * @image: the image's UUID, "" where the meta device cannot be read
 * @counter: @counters entries, by name
 */
struct report {
	struct device device;
	struct device_info info;
	char meta[64];
	char backing[4096];
	char image[UUID_TEXT];
	u32 counters;
	struct report_counter counter[REPORT_COUNTERS];
};

/**
 * report_read - gather it
 * @report: out; release with report_drop()
 *
 * -ENXIO: no such device. -EMEDIUMTYPE: it is none of lazyframe's.
 */
int report_read(const char *name, struct report *report, struct error *e);
void report_drop(struct report *report);

/**
 * report_json - as a JSON object that the caller owns
 */
struct json_object *report_json(const struct report *report);

/**
 * report_counter - value of a counter by its file's name; 0 where there is none
 */
u64 report_counter(const struct report *report, const char *name);

/**
 * report_size - "1.5 GiB"
 */
void report_size(u64 bytes, char *text, size_t text_bytes);

#endif

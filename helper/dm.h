/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Mapped devices, through libdevmapper.
 */
#ifndef LF_DM_H
#define LF_DM_H

#include "../kmod/pure.h"
#include "error.h"

#define DEVICE_NAME_MAX		127	/* characters, device-mapper's limit */
#define DEVICE_UUID_MAX		128
#define DEVICE_UUID_PREFIX	"LAZYFRAME-"
#define DEVICE_TARGET		"lazyframe"

/**
 * struct device - what the kernel tells about a mapped device
 * @uuid: device-mapper's, "" where it has none
 * @major: with @minor: device number
 * @open: how many have it open, kernel users included
 * @sectors: its size
 * @target: type of its only target; "" if it has none or more than one
 * @table: the target's arguments as STATUSTYPE_TABLE has them
 * @info: STATUSTYPE_INFO
 */
struct device {
	char name[DEVICE_NAME_MAX + 1];
	char uuid[DEVICE_UUID_MAX + 1];
	u32 major;
	u32 minor;
	int open;
	bool read_only;
	bool suspended;
	u64 sectors;
	char target[17];
	char *table;
	char *info;
};

/**
 * enum device_field - the numbers of STATUSTYPE_INFO, in its order
 */
enum device_field {
	DEVICE_LAYERS,
	DEVICE_FRAMES_CACHED,
	DEVICE_CACHE_BYTES,
	DEVICE_CACHE_LIMIT_BYTES,
	DEVICE_WAITING,
	DEVICE_READS,
	DEVICE_READS_ZERO,
	DEVICE_READS_MEMORY,
	DEVICE_READS_FETCHED,
	DEVICE_READS_FAILED,
	DEVICE_FRAMES_BAD,
	DEVICE_FIELDS,
};

/**
 * struct device_info - STATUSTYPE_INFO of a lazyframe device, decoded
 * @helper: is a helper attached?
 * @error_policy: do reads fail without one, rather than wait?
 */
struct device_info {
	bool helper;
	bool error_policy;
	u64 field[DEVICE_FIELDS];
};

/* What each enum device_field is called, in JSON too. */
extern const char *const device_field_name[DEVICE_FIELDS];

/**
 * device_name_check - may a device have this name?
 */
int device_name_check(const char *name, struct error *e);

/**
 * device_target_check - does the kernel have the lazyframe target?
 *
 * Makes the kernel load the module if it can find it. -ENOENT with the remedy
 * in the text if there is none.
 */
int device_target_check(struct error *e);

/**
 * device_read - look at a device
 * @device: out; release with device_drop()
 *
 * Never waits for the device's I/O. -ENXIO: no such device.
 */
int device_read(const char *name, struct device *device, struct error *e);
void device_drop(struct device *device);

/**
 * device_info_parse - decode STATUSTYPE_INFO; fields behind the known ones are ignored
 */
int device_info_parse(const char *text, struct device_info *info,
		      struct error *e);

/**
 * device_meta - device number of the meta device, from a lazyframe table
 * @path: out: its node below /dev, or "<major>:<minor>" where it has none
 * @backing: out: path of the file that it shows if it is a loop device, or ""
 */
int device_meta(const struct device *device, char *path, size_t path_bytes,
		char *backing, size_t backing_bytes, struct error *e);

/**
 * device_is_ours - does it have a lazyframe table, or had it one when it was
 * attached?
 */
bool device_is_ours(const struct device *device);

/**
 * device_create - make a read-only device with one lazyframe target
 * @uuid: device-mapper's
 * @params: arguments of the target
 *
 * /dev/mapper/<name> exists on return, with and without udev. -EEXIST: the
 * name or the UUID is taken.
 */
int device_create(const char *name, const char *uuid, u64 sectors,
		  const char *params, struct error *e);

/**
 * device_fail - let all I/O of a device fail, now and from now on
 *
 * Its table becomes one error target; waiting reads end with errors.
 */
int device_fail(const struct device *device, struct error *e);

/**
 * device_remove - remove a device
 *
 * Waits a bounded time for those who open new devices just to look, as udev
 * does. -EBUSY: it is in use, the text says by whom.
 */
int device_remove(const struct device *device, struct error *e);

/**
 * device_each - call a function with the name of each mapped device
 * @fn: returns 0 to go on
 */
int device_each(int (*fn)(const char *name, void *arg), void *arg,
		struct error *e);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Mapped devices, through libdevmapper.
 */
#ifndef LF_DM_H
#define LF_DM_H

#include <sys/types.h>

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
	DEVICE_DIRTY_BLOCKS,	/* behind the mode, as all that follow */
	DEVICE_ZERO_BLOCKS,
	DEVICE_WRITES,
	DEVICE_COPY_UPS,
	DEVICE_COMMITS,
	DEVICE_READS_OVERLAY,
	DEVICE_READS_ORIGIN,
	DEVICE_READS_STORE,
	DEVICE_FIELDS,
};

/**
 * struct device_info - STATUSTYPE_INFO of a lazyframe device, decoded
 * @helper: is a helper attached?
 * @error_policy: do reads fail without one, rather than wait?
 * @mode: of the overlay, "rw", "ro" or "fail"; "-" where there is none
 */
struct device_info {
	bool helper;
	bool error_policy;
	char mode[8];
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

/* The devices that a lazyframe table names. */
enum device_part {
	DEVICE_META,
	DEVICE_STORE,
	DEVICE_COW,
	DEVICE_ORIGIN,
};

/**
 * device_part - number of a device that a table names
 *
 * Return: 0 where there is none.
 */
dev_t device_part(const struct device *device, enum device_part part);

/**
 * device_node - where a device is
 * @path: out: its node below /dev, or "<major>:<minor>" where it has none
 * @backing: out: path of the file that it shows if it is a loop device, or ""
 */
void device_node(dev_t number, char *path, size_t path_bytes, char *backing,
		 size_t backing_bytes);

/**
 * device_mapped_name - the name of a mapped device by its number
 *
 * Return: 0, or -ENXIO where it is none.
 */
int device_mapped_name(dev_t number, char name[DEVICE_NAME_MAX + 1]);

/**
 * device_features - the feature words of a table, without those of the overlay
 * @text: out: " <word>..." or ""
 *
 * Return: how many words
 */
u32 device_features(const struct device *device, char *text, size_t bytes);

/**
 * device_is_ours - does it have a lazyframe table, or had it one when it was
 * attached?
 */
bool device_is_ours(const struct device *device);

/**
 * device_create - make a device with one target
 * @uuid: device-mapper's
 * @target: its type
 * @params: arguments of the target; NULL: no table yet
 *
 * /dev/mapper/<name> exists on return, with and without udev. -EEXIST: the
 * name or the UUID is taken.
 */
int device_create(const char *name, const char *uuid, const char *target,
		  u64 sectors, const char *params, bool read_only,
		  struct error *e);

/**
 * device_load - load a table that the next device_resume() activates
 */
int device_load(const char *name, u64 sectors, const char *params,
		bool read_only, struct error *e);

/* Forget the table that was loaded and not activated. */
int device_clear(const char *name, struct error *e);

int device_message(const char *name, const char *message, struct error *e);

/**
 * device_ask - send a message that is answered
 *
 * Return: the answer, to be freed, or NULL and why.
 */
char *device_ask(const char *name, const char *message, struct error *e);

/**
 * device_suspend - stop a device
 * @flush: freeze the file system on it and wait for all its I/O; otherwise what
 *	   waits is sent again after device_resume()
 */
int device_suspend(const char *name, bool flush, struct error *e);

/**
 * device_resume - let a device go on, with the table that was loaded if any
 * @cookie: 0 at first; for device_settle(), behind which the nodes are right of
 *	    all devices that were resumed with it
 */
int device_resume(const char *name, u32 *cookie, struct error *e);
void device_settle(u32 cookie);

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

/* Names of devices, sorted. */
struct device_names {
	char **name;
	size_t count;
};

/**
 * device_names_read - the names of all mapped devices
 * @names: out; release with device_names_drop(), after an error too
 */
int device_names_read(struct device_names *names, struct error *e);
void device_names_drop(struct device_names *names);

#endif

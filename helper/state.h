/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What attach leaves on the host and detach takes away again: the meta files
 * of devices that were attached without --meta.
 */
#ifndef LF_STATE_H
#define LF_STATE_H

#include <stdbool.h>

#include "error.h"

#define STATE_DIR	"/var/lib/lazyframe"	/* survives a reboot */
#define STATE_RUN_DIR	"/run/lazyframe"	/* where that cannot be written */
#define STATE_PATH	256	/* bytes, enough for each path here */

/**
 * state_lock - one attach or detach at a time on this host
 *
 * Waits for others; ends with the process. Return: 0 or a negative errno.
 */
int state_lock(struct error *e);

/* Let others in before the process ends. */
void state_unlock(void);

/**
 * state_lock_device - one seal or export of a device at a time
 * @ends: the device is to be removed: do without the lock if nobody ever took
 *	  it, and remove its file
 *
 * -EBUSY at once if another is at work; ends with the process. Never waits, so
 * it may be taken with and without state_lock().
 */
int state_lock_device(const char *name, bool ends, struct error *e);

/**
 * state_meta_path - where the meta file of a new device goes
 * @keep: it has an overlay: it must survive a reboot
 * @path: out
 */
int state_meta_path(const char *name, bool keep, char path[STATE_PATH],
		    struct error *e);

/**
 * path_absolute - a path that is good in any folder
 * @path: the last part need not exist
 * @out: malloc()ed
 */
int path_absolute(const char *path, char **out, struct error *e);

/**
 * state_each_meta - the places where the meta file of a device may be
 * @index: 0, 1, ...
 *
 * Return: 0, -ENOENT behind the last one.
 */
int state_each_meta(const char *name, unsigned int index,
		    char path[STATE_PATH]);

#endif

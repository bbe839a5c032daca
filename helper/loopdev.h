/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Loop devices for meta and COW devices that are files.
 */
#ifndef LF_LOOPDEV_H
#define LF_LOOPDEV_H

#include <stdbool.h>
#include <sys/stat.h>

#include "error.h"

#define LOOPDEV_PATH	32	/* bytes of "/dev/loop<N>" with its NUL */

/**
 * loopdev_find - the loop device that shows a file
 * @file: identifies it, whatever its path is now
 * @path: out
 *
 * Return: 0, -ENOENT where there is none, or why that cannot be known.
 */
int loopdev_find(const struct stat *file, char path[LOOPDEV_PATH]);

/**
 * loopdev_attach - show a file as a block device
 * @file: path
 * @writable: not read-only, and with direct I/O where the file system has it
 * @path: out: of the loop device
 *
 * The device clears itself when its last user lets go of it, so nobody has to
 * clean it up, and nothing is left after a crash.
 *
 * Return: a file descriptor that keeps the device until something else uses
 * it; the caller closes it. Or a negative errno.
 */
int loopdev_attach(const char *file, bool writable, char path[LOOPDEV_PATH],
		   struct error *e);

/* Let a loop device see that its file has grown. */
int loopdev_resize(const char *path);

/**
 * loopdev_clear - detach a loop device, now or when its last user is gone
 */
int loopdev_clear(const char *path);

#endif

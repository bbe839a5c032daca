/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Loop devices for meta devices that are files.
 */
<<<<<<< HEAD
#ifndef LF_LOOP_H
#define LF_LOOP_H
=======
#ifndef LF_LOOPDEV_H
#define LF_LOOPDEV_H
>>>>>>> dmcli

#include <sys/stat.h>

#include "error.h"

<<<<<<< HEAD
#define LOOP_PATH	32	/* bytes of "/dev/loop<N>" with its NUL */

/**
 * loop_find - the loop device that shows a file
=======
#define LOOPDEV_PATH	32	/* bytes of "/dev/loop<N>" with its NUL */

/**
 * loopdev_find - the loop device that shows a file
>>>>>>> dmcli
 * @file: identifies it, whatever its path is now
 * @path: out
 *
 * Return: 0, -ENOENT where there is none, or why that cannot be known.
 */
<<<<<<< HEAD
int loop_find(const struct stat *file, char path[LOOP_PATH]);

/**
 * loop_attach - show a file as a read-only block device
=======
int loopdev_find(const struct stat *file, char path[LOOPDEV_PATH]);

/**
 * loopdev_attach - show a file as a read-only block device
>>>>>>> dmcli
 * @file: path
 * @path: out: of the loop device
 *
 * The device clears itself when its last user lets go of it, so nobody has to
 * clean it up, and nothing is left after a crash.
 *
 * Return: a file descriptor that keeps the device until something else uses
 * it; the caller closes it. Or a negative errno.
 */
<<<<<<< HEAD
int loop_attach(const char *file, char path[LOOP_PATH], struct error *e);

/**
 * loop_clear - detach a loop device, now or when its last user is gone
 */
int loop_clear(const char *path);
=======
int loopdev_attach(const char *file, char path[LOOPDEV_PATH], struct error *e);

/**
 * loopdev_clear - detach a loop device, now or when its last user is gone
 */
int loopdev_clear(const char *path);
>>>>>>> dmcli

#endif

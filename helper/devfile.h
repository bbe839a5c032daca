/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Meta and COW devices by their paths: block devices or regular files that
 * nobody uses.
 */
#ifndef LF_DEVFILE_H
#define LF_DEVFILE_H

#include "../kmod/pure.h"
#include "error.h"

/**
 * struct devfile - an open block device or file
 * @fd: -1 where it is not open
 * @bytes: its size
 * @is_file: a regular file, no block device
 * @created: made by devfile_open()
 */
struct devfile {
	int fd;
	u64 bytes;
	bool is_file;
	bool created;
};

enum devfile_how {
	DEVFILE_READ,
	DEVFILE_WRITE,
	DEVFILE_CREATE,	/* a file of mode 0600 if there is nothing yet */
};

/**
 * devfile_open - open it, unless it is in use
 * @file: out; devfile_close() it, after a failure too
 *
 * -EBUSY: it is mounted, mapped, shown by a loop device or otherwise in use.
 * -ENOENT: there is no such path. -ENOTBLK: neither device nor file.
 */
int devfile_open(const char *path, enum devfile_how how, struct devfile *file,
		 struct error *e);

/**
 * devfile_grow - give a file at least this size, sparse
 *
 * -ENOSPC: a block device is smaller.
 */
int devfile_grow(struct devfile *file, const char *path, u64 bytes,
		 struct error *e);

/* May be called again, and for one that was never opened (fd -1). */
void devfile_close(struct devfile *file);

#endif

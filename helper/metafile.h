/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A meta device by its path, a block device or a regular file: what `format`
 * and `attach` may do to it.
 */
#ifndef LF_METAFILE_H
#define LF_METAFILE_H

#include "devfile.h"
#include "meta.h"

/**
 * struct metafile - what metafile_write() found or made
 * @is_file: a regular file, no block device
 * @created: made by this call
 */
struct metafile {
	bool is_file;
	bool created;
};

/**
 * metafile_write - write a meta device to a path
 * @path: a block device that nobody uses, a regular file, or nothing yet: then
 *	  a file of mode 0600 is made. A file is grown where that is needed.
 * @plan: what to write
 * @cow: as meta_plan_write() takes it
 * @force: write over another image's tables, an overlay, and foreign data, too
 * @made: out
 *
 * Whatever is refused stays as it was, and a file that was made here is
 * removed again. -EEXIST: refused for lack of @force. -EBUSY: it is mounted,
 * mapped, shown by a loop device or otherwise in use. -ENOSPC: too small.
 */
int metafile_write(const char *path, const struct meta_plan *plan, int cow,
		   bool force, struct metafile *made, struct error *e);

/* Is there an overlay that was written to? Damaged ones count. */
bool metafile_has_overlay(const char *path);

/**
 * cowfile_open - open what is to be the COW device of a new overlay
 * @path: as metafile_write()'s
 * @tree: shape of the overlay
 * @file: out; devfile_close() it. It has the size that is needed.
 *
 * -EEXIST: it holds data, or an overlay that may have some; not with @force.
 * A file that was made here is removed again after a failure.
 */
int cowfile_open(const char *path, const struct lf_tree *tree, bool force,
		 struct devfile *file, struct error *e);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A meta device by its path, a block device or a regular file: what `format`
 * and `attach` may do to it.
 */
#ifndef LF_METAFILE_H
#define LF_METAFILE_H

#include "error.h"
#include "image.h"

/**
 * struct metafile - what metafile_format() found or made
 * @is_file: a regular file, no block device
 * @created: made by this call
 */
struct metafile {
	bool is_file;
	bool created;
};

/**
 * metafile_format - write an image's tables to a path
 * @path: a block device that nobody uses, a regular file, or nothing yet: then
 *	  a file of mode 0600 is made. A file is grown where that is needed.
 * @image: what to write
 * @force: write over another image's tables and over foreign data, too
 * @made: out
 *
 * Whatever is refused stays as it was, and a file that was made here is
 * removed again. -EEXIST: refused for lack of @force. -EBUSY: it is mounted,
 * mapped, shown by a loop device or otherwise in use. -ENOSPC: too small.
 */
int metafile_format(const char *path, const struct image *image, bool force,
		    struct metafile *made, struct error *e);

#endif

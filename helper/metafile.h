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
 * metafile_format - write an image's tables to a path
 * @path: a block device that nobody uses, a regular file, or nothing yet: then
 *	  a file of mode 0600 is made. A file is grown where that is needed.
 * @image: what to write
 * @force: write over another image's tables and over foreign data, too
 * @is_file: out: is it a regular file?
 *
 * Whatever is refused stays as it was, and a file that was made here is
 * removed again. -EEXIST: refused for lack of @force. -EBUSY: it is mounted,
 * mapped, shown by a loop device or otherwise in use. -ENOSPC: too small.
 */
int metafile_format(const char *path, const struct image *image, bool force,
		    bool *is_file, struct error *e);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The zstd seekable format's seek table (version 0.1.0 of its description):
 * the skippable frame at the end of a data object. Pure code.
 */
#ifndef LF_SEEKTABLE_H
#define LF_SEEKTABLE_H

#include "../kmod/disk.h"

#define SEEKTABLE_FOOTER_BYTES	9	/* last bytes of the object */

/**
 * seektable_size - bytes of the whole skippable frame, from its footer
 * @footer: the object's last SEEKTABLE_FOOTER_BYTES
 * @object_bytes: size of the object
 * @bytes: out
 *
 * Return: 0; -ENOENT: these are not a seek table's last bytes;
 * -EINVAL: they are, but impossible ones.
 */
int seektable_size(const void *footer, u64 object_bytes, u64 *bytes,
		   const char **why);

/**
 * seektable_frames - number of frames that a table holds
 * @table: the whole skippable frame
 * @bytes: its size, from seektable_size()
 */
int seektable_frames(const void *table, u64 bytes, u32 *frames,
		     const char **why);

/**
 * seektable_read - decode and check a table
 * @table: the whole skippable frame
 * @bytes: its size
 * @object_bytes: size of the object, table included
 * @pos: out, as many as seektable_frames() said. Entries of zero U bytes
 *	 (skippable frames between data frames) are left out.
 * @frames: out: entries of @pos filled
 * @ubytes: out: sum of the U sizes
 */
int seektable_read(const void *table, u64 bytes, u64 object_bytes,
		   struct lf_frame_pos *pos, u32 *frames, u64 *ubytes,
		   const char **why);

/**
 * seektable_bytes - size of the table for so many frames, with checksums
 */
u64 seektable_bytes(u32 frames);

/**
 * seektable_write - encode a table
 * @pos: frames back to back from 0 in both spaces, with sums
 * @out: seektable_bytes(@frames) bytes
 */
void seektable_write(const struct lf_frame_pos *pos, u32 frames, void *out);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writes meta devices: what kmod/disk.h lays out, from an opened image.
 */
#ifndef LF_META_H
#define LF_META_H

#include "error.h"
#include "image.h"

/**
 * meta_bytes - size of the meta device that an image needs
 *
 * Return: bytes, a multiple of LF_META_BLOCK. O(frames).
 */
u64 meta_bytes(const struct image *image);

/**
 * meta_write - make a meta device
 * @fd: the device or file, open for writing
 * @dev_bytes: its size
 * @image: what it is to describe; any image, it is checked
 *
 * Everything is encoded and then checked by the same code that the module
 * uses before the first byte is written. What block 0 held is wiped first and
 * the superblock is written last, each made durable before the next step: a
 * crash leaves a device that is refused, never one that is wrong. The same
 * image gives the same bytes.
 *
 * -ENOSPC: the device is too small, the text has both sizes. -EINVAL: the
 * image cannot be described. Both leave the device as it was.
 */
int meta_write(int fd, u64 dev_bytes, const struct image *image,
	       struct error *e);

/**
 * meta_read_super - read and check the superblock of a device
 * @fd: open for reading
 * @dev_bytes: its size
 * @super: out
 * @why: out for -EINVAL: static sentence
 *
 * Return: 0, -ENODATA: block 0 is zeros or the device has none, -EINVAL: block
 * 0 is damaged, -EMEDIUMTYPE: it holds something else, or a read error.
 */
int meta_read_super(int fd, u64 dev_bytes, struct lf_super *super,
		    const char **why);

/**
 * meta_sectors - size of the mapped device
 */
static inline u64 meta_sectors(u64 image_bytes)
{
	return image_bytes / 512 + !!(image_bytes % 512);
}

#endif

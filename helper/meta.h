/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writes meta devices: what kmod/disk.h lays out, from an opened image.
 */
#ifndef LF_META_H
#define LF_META_H

#include "../kmod/overlay_disk.h"
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

/*
 * Behind what layers refer to, STRINGS holds notes for tools, lines like
 * "image=<url>\n". The module does not look at them.
 */
#define META_NOTE_URL		"image"		/* of the image */
#define META_NOTE_SHA256	"sha256"	/* of its header, in hex */
/* Paths of the sealed overlay below; or, without one, that was last exported. */
#define META_NOTE_ORIGIN_META	"origin_meta"
#define META_NOTE_ORIGIN_COW	"origin_cow"

struct meta_plan;

/**
 * struct meta_overlay - the overlay that a new meta device is to have
 * @uuid: its own
 * @origin: of the sealed overlay below; all zero: the image lies below
 * @origin_meta: path of that one's meta device, or NULL
 * @origin_cow: and of its COW device
 */
struct meta_overlay {
	u8 uuid[16];
	u8 origin[16];
	const char *origin_meta;
	const char *origin_cow;
};

/**
 * meta_plan_image - the content of a new meta device, encoded in memory
 * @plan: out; release with meta_plan_free()
 */
int meta_plan_image(struct meta_plan **plan, const struct image *image,
		    struct error *e);

/**
 * meta_plan_read - the same from another meta device, without its overlay
 * @fd: open for reading
 * @super: of it, read and checked
 */
int meta_plan_read(struct meta_plan **plan, int fd,
		   const struct lf_super *super, struct error *e);

/**
 * meta_plan_overlay - with a new overlay
 */
int meta_plan_overlay(struct meta_plan *plan, const struct meta_overlay *o,
		      struct error *e);

/**
 * meta_plan_note - set a note, or replace it
 */
int meta_plan_note(struct meta_plan *plan, const char *key, const char *value,
		   struct error *e);

void meta_plan_free(struct meta_plan *plan);

/* Bytes that the device must have. */
u64 meta_plan_bytes(const struct meta_plan *plan);

/* The image's UUID, 16 bytes. */
const u8 *meta_plan_uuid(const struct meta_plan *plan);

/* The shape of its overlay, NULL where it has none. */
const struct lf_tree *meta_plan_tree(const struct meta_plan *plan);

/**
 * meta_plan_write - make a meta device, as meta_write() does
 * @cow: open for writing: the COW device; -1 where there is no overlay
 *
 * The COW device's identity is written before the superblock.
 */
int meta_plan_write(const struct meta_plan *plan, int fd, u64 dev_bytes,
		    int cow, struct error *e);

/**
 * meta_plan_beside - lay it out where a device has room now
 * @live: the superblock in use, of a device with an overlay
 *
 * The overlay stays where it is. Without an origin.
 */
void meta_plan_beside(struct meta_plan *plan, const struct lf_super *live);

/**
 * meta_plan_replace - give a device another image below its overlay
 * @plan: laid out by meta_plan_beside() for that device
 *
 * The device may be in use: neither the overlay nor what the superblock in use
 * names is touched, and the other superblock is written in one step.
 */
int meta_plan_replace(const struct meta_plan *plan, int fd, u64 dev_bytes,
		      struct error *e);

/**
 * meta_note - read a note
 * @value: out, malloc()ed; NULL where there is no such note
 */
int meta_note(int fd, const struct lf_super *super, const char *key,
	      char **value, struct error *e);

/**
 * meta_read_region - read a region and check its sum; not for OVERLAY
 * @data: out, malloc()ed
 */
int meta_read_region(int fd, const struct lf_super *super, u32 region,
		     void **data, struct error *e);

/**
 * meta_check_regions - the checks that the module makes behind the superblock's
 * @region: by enum lf_region, @super's sizes; OVERLAY is not looked at
 */
int meta_check_regions(void *const *region, const struct lf_super *super,
		       struct error *e);

/* Set the checksum of a superblock that is complete. */
void meta_super_finish(struct lf_disk_super *super);

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
 * meta_open - open a meta device that may be in use, and read its superblock
 * @flags: O_RDONLY or O_RDWR
 * @super: out
 *
 * Return: a file descriptor, or an error.
 */
int meta_open(const char *path, int flags, struct lf_super *super,
	      struct error *e);

/**
 * meta_sectors - size of the mapped device
 */
static inline u64 meta_sectors(u64 image_bytes)
{
	return image_bytes / 512 + !!(image_bytes % 512);
}

#endif

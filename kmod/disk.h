/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The meta device: layout, and the pure code that checks and searches it.
 *
 * The device is an array of 4 KiB blocks. Blocks 0 and 1 are two slots for the
 * superblock: the one with the higher sequence number counts, so that another
 * image can take the place of the first in one step, below a live overlay. It
 * names regions, each a byte array that starts on a block of its own and, but
 * for OVERLAY, carries an XXH64. All numbers are little-endian; offsets and sizes
 * are bytes unless a field says blocks.
 *
 *	LAYERS	struct lf_disk_layer[]	the layers, any order
 *	EXTENTS	struct lf_disk_extent[]	image space -> U space of a layer,
 *					ascending; what no extent covers is zero
 *	RUNS	struct lf_disk_run[]	all layers' runs, one layer after another
 *	FRAMES	struct lf_disk_frame[]	all layers' frames, likewise
 *	STRINGS	bytes			locators and validators, no NULs
 *	OVERLAY	see overlay_disk.h	empty where the device has no COW device
 *
 * A frame table is stored as runs: up to LF_RUN_FRAMES frames that have the
 * same U size and lie back to back in both spaces. A gap, a short last frame
 * or a tool that cuts frames of any size just begins a new run. So the usual
 * table costs under 9 bytes a frame, and one search serves every table.
 */
#ifndef LF_DISK_H
#define LF_DISK_H

#include "pure.h"

#define LF_META_MAGIC		"LZYFRAME"
#define LF_META_VERSION		1
#define LF_META_BLOCK		4096
#define LF_SUPER_SLOTS		2

#define LF_RUN_FRAMES		32
#define LF_MAX_LAYERS		65535U
#define LF_MAX_EXTENTS		(8U << 20)
#define LF_MAX_FRAMES		(1U << 20)	/* of one layer */
#define LF_MAX_ALL_FRAMES	(64U << 20)	/* of one image */
#define LF_MAX_IMAGE		(1ULL << 44)	/* bytes: 16 TiB */
#define LF_MAX_STRINGS		(256U << 20)

/* Blocks that so many bytes take */
static inline u64 lf_meta_blocks(u64 bytes)
{
	return div_u64(bytes, LF_META_BLOCK) + !!(bytes % LF_META_BLOCK);
}

enum lf_region {
	LF_REGION_LAYERS,
	LF_REGION_EXTENTS,
	LF_REGION_RUNS,
	LF_REGION_FRAMES,
	LF_REGION_STRINGS,
	LF_REGION_OVERLAY,
	LF_REGIONS,
	LF_MAX_REGIONS = 32,
};

/* @start: block; @bytes: without the last block's padding; @sum: XXH64, seed 0 */
struct lf_disk_region {
	__le64 start;
	__le64 bytes;
	__le64 sum;
};

struct lf_disk_super {
	__u8 magic[8];
	__le32 version;
	__le32 block_bytes;		/* LF_META_BLOCK */
	__le64 features;		/* unknown bits: refuse */
	__u8 uuid[16];			/* of the image */
	__u8 base_uuid[16];
	__le64 generation;		/* of the image's header */
	__le64 image_bytes;		/* exact size of the image */
	__le64 blocks;			/* of the meta device in use */
	__le32 regions;			/* LF_REGIONS */
	__le32 reserved;
	struct lf_disk_region region[LF_MAX_REGIONS];
	__le64 sequence;		/* its slot is the lowest bit */
	__u8 origin[16];		/* the sealed overlay below, in the image's place */
	__u8 zero[4096 - 88 - LF_MAX_REGIONS * 24 - 24 - 8];
	__le64 sum;			/* XXH64 of the block's first 4088 bytes */
};

#define LF_LAYER_SUMS	(1U << 0)	/* lf_disk_frame.sum is valid */

struct lf_disk_layer {
	__u8 uuid[16];
	__le32 codec;			/* LAZYFRAME_CODEC_* */
	__le32 flags;			/* LF_LAYER_*; unknown bits: refuse */
	__le64 ubytes;			/* size in U space; beyond reads as zero */
	__le64 cbytes;			/* size of the data object */
	__le32 first_run;		/* index into RUNS */
	__le32 runs;
	__le32 first_frame;		/* index into FRAMES */
	__le32 frames;
	__le32 locator;			/* offset in STRINGS */
	__le32 locator_bytes;
	__le32 validator;		/* offset in STRINGS */
	__le32 validator_bytes;
	__le64 reserved;
};

/*
 * @start, @length and @storage are multiples of 512, except the length of an
 * extent that ends the image. @storage is below the layer's ubytes, @storage +
 * @length may exceed it by less than a block: an image's last block is stored
 * without its padding.
 */
struct lf_disk_extent {
	__le64 start;			/* in the image */
	__le64 length;
	__le64 storage;			/* U offset in the layer */
	__le32 layer;			/* index into LAYERS */
	__le32 reserved;
};

struct lf_disk_run {
	__le64 ustart;
	__le64 cstart;
	__le32 ubytes;			/* U size of each frame of the run */
	__le32 first;			/* frame, counted within the layer */
};

struct lf_disk_frame {
	__le32 cbytes;
	__le32 sum;			/* low 32 bits of the content's XXH64 */
};

/**
 * struct lf_super - a superblock that was checked, in CPU order
 */
struct lf_super {
	u8 uuid[16];
	u8 base_uuid[16];
	u8 origin[16];
	u64 sequence;
	u64 generation;
	u64 image_bytes;
	u64 blocks;
	struct {
		u64 start;		/* block */
		u64 bytes;
		u64 sum;
	} region[LF_REGIONS];
	u32 layers;
	u32 extents;
	u32 runs;
	u32 frames;
};

/**
 * struct lf_table - one layer's frame table, as it is on disk
 */
struct lf_table {
	const struct lf_disk_run *run;
	const struct lf_disk_frame *frame;
	u32 runs;
	u32 frames;
	bool sums;
};

/**
 * struct lf_frame_pos - where a frame is
 * @ustart: U offset, bytes
 * @cstart: C offset, bytes
 * @ubytes: U size
 * @cbytes: C size
 * @sum: low 32 bits of the content's XXH64, valid if @has_sum
 * @index: number of the frame in the table
 */
struct lf_frame_pos {
	u64 ustart;
	u64 cstart;
	u32 ubytes;
	u32 cbytes;
	u32 sum;
	u32 index;
	bool has_sum;
};

/*
 * All of these may be called from any context. They return 0 or a negative
 * errno with *@why set to a static sentence without a full stop.
 */

/**
 * lf_super_check - check one slot and decode it
 * @block: LF_META_BLOCK bytes
 * @slot: which
 * @dev_bytes: size of the meta device
 * @super: out
 * @why: out, the reason for -EINVAL
 */
int lf_super_check(const void *block, u32 slot, u64 dev_bytes,
		   struct lf_super *super, const char **why);

/**
 * lf_super_pick - check both slots and decode the one that counts
 * @slots: LF_SUPER_SLOTS blocks
 *
 * A slot that was never written, or was not written completely, does not count.
 */
int lf_super_pick(const void *slots, u64 dev_bytes, struct lf_super *super,
		  const char **why);

/* Is there a sealed overlay below? */
bool lf_super_has_origin(const struct lf_super *super);

/**
 * lf_layer_check - check one entry of LAYERS against the superblock
 */
int lf_layer_check(const struct lf_disk_layer *layer,
		   const struct lf_super *super, const char **why);

/**
 * lf_table_check - check a whole frame table
 * @table: the layer's part of RUNS and FRAMES
 * @codec: LAZYFRAME_CODEC_*
 * @ubytes: the layer's size in U space
 * @cbytes: the layer's size in C space
 *
 * Runs ascend in both spaces without overlap, every frame has a legal size and
 * lies inside both spaces. O(frames).
 */
int lf_table_check(const struct lf_table *table, u32 codec, u64 ubytes,
		   u64 cbytes, const char **why);

/**
 * lf_table_find - the frame that holds a U offset
 *
 * Return: 0, or -ENOENT where no frame holds it. O(log runs).
 */
int lf_table_find(const struct lf_table *table, u64 uoff,
		  struct lf_frame_pos *pos);

/**
 * lf_extents_check - check the whole extent array
 * @layer: the layers that extents may name, checked before
 * @layers: how many
 * @image_bytes: size of the image
 */
int lf_extents_check(const struct lf_disk_extent *extent, u32 extents,
		     const struct lf_disk_layer *layer, u32 layers,
		     u64 image_bytes, const char **why);

/**
 * lf_extents_find - the first extent that ends behind an image offset
 *
 * Return: its index; @extents where there is none. The extent may begin behind
 * @off: then what lies between is zero. O(log extents).
 */
u32 lf_extents_find(const struct lf_disk_extent *extent, u32 extents, u64 off);

#endif /* LF_DISK_H */

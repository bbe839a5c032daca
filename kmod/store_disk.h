/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The store on disk: compressed frames of all layers, on one block device.
 *
 * Blocks of LF_META_BLOCK bytes, all numbers little-endian:
 *
 *	block 0, 1	struct lf_disk_store, twice the same
 *	then		struct lf_disk_store_layer[layers]
 *	then		a summary for each segment
 *	data_start	the segments, back to back
 *
 * A segment is filled with frames from its beginning; then, or a little while
 * after the first of them, its summary says which they are and where.
 *
 * Crash argument. A summary is written when the data that it names is durable.
 * Before a segment is filled anew its summary is wiped, and that is durable
 * before the first byte changes ("forget first, free second"). So a summary
 * that is whole tells the truth. One that is not has a wrong checksum, and
 * costs its segment's frames: they are fetched again. Layers are named by their
 * place in the table of layers; should an entry outlive its layer's place, the
 * entry's checksum, which the layer's UUID is part of, does not fit.
 */
#ifndef LF_STORE_DISK_H
#define LF_STORE_DISK_H

#include "disk.h"

#define LF_STORE_MAGIC		"LZYSTORE"
#define LF_STORE_VERSION	1
#define LF_STORE_COPIES		2U	/* of the superblock */

/* What of a segment one block of its summary describes, and how many frames. */
#define LF_SUMMARY_UNIT		(4U << 20)
#define LF_SUMMARY_ENTRIES	252U
#define LF_SUMMARY_MAGIC	0x79726d73U

#define LF_SEGMENT_MIN		LF_SUMMARY_UNIT
#define LF_SEGMENT_MAX		(32U << 20)
#define LF_STORE_MIN_SEGMENTS	8U
#define LF_STORE_MAX_BYTES	(1ULL << 44)
#define LF_STORE_MIN_LAYERS	128U
#define LF_STORE_MAX_LAYERS	65408U
/* Bytes of a store for which it can name one layer more. */
#define LF_STORE_LAYER_UNIT	(1U << 20)

struct lf_disk_store {
	__u8 magic[8];
	__le32 version;
	__le32 segment_bytes;
	__u8 uuid[16];
	__le64 bytes;			/* of the device that was formatted */
	__le32 segments;
	__le32 layers;
	__le64 reserved[505];
	__le64 sum;			/* XXH64 of what is in front of it */
};

/* @sum: low half of the XXH64 of what is in front of it; all zeros: free */
struct lf_disk_store_layer {
	__u8 uuid[16];
	__le32 flags;			/* LF_STORE_PINNED */
	__le32 reserved[2];
	__le32 sum;
};

#define LF_STORE_PINNED		1U

/*
 * @key: lf_store_key()
 * @offset: in the segment, in sectors of 512 bytes
 * @sectors: that the frame takes
 * @sum: lf_store_sum()
 */
struct lf_disk_store_entry {
	__le64 key;
	__le16 offset;
	__le16 sectors;
	__le32 sum;
};

/*
 * @sum: XXH64 of the summary behind it, all its blocks
 * @sequence: counts the segments that were begun; higher is younger
 * @log: enum lf_store_log
 */
struct lf_disk_summary {
	__le64 sum;
	__u8 store[16];
	__le64 sequence;
	__le32 magic;
	__le32 segment;
	__le32 entries;
	__le32 log;
	__le64 reserved[2];
	struct lf_disk_store_entry entry[];
};

/* Where frames come in, and where those stay that were read again. */
enum lf_store_log {
	LF_LOG_YOUNG,
	LF_LOG_MAIN,
	LF_LOGS,
};

/**
 * struct lf_store_shape - where everything is
 *
 * @segment_bytes: a multiple of LF_SUMMARY_UNIT
 * @summary_blocks: of one segment
 * @slots: entries that one summary has room for
 * @summary_start: block
 * @data_start: block
 */
struct lf_store_shape {
	u32 segment_bytes;
	u32 segments;
	u32 layers;
	u32 summary_blocks;
	u32 slots;
	u64 summary_start;
	u64 data_start;
};

/* A key: the layer's place in the table, and the frame's C offset in the layer. */
#define LF_STORE_OFFSET_BITS	44

static inline u64 lf_store_key(u32 layer, u64 cstart)
{
	return (u64)layer << LF_STORE_OFFSET_BITS | cstart;
}

static inline u32 lf_store_key_layer(u64 key)
{
	return key >> LF_STORE_OFFSET_BITS;
}

/**
 * lf_store_plan - the shape of a store on a device of so many bytes
 *
 * Return: 0, or -EINVAL: it is too small or too big.
 */
int lf_store_plan(u64 bytes, struct lf_store_shape *shape, const char **why);

/**
 * lf_store_pick - check a store's superblock
 * @copies: LF_STORE_COPIES blocks
 * @dev_bytes: of the device
 * @super: out, the one to believe
 *
 * Return: 0; -EINVAL with @why: neither copy is right.
 */
int lf_store_pick(const void *copies, u64 dev_bytes,
		  const struct lf_disk_store **super,
		  struct lf_store_shape *shape, const char **why);

/* Set magic, version and checksum. */
void lf_store_finish(struct lf_disk_store *super);

/**
 * lf_store_layer_ok - is this place in the table of layers taken, and whole?
 */
bool lf_store_layer_ok(const struct lf_disk_store_layer *layer);
void lf_store_layer_finish(struct lf_disk_store_layer *layer);

/**
 * lf_summary_check - check a segment's summary
 * @summary: shape->summary_blocks blocks
 * @segment: number of the segment it should be of
 *
 * Return: 0; -ENODATA: the segment is free; -EINVAL with @why.
 */
int lf_summary_check(const struct lf_disk_summary *summary,
		     const struct lf_store_shape *shape, const u8 store[16],
		     u32 segment, const char **why);
void lf_summary_finish(struct lf_disk_summary *summary,
		       const struct lf_store_shape *shape);

/* Block of a segment's summary, and of its data */
static inline u64 lf_summary_place(const struct lf_store_shape *shape,
				   u32 segment)
{
	return shape->summary_start + (u64)segment * shape->summary_blocks;
}

static inline u64 lf_segment_place(const struct lf_store_shape *shape,
				   u32 segment)
{
	return shape->data_start +
	       (u64)segment * (shape->segment_bytes / LF_META_BLOCK);
}

/**
 * lf_store_name - what a frame is called, whatever place its layer has
 * @uuid: of its layer
 * @key: only the frame's C offset counts
 *
 * Return: a hash.
 */
u64 lf_store_name(const u8 uuid[16], u64 key);

/**
 * lf_store_sum - the checksum of a stored frame, with its padding
 * @uuid: of its layer
 * @key: only the frame's C offset counts
 * @sectors: of 512 bytes
 */
u32 lf_store_sum(const u8 uuid[16], u64 key, const void *data, u32 sectors);

#endif /* LF_STORE_DISK_H */

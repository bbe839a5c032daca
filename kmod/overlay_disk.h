/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The overlay on disk: what a device wrote since it was made, in two places.
 *
 * The COW device holds the data. Block n of the image is its block n; behind
 * the image's last block lie two copies of struct lf_disk_cow, its identity.
 *
 * The meta device's region OVERLAY holds which blocks: a tree of fixed shape.
 * All numbers are little-endian, all nodes are blocks of LF_META_BLOCK bytes.
 *
 *	block 0..3	root	slot 0 twice, slot 1 twice
 *	then		index	2 slots each
 *	then		leaf	2 slots each
 *
 * Crash argument. A commit writes each changed leaf and index into the slot
 * that the last root does not name, makes that durable, and then writes the
 * root with the next sequence number into the slot of the last but one. So
 * until the new root is complete, the old one and all that it names are
 * untouched. A root names its children by slot and checksum: one that is
 * older, newer, damaged or not where it belongs does not fit, and is an error.
 * Each root is there twice, so that damage to a block of it does not pass for
 * an interrupted commit.
 *
 * Epochs bind the two devices. They count activations for writing; each is
 * written to the root (as LF_ROOT_ACTIVATING), then to the COW device, then to
 * the root without the flag. So a device that was replaced by an older copy of
 * itself has a smaller epoch than the other.
 */
#ifndef LF_OVERLAY_DISK_H
#define LF_OVERLAY_DISK_H

#include "disk.h"

#define LF_LEAF_BLOCKS		16384U	/* of the image: 64 MiB */
#define LF_LEAF_WORDS		(LF_LEAF_BLOCKS / 64)
#define LF_INDEX_LEAVES		504U
#define LF_ROOT_INDEXES		448U
#define LF_ROOT_SLOTS		2U
#define LF_ROOT_COPIES		2U
#define LF_ROOT_BLOCKS		(LF_ROOT_SLOTS * LF_ROOT_COPIES)
/* Blocks of an image that can have an overlay: 13.8 TiB. */
#define LF_OVERLAY_MAX_BLOCKS						\
	((u64)LF_ROOT_INDEXES * LF_INDEX_LEAVES * LF_LEAF_BLOCKS)

/*
 * Bit n: of the block n blocks behind the leaf's first. Dirty: it is on the COW
 * device. Zero: it reads as zeros. Neither: it is the image's. Never both.
 */
struct lf_disk_leaf {
	__le64 dirty[LF_LEAF_WORDS];
	__le64 zero[LF_LEAF_WORDS];
};

/*
 * @sum: lf_node_sum() of each leaf; 0: never written, all blocks are the image's
 * @slot: bit n: which slot of leaf n is valid
 */
struct lf_disk_index {
	__le64 sum[LF_INDEX_LEAVES];
	__le64 slot[8];
};

#define LF_ROOT_MAGIC		"LZYFROOT"
#define LF_ROOT_VERSION		1
#define LF_ROOT_ACTIVATING	(1U << 0)	/* the COW device may have epoch - 1 */
#define LF_ROOT_SEALED		(1U << 1)	/* never to be written again */

struct lf_disk_root {
	__u8 magic[8];
	__le32 version;
	__le32 flags;			/* LF_ROOT_*; unknown bits: refuse */
	__u8 uuid[16];			/* of the overlay; the same on the COW device */
	__le64 sequence;		/* of the commit; its slot is the lowest bit */
	__le64 epoch;
	__le64 blocks;			/* of the image */
	__le64 dirty;			/* how many blocks are */
	__le64 zero;
	__le64 sum[LF_ROOT_INDEXES];	/* as in struct lf_disk_index */
	__le64 slot[7];
	__u8 pad[4096 - 72 - LF_ROOT_INDEXES * 8 - 7 * 8 - 8];
	__le64 self;			/* XXH64 of the block's first 4088 bytes */
};

#define LF_COW_MAGIC		"LZYFRCOW"
#define LF_COW_VERSION		1
#define LF_COW_COPIES		2U

struct lf_disk_cow {
	__u8 magic[8];
	__le32 version;
	__le32 reserved;
	__u8 uuid[16];
	__le64 epoch;			/* the copy's number is the lowest bit */
	__le64 blocks;			/* of the image, before this */
	__u8 pad[4096 - 48 - 8];
	__le64 self;
};

/**
 * struct lf_tree - the shape of an overlay's tree
 * @blocks: of the image
 */
struct lf_tree {
	u64 blocks;
	u32 leaves;
	u32 indexes;
};

/* Places in the region OVERLAY, in blocks. */
static inline u64 lf_root_place(u64 sequence, u32 copy)
{
	return sequence % LF_ROOT_SLOTS * LF_ROOT_COPIES + copy;
}

static inline u64 lf_index_place(u32 index, u32 slot)
{
	return LF_ROOT_BLOCKS + 2 * (u64)index + slot;
}

static inline u64 lf_leaf_place(const struct lf_tree *tree, u32 leaf, u32 slot)
{
	return LF_ROOT_BLOCKS + 2 * (u64)tree->indexes + 2 * (u64)leaf + slot;
}

/* Size of the region. */
static inline u64 lf_tree_bytes(const struct lf_tree *tree)
{
	return lf_leaf_place(tree, tree->leaves, 0) * LF_META_BLOCK;
}

/* What a COW device must have. */
static inline u64 lf_cow_bytes(const struct lf_tree *tree)
{
	return (tree->blocks + LF_COW_COPIES) * LF_META_BLOCK;
}

/* Bit @n of an array of slots. */
static inline u32 lf_slot_get(const __le64 *slot, u32 n)
{
	return le64_to_cpu(slot[n / 64]) >> (n % 64) & 1;
}

static inline void lf_slot_flip(__le64 *slot, u32 n)
{
	slot[n / 64] ^= cpu_to_le64(1ULL << (n % 64));
}

/*
 * All of these may be called from any context and return 0, or -EINVAL with
 * *@why set to a static sentence without a full stop.
 */

/**
 * lf_tree_shape - the tree of an image's overlay
 * @image_bytes: size of the image
 */
int lf_tree_shape(u64 image_bytes, struct lf_tree *tree, const char **why);

/**
 * lf_node_sum - checksum of a leaf or an index
 * @block: LF_META_BLOCK bytes
 * @number: which leaf or index it is
 *
 * Return: XXH64 with the number as its seed; 1 in place of 0.
 */
u64 lf_node_sum(const void *block, u64 number);

/**
 * lf_root_check - check one copy of a root
 * @place: where it was read, 0 to LF_ROOT_BLOCKS - 1
 */
int lf_root_check(const struct lf_disk_root *root, const struct lf_tree *tree,
		  u32 place, const char **why);

/**
 * lf_root_pick - the root of the last commit
 * @roots: the region's first LF_ROOT_BLOCKS blocks
 * @root: out, points into @roots
 */
int lf_root_pick(const void *roots, const struct lf_tree *tree,
		 const struct lf_disk_root **root, const char **why);

/**
 * lf_leaf_check - is no block of a leaf dirty and zero, and none behind the end?
 * @leaf: read and found to have the right sum
 * @number: which leaf
 */
int lf_leaf_check(const struct lf_disk_leaf *leaf, const struct lf_tree *tree,
		  u32 number, const char **why);

/**
 * lf_cow_pick - the identity of a COW device
 * @copies: LF_COW_COPIES blocks from block @tree->blocks on
 * @cow: out, points into @copies
 */
int lf_cow_pick(const void *copies, const struct lf_tree *tree,
		const struct lf_disk_cow **cow, const char **why);

/**
 * lf_pair_check - do a meta device and a COW device belong together, today?
 */
int lf_pair_check(const struct lf_disk_root *root,
		  const struct lf_disk_cow *cow, const char **why);

/**
 * lf_root_finish - set magic, version and checksum of a root that is complete
 */
void lf_root_finish(struct lf_disk_root *root);
void lf_cow_finish(struct lf_disk_cow *cow);

#endif /* LF_OVERLAY_DISK_H */

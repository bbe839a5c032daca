/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Overlays, offline: new ones, and what is dirty and zero in those that nobody
 * writes. kmod/overlay_disk.h has the layout.
 */
#ifndef LF_OVERLAY_H
#define LF_OVERLAY_H

#include "../kmod/overlay_disk.h"
#include "error.h"

/**
 * struct overlay - an overlay's tree, open for reading
 * @fd: the meta device, the caller's
 * @base: offset of the region OVERLAY in it, bytes
 * @root: of the last commit
 * @index: the index that was read last, number @loaded
 */
struct overlay {
	int fd;
	u64 base;
	struct lf_tree tree;
	struct lf_disk_root root;
	struct lf_disk_index index;
	u32 loaded;
};

/* What a block of an overlay is. */
enum overlay_kind {
	OVERLAY_CLEAN,
	OVERLAY_DIRTY,
	OVERLAY_ZERO,
};

/**
 * overlay_open - read the root of an overlay
 * @fd: the meta device; not the overlay of an active device that is being written
 * @super: its superblock
 *
 * -ENODATA: the meta device has no overlay. -EINVAL: it is damaged.
 */
int overlay_open(int fd, const struct lf_super *super, struct overlay *o,
		 struct error *e);

/**
 * overlay_index, overlay_leaf - read a node of the tree and check it
 * @number: which
 * @node: out; all zeros where it was never written
 *
 * -EBADMSG: not what the node above says.
 */
int overlay_index(const struct overlay *o, u32 number,
		  struct lf_disk_index *node, struct error *e);
int overlay_leaf(struct overlay *o, u32 number, struct lf_disk_leaf *node,
		 struct error *e);

/**
 * overlay_leaf_count - how many blocks of a leaf are dirty and zero
 */
void overlay_leaf_count(const struct lf_disk_leaf *leaf, u64 *dirty, u64 *zero);

/**
 * overlay_runs - all runs of dirty and zero blocks, ascending
 * @stack: overlays of one image, the newest first: the first that knows a block
 *	   decides
 * @count: how many, at least 1
 * @fn: called with each; @block: first, @blocks: how many; returns 0 to go on
 */
int overlay_runs(struct overlay *stack, u32 count,
		 int (*fn)(void *arg, u64 block, u64 blocks,
			   enum overlay_kind kind, struct error *e),
		 void *arg, struct error *e);

/**
 * overlay_roots_new - the roots of an overlay in which nothing was written
 * @roots: out: LF_ROOT_BLOCKS blocks
 */
void overlay_roots_new(void *roots, const struct lf_tree *tree,
		       const u8 uuid[16]);

/* Was it never active for writing? Then nothing was ever written to it. */
static inline bool overlay_fresh(const struct lf_disk_root *root)
{
	return le64_to_cpu(root->epoch) <= 1;
}

/**
 * overlay_cow_write - make a device the COW device of a new overlay, on disk
 */
int overlay_cow_write(int fd, const struct lf_tree *tree, const u8 uuid[16]);

/**
 * overlay_cow_read - read and check a COW device's identity
 * @bytes: its size
 * @why: out for -EINVAL: static sentence
 *
 * -ENODATA: it has none.
 */
int overlay_cow_read(int fd, u64 bytes, const struct lf_tree *tree,
		     struct lf_disk_cow *cow, const char **why);

#endif

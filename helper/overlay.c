// SPDX-License-Identifier: GPL-2.0-only
#include <unistd.h>

#include "io.h"
#include "overlay.h"

#define NO_INDEX	(~0U)

int overlay_open(int fd, const struct lf_super *super, struct overlay *o,
		 struct error *e)
{
	u8 roots[LF_ROOT_BLOCKS * LF_META_BLOCK];
	const struct lf_disk_root *root;
	const char *why;
	int err;

	if (!super->region[LF_REGION_OVERLAY].bytes)
		return error_set(e, -ENODATA, "it has no overlay");
	o->fd = fd;
	o->base = super->region[LF_REGION_OVERLAY].start * LF_META_BLOCK;
	o->loaded = NO_INDEX;
	err = lf_tree_shape(super->image_bytes, &o->tree, &why);
	if (err)
		return error_set(e, err, "%s", why);
	err = io_pread(fd, roots, sizeof(roots), o->base);
	if (err)
		return error_set(e, err, "reading the overlay's root: %s",
				 strerror(-err));
	err = lf_root_pick(roots, &o->tree, &root, &why);
	if (err)
		return error_set(e, err, "%s", why);
	o->root = *root;
	return 0;
}

/* @sum: what the node above says; 0: there is no node */
static int read_node(const struct overlay *o, const char *what, u32 number,
		     u64 place, __le64 sum, void *node, struct error *e)
{
	int err;

	if (!sum) {
		memset(node, 0, LF_META_BLOCK);
		return 0;
	}
	err = io_pread(o->fd, node, LF_META_BLOCK,
		       o->base + place * LF_META_BLOCK);
	if (err)
		return error_set(e, err, "reading %s %u of the overlay: %s",
				 what, number, strerror(-err));
	if (lf_node_sum(node, number) != le64_to_cpu(sum))
		return error_set(e, -EBADMSG,
				 "%s %u of the overlay has a wrong checksum",
				 what, number);
	return 0;
}

int overlay_index(const struct overlay *o, u32 number,
		  struct lf_disk_index *node, struct error *e)
{
	u32 slot = lf_slot_get(o->root.slot, number);

	return read_node(o, "index", number, lf_index_place(number, slot),
			 o->root.sum[number], node, e);
}

int overlay_leaf(struct overlay *o, u32 number, struct lf_disk_leaf *node,
		 struct error *e)
{
	u32 index = number / LF_INDEX_LEAVES;
	u32 entry = number % LF_INDEX_LEAVES;
	const char *why;
	u32 slot;
	int err;

	if (o->loaded != index) {
		o->loaded = NO_INDEX;
		err = overlay_index(o, index, &o->index, e);
		if (err)
			return err;
		o->loaded = index;
	}
	slot = lf_slot_get(o->index.slot, entry);
	err = read_node(o, "leaf", number,
			lf_leaf_place(&o->tree, number, slot),
			o->index.sum[entry], node, e);
	if (err)
		return err;
	err = lf_leaf_check(node, &o->tree, number, &why);
	return err ? error_set(e, -EBADMSG, "leaf %u of the overlay: %s",
			       number, why) : 0;
}

void overlay_leaf_count(const struct lf_disk_leaf *leaf, u64 *dirty, u64 *zero)
{
	u32 i;

	*dirty = 0;
	*zero = 0;
	for (i = 0; i < LF_LEAF_WORDS; i++) {
		*dirty += __builtin_popcountll(leaf->dirty[i]);
		*zero += __builtin_popcountll(leaf->zero[i]);
	}
}

/* Put @below below @leaf: what @leaf knows stays. */
static void merge(struct lf_disk_leaf *leaf, const struct lf_disk_leaf *below)
{
	u32 i;

	for (i = 0; i < LF_LEAF_WORDS; i++) {
		u64 known = leaf->dirty[i] | leaf->zero[i];

		leaf->dirty[i] |= below->dirty[i] & ~known;
		leaf->zero[i] |= below->zero[i] & ~known;
	}
}

static enum overlay_kind kind_of(const struct lf_disk_leaf *leaf, u32 bit)
{
	if (lf_slot_get(leaf->dirty, bit))
		return OVERLAY_DIRTY;
	return lf_slot_get(leaf->zero, bit) ? OVERLAY_ZERO : OVERLAY_CLEAN;
}

/* All 64 blocks of a word are one kind, or bits have to be looked at. */
static bool whole_word(const struct lf_disk_leaf *leaf, u32 word,
		       enum overlay_kind *kind)
{
	u64 dirty = leaf->dirty[word], zero = leaf->zero[word];

	*kind = dirty ? OVERLAY_DIRTY : zero ? OVERLAY_ZERO : OVERLAY_CLEAN;
	return (!dirty || !~dirty) && (!zero || !~zero);
}

/* A run that may go on. */
struct run {
	u64 block;
	u64 blocks;
	enum overlay_kind kind;
};

int overlay_runs(struct overlay *stack, u32 count,
		 int (*fn)(void *arg, u64 block, u64 blocks,
			   enum overlay_kind kind, struct error *e),
		 void *arg, struct error *e)
{
	const struct lf_tree *tree = &stack->tree;
	struct run run = {};
	u32 number, i, bit;
	int err;

	for (number = 0; number < tree->leaves; number++) {
		struct lf_disk_leaf leaf = {}, below;
		u64 first = (u64)number * LF_LEAF_BLOCKS;
		u32 step;

		for (i = 0; i < count; i++) {
			err = overlay_leaf(&stack[i], number, &below, e);
			if (err)
				return err;
			merge(&leaf, &below);
		}
		for (bit = 0; bit < LF_LEAF_BLOCKS; bit += step) {
			enum overlay_kind kind;

			step = 1;
			if (bit % 64 == 0 &&
			    whole_word(&leaf, bit / 64, &kind))
				step = 64;
			else
				kind = kind_of(&leaf, bit);
			if (kind == run.kind) {
				run.blocks += step;
				continue;
			}
			if (run.kind != OVERLAY_CLEAN) {
				err = fn(arg, run.block, run.blocks, run.kind,
					 e);
				if (err)
					return err;
			}
			run = (struct run) { first + bit, step, kind };
		}
	}
	/* No bit is set behind the end, so no run goes beyond it. */
	return run.kind == OVERLAY_CLEAN ? 0 :
	       fn(arg, run.block, run.blocks, run.kind, e);
}

void overlay_roots_new(void *roots, const struct lf_tree *tree,
		       const u8 uuid[16])
{
	struct lf_disk_root root = {
		.sequence = cpu_to_le64(1),
		.epoch = cpu_to_le64(1),
		.blocks = cpu_to_le64(tree->blocks),
	};
	u32 copy;

	memcpy(root.uuid, uuid, sizeof(root.uuid));
	lf_root_finish(&root);
	memset(roots, 0, LF_ROOT_BLOCKS * LF_META_BLOCK);
	for (copy = 0; copy < LF_ROOT_COPIES; copy++)
		memcpy((u8 *)roots + lf_root_place(1, copy) * LF_META_BLOCK,
		       &root, sizeof(root));
}

int overlay_cow_write(int fd, const struct lf_tree *tree, const u8 uuid[16])
{
	struct lf_disk_cow copies[LF_COW_COPIES] = {};
	struct lf_disk_cow *cow = &copies[1 % LF_COW_COPIES];
	int err;

	cow->epoch = cpu_to_le64(1);
	cow->blocks = cpu_to_le64(tree->blocks);
	memcpy(cow->uuid, uuid, sizeof(cow->uuid));
	lf_cow_finish(cow);
	err = io_pwrite(fd, copies, sizeof(copies),
			tree->blocks * LF_META_BLOCK);
	if (!err && fsync(fd))
		err = -errno;
	return err;
}

int overlay_cow_read(int fd, u64 bytes, const struct lf_tree *tree,
		     struct lf_disk_cow *cow, const char **why)
{
	static const struct lf_disk_cow zeros[LF_COW_COPIES];
	struct lf_disk_cow copies[LF_COW_COPIES];
	const struct lf_disk_cow *found;
	int err;

	if (bytes < lf_cow_bytes(tree)) {
		*why = "the COW device is smaller than the image and its identity";
		return -EINVAL;
	}
	err = io_pread(fd, copies, sizeof(copies),
		       tree->blocks * LF_META_BLOCK);
	if (err)
		return err;
	if (!memcmp(copies, zeros, sizeof(copies)))
		return -ENODATA;
	err = lf_cow_pick(copies, tree, &found, why);
	if (!err)
		*cow = *found;
	return err;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Checks of the overlay on disk. overlay_disk.h has the layout and the crash
 * argument.
 */
#include "overlay_disk.h"

static_assert(sizeof(struct lf_disk_leaf) == LF_META_BLOCK, "leaf");
static_assert(sizeof(struct lf_disk_index) == LF_META_BLOCK, "index");
static_assert(sizeof(struct lf_disk_root) == LF_META_BLOCK, "root");
static_assert(sizeof(struct lf_disk_cow) == LF_META_BLOCK, "cow");
static_assert(LF_ROOT_INDEXES <= 7 * 64 && LF_INDEX_LEAVES <= 8 * 64, "slots");

int lf_tree_shape(u64 image_bytes, struct lf_tree *tree, const char **why)
{
	tree->blocks = lf_meta_blocks(image_bytes);
	if (!tree->blocks || tree->blocks > LF_OVERLAY_MAX_BLOCKS)
		return lf_bad(why, "the image is too big for an overlay");
	tree->leaves = div_u64(tree->blocks - 1, LF_LEAF_BLOCKS) + 1;
	tree->indexes = (tree->leaves - 1) / LF_INDEX_LEAVES + 1;
	return 0;
}

u64 lf_node_sum(const void *block, u64 number)
{
	return xxh64(block, LF_META_BLOCK, number) ?: 1;
}

static u64 self_sum(const void *block)
{
	return xxh64(block, LF_META_BLOCK - sizeof(__le64), 0);
}

int lf_root_check(const struct lf_disk_root *root, const struct lf_tree *tree,
		  u32 place, const char **why)
{
	u32 i;

	if (memcmp(root->magic, LF_ROOT_MAGIC, sizeof(root->magic)))
		return lf_bad(why, "the overlay has no root");
	if (le32_to_cpu(root->version) != LF_ROOT_VERSION)
		return lf_bad(why, "unknown version of the overlay");
	if (le64_to_cpu(root->self) != self_sum(root))
		return lf_bad(why, "the overlay's root has a wrong checksum");
	if (le32_to_cpu(root->flags) & ~(LF_ROOT_ACTIVATING | LF_ROOT_SEALED))
		return lf_bad(why, "the overlay has unknown flags");
	if (lf_root_place(le64_to_cpu(root->sequence), 0) !=
	    place - place % LF_ROOT_COPIES)
		return lf_bad(why, "the overlay's root is not where it belongs");
	if (le64_to_cpu(root->blocks) != tree->blocks)
		return lf_bad(why, "the overlay belongs to an image of another size");
	if (le64_to_cpu(root->dirty) > tree->blocks ||
	    le64_to_cpu(root->zero) > tree->blocks)
		return lf_bad(why, "the overlay has more blocks than the image");
	for (i = tree->indexes; i < LF_ROOT_INDEXES; i++)
		if (root->sum[i])
			return lf_bad(why, "the overlay has more indexes than the image needs");
	for (i = 0; i < LF_ROOT_INDEXES; i++)
		if (!root->sum[i] && lf_slot_get(root->slot, i))
			return lf_bad(why, "the overlay names an index that it does not have");
	if (root->sequence == cpu_to_le64(~0ULL) ||
	    root->epoch == cpu_to_le64(~0ULL))
		return lf_bad(why, "the overlay's counters are at their end");
	return 0;
}

int lf_root_pick(const void *roots, const struct lf_tree *tree,
		 const struct lf_disk_root **root, const char **why)
{
	const char *reason;
	int err = -EINVAL;
	u64 newest = 0;
	u32 i;

	for (i = 0; i < LF_ROOT_BLOCKS; i++) {
		const struct lf_disk_root *copy = roots + i * LF_META_BLOCK;

		if (lf_root_check(copy, tree, i, &reason)) {
			/* What is wrong with one that was there tells more. */
			if (!i || memcmp(copy->magic, LF_ROOT_MAGIC,
					 sizeof(copy->magic)) == 0)
				*why = reason;
			continue;
		}
		if (!err && le64_to_cpu(copy->sequence) <= newest)
			continue;
		err = 0;
		newest = le64_to_cpu(copy->sequence);
		*root = copy;
	}
	return err;
}

int lf_leaf_check(const struct lf_disk_leaf *leaf, const struct lf_tree *tree,
		  u32 number, const char **why)
{
	u64 left = tree->blocks - (u64)number * LF_LEAF_BLOCKS;
	u32 i;

	for (i = 0; i < LF_LEAF_WORDS; i++) {
		u64 first = i * 64ULL;
		u64 beyond = 0;

		if (leaf->dirty[i] & leaf->zero[i])
			return lf_bad(why, "a block of the overlay is dirty and zero");
		if (left < first + 64)
			beyond = left > first ? ~0ULL << (left - first) : ~0ULL;
		if (le64_to_cpu(leaf->dirty[i] | leaf->zero[i]) & beyond)
			return lf_bad(why, "the overlay has blocks behind the image");
	}
	return 0;
}

static int cow_check(const struct lf_disk_cow *cow, const struct lf_tree *tree,
		     u32 copy, const char **why)
{
	if (memcmp(cow->magic, LF_COW_MAGIC, sizeof(cow->magic)))
		return lf_bad(why, "the COW device belongs to no overlay");
	if (le32_to_cpu(cow->version) != LF_COW_VERSION || cow->reserved)
		return lf_bad(why, "unknown version of the COW device");
	if (le64_to_cpu(cow->self) != self_sum(cow))
		return lf_bad(why, "the COW device's identity has a wrong checksum");
	if (le64_to_cpu(cow->epoch) % LF_COW_COPIES != copy)
		return lf_bad(why, "the COW device's identity is not where it belongs");
	if (le64_to_cpu(cow->blocks) != tree->blocks)
		return lf_bad(why, "the COW device belongs to an image of another size");
	return 0;
}

int lf_cow_pick(const void *copies, const struct lf_tree *tree,
		const struct lf_disk_cow **cow, const char **why)
{
	const char *reason;
	int err = -EINVAL;
	u64 newest = 0;
	u32 i;

	for (i = 0; i < LF_COW_COPIES; i++) {
		const struct lf_disk_cow *copy = copies + i * LF_META_BLOCK;

		if (cow_check(copy, tree, i, &reason)) {
			if (!i || memcmp(copy->magic, LF_COW_MAGIC,
					 sizeof(copy->magic)) == 0)
				*why = reason;
			continue;
		}
		if (!err && le64_to_cpu(copy->epoch) <= newest)
			continue;
		err = 0;
		newest = le64_to_cpu(copy->epoch);
		*cow = copy;
	}
	return err;
}

int lf_pair_check(const struct lf_disk_root *root,
		  const struct lf_disk_cow *cow, const char **why)
{
	bool activating = le32_to_cpu(root->flags) & LF_ROOT_ACTIVATING;
	u64 meta = le64_to_cpu(root->epoch);
	u64 data = le64_to_cpu(cow->epoch);

	if (memcmp(root->uuid, cow->uuid, sizeof(root->uuid)))
		return lf_bad(why, "the COW device belongs to another overlay");
	if (data > meta)
		return lf_bad(why, "the meta device is an older copy than the COW device");
	if (data < meta && !(activating && data + 1 == meta))
		return lf_bad(why, "the COW device is an older copy than the meta device");
	return 0;
}

void lf_root_finish(struct lf_disk_root *root)
{
	memcpy(root->magic, LF_ROOT_MAGIC, sizeof(root->magic));
	root->version = cpu_to_le32(LF_ROOT_VERSION);
	root->self = cpu_to_le64(self_sum(root));
}

void lf_cow_finish(struct lf_disk_cow *cow)
{
	memcpy(cow->magic, LF_COW_MAGIC, sizeof(cow->magic));
	cow->version = cpu_to_le32(LF_COW_VERSION);
	cow->self = cpu_to_le64(self_sum(cow));
}

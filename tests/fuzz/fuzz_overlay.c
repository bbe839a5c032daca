// SPDX-License-Identifier: GPL-2.0-only
/*
 * Input: the image's size, how to damage what follows, then the begin of a
 * root, of an identity, and words of a leaf with their places. Checksums are
 * put right, else nothing would get past them.
 */
#include "../../kmod/overlay_disk.h"
#include "fuzz.h"

#define ROOT_BYTES	(offsetof(struct lf_disk_root, sum) + 4 * sizeof(__le64))
#define COW_BYTES	offsetof(struct lf_disk_cow, pad)

static void check_roots(struct input *in, const struct lf_tree *tree)
{
	struct lf_disk_root *roots = calloc(LF_ROOT_BLOCKS, sizeof(*roots));
	const struct lf_disk_root *root = NULL;
	const char *why = NULL;
	u64 best = 0;
	u32 i, beyond;
	bool any = false;
	int err;

	for (i = 0; i < LF_ROOT_BLOCKS; i++) {
		struct lf_disk_root *copy = &roots[i];

		next(in, copy, ROOT_BYTES);
		beyond = next_below(in, 2 * LF_ROOT_INDEXES);
		if (beyond < LF_ROOT_INDEXES)
			copy->sum[beyond] = 1;
		copy->self = cpu_to_le64(xxh64(copy, sizeof(*copy) - 8, 0));
		if (lf_root_check(copy, tree, i, &why)) {
			MUST(strlen(why));
			continue;
		}
		MUST(le64_to_cpu(copy->sequence) % 2 == i / 2);
		MUST(le64_to_cpu(copy->blocks) == tree->blocks);
		MUST(le64_to_cpu(copy->dirty) <= tree->blocks);
		MUST(le64_to_cpu(copy->zero) <= tree->blocks);
		for (beyond = tree->indexes; beyond < LF_ROOT_INDEXES;
		     beyond++)
			MUST(!copy->sum[beyond]);
		if (!any || le64_to_cpu(copy->sequence) > best)
			best = le64_to_cpu(copy->sequence);
		any = true;
	}
	why = NULL;
	err = lf_root_pick(roots, tree, &root, &why);
	MUST(!err == any);
	if (any)
		MUST(le64_to_cpu(root->sequence) == best);
	else
		MUST(strlen(why));
	free(roots);
}

static void check_pair(struct input *in, const struct lf_tree *tree)
{
	struct lf_disk_cow *copies = calloc(LF_COW_COPIES, sizeof(*copies));
	const struct lf_disk_cow *cow = NULL;
	struct lf_disk_root root = {};
	const char *why = NULL;
	u64 meta, data;
	u32 i;

	for (i = 0; i < LF_COW_COPIES; i++) {
		next(in, &copies[i], COW_BYTES);
		copies[i].self = cpu_to_le64(xxh64(&copies[i],
						   sizeof(copies[i]) - 8, 0));
	}
	next(in, &root, offsetof(struct lf_disk_root, sum));
	if (lf_cow_pick(copies, tree, &cow, &why)) {
		MUST(strlen(why));
		goto out;
	}
	i = cow - copies;
	data = le64_to_cpu(cow->epoch);
	MUST(i < LF_COW_COPIES && data % LF_COW_COPIES == i);
	MUST(le64_to_cpu(cow->blocks) == tree->blocks);
	meta = le64_to_cpu(root.epoch);
	if (!lf_pair_check(&root, cow, &why)) {
		MUST(!memcmp(root.uuid, cow->uuid, sizeof(root.uuid)));
		MUST(data <= meta && meta - data <= 1);
		MUST(data == meta ||
		     le32_to_cpu(root.flags) & LF_ROOT_ACTIVATING);
	}
out:
	free(copies);
}

static void check_leaf(struct input *in, const struct lf_tree *tree)
{
	struct lf_disk_leaf *leaf = calloc(1, sizeof(*leaf));
	u32 number = next_below(in, tree->leaves), i, bit;
	const char *why = NULL;
	u64 word, first = (u64)number * LF_LEAF_BLOCKS;

	for (i = 0; i < 8; i++) {
		bit = next_below(in, 2 * LF_LEAF_WORDS);
		next(in, &word, sizeof(word));
		if (bit < LF_LEAF_WORDS)
			leaf->dirty[bit] |= word;
		else
			leaf->zero[bit - LF_LEAF_WORDS] |= word;
	}
	if (lf_leaf_check(leaf, tree, number, &why)) {
		MUST(strlen(why));
		free(leaf);
		return;
	}
	for (bit = 0; bit < LF_LEAF_BLOCKS; bit++) {
		bool dirty = lf_slot_get(leaf->dirty, bit);
		bool zero = lf_slot_get(leaf->zero, bit);

		MUST(!dirty || !zero);
		MUST((!dirty && !zero) || first + bit < tree->blocks);
	}
	free(leaf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct input in = { data, bytes };
	struct lf_tree tree;
	const char *why = NULL;
	u64 size;

	next(&in, &size, sizeof(size));
	if (lf_tree_shape(size, &tree, &why)) {
		MUST(strlen(why));
		MUST(!size || size > LF_OVERLAY_MAX_BLOCKS * LF_META_BLOCK);
		return 0;
	}
	MUST(tree.blocks - 1 == (size - 1) / LF_META_BLOCK);
	MUST(tree.leaves && (u64)tree.leaves * LF_LEAF_BLOCKS >= tree.blocks);
	MUST((tree.leaves - 1ULL) * LF_LEAF_BLOCKS < tree.blocks);
	MUST(tree.indexes && tree.indexes <= LF_ROOT_INDEXES);
	MUST(tree.indexes * LF_INDEX_LEAVES >= tree.leaves);
	MUST(lf_leaf_place(&tree, tree.leaves - 1, 1) * LF_META_BLOCK <
	     lf_tree_bytes(&tree));
	check_leaf(&in, &tree);
	check_pair(&in, &tree);
	check_roots(&in, &tree);
	return 0;
}

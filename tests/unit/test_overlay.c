// SPDX-License-Identifier: GPL-2.0-only
/*
 * The overlay on disk: its shape, every check of root, leaf and identity, which
 * of several is picked, what belongs together; new overlays, and the runs of
 * stacked ones against a model.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../helper/io.h"
#include "../../helper/meta.h"
#include "../../helper/overlay.h"
#include "kselftest_harness.h"
#include "random.h"

#define BLOCK		((u64)LF_META_BLOCK)
#define MAX_BLOCKS	LF_OVERLAY_MAX_BLOCKS

static const u8 uuid_a[16] = { 0xaa, 1, 2, 3 };
static const u8 uuid_b[16] = { 0xbb, 1, 2, 3 };

static struct lf_tree shape(u64 bytes)
{
	struct lf_tree tree = {};
	const char *why;

	if (lf_tree_shape(bytes, &tree, &why))
		memset(&tree, 0, sizeof(tree));
	return tree;
}

static struct lf_disk_root make_root(const struct lf_tree *tree, u64 sequence,
				     u64 epoch)
{
	struct lf_disk_root root = {
		.sequence = cpu_to_le64(sequence),
		.epoch = cpu_to_le64(epoch),
		.blocks = cpu_to_le64(tree->blocks),
	};

	memcpy(root.uuid, uuid_a, sizeof(root.uuid));
	lf_root_finish(&root);
	return root;
}

static struct lf_disk_cow make_cow(const struct lf_tree *tree, u64 epoch)
{
	struct lf_disk_cow cow = {
		.epoch = cpu_to_le64(epoch),
		.blocks = cpu_to_le64(tree->blocks),
	};

	memcpy(cow.uuid, uuid_a, sizeof(cow.uuid));
	lf_cow_finish(&cow);
	return cow;
}

TEST(shape_from_one_block_to_the_largest)
{
	static const struct {
		u64 bytes;
		u64 blocks;
		u32 leaves;
		u32 indexes;
	} shapes[] = {
		{ 1, 1, 1, 1 },
		{ 4095, 1, 1, 1 },
		{ 4096, 1, 1, 1 },
		{ 4097, 2, 1, 1 },
		{ LF_LEAF_BLOCKS * BLOCK, LF_LEAF_BLOCKS, 1, 1 },
		{ LF_LEAF_BLOCKS * BLOCK + 1, LF_LEAF_BLOCKS + 1, 2, 1 },
		{ LF_INDEX_LEAVES * LF_LEAF_BLOCKS * BLOCK,
		  LF_INDEX_LEAVES * LF_LEAF_BLOCKS, LF_INDEX_LEAVES, 1 },
		{ LF_INDEX_LEAVES * LF_LEAF_BLOCKS * BLOCK + 1,
		  LF_INDEX_LEAVES * LF_LEAF_BLOCKS + 1, LF_INDEX_LEAVES + 1,
		  2 },
		{ 1ULL << 40, 1ULL << 28, 16384, 33 },
		{ MAX_BLOCKS * BLOCK, MAX_BLOCKS,
		  LF_ROOT_INDEXES * LF_INDEX_LEAVES, LF_ROOT_INDEXES },
	};
	const char *why = NULL;
	struct lf_tree tree;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(shapes); i++) {
		ASSERT_EQ(0, lf_tree_shape(shapes[i].bytes, &tree, &why));
		EXPECT_EQ(shapes[i].blocks, tree.blocks);
		EXPECT_EQ(shapes[i].leaves, tree.leaves);
		EXPECT_EQ(shapes[i].indexes, tree.indexes);
		/* 4 roots, 2 slots for each node, one behind the other */
		EXPECT_EQ((4 + 2ULL * tree.indexes + 2ULL * tree.leaves) *
			  BLOCK, lf_tree_bytes(&tree));
		EXPECT_EQ(4, lf_index_place(0, 0));
		EXPECT_EQ(4 + 2ULL * tree.indexes,
			  lf_leaf_place(&tree, 0, 0));
		EXPECT_EQ(lf_tree_bytes(&tree) / BLOCK - 1,
			  lf_leaf_place(&tree, tree.leaves - 1, 1));
		EXPECT_EQ((tree.blocks + 2) * BLOCK, lf_cow_bytes(&tree));
	}
	EXPECT_EQ(-EINVAL, lf_tree_shape(MAX_BLOCKS * BLOCK + 1, &tree, &why));
	EXPECT_STREQ("the image is too big for an overlay", why);
	EXPECT_EQ(-EINVAL, lf_tree_shape(0, &tree, &why));
}

static const char *root_why(struct lf_disk_root *root,
			    const struct lf_tree *tree, u32 place)
{
	const char *why = "no reason given";

	root->self = cpu_to_le64(xxh64(root, sizeof(*root) - 8, 0));
	return lf_root_check(root, tree, place, &why) ? why : NULL;
}

TEST(root_good_ones_are_taken)
{
	struct lf_tree tree = shape(100 * BLOCK);
	struct lf_disk_root root = make_root(&tree, 7, 3);
	const char *why;

	EXPECT_EQ(0, lf_root_check(&root, &tree, 2, &why));
	EXPECT_EQ(0, lf_root_check(&root, &tree, 3, &why));
	root = make_root(&tree, 8, 3);
	EXPECT_EQ(0, lf_root_check(&root, &tree, 0, &why));
	root.flags = cpu_to_le32(LF_ROOT_SEALED | LF_ROOT_ACTIVATING);
	root.dirty = cpu_to_le64(100);
	EXPECT_EQ(NULL, root_why(&root, &tree, 1));
}

TEST(root_each_field_is_checked)
{
	struct lf_tree tree = shape(100 * BLOCK);
	struct lf_disk_root good = make_root(&tree, 7, 3), root;
	const char *why;

	root = good;
	root.magic[0] ^= 1;
	EXPECT_STREQ("the overlay has no root", root_why(&root, &tree, 2));
	root = good;
	root.version = cpu_to_le32(2);
	EXPECT_STREQ("unknown version of the overlay",
		     root_why(&root, &tree, 2));
	root = good;
	root.flags = cpu_to_le32(4);
	EXPECT_STREQ("the overlay has unknown flags",
		     root_why(&root, &tree, 2));
	root = good;
	EXPECT_STREQ("the overlay's root is not where it belongs",
		     root_why(&root, &tree, 0));
	EXPECT_STREQ("the overlay's root is not where it belongs",
		     root_why(&root, &tree, 1));
	root.blocks = cpu_to_le64(101);
	EXPECT_STREQ("the overlay belongs to an image of another size",
		     root_why(&root, &tree, 2));
	root = good;
	root.dirty = cpu_to_le64(101);
	EXPECT_STREQ("the overlay has more blocks than the image",
		     root_why(&root, &tree, 2));
	root = good;
	root.zero = cpu_to_le64(101);
	EXPECT_STREQ("the overlay has more blocks than the image",
		     root_why(&root, &tree, 2));
	root = good;
	root.sum[1] = cpu_to_le64(1);
	EXPECT_STREQ("the overlay has more indexes than the image needs",
		     root_why(&root, &tree, 2));
	root = good;
	root.sum[0] = cpu_to_le64(1);
	EXPECT_EQ(NULL, root_why(&root, &tree, 2));
	root = good;
	root.self ^= cpu_to_le64(1);
	EXPECT_EQ(-EINVAL, lf_root_check(&root, &tree, 2, &why));
	EXPECT_STREQ("the overlay's root has a wrong checksum", why);
}

TEST(root_no_flipped_bit_passes)
{
	struct lf_tree tree = shape(100 * BLOCK);
	struct lf_disk_root root = make_root(&tree, 7, 3);
	u8 *byte = (u8 *)&root;
	const char *why;
	u32 bit;

	for (bit = 0; bit < 8 * sizeof(root); bit++) {
		byte[bit / 8] ^= 1 << bit % 8;
		ASSERT_EQ(-EINVAL, lf_root_check(&root, &tree, 2, &why))
			TH_LOG("bit %u", bit);
		byte[bit / 8] ^= 1 << bit % 8;
	}
	EXPECT_EQ(0, lf_root_check(&root, &tree, 2, &why));
}

/* Sequence numbers in the four places; 0: a damaged one, ~0: zeros */
static const char *pick(const u64 sequence[4], u64 *picked)
{
	static struct lf_disk_root roots[LF_ROOT_BLOCKS];
	struct lf_tree tree = shape(100 * BLOCK);
	const struct lf_disk_root *root;
	const char *why = "no reason given";
	unsigned int i;

	for (i = 0; i < LF_ROOT_BLOCKS; i++) {
		memset(&roots[i], 0, sizeof(roots[i]));
		if (sequence[i] == ~0ULL)
			continue;
		roots[i] = make_root(&tree, sequence[i] ? sequence[i] :
				     i / 2 + 10, 1);
		if (!sequence[i])
			roots[i].uuid[0] ^= 1;
	}
	if (lf_root_pick(roots, &tree, &root, &why))
		return why;
	*picked = le64_to_cpu(root->sequence);
	return NULL;
}

TEST(root_the_last_commit_is_picked)
{
	static const struct {
		u64 sequence[4];
		u64 picked;
	} good[] = {
		{ { ~0ULL, ~0ULL, 1, 1 }, 1 },
		{ { 2, 2, 1, 1 }, 2 },
		{ { 2, 2, 3, 3 }, 3 },
		{ { 2, 2, 0, 3 }, 3 },
		{ { 2, 2, 3, 0 }, 3 },
		{ { 2, 2, 0, 0 }, 2 },
		{ { 0, 2, 0, 0 }, 2 },
		{ { 2, 2, 3, 1 }, 3 },	/* cut off between the copies */
		{ { 4, 2, 3, 3 }, 4 },
	};
	static const u64 none[] = { ~0ULL, ~0ULL, ~0ULL, ~0ULL };
	static const u64 damaged[] = { ~0ULL, ~0ULL, 0, 0 };
	u64 picked = 0;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(good); i++) {
		EXPECT_EQ(NULL, pick(good[i].sequence, &picked));
		EXPECT_EQ(good[i].picked, picked) TH_LOG("case %u", i);
	}
	EXPECT_STREQ("the overlay has no root", pick(none, &picked));
	EXPECT_STREQ("the overlay's root has a wrong checksum",
		     pick(damaged, &picked));
}

TEST(leaf_no_block_is_two_things_or_behind_the_end)
{
	/* The second leaf has 70 blocks: a word, and 6 bits */
	struct lf_tree tree = shape((LF_LEAF_BLOCKS + 70) * BLOCK);
	struct lf_disk_leaf leaf = {};
	const char *why = NULL;
	u32 bit;

	for (bit = 0; bit < LF_LEAF_BLOCKS; bit++) {
		lf_slot_flip(leaf.dirty, bit);
		ASSERT_EQ(0, lf_leaf_check(&leaf, &tree, 0, &why));
		ASSERT_EQ(bit < 70 ? 0 : -EINVAL,
			  lf_leaf_check(&leaf, &tree, 1, &why));
		lf_slot_flip(leaf.zero, bit);
		ASSERT_EQ(-EINVAL, lf_leaf_check(&leaf, &tree, 0, &why));
		EXPECT_STREQ("a block of the overlay is dirty and zero", why);
		lf_slot_flip(leaf.dirty, bit);
		ASSERT_EQ(0, lf_leaf_check(&leaf, &tree, 0, &why));
		ASSERT_EQ(bit < 70 ? 0 : -EINVAL,
			  lf_leaf_check(&leaf, &tree, 1, &why));
		lf_slot_flip(leaf.zero, bit);
	}
	lf_slot_flip(leaf.zero, 70);
	EXPECT_EQ(-EINVAL, lf_leaf_check(&leaf, &tree, 1, &why));
	EXPECT_STREQ("the overlay has blocks behind the image", why);
}

TEST(node_sums_know_the_node)
{
	struct lf_disk_leaf leaf = {};
	u64 sum = lf_node_sum(&leaf, 0);

	EXPECT_NE(0, sum);
	EXPECT_NE(sum, lf_node_sum(&leaf, 1));
	lf_slot_flip(leaf.zero, LF_LEAF_BLOCKS - 1);
	EXPECT_NE(sum, lf_node_sum(&leaf, 0));
}

static const char *cow_why(struct lf_disk_cow *cow, const struct lf_tree *tree,
			   u32 copy)
{
	struct lf_disk_cow copies[LF_COW_COPIES] = {};
	const char *why = "no reason given";
	const struct lf_disk_cow *found;

	cow->self = cpu_to_le64(xxh64(cow, sizeof(*cow) - 8, 0));
	copies[copy] = *cow;
	return lf_cow_pick(copies, tree, &found, &why) ? why : NULL;
}

TEST(cow_each_field_is_checked)
{
	struct lf_tree tree = shape(100 * BLOCK);
	struct lf_disk_cow good = make_cow(&tree, 4), cow;
	struct lf_disk_cow copies[LF_COW_COPIES] = {};
	const struct lf_disk_cow *found;
	const char *why;

	cow = good;
	EXPECT_EQ(NULL, cow_why(&cow, &tree, 0));
	EXPECT_STREQ("the COW device's identity is not where it belongs",
		     cow_why(&cow, &tree, 1));
	cow.magic[7] ^= 1;
	EXPECT_STREQ("the COW device belongs to no overlay",
		     cow_why(&cow, &tree, 0));
	cow = good;
	cow.version = cpu_to_le32(2);
	EXPECT_STREQ("unknown version of the COW device",
		     cow_why(&cow, &tree, 0));
	cow = good;
	cow.reserved = cpu_to_le32(1);
	EXPECT_STREQ("unknown version of the COW device",
		     cow_why(&cow, &tree, 0));
	cow = good;
	cow.blocks = cpu_to_le64(99);
	EXPECT_STREQ("the COW device belongs to an image of another size",
		     cow_why(&cow, &tree, 0));
	copies[0] = good;
	copies[0].uuid[3] ^= 0x80;
	EXPECT_EQ(-EINVAL, lf_cow_pick(copies, &tree, &found, &why));
	EXPECT_STREQ("the COW device's identity has a wrong checksum", why);
}

TEST(cow_the_last_epoch_is_picked)
{
	struct lf_tree tree = shape(100 * BLOCK);
	struct lf_disk_cow copies[LF_COW_COPIES];
	const struct lf_disk_cow *found;
	const char *why;
	u64 epoch;

	for (epoch = 2; epoch < 6; epoch++) {
		copies[epoch % 2] = make_cow(&tree, epoch);
		copies[!(epoch % 2)] = make_cow(&tree, epoch - 1);
		ASSERT_EQ(0, lf_cow_pick(copies, &tree, &found, &why));
		EXPECT_EQ(epoch, le64_to_cpu(found->epoch));
		/* It was being written when the power went. */
		copies[epoch % 2].self ^= cpu_to_le64(1);
		ASSERT_EQ(0, lf_cow_pick(copies, &tree, &found, &why));
		EXPECT_EQ(epoch - 1, le64_to_cpu(found->epoch));
	}
}

TEST(pair_only_what_belongs_together_today)
{
	static const struct {
		u64 meta;
		bool activating;
		u64 cow;
		const char *why;
	} cases[] = {
		{ 1, false, 1, NULL },
		{ 5, false, 5, NULL },
		{ 5, true, 5, NULL },
		{ 5, true, 4, NULL },	/* cut off between the two */
		{ 5, false, 4,
		  "the COW device is an older copy than the meta device" },
		{ 5, true, 3,
		  "the COW device is an older copy than the meta device" },
		{ 4, false, 5,
		  "the meta device is an older copy than the COW device" },
		{ 4, true, 5,
		  "the meta device is an older copy than the COW device" },
	};
	struct lf_tree tree = shape(100 * BLOCK);
	struct lf_disk_root root;
	struct lf_disk_cow cow;
	const char *why;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		root = make_root(&tree, 9, cases[i].meta);
		root.flags = cpu_to_le32(cases[i].activating ?
					 LF_ROOT_ACTIVATING : 0);
		cow = make_cow(&tree, cases[i].cow);
		why = NULL;
		EXPECT_EQ(cases[i].why ? -EINVAL : 0,
			  lf_pair_check(&root, &cow, &why));
		EXPECT_STREQ(cases[i].why ? cases[i].why : "",
			     why ? why : "") TH_LOG("case %u", i);
		memcpy(cow.uuid, uuid_b, sizeof(cow.uuid));
		EXPECT_EQ(-EINVAL, lf_pair_check(&root, &cow, &why));
		EXPECT_STREQ("the COW device belongs to another overlay", why);
	}
}

/* A meta device of an image without layers, with a new overlay, in memory. */
static int make_meta(u64 image_bytes, const u8 uuid[16], int cow,
		     struct lf_super *super)
{
	struct image image = { .bytes = image_bytes, .url = (char *)"u:r/l" };
	struct meta_overlay overlay = {};
	int fd = memfd_create("meta", MFD_CLOEXEC);
	struct meta_plan *plan;
	const char *why;
	u64 bytes;

	memcpy(overlay.uuid, uuid, sizeof(overlay.uuid));
	if (meta_plan_image(&plan, &image, NULL))
		return -1;
	if (meta_plan_overlay(plan, &overlay, NULL))
		return -1;
	bytes = meta_plan_bytes(plan);
	if (ftruncate(fd, bytes) ||
	    meta_plan_write(plan, fd, bytes, cow, NULL) ||
	    meta_read_super(fd, bytes, super, &why))
		fd = -1;
	meta_plan_free(plan);
	return fd;
}

static int make_cow_file(u64 image_bytes)
{
	struct lf_tree tree = shape(image_bytes);
	int fd = memfd_create("cow", MFD_CLOEXEC);

	return ftruncate(fd, lf_cow_bytes(&tree)) ? -1 : fd;
}

TEST(new_one_is_empty_and_belongs_to_its_cow)
{
	u64 bytes = 3 * LF_LEAF_BLOCKS * BLOCK + 5;
	int cow = make_cow_file(bytes), meta;
	struct lf_tree tree = shape(bytes);
	struct overlay overlay;
	struct lf_disk_leaf leaf, zero = {};
	struct lf_disk_cow id;
	struct lf_super super;
	struct error e = {};
	const char *why = "";
	u64 size;
	u32 i;

	meta = make_meta(bytes, uuid_a, cow, &super);
	ASSERT_LE(0, meta);
	EXPECT_EQ(lf_tree_bytes(&tree), super.region[LF_REGION_OVERLAY].bytes);
	EXPECT_FALSE(lf_super_has_origin(&super));
	ASSERT_EQ(0, overlay_open(meta, &super, &overlay, &e)) TH_LOG("%s", e.text);
	EXPECT_EQ(1, le64_to_cpu(overlay.root.sequence));
	EXPECT_EQ(1, le64_to_cpu(overlay.root.epoch));
	EXPECT_EQ(0, le64_to_cpu(overlay.root.dirty));
	EXPECT_EQ(0, memcmp(overlay.root.uuid, uuid_a, 16));
	EXPECT_TRUE(overlay_fresh(&overlay.root));
	for (i = 0; i < tree.leaves; i++) {
		ASSERT_EQ(0, overlay_leaf(&overlay, i, &leaf, &e));
		EXPECT_EQ(0, memcmp(&leaf, &zero, sizeof(leaf)));
	}
	ASSERT_EQ(0, io_bytes(cow, &size));
	ASSERT_EQ(0, overlay_cow_read(cow, size, &tree, &id, &why))
		TH_LOG("%s", why);
	EXPECT_EQ(0, lf_pair_check(&overlay.root, &id, &why));
	EXPECT_EQ(-EINVAL, overlay_cow_read(cow, size - 1, &tree, &id, &why));
	close(meta);
	close(cow);
}

TEST(new_one_has_both_copies_of_its_root_and_nothing_else)
{
	u64 bytes = 10 * BLOCK;
	int cow = make_cow_file(bytes), meta;
	static u8 region[64 * LF_META_BLOCK];
	struct lf_super super;
	u64 size, i;

	meta = make_meta(bytes, uuid_a, cow, &super);
	ASSERT_LE(0, meta);
	size = super.region[LF_REGION_OVERLAY].bytes;
	ASSERT_GE(sizeof(region), size);
	ASSERT_EQ(0, io_pread(meta, region, size,
			      super.region[LF_REGION_OVERLAY].start * BLOCK));
	EXPECT_EQ(0, memcmp(region + 2 * BLOCK, region + 3 * BLOCK, BLOCK));
	for (i = 0; i < size; i++)
		if (i / BLOCK != 2 && i / BLOCK != 3)
			ASSERT_EQ(0, region[i]);
	close(meta);
	close(cow);
}

/* Writes what the module's commit would, into slot 1 of everything. */
static void put_bits(int meta, const struct lf_super *super, u64 bytes,
		     const u8 *kind)
{
	u64 base = super->region[LF_REGION_OVERLAY].start * BLOCK;
	struct lf_tree tree = shape(bytes);
	struct lf_disk_root root = make_root(&tree, 2, 2);
	struct lf_disk_index index = {};
	u64 dirty = 0, zero = 0, block;
	struct lf_disk_leaf leaf;
	u32 i, bit;

	for (i = 0; i < tree.leaves; i++) {
		memset(&leaf, 0, sizeof(leaf));
		for (bit = 0; bit < LF_LEAF_BLOCKS; bit++) {
			block = (u64)i * LF_LEAF_BLOCKS + bit;
			if (block >= tree.blocks || !kind[block])
				continue;
			lf_slot_flip(kind[block] == OVERLAY_DIRTY ? leaf.dirty :
				     leaf.zero, bit);
			if (kind[block] == OVERLAY_DIRTY)
				dirty++;
			else
				zero++;
		}
		io_pwrite(meta, &leaf, sizeof(leaf),
			  base + lf_leaf_place(&tree, i, 1) * BLOCK);
		index.sum[i] = cpu_to_le64(lf_node_sum(&leaf, i));
		lf_slot_flip(index.slot, i);
	}
	io_pwrite(meta, &index, sizeof(index),
		  base + lf_index_place(0, 1) * BLOCK);
	root.sum[0] = cpu_to_le64(lf_node_sum(&index, 0));
	lf_slot_flip(root.slot, 0);
	root.dirty = cpu_to_le64(dirty);
	root.zero = cpu_to_le64(zero);
	lf_root_finish(&root);
	for (i = 0; i < LF_ROOT_COPIES; i++)
		io_pwrite(meta, &root, sizeof(root),
			  base + lf_root_place(2, i) * BLOCK);
}

struct expect {
	const u8 *kind;
	u64 blocks;
	u64 at;
	u64 runs;
	enum overlay_kind last;
	u64 last_end;
	u64 wrong;
};

static int see_run(void *arg, u64 block, u64 blocks, enum overlay_kind kind,
		   struct error *e)
{
	struct expect *x = arg;
	u64 i;

	(void)e;
	/* Ascending; what touches its neighbour is of another kind. */
	x->wrong += block < x->at || !blocks || kind == OVERLAY_CLEAN;
	x->wrong += x->runs && block == x->last_end && kind == x->last;
	x->wrong += block + blocks > x->blocks;
	if (x->wrong)
		return -EIO;
	for (i = x->at; i < block; i++)
		x->wrong += x->kind[i] != OVERLAY_CLEAN;
	for (; i < block + blocks; i++)
		x->wrong += x->kind[i] != kind;
	x->at = block + blocks;
	x->last_end = x->at;
	x->last = kind;
	x->runs++;
	return 0;
}

static void random_kinds(u8 *kind, u64 blocks)
{
	u64 at = 0, n;

	memset(kind, 0, blocks);
	while (at < blocks) {
		n = 1 + random_below(1ULL << random_below(15));
		if (n > blocks - at)
			n = blocks - at;
		memset(kind + at, random_below(3), n);
		at += n;
	}
}

TEST(runs_of_a_stack_the_newest_wins)
{
	enum { DEPTH = 4, ROUNDS = 30 };
	static u8 kind[DEPTH][3 * LF_LEAF_BLOCKS + 100], all[sizeof(kind[0])];
	int round, d;

	random_seed(7);
	for (round = 0; round < ROUNDS; round++) {
		u64 blocks = 1 + random_below(round % 3 ? sizeof(all) : 200);
		int depth = 1 + random_below(DEPTH);
		struct overlay stack[DEPTH];
		struct lf_super super;
		struct error e = {};
		struct expect x = { .kind = all, .blocks = blocks };
		u64 i;

		for (d = 0; d < depth; d++) {
			int cow = make_cow_file(blocks * BLOCK);
			int meta = make_meta(blocks * BLOCK, uuid_a, cow,
					     &super);

			ASSERT_LE(0, meta);
			close(cow);
			random_kinds(kind[d], blocks);
			put_bits(meta, &super, blocks * BLOCK, kind[d]);
			ASSERT_EQ(0, overlay_open(meta, &super, &stack[d], &e))
				TH_LOG("%s", e.text);
		}
		for (i = 0; i < blocks; i++) {
			all[i] = OVERLAY_CLEAN;
			for (d = 0; d < depth && !all[i]; d++)
				all[i] = kind[d][i];
		}
		ASSERT_EQ(0, overlay_runs(stack, depth, see_run, &x, &e))
			TH_LOG("round %d: %s", round, e.text);
		for (i = x.at; i < blocks; i++)
			x.wrong += all[i] != OVERLAY_CLEAN;
		ASSERT_EQ(0, x.wrong) TH_LOG("round %d", round);
		for (d = 0; d < depth; d++)
			close(stack[d].fd);
	}
}

TEST(runs_of_a_damaged_tree_are_an_error)
{
	u64 blocks = LF_LEAF_BLOCKS + 10, base;
	int cow = make_cow_file(blocks * BLOCK), meta;
	struct lf_tree tree = shape(blocks * BLOCK);
	struct expect x = { .blocks = blocks };
	static u8 kind[LF_LEAF_BLOCKS + 10];
	struct overlay overlay;
	struct lf_super super;
	struct error e = {};
	u64 place[2];
	unsigned int i;
	u8 byte;

	meta = make_meta(blocks * BLOCK, uuid_a, cow, &super);
	ASSERT_LE(0, meta);
	kind[LF_LEAF_BLOCKS + 3] = OVERLAY_DIRTY;
	put_bits(meta, &super, blocks * BLOCK, kind);
	x.kind = kind;
	base = super.region[LF_REGION_OVERLAY].start * BLOCK;
	place[0] = base + lf_index_place(0, 1) * BLOCK + 8;
	place[1] = base + lf_leaf_place(&tree, 1, 1) * BLOCK + 100;
	for (i = 0; i < ARRAY_SIZE(place); i++) {
		io_pread(meta, &byte, 1, place[i]);
		byte ^= 4;
		io_pwrite(meta, &byte, 1, place[i]);
		ASSERT_EQ(0, overlay_open(meta, &super, &overlay, &e));
		EXPECT_EQ(-EBADMSG, overlay_runs(&overlay, 1, see_run, &x, &e));
		EXPECT_NE(NULL, strstr(e.text, i ? "leaf 1 " : "index 0 "))
			TH_LOG("%s", e.text);
		byte ^= 4;
		io_pwrite(meta, &byte, 1, place[i]);
	}
	close(meta);
	close(cow);
}

static char *note(int meta, const struct lf_super *super, const char *key)
{
	char *value = NULL;

	return meta_note(meta, super, key, &value, NULL) ? NULL : value;
}

TEST(another_image_takes_its_place_beside_the_overlay)
{
	u64 bytes = 100 * BLOCK, size, room = 0;
	int cow = make_cow_file(bytes), meta, round;
	struct image_extent extent[600] = {};
	struct image_layer layer = {
		.uuid = { 1 }, .ubytes = 1 << 20, .cbytes = 1 << 20,
		.locator = (char *)"http://h/x", .validator = (char *)"",
	};
	struct lf_frame_pos frame = { .ubytes = 1 << 20, .cbytes = 1 << 20 };
	static u8 before[16 * LF_META_BLOCK], after[sizeof(before)];
	struct lf_super super, next;
	u64 base, overlay_bytes;
	const char *why = "";
	u32 i;

	layer.frame = &frame;
	layer.frames = 1;
	for (i = 0; i < ARRAY_SIZE(extent); i++)
		extent[i] = (struct image_extent) { i * 512, 512, i * 512, 0 };
	meta = make_meta(bytes, uuid_a, cow, &super);
	ASSERT_LE(0, meta);
	overlay_bytes = super.region[LF_REGION_OVERLAY].bytes;
	base = super.region[LF_REGION_OVERLAY].start * BLOCK;
	ASSERT_GE(sizeof(before), overlay_bytes);
	ASSERT_EQ(0, io_pread(meta, before, overlay_bytes, base));

	for (round = 0; round < 20; round++) {
		struct image image = {
			.uuid = { 9, round }, .bytes = bytes, .layers = 1,
			.layer = &layer, .extent = extent,
			.extents = round * 30, .url = (char *)"u:next",
			.generation = round,
		};
		struct error e = {};
		struct meta_plan *plan;
		void *data;
		char *url;

		ASSERT_EQ(0, meta_plan_image(&plan, &image, &e));
		meta_plan_beside(plan, &super);
		size = meta_plan_bytes(plan);
		if (size > room)
			room = size;
		ASSERT_EQ(0, ftruncate(meta, room));
		ASSERT_EQ(0, meta_plan_replace(plan, meta, room, &e))
			TH_LOG("round %d: %s", round, e.text);
		ASSERT_EQ(0, meta_read_super(meta, room, &next, &why))
			TH_LOG("round %d: %s", round, why);
		EXPECT_EQ(super.sequence + 1, next.sequence);
		EXPECT_EQ(0, memcmp(image.uuid, next.uuid, 16));
		EXPECT_EQ(image.extents, next.extents);
		url = note(meta, &next, META_NOTE_URL);
		EXPECT_STREQ("u:next", url);
		free(url);
		/* The old image is whole, in case the new slot is not. */
		for (i = 0; i < LF_REGION_OVERLAY; i++) {
			ASSERT_EQ(0, meta_read_region(meta, &super, i, &data,
						      &e))
				TH_LOG("round %d: %s", round, e.text);
			free(data);
			ASSERT_EQ(0, meta_read_region(meta, &next, i, &data,
						      &e));
			free(data);
		}
		ASSERT_EQ(0, io_pread(meta, after, overlay_bytes, base));
		ASSERT_EQ(0, memcmp(before, after, overlay_bytes));
		super = next;
		meta_plan_free(plan);
	}
	/* Room is used again: not 20 images long. */
	EXPECT_GE(4 * 6 * BLOCK + overlay_bytes + 30 * BLOCK, room);
	close(meta);
	close(cow);
}

TEST(notes_are_kept_replaced_and_copied)
{
	int cow = make_cow_file(BLOCK), meta, copy, cow2;
	struct meta_overlay overlay = {
		.origin_meta = "/a/meta", .origin_cow = "/a/cow",
	};
	struct meta_plan *plan;
	struct lf_super super;
	struct error e = {};
	const char *why;
	char *value;
	u64 bytes;

	meta = make_meta(BLOCK, uuid_a, cow, &super);
	ASSERT_LE(0, meta);
	value = note(meta, &super, META_NOTE_URL);
	EXPECT_STREQ("u:r/l", value);
	free(value);
	EXPECT_EQ(NULL, note(meta, &super, META_NOTE_ORIGIN_META));

	ASSERT_EQ(0, meta_plan_read(&plan, meta, &super, &e));
	memcpy(overlay.uuid, uuid_b, sizeof(overlay.uuid));
	memcpy(overlay.origin, uuid_a, sizeof(overlay.origin));
	ASSERT_EQ(0, meta_plan_overlay(plan, &overlay, &e));
	ASSERT_EQ(0, meta_plan_note(plan, META_NOTE_URL, "u:other", &e));
	EXPECT_EQ(-EINVAL, meta_plan_note(plan, "x", "two\nlines", &e));
	bytes = meta_plan_bytes(plan);
	copy = memfd_create("copy", MFD_CLOEXEC);
	cow2 = make_cow_file(BLOCK);
	ASSERT_EQ(0, ftruncate(copy, bytes));
	ASSERT_EQ(0, meta_plan_write(plan, copy, bytes, cow2, &e));
	meta_plan_free(plan);
	ASSERT_EQ(0, meta_read_super(copy, bytes, &super, &why));
	EXPECT_TRUE(lf_super_has_origin(&super));
	EXPECT_EQ(0, memcmp(super.origin, uuid_a, 16));
	value = note(copy, &super, META_NOTE_URL);
	EXPECT_STREQ("u:other", value);
	free(value);
	value = note(copy, &super, META_NOTE_ORIGIN_META);
	EXPECT_STREQ("/a/meta", value);
	free(value);
	value = note(copy, &super, META_NOTE_ORIGIN_COW);
	EXPECT_STREQ("/a/cow", value);
	free(value);
	close(copy);
	close(cow2);
	close(meta);
	close(cow);
}

TEST_HARNESS_MAIN

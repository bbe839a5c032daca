// SPDX-License-Identifier: GPL-2.0-only
/*
 * Changes laid over mappings, against a model that knows of each block where it
 * is stored and nothing else.
 */
#include <stdlib.h>

#include "../../helper/image.h"
#include "../../helper/mapping.h"
#include "../../helper/uuid.h"
#include "kselftest_harness.h"
#include "random.h"

#define K		4096ULL
#define MODEL_BLOCKS	4096

/* @layer: 0: zeros, 0xff: (in changes) as below */
struct block {
	u8 layer;
	u32 storage;
};

#define BELOW	0xff

static void set_uuid(u8 uuid[16], u8 layer)
{
	memset(uuid, layer, 16);
}

static bool add(struct mapping_list *list, u64 start, u64 blocks, u8 layer,
		u64 storage)
{
	struct header_mapping m = {
		.start = start * K,
		.length = blocks * K,
		.storage = storage * K,
	};
	struct error e = {""};

	set_uuid(m.uuid, layer);
	if (!mapping_add(list, &m, &e))
		return true;
	printf("# not added: %s\n", e.text);
	return false;
}

/* Block by block: mapping_add() has to join them. */
static bool list_of(const struct block *model, u32 blocks,
		    struct mapping_list *list)
{
	u32 i;

	for (i = 0; i < blocks; i++)
		if (model[i].layer != BELOW &&
		    !add(list, i, 1, model[i].layer, model[i].storage))
			return false;
	return true;
}

static void overlay_model(struct block *model, const struct block *diff,
			  u32 blocks)
{
	u32 i;

	for (i = 0; i < blocks; i++)
		if (diff[i].layer != BELOW)
			model[i] = diff[i];
}

/* No list that says the same is shorter. */
static bool is_normal(const struct mapping_list *list)
{
	u32 i;

	for (i = 1; i < list->count; i++) {
		const struct header_mapping *a = &list->mapping[i - 1], *b = a + 1;

		if (a->start + a->length != b->start ||
		    memcmp(a->uuid, b->uuid, 16))
			continue;
		if (uuid_is_nil(a->uuid) || a->storage + a->length == b->storage)
			return false;
	}
	return true;
}

/* Every block, found as readers find it, is where the model has it. */
static bool equals_model(const struct mapping_list *list,
			 const struct block *model, u32 blocks)
{
	struct header h = {
		.version = 4,
		.block_size = K,
		.size = blocks * K,
		.mappings = list->count,
		.mapping = list->mapping,
	};
	struct error e = {""};
	u8 uuid[16];
	u32 i;

	if (mapping_end(list) != blocks * K || !is_normal(list) ||
	    header_check(&h, &e)) {
		printf("# end %llu, normal %d, %s\n",
		       (unsigned long long)mapping_end(list), is_normal(list),
		       e.text);
		return false;
	}
	for (i = 0; i < 2 * blocks; i++) {
		/* its first byte, its last byte */
		u64 off = i / 2 * K + (i % 2 ? K - 1 : 0);
		const struct header_mapping *m = header_find(&h, off);
		const struct block *want = &model[i / 2];

		set_uuid(uuid, want->layer);
		if (!m || memcmp(m->uuid, uuid, 16) ||
		    (want->layer && m->storage + (off - m->start) !=
		     want->storage * K + off % K) ||
		    (!want->layer && m->storage)) {
			printf("# offset %llu\n", (unsigned long long)off);
			return false;
		}
	}
	return true;
}

/* Is @diff over @parent what the model says? */
static bool holds(const struct block *parent, const struct block *diff,
		  u32 blocks)
{
	struct mapping_list p = {0}, d = {0}, out = {0};
	struct block model[MODEL_BLOCKS];
	struct error e = {""};
	bool good;

	memcpy(model, parent, blocks * sizeof(*model));
	overlay_model(model, diff, blocks);
	good = list_of(parent, blocks, &p) && list_of(diff, blocks, &d) &&
	       !mapping_overlay(&p, &d, &out, &e) &&
	       equals_model(&p, parent, blocks) &&
	       equals_model(&out, model, blocks);
	if (!good)
		printf("# %s\n", e.text);
	mapping_free(&p);
	mapping_free(&d);
	mapping_free(&out);
	return good;
}

/*
 * Four blocks, each of which may be zeros, in a row with its neighbours, in the
 * same layer but elsewhere, or in another layer; over each of them nothing,
 * zeros or data: every way to overlap is among these.
 */
TEST(every_change_over_every_parent_of_four_blocks)
{
	u32 p, d, i, n;

	for (p = 0; p < 256; p++) {
		for (d = 0; d < 81; d++) {
			struct block parent[4], diff[4];
			u32 packed = 0;

			for (i = 0, n = p; i < 4; i++, n /= 4)
				parent[i] = (struct block[]){ { 0, 0 },
					{ 1, 10 + i }, { 1, 30 - i },
					{ 2, 10 + i } }[n % 4];
			for (i = 0, n = d; i < 4; i++, n /= 3) {
				diff[i] = (struct block[]){ { BELOW, 0 },
					{ 0, 0 }, { 3, packed } }[n % 3];
				packed += n % 3 == 2;
			}
			ASSERT_TRUE(holds(parent, diff, 4)) {
				printf("# parent %u, change %u\n", p, d);
			}
		}
	}
}

/* @want: starts, in blocks, and whose; ends with a start of 0 that is not first */
static bool cuts(u64 start, u64 blocks, const u64 *want)
{
	struct mapping_list parent = {0}, diff = {0}, out = {0};
	struct error e = {""};
	bool good;
	u32 i;

	good = add(&parent, 0, 10, 1, 100) && add(&parent, 10, 10, 2, 50) &&
	       add(&diff, start, blocks, 3, 0) &&
	       !mapping_overlay(&parent, &diff, &out, &e);
	for (i = 0; good && (!i || want[2 * i]); i++)
		good = i < out.count && out.mapping[i].start == want[2 * i] * K &&
		       out.mapping[i].uuid[0] == want[2 * i + 1];
	good = good && i == out.count;
	mapping_free(&parent);
	mapping_free(&diff);
	mapping_free(&out);
	return good;
}

TEST(the_six_ways_to_overlap)
{
	/* inside, at the start, at the end, all of it, over a border, all of all */
	EXPECT_TRUE(cuts(3, 4, (u64[]){ 0, 1, 3, 3, 7, 1, 10, 2, 0 }));
	EXPECT_TRUE(cuts(0, 4, (u64[]){ 0, 3, 4, 1, 10, 2, 0 }));
	EXPECT_TRUE(cuts(6, 4, (u64[]){ 0, 1, 6, 3, 10, 2, 0 }));
	EXPECT_TRUE(cuts(10, 10, (u64[]){ 0, 1, 10, 3, 0 }));
	EXPECT_TRUE(cuts(8, 4, (u64[]){ 0, 1, 8, 3, 12, 2, 0 }));
	EXPECT_TRUE(cuts(0, 20, (u64[]){ 0, 3, 0 }));
}

static void random_parent(struct block *model, u32 blocks)
{
	u32 i = 0, storage = 0;
	u8 layer = 0;

	while (i < blocks) {
		u32 run = 1 + random_below(random_below(4) ? 3 : 200);

		/* Sometimes where the last one ended, though in another run */
		if (random_below(3)) {
			layer = random_below(6);
			storage = random_below(1 << 20);
		}
		for (; run && i < blocks; run--, i++)
			model[i] = (struct block){ layer, layer ? storage++ : 0 };
	}
}

static void random_diff(struct block *model, u32 blocks, u8 layer)
{
	u32 i = 0, storage = 0;

	while (i < blocks) {
		u32 run = 1 + random_below(random_below(4) ? 3 : 200);
		u32 kind = random_below(4);

		for (; run && i < blocks; run--, i++) {
			if (kind < 2)
				model[i] = (struct block){ BELOW, 0 };
			else if (kind == 2)
				model[i] = (struct block){ 0, 0 };
			else
				model[i] = (struct block){ layer, storage++ };
		}
	}
}

TEST(generations_of_random_changes_equal_the_model)
{
	static struct block model[MODEL_BLOCKS], diff[MODEL_BLOCKS];
	struct mapping_list list, d, out;
	struct error e = {""};
	u32 round, generation, blocks;

	for (round = 0; round < 30; round++) {
		random_seed(round);
		blocks = 1 + random_below(round % 3 ? 300 : MODEL_BLOCKS);
		random_parent(model, blocks);
		memset(&list, 0, sizeof(list));
		ASSERT_TRUE(list_of(model, blocks, &list));
		for (generation = 0; generation < 20; generation++) {
			memset(&d, 0, sizeof(d));
			memset(&out, 0, sizeof(out));
			random_diff(diff, blocks, 10 + generation);
			ASSERT_TRUE(list_of(diff, blocks, &d));
			ASSERT_EQ(0, mapping_overlay(&list, &d, &out, &e));
			overlay_model(model, diff, blocks);
			ASSERT_TRUE(equals_model(&out, model, blocks));
			mapping_free(&list);
			mapping_free(&d);
			list = out;
		}
		mapping_free(&list);
	}
}

TEST(neighbours_are_joined_only_where_their_storage_is_contiguous)
{
	struct mapping_list list = {0};

	ASSERT_TRUE(add(&list, 0, 2, 1, 10));
	ASSERT_TRUE(add(&list, 2, 2, 1, 12));
	EXPECT_EQ(1, list.count);
	ASSERT_TRUE(add(&list, 4, 2, 1, 15));
	EXPECT_EQ(2, list.count);
	ASSERT_TRUE(add(&list, 6, 2, 2, 17));
	EXPECT_EQ(3, list.count);
	ASSERT_TRUE(add(&list, 8, 2, 0, 19));
	EXPECT_EQ(4, list.count);
	/* Zeros are zeros, whatever their storage says. */
	ASSERT_TRUE(add(&list, 10, 2, 0, 0));
	EXPECT_EQ(4, list.count);
	/* Nothing is joined over a gap. */
	ASSERT_TRUE(add(&list, 13, 2, 0, 0));
	EXPECT_EQ(5, list.count);
	EXPECT_EQ(15 * K, mapping_end(&list));
	mapping_free(&list);
}

TEST(cut_at_every_block)
{
	static const struct block model[] = {
		{ 1, 5 }, { 1, 6 }, { 0, 0 }, { 0, 0 }, { 2, 7 }, { 1, 7 },
		{ 1, 8 }, { 1, 9 },
	};
	struct block zeros[16] = {0};
	struct mapping_list list;
	struct error e = {""};
	u32 i;

	for (i = 0; i <= 8; i++) {
		memset(&list, 0, sizeof(list));
		ASSERT_TRUE(list_of(model, 8, &list));
		mapping_cut(&list, i * K);
		EXPECT_EQ(i * K, mapping_end(&list));
		ASSERT_EQ(0, mapping_add_zeros(&list, 16 * K, &e));
		memset(zeros, 0, sizeof(zeros));
		memcpy(zeros, model, i * sizeof(*model));
		EXPECT_TRUE(equals_model(&list, zeros, 16));
		mapping_free(&list);
	}
}

static bool refused(struct mapping_list *list, u64 start, u64 length,
		    u8 layer, u64 storage)
{
	struct header_mapping m = {
		.start = start,
		.length = length,
		.storage = storage,
	};
	u32 count = list->count;
	struct error e = {""};

	set_uuid(m.uuid, layer);
	return mapping_add(list, &m, &e) == -EINVAL && *e.text &&
	       list->count == count;
}

TEST(what_is_no_mapping_is_refused)
{
	struct mapping_list list = {0};

	ASSERT_TRUE(add(&list, 0, 4, 1, 0));
	EXPECT_TRUE(refused(&list, 4 * K, 0, 1, 0));
	EXPECT_TRUE(refused(&list, 4 * K, 100, 1, 0));
	EXPECT_TRUE(refused(&list, 4 * K + 512, K, 1, 0));
	EXPECT_TRUE(refused(&list, 4 * K, K, 1, 512));
	EXPECT_TRUE(refused(&list, 3 * K, K, 1, 0));
	EXPECT_TRUE(refused(&list, 0, K, 0, 0));
	EXPECT_TRUE(refused(&list, LF_MAX_IMAGE, K, 1, 0));
	EXPECT_TRUE(refused(&list, LF_MAX_IMAGE - K, 2 * K, 1, 0));
	EXPECT_TRUE(refused(&list, 4 * K, K, 1, LF_MAX_IMAGE));
	EXPECT_TRUE(refused(&list, 4 * K, -K, 1, 0));
	EXPECT_TRUE(refused(&list, -K, K, 1, 0));
	EXPECT_TRUE(refused(&list, 4 * K, K, 1, -K));
	mapping_free(&list);
}

TEST(a_change_without_a_parent_below_it_is_refused)
{
	struct mapping_list parent = {0}, diff = {0}, out = {0};
	struct error e = {""};

	ASSERT_TRUE(add(&parent, 0, 4, 1, 0));
	ASSERT_TRUE(add(&diff, 3, 2, 2, 0));
	EXPECT_EQ(-EINVAL, mapping_overlay(&parent, &diff, &out, &e));
	EXPECT_NE(NULL, strstr(e.text, "ends behind the image"));
	mapping_free(&parent);
	mapping_free(&out);
	/* a hole in what should cover all */
	ASSERT_TRUE(add(&parent, 1, 8, 1, 0));
	EXPECT_EQ(-EINVAL, mapping_overlay(&parent, &diff, &out, &e));
	EXPECT_NE(NULL, strstr(e.text, "nothing maps image offset 0"));
	mapping_free(&parent);
	mapping_free(&diff);
	mapping_free(&out);
}

/* One more is too many, and the list is as it was. */
TEST(no_list_is_longer_than_a_header_may_be)
{
	struct mapping_list list = {0};
	struct header_mapping m;
	struct error e = {""};
	u32 i;

	for (i = 0; i < HEADER_MAX_MAPPINGS; i++) {
		m = (struct header_mapping){ .start = i * K, .length = K };
		set_uuid(m.uuid, 1 + i % 2);
		if (mapping_add(&list, &m, &e))
			break;
	}
	ASSERT_EQ(HEADER_MAX_MAPPINGS, i);
	m.start += K;
	EXPECT_EQ(-EFBIG, mapping_add(&list, &m, &e));
	EXPECT_NE(NULL, strstr(e.text, "flatten"));
	EXPECT_EQ(HEADER_MAX_MAPPINGS, list.count);
	mapping_free(&list);
}

/*
 * A million mappings below a million changes. Were the parent searched from its
 * start for each change, this would take hours.
 */
TEST(the_time_is_linear)
{
	struct mapping_list parent = {0}, diff = {0}, out = {0};
	struct error e = {""};
	u32 i;

	for (i = 0; i < 1 << 20; i++) {
		struct header_mapping m = { .start = 3 * i * K, .length = 3 * K };

		set_uuid(m.uuid, 1 + i % 5);
		ASSERT_EQ(0, mapping_add(&parent, &m, &e));
		m.start += K;
		m.length = K;
		set_uuid(m.uuid, 9);
		m.storage = i * K;
		ASSERT_EQ(0, mapping_add(&diff, &m, &e));
	}
	ASSERT_EQ(0, mapping_overlay(&parent, &diff, &out, &e));
	EXPECT_EQ(3U << 20, out.count);
	EXPECT_EQ(mapping_end(&parent), mapping_end(&out));
	mapping_free(&parent);
	mapping_free(&diff);
	mapping_free(&out);
}

TEST(an_images_extents_become_a_full_cover)
{
	struct image_layer layer[2] = {0};
	struct image_extent extent[] = {
		{ .start = 2 * K, .length = 3 * K, .storage = K, .layer = 1 },
		{ .start = 5 * K, .length = K, .storage = 4 * K, .layer = 1 },
		{ .start = 8 * K, .length = 100, .storage = 0, .layer = 0 },
	};
	struct image image = {
		.bytes = 8 * K + 100,
		.layers = 2,
		.layer = layer,
		.extents = 3,
		.extent = extent,
	};
	static const struct block want[] = {
		{ 0, 0 }, { 0, 0 }, { 7, 1 }, { 7, 2 }, { 7, 3 }, { 7, 4 },
		{ 0, 0 }, { 0, 0 }, { 6, 0 },
	};
	struct mapping_list list = {0};
	struct error e = {""};

	set_uuid(layer[0].uuid, 6);
	set_uuid(layer[1].uuid, 7);
	ASSERT_EQ(0, mapping_of_image(&image, &list, &e));
	EXPECT_TRUE(equals_model(&list, want, 9));
	EXPECT_EQ(4, list.count);
	mapping_free(&list);

	/* zeros at the end, and an image of nothing else */
	image.bytes = 20 * K - 1;
	extent[2].length = K;
	ASSERT_EQ(0, mapping_of_image(&image, &list, &e));
	EXPECT_EQ(20 * K, mapping_end(&list));
	EXPECT_EQ(5, list.count);
	mapping_free(&list);
	image.extents = 0;
	ASSERT_EQ(0, mapping_of_image(&image, &list, &e));
	EXPECT_EQ(20 * K, mapping_end(&list));
	EXPECT_EQ(1, list.count);
	mapping_free(&list);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0-only
/*
 * The store on disk: its shape on devices of all sizes, every check of
 * superblock, layer and summary, which copy is picked, what a checksum covers.
 */
#include <stdlib.h>

#include "../../kmod/store_disk.h"
#include "kselftest_harness.h"
#include "random.h"

#define BLOCK		((u64)LF_META_BLOCK)
#define MIB		(1ULL << 20)
#define GIB		(1ULL << 30)
#define SMALLEST	(33 * MIB)

static const u8 uuid_a[16] = { 0xaa, 1, 2, 3 };
static const u8 uuid_b[16] = { 0xbb, 1, 2, 3 };

static struct lf_store_shape shape_on(u64 bytes)
{
	struct lf_store_shape shape = {};
	const char *why;

	if (lf_store_plan(bytes, &shape, &why))
		memset(&shape, 0, sizeof(shape));
	return shape;
}

static struct lf_disk_store make_super(u64 bytes, const u8 uuid[16])
{
	struct lf_store_shape shape = shape_on(bytes);
	struct lf_disk_store super = {
		.segment_bytes = cpu_to_le32(shape.segment_bytes),
		.bytes = cpu_to_le64(bytes),
		.segments = cpu_to_le32(shape.segments),
		.layers = cpu_to_le32(shape.layers),
	};

	memcpy(super.uuid, uuid, sizeof(super.uuid));
	lf_store_finish(&super);
	return super;
}

/* Everything is on the device, in order, and nothing overlaps. */
static bool fits(const struct lf_store_shape *shape, u64 bytes)
{
	u64 table = LF_STORE_COPIES + shape->layers / 128;
	u32 last = shape->segments - 1;

	return table == shape->summary_start &&
	       lf_summary_place(shape, 0) == table &&
	       lf_summary_place(shape, last) + shape->summary_blocks <=
			shape->data_start &&
	       !(shape->data_start * BLOCK % MIB) &&
	       lf_segment_place(shape, 0) == shape->data_start &&
	       lf_segment_place(shape, last) * BLOCK + shape->segment_bytes <=
			bytes &&
	       sizeof(struct lf_disk_summary) +
			shape->slots * sizeof(struct lf_disk_store_entry) ==
			shape->summary_blocks * BLOCK;
}

TEST(shape_from_the_smallest_to_the_largest)
{
	static const struct {
		u64 bytes;
		u32 segment_mib;
		u32 segments;
		u32 layers;
	} shapes[] = {
		{ SMALLEST, 4, 8, 128 },
		{ 37 * MIB - 1, 4, 8, 128 },
		{ 37 * MIB, 4, 9, 128 },
		{ 256 * MIB - 1, 4, 63, 128 },
		{ 256 * MIB, 4, 63, 256 },
		{ GIB, 4, 255, 1024 },
		{ GIB + 4 * MIB, 8, 128, 1024 },
		{ 2 * GIB, 8, 255, 2048 },
		{ 4 * GIB, 16, 255, 4096 },
		{ 4 * GIB + 16 * MIB, 32, 128, 4096 },
		{ 8 * GIB, 32, 255, 8192 },
		{ 64 * GIB, 32, 2045, 65408 },
		{ LF_STORE_MAX_BYTES, 32, 523776, 65408 },
	};
	struct lf_store_shape shape;
	const char *why = NULL;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(shapes); i++) {
		ASSERT_EQ(0, lf_store_plan(shapes[i].bytes, &shape, &why));
		EXPECT_EQ(shapes[i].segment_mib * MIB, shape.segment_bytes);
		EXPECT_EQ(shapes[i].segments, shape.segments);
		EXPECT_EQ(shapes[i].layers, shape.layers);
		EXPECT_EQ(shapes[i].segment_mib / 4, shape.summary_blocks);
		EXPECT_TRUE(fits(&shape, shapes[i].bytes));
	}
}

TEST(shape_too_small_and_too_big)
{
	static const u64 sizes[] = { 0, 1, BLOCK, MIB, 32 * MIB, SMALLEST - 1 };
	struct lf_store_shape shape;
	const char *why;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		why = "";
		EXPECT_EQ(-EINVAL, lf_store_plan(sizes[i], &shape, &why));
		EXPECT_NE(NULL, strstr(why, "a store needs"));
	}
	EXPECT_EQ(-EINVAL, lf_store_plan(LF_STORE_MAX_BYTES + 1, &shape, &why));
	EXPECT_STREQ("a store can have 16 TiB", why);
	EXPECT_EQ(-EINVAL, lf_store_plan(~0ULL, &shape, &why));
}

TEST(shape_fits_any_device_and_wastes_little)
{
	struct lf_store_shape shape;
	const char *why;
	u64 bytes, used;
	int i;

	random_seed(0x570);
	for (i = 0; i < 20000; i++) {
		bytes = SMALLEST + random_below(i & 1 ? 10 * GIB :
						LF_STORE_MAX_BYTES - SMALLEST);
		ASSERT_EQ(0, lf_store_plan(bytes, &shape, &why));
		ASSERT_TRUE(fits(&shape, bytes)) TH_LOG("%llu", bytes);
		used = (u64)shape.segments * shape.segment_bytes;
		/* a segment's rest, summaries, table */
		ASSERT_LE(bytes - used,
			  2ULL * shape.segment_bytes + bytes / 512 + 3 * MIB);
	}
}

static const char *pick_why(const struct lf_disk_store copies[2], u64 bytes)
{
	const struct lf_disk_store *super;
	const char *why = "no reason given";
	struct lf_store_shape shape;

	return lf_store_pick(copies, bytes, &super, &shape, &why) ? why : NULL;
}

TEST(super_what_was_planned_is_picked)
{
	static const u64 sizes[] = { SMALLEST, GIB, 9 * GIB, LF_STORE_MAX_BYTES };
	const struct lf_disk_store *super;
	struct lf_store_shape plan, shape;
	struct lf_disk_store copies[2];
	const char *why;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		plan = shape_on(sizes[i]);
		copies[0] = make_super(sizes[i], uuid_a);
		copies[1] = copies[0];
		ASSERT_EQ(0, lf_store_pick(copies, sizes[i], &super, &shape,
					   &why));
		EXPECT_EQ(&copies[0], super);
		EXPECT_EQ(0, memcmp(&plan, &shape, sizeof(plan)));
		/* A device that grew is as good. */
		EXPECT_EQ(NULL, pick_why(copies, sizes[i] + GIB));
		EXPECT_STREQ("the device is smaller than when it was formatted",
			     pick_why(copies, sizes[i] - 1));
	}
}

TEST(super_either_copy_will_do)
{
	struct lf_disk_store copies[2];
	const struct lf_disk_store *super;
	struct lf_store_shape shape;
	const char *why;
	int i;

	for (i = 0; i < 2; i++) {
		copies[0] = make_super(GIB, uuid_a);
		copies[1] = copies[0];
		copies[i].uuid[3] ^= 1;
		ASSERT_EQ(0, lf_store_pick(copies, GIB, &super, &shape, &why));
		EXPECT_EQ(&copies[!i], super);
	}
	copies[0].uuid[3] ^= 1;
	EXPECT_STREQ("its superblock is damaged", pick_why(copies, GIB));
	memset(copies, 0, sizeof(copies));
	EXPECT_STREQ("it is not formatted as a store", pick_why(copies, GIB));
}

TEST(super_every_bit_is_covered)
{
	struct lf_disk_store copies[2] = { make_super(GIB, uuid_a) };
	u8 *byte = (u8 *)&copies[0];
	size_t i;

	ASSERT_EQ(NULL, pick_why(copies, GIB));
	for (i = 0; i < 8 * sizeof(copies[0]); i++) {
		byte[i / 8] ^= 1 << i % 8;
		ASSERT_NE(NULL, pick_why(copies, GIB)) TH_LOG("bit %zu", i);
		byte[i / 8] ^= 1 << i % 8;
	}
}

/* With its sum put right */
static const char *super_why(struct lf_disk_store super, u64 bytes)
{
	struct lf_disk_store copies[2] = {};

	super.sum = cpu_to_le64(xxh64(&super, offsetof(struct lf_disk_store,
						       sum), 0));
	copies[0] = super;
	copies[1] = super;
	return pick_why(copies, bytes);
}

TEST(super_each_number_is_checked)
{
	static const u32 segments[] = { 0, 1, 7, 1U << 31, ~0U };
	static const u32 layers[] = { 0, 1, 127, 129, 65409, 65536, ~0U };
	static const u32 bytes[] = {
		0, 1, 4096, 2U << 20, (4U << 20) + 1, (4U << 20) + 4096,
		(6U << 20), 36U << 20, 64U << 20, 1U << 31, ~0U,
	};
	struct lf_disk_store good = make_super(GIB, uuid_a), super;
	const char *cannot = "its superblock says what cannot be";
	unsigned int i;

	EXPECT_EQ(NULL, super_why(good, GIB));
	super = good;
	super.version = cpu_to_le32(2);
	EXPECT_STREQ("its format is of another version", super_why(super, GIB));
	for (i = 0; i < ARRAY_SIZE(segments); i++) {
		super = good;
		super.segments = cpu_to_le32(segments[i]);
		EXPECT_STREQ(cannot, super_why(super, GIB));
	}
	for (i = 0; i < ARRAY_SIZE(layers); i++) {
		super = good;
		super.layers = cpu_to_le32(layers[i]);
		EXPECT_STREQ(cannot, super_why(super, GIB));
	}
	for (i = 0; i < ARRAY_SIZE(bytes); i++) {
		super = good;
		super.segment_bytes = cpu_to_le32(bytes[i]);
		EXPECT_STREQ(cannot, super_why(super, GIB));
	}
	super = good;
	super.segments = cpu_to_le32(256);
	EXPECT_STREQ("the device is smaller than when it was formatted",
		     super_why(super, GIB));
	super = make_super(SMALLEST, uuid_a);
	super.layers = cpu_to_le32(65408);
	EXPECT_STREQ("the device is smaller than when it was formatted",
		     super_why(super, SMALLEST));
	super = good;
	super.bytes = cpu_to_le64(GIB + 1);
	EXPECT_STREQ("the device is smaller than when it was formatted",
		     super_why(super, GIB));
	/* Fewer segments, bigger ones: another's choice, but possible */
	super = good;
	super.segments = cpu_to_le32(31);
	super.segment_bytes = cpu_to_le32(32U << 20);
	EXPECT_EQ(NULL, super_why(super, GIB));
}

TEST(layer_free_whole_and_damaged)
{
	struct lf_disk_store_layer layer = {};
	u8 *byte = (u8 *)&layer;
	size_t i;

	EXPECT_FALSE(lf_store_layer_ok(&layer));
	/* The layer of all zeros, too, can be there. */
	lf_store_layer_finish(&layer);
	EXPECT_TRUE(lf_store_layer_ok(&layer));
	memcpy(layer.uuid, uuid_a, sizeof(layer.uuid));
	EXPECT_FALSE(lf_store_layer_ok(&layer));
	layer.flags = cpu_to_le32(LF_STORE_PINNED);
	lf_store_layer_finish(&layer);
	EXPECT_TRUE(lf_store_layer_ok(&layer));
	for (i = 0; i < 8 * sizeof(layer); i++) {
		byte[i / 8] ^= 1 << i % 8;
		EXPECT_FALSE(lf_store_layer_ok(&layer)) TH_LOG("bit %zu", i);
		byte[i / 8] ^= 1 << i % 8;
	}
}

FIXTURE(summary)
{
	struct lf_store_shape shape;
	struct lf_disk_summary *summary;
};

FIXTURE_VARIANT(summary)
{
	u64 bytes;
};

FIXTURE_VARIANT_ADD(summary, small)
{
	.bytes = SMALLEST,
};

FIXTURE_VARIANT_ADD(summary, big)
{
	.bytes = 64 * GIB,
};

static void entry_set(struct lf_disk_summary *summary, u32 i, u32 layer,
		      u32 offset, u32 sectors)
{
	summary->entry[i] = (struct lf_disk_store_entry) {
		.key = cpu_to_le64(lf_store_key(layer, 4096ULL * i)),
		.offset = cpu_to_le16(offset),
		.sectors = cpu_to_le16(sectors),
	};
}

/* Full: frames of 8 sectors, one behind the other, the last up to the end */
FIXTURE_SETUP(summary)
{
	u32 i, sectors, offset;

	self->shape = shape_on(variant->bytes);
	self->summary = calloc(self->shape.summary_blocks, LF_META_BLOCK);
	memcpy(self->summary->store, uuid_a, sizeof(uuid_a));
	self->summary->sequence = cpu_to_le64(77);
	self->summary->segment = cpu_to_le32(5);
	self->summary->entries = cpu_to_le32(self->shape.slots);
	self->summary->log = cpu_to_le32(LF_LOG_MAIN);
	for (i = 0; i < self->shape.slots; i++) {
		offset = 8 * i;
		sectors = 8;
		if (i == self->shape.slots - 1)
			sectors = self->shape.segment_bytes / 512 - offset;
		entry_set(self->summary, i, i % self->shape.layers, offset,
			  sectors);
	}
	lf_summary_finish(self->summary, &self->shape);
}

FIXTURE_TEARDOWN(summary)
{
	free(self->summary);
}

static int check(struct lf_disk_summary *summary,
		 const struct lf_store_shape *shape, const char **why)
{
	*why = "no reason given";
	return lf_summary_check(summary, shape, uuid_a, 5, why);
}

/* With its sum put right: NULL if it is good */
static const char *why_not(struct lf_disk_summary *summary,
			   const struct lf_store_shape *shape)
{
	const char *why;

	lf_summary_finish(summary, shape);
	return check(summary, shape, &why) ? why : NULL;
}

TEST_F(summary, a_full_one_is_good)
{
	const char *why;

	EXPECT_EQ(0, check(self->summary, &self->shape, &why));
	self->summary->entries = 0;
	EXPECT_EQ(NULL, why_not(self->summary, &self->shape));
}

TEST_F(summary, free_or_of_another_store)
{
	const char *why;

	EXPECT_EQ(-ENODATA, lf_summary_check(self->summary, &self->shape,
					     uuid_b, 5, &why));
	memset(self->summary, 0, LF_META_BLOCK);
	EXPECT_EQ(-ENODATA, check(self->summary, &self->shape, &why));
}

TEST_F(summary, every_byte_is_covered)
{
	size_t bytes = self->shape.summary_blocks * LF_META_BLOCK, i;
	u8 *byte = (u8 *)self->summary;
	const char *why;

	for (i = 0; i < bytes; i++) {
		byte[i] ^= 1 << i % 8;
		ASSERT_NE(0, check(self->summary, &self->shape, &why))
			TH_LOG("byte %zu", i);
		byte[i] ^= 1 << i % 8;
	}
	EXPECT_EQ(0, check(self->summary, &self->shape, &why));
}

TEST_F(summary, it_belongs_to_its_segment)
{
	const char *why;

	EXPECT_EQ(-EINVAL, lf_summary_check(self->summary, &self->shape,
					    uuid_a, 4, &why));
	EXPECT_STREQ("it is of another segment", why);
}

TEST_F(summary, numbers_that_cannot_be)
{
	struct lf_disk_summary *summary = self->summary;

	summary->entries = cpu_to_le32(self->shape.slots + 1);
	EXPECT_STREQ("it says what cannot be", why_not(summary, &self->shape));
	summary->entries = cpu_to_le32(~0U);
	EXPECT_STREQ("it says what cannot be", why_not(summary, &self->shape));
	summary->entries = cpu_to_le32(1);
	summary->log = cpu_to_le32(LF_LOGS);
	EXPECT_STREQ("it says what cannot be", why_not(summary, &self->shape));
}

TEST_F(summary, frames_ascend_and_fit)
{
	const char *overlap = "its frames overlap or do not fit";
	struct lf_disk_summary *summary = self->summary;
	u32 end = self->shape.segment_bytes / 512;

	summary->entries = cpu_to_le32(2);
	entry_set(summary, 0, 0, 8, 8);
	entry_set(summary, 1, 0, 15, 8);
	EXPECT_STREQ(overlap, why_not(summary, &self->shape));
	entry_set(summary, 1, 0, 0, 8);
	EXPECT_STREQ(overlap, why_not(summary, &self->shape));
	entry_set(summary, 1, 0, 16, 0);
	EXPECT_STREQ(overlap, why_not(summary, &self->shape));
	entry_set(summary, 1, 0, end - 8, 9);
	EXPECT_STREQ(overlap, why_not(summary, &self->shape));
	entry_set(summary, 1, 0, end - 1, 0xffff);
	EXPECT_STREQ(overlap, why_not(summary, &self->shape));
	entry_set(summary, 1, 0, end - 8, 8);
	EXPECT_EQ(NULL, why_not(summary, &self->shape));
	/* What is behind the entries is nobody's. */
	entry_set(summary, 2, 0, 0, 0xffff);
	EXPECT_EQ(NULL, why_not(summary, &self->shape));
}

TEST_F(summary, layers_are_in_the_table)
{
	struct lf_disk_summary *summary = self->summary;

	summary->entries = cpu_to_le32(1);
	entry_set(summary, 0, self->shape.layers - 1, 0, 8);
	EXPECT_EQ(NULL, why_not(summary, &self->shape));
	entry_set(summary, 0, self->shape.layers, 0, 8);
	EXPECT_STREQ("it names a layer that cannot be",
		     why_not(summary, &self->shape));
	summary->entry[0].key = cpu_to_le64(~0ULL);
	EXPECT_STREQ("it names a layer that cannot be",
		     why_not(summary, &self->shape));
}

TEST(sum_is_of_bytes_layer_and_place_in_the_layer)
{
	u8 data[1024] = { 1, 2, 3 };
	u64 key = lf_store_key(3, 12345);
	u32 sum = lf_store_sum(uuid_a, key, data, 2);

	EXPECT_EQ(3, lf_store_key_layer(key));
	/* The table of layers may be another one by now. */
	EXPECT_EQ(sum, lf_store_sum(uuid_a, lf_store_key(9, 12345), data, 2));
	EXPECT_NE(sum, lf_store_sum(uuid_a, key + 1, data, 2));
	EXPECT_NE(sum, lf_store_sum(uuid_b, key, data, 2));
	EXPECT_NE(sum, lf_store_sum(uuid_a, key, data, 1));
	data[1023] ^= 1;
	EXPECT_NE(sum, lf_store_sum(uuid_a, key, data, 2));
}

TEST_HARNESS_MAIN

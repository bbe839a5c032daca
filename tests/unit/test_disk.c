// SPDX-License-Identifier: GPL-2.0-only
/*
 * The meta device: what is refused, and the searches against linear ones.
 */
#include <stdlib.h>
#include <linux/lazyframe.h>

#include "../../kmod/disk.h"
#include "kselftest_harness.h"
#include "random.h"

/* A superblock with @blocks blocks, all regions one block, sealed. */
static void make_super(struct lf_disk_super *s)
{
	unsigned int r;

	memset(s, 0, sizeof(*s));
	memcpy(s->magic, LF_META_MAGIC, sizeof(s->magic));
	s->version = cpu_to_le32(LF_META_VERSION);
	s->block_bytes = cpu_to_le32(LF_META_BLOCK);
	memset(s->uuid, 0x11, sizeof(s->uuid));
	memset(s->base_uuid, 0x22, sizeof(s->base_uuid));
	s->generation = cpu_to_le64(7);
	s->image_bytes = cpu_to_le64(1000001);
	s->blocks = cpu_to_le64(2 + LF_REGIONS);
	s->regions = cpu_to_le32(LF_REGIONS);
	for (r = 0; r < LF_REGIONS; r++) {
		s->region[r].start = cpu_to_le64(2 + r);
		s->region[r].sum = cpu_to_le64(100 + r);
	}
	s->region[LF_REGION_LAYERS].bytes =
		cpu_to_le64(2 * sizeof(struct lf_disk_layer));
	s->region[LF_REGION_EXTENTS].bytes =
		cpu_to_le64(3 * sizeof(struct lf_disk_extent));
	s->region[LF_REGION_RUNS].bytes =
		cpu_to_le64(4 * sizeof(struct lf_disk_run));
	s->region[LF_REGION_FRAMES].bytes =
		cpu_to_le64(5 * sizeof(struct lf_disk_frame));
	s->region[LF_REGION_STRINGS].bytes = cpu_to_le64(1234);
}

static void seal(struct lf_disk_super *s)
{
	s->sum = cpu_to_le64(xxh64(s, offsetof(struct lf_disk_super, sum), 0));
}

#define DEV_BYTES	((2 + LF_REGIONS) * (u64)LF_META_BLOCK)

static const char *super_why(struct lf_disk_super *s, u64 dev_bytes)
{
	const char *why = "no reason given";
	struct lf_super super;

	seal(s);
	return lf_super_check(s, 0, dev_bytes, &super, &why) ? why : NULL;
}

TEST(super_valid_is_decoded)
{
	struct lf_disk_super s;
	struct lf_super super;
	const char *why = "";

	make_super(&s);
	seal(&s);
	ASSERT_EQ(0, lf_super_check(&s, 0, DEV_BYTES, &super, &why));
	EXPECT_EQ(7, super.generation);
	EXPECT_EQ(1000001, super.image_bytes);
	EXPECT_EQ(2 + LF_REGIONS, super.blocks);
	EXPECT_EQ(2, super.layers);
	EXPECT_EQ(3, super.extents);
	EXPECT_EQ(4, super.runs);
	EXPECT_EQ(5, super.frames);
	EXPECT_EQ(1234, super.region[LF_REGION_STRINGS].bytes);
	EXPECT_EQ(6, super.region[LF_REGION_STRINGS].start);
	EXPECT_EQ(104, super.region[LF_REGION_STRINGS].sum);
	EXPECT_EQ(0, memcmp(super.uuid, s.uuid, 16));
	EXPECT_EQ(0, memcmp(super.base_uuid, s.base_uuid, 16));
}

TEST(super_any_flipped_bit_is_refused)
{
	struct lf_disk_super s;
	struct lf_super super;
	const char *why;
	unsigned int i;
	u8 *byte = (u8 *)&s;

	make_super(&s);
	seal(&s);
	for (i = 0; i < sizeof(s) * 8; i++) {
		byte[i / 8] ^= 1 << i % 8;
		ASSERT_EQ(-EINVAL, lf_super_check(&s, 0, DEV_BYTES, &super, &why))
			TH_LOG("bit %u", i);
		byte[i / 8] ^= 1 << i % 8;
	}
}

/* The rest has a right checksum: it was written like that. */
#define REFUSE_SUPER(text, change)					\
	do {								\
		make_super(&s);						\
		change;							\
		ASSERT_NE(NULL, super_why(&s, DEV_BYTES))		\
			TH_LOG("accepted: %s", text);			\
		EXPECT_STREQ(text, super_why(&s, DEV_BYTES));		\
	} while (0)

TEST(super_unknown_things_are_refused)
{
	struct lf_disk_super s;

	REFUSE_SUPER("not a lazyframe meta device", s.magic[0] = 'l');
	REFUSE_SUPER("unknown version of the meta device",
		     s.version = cpu_to_le32(LF_META_VERSION + 1));
	REFUSE_SUPER("unknown block size of the meta device",
		     s.block_bytes = cpu_to_le32(512));
	REFUSE_SUPER("the meta device has unknown features",
		     s.features = cpu_to_le64(1ULL << 63));
	REFUSE_SUPER("the meta device has unknown regions",
		     s.regions = cpu_to_le32(LF_REGIONS + 1));
	REFUSE_SUPER("the meta device has unknown regions",
		     s.regions = cpu_to_le32(LF_REGIONS - 1));
	REFUSE_SUPER("the meta device has unknown regions",
		     s.reserved = cpu_to_le32(1));
}

TEST(super_sizes_are_checked)
{
	struct lf_disk_super s;

	REFUSE_SUPER("the image is empty", s.image_bytes = 0);
	REFUSE_SUPER("the image is too big",
		     s.image_bytes = cpu_to_le64(LF_MAX_IMAGE + 1));
	REFUSE_SUPER("the meta device uses no blocks", s.blocks = 0);
	REFUSE_SUPER("the meta device is smaller than when it was written",
		     s.blocks = cpu_to_le64(3 + LF_REGIONS));
	REFUSE_SUPER("the meta device is smaller than when it was written",
		     s.blocks = cpu_to_le64(~0ULL));

	make_super(&s);
	s.image_bytes = cpu_to_le64(LF_MAX_IMAGE);
	EXPECT_EQ(NULL, super_why(&s, DEV_BYTES));
	EXPECT_NE(NULL, super_why(&s, DEV_BYTES - 1));
}

TEST(super_regions_lie_inside_and_apart)
{
	struct lf_disk_region *r;
	struct lf_disk_super s;

	r = &s.region[LF_REGION_STRINGS];
	REFUSE_SUPER("a region overlaps the superblock", r->start = 0);
	REFUSE_SUPER("a region ends behind the device",
		     r->start = cpu_to_le64(2 + LF_REGIONS));
	REFUSE_SUPER("a region ends behind the device",
		     r->start = cpu_to_le64(~0ULL));
	REFUSE_SUPER("a region ends behind the device",
		     r->bytes = cpu_to_le64(2 * LF_META_BLOCK + 1));
	REFUSE_SUPER("regions overlap", r->start = cpu_to_le64(5));
	REFUSE_SUPER("regions overlap", r->start = cpu_to_le64(2);
		     s.region[LF_REGION_LAYERS].bytes = cpu_to_le64(80 * 52);
		     s.region[LF_REGION_EXTENTS].start = cpu_to_le64(5));
}

TEST(super_empty_regions_need_no_place)
{
	struct lf_disk_super s;
	struct lf_super super;
	const char *why = "";
	unsigned int r;

	make_super(&s);
	for (r = 0; r < LF_REGIONS; r++)
		memset(&s.region[r], 0, sizeof(s.region[r]));
	s.blocks = cpu_to_le64(1);
	seal(&s);
	ASSERT_EQ(0, lf_super_check(&s, 0, LF_META_BLOCK, &super, &why));
	EXPECT_EQ(0, super.layers);
}

TEST(super_regions_hold_whole_entries)
{
	struct lf_disk_super s;

	REFUSE_SUPER("the layer region holds part of an entry",
		     s.region[LF_REGION_LAYERS].bytes = cpu_to_le64(81));
	REFUSE_SUPER("the extent region holds part of an entry",
		     s.region[LF_REGION_EXTENTS].bytes = cpu_to_le64(31));
	REFUSE_SUPER("the run region holds part of an entry",
		     s.region[LF_REGION_RUNS].bytes = cpu_to_le64(25));
	REFUSE_SUPER("the frame region holds part of an entry",
		     s.region[LF_REGION_FRAMES].bytes = cpu_to_le64(12));
}

TEST(super_counts_are_capped)
{
	static const struct {
		unsigned int region;
		u64 entry, max;
	} caps[] = {
		{ LF_REGION_LAYERS, sizeof(struct lf_disk_layer), LF_MAX_LAYERS },
		{ LF_REGION_EXTENTS, sizeof(struct lf_disk_extent), LF_MAX_EXTENTS },
		{ LF_REGION_RUNS, sizeof(struct lf_disk_run), LF_MAX_ALL_FRAMES },
		{ LF_REGION_FRAMES, sizeof(struct lf_disk_frame), LF_MAX_ALL_FRAMES },
		{ LF_REGION_STRINGS, 1, LF_MAX_STRINGS },
	};
	struct lf_disk_super s;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(caps); i++) {
		make_super(&s);
		s.blocks = cpu_to_le64(1ULL << 30);
		s.region[caps[i].region].start = cpu_to_le64(100);
		s.region[caps[i].region].bytes =
			cpu_to_le64(caps[i].entry * caps[i].max);
		EXPECT_EQ(NULL, super_why(&s, 1ULL << 42));
		s.region[caps[i].region].bytes =
			cpu_to_le64(caps[i].entry * (caps[i].max + 1));
		EXPECT_NE(NULL, super_why(&s, 1ULL << 42));
		/* 2^32 entries too many must not pass as none. */
		s.region[caps[i].region].bytes =
			cpu_to_le64(caps[i].entry << 32);
		EXPECT_NE(NULL, super_why(&s, 1ULL << 42));
	}
}

FIXTURE(layer)
{
	struct lf_super super;
	struct lf_disk_layer layer;
	const char *why;
};

FIXTURE_SETUP(layer)
{
	memset(self, 0, sizeof(*self));
	self->super.runs = 10;
	self->super.frames = 100;
	self->super.region[LF_REGION_STRINGS].bytes = 1000;
	memset(self->layer.uuid, 1, sizeof(self->layer.uuid));
	self->layer.codec = cpu_to_le32(LAZYFRAME_CODEC_ZSTD);
	self->layer.flags = cpu_to_le32(LF_LAYER_SUMS);
	self->layer.ubytes = cpu_to_le64(100 * 4096);
	self->layer.cbytes = cpu_to_le64(12345);
	self->layer.first_run = cpu_to_le32(2);
	self->layer.runs = cpu_to_le32(8);
	self->layer.first_frame = cpu_to_le32(20);
	self->layer.frames = cpu_to_le32(80);
	self->layer.locator = cpu_to_le32(900);
	self->layer.locator_bytes = cpu_to_le32(100);
	self->layer.validator = cpu_to_le32(1000);
}

FIXTURE_TEARDOWN(layer)
{
}

#define LAYER_OK()							\
	EXPECT_EQ(0, lf_layer_check(&self->layer, &self->super, &self->why))

#define REFUSE_LAYER(field, value)					\
	do {								\
		struct lf_disk_layer saved = self->layer;		\
		self->layer.field = (value);				\
		EXPECT_EQ(-EINVAL, lf_layer_check(&self->layer,		\
						  &self->super,		\
						  &self->why))		\
			TH_LOG("accepted: " #field " = " #value);	\
		self->layer = saved;					\
	} while (0)

TEST_F(layer, valid_is_accepted)
{
	LAYER_OK();
	self->layer.codec = cpu_to_le32(LAZYFRAME_CODEC_NONE);
	LAYER_OK();
	self->layer.codec = cpu_to_le32(LAZYFRAME_CODEC_LZ4);
	LAYER_OK();
	self->layer.runs = 0;
	self->layer.frames = 0;
	LAYER_OK();
}

TEST_F(layer, unknown_things_are_refused)
{
	memset(self->layer.uuid, 0, sizeof(self->layer.uuid));
	EXPECT_EQ(-EINVAL, lf_layer_check(&self->layer, &self->super,
					  &self->why));
	memset(self->layer.uuid, 1, sizeof(self->layer.uuid));
	REFUSE_LAYER(codec, cpu_to_le32(3));
	REFUSE_LAYER(codec, cpu_to_le32(~0U));
	REFUSE_LAYER(flags, cpu_to_le32(LF_LAYER_SUMS << 1));
	REFUSE_LAYER(reserved, cpu_to_le64(1));
	LAYER_OK();
}

TEST_F(layer, slices_lie_inside_their_regions)
{
	REFUSE_LAYER(first_run, cpu_to_le32(3));
	REFUSE_LAYER(first_run, cpu_to_le32(~0U));
	REFUSE_LAYER(runs, cpu_to_le32(9));
	REFUSE_LAYER(first_frame, cpu_to_le32(21));
	REFUSE_LAYER(first_frame, cpu_to_le32(~0U));
	REFUSE_LAYER(frames, cpu_to_le32(81));
	REFUSE_LAYER(locator, cpu_to_le32(901));
	REFUSE_LAYER(locator, cpu_to_le32(~0U));
	REFUSE_LAYER(locator_bytes, cpu_to_le32(101));
	REFUSE_LAYER(validator, cpu_to_le32(1001));
	REFUSE_LAYER(validator_bytes, cpu_to_le32(1));
	LAYER_OK();
}

TEST_F(layer, sizes_are_capped)
{
	REFUSE_LAYER(ubytes, cpu_to_le64(LF_MAX_IMAGE + 1));
	REFUSE_LAYER(cbytes, cpu_to_le64(LF_MAX_IMAGE + 1));
	REFUSE_LAYER(runs, 0);
	REFUSE_LAYER(frames, 0);
	REFUSE_LAYER(frames, cpu_to_le32(7));	/* fewer than runs */
	REFUSE_LAYER(locator_bytes, 0);

	self->super.frames = ~0U;
	REFUSE_LAYER(frames, cpu_to_le32(LF_MAX_FRAMES + 1));
	self->layer.frames = cpu_to_le32(LF_MAX_FRAMES);
	LAYER_OK();

	self->super.region[LF_REGION_STRINGS].bytes = 10000;
	REFUSE_LAYER(locator_bytes, cpu_to_le32(LAZYFRAME_LOCATOR_MAX));
	REFUSE_LAYER(validator_bytes, cpu_to_le32(LAZYFRAME_VALIDATOR_MAX));
	self->layer.locator_bytes = cpu_to_le32(LAZYFRAME_LOCATOR_MAX - 1);
	self->layer.validator_bytes = cpu_to_le32(LAZYFRAME_VALIDATOR_MAX - 1);
	LAYER_OK();
}

/* A frame table as a list, and the same on disk. */
struct model {
	struct lf_frame_pos *pos;
	u32 frames;
	u64 ubytes, cbytes;
	struct lf_disk_run *run;
	struct lf_disk_frame *frame;
	struct lf_table table;
};

static void model_free(struct model *m)
{
	free(m->pos);
	free(m->run);
	free(m->frame);
}

static void model_pack(struct model *m)
{
	u32 i, first = 0;

	m->run = calloc(m->frames, sizeof(*m->run));
	m->frame = calloc(m->frames, sizeof(*m->frame));
	m->table = (struct lf_table){ .run = m->run, .frame = m->frame,
				      .frames = m->frames, .sums = true };
	for (i = 0; i < m->frames; i++) {
		const struct lf_frame_pos *p = &m->pos[i];

		m->frame[i].cbytes = cpu_to_le32(p->cbytes);
		m->frame[i].sum = cpu_to_le32(p->sum);
		if (!i || i - first == LF_RUN_FRAMES ||
		    p->ubytes != p[-1].ubytes ||
		    p->ustart != p[-1].ustart + p[-1].ubytes ||
		    p->cstart != p[-1].cstart + p[-1].cbytes) {
			struct lf_disk_run *run = &m->run[m->table.runs++];

			first = i;
			run->ustart = cpu_to_le64(p->ustart);
			run->cstart = cpu_to_le64(p->cstart);
			run->ubytes = cpu_to_le32(p->ubytes);
			run->first = cpu_to_le32(i);
		}
	}
	/* Exactly as big as needed, so that ASan sees what looks behind it. */
	m->run = realloc(m->run, m->table.runs * sizeof(*m->run));
	m->table.run = m->run;
}

/* Regular stretches, odd frames, gaps in either space. */
static void model_random(struct model *m, u32 frames, bool raw)
{
	u32 i, size = 4096;
	u64 u = 0, c = 0;

	memset(m, 0, sizeof(*m));
	m->frames = frames;
	m->pos = calloc(frames, sizeof(*m->pos));
	for (i = 0; i < frames; i++) {
		if (!random_below(20))
			size = 1 + random_below(20000);
		if (!random_below(30))
			u += random_below(100000);
		if (!random_below(30))
			c += random_below(1000);
		m->pos[i] = (struct lf_frame_pos){
			.ustart = u, .cstart = c, .ubytes = size,
			.cbytes = raw ? size : 1 + random_below(size),
			.sum = random_u64(), .index = i, .has_sum = true,
		};
		u += size;
		c += m->pos[i].cbytes;
	}
	m->ubytes = u;
	m->cbytes = c;
	model_pack(m);
}

static const struct lf_frame_pos *model_find(const struct model *m, u64 off)
{
	u32 i;

	for (i = 0; i < m->frames; i++)
		if (off >= m->pos[i].ustart &&
		    off - m->pos[i].ustart < m->pos[i].ubytes)
			return &m->pos[i];
	return NULL;
}

static bool same_pos(const struct lf_frame_pos *a, const struct lf_frame_pos *b)
{
	return a->ustart == b->ustart && a->cstart == b->cstart &&
	       a->ubytes == b->ubytes && a->cbytes == b->cbytes &&
	       a->sum == b->sum && a->index == b->index &&
	       a->has_sum == b->has_sum;
}

TEST(table_find_equals_a_linear_search)
{
	unsigned int round, probe;
	const char *why = "";
	struct model m;

	for (round = 0; round < 300; round++) {
		random_seed(round);
		model_random(&m, 1 + random_below(400), round % 3 == 0);
		ASSERT_EQ(0, lf_table_check(&m.table, round % 3 ?
					    LAZYFRAME_CODEC_LZ4 :
					    LAZYFRAME_CODEC_NONE,
					    m.ubytes, m.cbytes, &why))
			TH_LOG("round %u: %s", round, why);
		for (probe = 0; probe < 600; probe++) {
			const struct lf_frame_pos *want;
			struct lf_frame_pos pos;
			u64 off = random_below(m.ubytes + 2);
			int ret;

			/* Edges of frames, from both sides, every other time */
			if (probe % 2) {
				want = &m.pos[random_below(m.frames)];
				off = want->ustart + random_below(3) - 1;
				if (probe % 4 == 1)
					off += want->ubytes;
			}
			want = model_find(&m, off);
			ret = lf_table_find(&m.table, off, &pos);
			ASSERT_EQ(want ? 0 : -ENOENT, ret)
				TH_LOG("round %u, offset %llu", round,
				       (unsigned long long)off);
			if (want)
				ASSERT_TRUE(same_pos(want, &pos));
		}
		model_free(&m);
	}
}

TEST(table_usual_one_costs_under_nine_bytes_a_frame)
{
	struct model m = { .frames = 1000 };
	u32 i;

	m.pos = calloc(m.frames, sizeof(*m.pos));
	for (i = 0; i < m.frames; i++)
		m.pos[i] = (struct lf_frame_pos){
			.ustart = (u64)i << 17, .cstart = i * 1000ULL,
			.ubytes = 1 << 17, .cbytes = 1000,
		};
	model_pack(&m);
	EXPECT_EQ(32, m.table.runs);
	EXPECT_GT(9 * m.frames, m.table.runs * sizeof(*m.run) +
				m.frames * sizeof(*m.frame));
	model_free(&m);
}

TEST(table_find_without_sums_says_so)
{
	struct lf_frame_pos pos;
	struct model m;

	model_random(&m, 10, false);
	m.table.sums = false;
	ASSERT_EQ(0, lf_table_find(&m.table, 0, &pos));
	EXPECT_FALSE(pos.has_sum);
	model_free(&m);
}

TEST(table_empty_holds_nothing)
{
	struct lf_table table = {0};
	struct lf_frame_pos pos;
	const char *why = "";

	EXPECT_EQ(0, lf_table_check(&table, LAZYFRAME_CODEC_ZSTD, 0, 0, &why));
	EXPECT_EQ(-ENOENT, lf_table_find(&table, 0, &pos));
	EXPECT_EQ(-ENOENT, lf_table_find(&table, ~0ULL, &pos));
}

TEST(table_find_survives_tables_that_were_never_checked)
{
	struct lf_frame_pos pos;
	unsigned int round, i;
	struct model m;

	for (round = 0; round < 2000; round++) {
		random_seed(round);
		model_random(&m, 1 + random_below(60), false);
		for (i = 0; i < 5; i++) {
			u32 r = random_below(m.table.runs);
			u8 *p = (u8 *)&m.run[r];

			p[random_below(sizeof(m.run[r]))] = random_u64();
		}
		for (i = 0; i < 50; i++) {
			u64 off = i % 2 ? random_u64() : random_below(1 << 20);

			if (!lf_table_find(&m.table, off, &pos))
				ASSERT_LT(pos.index, m.frames);
		}
		model_free(&m);
	}
}

FIXTURE(table)
{
	struct lf_disk_run run[3];
	struct lf_disk_frame frame[35];
	struct lf_table table;
	const char *why;
};

/* 32 frames and 2 frames of 8192 bytes, one of 100, each 1000 in C space */
FIXTURE_SETUP(table)
{
	u32 i;

	memset(self, 0, sizeof(*self));
	for (i = 0; i < 35; i++)
		self->frame[i].cbytes = cpu_to_le32(1000);
	self->run[0].ubytes = cpu_to_le32(8192);
	self->run[1].ubytes = cpu_to_le32(8192);
	self->run[1].ustart = cpu_to_le64(32 * 8192);
	self->run[1].cstart = cpu_to_le64(32 * 1000);
	self->run[1].first = cpu_to_le32(32);
	self->run[2].ubytes = cpu_to_le32(100);
	self->run[2].ustart = cpu_to_le64(34 * 8192);
	self->run[2].cstart = cpu_to_le64(34 * 1000);
	self->run[2].first = cpu_to_le32(34);
	self->table = (struct lf_table){ .run = self->run,
		.frame = self->frame, .runs = 3, .frames = 35 };
}

FIXTURE_TEARDOWN(table)
{
}

static int check(struct lf_table *table, const char **why)
{
	return lf_table_check(table, LAZYFRAME_CODEC_ZSTD, 34 * 8192 + 100,
			      35 * 1000, why);
}

#define TABLE_OK()	EXPECT_EQ(0, check(&self->table, &self->why))

#define REFUSE_TABLE(field, value)					\
	do {								\
		typeof(self->field) saved = self->field;		\
		self->field = (value);					\
		EXPECT_EQ(-EINVAL, check(&self->table, &self->why))	\
			TH_LOG("accepted: " #field " = " #value);	\
		self->field = saved;					\
	} while (0)

TEST_F(table, runs_have_1_to_32_frames)
{
	TABLE_OK();
	self->table.runs = 1;
	self->table.frames = 32;
	TABLE_OK();
	self->table.frames = 33;
	EXPECT_EQ(-EINVAL, check(&self->table, &self->why));
	self->table.runs = 3;
	self->table.frames = 35;
	REFUSE_TABLE(run[1].first, cpu_to_le32(0));	/* none in run 0 */
	REFUSE_TABLE(run[1].first, cpu_to_le32(34));	/* none in run 1 */
	REFUSE_TABLE(run[1].first, cpu_to_le32(~0U));
	REFUSE_TABLE(run[2].first, cpu_to_le32(35));	/* none in run 2 */
	REFUSE_TABLE(run[0].first, cpu_to_le32(1));
	REFUSE_TABLE(table.frames, 34);
	REFUSE_TABLE(table.frames, LF_MAX_FRAMES + 1);
	REFUSE_TABLE(table.runs, 0);
	TABLE_OK();
}

TEST_F(table, frames_ascend_without_overlap)
{
	REFUSE_TABLE(run[1].ustart, cpu_to_le64(32 * 8192 - 1));
	REFUSE_TABLE(run[1].cstart, cpu_to_le64(32 * 1000 - 1));
	REFUSE_TABLE(run[2].ustart, 0);
	REFUSE_TABLE(run[2].cstart, 0);
	REFUSE_TABLE(frame[5].cbytes, cpu_to_le32(1001));
	TABLE_OK();
}

TEST_F(table, frames_end_inside_both_spaces)
{
	REFUSE_TABLE(run[2].ustart, cpu_to_le64(34 * 8192 + 1));
	REFUSE_TABLE(run[2].cstart, cpu_to_le64(34 * 1000 + 1));
	REFUSE_TABLE(run[2].ustart, cpu_to_le64(~0ULL - 50));
	REFUSE_TABLE(run[2].cstart, cpu_to_le64(~0ULL - 50));
	REFUSE_TABLE(run[2].ubytes, cpu_to_le32(101));
	REFUSE_TABLE(frame[34].cbytes, cpu_to_le32(1001));
	TABLE_OK();
}

TEST_F(table, frame_sizes_are_legal)
{
	u64 big = 1ULL << 40;

	REFUSE_TABLE(run[0].ubytes, 0);
	REFUSE_TABLE(frame[3].cbytes, 0);
	self->run[2].ubytes = cpu_to_le32(LAZYFRAME_MAX_FRAME);
	self->frame[34].cbytes = cpu_to_le32(LAZYFRAME_MAX_CFRAME);
	EXPECT_EQ(0, lf_table_check(&self->table, LAZYFRAME_CODEC_ZSTD, big,
				    big, &self->why));
	self->run[2].ubytes = cpu_to_le32(LAZYFRAME_MAX_FRAME + 1);
	EXPECT_EQ(-EINVAL, lf_table_check(&self->table, LAZYFRAME_CODEC_ZSTD,
					  big, big, &self->why));
	self->run[2].ubytes = cpu_to_le32(1);	/* of a foreign object */
	EXPECT_EQ(0, lf_table_check(&self->table, LAZYFRAME_CODEC_ZSTD, big,
				    big, &self->why));
	self->frame[34].cbytes = cpu_to_le32(LAZYFRAME_MAX_CFRAME + 1);
	EXPECT_EQ(-EINVAL, lf_table_check(&self->table, LAZYFRAME_CODEC_ZSTD,
					  big, big, &self->why));
}

TEST_F(table, raw_frames_have_one_size)
{
	u64 big = 1ULL << 40;
	u32 i;

	EXPECT_EQ(-EINVAL, lf_table_check(&self->table, LAZYFRAME_CODEC_NONE,
					  big, big, &self->why));
	EXPECT_EQ(-EINVAL, lf_table_check(&self->table, 3, big, big,
					  &self->why));
	for (i = 0; i < 35; i++)
		self->frame[i].cbytes = cpu_to_le32(i < 34 ? 8192 : 100);
	self->run[1].cstart = self->run[1].ustart;
	self->run[2].cstart = self->run[2].ustart;
	EXPECT_EQ(0, lf_table_check(&self->table, LAZYFRAME_CODEC_NONE, big,
				    big, &self->why));
}

FIXTURE(extents)
{
	struct lf_disk_extent extent[3];
	struct lf_disk_layer layer[2];
	const char *why;
};

#define IMAGE_BYTES	(100 * 4096 + 1000)

FIXTURE_SETUP(extents)
{
	memset(self, 0, sizeof(*self));
	self->layer[0].ubytes = cpu_to_le64(1 << 20);
	self->layer[1].ubytes = cpu_to_le64(4096 + 1000);
	self->extent[0].length = cpu_to_le64(8192);
	self->extent[1].start = cpu_to_le64(8192);
	self->extent[1].length = cpu_to_le64(4096);
	self->extent[1].storage = cpu_to_le64(40960);
	self->extent[2].start = cpu_to_le64(99 * 4096);
	self->extent[2].length = cpu_to_le64(4096 + 1000);
	self->extent[2].layer = cpu_to_le32(1);
}

FIXTURE_TEARDOWN(extents)
{
}

#define CHECK_EXTENTS()							\
	lf_extents_check(self->extent, 3, self->layer, 2, IMAGE_BYTES,	\
			 &self->why)

#define REFUSE_EXTENT(i, field, value)					\
	do {								\
		struct lf_disk_extent saved = self->extent[i];		\
		self->extent[i].field = (value);			\
		EXPECT_EQ(-EINVAL, CHECK_EXTENTS())			\
			TH_LOG("accepted: [" #i "]." #field " = " #value); \
		self->extent[i] = saved;				\
	} while (0)

TEST_F(extents, bad_ones_are_refused)
{
	EXPECT_EQ(0, CHECK_EXTENTS());
	REFUSE_EXTENT(0, length, 0);
	REFUSE_EXTENT(0, length, cpu_to_le64(8192 + 512));	/* overlap */
	REFUSE_EXTENT(1, start, 0);				/* order */
	REFUSE_EXTENT(1, start, cpu_to_le64(8192 + 1));
	REFUSE_EXTENT(1, length, cpu_to_le64(4095));
	REFUSE_EXTENT(1, storage, cpu_to_le64(40961));
	REFUSE_EXTENT(1, storage, cpu_to_le64(1 << 20));
	REFUSE_EXTENT(1, storage, cpu_to_le64(~0ULL << 9));
	REFUSE_EXTENT(1, layer, cpu_to_le32(2));
	REFUSE_EXTENT(1, layer, cpu_to_le32(~0U));
	REFUSE_EXTENT(1, reserved, cpu_to_le32(1));
	REFUSE_EXTENT(2, length, cpu_to_le64(4096 + 1001));
	REFUSE_EXTENT(2, length, cpu_to_le64(4096 + 999));
	REFUSE_EXTENT(2, length, cpu_to_le64(~0ULL));
	REFUSE_EXTENT(2, start, cpu_to_le64(~0ULL << 12));
	EXPECT_EQ(0, CHECK_EXTENTS());
}

TEST_F(extents, may_exceed_their_layer_by_less_than_a_block)
{
	self->layer[1].ubytes = cpu_to_le64(1001);
	EXPECT_EQ(0, CHECK_EXTENTS());
	self->layer[1].ubytes = cpu_to_le64(1000);
	EXPECT_EQ(-EINVAL, CHECK_EXTENTS());
	self->layer[1].ubytes = 0;
	EXPECT_EQ(-EINVAL, CHECK_EXTENTS());
}

TEST_F(extents, none_at_all_is_an_image_of_zeros)
{
	EXPECT_EQ(0, lf_extents_check(NULL, 0, NULL, 0, 4096, &self->why));
	EXPECT_EQ(0, lf_extents_find(NULL, 0, 5));
}

TEST(extents_find_equals_a_linear_search)
{
	struct lf_disk_extent extent[300];
	struct lf_disk_layer layer = { .ubytes = cpu_to_le64(LF_MAX_IMAGE) };
	unsigned int round, probe;
	const char *why = "";

	for (round = 0; round < 100; round++) {
		u32 count = 1 + random_below(ARRAY_SIZE(extent)), i;
		u64 end = 0;

		memset(extent, 0, sizeof(extent));
		for (i = 0; i < count; i++) {
			u64 length = 512 * (1 + random_below(100));

			if (random_below(2))
				end += 512 * random_below(100);
			extent[i].start = cpu_to_le64(end);
			extent[i].length = cpu_to_le64(length);
			end += length;
		}
		ASSERT_EQ(0, lf_extents_check(extent, count, &layer, 1, end,
					      &why));
		for (probe = 0; probe < 1000; probe++) {
			u64 off = random_below(end + 100);

			for (i = 0; i < count; i++)
				if (off < le64_to_cpu(extent[i].start) +
					  le64_to_cpu(extent[i].length))
					break;
			ASSERT_EQ(i, lf_extents_find(extent, count, off));
		}
	}
}

TEST_HARNESS_MAIN

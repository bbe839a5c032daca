// SPDX-License-Identifier: GPL-2.0-only
/*
 * Headers of all versions: what an independent encoder wrote is read, what is
 * written is read back, and everything that is wrong is refused.
 */
#include <stdlib.h>
#include <linux/lazyframe.h>

#include "../../helper/header.h"
#include "../../helper/uuid.h"
#include "kselftest_harness.h"
#include "random.h"
#include "wire.h"

#define K		4096ULL
#define ALL		UINT32_MAX

/* Parses a copy of the exact size, so that ASan sees what looks behind it. */
static int parse(const struct wire *w, struct header *header, struct error *e)
{
	u8 *copy = malloc(w->len + !w->len);
	int err;

	if (w->len)
		memcpy(copy, w->data, w->len);
	err = header_parse(copy, w->len, header, e);
	free(copy);
	return err;
}

/* Is @w refused with these words? Says what happened instead. */
static bool refused(const struct wire *w, const char *words)
{
	struct header header;
	struct error e = {""};
	int err = parse(w, &header, &e);

	if (!err) {
		printf("# accepted, not refused with \"%s\"\n", words);
		header_free(&header);
		return false;
	}
	if (err >= 0 || !strstr(e.text, words)) {
		printf("# refused with %d \"%s\", not with \"%s\"\n", err,
		       e.text, words);
		return false;
	}
	/* Nothing is left to release. */
	return !header.layer && !header.mapping;
}

static bool accepted(const struct wire *w)
{
	struct header header;
	struct error e = {""};

	if (parse(w, &header, &e)) {
		printf("# refused: %s\n", e.text);
		return false;
	}
	header_free(&header);
	return true;
}

/* Refused with @words, accepted if there are none */
static bool judged(const struct wire *w, const char *words)
{
	return words ? refused(w, words) : accepted(w);
}

static bool is_uuid(const u8 uuid[16], u8 byte)
{
	u8 want[16];

	memset(want, byte, sizeof(want));
	return !memcmp(uuid, want, sizeof(want));
}

static bool is_mapping(const struct header *h, u32 i, u64 start, u64 length,
		       u8 uuid, u64 storage)
{
	const struct header_mapping *m = &h->mapping[i];

	return i < h->mappings && m->start == start && m->length == length &&
	       is_uuid(m->uuid, uuid) && (!uuid || m->storage == storage);
}

static bool is_frame(const struct header_layer *l, u32 i, u64 ustart,
		     u64 cstart, u32 ubytes, u32 cbytes)
{
	const struct lf_frame_pos *p = &l->frame[i];

	return i < l->frames && p->ustart == ustart && p->cstart == cstart &&
	       p->ubytes == ubytes && p->cbytes == cbytes && p->index == i &&
	       !p->has_sum;
}

/* Equal but for what a mapping of zeros says about storage */
static bool same(const struct header *a, const struct header *b)
{
	u32 i;

	if (a->block_size != b->block_size || a->size != b->size ||
	    a->generation != b->generation || a->in_flight != b->in_flight ||
	    memcmp(a->uuid, b->uuid, 16) ||
	    memcmp(a->base_uuid, b->base_uuid, 16) ||
	    a->layers != b->layers || a->mappings != b->mappings)
		return false;
	for (i = 0; i < a->layers; i++) {
		const struct header_layer *l = &a->layer[i], *m = &b->layer[i];

		if (memcmp(l->uuid, m->uuid, 16) || l->ubytes != m->ubytes ||
		    memcmp(l->sha256, m->sha256, 32) ||
		    l->codec != m->codec || l->frames != m->frames ||
		    (l->frames && memcmp(l->frame, m->frame,
					 l->frames * sizeof(*l->frame))))
			return false;
	}
	for (i = 0; i < a->mappings; i++) {
		const struct header_mapping *m = &a->mapping[i];
		const struct header_mapping *n = &b->mapping[i];

		if (m->start != n->start || m->length != n->length ||
		    memcmp(m->uuid, n->uuid, 16) ||
		    (!uuid_is_nil(m->uuid) && m->storage != n->storage))
			return false;
	}
	return true;
}

/*
 * Bytes of the biggest allocation since the last reset, where the sanitizer's
 * allocator lets one ask.
 */
int __sanitizer_install_malloc_and_free_hooks(
	void (*malloc_hook)(const volatile void *, size_t),
	void (*free_hook)(const volatile void *)) __attribute__((weak));

static size_t biggest;

static void on_malloc(const volatile void *p, size_t bytes)
{
	(void)p;
	if (bytes > biggest)
		biggest = bytes;
}

static void on_free(const volatile void *p)
{
	(void)p;
}

static bool watch_allocations(void)
{
	return __sanitizer_install_malloc_and_free_hooks &&
	       __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) > 0;
}

/* ---- versions 1 to 3 ---- */

static void make_v3(struct wire *w, u64 version)
{
	wire_metadata(w, version, K, 10 * K - 100);
	wire_record(w, 0, 3 * K, 0x11, 7 * K);
	wire_record(w, 3 * K, 2 * K, 0, 0);
	wire_record(w, 5 * K, 5 * K, 0xaa, 0);
}

TEST(versions_1_to_3_are_read)
{
	struct wire w = {0};
	struct header h;
	struct error e;
	u64 version;

	for (version = 1; version <= 3; version++) {
		make_v3(&w, version);
		ASSERT_EQ(0, parse(&w, &h, &e)) TH_LOG("%s", e.text);
		EXPECT_EQ(version, h.version);
		EXPECT_EQ(K, h.block_size);
		EXPECT_EQ(10 * K - 100, h.size);
		EXPECT_EQ(3, h.generation);
		EXPECT_TRUE(is_uuid(h.uuid, 0xaa));
		EXPECT_TRUE(is_uuid(h.base_uuid, 0xbb));
		EXPECT_FALSE(h.in_flight);
		EXPECT_EQ(0, h.layers);
		ASSERT_EQ(3, h.mappings);
		EXPECT_TRUE(is_mapping(&h, 0, 0, 3 * K, 0x11, 7 * K));
		EXPECT_TRUE(is_mapping(&h, 1, 3 * K, 2 * K, 0, 0));
		EXPECT_TRUE(is_mapping(&h, 2, 5 * K, 5 * K, 0xaa, 0));
		header_free(&h);
		wire_free(&w);
	}
}

TEST(without_records_the_image_is_its_own_layer)
{
	struct wire w = {0};
	struct header h;
	struct error e;

	wire_metadata(&w, 3, K, 5 * K + 1);
	ASSERT_EQ(0, parse(&w, &h, &e));
	ASSERT_EQ(1, h.mappings);
	EXPECT_TRUE(is_mapping(&h, 0, 0, 6 * K, 0xaa, 0));
	header_free(&h);
	wire_free(&w);
}

/* F1 */
TEST(part_of_a_trailing_record_is_refused)
{
	struct wire w = {0};
	size_t len;

	make_v3(&w, 3);
	for (len = w.len + 39; len > w.len; len--) {
		struct wire longer = {0};

		wire_put(&longer, w.data, w.len);
		while (longer.len < len)
			wire_u8(&longer, 0xff);
		EXPECT_TRUE(refused(&longer, "middle of a mapping"));
		wire_free(&longer);
	}
	for (w.len--; w.len > 64 + 80; w.len--)
		EXPECT_TRUE(refused(&w, "middle of a mapping"));
	/* Two whole records: readable, but the image is not covered. */
	EXPECT_TRUE(refused(&w, "the mappings end at"));
	for (w.len = 63; w.len; w.len--)
		EXPECT_TRUE(refused(&w, "bytes, it must have 64 at least"));
	EXPECT_TRUE(refused(&w, "bytes, it must have 64 at least"));
	wire_free(&w);
}

/* F3 */
TEST(unknown_versions_are_refused_at_once)
{
	static const u64 versions[] = {
		0, 6, 7, 255, 256, 65536 + 4, 1ULL << 32, (1ULL << 32) + 4,
		1ULL << 63, ~0ULL,
	};
	struct wire w = {0};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(versions); i++) {
		make_v3(&w, 3);
		w.len = 0;
		make_v3(&w, versions[i]);
		EXPECT_TRUE(refused(&w, "unknown version"));
		wire_free(&w);
	}
}

/* F10 */
TEST(bad_metadata_is_refused)
{
	static const struct {
		u64 block_size, size;
		const char *words;
	} cases[] = {
		{ 0, 10 * K, "block size is 0" },
		{ 512, 10 * K, "block size is 512" },
		{ 4097, 10 * K, "block size is 4097" },
		{ 32 << 20, 10 * K, "block size is 33554432" },
		{ ~0ULL, 10 * K, "block size is 18446744073709551615" },
		{ K, 0, "the image has 0 bytes" },
		{ K, LF_MAX_IMAGE + 1, "the image has 17592186044417 bytes" },
		{ K, ~0ULL, "the image has 18446744073709551615 bytes" },
	};
	struct wire w = {0}, content = {0};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		wire_metadata(&w, 3, cases[i].block_size, cases[i].size);
		EXPECT_TRUE(refused(&w, cases[i].words));
		wire_record(&w, 0, 10 * K, 0xaa, 0);
		EXPECT_TRUE(refused(&w, cases[i].words));
		wire_free(&w);

		/* Version 5 computes with the size before it has mappings. */
		wire_metadata(&w, 5, cases[i].block_size, cases[i].size);
		wire_u32(&content, 0);
		wire_u32(&content, 0);
		wire_u32(&content, 0);
		wire_content(&w, &content, 0, content.len);
		EXPECT_TRUE(refused(&w, cases[i].words));
		wire_free(&w);
		wire_free(&content);
	}
}

/* F10 */
TEST(mappings_that_do_not_cover_exactly_are_refused)
{
	static const struct {
		u64 record[3][3];	/* start, length, storage */
		const char *words;
	} cases[] = {
		{ {{ 0, 4 * K }, { 4 * K, 6 * K }}, NULL },
		{ {{ K, 9 * K }}, "mapping 0 begins at 4096" },
		{ {{ 0, 4 * K }, { 5 * K, 5 * K }}, "mapping 1 begins at" },
		{ {{ 0, 4 * K }, { 3 * K, 7 * K }}, "mapping 1 begins at" },
		{ {{ 4 * K, 6 * K }, { 0, 4 * K }}, "mapping 0 begins at" },
		{ {{ 0, 4 * K }, { 4 * K, 5 * K }}, "the mappings end at" },
		{ {{ 0, 11 * K }}, "mapping 0 ends behind" },
		{ {{ 0, 10 * K }, { 10 * K, K }}, "mapping 1 ends behind" },
		{ {{ 0, 0 }, { 0, 10 * K }}, "mapping 0 has 0 bytes" },
		{ {{ 0, 4 * K + 1 }}, "mapping 0 has 16385 bytes" },
		{ {{ 0, ~0ULL << 12 }}, "mapping 0 ends behind" },
		{ {{ 0, 1ULL << 63 }, { 1ULL << 63, 1ULL << 63 }},
		  "mapping 0 ends behind" },
		{ {{ 0, 10 * K, 1 }}, "mapping 0 begins at 1 in its layer" },
		{ {{ 0, 10 * K, ~0ULL << 12 }}, "mapping 0 is out of range" },
		{ {{ 0, 10 * K, LF_MAX_IMAGE }}, "mapping 0 is out of range" },
	};
	struct wire w = {0};
	unsigned int i, j;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		wire_metadata(&w, 3, K, 10 * K);
		for (j = 0; j < 3; j++) {
			const u64 *r = cases[i].record[j];

			if (r[0] || r[1] || !j)
				wire_record(&w, r[0], r[1], 0x11, r[2]);
		}
		EXPECT_TRUE(judged(&w, cases[i].words));
		wire_free(&w);
	}
}

/* F10 */
TEST(last_mapping_may_overhang_by_less_than_a_block)
{
	static const struct {
		u64 block_size, size, length;
		bool good;
	} cases[] = {
		{ K, 10 * K, 10 * K, true },
		{ K, 9 * K + 1, 10 * K, true },
		{ K, 9 * K, 10 * K, false },
		{ K, 1, K, true },
		{ 2 << 20, 1, 2 << 20, true },
		{ 2 << 20, 1, (2 << 20) + K, false },
		{ 2 << 20, (2 << 20) + 1, 4 << 20, true },
	};
	struct wire w = {0};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		wire_metadata(&w, 3, cases[i].block_size, cases[i].size);
		wire_record(&w, 0, cases[i].length, 0x11, 0);
		EXPECT_TRUE(judged(&w, cases[i].good ? NULL :
				   "ends behind the image"));
		wire_free(&w);
	}
}

/* ---- version 4 ---- */

/* Layers 0x11 (zstd, a gap between its frames), 0x22 (raw), 0x33 (LZ4, unused) */
static void make_v4_layers(struct wire *c)
{
	wire_u32(c, 3);
	wire_layer(c, 0x11, 20 * K, LAZYFRAME_CODEC_ZSTD, 3);
	wire_frame(c, 0, 0, 4 * K, 1000);
	wire_frame(c, 4 * K, 1000, 4 * K, 70000);
	wire_frame(c, 16 * K, 80000, 4 * K, 1);
	wire_layer(c, 0x22, 8 * K, LAZYFRAME_CODEC_NONE, 0);
	wire_layer(c, 0x33, 0, LAZYFRAME_CODEC_LZ4, 0);
}

static void make_v4_content(struct wire *c)
{
	make_v4_layers(c);
	wire_u32(c, 4);
	wire_record(c, 0, 8 * K, 0x11, 0);
	wire_record(c, 8 * K, 2 * K, 0x22, 6 * K);
	wire_record(c, 10 * K, 5 * K, 0, 0);
	wire_record(c, 15 * K, 4 * K, 0x11, 16 * K);
}

static void make_v4(struct wire *w, unsigned int flags)
{
	struct wire c = {0};

	make_v4_content(&c);
	wire_metadata(w, 4, K, 19 * K - 5);
	wire_content(w, &c, flags, c.len);
	wire_free(&c);
}

TEST(version_4_is_read)
{
	const struct header_layer *l;
	struct wire w = {0};
	struct header h;
	struct error e;
	u8 uuid[16];

	make_v4(&w, 0);
	ASSERT_EQ(0, parse(&w, &h, &e)) TH_LOG("%s", e.text);
	EXPECT_EQ(4, h.version);
	EXPECT_EQ(19 * K - 5, h.size);
	EXPECT_FALSE(h.in_flight);
	ASSERT_EQ(3, h.layers);
	l = &h.layer[0];
	EXPECT_TRUE(is_uuid(l->uuid, 0x11));
	EXPECT_EQ(20 * K, l->ubytes);
	EXPECT_EQ(0x11, l->sha256[0]);
	EXPECT_EQ(0x11 + 31, l->sha256[31]);
	EXPECT_EQ(LAZYFRAME_CODEC_ZSTD, l->codec);
	ASSERT_EQ(3, l->frames);
	EXPECT_TRUE(is_frame(l, 0, 0, 0, 4 * K, 1000));
	EXPECT_TRUE(is_frame(l, 1, 4 * K, 1000, 4 * K, 70000));
	EXPECT_TRUE(is_frame(l, 2, 16 * K, 80000, 4 * K, 1));
	EXPECT_EQ(LAZYFRAME_CODEC_NONE, h.layer[1].codec);
	EXPECT_EQ(8 * K, h.layer[1].ubytes);
	EXPECT_EQ(LAZYFRAME_CODEC_LZ4, h.layer[2].codec);
	EXPECT_EQ(0, h.layer[2].frames);
	ASSERT_EQ(4, h.mappings);
	EXPECT_TRUE(is_mapping(&h, 0, 0, 8 * K, 0x11, 0));
	EXPECT_TRUE(is_mapping(&h, 1, 8 * K, 2 * K, 0x22, 6 * K));
	EXPECT_TRUE(is_mapping(&h, 2, 10 * K, 5 * K, 0, 0));
	EXPECT_TRUE(is_mapping(&h, 3, 15 * K, 4 * K, 0x11, 16 * K));

	memset(uuid, 0x22, sizeof(uuid));
	EXPECT_EQ(&h.layer[1], header_layer(&h, uuid));
	memset(uuid, 0x23, sizeof(uuid));
	EXPECT_EQ(NULL, header_layer(&h, uuid));
	header_free(&h);
	wire_free(&w);
}

TEST(in_flight_is_seen_and_other_flags_are_refused)
{
	struct wire w = {0};
	struct header h;
	struct error e;
	unsigned int bit;
	size_t bytes;
	void *data;

	make_v4(&w, 1);
	ASSERT_EQ(0, parse(&w, &h, &e));
	EXPECT_TRUE(h.in_flight);
	EXPECT_EQ(-EINVAL, header_write(&h, &data, &bytes, &e));
	EXPECT_NE(NULL, strstr(e.text, "not complete"));
	header_free(&h);
	for (bit = 1; bit < 8; bit++) {
		w.data[64] = 1 << bit;
		EXPECT_TRUE(refused(&w, "unknown flags"));
	}
	wire_free(&w);
}

TEST(every_truncation_is_refused)
{
	struct wire w = {0};

	make_v4(&w, 0);
	while (w.len--)
		ASSERT_TRUE(refused(&w, ""));
	wire_free(&w);
}

TEST(every_flipped_bit_behind_the_metadata_is_refused)
{
	struct wire w = {0};
	size_t i;

	make_v4(&w, 0);
	for (i = 65 * 8; i < w.len * 8; i++) {
		w.data[i / 8] ^= 1 << i % 8;
		ASSERT_TRUE(refused(&w, "")) TH_LOG("bit %zu", i);
		w.data[i / 8] ^= 1 << i % 8;
	}
	wire_u8(&w, 0);
	EXPECT_TRUE(refused(&w, "bytes follow"));
	wire_free(&w);
}

/* F4 */
TEST(content_of_another_size_than_announced_is_refused)
{
	struct wire w = {0}, c = {0};
	int diff;

	make_v4_content(&c);
	for (diff = -9; diff <= 9; diff++) {
		wire_metadata(&w, 4, K, 19 * K - 5);
		wire_content(&w, &c, 0, c.len + diff);
		EXPECT_TRUE(judged(&w, diff ? "does not decode" : NULL));
		wire_free(&w);
	}
	wire_metadata(&w, 4, K, 19 * K - 5);
	wire_content(&w, &c, 0, HEADER_MAX_BYTES + 1);
	EXPECT_TRUE(refused(&w, "the limit is 268435456"));
	wire_free(&w);
	wire_free(&c);
}

/* F4, F9 */
TEST(small_objects_cannot_ask_for_big_buffers)
{
	struct wire w = {0}, c = {0};
	unsigned int i;

	if (!watch_allocations())
		SKIP(return, "allocations are seen only with a sanitizer");

	make_v4_content(&c);
	wire_metadata(&w, 4, K, 19 * K - 5);
	wire_content(&w, &c, 0, HEADER_MAX_BYTES);
	biggest = 0;
	EXPECT_TRUE(refused(&w, "too short"));
	EXPECT_GT(1 << 20, biggest);
	wire_free(&w);
	wire_free(&c);

	make_v4(&w, 0);
	biggest = 0;
	EXPECT_TRUE(accepted(&w));
	EXPECT_GT(1 << 16, biggest);
	wire_free(&w);

	/* A bomb: 16 MiB of zeros in 64 KiB, announced as what it should be */
	for (i = 0; i < 4 << 20; i++)
		wire_u32(&c, 0);
	wire_metadata(&w, 4, K, 19 * K - 5);
	wire_content(&w, &c, 0, 512);
	biggest = 0;
	EXPECT_TRUE(refused(&w, "does not decode"));
	EXPECT_GT(1 << 20, biggest);
	wire_free(&w);
	wire_free(&c);
}

/* Content by hand in @c, as a header of @version with an image of 19 blocks */
static void seal(struct wire *w, struct wire *c, u64 version)
{
	wire_free(w);
	wire_metadata(w, version, K, 19 * K);
	wire_content(w, c, 0, c->len);
	wire_free(c);
}

/* F4 */
TEST(counts_that_the_content_is_too_short_for_are_refused)
{
	static const u32 counts[] = { 4, 5, 1000, 65535, 65536, 1 << 20,
				      (1 << 20) + 1, 1U << 31, ~0U };
	struct wire w = {0}, c = {0};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(counts); i++) {
		wire_u32(&c, counts[i]);
		wire_layer(&c, 0x11, K, LAZYFRAME_CODEC_NONE, 0);
		wire_layer(&c, 0x22, K, LAZYFRAME_CODEC_NONE, 0);
		wire_layer(&c, 0x33, K, LAZYFRAME_CODEC_NONE, 0);
		wire_u32(&c, 0);
		seal(&w, &c, 4);
		EXPECT_TRUE(refused(&w, "layers, but is too short"));

		wire_u32(&c, 1);
		wire_layer(&c, 0x11, 20 * K, LAZYFRAME_CODEC_ZSTD, counts[i]);
		wire_frame(&c, 0, 0, K, 10);
		wire_frame(&c, K, 10, K, 10);
		wire_frame(&c, 2 * K, 20, K, 10);
		wire_u32(&c, 0);
		seal(&w, &c, 4);
		EXPECT_TRUE(refused(&w, "frames, but is too short"));

		wire_u32(&c, 0);
		wire_u32(&c, counts[i]);
		wire_record(&c, 0, K, 0, 0);
		wire_record(&c, K, K, 0, 0);
		wire_record(&c, 2 * K, K, 0, 0);
		seal(&w, &c, 4);
		EXPECT_TRUE(refused(&w, "mappings, but is too short"));

		wire_u32(&c, 0);
		wire_u32(&c, counts[i]);
		wire_uuid(&c, 0x11);
		wire_uuid(&c, 0x22);
		wire_uuid(&c, 0x33);
		seal(&w, &c, 5);
		EXPECT_TRUE(refused(&w, counts[i] > 65535 ? "the limit is" :
							   "cut short"));

		wire_u32(&c, 0);
		wire_u32(&c, 1);
		wire_uuid(&c, 0x11);
		wire_u32(&c, counts[i]);
		wire_put(&c, "\0\1\0\0\1\1\0\0\1\1\0\0\1\1\0", 15);
		seal(&w, &c, 5);
		EXPECT_TRUE(refused(&w, "mappings, but is too short"));
	}
	wire_free(&w);
}

TEST(content_behind_the_mappings_is_refused)
{
	struct wire w = {0}, c = {0};

	make_v4_content(&c);
	wire_u8(&c, 0);
	seal(&w, &c, 4);
	EXPECT_TRUE(refused(&w, "1 bytes follow"));
	make_v4_content(&c);
	c.len--;
	seal(&w, &c, 4);
	EXPECT_TRUE(refused(&w, "too short"));
	wire_free(&w);
}

/* F2 */
TEST(layers_without_frames_keep_what_follows_in_place)
{
	static const u32 codecs[] = { LAZYFRAME_CODEC_NONE,
				      LAZYFRAME_CODEC_ZSTD,
				      LAZYFRAME_CODEC_LZ4 };
	struct wire w = {0}, c = {0};
	struct header h, back;
	struct error e;
	unsigned int i;
	size_t bytes;
	void *data;

	for (i = 0; i < ARRAY_SIZE(codecs); i++) {
		wire_u32(&c, 3);
		wire_layer(&c, 0x11, 0, codecs[i], 0);
		wire_layer(&c, 0x22, 20 * K, LAZYFRAME_CODEC_ZSTD, 2);
		wire_frame(&c, 0, 0, 10 * K, 10);
		wire_frame(&c, 10 * K, 10, 10 * K, 10);
		wire_layer(&c, 0x33, 0, codecs[i], 0);
		wire_u32(&c, 1);
		wire_record(&c, 0, 19 * K, 0x22, K);
		seal(&w, &c, 4);
		ASSERT_EQ(0, parse(&w, &h, &e)) TH_LOG("%s", e.text);
		ASSERT_EQ(3, h.layers);
		EXPECT_EQ(codecs[i], h.layer[0].codec);
		EXPECT_EQ(codecs[i], h.layer[2].codec);
		ASSERT_EQ(0, header_write(&h, &data, &bytes, &e));
		ASSERT_EQ(0, header_parse(data, bytes, &back, &e));
		EXPECT_TRUE(same(&h, &back));
		header_free(&back);
		header_free(&h);
		free(data);
	}
	wire_free(&w);
}

/* One layer 0x11 with these frames; the image is all zeros */
static bool frames_refused(const u64 frame[][4], u32 count, u32 codec,
			   u64 ubytes, const char *words)
{
	struct wire w = {0}, c = {0};
	bool ret;
	u32 i;

	wire_u32(&c, 1);
	wire_layer(&c, 0x11, ubytes, codec, count);
	for (i = 0; i < count; i++)
		wire_frame(&c, frame[i][0], frame[i][1], frame[i][2],
			   frame[i][3]);
	wire_u32(&c, 1);
	wire_record(&c, 0, 19 * K, 0, 0);
	seal(&w, &c, 4);
	ret = judged(&w, words);
	wire_free(&w);
	return ret;
}

#define FRAMES(words, ...)						\
	do {								\
		static const u64 frames[][4] = { __VA_ARGS__ };		\
		EXPECT_TRUE(frames_refused(frames, ARRAY_SIZE(frames),	\
					   LAZYFRAME_CODEC_LZ4, 20 * K,	\
					   words));			\
	} while (0)

/* F2, F10; sizes are signed for others: with the top bit set, too big here */
TEST(bad_frame_tables_are_refused)
{
	static const u64 one[][4] = {{ 0, 0, K, 10 }};
	static const u64 biggest_frame[][4] = {
		{ 0, 0, LAZYFRAME_MAX_FRAME, LAZYFRAME_MAX_CFRAME },
	};

	FRAMES(NULL, { 0, 0, K, 10 }, { K, 10, K, 10 });
	FRAMES(NULL, { 5 * K, 7, K, 10 }, { 9 * K, 100, K, 10 });
	FRAMES("empty or too big", { 0, 0, 0, 10 });
	FRAMES("empty or too big", { 0, 0, K, 0 });
	FRAMES("empty or too big", { 0, 0, 0x80000000, 10 });
	FRAMES("empty or too big", { 0, 0, K, 0xffffffff });
	FRAMES("empty or too big", { 0, 0, LAZYFRAME_MAX_FRAME + 1, 10 });
	FRAMES("empty or too big", { 0, 0, K, LAZYFRAME_MAX_CFRAME + 1 });
	FRAMES("begins before", { K, 0, K, 10 }, { 0, 10, K, 10 });
	FRAMES("begins before", { 0, 0, K, 10 }, { K - 1, 10, K, 10 });
	FRAMES("begins before", { 0, 0, K, 10 }, { K, 9, K, 10 });
	FRAMES("begins before", { 0, 100, K, 10 }, { K, 0, K, 10 });
	FRAMES("ends behind its layer", { 20 * K - 1, 0, 2, 10 });
	FRAMES("ends behind its layer", { ~0ULL, 0, 2, 10 });
	FRAMES("ends behind its layer", { 1ULL << 63, 0, 2, 10 });
	FRAMES("is out of range", { 0, ~0ULL, K, 10 });
	FRAMES("is out of range", { 0, 1ULL << 63, K, 10 });
	EXPECT_TRUE(frames_refused(one, 1, LAZYFRAME_CODEC_NONE, 20 * K,
				   "not compressed, but has a frame table"));
	EXPECT_TRUE(frames_refused(one, 1, 3, 20 * K, "unknown codec 3"));
	EXPECT_TRUE(frames_refused(one, 0, ~0U, 20 * K, "unknown codec"));
	EXPECT_TRUE(frames_refused(one, 1, 1, LF_MAX_IMAGE + 1,
				   "the limit is 17592186044416"));
	EXPECT_TRUE(frames_refused(one, 1, 1, LF_MAX_IMAGE, NULL));
	EXPECT_TRUE(frames_refused(biggest_frame, 1, 1, LAZYFRAME_MAX_FRAME,
				   NULL));
}

TEST(layers_are_in_order_and_there_once)
{
	static const u8 order[][2] = { { 0x22, 0x11 }, { 0x11, 0x11 },
				       { 0, 0x11 }, { 0x11, 0 } };
	struct wire w = {0}, c = {0};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(order); i++) {
		wire_u32(&c, 2);
		wire_layer(&c, order[i][0], 20 * K, LAZYFRAME_CODEC_NONE, 0);
		wire_layer(&c, order[i][1], 20 * K, LAZYFRAME_CODEC_NONE, 0);
		wire_u32(&c, 1);
		wire_record(&c, 0, 19 * K, 0x11, 0);
		seal(&w, &c, 4);
		EXPECT_TRUE(refused(&w, "not in order, twice there, or nil"));
	}
	wire_free(&w);
}

/* One mapping of all 19 blocks to layer 0x11 of version 4 */
static bool storage_refused(u64 storage, u64 ubytes, u32 codec,
			    const u64 frame[][4], u32 frames, const char *words)
{
	struct wire w = {0}, c = {0};
	bool ret;
	u32 i;

	wire_u32(&c, 1);
	wire_layer(&c, 0x11, ubytes, codec, frames);
	for (i = 0; i < frames; i++)
		wire_frame(&c, frame[i][0], frame[i][1], frame[i][2],
			   frame[i][3]);
	wire_u32(&c, 1);
	wire_record(&c, 0, 19 * K, 0x11, storage);
	seal(&w, &c, 4);
	ret = judged(&w, words);
	wire_free(&w);
	return ret;
}

TEST(mappings_lie_inside_their_layer)
{
#define RAW(storage, ubytes, words)					\
	EXPECT_TRUE(storage_refused(storage, ubytes,			\
				    LAZYFRAME_CODEC_NONE, NULL, 0, words))
	RAW(0, 19 * K, NULL);
	RAW(K, 20 * K, NULL);
	/* The last block is stored without its padding. */
	RAW(0, 18 * K + 1, NULL);
	RAW(0, 18 * K, "mapping 0 ends at");
	RAW(2 * K, 20 * K, "mapping 0 ends at");
	RAW(20 * K, 20 * K, "mapping 0 ends at");
	RAW(100 * K, 20 * K, "mapping 0 ends at");
	/* Size not known */
	RAW(100 * K, 0, NULL);
}

TEST(every_mapped_byte_of_a_compressed_layer_has_a_frame)
{
	static const u64 whole[][4] = {{ 0, 0, 10 * K, 9 },
				       { 10 * K, 9, 10 * K, 9 }};
	static const u64 gap[][4] = {{ 0, 0, 10 * K, 9 },
				     { 10 * K + 1, 9, 10 * K - 1, 9 }};
	static const u64 late[][4] = {{ K + 1, 0, 19 * K - 1, 9 }};
	static const u64 early[][4] = {{ 0, 0, 20 * K - 1, 9 }};
	static const u64 islands[][4] = {{ 0, 0, 2 * K, 9 }, { 3 * K, 9, K, 9 },
					 { 4 * K, 18, 4 * K, 9 },
					 { 18 * K, 50, 2 * K, 9 }};

#define ZSTD(storage, ubytes, frames, words)				\
	EXPECT_TRUE(storage_refused(storage, ubytes,			\
				    LAZYFRAME_CODEC_ZSTD, frames,	\
				    ARRAY_SIZE(frames), words))
	ZSTD(K, 20 * K, whole, NULL);
	ZSTD(0, 20 * K, whole, NULL);
	ZSTD(2 * K, 20 * K, whole, "mapping 0 ends at");
	ZSTD(K, 20 * K, gap, "no frame has");
	ZSTD(K, 20 * K, late, "no frame has");
	ZSTD(K, 20 * K, early, "no frame has");
	/* Stored without its padding: what is not there needs no frame. */
	ZSTD(K, 20 * K - 1, early, NULL);
	ZSTD(K, 20 * K, islands, "no frame has");
	EXPECT_TRUE(storage_refused(0, 20 * K, LAZYFRAME_CODEC_ZSTD, NULL, 0,
				    "no frame has"));
	/* No size and no frames is good for raw layers only. */
	EXPECT_TRUE(storage_refused(0, 0, LAZYFRAME_CODEC_ZSTD, NULL, 0,
				    "which has only 0 bytes"));
}

/* The layer's own header has to tell then. */
TEST(layers_that_mappings_name_may_be_missing)
{
	struct wire w = {0}, c = {0};

	wire_u32(&c, 0);
	wire_u32(&c, 1);
	wire_record(&c, 0, 19 * K, 0x11, 5 * K);
	seal(&w, &c, 4);
	EXPECT_TRUE(accepted(&w));
	wire_free(&w);
}

/* A block of 2 MiB may hold pages of several layers. */
TEST(mappings_may_be_finer_than_the_block_size)
{
	struct wire w = {0};

	wire_metadata(&w, 3, 2 << 20, 4 * K);
	wire_record(&w, 0, K, 0x11, 0);
	wire_record(&w, K, K, 0x22, 0);
	wire_record(&w, 2 * K, 2 * K, 0x11, K);
	EXPECT_TRUE(accepted(&w));
	wire_free(&w);
}

/* ---- version 5 ---- */

static void make_v5(struct wire *w, u64 block_size)
{
	struct wire c = {0};

	make_v4_layers(&c);
	wire_u32(&c, 2);
	wire_uuid(&c, 0x22);
	wire_uuid(&c, 0x11);
	wire_u32(&c, 4);
	/* starts 2, 5, 6, 20 */
	wire_put(&c, "\x02\x03\x01\x0e", 4);
	/* lengths 3, 1, 8, 200 (not in 7 bits) */
	wire_put(&c, "\x03\x01\x08\xc8\x01", 5);
	/* storage 5, 1, 0, 0 in zigzag: +5, -4, -1, 0 */
	wire_put(&c, "\x0a\x07\x01\x00", 4);
	/* layers 0x22, 0x22, 0x11, 0x44 */
	wire_put(&c, "\x00\x00\x01\x00", 4);
	/* 0x22 has 8 blocks only: the last one is another layer's. */
	c.data[c.len - 1] = 2;
	wire_metadata(w, 5, block_size, 225 * K - 1);
	wire_content(w, &c, 0, c.len);
	wire_free(&c);
}

TEST(version_5_is_read_with_units_of_4_kib_whatever_the_block_size)
{
	static const u64 block_sizes[] = { K, 2 << 20 };
	struct wire w = {0}, c = {0};
	struct header h;
	struct error e;
	unsigned int i;

	/* Index 2 of 2 */
	make_v5(&w, K);
	EXPECT_TRUE(refused(&w, "names layer 2 of 2"));
	wire_free(&w);

	for (i = 0; i < ARRAY_SIZE(block_sizes); i++) {
		make_v4_layers(&c);
		wire_u32(&c, 3);
		wire_uuid(&c, 0x22);
		wire_uuid(&c, 0x11);
		wire_uuid(&c, 0x44);
		wire_u32(&c, 4);
		wire_put(&c, "\x02\x03\x01\x0e", 4);
		wire_put(&c, "\x03\x01\x08\xc8\x01", 5);
		wire_put(&c, "\x0a\x07\x01\x00", 4);
		wire_put(&c, "\x00\x00\x01\x02", 4);
		wire_metadata(&w, 5, block_sizes[i], 225 * K - 1);
		wire_content(&w, &c, 0, c.len);
		ASSERT_EQ(0, parse(&w, &h, &e)) TH_LOG("%s", e.text);
		EXPECT_EQ(5, h.version);
		EXPECT_EQ(3, h.layers);
		ASSERT_EQ(7, h.mappings);
		EXPECT_TRUE(is_mapping(&h, 0, 0, 2 * K, 0, 0));
		EXPECT_TRUE(is_mapping(&h, 1, 2 * K, 3 * K, 0x22, 5 * K));
		EXPECT_TRUE(is_mapping(&h, 2, 5 * K, K, 0x22, K));
		EXPECT_TRUE(is_mapping(&h, 3, 6 * K, 8 * K, 0x11, 0));
		EXPECT_TRUE(is_mapping(&h, 4, 14 * K, 6 * K, 0, 0));
		EXPECT_TRUE(is_mapping(&h, 5, 20 * K, 200 * K, 0x44, 0));
		EXPECT_TRUE(is_mapping(&h, 6, 220 * K, 5 * K, 0, 0));
		header_free(&h);
		wire_free(&w);
		wire_free(&c);
	}
}

TEST(version_5_without_mappings_is_all_zeros)
{
	struct wire w = {0}, c = {0};
	struct header h;
	struct error e;

	wire_u32(&c, 0);
	wire_u32(&c, 0);
	wire_u32(&c, 0);
	wire_metadata(&w, 5, K, 3 * K + 1);
	wire_content(&w, &c, 0, c.len);
	ASSERT_EQ(0, parse(&w, &h, &e)) TH_LOG("%s", e.text);
	ASSERT_EQ(1, h.mappings);
	EXPECT_TRUE(is_mapping(&h, 0, 0, 4 * K, 0, 0));
	header_free(&h);
	wire_free(&w);
	wire_free(&c);
}

/* @count mappings of layer 0x11 from four columns as they are */
static bool columns_refused(u32 count, const char *columns, size_t bytes,
			    const char *words)
{
	struct wire w = {0}, c = {0};
	bool ret;

	wire_u32(&c, 0);
	wire_u32(&c, 1);
	wire_uuid(&c, 0x11);
	wire_u32(&c, count);
	wire_put(&c, columns, bytes);
	seal(&w, &c, 5);
	ret = judged(&w, words);
	wire_free(&w);
	return ret;
}

#define COLUMNS(count, columns, words)					\
	EXPECT_TRUE(columns_refused(count, columns, sizeof(columns) - 1, words))

TEST(bad_columns_of_version_5_are_refused)
{
	COLUMNS(1, "\x00" "\x13" "\x00" "\x00", NULL);
	COLUMNS(2, "\x00\x02" "\x01\x11" "\x02\x01" "\x00\x00", NULL);
	/* Long forms of small numbers are numbers still. */
	COLUMNS(1, "\x80\x00" "\x93\x80\x00" "\x80\x00" "\x80\x00", NULL);
	COLUMNS(1, "\x00" "\x00" "\x00" "\x00", "has 0 bytes");
	COLUMNS(1, "\x00" "\x14" "\x00" "\x00", "ends behind the image");
	COLUMNS(1, "\x13" "\x01" "\x00" "\x00", "ends behind the image");
	COLUMNS(2, "\x00\x01" "\x02\x11" "\x00\x00" "\x00\x00", "overlaps");
	COLUMNS(2, "\x00\x00" "\x01\x01" "\x00\x00" "\x00\x00", "overlaps");
	COLUMNS(1, "\x00" "\x13" "\x01" "\x00", "out of range");
	COLUMNS(1, "\x00" "\x13" "\x00" "\x01", "names layer 1 of 1");
	COLUMNS(1, "\x00" "\x13" "\x00" "\x00" "\x00", "1 bytes follow");
	/* Columns that end too soon */
	COLUMNS(1, "\x80\x80" "\x93" "\x00", "cut short or damaged");
	COLUMNS(1, "\x00" "\x13" "\x00" "\x80", "cut short or damaged");
	/* More than 32 bits, more than 64, more than ten bytes */
	COLUMNS(1, "\x80\x80\x80\x80\x10" "\x13" "\x00" "\x00",
		"out of range");
	COLUMNS(1, "\x00" "\x80\x80\x80\x80\x10" "\x00" "\x00",
		"out of range");
	COLUMNS(1, "\x00" "\x13" "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
		"\x00", "out of range");
	COLUMNS(1, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02" "\x13" "\x00"
		"\x00", "cut short or damaged");
	COLUMNS(1, "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00" "\x13" "\x00"
		"\x00", "cut short or damaged");
	/* The sum is out of range, no part of it is. */
	COLUMNS(2, "\xff\xff\xff\xff\x0f\x01" "\x01\x01" "\x00\x00" "\x00\x00",
		"out of range");
	COLUMNS(2, "\x00\x01" "\x01\x12" "\xfe\xff\xff\xff\x1f\x02" "\x00\x00",
		"out of range");
}

/* ---- the draft of version 4 ---- */

static void wire_table(struct wire *w, u64 codec, u32 frames, u64 ustart,
		       u64 cstart)
{
	wire_u64(w, codec << 24 | frames);
	wire_u64(w, ustart);
	wire_u64(w, cstart);
}

static void wire_pair(struct wire *w, u32 ubytes, u32 cbytes)
{
	wire_u32(w, ubytes);
	wire_u32(w, cbytes);
}

/* Layer 0x22: two mappings that share the frame in the middle; 0x11 is raw */
static void make_draft_plain(struct wire *w)
{
	wire_metadata(w, 4, K, 19 * K);
	wire_record(w, 0, 6 * K, 0x22, 0);
	wire_table(w, LAZYFRAME_CODEC_LZ4, 2, 0, 500);
	wire_pair(w, 4 * K, 1000);
	wire_pair(w, 4 * K, 2000);
	wire_record(w, 6 * K, 2 * K, 0x11, 9 * K);
	wire_u64(w, 0);
	wire_record(w, 8 * K, 6 * K, 0, 0);
	wire_u64(w, 0);
	wire_record(w, 14 * K, 5 * K, 0x22, 7 * K);
	wire_table(w, LAZYFRAME_CODEC_LZ4, 2, 4 * K, 1500);
	wire_pair(w, 4 * K, 2000);
	wire_pair(w, 8 * K, 3000);
}

/* F18: tables of a layer's mappings are parts of one table */
TEST(draft_is_read_and_its_tables_are_joined)
{
	struct wire w = {0};
	struct header h;
	struct error e;

	make_draft_plain(&w);
	wire_draft(&w);
	ASSERT_EQ(0, parse(&w, &h, &e)) TH_LOG("%s", e.text);
	EXPECT_EQ(4, h.version);
	EXPECT_EQ(3, h.generation);
	ASSERT_EQ(2, h.layers);
	EXPECT_TRUE(is_uuid(h.layer[0].uuid, 0x11));
	EXPECT_EQ(LAZYFRAME_CODEC_NONE, h.layer[0].codec);
	EXPECT_EQ(0, h.layer[0].frames);
	EXPECT_EQ(0, h.layer[0].ubytes);
	EXPECT_TRUE(is_uuid(h.layer[1].uuid, 0x22));
	EXPECT_EQ(LAZYFRAME_CODEC_LZ4, h.layer[1].codec);
	EXPECT_EQ(16 * K, h.layer[1].ubytes);
	ASSERT_EQ(3, h.layer[1].frames);
	EXPECT_TRUE(is_frame(&h.layer[1], 0, 0, 500, 4 * K, 1000));
	EXPECT_TRUE(is_frame(&h.layer[1], 1, 4 * K, 1500, 4 * K, 2000));
	EXPECT_TRUE(is_frame(&h.layer[1], 2, 8 * K, 3500, 8 * K, 3000));
	ASSERT_EQ(4, h.mappings);
	EXPECT_TRUE(is_mapping(&h, 0, 0, 6 * K, 0x22, 0));
	EXPECT_TRUE(is_mapping(&h, 1, 6 * K, 2 * K, 0x11, 9 * K));
	EXPECT_TRUE(is_mapping(&h, 2, 8 * K, 6 * K, 0, 0));
	EXPECT_TRUE(is_mapping(&h, 3, 14 * K, 5 * K, 0x22, 7 * K));
	header_free(&h);
	wire_free(&w);
}

TEST(draft_cut_anywhere_is_refused)
{
	struct wire w = {0};
	size_t len;

	make_draft_plain(&w);
	for (len = w.len; len--; ) {
		struct wire part = {0};

		wire_put(&part, w.data, len);
		wire_draft(&part);
		ASSERT_TRUE(refused(&part, "")) TH_LOG("%zu bytes", len);
		wire_free(&part);
	}
	wire_draft(&w);
	while (w.len--)
		ASSERT_TRUE(refused(&w, "")) TH_LOG("%zu bytes", w.len);
	wire_free(&w);
}

/* One mapping of 19 blocks to layer 0x22 at 0 with the table in @t, and @more */
static bool draft_refused(struct wire *t, struct wire *more, const char *words)
{
	struct wire w = {0};
	bool ret;

	wire_metadata(&w, 4, K, more ? 38 * K : 19 * K);
	wire_record(&w, 0, 19 * K, 0x22, 0);
	wire_put(&w, t->data, t->len);
	if (more) {
		wire_record(&w, 19 * K, 19 * K, 0x22, 0);
		wire_put(&w, more->data, more->len);
		wire_free(more);
	}
	wire_free(t);
	wire_draft(&w);
	ret = judged(&w, words);
	wire_free(&w);
	return ret;
}

/* F6: the count has 24 bits, what is above is the codec */
TEST(draft_tables_with_impossible_codecs_or_counts_are_refused)
{
	struct wire t = {0};

	wire_table(&t, LAZYFRAME_CODEC_ZSTD, 1, 0, 0);
	wire_pair(&t, 19 * K, 10);
	EXPECT_TRUE(draft_refused(&t, NULL, NULL));

	wire_table(&t, 3, 1, 0, 0);
	wire_pair(&t, 19 * K, 10);
	EXPECT_TRUE(draft_refused(&t, NULL, "unknown codec 3"));
	/* 2^24 + 1 zstd frames, spilt: one LZ4 frame, or so it looks */
	wire_u64(&t, (1ULL << 24) + (1 << 24) + 1);
	wire_u64(&t, 0);
	wire_u64(&t, 0);
	wire_pair(&t, 1, 10);
	EXPECT_TRUE(draft_refused(&t, NULL, "which has only 1 bytes"));
	wire_table(&t, 1ULL << 32 | 1, 1, 0, 0);
	wire_pair(&t, 19 * K, 10);
	EXPECT_TRUE(draft_refused(&t, NULL, "unknown codec 4294967297"));
	/* F2: no codec, but frames */
	wire_table(&t, 0, 1, 0, 0);
	wire_pair(&t, 19 * K, 10);
	EXPECT_TRUE(draft_refused(&t, NULL, "unknown codec 0"));
	/* A codec, but no frames */
	wire_table(&t, LAZYFRAME_CODEC_ZSTD, 0, 0, 0);
	EXPECT_TRUE(draft_refused(&t, NULL, "has no frames"));
	wire_table(&t, LAZYFRAME_CODEC_ZSTD, 2, 0, 0);
	wire_pair(&t, 19 * K, 10);
	EXPECT_TRUE(draft_refused(&t, NULL, "too short"));
	wire_table(&t, LAZYFRAME_CODEC_ZSTD, 0xffffff, 0, 0);
	wire_pair(&t, 19 * K, 10);
	EXPECT_TRUE(draft_refused(&t, NULL, "too short"));
}

/* F10 */
TEST(draft_frames_with_impossible_sizes_are_refused)
{
	struct wire t = {0};

	wire_table(&t, LAZYFRAME_CODEC_ZSTD, 1, 0, 0);
	wire_pair(&t, 0, 10);
	EXPECT_TRUE(draft_refused(&t, NULL, "a frame is empty"));
	wire_table(&t, LAZYFRAME_CODEC_ZSTD, 1, 0, 0);
	wire_pair(&t, 19 * K, 0);
	EXPECT_TRUE(draft_refused(&t, NULL, "a frame is empty"));
	wire_table(&t, LAZYFRAME_CODEC_ZSTD, 1, 0, 0);
	wire_pair(&t, ~0U, 10);
	EXPECT_TRUE(draft_refused(&t, NULL, "empty or too big"));
	wire_table(&t, LAZYFRAME_CODEC_ZSTD, 1, ~0ULL - 5, 0);
	wire_pair(&t, 19 * K, 10);
	EXPECT_TRUE(draft_refused(&t, NULL, "out of range"));
	wire_table(&t, LAZYFRAME_CODEC_ZSTD, 1, 0, ~0ULL - 5);
	wire_pair(&t, 19 * K, 10);
	EXPECT_TRUE(draft_refused(&t, NULL, "out of range"));
	/* F14: a part of a table begins where it says, not at 0 */
	wire_table(&t, LAZYFRAME_CODEC_ZSTD, 1, K, 0);
	wire_pair(&t, 19 * K, 10);
	EXPECT_TRUE(draft_refused(&t, NULL, "no frame has"));
}

/* F13 */
TEST(draft_tables_that_contradict_each_other_are_refused)
{
	struct wire t = {0}, more = {0};

#define FIRST()								\
	do {								\
		wire_table(&t, LAZYFRAME_CODEC_ZSTD, 2, 0, 0);		\
		wire_pair(&t, 10 * K, 10);				\
		wire_pair(&t, 10 * K, 10);				\
	} while (0)
	FIRST();
	wire_put(&more, t.data, t.len);
	EXPECT_TRUE(draft_refused(&t, &more, NULL));
	FIRST();
	wire_table(&more, LAZYFRAME_CODEC_ZSTD, 2, 0, 0);
	wire_pair(&more, 10 * K, 11);
	wire_pair(&more, 10 * K, 10);
	EXPECT_TRUE(draft_refused(&t, &more, "contradict"));
	FIRST();
	wire_table(&more, LAZYFRAME_CODEC_ZSTD, 2, 0, 5);
	wire_pair(&more, 10 * K, 10);
	wire_pair(&more, 10 * K, 10);
	EXPECT_TRUE(draft_refused(&t, &more, "contradict"));
	FIRST();
	wire_table(&more, LAZYFRAME_CODEC_ZSTD, 1, 0, 0);
	wire_pair(&more, 20 * K, 10);
	EXPECT_TRUE(draft_refused(&t, &more, "contradict"));
	FIRST();
	wire_table(&more, LAZYFRAME_CODEC_LZ4, 2, 0, 0);
	wire_pair(&more, 10 * K, 10);
	wire_pair(&more, 10 * K, 10);
	EXPECT_TRUE(draft_refused(&t, &more, "different codecs"));
	/* Compressed bytes must never be read as plain ones. */
	FIRST();
	wire_u64(&more, 0);
	EXPECT_TRUE(draft_refused(&t, &more, "different codecs"));
	/* Frames that overlap, but do not begin together */
	FIRST();
	wire_table(&more, LAZYFRAME_CODEC_ZSTD, 1, 5 * K, 5);
	wire_pair(&more, 14 * K, 5);
	EXPECT_TRUE(draft_refused(&t, &more, "begins before"));
}

TEST(draft_is_version_4_or_nothing)
{
	struct wire w = {0};
	u64 version;

	for (version = 0; version < 8; version++) {
		make_draft_plain(&w);
		w.data[0] = version;
		wire_draft(&w);
		EXPECT_TRUE(judged(&w, version == 4 ? NULL :
				   "unknown version"));
		wire_free(&w);
	}
	make_draft_plain(&w);
	memset(w.data + 8, 0, 8);
	wire_draft(&w);
	EXPECT_TRUE(refused(&w, "block size is 0"));
	wire_free(&w);
}

/* F9 */
TEST(draft_costs_no_more_than_its_content)
{
	struct wire w = {0};
	unsigned int i;

	if (!watch_allocations())
		SKIP(return, "allocations are seen only with a sanitizer");
	make_draft_plain(&w);
	wire_draft(&w);
	biggest = 0;
	EXPECT_TRUE(accepted(&w));
	EXPECT_GT(1 << 16, biggest);
	wire_free(&w);

	/* A match of 100 MiB in 400 KiB: found before it is decoded */
	wire_put(&w, "\x1f\x04\x01\x00", 4);
	for (i = 0; i < 400 << 10; i++)
		wire_u8(&w, 255);
	wire_put(&w, "\x00\x50" "abcde", 7);
	biggest = 0;
	EXPECT_TRUE(refused(&w, "unknown version"));
	EXPECT_GT(1 << 20, biggest);
	wire_free(&w);
}

/* ---- writing ---- */

/* A random header that is all right; frames of a layer are not shared */
static void random_header(struct header *h, u64 version)
{
	u32 layers = version < 4 ? 0 : random_below(6), i, j;
	u64 end = 0;

	memset(h, 0, sizeof(*h));
	h->version = version;
	h->block_size = random_below(2) ? K : 2 << 20;
	h->generation = random_u64();
	random_fill(h->uuid, 16);
	random_fill(h->base_uuid, 16);
	h->layers = layers;
	h->layer = calloc(layers + 1, sizeof(*h->layer));
	for (i = 0; i < layers; i++) {
		struct header_layer *l = &h->layer[i];
		u64 u = 0, c = 0;

		random_fill(l->uuid, 16);
		l->uuid[0] = i + 1;
		random_fill(l->sha256, 32);
		l->codec = random_below(3);
		if (l->codec == LAZYFRAME_CODEC_NONE) {
			l->ubytes = random_below(2) ? 1 + random_below(100 * K)
						    : 0;
			continue;
		}
		l->frames = random_below(40);
		l->frame = calloc(l->frames + 1, sizeof(*l->frame));
		for (j = 0; j < l->frames; j++) {
			l->frame[j].ustart = u;
			l->frame[j].cstart = c;
			l->frame[j].ubytes = K * (1 + random_below(9));
			l->frame[j].cbytes = 1 + random_below(10000);
			l->frame[j].index = j;
			u += l->frame[j].ubytes;
			c += l->frame[j].cbytes + random_below(2);
			if (!random_below(5))
				u += K * random_below(9);
		}
		if (l->frames) {
			j = l->frames - 1;
			l->ubytes = l->frame[j].ustart + l->frame[j].ubytes;
		}
	}

	h->mappings = 1 + random_below(60);
	h->mapping = calloc(h->mappings, sizeof(*h->mapping));
	for (i = 0; i < h->mappings; i++) {
		struct header_mapping *m = &h->mapping[i];
		const struct header_layer *l;

		m->start = end;
		m->length = K * (1 + random_below(20));
		l = layers ? &h->layer[random_below(layers)] : NULL;
		if (random_below(4) && !l) {
			m->uuid[5] = 1 + random_below(5);
			m->storage = K * random_below(1000);
		} else if (random_below(4) && l && l->frames) {
			j = random_below(l->frames);
			memcpy(m->uuid, l->uuid, 16);
			m->storage = l->frame[j].ustart;
			m->length = l->frame[j].ubytes;
			if (random_below(2) && j + 1 < l->frames &&
			    l->frame[j + 1].ustart == m->storage + m->length)
				m->length += l->frame[j + 1].ubytes;
		} else if (random_below(4) && l && !l->codec && l->ubytes > K) {
			memcpy(m->uuid, l->uuid, 16);
			m->length = K * (1 + random_below(l->ubytes / K));
		} else {
			m->storage = random_u64();
		}
		end += m->length;
	}
	h->size = end - random_below(K);
}

/* F8 too: the same again, and the same from what was read */
TEST(what_is_written_is_read_back)
{
	unsigned int round, i;

	for (round = 0; round < 3000; round++) {
		struct header h, back, before;
		struct error e = {""};
		size_t bytes, again;
		void *data, *data2;

		random_seed(round);
		random_header(&h, 3 + round % 2);
		before = h;
		ASSERT_EQ(0, header_write(&h, &data, &bytes, &e))
			TH_LOG("round %u: %s", round, e.text);
		ASSERT_EQ(0, memcmp(&before, &h, sizeof(h)));
		ASSERT_EQ(0, header_parse(data, bytes, &back, &e))
			TH_LOG("round %u: %s", round, e.text);
		ASSERT_EQ(h.version, back.version);
		ASSERT_TRUE(same(&h, &back)) TH_LOG("round %u", round);
		ASSERT_EQ(0, header_write(&back, &data2, &again, &e));
		ASSERT_EQ(bytes, again);
		ASSERT_EQ(0, memcmp(data, data2, bytes));

		/* F12: both ends of every mapping are found */
		for (i = 0; i < h.mappings; i++) {
			const struct header_mapping *m = &back.mapping[i];

			ASSERT_EQ(m, header_find(&back, m->start));
			if (m->start + m->length <= h.size)
				ASSERT_EQ(m, header_find(&back, m->start +
							 m->length - 1));
		}
		ASSERT_EQ(&back.mapping[h.mappings - 1],
			  header_find(&back, h.size - 1));
		ASSERT_EQ(NULL, header_find(&back, h.size));
		ASSERT_EQ(NULL, header_find(&back, ~0ULL));
		free(data);
		free(data2);
		header_free(&h);
		header_free(&back);
	}
}

/* The same mappings in both versions mean the same. */
TEST(version_5_equals_version_4_for_any_mappings)
{
	unsigned int round;

	for (round = 0; round < 2000; round++) {
		struct wire w = {0}, c = {0};
		struct header h, back;
		u64 last_start = 0;
		s64 last_storage = 0;
		struct error e;
		u32 i, count = 0;

		random_seed(round);
		random_header(&h, 3);
		/* Zeros side by side are one gap in version 5. */
		for (i = 1; i < h.mappings; i++) {
			if (!uuid_is_nil(h.mapping[i].uuid) ||
			    !uuid_is_nil(h.mapping[i - 1].uuid))
				continue;
			h.mapping[i - 1].length += h.mapping[i].length;
			memmove(&h.mapping[i], &h.mapping[i + 1],
				(--h.mappings - i) * sizeof(*h.mapping));
			i--;
		}
		h.version = 5;
		wire_u32(&c, 0);
		wire_u32(&c, 5);
		for (i = 1; i <= 5; i++) {
			u8 uuid[16] = { [5] = i };

			wire_put(&c, uuid, 16);
		}
		for (i = 0; i < h.mappings; i++)
			count += !uuid_is_nil(h.mapping[i].uuid);
		wire_u32(&c, count);
#define EACH(m)								\
	for (const struct header_mapping *m = h.mapping;		\
	     m < h.mapping + h.mappings; m++)				\
		if (!uuid_is_nil(m->uuid))
		EACH(m) {
			wire_uvarint(&c, (m->start - last_start) / K);
			last_start = m->start;
		}
		EACH(m)
			wire_uvarint(&c, m->length / K);
		EACH(m) {
			wire_svarint(&c, ((s64)m->storage - last_storage) /
					 (s64)K);
			last_storage = m->storage;
		}
		EACH(m)
			wire_uvarint(&c, m->uuid[5] - 1);
		wire_u64(&w, 5);
		wire_u64(&w, h.block_size);
		wire_u64(&w, h.size);
		wire_u64(&w, h.generation);
		wire_put(&w, h.uuid, 16);
		wire_put(&w, h.base_uuid, 16);
		wire_content(&w, &c, 0, c.len);
		ASSERT_EQ(0, parse(&w, &back, &e))
			TH_LOG("round %u: %s", round, e.text);
		ASSERT_TRUE(same(&h, &back)) TH_LOG("round %u", round);
		header_free(&back);
		header_free(&h);
		wire_free(&w);
		wire_free(&c);
	}
}

/* F11 */
TEST(another_version_is_written_from_a_copy_of_the_struct)
{
	struct wire w = {0};
	struct header h, copy, back;
	struct error e;
	size_t bytes;
	void *data;

	make_v4(&w, 0);
	ASSERT_EQ(0, parse(&w, &h, &e));
	h.version = 5;
	EXPECT_EQ(-EOPNOTSUPP, header_write(&h, &data, &bytes, &e));
	copy = h;
	copy.version = 4;
	ASSERT_EQ(0, header_write(&copy, &data, &bytes, &e));
	EXPECT_EQ(5, h.version);
	ASSERT_EQ(0, header_parse(data, bytes, &back, &e));
	EXPECT_TRUE(same(&h, &back));
	/* The independent encoder's bytes are ours. */
	EXPECT_EQ(w.len, bytes);
	EXPECT_EQ(0, memcmp(w.data, data, bytes));
	free(data);
	header_free(&back);

	/* Version 3 has no place for what compressed layers need. */
	copy.version = 3;
	EXPECT_EQ(-EINVAL, header_write(&copy, &data, &bytes, &e));
	EXPECT_NE(NULL, strstr(e.text, "version 4"));
	header_free(&h);
	wire_free(&w);
}

TEST(version_3_is_written_as_by_hand)
{
	struct wire w = {0};
	struct header h;
	struct error e;
	size_t bytes;
	void *data;

	make_v3(&w, 3);
	ASSERT_EQ(0, parse(&w, &h, &e));
	ASSERT_EQ(0, header_write(&h, &data, &bytes, &e));
	ASSERT_EQ(w.len, bytes);
	EXPECT_EQ(0, memcmp(w.data, data, bytes));
	free(data);
	header_free(&h);
	wire_free(&w);
}

TEST(what_cannot_be_read_is_not_written)
{
	struct wire w = {0};
	struct header h;
	struct error e;
	size_t bytes;
	void *data;

	make_v4(&w, 0);
	ASSERT_EQ(0, parse(&w, &h, &e));
#define REFUSE_WRITE(field, value)					\
	do {								\
		typeof(h.field) saved = h.field;			\
		h.field = (value);					\
		EXPECT_GT(0, header_write(&h, &data, &bytes, &e))	\
			TH_LOG("accepted: " #field " = " #value);	\
		h.field = saved;					\
	} while (0)
	REFUSE_WRITE(version, 0);
	REFUSE_WRITE(version, 1);
	REFUSE_WRITE(version, 6);
	REFUSE_WRITE(block_size, 0);
	REFUSE_WRITE(size, 0);
	REFUSE_WRITE(size, h.size + K);
	REFUSE_WRITE(mappings, 0);
	REFUSE_WRITE(mappings, 3);
	REFUSE_WRITE(mapping[1].start, 0);
	REFUSE_WRITE(mapping[1].length, K);
	REFUSE_WRITE(mapping[0].storage, K);
	REFUSE_WRITE(layer[0].frames, 1);
	REFUSE_WRITE(layer[0].codec, 0);
	REFUSE_WRITE(layer[0].codec, 3);
	REFUSE_WRITE(layer[0].ubytes, 0);
	REFUSE_WRITE(layer[1].uuid[0], 0);
	REFUSE_WRITE(layer[0].frame[1].cbytes, 0);
	REFUSE_WRITE(in_flight, true);
	EXPECT_EQ(0, header_write(&h, &data, &bytes, &e));
	free(data);
	header_free(&h);
	wire_free(&w);
}

/* F8 */
TEST(zeros_are_written_the_same_whatever_their_storage_says)
{
	struct header_mapping a = { .length = K }, b = { .length = K,
							 .storage = 12345 };
	struct header h = { .block_size = K, .size = K, .mappings = 1 };
	struct error e;
	size_t bytes[2];
	void *data[2];

	for (h.version = 3; h.version <= 4; h.version++) {
		h.mapping = &a;
		ASSERT_EQ(0, header_write(&h, &data[0], &bytes[0], &e));
		h.mapping = &b;
		ASSERT_EQ(0, header_write(&h, &data[1], &bytes[1], &e));
		ASSERT_EQ(bytes[0], bytes[1]);
		EXPECT_EQ(0, memcmp(data[0], data[1], bytes[0]));
		free(data[0]);
		free(data[1]);
	}
}

/* F7 */
TEST(headers_that_do_not_compress_are_stored)
{
	unsigned int round;

	for (round = 0; round < 50; round++) {
		struct header_mapping m[500];
		struct header h = { .version = 4, .block_size = K,
				    .mapping = m };
		struct header back;
		struct error e;
		size_t bytes;
		void *data;
		u32 i;

		random_seed(round);
		h.mappings = 1 + random_below(ARRAY_SIZE(m));
		for (i = 0; i < h.mappings; i++) {
			m[i].start = h.size;
			m[i].length = K * (1 + random_below(1 << 20));
			m[i].storage = K * random_below(1ULL << 31);
			random_fill(m[i].uuid, 16);
			h.size += m[i].length;
		}
		ASSERT_EQ(0, header_write(&h, &data, &bytes, &e));
		EXPECT_GE(64 + 5 + 8 + 40 * h.mappings + 64, bytes);
		ASSERT_EQ(0, header_parse(data, bytes, &back, &e));
		EXPECT_TRUE(same(&h, &back));
		header_free(&back);
		free(data);
	}
}

/* F23 */
TEST(smallest_images_are_fine)
{
	struct header_layer layer = { .uuid = { 1 } };
	struct header_mapping m = { .length = K, .uuid = { 1 } };
	struct lf_frame_pos frame = { .ubytes = 1, .cbytes = 10 };
	struct header h = { .version = 4, .block_size = K, .size = 1,
			    .layers = 1, .layer = &layer, .mappings = 1,
			    .mapping = &m };
	struct header back;
	struct error e;
	size_t bytes;
	void *data;

	/* One byte, compressed */
	layer.codec = LAZYFRAME_CODEC_ZSTD;
	layer.ubytes = 1;
	layer.frames = 1;
	layer.frame = &frame;
	ASSERT_EQ(0, header_write(&h, &data, &bytes, &e)) TH_LOG("%s", e.text);
	ASSERT_EQ(0, header_parse(data, bytes, &back, &e));
	EXPECT_TRUE(same(&h, &back));
	header_free(&back);
	free(data);

	/* Zeros only: a layer of nothing, that nothing refers to */
	layer.ubytes = 0;
	layer.frames = 0;
	memset(m.uuid, 0, sizeof(m.uuid));
	ASSERT_EQ(0, header_write(&h, &data, &bytes, &e)) TH_LOG("%s", e.text);
	ASSERT_EQ(0, header_parse(data, bytes, &back, &e));
	EXPECT_TRUE(same(&h, &back));
	header_free(&back);
	free(data);
}

/* Tests that need some hundred MiB, with time for a busy machine */
FIXTURE(limits)
{
};

FIXTURE_SETUP(limits)
{
}

FIXTURE_TEARDOWN(limits)
{
}

#define LIMITS_SECONDS	300

/* F5 */
TEST_F_TIMEOUT(limits, biggest_that_is_written_is_read_one_more_is_not_written,
	       LIMITS_SECONDS)
{
	/* Bytes that are not records, and what is left over */
	static const unsigned int fixed[] = { [3] = 64, [4] = 8 };
	struct header h = { .block_size = K };
	struct header back;
	struct error e;
	size_t bytes;
	void *data;
	u32 i, max = HEADER_MAX_BYTES / 40 + 1;

	h.mapping = calloc(max, sizeof(*h.mapping));
	ASSERT_NE(NULL, h.mapping);
	for (i = 0; i < max; i++) {
		h.mapping[i].start = i * K;
		h.mapping[i].length = K;
		h.mapping[i].uuid[0] = 1 + i % 3;
		h.mapping[i].storage = i * K;
	}
	for (h.version = 3; h.version <= 4; h.version++) {
		h.mappings = (HEADER_MAX_BYTES - fixed[h.version]) / 40;
		h.size = h.mappings * K;
		ASSERT_EQ(0, header_write(&h, &data, &bytes, &e));
		ASSERT_EQ(0, header_parse(data, bytes, &back, &e))
			TH_LOG("%s", e.text);
		EXPECT_EQ(h.mappings, back.mappings);
		header_free(&back);
		free(data);
		h.mappings++;
		h.size = h.mappings * K;
		EXPECT_EQ(-EFBIG, header_write(&h, &data, &bytes, &e));
	}
	free(h.mapping);
	/* Not a byte of it is looked at. */
	EXPECT_EQ(-EINVAL, header_parse(NULL, HEADER_MAX_BYTES + 1, &back, &e));
}

/*
 * As many mappings as fit, over as many frames as fit: a walk over the frames
 * of each mapping would take hours.
 */
TEST_F_TIMEOUT(limits, checking_does_not_take_mappings_times_frames,
	       LIMITS_SECONDS)
{
	struct header_layer layer = { .uuid = { 1 }, .codec = 1 };
	struct header h = { .version = 4, .block_size = K, .layers = 1,
			    .layer = &layer };
	struct error e;
	u32 i;

	layer.frames = HEADER_MAX_FRAMES;
	layer.frame = calloc(layer.frames, sizeof(*layer.frame));
	layer.ubytes = layer.frames;
	for (i = 0; i < layer.frames; i++)
		layer.frame[i] = (struct lf_frame_pos){
			.ustart = i, .cstart = i, .ubytes = 1, .cbytes = 1,
		};
	h.mappings = 1 << 20;
	h.mapping = calloc(h.mappings, sizeof(*h.mapping));
	for (i = 0; i < h.mappings; i++) {
		h.mapping[i].start = h.size;
		h.mapping[i].length = layer.ubytes;
		h.mapping[i].uuid[0] = 1;
		h.size += layer.ubytes;
	}
	EXPECT_EQ(0, header_check(&h, &e)) TH_LOG("%s", e.text);
	layer.frame[777777].ubytes = 1;
	layer.frame[777777].ustart--;
	EXPECT_EQ(-EINVAL, header_check(&h, &e));
	free(h.mapping);
	free(layer.frame);
}

TEST(garbage_never_parses)
{
	unsigned int round;

	for (round = 0; round < 20000; round++) {
		struct wire w = {0};
		u8 junk[300];

		random_seed(round);
		random_fill(junk, sizeof(junk));
		if (round % 2)
			wire_metadata(&w, 1 + random_below(5), K, 10 * K);
		wire_put(&w, junk, random_below(sizeof(junk)) | 1);
		ASSERT_TRUE(refused(&w, ""));
		wire_free(&w);
	}
}

TEST_HARNESS_MAIN

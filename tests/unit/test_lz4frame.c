// SPDX-License-Identifier: GPL-2.0-only
/*
 * The walk through LZ4 frames, against the frames that liblz4 writes and what
 * it makes of damaged ones.
 */
#include <lz4frame.h>
#include <stdlib.h>

#include "../../kmod/lz4frame.h"
#include "kselftest_harness.h"
#include "random.h"

#define GUARD	0xa5

struct frame {
	u8 *data;
	size_t bytes;
	u8 *content;
	size_t content_bytes;
};

enum pattern { ZEROS, TEXT, NOISE };

static void make_frame(struct frame *f, size_t content_bytes,
		       enum pattern pattern, const LZ4F_preferences_t *prefs)
{
	size_t i, bound = LZ4F_compressFrameBound(content_bytes, prefs);

	f->content_bytes = content_bytes;
	f->content = calloc(1, content_bytes + 1);
	if (pattern == NOISE)
		random_fill(f->content, content_bytes);
	for (i = 0; pattern == TEXT && i < content_bytes; i++)
		f->content[i] = "lazyframe "[(i + i / 97) % 10];
	f->data = malloc(bound);
	f->bytes = LZ4F_compressFrame(f->data, bound, f->content,
				      content_bytes, prefs);
	if (LZ4F_isError(f->bytes))
		abort();
	/* Exactly as big as needed, so that ASan sees what looks behind it. */
	f->data = realloc(f->data, f->bytes);
}

static void free_frame(struct frame *f)
{
	free(f->data);
	free(f->content);
}

/* -1: decoded, but not to the content; @dlen bytes of room, not one more */
static int decode_to(const struct frame *f, size_t dlen, const char **why)
{
	u8 *out = malloc(dlen);
	int ret;

	memset(out, GUARD, dlen);
	ret = lf_lz4_frame_decode(f->data, f->bytes, out, dlen, true, why);
	if (!ret && (dlen != f->content_bytes || memcmp(out, f->content, dlen)))
		ret = -1;
	free(out);
	return ret;
}

static int decode(const struct frame *f)
{
	const char *why;

	return decode_to(f, f->content_bytes, &why);
}

static const LZ4F_preferences_t all_checksums = {
	.frameInfo = {
		.blockMode = LZ4F_blockIndependent,
		.blockChecksumFlag = LZ4F_blockChecksumEnabled,
		.contentChecksumFlag = LZ4F_contentChecksumEnabled,
	},
};

static const LZ4F_preferences_t no_checksums = {
	.frameInfo = { .blockMode = LZ4F_blockIndependent },
};

TEST(frames_of_liblz4_decode)
{
	static const size_t sizes[] = {
		1, 2, 12, 13, 100, 4096, 65535, 65536, 65537, 131072, 262145,
		1 << 20, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 9000001,
	};
	unsigned int i, combination, pattern;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (combination = 0; combination < 32; combination++) {
			LZ4F_preferences_t prefs = no_checksums;
			struct frame f;

			/* Big ones take long; the odd sizes tell enough. */
			if (sizes[i] > 1 << 20 && combination % 9)
				continue;
			prefs.frameInfo.blockSizeID = 4 + combination % 4;
			prefs.frameInfo.blockChecksumFlag =
				!!(combination & 4);
			prefs.frameInfo.contentChecksumFlag =
				!!(combination & 8);
			prefs.frameInfo.contentSize =
				combination & 16 ? sizes[i] : 0;
			for (pattern = ZEROS; pattern <= NOISE; pattern++) {
				make_frame(&f, sizes[i], pattern, &prefs);
				ASSERT_EQ(0, decode(&f))
					TH_LOG("%zu bytes, combination %u, pattern %u",
					       sizes[i], combination, pattern);
				free_frame(&f);
			}
		}
	}
}

TEST(wrong_content_size_is_refused)
{
	LZ4F_preferences_t prefs = no_checksums;
	unsigned int pattern, announced;
	const char *why;
	struct frame f;

	for (announced = 0; announced < 2; announced++) {
		for (pattern = ZEROS; pattern <= NOISE; pattern++) {
			prefs.frameInfo.contentSize = announced ? 70000 : 0;
			make_frame(&f, 70000, pattern, &prefs);
			EXPECT_EQ(-EBADMSG, decode_to(&f, 69999, &why));
			EXPECT_EQ(-EBADMSG, decode_to(&f, 70001, &why));
			EXPECT_EQ(-EBADMSG, decode_to(&f, 65536, &why));
			EXPECT_EQ(-EBADMSG, decode_to(&f, 0, &why));
			EXPECT_EQ(-EBADMSG, decode_to(&f, 1 << 20, &why));
			EXPECT_EQ(0, decode_to(&f, 70000, &why));
			free_frame(&f);
		}
	}
}

TEST(every_truncation_is_refused)
{
	unsigned int pattern, sums;
	struct frame f;
	size_t bytes;

	for (sums = 0; sums < 2; sums++) {
		for (pattern = ZEROS; pattern <= NOISE; pattern++) {
			make_frame(&f, 5000, pattern,
				   sums ? &all_checksums : &no_checksums);
			for (bytes = f.bytes; bytes-- > 0; ) {
				f.bytes = bytes;
				f.data = realloc(f.data, bytes + !bytes);
				ASSERT_EQ(-EBADMSG, decode(&f))
					TH_LOG("%zu bytes", bytes);
			}
			free_frame(&f);
		}
	}
}

TEST(what_follows_the_frame_is_refused)
{
	unsigned int i, follow;
	struct frame f;

	for (i = 0; i < 2; i++) {
		for (follow = 1; follow < 9; follow++) {
			make_frame(&f, 5000, TEXT,
				   i ? &all_checksums : &no_checksums);
			f.data = realloc(f.data, f.bytes + follow);
			memset(f.data + f.bytes, 0, follow);
			f.bytes += follow;
			EXPECT_EQ(-EBADMSG, decode(&f));
			free_frame(&f);
		}
	}
}

TEST(any_flipped_bit_is_bad_data_not_a_missing_feature)
{
	unsigned int pattern;
	struct frame f;
	size_t i;

	for (pattern = ZEROS; pattern <= NOISE; pattern++) {
		make_frame(&f, 3000, pattern, &all_checksums);
		for (i = 0; i < f.bytes * 8; i++) {
			f.data[i / 8] ^= 1 << i % 8;
			ASSERT_EQ(-EBADMSG, decode(&f))
				TH_LOG("bit %zu", i);
			f.data[i / 8] ^= 1 << i % 8;
		}
		free_frame(&f);
	}
}

TEST(sums_are_compared_only_where_asked_for)
{
	u8 out[3000];
	const char *why;
	struct frame f;
	size_t sum;

	make_frame(&f, sizeof(out), NOISE, &all_checksums);
	/* the last word: of the content; before it and the end mark: the block's */
	for (sum = f.bytes - 12; sum < f.bytes; sum += 8) {
		f.data[sum] ^= 1;
		EXPECT_EQ(-EBADMSG, lf_lz4_frame_decode(f.data, f.bytes, out,
							sizeof(out), true,
							&why));
		EXPECT_EQ(0, lf_lz4_frame_decode(f.data, f.bytes, out,
						 sizeof(out), false, &why));
		EXPECT_EQ(0, memcmp(out, f.content, sizeof(out)));
		f.data[sum] ^= 1;
	}
	free_frame(&f);
}

TEST(damage_that_passes_liblz4_decodes_as_there)
{
	struct frame f;
	unsigned int round, same = 0;

	/* Without checksums: nothing but the walk stands in the way. */
	for (round = 0; round < 20000; round++) {
		size_t got = 5000, used;
		LZ4F_dctx *ctx;
		u8 ours[5000], theirs[5000];
		const char *why;
		size_t left, i;
		int ret;

		random_seed(round);
		make_frame(&f, 5000, round % 3, &no_checksums);
		for (i = 0; i < 1 + round % 3; i++)
			f.data[random_below(f.bytes)] ^= 1 << random_below(8);
		used = f.bytes;
		LZ4F_createDecompressionContext(&ctx, LZ4F_VERSION);
		left = LZ4F_decompress(ctx, theirs, &got, f.data, &used, NULL);
		LZ4F_freeDecompressionContext(ctx);
		ret = lf_lz4_frame_decode(f.data, f.bytes, ours, 5000, true,
					  &why);
		if (!ret) {
			/* @left 0: complete */
			ASSERT_EQ(0, left);
			ASSERT_EQ(5000, got);
			ASSERT_EQ(f.bytes, used);
			ASSERT_EQ(0, memcmp(ours, theirs, 5000));
			same++;
		}
		free_frame(&f);
	}
	EXPECT_GT(same, 100);
}

/* Frames by hand, straight from the format's description */
struct bytes {
	u8 data[70000];
	size_t len;
};

static void put(struct bytes *b, const void *data, size_t len)
{
	memcpy(b->data + b->len, data, len);
	b->len += len;
}

static void put32(struct bytes *b, u32 value)
{
	u8 le[4] = { value, value >> 8, value >> 16, value >> 24 };

	put(b, le, 4);
}

/* @extra: content size and dictionary, as the flags say */
static void head(struct bytes *b, u8 flags, u8 bd, const void *extra,
		 size_t extra_bytes)
{
	u8 sum, fixed[2] = { flags, bd };
	size_t start;

	b->len = 0;
	put32(b, 0x184d2204);
	start = b->len;
	put(b, fixed, 2);
	put(b, extra, extra_bytes);
	sum = XXH32(b->data + start, b->len - start, 0) >> 8;
	put(b, &sum, 1);
}

static void stored(struct bytes *b, const char *text)
{
	put32(b, 0x80000000 | strlen(text));
	put(b, text, strlen(text));
}

static int decode_bytes(const struct bytes *b, const char *want)
{
	struct frame f = { .bytes = b->len, .content = (u8 *)want,
			   .content_bytes = strlen(want) };
	int ret;

	f.data = malloc(b->len);
	memcpy(f.data, b->data, b->len);
	ret = decode(&f);
	free(f.data);
	return ret;
}

TEST(handmade_frames_decode)
{
	/* Two literals, then six times the last one, then eight literals */
	static const u8 block[] = "\x22" "ab" "\x01\x00" "\x80" "cdefghij";
	const u8 size[8] = { 8 };
	struct bytes b;

	head(&b, 0x60, 0x40, "", 0);
	stored(&b, "hello ");
	stored(&b, "world");
	put32(&b, 0);
	EXPECT_EQ(0, decode_bytes(&b, "hello world"));
	EXPECT_EQ(-1, decode_bytes(&b, "hello_world"));

	/* An empty stored block is odd, but what the format allows. */
	head(&b, 0x60, 0x70, "", 0);
	stored(&b, "");
	stored(&b, "hello");
	stored(&b, "");
	put32(&b, 0);
	EXPECT_EQ(0, decode_bytes(&b, "hello"));

	head(&b, 0x60, 0x40, "", 0);
	put32(&b, sizeof(block) - 1);
	put(&b, block, sizeof(block) - 1);
	put32(&b, 0);
	EXPECT_EQ(0, decode_bytes(&b, "abbbbbbbcdefghij"));

	head(&b, 0x7c, 0x40, size, 8);
	stored(&b, "lazyness");
	put32(&b, XXH32("lazyness", 8, 0));
	put32(&b, 0);
	put32(&b, XXH32("lazyness", 8, 0));
	EXPECT_EQ(0, decode_bytes(&b, "lazyness"));
	b.data[b.len - 1] ^= 1;
	EXPECT_EQ(-EBADMSG, decode_bytes(&b, "lazyness"));
}

TEST(content_size_that_is_not_the_content_s_is_refused)
{
	const u8 size[8] = { 9 };
	struct bytes b;

	head(&b, 0x68, 0x40, size, 8);
	stored(&b, "lazyness");
	put32(&b, 0);
	EXPECT_EQ(-EBADMSG, decode_bytes(&b, "lazyness"));
}

TEST(features_that_are_refused_are_named)
{
	static const struct {
		u8 flags, bd;
		size_t extra;
		const char *why;
	} cases[] = {
		{ 0x40, 0x40, 0, "the LZ4 frame has linked blocks" },
		{ 0x61, 0x40, 4, "the LZ4 frame needs a dictionary" },
		{ 0x62, 0x40, 0, "the LZ4 frame is of an unknown version" },
		{ 0x20, 0x40, 0, "the LZ4 frame is of an unknown version" },
		{ 0xa0, 0x40, 0, "the LZ4 frame is of an unknown version" },
		{ 0x60, 0x30, 0, "the LZ4 frame is of an unknown version" },
		{ 0x60, 0xc0, 0, "the LZ4 frame is of an unknown version" },
		{ 0x60, 0x41, 0, "the LZ4 frame is of an unknown version" },
	};
	const char *why;
	struct bytes b;
	u8 out[5];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		head(&b, cases[i].flags, cases[i].bd, "\1\2\3\4",
		     cases[i].extra);
		stored(&b, "hello");
		put32(&b, 0);
		EXPECT_EQ(-EOPNOTSUPP, lf_lz4_frame_decode(b.data, b.len, out,
							   5, true, &why));
		EXPECT_STREQ(cases[i].why, why);
	}
}

TEST(other_magic_numbers_are_refused)
{
	static const u32 magic[] = { 0x184c2102, 0x184d2a50, 0xfd2fb528, 0 };
	struct bytes b;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(magic); i++) {
		head(&b, 0x60, 0x40, "", 0);
		stored(&b, "hello");
		put32(&b, 0);
		ASSERT_EQ(0, decode_bytes(&b, "hello"));
		b.len = 0;
		put32(&b, magic[i]);
		b.len = 4 + 3 + 4 + 5 + 4;
		EXPECT_EQ(-EBADMSG, decode_bytes(&b, "hello"));
	}
}

TEST(blocks_bigger_than_announced_are_refused)
{
	static char text[65538];
	struct bytes b;

	memset(text, 'x', 65537);
	head(&b, 0x60, 0x40, "", 0);
	stored(&b, text);
	put32(&b, 0);
	EXPECT_EQ(-EBADMSG, decode_bytes(&b, text));
	head(&b, 0x60, 0x50, "", 0);
	stored(&b, text);
	put32(&b, 0);
	EXPECT_EQ(0, decode_bytes(&b, text));
	text[65536] = 0;
	head(&b, 0x60, 0x40, "", 0);
	stored(&b, text);
	put32(&b, 0);
	EXPECT_EQ(0, decode_bytes(&b, text));
}

TEST(a_block_that_decodes_to_more_than_announced_is_refused)
{
	LZ4F_preferences_t prefs = no_checksums;
	struct frame f;

	/* 200000 zeros in one 256 KiB block; then the header says 64 KiB. */
	prefs.frameInfo.blockSizeID = LZ4F_max256KB;
	make_frame(&f, 200000, ZEROS, &prefs);
	ASSERT_EQ(0, decode(&f));
	f.data[5] = 0x40;
	f.data[6] = XXH32(f.data + 4, 2, 0) >> 8;
	EXPECT_EQ(-EBADMSG, decode(&f));
	free_frame(&f);
}

TEST_HARNESS_MAIN

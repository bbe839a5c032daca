// SPDX-License-Identifier: GPL-2.0-only
/*
 * The seek table: bytes straight from the format's description, read back and
 * written, and everything that is wrong with them.
 */
#include <stdlib.h>
#include <linux/lazyframe.h>

#include "../../helper/seektable.h"
#include "kselftest_harness.h"
#include "random.h"

/* Two frames with checksums, by hand */
static const u8 two_frames[] = {
	0x5e, 0x2a, 0x4d, 0x18,  33, 0, 0, 0,		/* 2 * 12 + 9 */
	0xe8, 0x03, 0, 0,  0x00, 0x10, 0, 0,  0x78, 0x56, 0x34, 0x12,
	0xf4, 0x01, 0, 0,  0x05, 0x00, 0, 0,  0xef, 0xbe, 0xad, 0xde,
	2, 0, 0, 0,  0x80,  0xb1, 0xea, 0x92, 0x8f,
};

#define TWO_OBJECT	(1500 + sizeof(two_frames))

/* The same without checksums, and with a skippable frame of 50 bytes between */
static const u8 three_frames[] = {
	0x5e, 0x2a, 0x4d, 0x18,  33, 0, 0, 0,		/* 3 * 8 + 9 */
	0xe8, 0x03, 0, 0,  0x00, 0x10, 0, 0,
	0x32, 0x00, 0, 0,  0x00, 0x00, 0, 0,
	0xf4, 0x01, 0, 0,  0x05, 0x00, 0, 0,
	3, 0, 0, 0,  0x00,  0xb1, 0xea, 0x92, 0x8f,
};

#define THREE_OBJECT	(1550 + sizeof(three_frames))

/* Everything a reader does, with buffers of the exact size. -1: size refused */
static int read_table(const void *table, size_t bytes, u64 object_bytes,
		      struct lf_frame_pos **pos, u32 *frames, u64 *ubytes,
		      const char **why)
{
	u8 *copy = malloc(bytes);
	u64 size;
	u32 room;
	int err;

	*pos = NULL;
	memcpy(copy, table, bytes);
	err = seektable_size(copy + bytes - SEEKTABLE_FOOTER_BYTES,
			     object_bytes, &size, why);
	if (!err && size != bytes)
		err = -1;
	if (!err)
		err = seektable_frames(copy, bytes, &room, why);
	if (!err) {
		*pos = malloc(room * sizeof(**pos));
		err = seektable_read(copy, bytes, object_bytes, *pos, frames,
				     ubytes, why);
	}
	free(copy);
	if (err) {
		free(*pos);
		*pos = NULL;
	}
	return err;
}

static int refusal(const void *table, size_t bytes, u64 object_bytes)
{
	struct lf_frame_pos *pos;
	const char *why;
	u64 ubytes;
	u32 frames;
	int err;

	err = read_table(table, bytes, object_bytes, &pos, &frames, &ubytes,
			 &why);
	free(pos);
	return err;
}

TEST(handmade_table_with_checksums_is_read)
{
	struct lf_frame_pos *pos;
	const char *why = "";
	u64 ubytes;
	u32 frames;

	ASSERT_EQ(0, read_table(two_frames, sizeof(two_frames), TWO_OBJECT,
				&pos, &frames, &ubytes, &why))
		TH_LOG("%s", why);
	ASSERT_EQ(2, frames);
	EXPECT_EQ(4101, ubytes);
	EXPECT_EQ(0, pos[0].ustart);
	EXPECT_EQ(0, pos[0].cstart);
	EXPECT_EQ(4096, pos[0].ubytes);
	EXPECT_EQ(1000, pos[0].cbytes);
	EXPECT_EQ(0x12345678, pos[0].sum);
	EXPECT_TRUE(pos[0].has_sum);
	EXPECT_EQ(0, pos[0].index);
	EXPECT_EQ(4096, pos[1].ustart);
	EXPECT_EQ(1000, pos[1].cstart);
	EXPECT_EQ(5, pos[1].ubytes);
	EXPECT_EQ(500, pos[1].cbytes);
	EXPECT_EQ(0xdeadbeef, pos[1].sum);
	EXPECT_EQ(1, pos[1].index);
	free(pos);
}

TEST(handmade_table_with_a_skippable_frame_is_read)
{
	struct lf_frame_pos *pos;
	const char *why = "";
	u64 ubytes;
	u32 frames;

	ASSERT_EQ(0, read_table(three_frames, sizeof(three_frames),
				THREE_OBJECT, &pos, &frames, &ubytes, &why))
		TH_LOG("%s", why);
	ASSERT_EQ(2, frames);
	EXPECT_EQ(4101, ubytes);
	EXPECT_FALSE(pos[0].has_sum);
	EXPECT_EQ(4096, pos[1].ustart);
	EXPECT_EQ(1050, pos[1].cstart);
	EXPECT_EQ(1, pos[1].index);
	EXPECT_FALSE(pos[1].has_sum);
	free(pos);
}

TEST(writing_gives_the_handmade_bytes)
{
	const struct lf_frame_pos pos[] = {
		{ .ubytes = 4096, .cbytes = 1000, .sum = 0x12345678 },
		{ .ubytes = 5, .cbytes = 500, .sum = 0xdeadbeef,
		  .ustart = 4096, .cstart = 1000, .index = 1 },
	};
	u8 out[sizeof(two_frames)];

	ASSERT_EQ(sizeof(two_frames), seektable_bytes(2));
	seektable_write(pos, 2, out);
	EXPECT_EQ(0, memcmp(two_frames, out, sizeof(out)));
}

TEST(what_was_written_reads_back_for_any_frames)
{
	unsigned int round;

	for (round = 0; round < 200; round++) {
		u32 frames = random_below(500), got, i;
		struct lf_frame_pos *pos, *back;
		u64 u = 0, c = 0, ubytes, bytes;
		const char *why = "";
		u8 *table;

		random_seed(round);
		pos = calloc(frames + 1, sizeof(*pos));
		for (i = 0; i < frames; i++) {
			pos[i] = (struct lf_frame_pos){
				.ustart = u, .cstart = c,
				.ubytes = 1 + random_below(LAZYFRAME_MAX_FRAME),
				.cbytes = 1 + random_below(LAZYFRAME_MAX_CFRAME),
				.sum = random_u64(), .has_sum = true,
				.index = i,
			};
			u += pos[i].ubytes;
			c += pos[i].cbytes;
		}
		bytes = seektable_bytes(frames);
		table = malloc(bytes);
		seektable_write(pos, frames, table);
		ASSERT_EQ(0, read_table(table, bytes, c + bytes, &back, &got,
					&ubytes, &why))
			TH_LOG("round %u: %s", round, why);
		ASSERT_EQ(frames, got);
		ASSERT_EQ(u, ubytes);
		for (i = 0; i < frames; i++) {
			ASSERT_EQ(pos[i].ustart, back[i].ustart);
			ASSERT_EQ(pos[i].cstart, back[i].cstart);
			ASSERT_EQ(pos[i].ubytes, back[i].ubytes);
			ASSERT_EQ(pos[i].cbytes, back[i].cbytes);
			ASSERT_EQ(pos[i].sum, back[i].sum);
			ASSERT_EQ(pos[i].has_sum, back[i].has_sum);
			ASSERT_EQ(pos[i].index, back[i].index);
		}
		ASSERT_EQ(-EINVAL, refusal(table, bytes, c + bytes + 1));
		ASSERT_EQ(-EINVAL, refusal(table, bytes, c + bytes - 1));
		free(table);
		free(back);
		free(pos);
	}
}

TEST(no_frames_and_one_byte_are_fine)
{
	const struct lf_frame_pos one = { .ubytes = 1, .cbytes = 10 };
	struct lf_frame_pos *pos;
	const char *why = "";
	u8 table[64];
	u64 ubytes;
	u32 frames;

	seektable_write(NULL, 0, table);
	ASSERT_EQ(0, read_table(table, seektable_bytes(0), seektable_bytes(0),
				&pos, &frames, &ubytes, &why));
	EXPECT_EQ(0, frames);
	EXPECT_EQ(0, ubytes);
	free(pos);
	seektable_write(&one, 1, table);
	ASSERT_EQ(0, read_table(table, seektable_bytes(1),
				10 + seektable_bytes(1), &pos, &frames,
				&ubytes, &why));
	EXPECT_EQ(1, frames);
	EXPECT_EQ(1, ubytes);
	free(pos);
}

TEST(other_data_has_no_seek_table)
{
	const char *why;
	u8 footer[SEEKTABLE_FOOTER_BYTES] = {0};
	u64 bytes;

	EXPECT_EQ(-ENOENT, seektable_size(footer, 1000, &bytes, &why));
	/* Objects that are too small have no footer to look at. */
	EXPECT_EQ(-ENOENT, seektable_size(NULL, 8, &bytes, &why));
	EXPECT_EQ(-ENOENT, seektable_size(NULL, 0, &bytes, &why));
}

/* Footers: { frames, descriptor, magic } */
TEST(impossible_footers_are_refused)
{
	u8 footer[SEEKTABLE_FOOTER_BYTES];
	const char *why;
	unsigned int i;
	u64 bytes;

	memcpy(footer, two_frames + sizeof(two_frames) - sizeof(footer),
	       sizeof(footer));
	ASSERT_EQ(0, seektable_size(footer, TWO_OBJECT, &bytes, &why));
	EXPECT_EQ(sizeof(two_frames), bytes);
	EXPECT_EQ(0, seektable_size(footer, sizeof(two_frames), &bytes, &why));
	EXPECT_EQ(-EINVAL, seektable_size(footer, sizeof(two_frames) - 1,
					  &bytes, &why));

	/* Reserved bits mean a change that breaks; unused ones mean nothing. */
	for (i = 0; i < 7; i++) {
		footer[4] = 0x80 | 1 << i;
		EXPECT_EQ(i < 2 ? 0 : -EINVAL,
			  seektable_size(footer, TWO_OBJECT, &bytes, &why));
	}
	footer[4] = 0x80;
	memset(footer, 0xff, 4);
	EXPECT_EQ(-EINVAL, seektable_size(footer, ~0ULL, &bytes, &why));
	footer[3] = 0;
	EXPECT_EQ(-EINVAL, seektable_size(footer, ~0ULL, &bytes, &why));
}

TEST(damaged_tables_are_refused)
{
	u8 t[sizeof(two_frames)];
	unsigned int i;

#define RESET()		memcpy(t, two_frames, sizeof(t))
#define REFUSED()	EXPECT_EQ(-EINVAL, refusal(t, sizeof(t), TWO_OBJECT))
	RESET();
	EXPECT_EQ(0, refusal(t, sizeof(t), TWO_OBJECT));
	/* The skippable frame's head, bit by bit */
	for (i = 0; i < 64; i++) {
		RESET();
		t[i / 8] ^= 1 << i % 8;
		REFUSED();
	}
	/* A C size that is not so: the object is cut short, or another one */
	RESET();
	t[8]++;
	REFUSED();
	/* A frame without data */
	RESET();
	memset(t + 8, 0, 4);
	EXPECT_EQ(-EINVAL, refusal(t, sizeof(t), TWO_OBJECT - 1000));
	/* More content than a frame may have */
	RESET();
	memcpy(t + 12, "\x01\x00\x00\x01", 4);
	REFUSED();
	memcpy(t + 12, "\x00\x00\x00\x01", 4);
	EXPECT_EQ(0, refusal(t, sizeof(t), TWO_OBJECT));
	/* More data than a frame may have */
	RESET();
	memcpy(t + 8, "\x01\x00\x10\x01", 4);
	EXPECT_EQ(-EINVAL, refusal(t, sizeof(t), TWO_OBJECT - 1000 +
				   0x1100001));
	memcpy(t + 8, "\x00\x00\x10\x01", 4);
	EXPECT_EQ(0, refusal(t, sizeof(t), TWO_OBJECT - 1000 + 0x1100000));
}

TEST(tables_of_another_length_than_their_footer_says_are_refused)
{
	struct lf_frame_pos pos[8];
	const char *why;
	u64 ubytes;
	u32 frames, got;
	u64 bytes;

	for (bytes = 0; bytes < sizeof(two_frames); bytes++) {
		EXPECT_NE(0, seektable_frames(two_frames + sizeof(two_frames) -
					      bytes, bytes, &frames, &why));
		EXPECT_NE(0, seektable_read(two_frames + sizeof(two_frames) -
					    bytes, bytes, TWO_OBJECT, pos,
					    &frames, &ubytes, &why));
	}
	for (frames = 0; frames < 200; frames++) {
		u8 t[sizeof(two_frames)];

		memcpy(t, two_frames, sizeof(t));
		t[sizeof(t) - SEEKTABLE_FOOTER_BYTES] = frames;
		if (frames == 2)
			continue;
		EXPECT_EQ(-EINVAL, seektable_frames(t, sizeof(t), &got, &why));
		EXPECT_EQ(-EINVAL, seektable_read(t, sizeof(t), TWO_OBJECT, pos,
						  &got, &ubytes, &why));
	}
	EXPECT_EQ(-EINVAL, seektable_read(two_frames, sizeof(two_frames),
					  sizeof(two_frames) - 1, pos, &frames,
					  &ubytes, &why));
}

TEST(more_frames_than_a_layer_may_have_are_refused)
{
	u32 frames = LF_MAX_FRAMES + 1, i;
	u64 bytes = seektable_bytes(frames);
	struct lf_frame_pos *pos;
	u8 *table = malloc(bytes);

	pos = calloc(frames, sizeof(*pos));
	for (i = 0; i < frames; i++) {
		pos[i].ubytes = 4096;
		pos[i].cbytes = 1;
	}
	seektable_write(pos, frames, table);
	EXPECT_EQ(-EINVAL, refusal(table, bytes, bytes + frames));
	bytes = seektable_bytes(frames - 1);
	seektable_write(pos, frames - 1, table);
	EXPECT_EQ(0, refusal(table, bytes, bytes + frames - 1));
	free(table);
	free(pos);
}

TEST_HARNESS_MAIN

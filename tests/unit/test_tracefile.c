// SPDX-License-Identifier: GPL-2.0-only
/*
 * Traces: bytes by hand, read back and written, all that is wrong with them, and
 * orders that are merged.
 */
#include <stdlib.h>

#include "../../helper/tracefile.h"
#include "kselftest_harness.h"
#include "random.h"

#define ONE_LAYER	24
#define HEAD		40

/* One layer of 4096 bytes, with two entries; the sum is put behind it. */
static const u8 small[] = {
	'L', 'Z', 'Y', 'T', 'R', 'A', 'C', 'E',  1, 0, 0, 0,
	1, 0, 0, 0,  2, 0, 0, 0,  3, 0, 0, 0,
	1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
	16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1,
	0, 0x10, 0, 0, 0, 0, 0, 0,
	0, 0x02, 0, 0, 0, 0, 0, 0,
	0xff, 0x0f, 0, 0, 0, 0, 0, 0,
};

#define SMALL	(sizeof(small) + 8)

static void seal(u8 *data, size_t bytes)
{
	__le64 sum = cpu_to_le64(xxh64(data, bytes - 8, 0));

	memcpy(data + bytes - 8, &sum, 8);
}

static int parse(const u8 *data, size_t bytes, struct trace *trace)
{
	struct error e = {};
	u8 *copy = malloc(bytes);
	int err;

	memcpy(copy, data, bytes);
	err = trace_parse(copy, bytes, trace, &e);
	free(copy);
	return err;
}

TEST(bytes_by_hand)
{
	u8 data[SMALL];
	struct trace trace;
	struct error e;
	size_t bytes;
	void *again;

	memcpy(data, small, sizeof(small));
	seal(data, SMALL);
	ASSERT_EQ(0, parse(data, SMALL, &trace));
	EXPECT_EQ(1, trace.layers);
	EXPECT_EQ(2, trace.entries);
	EXPECT_EQ(3, trace.merged);
	EXPECT_EQ(0, memcmp(trace.image, small + 24, 16));
	EXPECT_EQ(0, memcmp(trace.layer[0].uuid, small + HEAD, 16));
	EXPECT_EQ(4096, trace.layer[0].ubytes);
	EXPECT_EQ(512, trace.entry[0]);
	EXPECT_EQ(4095, trace.entry[1]);
	ASSERT_EQ(0, trace_bytes(&trace, &again, &bytes, &e));
	EXPECT_EQ(SMALL, bytes);
	EXPECT_EQ(0, memcmp(again, data, SMALL));
	free(again);
	trace_free(&trace);
}

/* Any byte that changes is seen, whether or not the sum is right. */
TEST(damage)
{
	static const struct {
		size_t at;
		u8 value;
	} bad[] = {
		{ 0, 'l' }, { 8, 2 }, { 12, 2 }, { 12, 0 }, { 16, 1 },
		{ 16, 3 }, { 15, 1 }, { 19, 1 }, { HEAD + 22, 2 },
		{ HEAD + ONE_LAYER + 1, 0x10 }, { HEAD + ONE_LAYER + 6, 1 },
		{ HEAD + ONE_LAYER + 5, 1 },
	};
	u8 data[SMALL];
	struct trace trace;
	size_t i;

	for (i = 0; i < SMALL; i++) {
		memcpy(data, small, sizeof(small));
		seal(data, SMALL);
		data[i] ^= 0x40;
		EXPECT_NE(0, parse(data, SMALL, &trace));
		EXPECT_NE(0, parse(data, i, &trace));
		EXPECT_EQ(NULL, trace.entry);
	}
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		memcpy(data, small, sizeof(small));
		data[bad[i].at] = bad[i].value;
		seal(data, SMALL);
		EXPECT_NE(0, parse(data, SMALL, &trace)) {
			TH_LOG("byte %zu", bad[i].at);
		}
	}
}

/* A trace of one layer, 4 KiB frames */
static struct trace make(u8 uuid, const u32 *frame, u32 frames)
{
	struct trace trace = { .layers = 1, .entries = frames, .merged = 1 };
	u32 i;

	trace.layer = calloc(2, sizeof(*trace.layer));
	trace.entry = calloc(frames + 1, sizeof(*trace.entry));
	trace.layer[0].uuid[0] = uuid;
	trace.layer[0].ubytes = 1 << 20;
	for (i = 0; i < frames; i++)
		trace.entry[i] = trace_entry(0, frame[i] * 4096);
	return trace;
}

static void expect_order(struct __test_metadata *_metadata,
			 const struct trace *in, u32 count, u32 share,
			 const u64 *want, u32 wanted)
{
	struct trace out;
	struct error e;
	u32 i;

	ASSERT_EQ(0, trace_merge(in, count, share, &out, &e));
	EXPECT_EQ(wanted, out.entries);
	for (i = 0; i < wanted && i < out.entries; i++)
		EXPECT_EQ(want[i], out.entry[i]);
	EXPECT_EQ(count, out.merged);
	trace_free(&out);
}

TEST(merge_by_median)
{
	static const u32 a[] = { 1, 2, 3, 4 }, b[] = { 2, 1, 3 },
			 c[] = { 2, 1, 9, 3 };
	static const u64 most[] = { 2 << 12, 1 << 12, 3 << 12 };
	static const u64 all[] = { 2 << 12, 1 << 12, 3 << 12, 9 << 12, 4 << 12 };
	struct trace in[] = { make(1, a, 4), make(1, b, 3), make(1, c, 4) };
	struct trace back[] = { in[2], in[0], in[1] };
	u32 i;

	expect_order(_metadata, in, 3, 50, most, 3);
	expect_order(_metadata, back, 3, 50, most, 3);
	expect_order(_metadata, in, 3, 34, most, 3);
	expect_order(_metadata, in, 3, 33, all, 5);
	for (i = 0; i < 3; i++)
		trace_free(&in[i]);
}

TEST(merge_layers)
{
	static const u32 a[] = { 5 }, b[] = { 7, 5 };
	struct trace in[] = { make(1, a, 1), make(2, b, 2) }, out;
	struct trace_layer there[2] = { { .ubytes = 1 << 20 },
					{ .ubytes = 1 << 20 } };
	struct error e;
	u64 *entry;

	ASSERT_EQ(0, trace_merge(in, 2, 50, &out, &e));
	EXPECT_EQ(2, out.layers);
	ASSERT_EQ(3, out.entries);
	EXPECT_EQ(trace_entry(0, 5 << 12), out.entry[0]);
	EXPECT_EQ(trace_entry(1, 7 << 12), out.entry[1]);
	EXPECT_EQ(trace_entry(1, 5 << 12), out.entry[2]);

	/* Only the second layer is there, as the second of two */
	there[1].uuid[0] = 2;
	ASSERT_EQ(2, trace_map(&out, there, 2, &entry, &e));
	EXPECT_EQ(trace_entry(1, 7 << 12), entry[0]);
	EXPECT_EQ(trace_entry(1, 5 << 12), entry[1]);
	free(entry);
	/* The same name, but another object */
	there[1].ubytes++;
	ASSERT_EQ(0, trace_map(&out, there, 2, &entry, &e));
	free(entry);
	trace_free(&out);

	/* Of one layer, there cannot be two sizes */
	in[1].layer[0] = in[0].layer[0];
	in[1].layer[0].ubytes--;
	EXPECT_EQ(-EINVAL, trace_merge(in, 2, 50, &out, &e));
	trace_free(&in[0]);
	trace_free(&in[1]);
}

TEST(merge_is_the_same_whatever_the_order_of_traces)
{
	struct trace in[5], turned[5], a, b;
	struct error e;
	u32 frame[40], i, j;

	for (i = 0; i < 5; i++) {
		for (j = 0; j < 40; j++)
			frame[j] = random() % 60;
		in[i] = make(1, frame, 40);
	}
	for (i = 0; i < 5; i++)
		turned[i] = in[(i + 2) % 5];
	ASSERT_EQ(0, trace_merge(in, 5, 40, &a, &e));
	ASSERT_EQ(0, trace_merge(turned, 5, 40, &b, &e));
	ASSERT_EQ(a.entries, b.entries);
	EXPECT_EQ(0, memcmp(a.entry, b.entry, a.entries * sizeof(u64)));
	for (i = 0; i < a.entries; i++)
		for (j = 0; j < i; j++)
			EXPECT_NE(a.entry[i], a.entry[j]);
	trace_free(&a);
	trace_free(&b);
	for (i = 0; i < 5; i++)
		trace_free(&in[i]);
}

TEST_HARNESS_MAIN

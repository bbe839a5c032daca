// SPDX-License-Identifier: GPL-2.0-only
/*
 * make-corpus DIR: writes what the fuzzers begin with, valid inputs and nearly
 * valid ones, to DIR/<target>/<number>.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/lazyframe.h>

#include "../../helper/seektable.h"
#include "../../kmod/overlay_disk.h"
#include "../../kmod/store_disk.h"
#include "../unit/wire.h"

#define K	4096ULL

static const char *base;
static const char *target;
static unsigned int number;

static void die(const char *what)
{
	fprintf(stderr, "make-corpus: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void begin(const char *name)
{
	char path[PATH_MAX];

	target = name;
	number = 0;
	snprintf(path, sizeof(path), "%s/%s", base, name);
	if (mkdir(path, 0777) && errno != EEXIST)
		die(path);
}

/* Saves the input, and with it one that lacks its last byte. */
static void save(struct wire *w)
{
	char path[PATH_MAX];
	size_t cut;
	FILE *f;

	for (cut = 0; cut < 2 && cut < w->len; cut++) {
		snprintf(path, sizeof(path), "%s/%s/%02u", base, target,
			 number++);
		f = fopen(path, "w");
		if (!f || fwrite(w->data, 1, w->len - cut, f) != w->len - cut ||
		    fclose(f))
			die(path);
	}
	wire_free(w);
}

static void region(struct wire *w, u64 start, u64 bytes)
{
	wire_u64(w, start);
	wire_u64(w, bytes);
	wire_u64(w, 0);
}

static void disk_super(struct wire *w, u32 layers, u32 extents, u32 runs,
		       u32 frames)
{
	int i;

	wire_put(w, LF_META_MAGIC, 8);
	wire_u32(w, LF_META_VERSION);
	wire_u32(w, LF_META_BLOCK);
	wire_u64(w, 0);
	wire_uuid(w, 1);
	wire_uuid(w, 2);
	wire_u64(w, 1);
	wire_u64(w, 40 * K + 100);
	wire_u64(w, 6);
	wire_u32(w, LF_REGIONS);
	wire_u32(w, 0);
	region(w, 1, layers * sizeof(struct lf_disk_layer));
	region(w, 2, extents * sizeof(struct lf_disk_extent));
	region(w, 3, runs * sizeof(struct lf_disk_run));
	region(w, 4, frames * sizeof(struct lf_disk_frame));
	region(w, 5, 100);
	for (i = LF_REGIONS; i < LF_MAX_REGIONS; i++)
		region(w, 0, 0);
	wire_u64(w, 6 * K);	/* size of the device */
	wire_u32(w, layers);
	wire_u32(w, extents);
	wire_u32(w, runs);
	wire_u32(w, frames);
	wire_u32(w, 1);
	wire_u64(w, 5 * K);	/* what to look for */
}

static void disk_layer(struct wire *w, u32 codec, u64 ubytes, u64 cbytes,
		       u32 runs, u32 frames)
{
	wire_uuid(w, 7);
	wire_u32(w, codec);
	wire_u32(w, LF_LAYER_SUMS);
	wire_u64(w, ubytes);
	wire_u64(w, cbytes);
	wire_u32(w, 0);
	wire_u32(w, runs);
	wire_u32(w, 0);
	wire_u32(w, frames);
	wire_u32(w, 0);
	wire_u32(w, 60);
	wire_u32(w, 60);
	wire_u32(w, 40);
	wire_u64(w, 0);
}

static void disk_extent(struct wire *w, u64 start, u64 length, u64 storage)
{
	wire_u64(w, start);
	wire_u64(w, length);
	wire_u64(w, storage);
	wire_u32(w, 0);
	wire_u32(w, 0);
}

static void disk_run(struct wire *w, u64 ustart, u64 cstart, u32 ubytes,
		     u32 first)
{
	wire_u64(w, ustart);
	wire_u64(w, cstart);
	wire_u32(w, ubytes);
	wire_u32(w, first);
}

static void make_disk(void)
{
	struct wire w = {0};
	u32 i;

	begin("disk");
	disk_super(&w, 0, 0, 0, 0);
	save(&w);

	disk_super(&w, 1, 2, 2, 35);
	disk_layer(&w, LAZYFRAME_CODEC_ZSTD, 34 * K + 100, 35 * 900, 2, 35);
	disk_extent(&w, 0, 20 * K, 0);
	disk_extent(&w, 30 * K, 10 * K + 100, 24 * K);
	disk_run(&w, 0, 0, K, 0);
	disk_run(&w, 32 * K, 32 * 900, K, 32);
	for (i = 0; i < 35; i++) {
		wire_u32(&w, 900);
		wire_u32(&w, i);
	}
	save(&w);

	disk_super(&w, 1, 1, 1, 3);
	disk_layer(&w, LAZYFRAME_CODEC_NONE, 40 * K, 40 * K, 1, 3);
	disk_extent(&w, 512, 512, 1024);
	disk_run(&w, 0, 0, 8192, 0);
	for (i = 0; i < 3; i++) {
		wire_u32(&w, 8192);
		wire_u32(&w, 0);
	}
	save(&w);
}

static void overlay_root(struct wire *w, u64 sequence, u64 blocks)
{
	int i;

	wire_put(w, LF_ROOT_MAGIC, 8);
	wire_u32(w, LF_ROOT_VERSION);
	wire_u32(w, sequence & 1 ? LF_ROOT_ACTIVATING : 0);
	wire_uuid(w, 5);
	wire_u64(w, sequence);
	wire_u64(w, 3);
	wire_u64(w, blocks);
	wire_u64(w, 1);
	wire_u64(w, 0);
	for (i = 0; i < 4; i++)
		wire_u64(w, !i);
}

static void make_overlay(void)
{
	static const u64 images[] = { 1, 100 * K, 70000 * K };
	struct wire w = {0};
	u32 i, j;

	begin("overlay");
	for (i = 0; i < 3; i++) {
		u64 blocks = (images[i] + K - 1) / K;

		wire_u64(&w, images[i]);
		wire_u32(&w, i);	/* the leaf, and its words */
		for (j = 0; j < 8; j++) {
			wire_u32(&w, j & 1 ? LF_LEAF_WORDS : 0);
			wire_u64(&w, j & 1 ? 2 : 1);
		}
		for (j = 0; j < 2; j++) {
			wire_put(&w, LF_COW_MAGIC, 8);
			wire_u32(&w, LF_COW_VERSION);
			wire_u32(&w, 0);
			wire_uuid(&w, 5);
			wire_u64(&w, 2 + j);
			wire_u64(&w, blocks);
		}
		overlay_root(&w, 3, blocks);
		w.len -= 4 * 8;		/* up to its sums */
		for (j = 0; j < 4; j++) {
			overlay_root(&w, j < 2 ? 2 : 3, blocks);
			wire_u32(&w, LF_ROOT_INDEXES);
		}
		save(&w);
	}
}

static void store_super(struct wire *w, u64 bytes, u32 segment, u32 segments,
			u32 layers)
{
	wire_put(w, LF_STORE_MAGIC, 8);
	wire_u32(w, LF_STORE_VERSION);
	wire_u32(w, segment);
	wire_uuid(w, 5);
	wire_u64(w, bytes);
	wire_u32(w, segments);
	wire_u32(w, layers);
}

/* Three sizes of device; frames one behind the other, one that is elsewhere */
static void make_store(void)
{
	static const struct {
		u64 bytes;
		u32 segment;
		u32 segments;
		u32 layers;
	} stores[] = {
		{ 40ULL << 20, 4U << 20, 9, 128 },
		{ 5ULL << 30, 32U << 20, 159, 5120 },
		{ 64ULL << 30, 32U << 20, 2045, 65408 },
	};
	struct wire w = {0};
	u32 i, j;

	begin("store");
	for (i = 0; i < 3; i++) {
		wire_u64(&w, stores[i].bytes);
		for (j = 0; j < 2; j++) {
			store_super(&w, stores[i].bytes, stores[i].segment,
				    stores[i].segments, stores[i].layers);
			wire_u8(&w, j && i == 1);	/* its sum is wrong */
		}
		wire_u8(&w, 0);		/* the summary's, too */
		wire_u32(&w, 3);	/* asked for: the segment */
		wire_u64(&w, 0);
		wire_uuid(&w, 5);
		wire_u64(&w, 9);
		wire_u32(&w, LF_SUMMARY_MAGIC);
		wire_u32(&w, 3);
		wire_u32(&w, 5);
		wire_u32(&w, LF_LOG_MAIN);
		wire_u64(&w, 0);
		wire_u64(&w, 0);
		for (j = 0; j < 5; j++) {
			wire_u32(&w, j);	/* the entry's place */
			wire_u64(&w, lf_store_key(j * 31, j * 5000));
			wire_u32(&w, j * 8 | 8 << 16);
			wire_u32(&w, 0x1234);
		}
		save(&w);
	}
}

static void make_lz4frame(void)
{
	static char content[70000];
	LZ4F_preferences_t prefs = {0};
	struct wire w = {0};
	unsigned int i;
	void *frame;
	size_t bytes, bound, len;

	begin("lz4frame");
	for (i = 0; i < sizeof(content); i++)
		content[i] = i % 3 ? i * i >> 7 : 'x';
	for (i = 0; i < 16; i++) {
		len = i & 8 ? sizeof(content) : 40;
		prefs.frameInfo.blockMode = LZ4F_blockIndependent;
		prefs.frameInfo.blockChecksumFlag = i & 1;
		prefs.frameInfo.contentChecksumFlag = !!(i & 2);
		prefs.frameInfo.contentSize = i & 4 ? len : 0;
		bound = LZ4F_compressFrameBound(len, &prefs);
		frame = malloc(bound);
		bytes = LZ4F_compressFrame(frame, bound, content, len, &prefs);
		if (LZ4F_isError(bytes))
			die(LZ4F_getErrorName(bytes));
		wire_u32(&w, len | 1U << 24);
		wire_put(&w, frame, bytes);
		free(frame);
		save(&w);
	}
}

static void make_seektable(void)
{
	struct lf_frame_pos pos[5] = {0};
	u8 table[100];
	struct wire w = {0};
	u32 i;

	begin("seektable");
	for (i = 0; i < 5; i++) {
		pos[i].ubytes = K << i;
		pos[i].cbytes = 100 + i;
		pos[i].sum = 0x01010101 * i;
	}
	for (i = 0; i < 6; i++) {
		wire_u64(&w, 0);
		seektable_write(pos, i, table);
		wire_put(&w, table, seektable_bytes(i));
		save(&w);
	}
	/* Without checksums, one skippable */
	wire_u64(&w, 0);
	wire_u32(&w, 0x184d2a5e);
	wire_u32(&w, 3 * 8 + 9);
	for (i = 0; i < 3; i++) {
		wire_u32(&w, 50);
		wire_u32(&w, i == 1 ? 0 : 1000);
	}
	wire_u32(&w, 3);
	wire_u8(&w, 0);
	wire_u32(&w, 0x8f92eab1);
	save(&w);
}

static void header_layers(struct wire *w)
{
	wire_u32(w, 2);
	wire_layer(w, 0x11, 20 * K, LAZYFRAME_CODEC_ZSTD, 3);
	wire_frame(w, 0, 0, 4 * K, 1000);
	wire_frame(w, 4 * K, 1000, 4 * K, 70000);
	wire_frame(w, 16 * K, 80000, 4 * K, 1);
	wire_layer(w, 0x22, 8 * K, LAZYFRAME_CODEC_NONE, 0);
}

static void make_header(void)
{
	struct wire w = {0}, c = {0};
	u64 version;

	begin("header");
	for (version = 1; version <= 3; version++) {
		wire_u8(&w, 0);
		wire_metadata(&w, version, K, 10 * K - 1);
		if (version > 1) {
			wire_record(&w, 0, 4 * K, 0x11, K);
			wire_record(&w, 4 * K, 6 * K, 0, 0);
		}
		save(&w);
	}
	/* Version 4, as it is and to be compressed */
	header_layers(&c);
	wire_u32(&c, 3);
	wire_record(&c, 0, 8 * K, 0x11, 0);
	wire_record(&c, 8 * K, 2 * K, 0x22, 6 * K);
	wire_record(&c, 10 * K, 5 * K, 0, 0);
	wire_u8(&w, 0);
	wire_metadata(&w, 4, K, 15 * K);
	wire_content(&w, &c, 0, c.len);
	save(&w);
	wire_u8(&w, 1);
	wire_metadata(&w, 4, K, 15 * K);
	wire_put(&w, c.data, c.len);
	save(&w);
	wire_free(&c);

	header_layers(&c);
	wire_u32(&c, 2);
	wire_uuid(&c, 0x22);
	wire_uuid(&c, 0x11);
	wire_u32(&c, 3);
	wire_put(&c, "\x02\x03\x01" "\x03\x01\x08" "\x0a\x07\x01" "\0\0\1", 12);
	wire_u8(&w, 1);
	wire_metadata(&w, 5, K, 15 * K);
	wire_put(&w, c.data, c.len);
	save(&w);
	wire_free(&c);

	/* The draft, as it is and to be compressed */
	wire_metadata(&c, 4, K, 12 * K);
	wire_record(&c, 0, 8 * K, 0x22, 0);
	wire_u64(&c, 2 << 24 | 2);
	wire_u64(&c, 0);
	wire_u64(&c, 100);
	wire_u32(&c, 4 * K);
	wire_u32(&c, 1000);
	wire_u32(&c, 4 * K);
	wire_u32(&c, 2000);
	wire_record(&c, 8 * K, 4 * K, 0x11, 9 * K);
	wire_u64(&c, 0);
	wire_u8(&w, 2);
	wire_put(&w, c.data, c.len);
	save(&w);
	wire_draft(&c);
	wire_u8(&w, 0);
	wire_put(&w, c.data, c.len);
	save(&w);
	wire_free(&c);
}

static void make_fill(void)
{
	struct wire w = {0};
	u32 status;

	begin("fill");
	for (status = 0; status < 10; status += 5) {
		wire_u64(&w, 3);
		wire_u32(&w, 9);
		wire_u32(&w, status);
		wire_u32(&w, 1000);
		wire_u32(&w, status ? 0 : 500);
		wire_u64(&w, 3);
		wire_u64(&w, status ? 0 : 500);
		wire_u32(&w, 9);
		wire_u32(&w, 1000);
		wire_u32(&w, 2000);
		save(&w);
	}
}

/* Three mappings, and two changes: zeros inside, data over a border */
static void make_mapping(void)
{
	static const u8 mappings[][6] = {
		{ 0, 8, 1, 0, 0, 0 }, { 0, 8, 2, 5, 0, 0 }, { 0, 8, 0, 0, 0, 0 },
		{ 2, 3, 0, 0, 0, 0 }, { 9, 6, 3, 0, 1, 0 },
	};
	struct wire w = {0};

	begin("mapping");
	wire_u8(&w, 3);
	wire_put(&w, mappings, sizeof(mappings));
	save(&w);
}

static void make_text(void)
{
	static const char *const texts[] = {
		"<Error><Code>A &amp; B&#x2c;</Code><Region>c</Region></Error>",
		"<?xml?><a><K>1</K><K b='c'>2</K><K/></a>",
		"{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"s\",\"Token\":\"t\",\"Expiration\":\"2026-11-23T10:00:00.5Z\"}",
		"<AccessKeyId>A</AccessKeyId><SecretAccessKey>s</SecretAccessKey><Expiration>2026-11-23T10:00:00Z</Expiration>",
		"# x\n[default]\nK = 1\n[profile a]\ns3 =\n K=2\n;\n",
		"bucket/an object%20(1)+%C3%A4",
	};
	size_t i;

	begin("text");
	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct wire w = {0};

		wire_put(&w, texts[i], strlen(texts[i]));
		save(&w);
	}
}

/* A name behind its folder's number; the entry is right by its flags alone. */
static void make_shared(void)
{
	static const char *const names[] = {
		"0123456789abcdef1032547698badcfe-1234-5.frame",
		"0123456789abcdef-1-2-1000.part",
	};
	struct wire w = {0};
	size_t i;

	begin("shared");
	for (i = 0; i < 2; i++) {
		w = (struct wire){0};
		/* the folder of the first: see unit/test_shared.c */
		wire_u32(&w, 0xa5);
		wire_put(&w, names[i], strlen(names[i]));
		save(&w);
	}
	w = (struct wire){0};
	wire_put(&w, "0123456789abcdef", 16);
	wire_u64(&w, 4096);
	wire_u32(&w, 99);
	wire_u32(&w, 3);
	wire_u32(&w, 0);
	save(&w);
}

static void put_trace(struct wire *w, uint32_t entries)
{
	uint32_t i;

	wire_put(w, "LZYTRACE", 8);
	wire_u32(w, 1);
	wire_u32(w, 2);
	wire_u32(w, entries);
	wire_u32(w, 1);
	wire_put(w, "0123456789abcdef", 16);
	for (i = 0; i < 2; i++) {
		wire_put(w, i ? "second layer UUID" : "the other's UUID", 16);
		wire_u64(w, 1 << 20);
	}
	for (i = 0; i < entries; i++)
		wire_u64(w, (uint64_t)(i % 2) << 48 | i << 12);
	wire_u64(w, 0);
}

/* The fuzzer makes the sums right where the first byte is not 0. */
static void make_tracefile(void)
{
	uint32_t entries;
	struct wire w;

	begin("tracefile");
	for (entries = 0; entries < 30; entries += 7) {
		w = (struct wire){0};
		wire_u8(&w, 1);
		wire_u8(&w, 96 + 8 * entries);
		wire_u8(&w, (96 + 8 * entries) >> 8);
		put_trace(&w, entries);
		put_trace(&w, entries + 1);
		save(&w);
	}
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: make-corpus DIR\n");
		return 2;
	}
	base = argv[1];
	if (mkdir(base, 0777) && errno != EEXIST)
		die(base);
	make_disk();
	make_overlay();
	make_store();
	make_lz4frame();
	make_seektable();
	make_header();
	make_fill();
	make_mapping();
	make_text();
	make_shared();
	make_tracefile();
	return 0;
}

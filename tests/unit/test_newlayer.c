// SPDX-License-Identifier: GPL-2.0-only
/*
 * The layer writer's contract, from memory into a directory: which changes it
 * takes, and what becomes of them. cli/06*.sh has the rest.
 */
#include <ftw.h>
#include <linux/lazyframe.h>
#include <stdlib.h>
#include <unistd.h>

#include "../../helper/newlayer.h"
#include "../../helper/reader.h"
#include "kselftest_harness.h"
#include "random.h"

#define K		4096ULL
#define BLOCKS		64
#define BYTES		(BLOCKS * K + 100)

static u8 content[BYTES + 2 * K];

static int read_content(void *arg, u64 off, void *buf, size_t len,
			struct error *e)
{
	u64 *calls = arg;

	(void)e;
	++*calls;
	memcpy(buf, content + off, len);
	return 0;
}

static int fail_read(void *arg, u64 off, void *buf, size_t len,
		     struct error *e)
{
	(void)arg;
	(void)off;
	(void)buf;
	(void)len;
	return error_set(e, -EIO, "the disk is gone");
}

static int refuse(void *arg, struct error *e)
{
	(void)arg;
	return error_set(e, -ESTALE, "it changed meanwhile");
}

static int remove_entry(const char *path, const struct stat *st, int type,
			struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int files;

static int count_files(const char *path, const struct stat *st, int type,
		       struct FTW *ftw)
{
	(void)path;
	(void)st;
	(void)ftw;
	files += type == FTW_F;
	return 0;
}

FIXTURE(store) {
	char dir[32];
	char url[48];
	u64 reads;
	struct newlayer n;
	struct newlayer_result result;
	struct newlayer_change change[8];
	struct image *parent;
	struct error e;
};

/* A first image: all of the content, but for zeros from block 10 to 19 */
FIXTURE_SETUP(store)
{
	struct newlayer_change *c = self->change;

	strcpy(self->dir, "/tmp/newlayer.XXXXXX");
	ASSERT_NE(NULL, mkdtemp(self->dir));
	snprintf(self->url, sizeof(self->url), "file://%s", self->dir);
	random_seed(1);
	random_fill(content, sizeof(content));
	newlayer_defaults(&self->n);
	self->n.what = "test";
	self->n.quiet = true;
	self->n.url = self->url;
	self->n.name = "disk";
	self->n.codec = codec_by_name("lz4");
	self->n.level = 1;
	self->n.threads = 2;
	self->n.frame_bytes = 4 * K;
	self->n.bytes = BYTES;
	self->n.read = read_content;
	self->n.arg = &self->reads;
	self->n.change = c;
	c[0] = (struct newlayer_change){ 0, 10 * K, NEWLAYER_DATA, 0, NULL };
	c[1] = (struct newlayer_change){ 10 * K, 10 * K, NEWLAYER_ZERO, 0, NULL };
	c[2] = (struct newlayer_change){ 20 * K, BYTES - 20 * K, NEWLAYER_DATA,
					 0, NULL };
	self->n.changes = 3;
	ASSERT_EQ(0, newlayer_write(&self->n, &self->result, &self->e)) {
		printf("# %s\n", self->e.text);
	}
	EXPECT_EQ(BYTES - 10 * K, self->result.ubytes);
	EXPECT_EQ(0, self->result.generation);
	memset(content + 10 * K, 0, 10 * K);

	self->n.parent_url = self->result.header_url;
	self->result.header_url = NULL;
	newlayer_result_free(&self->result);
	ASSERT_EQ(0, image_open(self->n.parent_url, &self->parent, &self->e));
	self->n.parent = self->parent;
	self->n.changes = 0;
	self->reads = 0;
}

FIXTURE_TEARDOWN(store)
{
	image_free(self->parent);
	free((char *)self->n.parent_url);
	newlayer_result_free(&self->result);
	nftw(self->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static int files_in(const char *dir)
{
	files = 0;
	nftw(dir, count_files, 8, FTW_PHYS);
	return files;
}

/* What was written reads as @content. */
static bool reads_back(struct newlayer_result *result, u64 bytes)
{
	struct image_reader *reader = NULL;
	struct image *image = NULL;
	struct error e = {""};
	u8 *buf = malloc(bytes);
	bool good;

	good = !image_open(result->header_url, &image, &e) &&
	       image->bytes == bytes && !image_reader_new(image, &reader, &e) &&
	       !image_read(reader, 0, buf, bytes, &e) &&
	       !memcmp(buf, content, bytes) &&
	       image_read(reader, bytes, buf, 1, &e) == -EINVAL;
	if (!good)
		printf("# %s\n", e.text);
	image_reader_free(reader);
	image_free(image);
	free(buf);
	return good;
}

struct bad {
	u64 start, length;
	enum newlayer_kind kind;
	u64 start2, length2;
	enum newlayer_kind kind2;
};

TEST_F(store, changes_that_are_not_whole_blocks_in_order_are_refused)
{
	static const struct bad bad[] = {
		{ 0, 0, NEWLAYER_DATA, 0, 0, 0 },
		{ 100, K, NEWLAYER_DATA, 0, 0, 0 },
		{ 0, 100, NEWLAYER_DATA, 0, 0, 0 },
		{ 0, 100, NEWLAYER_ZERO, 0, 0, 0 },
		{ 0, BYTES + 1, NEWLAYER_DATA, 0, 0, 0 },
		{ BYTES, K, NEWLAYER_DATA, 0, 0, 0 },
		{ BLOCKS * K, K, NEWLAYER_DATA, 0, 0, 0 },
		{ K, -K, NEWLAYER_DATA, 0, 0, 0 },
		{ -K, 2 * K, NEWLAYER_ZERO, 0, 0, 0 },
		/* overlap, disorder */
		{ 0, 2 * K, NEWLAYER_DATA, K, K, NEWLAYER_DATA },
		{ 2 * K, K, NEWLAYER_DATA, 0, K, NEWLAYER_ZERO },
		/* half a block, and no or a wrong other half */
		{ 0, 100, NEWLAYER_DATA, 100, K, NEWLAYER_ZERO },
		{ 0, 100, NEWLAYER_DATA, K, K, NEWLAYER_DATA },
		{ 0, K, NEWLAYER_ZERO, K + 100, K - 100, NEWLAYER_DATA },
		{ 0, K + 100, NEWLAYER_DATA, K + 100, 100, NEWLAYER_DATA },
	};
	u32 i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		int before = files_in(self->dir);

		self->change[0] = (struct newlayer_change){ bad[i].start,
			bad[i].length, bad[i].kind, 0, NULL };
		self->change[1] = (struct newlayer_change){ bad[i].start2,
			bad[i].length2, bad[i].kind2, 0, NULL };
		self->n.changes = 1 + !!bad[i].length2;
		EXPECT_EQ(-EINVAL, newlayer_write(&self->n, &self->result,
						  &self->e)) {
			printf("# case %u\n", i);
		}
		EXPECT_NE(NULL, strstr(self->e.text, "change"));
		EXPECT_EQ(before, files_in(self->dir));
		newlayer_result_free(&self->result);
	}
	EXPECT_EQ(0, self->reads);
}

TEST_F(store, sizes_that_cannot_be_are_refused)
{
	struct newlayer good = self->n;
	u32 i;

	for (i = 0; i < 6; i++) {
		self->n = good;
		self->n.frame_bytes = (u32[]){ 0, 100, K + 1, 32 << 20, K, K }[i];
		if (i == 4)
			self->n.threads = 0;
		if (i == 5)
			self->n.bytes = 0;
		EXPECT_EQ(-EINVAL, newlayer_write(&self->n, &self->result,
						  &self->e));
		EXPECT_NE(NULL, strstr(self->e.text, "not possible"));
		newlayer_result_free(&self->result);
	}
	self->n = good;
}

TEST_F(store, halves_of_a_block_are_stored_as_one)
{
	self->change[0] = (struct newlayer_change){ 5 * K, K + 100,
		NEWLAYER_DATA, 0, NULL };
	self->change[1] = (struct newlayer_change){ 6 * K + 100, 3 * K - 100,
		NEWLAYER_DATA, 0, NULL };
	self->n.changes = 2;
	random_fill(content + 5 * K, 4 * K);
	/* The second half of a block is zero, and not a block. */
	memset(content + 6 * K + 100, 0, K - 100);
	ASSERT_EQ(0, newlayer_write(&self->n, &self->result, &self->e));
	EXPECT_EQ(4 * K, self->result.ubytes);
	EXPECT_TRUE(reads_back(&self->result, BYTES));
}

TEST_F(store, nothing_changed_is_a_header_alone)
{
	int before = files_in(self->dir);

	self->n.read = NULL;
	ASSERT_EQ(0, newlayer_write(&self->n, &self->result, &self->e));
	EXPECT_EQ(before + 1, files_in(self->dir));
	EXPECT_EQ(NULL, self->result.data_url);
	EXPECT_EQ(1, self->result.generation);
	EXPECT_EQ(BYTES - 10 * K, self->result.kept_bytes);
	EXPECT_TRUE(reads_back(&self->result, BYTES));
}

TEST_F(store, a_growing_image_says_what_is_behind_the_parent)
{
	self->n.bytes = BYTES + K;
	/* nothing; what is behind the parent's last block; that block as well */
	EXPECT_EQ(-EINVAL, newlayer_write(&self->n, &self->result, &self->e));
	EXPECT_NE(NULL, strstr(self->e.text, "the image grows"));
	newlayer_result_free(&self->result);
	self->change[0] = (struct newlayer_change){ BLOCKS * K + K, 100,
		NEWLAYER_DATA, 0, NULL };
	self->n.changes = 1;
	EXPECT_EQ(-EINVAL, newlayer_write(&self->n, &self->result, &self->e));
	EXPECT_NE(NULL, strstr(self->e.text, "the image grows"));
	newlayer_result_free(&self->result);
	self->change[0].start -= K;
	self->change[0].length += K;
	ASSERT_EQ(0, newlayer_write(&self->n, &self->result, &self->e));
	EXPECT_EQ(K + 100, self->result.ubytes);
	EXPECT_TRUE(reads_back(&self->result, BYTES + K));
}

TEST_F(store, a_shrinking_image_is_cut)
{
	self->n.bytes = 15 * K + 7;
	ASSERT_EQ(0, newlayer_write(&self->n, &self->result, &self->e));
	EXPECT_TRUE(reads_back(&self->result, 15 * K + 7));
}

TEST_F(store, without_dedup_what_is_the_same_is_stored_again)
{
	self->change[0] = (struct newlayer_change){ 0, BYTES, NEWLAYER_DATA, 0,
		NULL };
	self->n.changes = 1;
	ASSERT_EQ(0, newlayer_write(&self->n, &self->result, &self->e));
	EXPECT_EQ(BYTES - 10 * K, self->result.ubytes);
	EXPECT_EQ(10 * K, self->result.zero_bytes);
	EXPECT_EQ(0, self->result.kept_bytes);
	EXPECT_EQ(1, self->result.layers);
	EXPECT_TRUE(reads_back(&self->result, BYTES));
	newlayer_result_free(&self->result);

	self->n.dedup = true;
	content[33 * K] ^= 1;
	ASSERT_EQ(0, newlayer_write(&self->n, &self->result, &self->e));
	EXPECT_EQ(K, self->result.ubytes);
	EXPECT_EQ(BYTES - 11 * K, self->result.same_bytes);
	EXPECT_EQ(2, self->result.layers);
	EXPECT_TRUE(reads_back(&self->result, BYTES));
}

TEST_F(store, a_frame_that_cannot_be_copied_is_refused)
{
	const struct image_layer *layer = self->parent->layer;
	struct newlayer_change good = { 4 * K, 4 * K, NEWLAYER_FRAME, 1, layer };
	struct newlayer_change *c = self->change;
	u32 i;

	self->n.changes = 1;
	for (i = 0; i < 4; i++) {
		*c = good;
		if (i == 0)
			c->layer = NULL;
		if (i == 1)
			c->frame = layer->frames;
		if (i == 2)
			c->length = 3 * K;
		self->n.codec = codec_by_name(i == 3 ? "zstd" : "lz4");
		EXPECT_EQ(-EINVAL, newlayer_write(&self->n, &self->result,
						  &self->e));
		EXPECT_NE(NULL, strstr(self->e.text, "no frame that can be"));
		newlayer_result_free(&self->result);
	}
	*c = good;
	self->n.codec = codec_by_name("lz4");
	ASSERT_EQ(0, newlayer_write(&self->n, &self->result, &self->e));
	EXPECT_EQ(1, self->result.copied);
	EXPECT_EQ(0, self->reads);
	EXPECT_TRUE(reads_back(&self->result, BYTES));
}

TEST_F(store, an_error_while_reading_or_at_the_end_leaves_nothing)
{
	int before = files_in(self->dir);

	self->change[0] = (struct newlayer_change){ 0, BYTES, NEWLAYER_DATA, 0,
		NULL };
	self->n.changes = 1;
	self->n.finish = refuse;
	EXPECT_EQ(-ESTALE, newlayer_write(&self->n, &self->result, &self->e));
	EXPECT_STREQ("it changed meanwhile", self->e.text);
	newlayer_result_free(&self->result);
	self->n.read = fail_read;
	EXPECT_EQ(-EIO, newlayer_write(&self->n, &self->result, &self->e));
	EXPECT_STREQ("the disk is gone", self->e.text);
	EXPECT_EQ(before, files_in(self->dir));
}

TEST_F(store, the_count_of_frames_is_no_less_than_there_are)
{
	struct newlayer_change *c = self->change;

	c[0] = (struct newlayer_change){ 0, 10 * K, NEWLAYER_DATA, 0, NULL };
	c[1] = (struct newlayer_change){ 10 * K, 10 * K, NEWLAYER_ZERO, 0, NULL };
	c[2] = (struct newlayer_change){ 20 * K, BYTES - 20 * K, NEWLAYER_DATA,
					 0, NULL };
	self->n.changes = 3;
	/* packed: 54 blocks and a bit */
	EXPECT_EQ(14, newlayer_frames(&self->n, 4 * K));
	EXPECT_EQ(55, newlayer_frames(&self->n, K));
	EXPECT_EQ(1, newlayer_frames(&self->n, LAZYFRAME_MAX_FRAME));
	/* 5 blocks, a frame, 3 blocks: two, one, one */
	c[0].length = 5 * K;
	c[1] = (struct newlayer_change){ 5 * K, 4 * K, NEWLAYER_FRAME, 0, NULL };
	c[2] = (struct newlayer_change){ 9 * K, 3 * K, NEWLAYER_DATA, 0, NULL };
	EXPECT_GE(newlayer_frames(&self->n, 4 * K), 4);
	EXPECT_LE(newlayer_frames(&self->n, 4 * K), 5);
}

TEST_HARNESS_MAIN

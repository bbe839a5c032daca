// SPDX-License-Identifier: GPL-2.0-only
/*
 * Meta devices: whatever image goes in, the pure code that the module uses
 * finds exactly its frames and extents in the bytes that come out.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/lazyframe.h>

#include "../../helper/io.h"
#include "../../helper/meta.h"
#include "kselftest_harness.h"

#define ROUNDS	300

static u64 seed = 0x9e3779b97f4a7c15ULL;

static u64 rnd(u64 limit)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % limit;
}

static void fill(void *p, size_t bytes)
{
	u8 *b = p;

	while (bytes--)
		*b++ = rnd(256);
}

static char *word(const char *prefix, size_t max)
{
	size_t len = strlen(prefix) + rnd(max);
	char *s = malloc(len + 1);
	size_t i;

	memcpy(s, prefix, strlen(prefix));
	for (i = strlen(prefix); i < len; i++)
		s[i] = 'a' + rnd(26);
	s[len] = 0;
	return s;
}

/* Equal frames with now and then a gap, another size, or chaos. */
static void random_layer(struct image_layer *layer)
{
	u32 usual = 4096U << rnd(6);
	u64 u = 0, c = rnd(3) * 100;
	u32 chaos = rnd(4) ? 40 : 2;
	u32 i;

	memset(layer, 0, sizeof(*layer));
	fill(layer->uuid, sizeof(layer->uuid));
	layer->codec = rnd(3);
	layer->sums = rnd(2);
	layer->frames = rnd(6) ? rnd(200) : 1;
	layer->frame = calloc(layer->frames + 1, sizeof(*layer->frame));
	for (i = 0; i < layer->frames; i++) {
		struct lf_frame_pos *pos = &layer->frame[i];

		if (!rnd(chaos))
			u += rnd(3) * 4096;
		if (!rnd(chaos))
			c += rnd(10);
		pos->ubytes = rnd(chaos) ? usual : 1 + rnd(3 * usual);
		pos->cbytes = layer->codec == LAZYFRAME_CODEC_NONE ?
			      pos->ubytes : 1 + rnd(pos->ubytes + 100);
		pos->ustart = u;
		pos->cstart = c;
		pos->sum = rnd(1ULL << 32);
		pos->has_sum = layer->sums;
		pos->index = i;
		u += pos->ubytes;
		c += pos->cbytes;
	}
	layer->ubytes = u + rnd(2) * rnd(5000);
	layer->cbytes = c + rnd(1000);
	layer->locator = word("http://h/", 80);
	layer->validator = word("", 30);
}

static void random_image(struct image *image)
{
	u64 end = 0;
	u32 i, n;

	memset(image, 0, sizeof(*image));
	fill(image->uuid, sizeof(image->uuid));
	fill(image->base_uuid, sizeof(image->base_uuid));
	image->generation = rnd(1000);
	image->layers = rnd(8);
	image->layer = calloc(image->layers + 1, sizeof(*image->layer));
	for (i = 0; i < image->layers; i++)
		random_layer(&image->layer[i]);

	n = image->layers ? rnd(100) : 0;
	image->extent = calloc(n + 1, sizeof(*image->extent));
	for (i = 0; i < n; i++) {
		struct image_extent *extent = &image->extent[image->extents];
		u32 l = rnd(image->layers);
		u64 blocks = image->layer[l].ubytes / 4096;

		if (!blocks)
			continue;
		extent->layer = l;
		extent->storage = rnd(blocks) * 4096;
		extent->length = (1 + rnd(blocks - extent->storage / 4096)) *
				 4096;
		extent->start = end + (rnd(2) ? 0 : rnd(10) * 4096);
		end = extent->start + extent->length;
		image->extents++;
	}
	image->bytes = end + 1 + rnd(100000);
}

static void drop_image(struct image *image)
{
	u32 i;

	for (i = 0; i < image->layers; i++) {
		free(image->layer[i].frame);
		free(image->layer[i].locator);
		free(image->layer[i].validator);
	}
	free(image->layer);
	free(image->extent);
}

static int scratch(void)
{
	return memfd_create("meta", MFD_CLOEXEC);
}

static void *load(int fd, u64 *bytes)
{
	void *data;

	if (io_bytes(fd, bytes))
		return NULL;
	data = malloc(*bytes + 1);
	if (data && io_pread(fd, data, *bytes, 0)) {
		free(data);
		return NULL;
	}
	return data;
}

#define region(data, super, r) \
	((const void *)((data) + (super).region[r].start * LF_META_BLOCK))

TEST(whatever_goes_in_comes_out)
{
	int round;

	for (round = 0; round < ROUNDS; round++) {
		const struct lf_disk_extent *extent;
		const struct lf_disk_layer *layer;
		const struct lf_disk_frame *frame;
		const struct lf_disk_run *run;
		const char *strings, *why = "";
		struct lf_super super;
		struct error e = {};
		struct image image;
		u64 bytes, off;
		u32 i, j, r;
		char *data;
		int fd;

		random_image(&image);
		fd = scratch();
		ASSERT_LE(0, fd);
		bytes = meta_bytes(&image);
		ASSERT_EQ(0, bytes % LF_META_BLOCK);
		ASSERT_EQ(0, ftruncate(fd, bytes + rnd(3) * 4096));
		ASSERT_EQ(0, meta_write(fd, bytes, &image, &e))
			TH_LOG("round %d: %s", round, e.text);
		data = load(fd, &bytes);
		ASSERT_NE(NULL, data);

		ASSERT_EQ(0, lf_super_check(data, 0, bytes, &super, &why))
			TH_LOG("%s", why);
		EXPECT_EQ(meta_bytes(&image), super.blocks * LF_META_BLOCK);
		EXPECT_EQ(0, memcmp(super.uuid, image.uuid, 16));
		EXPECT_EQ(0, memcmp(super.base_uuid, image.base_uuid, 16));
		EXPECT_EQ(image.generation, super.generation);
		EXPECT_EQ(image.bytes, super.image_bytes);
		ASSERT_EQ(image.layers, super.layers);
		ASSERT_EQ(image.extents, super.extents);
		for (r = 0; r < LF_REGION_OVERLAY; r++) {
			EXPECT_EQ(super.region[r].sum,
				  xxh64(region(data, super, r),
					super.region[r].bytes, 0));
			off = super.region[r].start * LF_META_BLOCK +
			      super.region[r].bytes;
			for (; off % LF_META_BLOCK; off++)
				ASSERT_EQ(0, data[off]);
		}

		layer = region(data, super, LF_REGION_LAYERS);
		extent = region(data, super, LF_REGION_EXTENTS);
		run = region(data, super, LF_REGION_RUNS);
		frame = region(data, super, LF_REGION_FRAMES);
		strings = region(data, super, LF_REGION_STRINGS);
		for (i = 0; i < image.layers; i++) {
			const struct image_layer *in = &image.layer[i];
			struct lf_table table = {
				.run = run + le32_to_cpu(layer[i].first_run),
				.frame = frame +
					 le32_to_cpu(layer[i].first_frame),
				.runs = le32_to_cpu(layer[i].runs),
				.frames = le32_to_cpu(layer[i].frames),
				.sums = le32_to_cpu(layer[i].flags) &
					LF_LAYER_SUMS,
			};
			struct lf_frame_pos pos;

			ASSERT_EQ(0, lf_layer_check(&layer[i], &super, &why));
			ASSERT_EQ(0, lf_table_check(&table, in->codec,
						    in->ubytes, in->cbytes,
						    &why));
			EXPECT_EQ(0, memcmp(layer[i].uuid, in->uuid, 16));
			EXPECT_EQ(in->codec, le32_to_cpu(layer[i].codec));
			EXPECT_EQ(in->ubytes, le64_to_cpu(layer[i].ubytes));
			EXPECT_EQ(in->cbytes, le64_to_cpu(layer[i].cbytes));
			EXPECT_EQ(in->sums, table.sums);
			ASSERT_EQ(in->frames, table.frames);
			ASSERT_EQ(strlen(in->locator),
				  le32_to_cpu(layer[i].locator_bytes));
			EXPECT_EQ(0, memcmp(in->locator, strings +
					    le32_to_cpu(layer[i].locator),
					    strlen(in->locator)));
			ASSERT_EQ(strlen(in->validator),
				  le32_to_cpu(layer[i].validator_bytes));
			EXPECT_EQ(0, memcmp(in->validator, strings +
					    le32_to_cpu(layer[i].validator),
					    strlen(in->validator)));

			for (j = 0, off = 0; j < in->frames; j++) {
				const struct lf_frame_pos *f = &in->frame[j];

				/* A gap holds no frame. */
				if (off < f->ustart) {
					ASSERT_EQ(-ENOENT,
						  lf_table_find(&table, off,
								&pos));
				}
				off = f->ustart + rnd(f->ubytes);
				ASSERT_EQ(0, lf_table_find(&table, off, &pos));
				ASSERT_EQ(j, pos.index);
				ASSERT_EQ(f->ustart, pos.ustart);
				ASSERT_EQ(f->cstart, pos.cstart);
				ASSERT_EQ(f->ubytes, pos.ubytes);
				ASSERT_EQ(f->cbytes, pos.cbytes);
				ASSERT_EQ(in->sums ? f->sum : 0, pos.sum);
				off = f->ustart + f->ubytes;
			}
			EXPECT_EQ(-ENOENT, lf_table_find(&table, off, &pos));
		}

		ASSERT_EQ(0, lf_extents_check(extent, image.extents, layer,
					      image.layers, image.bytes, &why));
		for (i = 0; i < image.extents; i++) {
			const struct image_extent *in = &image.extent[i];

			ASSERT_EQ(in->start, le64_to_cpu(extent[i].start));
			ASSERT_EQ(in->length, le64_to_cpu(extent[i].length));
			ASSERT_EQ(in->storage, le64_to_cpu(extent[i].storage));
			ASSERT_EQ(in->layer, le32_to_cpu(extent[i].layer));
		}
		free(data);
		close(fd);
		drop_image(&image);
	}
}

/* A usual table packs LF_RUN_FRAMES frames into a run. */
TEST(runs_are_as_long_as_can_be)
{
	struct lf_frame_pos frame[100] = {};
	char locator[] = "file:///x", validator[] = "";
	struct image_layer layer = {
		.uuid = { 1 },
		.codec = LAZYFRAME_CODEC_ZSTD,
		.frames = 100,
		.frame = frame,
		.locator = locator,
		.validator = validator,
		.ubytes = 99 * 131072 + 5,
		.cbytes = 100 * 1000,
	};
	struct image image = {
		.bytes = 4096,
		.layers = 1,
		.layer = &layer,
	};
	struct lf_super super;
	struct error e = {};
	const char *why;
	u32 i;
	int fd;

	for (i = 0; i < 100; i++) {
		frame[i].ustart = (u64)i * 131072;
		frame[i].cstart = (u64)i * 1000;
		frame[i].ubytes = i < 99 ? 131072 : 5;
		frame[i].cbytes = 1000;
	}
	fd = scratch();
	ASSERT_EQ(0, ftruncate(fd, meta_bytes(&image)));
	ASSERT_EQ(0, meta_write(fd, meta_bytes(&image), &image, &e))
		TH_LOG("%s", e.text);
	ASSERT_EQ(0, meta_read_super(fd, meta_bytes(&image), &super, &why));
	EXPECT_EQ(100, super.frames);
	/* 32 + 32 + 32 + 3, and the short one */
	EXPECT_EQ(5, super.runs);
	close(fd);
}

TEST(same_image_same_bytes)
{
	struct error e = {};
	struct image image;
	u64 bytes, n;
	void *a, *b;
	int fd[2];

	random_image(&image);
	bytes = meta_bytes(&image);
	for (n = 0; n < 2; n++) {
		fd[n] = scratch();
		ASSERT_EQ(0, ftruncate(fd[n], bytes));
		ASSERT_EQ(0, meta_write(fd[n], bytes, &image, &e));
	}
	a = load(fd[0], &bytes);
	b = load(fd[1], &bytes);
	EXPECT_EQ(0, memcmp(a, b, bytes));
	free(a);
	free(b);
	close(fd[0]);
	close(fd[1]);
	drop_image(&image);
}

FIXTURE(refused) {
	struct lf_frame_pos frame[2];
	struct image_layer layer;
	struct image_extent extent;
	struct image image;
	char locator[LAZYFRAME_LOCATOR_MAX + 1];
	char validator[LAZYFRAME_VALIDATOR_MAX + 1];
	int fd;
};

FIXTURE_SETUP(refused)
{
	u8 old[2 * LF_META_BLOCK];

	memset(self, 0, sizeof(*self));
	snprintf(self->locator, sizeof(self->locator), "file:///x");
	self->frame[0].ubytes = 4096;
	self->frame[0].cbytes = 4096;
	self->frame[1].ustart = 4096;
	self->frame[1].cstart = 4096;
	self->frame[1].ubytes = 4096;
	self->frame[1].cbytes = 4096;
	self->layer.uuid[0] = 1;
	self->layer.codec = LAZYFRAME_CODEC_LZ4;
	self->layer.frames = 2;
	self->layer.frame = self->frame;
	self->layer.ubytes = 8192;
	self->layer.cbytes = 8192;
	self->layer.locator = self->locator;
	self->layer.validator = self->validator;
	self->extent.length = 8192;
	self->image.bytes = 8192;
	self->image.layers = 1;
	self->image.extents = 1;
	self->image.layer = &self->layer;
	self->image.extent = &self->extent;
	self->fd = scratch();
	memset(old, 0xa5, sizeof(old));
	ASSERT_EQ(0, io_pwrite(self->fd, old, sizeof(old), 0));
	ASSERT_EQ(0, ftruncate(self->fd, 1 << 20));
}

FIXTURE_TEARDOWN(refused)
{
	u8 old[2 * LF_META_BLOCK];
	u32 i;

	/* Whatever it was: not one byte changed. */
	ASSERT_EQ(0, io_pread(self->fd, old, sizeof(old), 0));
	for (i = 0; i < sizeof(old); i++)
		ASSERT_EQ(0xa5, old[i]);
	close(self->fd);
}

static void refuse(struct __test_metadata *_metadata,
		   FIXTURE_DATA(refused) *self, const char *word)
{
	struct error e = {};

	EXPECT_EQ(-EINVAL, meta_write(self->fd, 1 << 20, &self->image, &e));
	EXPECT_NE(NULL, strstr(e.text, word))
		TH_LOG("\"%s\" lacks \"%s\"", e.text, word);
}

TEST_F(refused, empty_image)
{
	self->image.bytes = 0;
	refuse(_metadata, self, "0 bytes");
}

TEST_F(refused, huge_image)
{
	self->image.bytes = LF_MAX_IMAGE + 1;
	refuse(_metadata, self, "17592186044416");
}

TEST_F(refused, unknown_codec)
{
	self->layer.codec = 7;
	refuse(_metadata, self, "codec");
}

TEST_F(refused, overlapping_frames)
{
	self->frame[1].ustart = 4000;
	refuse(_metadata, self, "file:///x");
}

TEST_F(refused, frame_behind_object)
{
	self->layer.cbytes = 8191;
	refuse(_metadata, self, "file:///x");
}

TEST_F(refused, too_many_frames)
{
	self->layer.frames = LF_MAX_FRAMES + 1;
	self->layer.frame = calloc(LF_MAX_FRAMES + 1,
				   sizeof(*self->layer.frame));
	ASSERT_NE(NULL, self->layer.frame);
	refuse(_metadata, self, "frames");
	free(self->layer.frame);
}

TEST_F(refused, extent_of_no_layer)
{
	self->extent.layer = 1;
	refuse(_metadata, self, "layer");
}

TEST_F(refused, extent_behind_image)
{
	self->extent.length = 8192 + 512;
	refuse(_metadata, self, "behind the image");
}

TEST_F(refused, no_locator)
{
	self->locator[0] = 0;
	refuse(_metadata, self, "URL");
}

TEST_F(refused, long_locator)
{
	memset(self->locator, 'x', LAZYFRAME_LOCATOR_MAX);
	refuse(_metadata, self, "2048");
}

TEST_F(refused, long_validator)
{
	memset(self->validator, 'x', LAZYFRAME_VALIDATOR_MAX);
	refuse(_metadata, self, "256");
}

TEST_F(refused, small_device)
{
	struct error e = {};

	EXPECT_EQ(-ENOSPC, meta_write(self->fd, meta_bytes(&self->image) - 1,
				      &self->image, &e));
	EXPECT_NE(NULL, strstr(e.text, "28671"));
	EXPECT_NE(NULL, strstr(e.text, "28672"));
}

/*
 * A file size limit stops the child at a chosen write, as a crash would:
 * whatever was there, a valid superblock stands only over complete tables.
 */
TEST(cut_short_is_never_valid)
{
	struct error e = {};
	struct lf_super super;
	struct image image;
	const char *why;
	u64 bytes, limit;
	pid_t child;
	int fd, status;

	do {
		random_image(&image);
		bytes = meta_bytes(&image);
		if (image.layers < 3)
			drop_image(&image);
	} while (image.layers < 3);
	/* Both slots are written at once. */
	for (limit = 0; limit < bytes; limit += limit ? 4096 : 8192) {
		FILE *file = tmpfile();

		ASSERT_NE(NULL, file);
		fd = fileno(file);
		ASSERT_EQ(0, ftruncate(fd, bytes));
		/* A valid one is there already. */
		ASSERT_EQ(0, meta_write(fd, bytes, &image, &e));
		image.generation++;
		child = fork();
		ASSERT_LE(0, child);
		if (!child) {
			struct rlimit r = { limit, limit };

			setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
			setrlimit(RLIMIT_FSIZE, &r);
			meta_write(fd, bytes, &image, &e);
			_exit(0);
		}
		ASSERT_EQ(child, waitpid(child, &status, 0));
		ASSERT_TRUE(WIFSIGNALED(status));
		ASSERT_EQ(SIGXFSZ, WTERMSIG(status));
		/* Without even the wipe, the old one stands. */
		EXPECT_EQ(limit ? -ENODATA : 0,
			  meta_read_super(fd, bytes, &super, &why));
		fclose(file);
	}
	drop_image(&image);
}

TEST(what_is_there_is_told)
{
	u8 block[LF_META_BLOCK] = {};
	struct lf_super super;
	const char *why;
	int fd = scratch();

	ASSERT_EQ(0, ftruncate(fd, 100));
	EXPECT_EQ(-ENODATA, meta_read_super(fd, 100, &super, &why));
	ASSERT_EQ(0, io_pwrite(fd, "something", 9, 20));
	EXPECT_EQ(-EMEDIUMTYPE, meta_read_super(fd, 100, &super, &why));
	memcpy(block, LF_META_MAGIC, 8);
	ASSERT_EQ(0, io_pwrite(fd, block, sizeof(block), 0));
	EXPECT_EQ(-EINVAL, meta_read_super(fd, 4096, &super, &why));
	close(fd);
}

TEST_HARNESS_MAIN

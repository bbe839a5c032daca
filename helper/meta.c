// SPDX-License-Identifier: GPL-2.0-only
#include <stdlib.h>
#include <unistd.h>

#include <linux/lazyframe.h>

#include "io.h"
#include "meta.h"

/* The regions, encoded; the superblock is made from it. */
struct plan {
	void *data[LF_REGIONS];
	u64 bytes[LF_REGIONS];
	u64 start[LF_REGIONS];	/* block */
	u64 blocks;		/* of the whole device */
};

static u64 to_blocks(u64 bytes)
{
	return bytes / LF_META_BLOCK + !!(bytes % LF_META_BLOCK);
}

/* How many frames, from @i on, one run can hold. */
static u32 run_frames(const struct image_layer *layer, u32 i)
{
	const struct lf_frame_pos *first = &layer->frame[i];
	u64 uend = first->ustart;
	u64 cend = first->cstart;
	u32 n;

	for (n = 0; n < LF_RUN_FRAMES && n < layer->frames - i; n++) {
		const struct lf_frame_pos *pos = &first[n];

		if (pos->ubytes != first->ubytes || pos->ustart != uend ||
		    pos->cstart != cend)
			break;
		uend += pos->ubytes;
		cend += pos->cbytes;
	}
	return n;
}

static u64 layer_runs(const struct image_layer *layer)
{
	u64 runs = 0;
	u32 i;

	for (i = 0; i < layer->frames; i += run_frames(layer, i))
		runs++;
	return runs;
}

/* Sizes and places. Counts are 32 bits and entries small: no overflow. */
static void plan_layout(struct plan *plan, const struct image *image)
{
	u64 runs = 0, frames = 0, strings = 0;
	u64 block = LF_SUPER_SLOTS;
	u32 i;

	for (i = 0; i < image->layers; i++) {
		const struct image_layer *layer = &image->layer[i];

		runs += layer_runs(layer);
		frames += layer->frames;
		strings += strlen(layer->locator) + strlen(layer->validator);
	}
	plan->bytes[LF_REGION_LAYERS] =
		(u64)image->layers * sizeof(struct lf_disk_layer);
	plan->bytes[LF_REGION_EXTENTS] =
		(u64)image->extents * sizeof(struct lf_disk_extent);
	plan->bytes[LF_REGION_RUNS] = runs * sizeof(struct lf_disk_run);
	plan->bytes[LF_REGION_FRAMES] = frames * sizeof(struct lf_disk_frame);
	plan->bytes[LF_REGION_STRINGS] = strings;
	plan->bytes[LF_REGION_OVERLAY] = 0;

	for (i = 0; i < LF_REGIONS; i++) {
		plan->start[i] = block;
		block += to_blocks(plan->bytes[i]);
	}
	plan->blocks = block;
}

u64 meta_bytes(const struct image *image)
{
	struct plan plan;

	plan_layout(&plan, image);
	return plan.blocks * LF_META_BLOCK;
}

/* Limits that the counters of the disk format rely on. */
static int check_limits(const struct image *image, struct error *e)
{
	u64 frames = 0, strings = 0;
	u32 i;

	if (!image->bytes || image->bytes > LF_MAX_IMAGE)
		return error_set(e, -EINVAL,
				 "an image of %llu bytes cannot be attached: 1 to %llu can",
				 (unsigned long long)image->bytes,
				 (unsigned long long)LF_MAX_IMAGE);
	if (image->layers > LF_MAX_LAYERS)
		return error_set(e, -EINVAL, "%u layers are more than %u",
				 image->layers, LF_MAX_LAYERS);
	if (image->extents > LF_MAX_EXTENTS)
		return error_set(e, -EINVAL, "%u mappings are more than %u",
				 image->extents, LF_MAX_EXTENTS);

	for (i = 0; i < image->layers; i++) {
		const struct image_layer *layer = &image->layer[i];
		size_t locator = strlen(layer->locator);
		size_t validator = strlen(layer->validator);

		if (layer->frames > LF_MAX_FRAMES)
			return error_set(e, -EINVAL,
					 "%s: %u frames are more than %u",
					 layer->locator, layer->frames,
					 LF_MAX_FRAMES);
		if (!locator || locator >= LAZYFRAME_LOCATOR_MAX)
			return error_set(e, -EINVAL,
					 "the URL of layer %u has %zu characters: 1 to %u can be kept",
					 i, locator, LAZYFRAME_LOCATOR_MAX - 1);
		if (validator >= LAZYFRAME_VALIDATOR_MAX)
			return error_set(e, -EINVAL,
					 "%s: an entity tag of %zu characters is longer than %u",
					 layer->locator, validator,
					 LAZYFRAME_VALIDATOR_MAX - 1);
		frames += layer->frames;
		strings += locator + validator;
	}
	if (frames > LF_MAX_ALL_FRAMES)
		return error_set(e, -EINVAL,
				 "%llu frames in all layers are more than %u",
				 (unsigned long long)frames, LF_MAX_ALL_FRAMES);
	if (strings > LF_MAX_STRINGS)
		return error_set(e, -EINVAL,
				 "the layers' URLs need %llu bytes, more than %u",
				 (unsigned long long)strings, LF_MAX_STRINGS);
	return 0;
}

static void encode_layers(const struct plan *plan, const struct image *image)
{
	struct lf_disk_layer *out = plan->data[LF_REGION_LAYERS];
	struct lf_disk_run *run = plan->data[LF_REGION_RUNS];
	struct lf_disk_frame *frame = plan->data[LF_REGION_FRAMES];
	char *strings = plan->data[LF_REGION_STRINGS];
	u32 first_run = 0, first_frame = 0, string = 0;
	u32 i, j, n;

	for (i = 0; i < image->layers; i++, out++) {
		const struct image_layer *layer = &image->layer[i];
		u32 locator = strlen(layer->locator);
		u32 validator = strlen(layer->validator);
		u32 runs = 0;

		for (j = 0; j < layer->frames; j += n, runs++, run++) {
			const struct lf_frame_pos *pos = &layer->frame[j];

			n = run_frames(layer, j);
			run->ustart = cpu_to_le64(pos->ustart);
			run->cstart = cpu_to_le64(pos->cstart);
			run->ubytes = cpu_to_le32(pos->ubytes);
			run->first = cpu_to_le32(j);
		}
		for (j = 0; j < layer->frames; j++, frame++) {
			const struct lf_frame_pos *pos = &layer->frame[j];

			frame->cbytes = cpu_to_le32(pos->cbytes);
			frame->sum = cpu_to_le32(layer->sums ? pos->sum : 0);
		}

		memcpy(out->uuid, layer->uuid, sizeof(out->uuid));
		out->codec = cpu_to_le32(layer->codec);
		out->flags = cpu_to_le32(layer->sums ? LF_LAYER_SUMS : 0);
		out->ubytes = cpu_to_le64(layer->ubytes);
		out->cbytes = cpu_to_le64(layer->cbytes);
		out->first_run = cpu_to_le32(first_run);
		out->runs = cpu_to_le32(runs);
		out->first_frame = cpu_to_le32(first_frame);
		out->frames = cpu_to_le32(layer->frames);
		out->locator = cpu_to_le32(string);
		out->locator_bytes = cpu_to_le32(locator);
		memcpy(strings + string, layer->locator, locator);
		string += locator;
		out->validator = cpu_to_le32(string);
		out->validator_bytes = cpu_to_le32(validator);
		memcpy(strings + string, layer->validator, validator);
		string += validator;

		first_run += runs;
		first_frame += layer->frames;
	}
}

static void encode_extents(const struct plan *plan, const struct image *image)
{
	struct lf_disk_extent *out = plan->data[LF_REGION_EXTENTS];
	u32 i;

	for (i = 0; i < image->extents; i++, out++) {
		const struct image_extent *extent = &image->extent[i];

		out->start = cpu_to_le64(extent->start);
		out->length = cpu_to_le64(extent->length);
		out->storage = cpu_to_le64(extent->storage);
		out->layer = cpu_to_le32(extent->layer);
	}
}

static void encode_super(const struct plan *plan, const struct image *image,
			 struct lf_disk_super *super)
{
	u32 i;

	memset(super, 0, sizeof(*super));
	memcpy(super->magic, LF_META_MAGIC, sizeof(super->magic));
	super->version = cpu_to_le32(LF_META_VERSION);
	super->block_bytes = cpu_to_le32(LF_META_BLOCK);
	memcpy(super->uuid, image->uuid, sizeof(super->uuid));
	memcpy(super->base_uuid, image->base_uuid, sizeof(super->base_uuid));
	super->generation = cpu_to_le64(image->generation);
	super->image_bytes = cpu_to_le64(image->bytes);
	super->blocks = cpu_to_le64(plan->blocks);
	super->regions = cpu_to_le32(LF_REGIONS);
	for (i = 0; i < LF_REGIONS; i++) {
		struct lf_disk_region *region = &super->region[i];

		region->start = cpu_to_le64(plan->start[i]);
		region->bytes = cpu_to_le64(plan->bytes[i]);
		region->sum = cpu_to_le64(xxh64(plan->data[i], plan->bytes[i],
						0));
	}
	super->sum = cpu_to_le64(xxh64(super, offsetof(struct lf_disk_super,
						       sum), 0));
}

/* What the module will do with these bytes, done here first. */
static int check_plan(const struct plan *plan, const struct image *image,
		      const struct lf_disk_super *disk, struct error *e)
{
	const struct lf_disk_layer *layer = plan->data[LF_REGION_LAYERS];
	const struct lf_disk_run *run = plan->data[LF_REGION_RUNS];
	const struct lf_disk_frame *frame = plan->data[LF_REGION_FRAMES];
	struct lf_super super;
	const char *why;
	int err;
	u32 i;

	err = lf_super_check(disk, 0, plan->blocks * LF_META_BLOCK, &super,
			     &why);
	if (err)
		return error_set(e, err, "the image cannot be attached: %s",
				 why);

	for (i = 0; i < image->layers; i++) {
		struct lf_table table = {
			.run = run + le32_to_cpu(layer[i].first_run),
			.frame = frame + le32_to_cpu(layer[i].first_frame),
			.runs = le32_to_cpu(layer[i].runs),
			.frames = le32_to_cpu(layer[i].frames),
			.sums = image->layer[i].sums,
		};

		err = lf_layer_check(&layer[i], &super, &why);
		if (!err)
			err = lf_table_check(&table, image->layer[i].codec,
					     image->layer[i].ubytes,
					     image->layer[i].cbytes, &why);
		if (err)
			return error_set(e, err,
					 "layer %u (%s) cannot be attached: %s",
					 i, image->layer[i].locator, why);
	}

	err = lf_extents_check(plan->data[LF_REGION_EXTENTS], image->extents,
			       layer, image->layers, image->bytes, &why);
	if (err)
		return error_set(e, err,
				 "the image's mappings cannot be attached: %s",
				 why);
	return 0;
}

static int write_regions(int fd, const struct plan *plan, struct error *e)
{
	static const u8 zeros[LF_META_BLOCK];
	u64 off, tail;
	int err;
	u32 i;

	for (i = 0; i < LF_REGIONS; i++) {
		off = plan->start[i] * LF_META_BLOCK;
		err = io_pwrite(fd, plan->data[i], plan->bytes[i], off);
		if (err)
			goto failed;
		tail = plan->bytes[i] % LF_META_BLOCK;
		if (!tail)
			continue;
		off += plan->bytes[i];
		err = io_pwrite(fd, zeros, LF_META_BLOCK - tail, off);
		if (err)
			goto failed;
	}
	return 0;
failed:
	return error_set(e, err, "writing at byte %llu: %s",
			 (unsigned long long)off, strerror(-err));
}

/* The first slot; the second is wiped. */
static int write_super(int fd, const void *block, struct error *e)
{
	u8 slots[LF_SUPER_SLOTS * LF_META_BLOCK] = {};
	int err;

	memcpy(slots, block, LF_META_BLOCK);
	err = io_pwrite(fd, slots, sizeof(slots), 0);
	if (err)
		return error_set(e, err, "writing the superblock: %s",
				 strerror(-err));
	if (fsync(fd))
		return error_set(e, -errno, "writing to disk: %s",
				 strerror(errno));
	return 0;
}

int meta_write(int fd, u64 dev_bytes, const struct image *image,
	       struct error *e)
{
	static const u8 zeros[LF_META_BLOCK];
	struct lf_disk_super super;
	struct plan plan = {};
	int err;
	u32 i;

	err = check_limits(image, e);
	if (err)
		return err;
	plan_layout(&plan, image);
	if (dev_bytes / LF_META_BLOCK < plan.blocks)
		return error_set(e, -ENOSPC,
				 "it has %llu bytes, the image's tables need %llu",
				 (unsigned long long)dev_bytes,
				 (unsigned long long)plan.blocks *
				 LF_META_BLOCK);

	for (i = 0; i < LF_REGIONS; i++) {
		plan.data[i] = calloc(1, plan.bytes[i] ? plan.bytes[i] : 1);
		if (!plan.data[i]) {
			err = error_set(e, -ENOMEM,
					"no memory for %llu bytes of tables",
					(unsigned long long)plan.bytes[i]);
			goto out;
		}
	}
	encode_layers(&plan, image);
	encode_extents(&plan, image);
	encode_super(&plan, image, &super);
	err = check_plan(&plan, image, &super, e);
	if (err)
		goto out;

	err = write_super(fd, zeros, e);
	if (err)
		goto out;
	err = write_regions(fd, &plan, e);
	if (err)
		goto out;
	if (fsync(fd)) {
		err = error_set(e, -errno, "writing to disk: %s",
				strerror(errno));
		goto out;
	}
	err = write_super(fd, &super, e);
out:
	for (i = 0; i < LF_REGIONS; i++)
		free(plan.data[i]);
	return err;
}

int meta_read_super(int fd, u64 dev_bytes, struct lf_super *super,
		    const char **why)
{
	static const u8 zeros[LF_SUPER_SLOTS * LF_META_BLOCK];
	u8 block[LF_SUPER_SLOTS * LF_META_BLOCK] = {};
	size_t len = sizeof(block);
	int err;

	if (dev_bytes < len)
		len = dev_bytes;
	err = io_pread(fd, block, len, 0);
	if (err)
		return err;
	if (!memcmp(block, zeros, sizeof(block)))
		return -ENODATA;
	if (memcmp(block, LF_META_MAGIC, strlen(LF_META_MAGIC)) != 0 &&
	    memcmp(block + LF_META_BLOCK, LF_META_MAGIC,
		   strlen(LF_META_MAGIC)) != 0) {
		*why = "it holds something else";
		return -EMEDIUMTYPE;
	}
	return lf_super_pick(block, dev_bytes, super, why);
}

// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <linux/lazyframe.h>

#include "io.h"
#include "meta.h"
#include "overlay.h"

/*
 * The regions, encoded; the superblock is made from it.
 *
 * @data: OVERLAY has none
 * @strings: how much of STRINGS the layers need; notes follow
 * @overlay: UUID of the overlay that is to be made, of the shape @tree
 */
struct meta_plan {
	void *data[LF_REGIONS];
	u64 bytes[LF_REGIONS];
	u64 start[LF_REGIONS];	/* block */
	u64 blocks;		/* of the whole device */
	u64 strings;
	u64 sequence;
	u64 generation;
	u64 image_bytes;
	u8 uuid[16];
	u8 base_uuid[16];
	u8 origin[16];
	struct lf_tree tree;
	u8 overlay[16];
};

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

/* Counts are 32 bits and entries small: no overflow. */
static void image_sizes(struct meta_plan *plan, const struct image *image)
{
	u64 runs = 0, frames = 0, strings = 0;
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
	plan->strings = strings;
}

/* One region behind the other, from @block on. */
static void lay_out(struct meta_plan *plan, u64 block)
{
	u32 i;

	for (i = 0; i < LF_REGIONS; i++) {
		plan->start[i] = block;
		block += lf_meta_blocks(plan->bytes[i]);
	}
	plan->blocks = block;
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

static void encode_layers(const struct meta_plan *plan, const struct image *image)
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

static void encode_extents(const struct meta_plan *plan, const struct image *image)
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

/* Also does here first what the module will do with all of it. */
static int encode_super(const struct meta_plan *plan,
			struct lf_disk_super *super, struct error *e)
{
	struct lf_super checked;
	struct error reason;
	const char *why;
	int err;
	u32 i;

	memset(super, 0, sizeof(*super));
	memcpy(super->magic, LF_META_MAGIC, sizeof(super->magic));
	super->version = cpu_to_le32(LF_META_VERSION);
	super->block_bytes = cpu_to_le32(LF_META_BLOCK);
	memcpy(super->uuid, plan->uuid, sizeof(super->uuid));
	memcpy(super->base_uuid, plan->base_uuid, sizeof(super->base_uuid));
	memcpy(super->origin, plan->origin, sizeof(super->origin));
	super->sequence = cpu_to_le64(plan->sequence);
	super->generation = cpu_to_le64(plan->generation);
	super->image_bytes = cpu_to_le64(plan->image_bytes);
	super->blocks = cpu_to_le64(plan->blocks);
	super->regions = cpu_to_le32(LF_REGIONS);
	for (i = 0; i < LF_REGIONS; i++) {
		struct lf_disk_region *region = &super->region[i];

		region->start = cpu_to_le64(plan->start[i]);
		region->bytes = cpu_to_le64(plan->bytes[i]);
		if (i != LF_REGION_OVERLAY)
			region->sum = cpu_to_le64(xxh64(plan->data[i],
							plan->bytes[i], 0));
	}
	meta_super_finish(super);
	err = lf_super_check(super, plan->sequence % LF_SUPER_SLOTS,
			     plan->blocks * LF_META_BLOCK, &checked, &why);
	if (err)
		return error_set(e, err, "the image cannot be attached: %s",
				 why);
	err = meta_check_regions(plan->data, &checked, &reason);
	return err ? error_set(e, err, "the image cannot be attached: %s",
			       reason.text) : 0;
}

void meta_super_finish(struct lf_disk_super *super)
{
	super->sum = cpu_to_le64(xxh64(super, offsetof(struct lf_disk_super,
						       sum), 0));
}

int meta_check_regions(void *const *region, const struct lf_super *super,
		       struct error *e)
{
	const struct lf_disk_layer *layer = region[LF_REGION_LAYERS];
	const struct lf_disk_run *run = region[LF_REGION_RUNS];
	const struct lf_disk_frame *frame = region[LF_REGION_FRAMES];
	const char *strings = region[LF_REGION_STRINGS];
	u32 runs = 0, frames = 0, i;
	const char *why;
	int err;

	for (i = 0; i < super->layers; i++, layer++) {
		const char *locator = "", *validator = "";
		struct lf_table table;
		int shown = 0;

		err = lf_layer_check(layer, super, &why);
		if (!err) {
			locator = strings + le32_to_cpu(layer->locator);
			validator = strings + le32_to_cpu(layer->validator);
			shown = le32_to_cpu(layer->locator_bytes);
			table = (struct lf_table) {
				.run = run + le32_to_cpu(layer->first_run),
				.frame = frame +
					 le32_to_cpu(layer->first_frame),
				.runs = le32_to_cpu(layer->runs),
				.frames = le32_to_cpu(layer->frames),
			};
			err = lf_table_check(&table, le32_to_cpu(layer->codec),
					     le64_to_cpu(layer->ubytes),
					     le64_to_cpu(layer->cbytes), &why);
		}
		if (!err && (le32_to_cpu(layer->first_run) != runs ||
			     le32_to_cpu(layer->first_frame) != frames)) {
			err = -EINVAL;
			why = "it shares a frame table with another layer";
		}
		if (!err && (memchr(locator, 0, shown) ||
			     memchr(validator, 0,
				    le32_to_cpu(layer->validator_bytes)))) {
			err = -EINVAL;
			why = "its locator or validator holds a NUL";
		}
		if (err)
			return error_set(e, err, "layer %u (%.*s): %s", i,
					 shown, locator, why);
		runs += le32_to_cpu(layer->runs);
		frames += le32_to_cpu(layer->frames);
	}
	err = lf_extents_check(region[LF_REGION_EXTENTS], super->extents,
			       region[LF_REGION_LAYERS], super->layers,
			       super->image_bytes, &why);
	return err ? error_set(e, err, "extents: %s", why) : 0;
}

static struct meta_plan *plan_new(struct error *e)
{
	struct meta_plan *plan = calloc(1, sizeof(*plan));

	if (!plan)
		no_memory(e);
	return plan;
}

static int plan_room(struct meta_plan *plan, struct error *e)
{
	u32 i;

	for (i = 0; i < LF_REGION_OVERLAY; i++) {
		plan->data[i] = calloc(1, plan->bytes[i] ? plan->bytes[i] : 1);
		if (!plan->data[i])
			return error_set(e, -ENOMEM,
					 "no memory for %llu bytes of tables",
					 (unsigned long long)plan->bytes[i]);
	}
	return 0;
}

void meta_plan_free(struct meta_plan *plan)
{
	u32 i;

	for (i = 0; plan && i < LF_REGIONS; i++)
		free(plan->data[i]);
	free(plan);
}

int meta_plan_image(struct meta_plan **out, const struct image *image,
		    struct error *e)
{
	struct meta_plan *plan;
	int err;

	err = check_limits(image, e);
	if (err)
		return err;
	plan = plan_new(e);
	if (!plan)
		return -ENOMEM;
	image_sizes(plan, image);
	memcpy(plan->uuid, image->uuid, sizeof(plan->uuid));
	memcpy(plan->base_uuid, image->base_uuid, sizeof(plan->base_uuid));
	plan->generation = image->generation;
	plan->image_bytes = image->bytes;
	err = plan_room(plan, e);
	if (err)
		goto failed;
	encode_layers(plan, image);
	encode_extents(plan, image);
	if (image->url)
		err = meta_plan_note(plan, META_NOTE_URL, image->url, e);
	if (!err && image->sha256[0])
		err = meta_plan_note(plan, META_NOTE_SHA256, image->sha256, e);
	if (err)
		goto failed;
	lay_out(plan, LF_SUPER_SLOTS);
	*out = plan;
	return 0;
failed:
	meta_plan_free(plan);
	return err;
}

/* Where the part of STRINGS ends that layers refer to. */
static u64 strings_end(const struct lf_disk_layer *layer, u32 layers)
{
	u64 end = 0;
	u32 i;

	for (i = 0; i < layers; i++, layer++) {
		u64 locator = (u64)le32_to_cpu(layer->locator) +
			      le32_to_cpu(layer->locator_bytes);
		u64 validator = (u64)le32_to_cpu(layer->validator) +
				le32_to_cpu(layer->validator_bytes);

		if (locator > end)
			end = locator;
		if (validator > end)
			end = validator;
	}
	return end;
}

int meta_read_region(int fd, const struct lf_super *super, u32 region,
		     void **data, struct error *e)
{
	static const char *const name[LF_REGIONS] = {
		"LAYERS", "EXTENTS", "RUNS", "FRAMES", "STRINGS", "OVERLAY",
	};
	u64 bytes = super->region[region].bytes;
	int err;

	*data = malloc(bytes ? bytes : 1);
	if (!*data)
		return error_set(e, -ENOMEM,
				 "no memory for %llu bytes of tables",
				 (unsigned long long)bytes);
	err = io_pread(fd, *data, bytes,
		       super->region[region].start * LF_META_BLOCK);
	if (err)
		error_set(e, err, "region %s: %s", name[region],
			  strerror(-err));
	else if (xxh64(*data, bytes, 0) != super->region[region].sum)
		err = error_set(e, -EBADMSG, "region %s: its checksum is wrong",
				name[region]);
	if (err) {
		free(*data);
		*data = NULL;
	}
	return err;
}

int meta_plan_read(struct meta_plan **out, int fd,
		   const struct lf_super *super, struct error *e)
{
	struct meta_plan *plan = plan_new(e);
	int err = 0;
	u32 i;

	if (!plan)
		return -ENOMEM;
	memcpy(plan->uuid, super->uuid, sizeof(plan->uuid));
	memcpy(plan->base_uuid, super->base_uuid, sizeof(plan->base_uuid));
	plan->generation = super->generation;
	plan->image_bytes = super->image_bytes;
	for (i = 0; !err && i < LF_REGION_OVERLAY; i++) {
		plan->bytes[i] = super->region[i].bytes;
		err = meta_read_region(fd, super, i, &plan->data[i], e);
	}
	if (!err)
		err = meta_check_regions(plan->data, super, e);
	if (err) {
		meta_plan_free(plan);
		return err;
	}
	plan->strings = strings_end(plan->data[LF_REGION_LAYERS],
				    super->layers);
	lay_out(plan, LF_SUPER_SLOTS);
	*out = plan;
	return 0;
}

/* The line of a note, or NULL; @len: of its value */
static const char *find_note(const char *notes, u64 bytes, const char *key,
			     size_t *len)
{
	const char *end = notes + bytes;
	size_t n = strlen(key);

	while (notes < end) {
		const char *stop = memchr(notes, '\n', end - notes);

		if (!stop)
			return NULL;
		if ((size_t)(stop - notes) > n && !memcmp(notes, key, n) &&
		    notes[n] == '=') {
			*len = stop - notes - n - 1;
			return notes + n + 1;
		}
		notes = stop + 1;
	}
	return NULL;
}

int meta_plan_note(struct meta_plan *plan, const char *key, const char *value,
		   struct error *e)
{
	u64 *bytes = &plan->bytes[LF_REGION_STRINGS];
	char *notes = plan->data[LF_REGION_STRINGS], *old, *more;
	size_t len = strlen(key) + strlen(value) + 2, n;

	if (strchr(value, '\n'))
		return error_set(e, -EINVAL,
				 "\"%s\": a line break in it cannot be kept",
				 value);
	old = (char *)find_note(notes + plan->strings, *bytes - plan->strings,
				key, &n);
	if (old) {
		char *line = old - strlen(key) - 1, *next = old + n + 1;

		memmove(line, next, notes + *bytes - next);
		*bytes -= next - line;
	}
	if (*bytes + len > LF_MAX_STRINGS)
		return error_set(e, -EINVAL, "the layers' URLs need %llu bytes, more than %u",
				 (unsigned long long)*bytes + len,
				 LF_MAX_STRINGS);
	more = realloc(notes, *bytes + len + 1);
	if (!more)
		return no_memory(e);
	plan->data[LF_REGION_STRINGS] = more;
	*bytes += snprintf(more + *bytes, len + 1, "%s=%s\n", key, value);
	lay_out(plan, LF_SUPER_SLOTS);
	return 0;
}

int meta_note(int fd, const struct lf_super *super, const char *key,
	      char **value, struct error *e)
{
	void *layers = NULL, *strings = NULL;
	const char *found;
	size_t len;
	u64 used;
	int err;

	*value = NULL;
	err = meta_read_region(fd, super, LF_REGION_LAYERS, &layers, e);
	if (!err)
		err = meta_read_region(fd, super, LF_REGION_STRINGS, &strings,
				       e);
	if (err)
		goto out;
	used = strings_end(layers, super->layers);
	if (used > super->region[LF_REGION_STRINGS].bytes)
		goto out;
	found = find_note((char *)strings + used,
			  super->region[LF_REGION_STRINGS].bytes - used, key,
			  &len);
	if (found) {
		*value = strndup(found, len);
		if (!*value)
			err = no_memory(e);
	}
out:
	free(layers);
	free(strings);
	return err;
}

int meta_plan_overlay(struct meta_plan *plan, const struct meta_overlay *o,
		      struct error *e)
{
	const char *why;
	int err;

	err = lf_tree_shape(plan->image_bytes, &plan->tree, &why);
	if (err)
		return error_set(e, err, "%s", why);
	memcpy(plan->overlay, o->uuid, sizeof(plan->overlay));
	memcpy(plan->origin, o->origin, sizeof(plan->origin));
	if (o->origin_meta)
		err = meta_plan_note(plan, META_NOTE_ORIGIN_META,
				     o->origin_meta, e);
	if (!err && o->origin_cow)
		err = meta_plan_note(plan, META_NOTE_ORIGIN_COW,
				     o->origin_cow, e);
	plan->bytes[LF_REGION_OVERLAY] = lf_tree_bytes(&plan->tree);
	lay_out(plan, LF_SUPER_SLOTS);
	return err;
}

u64 meta_plan_bytes(const struct meta_plan *plan)
{
	return plan->blocks * LF_META_BLOCK;
}

const u8 *meta_plan_uuid(const struct meta_plan *plan)
{
	return plan->uuid;
}

const struct lf_tree *meta_plan_tree(const struct meta_plan *plan)
{
	return plan->bytes[LF_REGION_OVERLAY] ? &plan->tree : NULL;
}

u64 meta_bytes(const struct image *image)
{
	struct meta_plan plan = {};
	u64 *strings = &plan.bytes[LF_REGION_STRINGS];

	image_sizes(&plan, image);
	if (image->url)
		*strings += strlen(META_NOTE_URL "=\n") + strlen(image->url);
	if (image->sha256[0])
		*strings += strlen(META_NOTE_SHA256 "=\n") +
			    strlen(image->sha256);
	lay_out(&plan, LF_SUPER_SLOTS);
	return plan.blocks * LF_META_BLOCK;
}

static int write_failed(int err, u64 off, struct error *e)
{
	return error_set(e, err, "writing at byte %llu: %s",
			 (unsigned long long)off, strerror(-err));
}

static int sync_to_disk(int fd, struct error *e)
{
	if (fsync(fd))
		return error_set(e, -errno, "writing to disk: %s",
				 strerror(errno));
	return 0;
}

static int write_regions(int fd, const struct meta_plan *plan,
			 struct error *e)
{
	u64 off, whole, tail;
	int err;
	u32 i;

	/* In whole blocks: nothing has to be read for that. */
	for (i = 0; i < LF_REGION_OVERLAY; i++) {
		u8 last[LF_META_BLOCK] = {};

		off = plan->start[i] * LF_META_BLOCK;
		tail = plan->bytes[i] % LF_META_BLOCK;
		whole = plan->bytes[i] - tail;
		err = io_pwrite(fd, plan->data[i], whole, off);
		if (err)
			return write_failed(err, off, e);
		if (!tail)
			continue;
		memcpy(last, (char *)plan->data[i] + whole, tail);
		err = io_pwrite(fd, last, sizeof(last), off + whole);
		if (err)
			return write_failed(err, off + whole, e);
	}
	return 0;
}

/* An overlay in which nothing was written yet. */
static int write_overlay(int fd, const struct meta_plan *plan, struct error *e)
{
	u64 off = plan->start[LF_REGION_OVERLAY] * LF_META_BLOCK;
	u8 roots[LF_ROOT_BLOCKS * LF_META_BLOCK];
	int err;

	err = io_zero(fd, off, plan->bytes[LF_REGION_OVERLAY]);
	if (err)
		return write_failed(err, off, e);
	overlay_roots_new(roots, &plan->tree, plan->overlay);
	err = io_pwrite(fd, roots, sizeof(roots), off);
	return err ? write_failed(err, off, e) : 0;
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
	return sync_to_disk(fd, e);
}

static int check_room(const struct meta_plan *plan, u64 dev_bytes,
		      struct error *e)
{
	if (dev_bytes / LF_META_BLOCK < plan->blocks)
		return error_set(e, -ENOSPC,
				 "it has %llu bytes, the image's tables need %llu",
				 (unsigned long long)dev_bytes,
				 (unsigned long long)plan->blocks *
				 LF_META_BLOCK);
	return 0;
}

int meta_plan_write(const struct meta_plan *plan, int fd, u64 dev_bytes,
		    int cow, struct error *e)
{
	bool overlay = plan->bytes[LF_REGION_OVERLAY];
	static const u8 zeros[LF_META_BLOCK];
	struct lf_disk_super super;
	int err;

	err = check_room(plan, dev_bytes, e);
	if (!err)
		err = encode_super(plan, &super, e);
	if (err)
		return err;

	err = write_super(fd, zeros, e);
	if (!err)
		err = write_regions(fd, plan, e);
	if (!err && overlay)
		err = write_overlay(fd, plan, e);
	if (!err)
		err = sync_to_disk(fd, e);
	if (!err && overlay) {
		err = overlay_cow_write(cow, &plan->tree, plan->overlay);
		if (err)
			error_set(e, err, "writing the COW device: %s",
				  strerror(-err));
	}
	if (!err)
		err = write_super(fd, &super, e);
	return err;
}

/*
 * The first place where all regions but OVERLAY fit and nothing is that the
 * superblock in use names.
 */
static u64 find_gap(const struct lf_super *live, u64 blocks)
{
	u64 at = LF_SUPER_SLOTS;
	u32 i;

	for (i = 0; i < LF_REGIONS; i++) {
		u64 start = live->region[i].start;
		u64 end = start + lf_meta_blocks(live->region[i].bytes);

		if (start < at + blocks && at < end) {
			at = end;
			i = -1;		/* all of them again */
		}
	}
	return at;
}

void meta_plan_beside(struct meta_plan *plan, const struct lf_super *live)
{
	u64 end, overlay = live->region[LF_REGION_OVERLAY].start +
			   lf_meta_blocks(live->region[LF_REGION_OVERLAY].bytes);

	plan->bytes[LF_REGION_OVERLAY] = 0;
	lay_out(plan, 0);
	lay_out(plan, find_gap(live, plan->blocks));
	end = plan->blocks;
	plan->start[LF_REGION_OVERLAY] = live->region[LF_REGION_OVERLAY].start;
	plan->bytes[LF_REGION_OVERLAY] = live->region[LF_REGION_OVERLAY].bytes;
	plan->blocks = end > overlay ? end : overlay;
	plan->sequence = live->sequence + 1;
}

int meta_plan_replace(const struct meta_plan *plan, int fd, u64 dev_bytes,
		      struct error *e)
{
	u64 off = plan->sequence % LF_SUPER_SLOTS * LF_META_BLOCK;
	struct lf_disk_super super;
	int err;

	err = check_room(plan, dev_bytes, e);
	if (!err)
		err = encode_super(plan, &super, e);
	if (!err)
		err = write_regions(fd, plan, e);
	if (!err)
		err = sync_to_disk(fd, e);
	if (err)
		return err;
	err = io_pwrite(fd, &super, sizeof(super), off);
	if (err)
		return error_set(e, err, "writing the superblock: %s",
				 strerror(-err));
	return sync_to_disk(fd, e);
}

int meta_write(int fd, u64 dev_bytes, const struct image *image,
	       struct error *e)
{
	struct meta_plan *plan;
	int err;

	err = meta_plan_image(&plan, image, e);
	if (err)
		return err;
	err = meta_plan_write(plan, fd, dev_bytes, -1, e);
	meta_plan_free(plan);
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

int meta_open(const char *path, int flags, struct lf_super *super,
	      struct error *e)
{
	const char *why = NULL;
	int fd, err;
	u64 bytes;

	fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		return error_set(e, -errno, "%s: %s", path, strerror(errno));
	io_forget(fd);
	err = io_bytes(fd, &bytes);
	if (!err)
		err = meta_read_super(fd, bytes, super, &why);
	if (!err)
		return fd;
	close(fd);
	if (err == -ENODATA)
		why = "it is blank";
	return error_set(e, err, "%s: %s", path, why ? why : strerror(-err));
}

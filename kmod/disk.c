// SPDX-License-Identifier: GPL-2.0-only
/*
 * Checks of the meta device, and the searches that rely on them.
 *
 * Whoever can write the meta device must not be able to make the kernel do
 * more than fail: everything in it is taken for hostile, checksums or not.
 * Four checks, each over what the one before it made safe:
 *
 *	lf_super_check()	a superblock; where the regions are, how many entries
 *				each has. After it, an index below super->layers
 *				(extents, ...) is inside the device.
 *	lf_layer_check()	one layer; its slices of RUNS, FRAMES, STRINGS.
 *				After it, they lie inside those regions.
 *	lf_table_check()	one layer's frames; after it, ends of frames need
 *				no overflow checks, and sizes fit the buffers.
 *	lf_extents_check()	the extents; after it, both ends of an extent
 *				need no overflow checks.
 *
 * The searches still do not trust what a second read of the device gave: on
 * entries that were never checked they may find nothing or a wrong frame, but
 * they neither divide by zero nor look behind the arrays. A wrong frame does
 * not pass its checksum.
 */
#include <linux/lazyframe.h>

#include "overlay_disk.h"

#define LF_EXTENT_ALIGN	512

static_assert(sizeof(struct lf_disk_super) == LF_META_BLOCK, "superblock");
static_assert(sizeof(struct lf_disk_layer) == 80, "layer");
static_assert(sizeof(struct lf_disk_extent) == 32, "extent");
static_assert(sizeof(struct lf_disk_run) == 24, "run");
static_assert(sizeof(struct lf_disk_frame) == 8, "frame");

/* What an entry of each region takes, and how many there may be. */
static const struct {
	u32 entry;
	u32 max;
	const char *size;
	const char *count;
} region_rule[LF_REGIONS] = {
	[LF_REGION_LAYERS] = {
		sizeof(struct lf_disk_layer), LF_MAX_LAYERS,
		"the layer region holds part of an entry", "too many layers",
	},
	[LF_REGION_EXTENTS] = {
		sizeof(struct lf_disk_extent), LF_MAX_EXTENTS,
		"the extent region holds part of an entry", "too many extents",
	},
	[LF_REGION_RUNS] = {
		sizeof(struct lf_disk_run), LF_MAX_ALL_FRAMES,
		"the run region holds part of an entry", "too many runs",
	},
	[LF_REGION_FRAMES] = {
		sizeof(struct lf_disk_frame), LF_MAX_ALL_FRAMES,
		"the frame region holds part of an entry", "too many frames",
	},
	[LF_REGION_STRINGS] = {
		1, LF_MAX_STRINGS,
		"the string region holds part of an entry", "too many strings",
	},
	[LF_REGION_OVERLAY] = {
		LF_META_BLOCK,
		LF_ROOT_BLOCKS + 2 * LF_ROOT_INDEXES * (1 + LF_INDEX_LEAVES),
		"the overlay region holds part of a block", "the overlay is too big",
	},
};

/* Fills super->region[@r] and gives the number of entries in @count. */
static int region_check(const struct lf_disk_region *disk, unsigned int r,
			struct lf_super *super, u32 *count, const char **why)
{
	u64 start = le64_to_cpu(disk->start);
	u64 bytes = le64_to_cpu(disk->bytes);
	u64 blocks = lf_meta_blocks(bytes);
	u64 entries = div_u64(bytes, region_rule[r].entry);
	unsigned int i;

	if (entries * region_rule[r].entry != bytes)
		return lf_bad(why, region_rule[r].size);
	if (entries > region_rule[r].max)
		return lf_bad(why, region_rule[r].count);
	if (start > super->blocks || blocks > super->blocks - start)
		return lf_bad(why, "a region ends behind the device");
	if (bytes && start < LF_SUPER_SLOTS)
		return lf_bad(why, "a region overlaps the superblock");

	for (i = 0; i < r; i++) {
		u64 other = super->region[i].start;

		if (start < other + lf_meta_blocks(super->region[i].bytes) &&
		    other < start + blocks)
			return lf_bad(why, "regions overlap");
	}

	super->region[r].start = start;
	super->region[r].bytes = bytes;
	super->region[r].sum = le64_to_cpu(disk->sum);
	*count = entries;
	return 0;
}

/* An overlay's tree has the image's shape. */
static int overlay_check(const struct lf_super *super, const char **why)
{
	u64 bytes = super->region[LF_REGION_OVERLAY].bytes;
	struct lf_tree tree;
	int err;

	if (!bytes)
		return 0;
	err = lf_tree_shape(super->image_bytes, &tree, why);
	if (!err && bytes != lf_tree_bytes(&tree))
		err = lf_bad(why, "the overlay does not have the image's size");
	return err;
}

bool lf_super_has_origin(const struct lf_super *super)
{
	static const u8 nil[16];

	return memcmp(super->origin, nil, sizeof(nil));
}

int lf_super_check(const void *block, u32 slot, u64 dev_bytes,
		   struct lf_super *super, const char **why)
{
	const struct lf_disk_super *disk = block;
	u32 count[LF_REGIONS];
	unsigned int r;
	int err;

	if (memcmp(disk->magic, LF_META_MAGIC, sizeof(disk->magic)))
		return lf_bad(why, "not a lazyframe meta device");
	if (le32_to_cpu(disk->version) != LF_META_VERSION)
		return lf_bad(why, "unknown version of the meta device");
	if (le64_to_cpu(disk->sum) !=
	    xxh64(disk, offsetof(struct lf_disk_super, sum), 0))
		return lf_bad(why, "the superblock's checksum is wrong");
	if (le32_to_cpu(disk->block_bytes) != LF_META_BLOCK)
		return lf_bad(why, "unknown block size of the meta device");
	if (disk->features)
		return lf_bad(why, "the meta device has unknown features");
	if (le32_to_cpu(disk->regions) != LF_REGIONS || disk->reserved)
		return lf_bad(why, "the meta device has unknown regions");
	if (le64_to_cpu(disk->sequence) % LF_SUPER_SLOTS != slot)
		return lf_bad(why, "the superblock is not where it belongs");

	memset(super, 0, sizeof(*super));
	memcpy(super->uuid, disk->uuid, sizeof(super->uuid));
	memcpy(super->base_uuid, disk->base_uuid, sizeof(super->base_uuid));
	memcpy(super->origin, disk->origin, sizeof(super->origin));
	super->sequence = le64_to_cpu(disk->sequence);
	super->generation = le64_to_cpu(disk->generation);

	super->image_bytes = le64_to_cpu(disk->image_bytes);
	if (!super->image_bytes)
		return lf_bad(why, "the image is empty");
	if (super->image_bytes > LF_MAX_IMAGE)
		return lf_bad(why, "the image is too big");

	super->blocks = le64_to_cpu(disk->blocks);
	if (!super->blocks)
		return lf_bad(why, "the meta device uses no blocks");
	if (super->blocks > div_u64(dev_bytes, LF_META_BLOCK))
		return lf_bad(why, "the meta device is smaller than when it was written");

	for (r = 0; r < LF_REGIONS; r++) {
		err = region_check(&disk->region[r], r, super, &count[r], why);
		if (err)
			return err;
	}

	super->layers = count[LF_REGION_LAYERS];
	super->extents = count[LF_REGION_EXTENTS];
	super->runs = count[LF_REGION_RUNS];
	super->frames = count[LF_REGION_FRAMES];
	return overlay_check(super, why);
}

int lf_super_pick(const void *slots, u64 dev_bytes, struct lf_super *super,
		  const char **why)
{
	struct lf_super other;
	const char *reason;
	int err;

	err = lf_super_check(slots, 0, dev_bytes, super, why);
	if (lf_super_check(slots + LF_META_BLOCK, 1, dev_bytes, &other,
			   &reason))
		return err;
	if (err || other.sequence > super->sequence)
		*super = other;
	return 0;
}

static bool inside(__le32 first, __le32 count, u64 size)
{
	return (u64)le32_to_cpu(first) + le32_to_cpu(count) <= size;
}

static bool codec_known(u32 codec)
{
	return codec == LAZYFRAME_CODEC_NONE || codec == LAZYFRAME_CODEC_ZSTD ||
	       codec == LAZYFRAME_CODEC_LZ4;
}

int lf_layer_check(const struct lf_disk_layer *layer,
		   const struct lf_super *super, const char **why)
{
	u64 strings = super->region[LF_REGION_STRINGS].bytes;
	u32 locator = le32_to_cpu(layer->locator_bytes);
	u32 frames = le32_to_cpu(layer->frames);
	u32 runs = le32_to_cpu(layer->runs);
	static const u8 nil[16];

	if (!memcmp(layer->uuid, nil, sizeof(nil)))
		return lf_bad(why, "a layer has no UUID");
	if (!codec_known(le32_to_cpu(layer->codec)))
		return lf_bad(why, "a layer has an unknown codec");
	if ((le32_to_cpu(layer->flags) & ~LF_LAYER_SUMS) || layer->reserved)
		return lf_bad(why, "a layer has unknown flags");
	if (le64_to_cpu(layer->ubytes) > LF_MAX_IMAGE ||
	    le64_to_cpu(layer->cbytes) > LF_MAX_IMAGE)
		return lf_bad(why, "a layer is too big");
	if (frames > LF_MAX_FRAMES)
		return lf_bad(why, "a layer has too many frames");
	if (runs > frames || !runs != !frames)
		return lf_bad(why, "a layer's runs do not fit its frames");
	if (!inside(layer->first_run, layer->runs, super->runs))
		return lf_bad(why, "a layer's runs lie outside their region");
	if (!inside(layer->first_frame, layer->frames, super->frames))
		return lf_bad(why, "a layer's frames lie outside their region");
	if (!locator || locator >= LAZYFRAME_LOCATOR_MAX)
		return lf_bad(why, "a layer's locator is empty or too long");
	if (!inside(layer->locator, layer->locator_bytes, strings))
		return lf_bad(why, "a layer's locator lies outside its region");
	if (le32_to_cpu(layer->validator_bytes) >= LAZYFRAME_VALIDATOR_MAX)
		return lf_bad(why, "a layer's validator is too long");
	if (!inside(layer->validator, layer->validator_bytes, strings))
		return lf_bad(why, "a layer's validator lies outside its region");
	return 0;
}

/* The number of frames in run @r, 0 where the run's bounds make no sense. */
static u32 run_frames(const struct lf_table *table, u32 r)
{
	u32 first = le32_to_cpu(table->run[r].first);
	u32 next = r + 1 < table->runs ? le32_to_cpu(table->run[r + 1].first) :
					 table->frames;

	if (next <= first || next > table->frames ||
	    next - first > LF_RUN_FRAMES)
		return 0;
	return next - first;
}

int lf_table_check(const struct lf_table *table, u32 codec, u64 ubytes,
		   u64 cbytes, const char **why)
{
	u64 uend = 0, cend = 0;
	u32 r, i;

	if (!codec_known(codec))
		return lf_bad(why, "unknown codec");
	if (table->frames > LF_MAX_FRAMES)
		return lf_bad(why, "too many frames");
	if (!table->runs != !table->frames)
		return lf_bad(why, "the runs do not fit the frames");
	if (table->runs && table->run[0].first)
		return lf_bad(why, "the first run does not begin with frame 0");

	for (r = 0; r < table->runs; r++) {
		const struct lf_disk_run *run = &table->run[r];
		u32 frame_bytes = le32_to_cpu(run->ubytes);
		u32 first = le32_to_cpu(run->first);
		u32 count = run_frames(table, r);

		if (!count)
			return lf_bad(why, "a run has no frames or too many");
		if (!frame_bytes || frame_bytes > LAZYFRAME_MAX_FRAME)
			return lf_bad(why, "a frame is empty or too big");
		if (le64_to_cpu(run->ustart) < uend ||
		    le64_to_cpu(run->cstart) < cend)
			return lf_bad(why, "frames overlap or do not ascend");

		uend = le64_to_cpu(run->ustart);
		cend = le64_to_cpu(run->cstart);
		if (check_add_overflow(uend, (u64)count * frame_bytes, &uend) ||
		    uend > ubytes)
			return lf_bad(why, "a frame ends behind its layer");

		for (i = first; i < first + count; i++) {
			u32 size = le32_to_cpu(table->frame[i].cbytes);

			if (!size || size > LAZYFRAME_MAX_CFRAME)
				return lf_bad(why, "a frame's data is empty or too big");
			if (codec == LAZYFRAME_CODEC_NONE &&
			    size != frame_bytes)
				return lf_bad(why, "a raw frame has two sizes");
			if (check_add_overflow(cend, (u64)size, &cend) ||
			    cend > cbytes)
				return lf_bad(why, "a frame's data ends behind its object");
		}
	}
	return 0;
}

int lf_table_find(const struct lf_table *table, u64 uoff,
		  struct lf_frame_pos *pos)
{
	const struct lf_disk_run *run;
	u32 low = 0, high = table->runs;
	u32 first, nr, i;
	u64 off, cstart;

	/* The last run that begins at or before @uoff is the one below high. */
	while (low < high) {
		u32 mid = low + (high - low) / 2;

		if (le64_to_cpu(table->run[mid].ustart) <= uoff)
			low = mid + 1;
		else
			high = mid;
	}
	if (!high)
		return -ENOENT;

	run = &table->run[high - 1];
	off = uoff - le64_to_cpu(run->ustart);
	pos->ubytes = le32_to_cpu(run->ubytes);
	if (off >= (u64)run_frames(table, high - 1) * pos->ubytes)
		return -ENOENT;

	first = le32_to_cpu(run->first);
	nr = div_u64(off, pos->ubytes);
	cstart = le64_to_cpu(run->cstart);
	for (i = first; i < first + nr; i++)
		cstart += le32_to_cpu(table->frame[i].cbytes);

	pos->index = first + nr;
	pos->ustart = le64_to_cpu(run->ustart) + (u64)nr * pos->ubytes;
	pos->cstart = cstart;
	pos->cbytes = le32_to_cpu(table->frame[pos->index].cbytes);
	pos->sum = le32_to_cpu(table->frame[pos->index].sum);
	pos->has_sum = table->sums;
	return 0;
}

int lf_extents_check(const struct lf_disk_extent *extent, u32 extents,
		     const struct lf_disk_layer *layer, u32 layers,
		     u64 image_bytes, const char **why)
{
	u64 end = 0;
	u32 i;

	for (i = 0; i < extents; i++) {
		u64 start = le64_to_cpu(extent[i].start);
		u64 length = le64_to_cpu(extent[i].length);
		u64 storage = le64_to_cpu(extent[i].storage);
		u64 stored, ubytes;

		if (start < end)
			return lf_bad(why, "extents overlap or do not ascend");
		if (!length)
			return lf_bad(why, "an extent is empty");
		if (check_add_overflow(start, length, &end) ||
		    end > image_bytes)
			return lf_bad(why, "an extent ends behind the image");
		if (start % LF_EXTENT_ALIGN || storage % LF_EXTENT_ALIGN ||
		    (length % LF_EXTENT_ALIGN && end != image_bytes))
			return lf_bad(why, "an extent is not aligned");
		if (le32_to_cpu(extent[i].layer) >= layers ||
		    extent[i].reserved)
			return lf_bad(why, "an extent names an unknown layer");

		ubytes = le64_to_cpu(layer[le32_to_cpu(extent[i].layer)].ubytes);
		if (check_add_overflow(storage, length, &stored) ||
		    storage >= ubytes ||
		    (stored > ubytes && stored - ubytes >= LF_META_BLOCK))
			return lf_bad(why, "an extent ends behind its layer");
	}
	return 0;
}

u32 lf_extents_find(const struct lf_disk_extent *extent, u32 extents, u64 off)
{
	u32 low = 0, high = extents;

	while (low < high) {
		u32 mid = low + (high - low) / 2;

		/* Checked extents do not wrap around. */
		if (le64_to_cpu(extent[mid].start) +
		    le64_to_cpu(extent[mid].length) <= off)
			low = mid + 1;
		else
			high = mid;
	}
	return high;
}

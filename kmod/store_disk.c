// SPDX-License-Identifier: GPL-2.0-only
/*
 * The store on disk, as pure code. Nothing that comes from a device is trusted:
 * checksums are against accidents, and every number is checked all the same.
 */
#include "store_disk.h"

#define LAYER_PER_BLOCK	(LF_META_BLOCK / sizeof(struct lf_disk_store_layer))
/* So that segments begin where devices like writes to begin. */
#define DATA_ALIGN	((1U << 20) / LF_META_BLOCK)

static_assert(sizeof(struct lf_disk_store) == LF_META_BLOCK, "store");
static_assert(sizeof(struct lf_disk_store_layer) == 32, "layer");
static_assert(sizeof(struct lf_disk_store_entry) == 16, "entry");
static_assert(sizeof(struct lf_disk_summary) +
	      LF_SUMMARY_ENTRIES * sizeof(struct lf_disk_store_entry) ==
	      LF_META_BLOCK, "summary");
static_assert(LF_SEGMENT_MAX / 512 <= 1U << 16, "offset");
static_assert(!(LF_STORE_MIN_LAYERS % LAYER_PER_BLOCK) &&
	      !(LF_STORE_MAX_LAYERS % LAYER_PER_BLOCK), "layers");

static void shape_of(u32 segment_bytes, u32 segments, u32 layers,
		     struct lf_store_shape *shape)
{
	u32 units = segment_bytes / LF_SUMMARY_UNIT;
	u64 end;

	shape->segment_bytes = segment_bytes;
	shape->segments = segments;
	shape->layers = layers;
	shape->summary_blocks = units;
	shape->slots = units * (LF_META_BLOCK / sizeof(struct lf_disk_store_entry)) -
		       sizeof(struct lf_disk_summary) /
		       sizeof(struct lf_disk_store_entry);
	shape->summary_start = LF_STORE_COPIES + layers / LAYER_PER_BLOCK;
	end = shape->summary_start + (u64)segments * units;
	shape->data_start = div_u64(end + DATA_ALIGN - 1, DATA_ALIGN) *
			    DATA_ALIGN;
}

static u64 end_of(const struct lf_store_shape *shape)
{
	return lf_segment_place(shape, shape->segments) * LF_META_BLOCK;
}

int lf_store_plan(u64 bytes, struct lf_store_shape *shape, const char **why)
{
	u32 segment = LF_SEGMENT_MIN;
	u64 layers, segments;

	if (bytes > LF_STORE_MAX_BYTES)
		return lf_bad(why, "a store can have 16 TiB");
	/* Big segments waste less at their ends, but go all at once. */
	while (segment < LF_SEGMENT_MAX && bytes / segment > 256)
		segment *= 2;
	layers = bytes / LF_STORE_LAYER_UNIT / LF_STORE_MIN_LAYERS *
		 LF_STORE_MIN_LAYERS;
	if (layers < LF_STORE_MIN_LAYERS)
		layers = LF_STORE_MIN_LAYERS;
	if (layers > LF_STORE_MAX_LAYERS)
		layers = LF_STORE_MAX_LAYERS;
	for (segments = bytes / segment; segments >= LF_STORE_MIN_SEGMENTS;
	     segments--) {
		shape_of(segment, segments, layers, shape);
		if (end_of(shape) <= bytes)
			return 0;
	}
	return lf_bad(why, "a store needs 33 MiB at least");
}

void lf_store_finish(struct lf_disk_store *super)
{
	memcpy(super->magic, LF_STORE_MAGIC, sizeof(super->magic));
	super->version = cpu_to_le32(LF_STORE_VERSION);
	super->sum = cpu_to_le64(xxh64(super, offsetof(struct lf_disk_store, sum),
				       0));
}

static int super_check(const struct lf_disk_store *super, u64 dev_bytes,
		       struct lf_store_shape *shape, const char **why)
{
	u32 segment_bytes = le32_to_cpu(super->segment_bytes);
	u32 segments = le32_to_cpu(super->segments);
	u32 layers = le32_to_cpu(super->layers);

	if (memcmp(super->magic, LF_STORE_MAGIC, sizeof(super->magic)))
		return lf_bad(why, "it is not formatted as a store");
	if (le64_to_cpu(super->sum) !=
	    xxh64(super, offsetof(struct lf_disk_store, sum), 0))
		return lf_bad(why, "its superblock is damaged");
	if (le32_to_cpu(super->version) != LF_STORE_VERSION)
		return lf_bad(why, "its format is of another version");
	if (segment_bytes < LF_SEGMENT_MIN || segment_bytes > LF_SEGMENT_MAX ||
	    segment_bytes % LF_SUMMARY_UNIT ||
	    segments < LF_STORE_MIN_SEGMENTS ||
	    segments > LF_STORE_MAX_BYTES / segment_bytes ||
	    layers < LF_STORE_MIN_LAYERS || layers > LF_STORE_MAX_LAYERS ||
	    layers % LF_STORE_MIN_LAYERS)
		return lf_bad(why, "its superblock says what cannot be");
	shape_of(segment_bytes, segments, layers, shape);
	if (end_of(shape) > dev_bytes || le64_to_cpu(super->bytes) > dev_bytes)
		return lf_bad(why, "the device is smaller than when it was formatted");
	return 0;
}

int lf_store_pick(const void *copies, u64 dev_bytes,
		  const struct lf_disk_store **super,
		  struct lf_store_shape *shape, const char **why)
{
	int err = -EINVAL;
	u32 i;

	for (i = 0; err && i < LF_STORE_COPIES; i++) {
		*super = copies + i * LF_META_BLOCK;
		err = super_check(*super, dev_bytes, shape, why);
	}
	return err;
}

static u32 layer_sum(const struct lf_disk_store_layer *layer)
{
	return xxh64(layer, offsetof(struct lf_disk_store_layer, sum), 0);
}

bool lf_store_layer_ok(const struct lf_disk_store_layer *layer)
{
	static const struct lf_disk_store_layer zero;

	return memcmp(layer, &zero, sizeof(zero)) &&
	       le32_to_cpu(layer->sum) == layer_sum(layer);
}

void lf_store_layer_finish(struct lf_disk_store_layer *layer)
{
	layer->sum = cpu_to_le32(layer_sum(layer));
}

static u64 summary_sum(const struct lf_disk_summary *summary,
		       const struct lf_store_shape *shape)
{
	return xxh64(&summary->store,
		     (size_t)shape->summary_blocks * LF_META_BLOCK -
		     offsetof(struct lf_disk_summary, store), 0);
}

void lf_summary_finish(struct lf_disk_summary *summary,
		       const struct lf_store_shape *shape)
{
	summary->magic = cpu_to_le32(LF_SUMMARY_MAGIC);
	summary->sum = cpu_to_le64(summary_sum(summary, shape));
}

int lf_summary_check(const struct lf_disk_summary *summary,
		     const struct lf_store_shape *shape, const u8 store[16],
		     u32 segment, const char **why)
{
	u32 entries = le32_to_cpu(summary->entries);
	u32 end = 0, i;

	/* Wiped, never written, or of an older store on this device. */
	if (le32_to_cpu(summary->magic) != LF_SUMMARY_MAGIC ||
	    memcmp(summary->store, store, sizeof(summary->store)))
		return -ENODATA;
	if (le64_to_cpu(summary->sum) != summary_sum(summary, shape))
		return lf_bad(why, "its checksum is wrong");
	if (le32_to_cpu(summary->segment) != segment)
		return lf_bad(why, "it is of another segment");
	if (entries > shape->slots ||
	    le32_to_cpu(summary->log) >= LF_LOGS)
		return lf_bad(why, "it says what cannot be");
	for (i = 0; i < entries; i++) {
		const struct lf_disk_store_entry *entry = &summary->entry[i];
		u32 sectors = le16_to_cpu(entry->sectors);
		u32 offset = le16_to_cpu(entry->offset);

		if (offset < end || !sectors ||
		    offset + sectors > shape->segment_bytes / 512)
			return lf_bad(why, "its frames overlap or do not fit");
		if (lf_store_key_layer(le64_to_cpu(entry->key)) >=
		    shape->layers)
			return lf_bad(why, "it names a layer that cannot be");
		end = offset + sectors;
	}
	return 0;
}

u64 lf_store_name(const u8 uuid[16], u64 key)
{
	return xxh64(uuid, 16, key & ((1ULL << LF_STORE_OFFSET_BITS) - 1));
}

u32 lf_store_sum(const u8 uuid[16], u64 key, const void *data, u32 sectors)
{
	return xxh64(data, (size_t)sectors << 9, lf_store_name(uuid, key));
}

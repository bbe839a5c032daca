// SPDX-License-Identifier: GPL-2.0-only
/*
 * Input: the device's size, the begin of both superblocks, of a summary that is
 * full of small frames, and other entries with their places. Where a byte of the
 * input does not say otherwise, checksums are put right, else nothing would get
 * past them.
 */
#include "../../kmod/store_disk.h"
#include "fuzz.h"

#define SUPER_BYTES	offsetof(struct lf_disk_store, reserved)
#define ENTRIES		32

static void check_shape(const struct lf_store_shape *shape, u64 bytes)
{
	u32 last = shape->segments - 1;

	MUST(shape->segments >= LF_STORE_MIN_SEGMENTS);
	MUST(shape->layers >= LF_STORE_MIN_LAYERS &&
	     shape->layers <= LF_STORE_MAX_LAYERS);
	MUST(shape->segment_bytes >= LF_SEGMENT_MIN &&
	     shape->segment_bytes <= LF_SEGMENT_MAX &&
	     !(shape->segment_bytes % LF_SUMMARY_UNIT));
	MUST(shape->summary_blocks == shape->segment_bytes / LF_SUMMARY_UNIT);
	MUST(sizeof(struct lf_disk_summary) +
	     shape->slots * sizeof(struct lf_disk_store_entry) ==
	     shape->summary_blocks * (u64)LF_META_BLOCK);
	MUST(lf_summary_place(shape, 0) * LF_META_BLOCK >=
	     LF_STORE_COPIES * LF_META_BLOCK +
	     shape->layers * sizeof(struct lf_disk_store_layer));
	MUST(lf_summary_place(shape, last) + shape->summary_blocks <=
	     lf_segment_place(shape, 0));
	MUST(lf_segment_place(shape, last) * LF_META_BLOCK +
	     shape->segment_bytes <= bytes);
}

static void check_plan(u64 bytes)
{
	struct lf_store_shape shape = {};
	const char *why = NULL;

	if (lf_store_plan(bytes, &shape, &why)) {
		MUST(strlen(why));
		MUST(bytes < 40U << 20 || bytes > LF_STORE_MAX_BYTES);
		return;
	}
	check_shape(&shape, bytes);
}

/* Return: false: there is no store */
static bool pick(struct input *in, u64 bytes, struct lf_store_shape *shape,
		 u8 uuid[16])
{
	struct lf_disk_store *copies = calloc(LF_STORE_COPIES, sizeof(*copies));
	const struct lf_disk_store *super = NULL;
	const char *why = NULL;
	u8 wrong;
	bool good;
	u32 i;

	for (i = 0; i < LF_STORE_COPIES; i++) {
		next(in, &copies[i], SUPER_BYTES);
		next(in, &wrong, 1);
		copies[i].sum = cpu_to_le64(wrong + xxh64(&copies[i],
					offsetof(struct lf_disk_store, sum), 0));
	}
	good = !lf_store_pick(copies, bytes, &super, shape, &why);
	if (good) {
		MUST(super == &copies[0] || super == &copies[1]);
		MUST(le64_to_cpu(super->bytes) <= bytes);
		MUST(le32_to_cpu(super->segments) == shape->segments);
		MUST(le32_to_cpu(super->layers) == shape->layers);
		MUST(le32_to_cpu(super->segment_bytes) == shape->segment_bytes);
		check_shape(shape, bytes);
		memcpy(uuid, super->uuid, sizeof(super->uuid));
	} else {
		MUST(strlen(why));
	}
	free(copies);
	return good;
}

static void check_summary(struct input *in, const struct lf_store_shape *shape,
			  const u8 uuid[16])
{
	struct lf_disk_summary *summary = calloc(shape->summary_blocks,
						 LF_META_BLOCK);
	u32 segment, i, place, entries, end = 0;
	const char *why = NULL;
	u8 wrong;
	int err;

	next(in, &wrong, 1);
	next(in, &segment, sizeof(segment));
	next(in, summary, sizeof(*summary));
	for (i = 0; i < shape->slots; i++) {
		summary->entry[i].offset = cpu_to_le16(8 * i);
		summary->entry[i].sectors = cpu_to_le16(8);
	}
	for (i = 0; i < ENTRIES && in->left; i++) {
		place = next_below(in, shape->slots);
		next(in, &summary->entry[place], sizeof(summary->entry[place]));
	}
	if (!wrong)
		summary->sum = cpu_to_le64(xxh64(&summary->store,
			shape->summary_blocks * (u64)LF_META_BLOCK -
			offsetof(struct lf_disk_summary, store), 0));
	err = lf_summary_check(summary, shape, uuid, segment, &why);
	if (err) {
		MUST(err == -ENODATA || (err == -EINVAL && strlen(why)));
		goto out;
	}
	MUST(!memcmp(summary->store, uuid, sizeof(summary->store)));
	MUST(le32_to_cpu(summary->segment) == segment);
	MUST(le32_to_cpu(summary->log) < LF_LOGS);
	entries = le32_to_cpu(summary->entries);
	MUST(entries <= shape->slots);
	for (i = 0; i < entries; i++) {
		const struct lf_disk_store_entry *entry = &summary->entry[i];

		MUST(le16_to_cpu(entry->offset) >= end);
		MUST(le16_to_cpu(entry->sectors));
		end = le16_to_cpu(entry->offset) + le16_to_cpu(entry->sectors);
		MUST(lf_store_key_layer(le64_to_cpu(entry->key)) <
		     shape->layers);
	}
	MUST(end * 512ULL <= shape->segment_bytes);
out:
	free(summary);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct input in = { data, bytes };
	struct lf_store_shape shape = {};
	u8 uuid[16];
	u64 size;

	next(&in, &size, sizeof(size));
	check_plan(size);
	if (pick(&in, size, &shape, uuid))
		check_summary(&in, &shape, uuid);
	return 0;
}

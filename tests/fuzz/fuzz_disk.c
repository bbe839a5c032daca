// SPDX-License-Identifier: GPL-2.0-only
/*
 * Input: the superblock up to its padding (its checksum is put right, else
 * nothing would get past it), counts, then layers, extents, runs, frames.
 */
#include <linux/lazyframe.h>

#include "../../kmod/disk.h"
#include "fuzz.h"

#define SUPER_BYTES	offsetof(struct lf_disk_super, zero)

static void check_super(struct input *in, struct lf_super *super)
{
	struct lf_disk_super *disk = calloc(1, sizeof(*disk));
	unsigned int i, j;
	const char *why;
	u64 dev_bytes;

	next(in, disk, SUPER_BYTES);
	next(in, &dev_bytes, sizeof(dev_bytes));
	disk->sum = cpu_to_le64(xxh64(disk, offsetof(struct lf_disk_super, sum),
				      0));
	memset(super, 0, sizeof(*super));
	if (!lf_super_check(disk, 0, dev_bytes, super, &why)) {
		MUST(super->blocks <= dev_bytes / LF_META_BLOCK);
		MUST(super->image_bytes && super->image_bytes <= LF_MAX_IMAGE);
		MUST(super->layers <= LF_MAX_LAYERS);
		MUST(super->extents <= LF_MAX_EXTENTS);
		MUST(super->frames <= LF_MAX_ALL_FRAMES);
		for (i = 0; i < LF_REGIONS; i++) {
			u64 a = super->region[i].start * LF_META_BLOCK;
			u64 a_end = a + super->region[i].bytes;

			if (a == a_end)
				continue;
			MUST(a >= LF_SUPER_SLOTS * LF_META_BLOCK && a_end <= dev_bytes);
			for (j = 0; j < i; j++) {
				u64 b = super->region[j].start * LF_META_BLOCK;
				u64 b_end = b + super->region[j].bytes;

				MUST(b == b_end || a_end <= b || b_end <= a);
			}
		}
	} else {
		MUST(strlen(why));
	}
	free(disk);
}

static void check_layer(const struct lf_disk_layer *layer,
			const struct lf_super *super)
{
	const char *why;

	if (lf_layer_check(layer, super, &why))
		return;
	MUST((u64)layer->first_run + layer->runs <= super->runs);
	MUST((u64)layer->first_frame + layer->frames <= super->frames);
	MUST((u64)layer->locator + layer->locator_bytes <=
	     super->region[LF_REGION_STRINGS].bytes);
	MUST((u64)layer->validator + layer->validator_bytes <=
	     super->region[LF_REGION_STRINGS].bytes);
	MUST(layer->locator_bytes < LAZYFRAME_LOCATOR_MAX);
	MUST(layer->validator_bytes < LAZYFRAME_VALIDATOR_MAX);
}

/* Every frame is where the runs say, and found by each end of it. */
static void check_frames(const struct lf_table *table, u64 ubytes, u64 cbytes)
{
	u64 u = 0, c = 0, uend = 0, cend = 0;
	struct lf_frame_pos pos;
	u32 run = 0, i;

	for (i = 0; i < table->frames; i++) {
		if (run < table->runs && table->run[run].first == i) {
			u = table->run[run].ustart;
			c = table->run[run].cstart;
			run++;
		}
		MUST(u >= uend && c >= cend);
		MUST(!lf_table_find(table, u, &pos));
		MUST(pos.index == i && pos.ustart == u && pos.cstart == c);
		MUST(pos.ubytes && pos.ubytes <= LAZYFRAME_MAX_FRAME);
		MUST(pos.cbytes && pos.cbytes <= LAZYFRAME_MAX_CFRAME);
		uend = u + pos.ubytes;
		cend = c + pos.cbytes;
		MUST(uend <= ubytes && cend <= cbytes);
		MUST(!lf_table_find(table, uend - 1, &pos));
		MUST(pos.index == i);
		u = uend;
		c = cend;
	}
	MUST(run == table->runs);
	MUST(lf_table_find(table, uend, &pos) == -ENOENT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct input in = { data, bytes };
	struct lf_disk_extent *extent;
	struct lf_disk_layer *layer;
	struct lf_disk_frame *frame;
	struct lf_disk_run *run;
	struct lf_frame_pos pos;
	struct lf_table table;
	struct lf_super super;
	u32 layers, extents, i;
	const char *why;
	u64 off;

	check_super(&in, &super);
	layers = next_below(&in, 4);
	extents = next_below(&in, 9);
	table.runs = next_below(&in, 9);
	table.frames = next_below(&in, 200);
	table.sums = next_below(&in, 2);
	next(&in, &off, sizeof(off));
	layer = next_exact(&in, layers * sizeof(*layer));
	extent = next_exact(&in, extents * sizeof(*extent));
	run = next_exact(&in, table.runs * sizeof(*run));
	frame = next_exact(&in, table.frames * sizeof(*frame));
	table.run = run;
	table.frame = frame;

	for (i = 0; i < layers; i++)
		check_layer(&layer[i], &super);
	if (layers && !lf_table_check(&table, layer->codec, layer->ubytes,
				      layer->cbytes, &why))
		check_frames(&table, layer->ubytes, layer->cbytes);
	if (!lf_table_find(&table, off, &pos))
		MUST(pos.index < table.frames);

	if (!lf_extents_check(extent, extents, layer, layers,
			      super.image_bytes, &why)) {
		u64 end = 0;

		for (i = 0; i < extents; i++) {
			MUST(extent[i].start >= end);
			end = extent[i].start + extent[i].length;
			MUST(end > extent[i].start && end <= super.image_bytes);
			MUST(extent[i].layer < layers);
			MUST(lf_extents_find(extent, extents, end - 1) == i);
			MUST(lf_extents_find(extent, extents, end) == i + 1);
		}
	}
	MUST(lf_extents_find(extent, extents, off) <= extents);

	free(layer);
	free(extent);
	free(run);
	free(frame);
	return 0;
}

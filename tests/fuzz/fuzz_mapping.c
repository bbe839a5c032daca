// SPDX-License-Identifier: GPL-2.0-only
/*
 * Input: count of the parent's mappings (1 byte), then mappings, the parent's
 * and the change's, of 6 bytes each: gap before it, length, layer, storage (2),
 * and a byte that, if it is 255, makes the numbers wild. What is taken in
 * must come out as a model of blocks has it.
 */
#include <linux/lazyframe.h>

#include "../../helper/mapping.h"
#include "../../helper/uuid.h"
#include "fuzz.h"

#define BLOCKS	(8U << 10)
#define BELOW	UINT64_MAX

/* Where each block is: layer << 56 | block in it */
static u64 parent_model[BLOCKS], diff_model[BLOCKS];

static void note(u64 *model, const struct header_mapping *m)
{
	u64 at = m->start / LF_META_BLOCK, n = m->length / LF_META_BLOCK;
	u64 storage = m->storage / LF_META_BLOCK;

	for (; n && at < BLOCKS; n--, at++, storage++)
		model[at] = m->uuid[0] ? (u64)m->uuid[0] << 56 | storage : 0;
}

static void add(struct mapping_list *list, struct input *in, bool gaps,
		u64 *model)
{
	struct header_mapping m = {0};
	struct error e = {""};
	u32 count = list->count;
	u64 end = mapping_end(list);
	u8 raw[6];

	next(in, raw, sizeof(raw));
	m.start = end + (gaps ? raw[0] * (u64)LF_META_BLOCK : 0);
	m.length = raw[1] * (u64)LF_META_BLOCK;
	memset(m.uuid, raw[2] % 4, sizeof(m.uuid));
	m.storage = (raw[3] | raw[4] << 8) * (u64)LF_META_BLOCK;
	if (raw[5] == 255) {
		next(in, &m.start, sizeof(m.start));
		next(in, &m.length, sizeof(m.length));
		next(in, &m.storage, sizeof(m.storage));
	}
	if (mapping_add(list, &m, &e)) {
		MUST(strlen(e.text));
		MUST(list->count == count && mapping_end(list) == end);
		return;
	}
	MUST(m.start >= end && mapping_end(list) == m.start + m.length);
	MUST(mapping_end(list) <= LF_MAX_IMAGE);
	note(model, &m);
}

static void check(const struct mapping_list *list, u64 end)
{
	struct header h = {
		.size = end,
		.mapping = list->mapping,
		.mappings = list->count,
	};
	u64 at = 0, i;

	MUST(mapping_end(list) == end);
	for (i = 0; i < list->count; i++) {
		MUST(list->mapping[i].start == at);
		MUST(list->mapping[i].length);
		at += list->mapping[i].length;
	}
	for (i = 0; i < BLOCKS && i < end / LF_META_BLOCK; i++) {
		u64 off = i * LF_META_BLOCK;
		const struct header_mapping *m = header_find(&h, off);
		u64 want = diff_model[i] == BELOW ? parent_model[i] :
						    diff_model[i];

		MUST(m);
		MUST(want == (m->uuid[0] ? (u64)m->uuid[0] << 56 |
			      (m->storage + off - m->start) / LF_META_BLOCK :
			      0));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct mapping_list parent = {0}, diff = {0}, out = {0};
	struct input in = { data, bytes };
	struct error e = {""};
	u8 parents;
	bool whole;
	u32 i;

	next(&in, &parents, 1);
	memset(parent_model, 0, sizeof(parent_model));
	memset(diff_model, 0xff, sizeof(diff_model));
	for (i = 0; i < parents && in.left; i++)
		add(&parent, &in, false, parent_model);
	while (in.left)
		add(&diff, &in, true, diff_model);

	/* A wild one may have left a gap in the parent. */
	for (whole = true, i = 1; i < parent.count; i++)
		whole = whole && parent.mapping[i].start ==
				 parent.mapping[i - 1].start +
				 parent.mapping[i - 1].length;
	whole = whole && (!parent.count || !parent.mapping[0].start);
	if (!mapping_overlay(&parent, &diff, &out, &e)) {
		MUST(whole && mapping_end(&diff) <= mapping_end(&parent));
		check(&out, mapping_end(&parent));
	} else {
		MUST(strlen(e.text));
		MUST(!whole || mapping_end(&diff) > mapping_end(&parent));
	}
	mapping_cut(&parent, mapping_end(&diff));
	MUST(mapping_end(&parent) <= mapping_end(&diff));
	mapping_free(&parent);
	mapping_free(&diff);
	mapping_free(&out);
	return 0;
}

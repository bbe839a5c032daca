// SPDX-License-Identifier: GPL-2.0-only
/*
 * Input: size of the object (8 bytes; 0: whatever fits the table), the table.
 */
#include <linux/lazyframe.h>

#include "../../helper/seektable.h"
#include "fuzz.h"

/* What the table's frames add up to, and the table itself */
static u64 fitting_size(const u8 *table, size_t bytes)
{
	u64 size = bytes;
	size_t entry, i;

	if (bytes < 17)
		return bytes;
	entry = table[bytes - 5] & 0x80 ? 12 : 8;
	for (i = 8; i + 9 + entry <= bytes; i += entry)
		size += lf_get_le32(table + i);
	return size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct input in = { data, bytes };
	u64 object_bytes, size, ubytes, uend = 0, cend = 0;
	struct lf_frame_pos *pos;
	u32 room, frames, i;
	const char *why;
	bool sums = true;
	u8 *table, *again;
	int ret;

	next(&in, &object_bytes, sizeof(object_bytes));
	if (in.left < SEEKTABLE_FOOTER_BYTES)
		return 0;
	bytes = in.left;
	table = exact(in.p, bytes);
	if (!object_bytes)
		object_bytes = fitting_size(table, bytes);

	ret = seektable_size(table + bytes - SEEKTABLE_FOOTER_BYTES,
			     object_bytes, &size, &why);
	if (!ret)
		MUST(size <= object_bytes);
	if (seektable_frames(table, bytes, &room, &why))
		goto out;
	MUST(room <= bytes / 8);
	pos = malloc((room + 1) * sizeof(*pos));
	if (!seektable_read(table, bytes, object_bytes, pos, &frames, &ubytes,
			    &why)) {
		MUST(!ret && size == bytes);
		MUST(frames <= room && frames <= LF_MAX_FRAMES);
		for (i = 0; i < frames; i++) {
			MUST(pos[i].index == i);
			MUST(pos[i].ustart == uend && pos[i].cstart >= cend);
			MUST(pos[i].ubytes &&
			     pos[i].ubytes <= LAZYFRAME_MAX_FRAME);
			MUST(pos[i].cbytes &&
			     pos[i].cbytes <= LAZYFRAME_MAX_CFRAME);
			uend += pos[i].ubytes;
			cend = pos[i].cstart + pos[i].cbytes;
			sums = sums && pos[i].has_sum;
		}
		MUST(uend == ubytes && cend <= object_bytes - bytes);
		/* Nothing left out, and as we write them: the same bytes. */
		if (frames && frames == room && sums) {
			MUST(seektable_bytes(frames) == bytes);
			again = malloc(bytes);
			seektable_write(pos, frames, again);
			again[bytes - 5] = table[bytes - 5];
			MUST(!memcmp(again, table, bytes));
			free(again);
		}
	}
	free(pos);
out:
	free(table);
	return 0;
}

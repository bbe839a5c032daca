// SPDX-License-Identifier: GPL-2.0-only
/*
 * The zstd seekable format's seek table. At the end of the object:
 *
 *	u32 0x184d2a5e | u32 bytes that follow			skippable frame
 *	{ u32 C size | u32 U size | [u32 checksum] }...		one per frame
 *	u32 frames | u8 descriptor | u32 0x8f92eab1		footer
 *
 * Descriptor: bit 7 checksums, bits 6-2 reserved and zero, bits 1-0 unused.
 * A checksum is the low half of the XXH64 of the frame's content. Frames are
 * counted from the object's first byte and leave no gaps, skippable frames
 * included: those are entries of zero U bytes. Here the sizes have to add up
 * to where the table begins; that a foreign object is cut short, or has a
 * table that belongs to another one, is so found before its data is read.
 */
#include <linux/lazyframe.h>

#include "seektable.h"

#define SKIPPABLE_MAGIC		0x184d2a5eU
#define SKIPPABLE_HEAD_BYTES	8
#define SEEKABLE_MAGIC		0x8f92eab1U

#define DESCRIPTOR_SUMS		0x80
#define DESCRIPTOR_RESERVED	0x7c

#define ENTRY_BYTES		8
#define ENTRY_SUM_BYTES		12

struct footer {
	u32 frames;
	u32 entry_bytes;
};

static u64 table_bytes(const struct footer *footer)
{
	return SKIPPABLE_HEAD_BYTES + (u64)footer->frames * footer->entry_bytes +
	       SEEKTABLE_FOOTER_BYTES;
}

static int footer_read(const u8 *p, struct footer *footer, const char **why)
{
	u8 descriptor = p[4];

	if (lf_get_le32(p + 5) != SEEKABLE_MAGIC) {
		*why = "no seek table";
		return -ENOENT;
	}
	if (descriptor & DESCRIPTOR_RESERVED)
		return lf_bad(why, "the seek table is of an unknown version");

	footer->frames = lf_get_le32(p);
	footer->entry_bytes = descriptor & DESCRIPTOR_SUMS ? ENTRY_SUM_BYTES :
							     ENTRY_BYTES;
	/* Twice, as each frame may have a skippable one beside it. */
	if (footer->frames > 2 * LF_MAX_FRAMES)
		return lf_bad(why, "the seek table has too many frames");
	return 0;
}

int seektable_size(const void *footer, u64 object_bytes, u64 *bytes,
		   const char **why)
{
	struct footer f;
	int err;

	if (object_bytes < SEEKTABLE_FOOTER_BYTES) {
		*why = "no seek table";
		return -ENOENT;
	}
	err = footer_read(footer, &f, why);
	if (err)
		return err;
	if (table_bytes(&f) > object_bytes)
		return lf_bad(why, "the seek table is bigger than its object");

	*bytes = table_bytes(&f);
	return 0;
}

static int table_open(const u8 *table, u64 bytes, struct footer *footer,
		      const char **why)
{
	int err;

	if (bytes < SKIPPABLE_HEAD_BYTES + SEEKTABLE_FOOTER_BYTES)
		return lf_bad(why, "the seek table is cut short");
	err = footer_read(table + bytes - SEEKTABLE_FOOTER_BYTES, footer, why);
	if (err)
		return err;
	if (table_bytes(footer) != bytes)
		return lf_bad(why, "the seek table has another size than it says");
	if (lf_get_le32(table) != SKIPPABLE_MAGIC ||
	    lf_get_le32(table + 4) != bytes - SKIPPABLE_HEAD_BYTES)
		return lf_bad(why, "the seek table does not begin as one");
	return 0;
}

int seektable_frames(const void *table, u64 bytes, u32 *frames,
		     const char **why)
{
	struct footer footer;
	int err;

	err = table_open(table, bytes, &footer, why);
	if (err)
		return err;
	*frames = footer.frames;
	return 0;
}

int seektable_read(const void *table, u64 bytes, u64 object_bytes,
		   struct lf_frame_pos *pos, u32 *frames, u64 *ubytes,
		   const char **why)
{
	u64 ustart = 0, cstart = 0;
	struct footer footer;
	const u8 *entry;
	u32 i, nr = 0;
	int err;

	err = table_open(table, bytes, &footer, why);
	if (err)
		return err;
	if (bytes > object_bytes)
		return lf_bad(why, "the seek table is bigger than its object");

	entry = (const u8 *)table + SKIPPABLE_HEAD_BYTES;
	for (i = 0; i < footer.frames; i++, entry += footer.entry_bytes) {
		u32 csize = lf_get_le32(entry);
		u32 usize = lf_get_le32(entry + 4);

		/* Neither sum can overflow: 2^21 entries of 32 bits. */
		if (usize) {
			if (!csize)
				return lf_bad(why, "a frame has no data");
			if (usize > LAZYFRAME_MAX_FRAME ||
			    csize > LAZYFRAME_MAX_CFRAME)
				return lf_bad(why, "a frame is too big, the limit is 16 MiB");
			if (nr == LF_MAX_FRAMES)
				return lf_bad(why, "the seek table has too many frames");
			pos[nr] = (struct lf_frame_pos){
				.ustart = ustart,
				.cstart = cstart,
				.ubytes = usize,
				.cbytes = csize,
				.index = nr,
				.has_sum = footer.entry_bytes == ENTRY_SUM_BYTES,
			};
			if (pos[nr].has_sum)
				pos[nr].sum = lf_get_le32(entry + 8);
			nr++;
		}
		ustart += usize;
		cstart += csize;
	}
	if (cstart != object_bytes - bytes)
		return lf_bad(why, "the seek table does not fit the object's size");
	if (ustart > LF_MAX_IMAGE)
		return lf_bad(why, "the content is too big");

	*frames = nr;
	*ubytes = ustart;
	return 0;
}

u64 seektable_bytes(u32 frames)
{
	const struct footer footer = {
		.frames = frames,
		.entry_bytes = ENTRY_SUM_BYTES,
	};

	return table_bytes(&footer);
}

void seektable_write(const struct lf_frame_pos *pos, u32 frames, void *out)
{
	u8 *p = out;
	u32 i;

	lf_put_le32(p, SKIPPABLE_MAGIC);
	lf_put_le32(p + 4, seektable_bytes(frames) - SKIPPABLE_HEAD_BYTES);
	p += SKIPPABLE_HEAD_BYTES;

	for (i = 0; i < frames; i++, p += ENTRY_SUM_BYTES) {
		lf_put_le32(p, pos[i].cbytes);
		lf_put_le32(p + 4, pos[i].ubytes);
		lf_put_le32(p + 8, pos[i].sum);
	}

	lf_put_le32(p, frames);
	p[4] = DESCRIPTOR_SUMS;
	lf_put_le32(p + 5, SEEKABLE_MAGIC);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Image headers. Little-endian; UUIDs are 16 raw bytes.
 *
 *	metadata	u64 version | u64 block size | u64 image size |
 *			u64 generation | 16 image's own layer | 16 base layer
 *	record		u64 start | u64 length | 16 layer | u64 storage
 *
 * Versions 1 to 3: metadata, then records up to the end.
 *
 * Versions 4 and 5: metadata | u8 flags (bit 0: in flight) | u32 S | one LZ4
 * frame with S bytes of content, which are
 *
 *	u32 layers, each 16 UUID | u64 U size | 32 SHA-256 | u32 codec |
 *		u32 frames, each u64 U start | u64 C start | u32 U | u32 C size
 *	version 4:	u32 records | records
 *	version 5:	u32 UUIDs | UUIDs | u32 n | n start deltas | n lengths |
 *			n storage deltas | n indices into the UUIDs
 *
 * in varints of 7 bits a byte, low bits first; storage deltas may be negative
 * (zigzag); deltas begin at 0; units are blocks of 4 KiB whatever the block
 * size says; version 5 leaves out what is zero.
 *
 * The draft of version 4 is one raw LZ4 block, nothing around it, with metadata
 * (version 4) and records up to the end, each followed by a frame table of its
 * own: u64 codec << 24 | frames, and only if that is not 0: u64 U start |
 * u64 C start | frames x { u32 U size | u32 C size }. Such a block cannot be
 * mistaken: its first byte has a count of literals in its upper half, 16 at
 * least, as there is nothing yet that a match could refer to; so, read as
 * metadata, its version is never one of 1 to 5.
 *
 * A table of the draft belongs to a mapping, and mappings that share a frame
 * repeat it. Here, as in the versions that came after, tables belong to
 * layers: the tables of a layer's mappings are joined, and have to agree.
 *
 * An encoded header and its content are held to HEADER_MAX_BYTES each, when
 * written as when read: what was written can be read. Before anything is
 * allocated for a count, the bytes for so many entries must be there.
 */
#include <linux/lazyframe.h>
#include <lz4frame.h>
#include <stdlib.h>

#include "../kmod/lz4frame.h"
#include "header.h"
#include "uuid.h"

#define METADATA_BYTES		64
#define RECORD_BYTES		40
#define PREFIX_BYTES		5	/* flags and size of versions 4 and 5 */
#define LAYER_BYTES		64	/* without frames */
#define FRAME_BYTES		24
#define UUID_BYTES		16

#define FLAG_IN_FLIGHT		0x01

#define DRAFT_MAX_BYTES		(64U << 20)
#define DRAFT_COUNT_BITS	24
#define DRAFT_FRAME_BYTES	8

#define LZ4_MIN_MATCH		4
#define LZ4_MAX_RATIO		255

#define VARINT_PER_ENTRY	4

struct reader {
	const u8 *p;
	size_t left;
	bool failed;		/* something was read past the end */
};

static const u8 *take(struct reader *in, size_t bytes)
{
	const u8 *p = in->p;

	if (bytes > in->left) {
		in->failed = true;
		in->left = 0;
		return NULL;
	}
	in->p += bytes;
	in->left -= bytes;
	return p;
}

static u32 take_u32(struct reader *in)
{
	const u8 *p = take(in, 4);

	return p ? lf_get_le32(p) : 0;
}

static u64 take_u64(struct reader *in)
{
	const u8 *p = take(in, 8);

	return p ? lf_get_le64(p) : 0;
}

static void take_bytes(struct reader *in, void *out, size_t bytes)
{
	const u8 *p = take(in, bytes);

	if (p)
		memcpy(out, p, bytes);
}

static u64 take_varint(struct reader *in)
{
	unsigned int shift;
	u64 value = 0;

	for (shift = 0; shift < 64; shift += 7) {
		const u8 *p = take(in, 1);

		if (!p)
			return 0;
		/* The tenth byte has room for one bit. */
		if (shift == 63 && *p > 1)
			break;
		value |= (u64)(*p & 0x7f) << shift;
		if (!(*p & 0x80))
			return value;
	}
	in->failed = true;
	return 0;
}

static s64 take_signed_varint(struct reader *in)
{
	u64 v = take_varint(in);

	return (s64)(v >> 1) ^ -(s64)(v & 1);
}

static void skip_varints(struct reader *in, u64 count)
{
	while (count-- && !in->failed)
		take_varint(in);
}

static int cut_short(struct error *e)
{
	return error_set(e, -EINVAL, "the header is cut short");
}

/* Room for one entry more. NULL: no memory, @array stays as it is. */
static void *grow(void *array, size_t entry_bytes, size_t used, size_t *room)
{
	size_t want = used ? used * 2 : 16;

	if (used < *room)
		return array;
	array = reallocarray(array, want, entry_bytes);
	if (array)
		*room = want;
	return array;
}

static int add_mapping(struct header *header, size_t *room,
		       const struct header_mapping *mapping, struct error *e)
{
	struct header_mapping *array;

	if (header->mappings == HEADER_MAX_MAPPINGS)
		return error_set(e, -EINVAL,
				 "the header has more than %u mappings",
				 HEADER_MAX_MAPPINGS);
	array = grow(header->mapping, sizeof(*array), header->mappings, room);
	if (!array)
		return no_memory(e);
	header->mapping = array;
	array[header->mappings++] = *mapping;
	return 0;
}

static void read_metadata(struct reader *in, struct header *header)
{
	header->version = take_u64(in);
	header->block_size = take_u64(in);
	header->size = take_u64(in);
	header->generation = take_u64(in);
	take_bytes(in, header->uuid, UUID_BYTES);
	take_bytes(in, header->base_uuid, UUID_BYTES);
}

static int metadata_check(const struct header *header, struct error *e)
{
	if (!header->version || header->version > 5)
		return error_set(e, -EOPNOTSUPP,
				 "unknown header version %llu; versions 1 to 5 are known",
				 (unsigned long long)header->version);
	if (!header->block_size || header->block_size % LF_META_BLOCK ||
	    header->block_size > LAZYFRAME_MAX_FRAME)
		return error_set(e, -EINVAL,
				 "the header's block size is %llu, not a multiple of %u up to %u",
				 (unsigned long long)header->block_size,
				 LF_META_BLOCK, LAZYFRAME_MAX_FRAME);
	if (!header->size || header->size > LF_MAX_IMAGE)
		return error_set(e, -EINVAL,
				 "the header says that the image has %llu bytes; 1 to %llu are possible",
				 (unsigned long long)header->size, LF_MAX_IMAGE);
	return 0;
}

static void read_record(struct reader *in, struct header_mapping *mapping)
{
	mapping->start = take_u64(in);
	mapping->length = take_u64(in);
	take_bytes(in, mapping->uuid, UUID_BYTES);
	mapping->storage = take_u64(in);
}

/* No record at all: the whole image is in its own layer. */
static int map_whole(struct header *header, struct error *e)
{
	struct header_mapping whole = {0};
	size_t room = 0;

	whole.length = (header->size + LF_META_BLOCK - 1) / LF_META_BLOCK *
		       LF_META_BLOCK;
	memcpy(whole.uuid, header->uuid, UUID_BYTES);
	return add_mapping(header, &room, &whole, e);
}

/* @count records, for which the bytes must be there. */
static int read_records(struct reader *in, u64 count, struct header *header,
			struct error *e)
{
	if (count > in->left / RECORD_BYTES)
		return error_set(e, -EINVAL,
				 "the header says that it has %llu mappings, but is too short for them",
				 (unsigned long long)count);
	if (count > HEADER_MAX_MAPPINGS)
		return error_set(e, -EINVAL,
				 "the header has more than %u mappings",
				 HEADER_MAX_MAPPINGS);
	if (!count)
		return map_whole(header, e);

	header->mapping = calloc(count, sizeof(*header->mapping));
	if (!header->mapping)
		return no_memory(e);
	for (; header->mappings < count; header->mappings++)
		read_record(in, &header->mapping[header->mappings]);
	return 0;
}

static int parse_v3(struct reader *in, struct header *header, struct error *e)
{
	if (in->left % RECORD_BYTES)
		return error_set(e, -EINVAL,
				 "the header ends in the middle of a mapping");
	return read_records(in, in->left / RECORD_BYTES, header, e);
}

static int read_frames(struct reader *in, struct header_layer *layer,
		       struct error *e)
{
	u32 count = take_u32(in);

	if (count > in->left / FRAME_BYTES)
		return error_set(e, -EINVAL,
				 "the header says that a layer has %u frames, but is too short for them",
				 count);
	if (count > HEADER_MAX_FRAMES)
		return error_set(e, -EINVAL,
				 "a layer has %u frames, the limit is %u",
				 count, HEADER_MAX_FRAMES);
	if (!count)
		return 0;

	layer->frame = calloc(count, sizeof(*layer->frame));
	if (!layer->frame)
		return no_memory(e);
	for (; layer->frames < count; layer->frames++) {
		struct lf_frame_pos *pos = &layer->frame[layer->frames];

		pos->ustart = take_u64(in);
		pos->cstart = take_u64(in);
		pos->ubytes = take_u32(in);
		pos->cbytes = take_u32(in);
		pos->index = layer->frames;
	}
	return 0;
}

static int read_layers(struct reader *in, struct header *header,
		       struct error *e)
{
	u32 count = take_u32(in);
	int err;

	if (count > in->left / LAYER_BYTES)
		return error_set(e, -EINVAL,
				 "the header says that it has %u layers, but is too short for them",
				 count);
	if (count > HEADER_MAX_BUILDS)
		return error_set(e, -EINVAL,
				 "the header has %u layers, the limit is %u",
				 count, HEADER_MAX_BUILDS);
	if (!count)
		return 0;

	header->layer = calloc(count, sizeof(*header->layer));
	if (!header->layer)
		return no_memory(e);
	while (header->layers < count) {
		struct header_layer *layer = &header->layer[header->layers++];

		take_bytes(in, layer->uuid, UUID_BYTES);
		layer->ubytes = take_u64(in);
		take_bytes(in, layer->sha256, sizeof(layer->sha256));
		layer->codec = take_u32(in);
		err = read_frames(in, layer, e);
		if (err)
			return err;
	}
	return 0;
}

static int read_v4_mappings(struct reader *in, struct header *header,
			    struct error *e)
{
	return read_records(in, take_u32(in), header, e);
}

/* Zeros from where the mappings end so far up to @end. */
static int fill_gap(struct header *header, size_t *room, u64 end,
		    struct error *e)
{
	struct header_mapping gap = {0};

	if (header->mappings) {
		gap = header->mapping[header->mappings - 1];
		gap.start += gap.length;
		gap.storage = 0;
		memset(gap.uuid, 0, UUID_BYTES);
	}
	if (end < gap.start)
		return error_set(e, -EINVAL,
				 "mapping %u overlaps the one before it",
				 header->mappings);
	if (end == gap.start)
		return 0;
	gap.length = end - gap.start;
	return add_mapping(header, room, &gap, e);
}

/*
 * Four columns of varints: one pass finds where each begins, then all four are
 * read side by side. A unit is a block, and no value needs more than 32 bits
 * (16 TiB), so that nothing below can overflow.
 */
static int read_v5_mappings(struct reader *in, struct header *header,
			    struct error *e)
{
	struct reader starts, lengths, storages, indices;
	u64 start = 0, i;
	u32 uuids, count;
	s64 storage = 0;
	size_t room = 0;
	const u8 *uuid;
	int err;

	uuids = take_u32(in);
	if (uuids > HEADER_MAX_BUILDS)
		return error_set(e, -EINVAL,
				 "the header has %u layers, the limit is %u",
				 uuids, HEADER_MAX_BUILDS);
	uuid = take(in, (size_t)uuids * UUID_BYTES);
	count = take_u32(in);
	if (in->failed)
		return cut_short(e);
	if (count > in->left / VARINT_PER_ENTRY)
		return error_set(e, -EINVAL,
				 "the header says that it has %u mappings, but is too short for them",
				 count);

	starts = *in;
	skip_varints(in, count);
	lengths = *in;
	skip_varints(in, count);
	storages = *in;
	skip_varints(in, count);
	indices = *in;
	skip_varints(in, count);
	if (in->failed)
		return error_set(e, -EINVAL,
				 "the header's mappings are cut short or damaged");

	for (i = 0; i < count; i++) {
		u64 delta = take_varint(&starts);
		u64 length = take_varint(&lengths);
		s64 step = take_signed_varint(&storages);
		u64 index = take_varint(&indices);
		struct header_mapping mapping;

		if (delta > UINT32_MAX || length > UINT32_MAX ||
		    step > UINT32_MAX || step < -(s64)UINT32_MAX)
			return error_set(e, -EINVAL,
					 "mapping %llu is out of range",
					 (unsigned long long)i);
		start += delta;
		storage += step;
		if (start > UINT32_MAX || storage < 0 || storage > UINT32_MAX)
			return error_set(e, -EINVAL,
					 "mapping %llu is out of range",
					 (unsigned long long)i);
		if (index >= uuids)
			return error_set(e, -EINVAL,
					 "mapping %llu names layer %llu of %u",
					 (unsigned long long)i,
					 (unsigned long long)index, uuids);

		mapping.start = start * LF_META_BLOCK;
		mapping.length = length * LF_META_BLOCK;
		mapping.storage = (u64)storage * LF_META_BLOCK;
		memcpy(mapping.uuid, uuid + index * UUID_BYTES, UUID_BYTES);

		err = fill_gap(header, &room, mapping.start, e);
		if (!err)
			err = add_mapping(header, &room, &mapping, e);
		if (err)
			return err;
	}

	/* What is mapped behind the end is for header_check() to refuse. */
	start = count ? header->mapping[header->mappings - 1].start +
			header->mapping[header->mappings - 1].length : 0;
	if (start >= header->size)
		return 0;
	return fill_gap(header, &room,
			header->size + (LF_META_BLOCK - header->size %
					LF_META_BLOCK) % LF_META_BLOCK, e);
}

static int read_content(struct reader *in, struct header *header,
			struct error *e)
{
	int err;

	err = read_layers(in, header, e);
	if (!err && header->version == 4)
		err = read_v4_mappings(in, header, e);
	else if (!err)
		err = read_v5_mappings(in, header, e);
	if (err)
		return err;
	if (in->failed)
		return cut_short(e);
	if (in->left)
		return error_set(e, -EINVAL,
				 "%zu bytes follow the header's mappings",
				 in->left);
	return 0;
}

static int parse_v4(struct reader *in, struct header *header, struct error *e)
{
	const u8 *flags = take(in, 1);
	u32 bytes = take_u32(in);
	struct reader content;
	const char *why;
	void *buf;
	int err;

	if (in->failed)
		return cut_short(e);
	if (*flags & ~FLAG_IN_FLIGHT)
		return error_set(e, -EOPNOTSUPP,
				 "the header has unknown flags 0x%02x",
				 *flags);
	header->in_flight = *flags & FLAG_IN_FLIGHT;
	if (bytes > HEADER_MAX_BYTES)
		return error_set(e, -EINVAL,
				 "the header's content has %u bytes, the limit is %u",
				 bytes, HEADER_MAX_BYTES);
	/* So that a few bytes cannot ask for a big buffer. */
	if (bytes / LZ4_MAX_RATIO > in->left)
		return error_set(e, -EINVAL,
				 "the header says that its content has %u bytes, but is too short for them",
				 bytes);

	buf = malloc(bytes + 1);
	if (!buf)
		return no_memory(e);
	err = lf_lz4_frame_decode(in->p, in->left, buf, bytes, true, &why);
	if (err) {
		error_set(e, err, "the header does not decode: %s", why);
	} else {
		content = (struct reader){ .p = buf, .left = bytes };
		err = read_content(&content, header, e);
	}
	free(buf);
	return err;
}

/* One frame of the draft's tables, or (no bytes) a mapping without a table. */
struct piece {
	u8 uuid[UUID_BYTES];
	u32 codec;
	u32 ubytes;
	u32 cbytes;
	u64 ustart;
	u64 cstart;
};

struct pieces {
	struct piece *piece;
	size_t count;
	size_t room;
};

static int add_piece(struct pieces *pieces, const struct piece *piece,
		     struct error *e)
{
	struct piece *array;

	array = grow(pieces->piece, sizeof(*array), pieces->count,
		     &pieces->room);
	if (!array)
		return no_memory(e);
	pieces->piece = array;
	array[pieces->count++] = *piece;
	return 0;
}

static int draft_table(struct reader *in, const struct header_mapping *mapping,
		       struct pieces *pieces, struct error *e)
{
	u64 packed = take_u64(in);
	u32 count = packed & ((1U << DRAFT_COUNT_BITS) - 1);
	u64 codec = packed >> DRAFT_COUNT_BITS;
	struct piece piece = {0};
	int err;

	if (in->failed)
		return cut_short(e);
	if (uuid_is_nil(mapping->uuid)) {
		if (packed)
			return error_set(e, -EINVAL,
					 "a mapping of zeros has a frame table");
		return 0;
	}

	memcpy(piece.uuid, mapping->uuid, UUID_BYTES);
	if (!packed)
		return add_piece(pieces, &piece, e);
	if (codec != LAZYFRAME_CODEC_ZSTD && codec != LAZYFRAME_CODEC_LZ4)
		return error_set(e, -EINVAL,
				 "a frame table has unknown codec %llu",
				 (unsigned long long)codec);
	if (!count)
		return error_set(e, -EINVAL,
				 "a compressed mapping has no frames");

	piece.codec = codec;
	piece.ustart = take_u64(in);
	piece.cstart = take_u64(in);
	if (count > in->left / DRAFT_FRAME_BYTES)
		return error_set(e, -EINVAL,
				 "the header says that a mapping has %u frames, but is too short for them",
				 count);
	while (count--) {
		piece.ubytes = take_u32(in);
		piece.cbytes = take_u32(in);
		if (!piece.ubytes || !piece.cbytes)
			return error_set(e, -EINVAL, "a frame is empty");
		err = add_piece(pieces, &piece, e);
		if (err)
			return err;
		if (check_add_overflow(piece.ustart, (u64)piece.ubytes,
				       &piece.ustart) ||
		    check_add_overflow(piece.cstart, (u64)piece.cbytes,
				       &piece.cstart))
			return error_set(e, -EINVAL,
					 "a frame table is out of range");
	}
	return 0;
}

static int piece_compare(const void *a, const void *b)
{
	const struct piece *l = a, *r = b;
	int order = memcmp(l->uuid, r->uuid, UUID_BYTES);

	if (order)
		return order;
	return l->ustart < r->ustart ? -1 : l->ustart > r->ustart;
}

/* All pieces of one layer, by U start; the same frame may be there often. */
static int join_layer(const struct piece *piece, size_t count,
		      struct header_layer *layer, struct error *e)
{
	struct lf_frame_pos *pos = NULL;
	size_t i;

	memcpy(layer->uuid, piece->uuid, UUID_BYTES);
	layer->codec = piece->codec;
	if (layer->codec != LAZYFRAME_CODEC_NONE) {
		layer->frame = calloc(count, sizeof(*layer->frame));
		if (!layer->frame)
			return no_memory(e);
	}

	for (i = 0; i < count; i++) {
		if (piece[i].codec != layer->codec)
			return error_set(e, -EINVAL,
					 "a layer's mappings have different codecs");
		if (layer->codec == LAZYFRAME_CODEC_NONE)
			continue;
		if (pos && pos->ustart == piece[i].ustart) {
			if (pos->cstart != piece[i].cstart ||
			    pos->ubytes != piece[i].ubytes ||
			    pos->cbytes != piece[i].cbytes)
				return error_set(e, -EINVAL,
						 "a layer's frame tables contradict each other");
			continue;
		}
		pos = &layer->frame[layer->frames];
		pos->ustart = piece[i].ustart;
		pos->cstart = piece[i].cstart;
		pos->ubytes = piece[i].ubytes;
		pos->cbytes = piece[i].cbytes;
		pos->index = layer->frames++;
		layer->ubytes = pos->ustart + pos->ubytes;
	}
	return 0;
}

static int join_layers(struct pieces *pieces, struct header *header,
		       struct error *e)
{
	struct piece *piece = pieces->piece;
	size_t room = 0, i, end;
	int err;

	if (pieces->count)
		qsort(piece, pieces->count, sizeof(*piece), piece_compare);

	for (i = 0; i < pieces->count; i = end) {
		struct header_layer *layer;

		for (end = i + 1; end < pieces->count; end++)
			if (memcmp(piece[i].uuid, piece[end].uuid, UUID_BYTES))
				break;
		if (header->layers == HEADER_MAX_BUILDS)
			return error_set(e, -EINVAL,
					 "the header has more than %u layers",
					 HEADER_MAX_BUILDS);
		layer = grow(header->layer, sizeof(*layer), header->layers,
			     &room);
		if (!layer)
			return no_memory(e);
		header->layer = layer;
		layer += header->layers++;
		memset(layer, 0, sizeof(*layer));
		err = join_layer(&piece[i], end - i, layer, e);
		if (err)
			return err;
	}
	return 0;
}

static int read_draft(struct reader *in, struct header *header,
		      struct error *e)
{
	struct header_mapping mapping;
	struct pieces pieces = {0};
	size_t room = 0;
	int err = 0;

	while (in->left && !err) {
		read_record(in, &mapping);
		if (in->failed)
			err = error_set(e, -EINVAL,
					"the header ends in the middle of a mapping");
		if (!err)
			err = draft_table(in, &mapping, &pieces, e);
		if (!err)
			err = add_mapping(header, &room, &mapping, e);
	}
	if (!err)
		err = join_layers(&pieces, header, e);
	free(pieces.piece);
	return err;
}

/* A length that did not fit into its half of the token. */
static bool add_length(struct reader *in, size_t *length)
{
	const u8 *p;

	do {
		p = take(in, 1);
		if (!p)
			return false;
		*length += *p;
	} while (*p == 255);
	return true;
}

/*
 * What a raw LZ4 block decodes to, in bytes, found without decoding it: so the
 * buffer is no bigger than it must be, and what is no LZ4 block costs nothing.
 */
static bool lz4_block_content(const void *data, size_t bytes, size_t *content)
{
	struct reader in = { .p = data, .left = bytes };
	size_t length, offset;
	const u8 *p;

	*content = 0;
	for (;;) {
		p = take(&in, 1);
		if (!p)
			return false;
		length = *p >> 4;
		if (length == 15 && !add_length(&in, &length))
			return false;
		*content += length;
		if (*content > DRAFT_MAX_BYTES || !take(&in, length))
			return false;
		if (!in.left)
			return true;

		length = (*p & 15) + LZ4_MIN_MATCH;
		p = take(&in, 2);
		if (!p)
			return false;
		offset = p[0] | p[1] << 8;
		if (!offset || offset > *content)
			return false;
		if (length == 15 + LZ4_MIN_MATCH && !add_length(&in, &length))
			return false;
		*content += length;
		if (*content > DRAFT_MAX_BYTES)
			return false;
	}
}

/* -ENOENT: not the draft at all */
static int parse_draft(const void *data, size_t bytes, struct header *header,
		       struct error *e)
{
	struct reader in = {0};
	size_t content;
	u8 *buf;
	int err;

	if (!lz4_block_content(data, bytes, &content) ||
	    content < METADATA_BYTES)
		return -ENOENT;
	buf = malloc(content);
	if (!buf)
		return no_memory(e);

	err = -ENOENT;
	if (LZ4_decompress_safe(data, (char *)buf, bytes, content) !=
	    (int)content)
		goto out;
	in.p = buf;
	in.left = content;
	read_metadata(&in, header);
	if (header->version != 4)
		goto out;
	err = metadata_check(header, e);
	if (!err)
		err = read_draft(&in, header, e);
out:
	free(buf);
	return err;
}

int header_parse(const void *data, size_t bytes, struct header *header,
		 struct error *e)
{
	struct reader in = { .p = data, .left = bytes };
	u64 version;
	int err;

	memset(header, 0, sizeof(*header));
	if (bytes > HEADER_MAX_BYTES)
		return error_set(e, -EINVAL,
				 "the header has %zu bytes, the limit is %u",
				 bytes, HEADER_MAX_BYTES);
	if (bytes >= METADATA_BYTES)
		read_metadata(&in, header);
	version = header->version;

	switch (version) {
	case 1:
	case 2:
	case 3:
		err = metadata_check(header, e);
		if (!err)
			err = parse_v3(&in, header, e);
		break;
	case 4:
	case 5:
		err = metadata_check(header, e);
		if (!err)
			err = parse_v4(&in, header, e);
		break;
	default:
		err = parse_draft(data, bytes, header, e);
		if (err == -ENOENT && bytes < METADATA_BYTES)
			err = error_set(e, -EINVAL,
					"the header has %zu bytes, it must have %u at least",
					bytes, METADATA_BYTES);
		else if (err == -ENOENT)
			err = error_set(e, -EOPNOTSUPP,
					"not a header, or one of unknown version %llu; versions 1 to 5 are known",
					(unsigned long long)version);
	}
	if (!err)
		err = header_check(header, e);
	if (err)
		header_free(header);
	return err;
}

static int layer_check(const struct header_layer *layer, struct error *e)
{
	u64 uend = 0, cend = 0;
	char text[UUID_TEXT];
	u32 i;

	uuid_text(layer->uuid, text);
	if (layer->codec != LAZYFRAME_CODEC_NONE &&
	    layer->codec != LAZYFRAME_CODEC_ZSTD &&
	    layer->codec != LAZYFRAME_CODEC_LZ4)
		return error_set(e, -EINVAL, "layer %s has unknown codec %u",
				 text, layer->codec);
	if (layer->codec == LAZYFRAME_CODEC_NONE && layer->frames)
		return error_set(e, -EINVAL,
				 "layer %s is not compressed, but has a frame table",
				 text);
	if (layer->ubytes > LF_MAX_IMAGE)
		return error_set(e, -EINVAL,
				 "layer %s has %llu bytes, the limit is %llu",
				 text, (unsigned long long)layer->ubytes,
				 LF_MAX_IMAGE);
	if (layer->frames > HEADER_MAX_FRAMES)
		return error_set(e, -EINVAL,
				 "layer %s has %u frames, the limit is %u",
				 text, layer->frames, HEADER_MAX_FRAMES);

	for (i = 0; i < layer->frames; i++) {
		const struct lf_frame_pos *pos = &layer->frame[i];

		if (!pos->ubytes || pos->ubytes > LAZYFRAME_MAX_FRAME ||
		    !pos->cbytes || pos->cbytes > LAZYFRAME_MAX_CFRAME)
			return error_set(e, -EINVAL,
					 "frame %u of layer %s is empty or too big (%u bytes, compressed %u)",
					 i, text, pos->ubytes, pos->cbytes);
		if (pos->ustart < uend || pos->cstart < cend)
			return error_set(e, -EINVAL,
					 "frame %u of layer %s begins before the one before it ends",
					 i, text);
		if (check_add_overflow(pos->ustart, (u64)pos->ubytes, &uend) ||
		    uend > layer->ubytes)
			return error_set(e, -EINVAL,
					 "frame %u ends behind its layer %s",
					 i, text);
		if (check_add_overflow(pos->cstart, (u64)pos->cbytes, &cend) ||
		    cend > LF_MAX_IMAGE)
			return error_set(e, -EINVAL,
					 "the data of frame %u of layer %s is out of range",
					 i, text);
	}
	return 0;
}

static int layers_check(const struct header *header, struct error *e)
{
	static const u8 nil[UUID_BYTES];
	const u8 *last = nil;
	char text[UUID_TEXT];
	u32 i;
	int err;

	if (header->layers > HEADER_MAX_BUILDS)
		return error_set(e, -EINVAL,
				 "the header has %u layers, the limit is %u",
				 header->layers, HEADER_MAX_BUILDS);
	for (i = 0; i < header->layers; i++) {
		const struct header_layer *layer = &header->layer[i];

		if (memcmp(layer->uuid, last, UUID_BYTES) <= 0) {
			uuid_text(layer->uuid, text);
			return error_set(e, -EINVAL,
					 "layer %s is not in order, twice there, or nil",
					 text);
		}
		last = layer->uuid;
		err = layer_check(layer, e);
		if (err)
			return err;
	}
	return 0;
}

/* The frame that holds @off, NULL where none does. */
static const struct lf_frame_pos *find_frame(const struct header_layer *layer,
					     u64 off)
{
	const struct lf_frame_pos *pos;
	u32 low = 0, high = layer->frames;

	while (low < high) {
		u32 mid = low + (high - low) / 2;

		if (layer->frame[mid].ustart <= off)
			low = mid + 1;
		else
			high = mid;
	}
	if (!high)
		return NULL;
	pos = &layer->frame[high - 1];
	return off - pos->ustart < pos->ubytes ? pos : NULL;
}

/*
 * Which frames follow each other without a gap, so that one look at a mapping's
 * first and last frame says whether all between are there: however many
 * mappings cover however many frames, the check takes O((n + frames) log n).
 * Frames of one stretch have one number; @first is a layer's place in @number.
 */
struct stretches {
	size_t *first;
	u32 *number;
};

static void stretches_free(struct stretches *s)
{
	free(s->first);
	free(s->number);
}

static int stretches_init(struct stretches *s, const struct header *header)
{
	size_t frames = 0;
	u32 i, j, number;

	for (i = 0; i < header->layers; i++)
		frames += header->layer[i].frames;
	s->first = calloc(header->layers + 1, sizeof(*s->first));
	s->number = calloc(frames + 1, sizeof(*s->number));
	if (!s->first || !s->number) {
		stretches_free(s);
		return -ENOMEM;
	}

	frames = 0;
	for (i = 0; i < header->layers; i++) {
		const struct lf_frame_pos *pos = header->layer[i].frame;

		number = 0;
		s->first[i] = frames;
		for (j = 0; j < header->layer[i].frames; j++) {
			if (j && pos[j].ustart !=
				 pos[j - 1].ustart + pos[j - 1].ubytes)
				number++;
			s->number[frames++] = number;
		}
	}
	return 0;
}

static bool covered(const struct header *header, const struct stretches *s,
		    const struct header_layer *layer, u64 start, u64 end)
{
	const u32 *number = s->number + s->first[layer - header->layer];
	const struct lf_frame_pos *first = find_frame(layer, start);
	const struct lf_frame_pos *last = find_frame(layer, end - 1);

	return first && last &&
	       number[first - layer->frame] == number[last - layer->frame];
}

static int storage_check(const struct header *header,
			 const struct stretches *stretches, u32 i,
			 struct error *e)
{
	const struct header_mapping *mapping = &header->mapping[i];
	const struct header_layer *layer;
	char text[UUID_TEXT];
	u64 end;

	if (uuid_is_nil(mapping->uuid))
		return 0;
	uuid_text(mapping->uuid, text);
	if (mapping->storage % LF_META_BLOCK)
		return error_set(e, -EINVAL,
				 "mapping %u begins at %llu in its layer, not a multiple of %u",
				 i, (unsigned long long)mapping->storage,
				 LF_META_BLOCK);
	/* The length was checked, so there is no overflow below this limit. */
	if (mapping->storage >= LF_MAX_IMAGE)
		return error_set(e, -EINVAL, "mapping %u is out of range", i);
	end = mapping->storage + mapping->length;

	layer = header_layer(header, mapping->uuid);
	if (!layer)
		return 0;
	/* Not compressed, size not known */
	if (layer->codec == LAZYFRAME_CODEC_NONE && !layer->ubytes)
		return 0;
	if (mapping->storage >= layer->ubytes ||
	    (end > layer->ubytes && end - layer->ubytes >= header->block_size))
		return error_set(e, -EINVAL,
				 "mapping %u ends at %llu in layer %s, which has only %llu bytes",
				 i, (unsigned long long)end, text,
				 (unsigned long long)layer->ubytes);
	if (end > layer->ubytes)
		end = layer->ubytes;
	if (layer->codec != LAZYFRAME_CODEC_NONE &&
	    !covered(header, stretches, layer, mapping->storage, end))
		return error_set(e, -EINVAL,
				 "mapping %u needs bytes %llu to %llu of layer %s, and no frame has some of them",
				 i, (unsigned long long)mapping->storage,
				 (unsigned long long)end, text);
	return 0;
}

static int mappings_check(const struct header *header,
			  const struct stretches *stretches, struct error *e)
{
	u64 end = 0;
	u32 i;
	int err;

	if (header->mappings > HEADER_MAX_MAPPINGS)
		return error_set(e, -EINVAL,
				 "the header has %u mappings, the limit is %u",
				 header->mappings, HEADER_MAX_MAPPINGS);
	for (i = 0; i < header->mappings; i++) {
		const struct header_mapping *mapping = &header->mapping[i];

		if (mapping->start != end)
			return error_set(e, -EINVAL,
					 "mapping %u begins at %llu, the one before it ends at %llu",
					 i, (unsigned long long)mapping->start,
					 (unsigned long long)end);
		if (!mapping->length || mapping->length % LF_META_BLOCK)
			return error_set(e, -EINVAL,
					 "mapping %u has %llu bytes, not a multiple of %u",
					 i, (unsigned long long)mapping->length,
					 LF_META_BLOCK);
		/* Also keeps lengths, and all sums of them, far from 2^64. */
		if (end >= header->size ||
		    mapping->length >= header->size - end + header->block_size)
			return error_set(e, -EINVAL,
					 "mapping %u ends behind the image", i);
		err = storage_check(header, stretches, i, e);
		if (err)
			return err;
		end += mapping->length;
	}
	if (end < header->size)
		return error_set(e, -EINVAL,
				 "the mappings end at %llu, the image has %llu bytes",
				 (unsigned long long)end,
				 (unsigned long long)header->size);
	return 0;
}

int header_check(const struct header *header, struct error *e)
{
	struct stretches stretches;
	int err;

	err = metadata_check(header, e);
	if (err)
		return err;
	err = layers_check(header, e);
	if (err)
		return err;
	if (stretches_init(&stretches, header))
		return no_memory(e);
	err = mappings_check(header, &stretches, e);
	stretches_free(&stretches);
	return err;
}

static u8 *put_bytes(u8 *p, const void *data, size_t bytes)
{
	memcpy(p, data, bytes);
	return p + bytes;
}

static u8 *write_metadata(u8 *p, const struct header *header)
{
	p = lf_put_le64(p, header->version);
	p = lf_put_le64(p, header->block_size);
	p = lf_put_le64(p, header->size);
	p = lf_put_le64(p, header->generation);
	p = put_bytes(p, header->uuid, UUID_BYTES);
	return put_bytes(p, header->base_uuid, UUID_BYTES);
}

static u8 *write_records(u8 *p, const struct header *header)
{
	u32 i;

	for (i = 0; i < header->mappings; i++) {
		const struct header_mapping *mapping = &header->mapping[i];
		bool zeros = uuid_is_nil(mapping->uuid);

		p = lf_put_le64(p, mapping->start);
		p = lf_put_le64(p, mapping->length);
		p = put_bytes(p, mapping->uuid, UUID_BYTES);
		/* Equal headers give equal bytes. */
		p = lf_put_le64(p, zeros ? 0 : mapping->storage);
	}
	return p;
}

static u8 *write_layers(u8 *p, const struct header *header)
{
	u32 i, j;

	p = lf_put_le32(p, header->layers);
	for (i = 0; i < header->layers; i++) {
		const struct header_layer *layer = &header->layer[i];

		p = put_bytes(p, layer->uuid, UUID_BYTES);
		p = lf_put_le64(p, layer->ubytes);
		p = put_bytes(p, layer->sha256, sizeof(layer->sha256));
		p = lf_put_le32(p, layer->codec);
		p = lf_put_le32(p, layer->frames);
		for (j = 0; j < layer->frames; j++) {
			p = lf_put_le64(p, layer->frame[j].ustart);
			p = lf_put_le64(p, layer->frame[j].cstart);
			p = lf_put_le32(p, layer->frame[j].ubytes);
			p = lf_put_le32(p, layer->frame[j].cbytes);
		}
	}
	return p;
}

static int too_big(u64 bytes, struct error *e)
{
	return error_set(e, -EFBIG,
			 "the header would have %llu bytes, the limit is %u; use bigger frames, or fewer layers",
			 (unsigned long long)bytes, HEADER_MAX_BYTES);
}

static int write_v3(const struct header *header, void **data, size_t *bytes,
		    struct error *e)
{
	char text[UUID_TEXT];
	u64 size;
	u32 i;
	u8 *p;

	for (i = 0; i < header->layers; i++) {
		if (header->layer[i].codec == LAZYFRAME_CODEC_NONE)
			continue;
		uuid_text(header->layer[i].uuid, text);
		return error_set(e, -EINVAL,
				 "a header of version 3 cannot describe layer %s, which is compressed; write version 4",
				 text);
	}
	size = METADATA_BYTES + (u64)header->mappings * RECORD_BYTES;
	if (size > HEADER_MAX_BYTES)
		return too_big(size, e);

	p = malloc(size);
	if (!p)
		return no_memory(e);
	*data = p;
	*bytes = size;
	write_records(write_metadata(p, header), header);
	return 0;
}

static u64 content_bytes(const struct header *header)
{
	u64 bytes = 2 * sizeof(u32) + (u64)header->layers * LAYER_BYTES +
		    (u64)header->mappings * RECORD_BYTES;
	u32 i;

	for (i = 0; i < header->layers; i++)
		bytes += (u64)header->layer[i].frames * FRAME_BYTES;
	return bytes;
}

static int write_v4(const struct header *header, void **data, size_t *bytes,
		    struct error *e)
{
	const LZ4F_preferences_t prefs = {
		.frameInfo = {
			.blockSizeID = LZ4F_max4MB,
			.blockMode = LZ4F_blockIndependent,
			.blockChecksumFlag = LZ4F_blockChecksumEnabled,
			.contentChecksumFlag = LZ4F_contentChecksumEnabled,
		},
	};
	u64 size = content_bytes(header);
	size_t bound, packed;
	u8 *content, *p;
	int err = -ENOMEM;
	u8 *out = NULL;

	if (size > HEADER_MAX_BYTES)
		return too_big(size, e);
	bound = LZ4F_compressFrameBound(size, &prefs);
	content = malloc(size);
	out = malloc(METADATA_BYTES + PREFIX_BYTES + bound);
	if (!content || !out) {
		no_memory(e);
		goto fail;
	}

	p = write_layers(content, header);
	p = lf_put_le32(p, header->mappings);
	write_records(p, header);

	p = write_metadata(out, header);
	*p++ = 0;
	p = lf_put_le32(p, size);
	packed = LZ4F_compressFrame(p, bound, content, size, &prefs);
	if (LZ4F_isError(packed)) {
		err = error_set(e, -EIO, "cannot compress the header: %s",
				LZ4F_getErrorName(packed));
		goto fail;
	}
	packed += p - out;
	if (packed > HEADER_MAX_BYTES) {
		err = too_big(packed, e);
		goto fail;
	}
	free(content);
	*data = out;
	*bytes = packed;
	return 0;

fail:
	free(out);
	free(content);
	return err;
}

int header_write(const struct header *header, void **data, size_t *bytes,
		 struct error *e)
{
	int err;

	err = header_check(header, e);
	if (err)
		return err;
	if (header->in_flight)
		return error_set(e, -EINVAL,
				 "the header describes a layer that is not complete, so it is not to be stored");
	switch (header->version) {
	case 3:
		return write_v3(header, data, bytes, e);
	case 4:
		return write_v4(header, data, bytes, e);
	}
	return error_set(e, -EOPNOTSUPP,
			 "headers of version %llu are read, but not written; write version 3 or 4",
			 (unsigned long long)header->version);
}

const struct header_mapping *header_find(const struct header *header, u64 off)
{
	u32 low = 0, high = header->mappings;

	while (low < high) {
		u32 mid = low + (high - low) / 2;
		const struct header_mapping *mapping = &header->mapping[mid];

		if (mapping->start + mapping->length <= off)
			low = mid + 1;
		else
			high = mid;
	}
	return high < header->mappings && off < header->size ?
	       &header->mapping[high] : NULL;
}

const struct header_layer *header_layer(const struct header *header,
					const u8 uuid[16])
{
	u32 low = 0, high = header->layers;

	while (low < high) {
		u32 mid = low + (high - low) / 2;
		int order = memcmp(header->layer[mid].uuid, uuid, UUID_BYTES);

		if (!order)
			return &header->layer[mid];
		if (order < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

void header_free(struct header *header)
{
	u32 i;

	for (i = 0; i < header->layers; i++)
		free(header->layer[i].frame);
	free(header->layer);
	free(header->mapping);
	memset(header, 0, sizeof(*header));
}

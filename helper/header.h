/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Image headers, versions 1 to 5: the object that maps an image's extents
 * onto layers. No I/O. Numbers are little-endian on the wire; UUIDs are 16
 * bytes in RFC order.
 */
#ifndef LF_HEADER_H
#define LF_HEADER_H

#include "../kmod/disk.h"
#include "error.h"

#define HEADER_MAX_BYTES	(256U << 20)	/* object, and content; read and write */
#define HEADER_MAX_BUILDS	LF_MAX_LAYERS
#define HEADER_MAX_MAPPINGS	LF_MAX_EXTENTS
#define HEADER_MAX_FRAMES	LF_MAX_FRAMES	/* per layer */

/**
 * struct header_layer - one entry of the builds section (versions 4 and 5)
 * @uuid: the layer
 * @ubytes: size of its data file in U space; 0 with no codec: not known. The
 *	    draft does not tell: there, where the last frame ends
 * @sha256: of those bytes; all zero: unknown
 * @codec: LAZYFRAME_CODEC_*
 * @frame: @frames entries, ascending in U and C, gaps allowed (frames that no
 *	   mapping needs are often left out); no sums; none without a codec
 */
struct header_layer {
	u8 uuid[16];
	u64 ubytes;
	u8 sha256[32];
	u32 codec;
	u32 frames;
	struct lf_frame_pos *frame;
};

/* @uuid all zero: zeros, @storage is meaningless */
struct header_mapping {
	u64 start;
	u64 length;
	u8 uuid[16];
	u64 storage;
};

/**
 * struct header - a header, any version
 * @layer: @layers entries, ascending by UUID bytes; none for versions 1 to 3
 * @mapping: @mappings entries, ascending, cover [0, @size) without gap; the
 *	     last one may overhang @size by less than a block
 */
struct header {
	u64 version;
	u64 block_size;
	u64 size;
	u64 generation;
	u8 uuid[16];
	u8 base_uuid[16];
	bool in_flight;
	u32 layers;
	u32 mappings;
	struct header_layer *layer;
	struct header_mapping *mapping;
};

/**
 * header_parse - decode and check a header of version 1 to 5
 * @data: the object's bytes
 * @bytes: how many
 * @header: out; release with header_free(); after an error there is nothing
 *	    to release
 *
 * Also reads the layout of the first, never shipped V4 (see header.c), where
 * it is not ambiguous. Time and memory are bounded by @bytes and
 * HEADER_MAX_BYTES. A header of version 1 to 4 without mappings maps the whole
 * image to its own layer. A header that is in flight is parsed; whether it is
 * good for anything is the caller's decision.
 *
 * -EINVAL or -EBADMSG: damaged; -EOPNOTSUPP: not a header, or a feature that
 * is not known; -ENOMEM.
 */
int header_parse(const void *data, size_t bytes, struct header *header,
		 struct error *e);

/**
 * header_check - is it one that header_write() may write and a device may use?
 *
 * Full cover, no overlap, ascending, multiples of 4 KiB (whatever the block
 * size: single pages of bigger blocks may be stored), storage inside the
 * layer, every mapped byte inside some frame of a compressed layer. A mapping
 * may overhang the image and its layer by less than a block.
 * header_parse() calls it too.
 */
int header_check(const struct header *header, struct error *e);

/**
 * header_write - encode as @header->version, 3 or 4; deterministic
 * @data: out, malloc()ed; the caller frees
 * @bytes: out
 *
 * What header_check() refuses is not written; nor are headers in flight, and
 * compressed layers as version 3. Version 3 does not list layers. -EFBIG:
 * more than HEADER_MAX_BYTES.
 */
int header_write(const struct header *header, void **data, size_t *bytes,
		 struct error *e);

/**
 * header_find - the mapping that holds an image offset
 *
 * Return: NULL behind the end. O(log mappings).
 */
const struct header_mapping *header_find(const struct header *header, u64 off);

/**
 * header_layer - the entry of a layer, or NULL
 *
 * For a version below 4, NULL means that the layer is not compressed. From 4
 * on it means that nothing is known: the layer's own header has to tell.
 */
const struct header_layer *header_layer(const struct header *header,
					const u8 uuid[16]);

void header_free(struct header *header);

#endif

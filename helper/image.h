/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An image as a URL names it: a header with its layers, or one data object.
 */
#ifndef LF_IMAGE_H
#define LF_IMAGE_H

#include "../kmod/disk.h"
#include "error.h"
#include "sha256.h"

/**
 * struct image_layer - a layer, found and opened
 * @uuid: from the header; made from URL and validator for a single object
 * @ubytes: size in U space
 * @cbytes: size of the data object
 * @codec: LAZYFRAME_CODEC_*
 * @sums: do the frames carry checksums of their own (from the seek table)?
 * @has_sha256: is @sha256 known?
 * @locator: URL of the data object
 * @validator: its entity tag, or ""
 * @data_end: C offset behind which the data object holds no frames: where its
 *	      seek table begins, else @cbytes
 * @frame: @frames entries, ascending; gaps allowed. For raw objects without
 *	   a table, runs of equal size are made up.
 */
struct image_layer {
	u8 uuid[16];
	u64 ubytes;
	u64 cbytes;
	u32 codec;
	u32 frames;
	bool sums;
	bool has_sha256;
	u8 sha256[32];
	char *locator;
	char *validator;
	u64 data_end;
	struct lf_frame_pos *frame;
};

/* @layer: index; what no extent covers is zero */
struct image_extent {
	u64 start;
	u64 length;
	u64 storage;
	u32 layer;
};

/**
 * struct image - all that is needed to attach, inspect or verify
 * @url: what image_open() was given
 * @header_version: 0 for a single data object
 * @sha256: of the header, in hex; "" for a single data object
 */
struct image {
	char *url;
	u8 uuid[16];
	u8 base_uuid[16];
	u64 bytes;
	u64 block_size;
	u64 generation;
	u64 header_version;
	char sha256[SHA256_TEXT];
	u32 layers;
	u32 extents;
	struct image_layer *layer;
	struct image_extent *extent;
};

/**
 * image_open - read what a URL names
 * @url: of a header, a seekable-zstd or LZ4 object with a seek table, or a raw object
 *
 * Reads the header and each layer's seek table, no data. A header's layers
 * are looked for beside it, at <base>/<layer>/<name>[.zstd|.lz4]. A layer's
 * own seek table is preferred to the header's table: it is complete and has
 * checksums; where both exist they must agree.
 */
int image_open(const char *url, struct image **image, struct error *e);
void image_free(struct image *image);

/**
 * image_split_url - <base>/<uuid>/<name>.header
 * @url: of a header
 * @base: out, malloc()ed: what stands before <uuid>, with its slash
 * @name: out, malloc()ed: without suffix, escaped as it is in the URL
 *
 * After an error both are to be freed, too; they are left alone or NULL then.
 */
int image_split_url(const char *url, char **base, char **name,
		    struct error *e);

/**
 * image_read_frame - fetch, decode and check one frame
 * @out: frame[@index].ubytes bytes
 *
 * -EBADMSG with the text naming the frame where any checksum is wrong.
 */
int image_read_frame(const struct image_layer *layer, u32 index, void *out,
		     struct error *e);

/**
 * image_decode_frame - decode and check one frame that was fetched
 * @data: the frame, frame[@index].cbytes bytes
 * @out: frame[@index].ubytes bytes
 *
 * -EBADMSG as image_read_frame(). Both may be called from any thread.
 */
int image_decode_frame(const struct image_layer *layer, u32 index,
		       const void *data, void *out, struct error *e);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An encoder of headers that shares nothing with the one under test: bytes put
 * one after another, as the layouts are written down.
 */
#ifndef LF_TEST_WIRE_H
#define LF_TEST_WIRE_H

#include <lz4.h>
#include <lz4frame.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct wire {
	uint8_t *data;
	size_t len, room;
};

static inline void wire_put(struct wire *w, const void *data, size_t len)
{
	if (w->len + len > w->room) {
		w->room = 2 * (w->len + len) + 64;
		w->data = realloc(w->data, w->room);
	}
	if (len)
		memcpy(w->data + w->len, data, len);
	w->len += len;
}

static inline void wire_u8(struct wire *w, unsigned int v)
{
	uint8_t b = v;

	wire_put(w, &b, 1);
}

static inline void wire_u32(struct wire *w, uint32_t v)
{
	int i;

	for (i = 0; i < 4; i++)
		wire_u8(w, v >> 8 * i & 255);
}

static inline void wire_u64(struct wire *w, uint64_t v)
{
	wire_u32(w, v);
	wire_u32(w, v >> 32);
}

/* A UUID of 16 equal bytes */
static inline void wire_uuid(struct wire *w, unsigned int byte)
{
	int i;

	for (i = 0; i < 16; i++)
		wire_u8(w, byte);
}

static inline void wire_uvarint(struct wire *w, uint64_t v)
{
	for (; v >= 128; v >>= 7)
		wire_u8(w, 128 | (v & 127));
	wire_u8(w, v);
}

static inline void wire_svarint(struct wire *w, int64_t v)
{
	wire_uvarint(w, v < 0 ? 2 * (uint64_t)-(v + 1) + 1 : 2 * (uint64_t)v);
}

static inline void wire_metadata(struct wire *w, uint64_t version,
				 uint64_t block_size, uint64_t size)
{
	wire_u64(w, version);
	wire_u64(w, block_size);
	wire_u64(w, size);
	wire_u64(w, 3);		/* generation */
	wire_uuid(w, 0xaa);	/* own layer */
	wire_uuid(w, 0xbb);	/* base layer */
}

static inline void wire_record(struct wire *w, uint64_t start, uint64_t length,
			       unsigned int uuid, uint64_t storage)
{
	wire_u64(w, start);
	wire_u64(w, length);
	wire_uuid(w, uuid);
	wire_u64(w, storage);
}

/* A layer up to its number of frames */
static inline void wire_layer(struct wire *w, unsigned int uuid,
			      uint64_t ubytes, uint32_t codec, uint32_t frames)
{
	int i;

	wire_uuid(w, uuid);
	wire_u64(w, ubytes);
	for (i = 0; i < 32; i++)
		wire_u8(w, uuid + i);
	wire_u32(w, codec);
	wire_u32(w, frames);
}

static inline void wire_frame(struct wire *w, uint64_t ustart, uint64_t cstart,
			      uint32_t ubytes, uint32_t cbytes)
{
	wire_u64(w, ustart);
	wire_u64(w, cstart);
	wire_u32(w, ubytes);
	wire_u32(w, cbytes);
}

/* flags, the size @says, and @content as an LZ4 frame, as versions 4, 5 have it */
static inline void wire_content(struct wire *w, const struct wire *content,
				unsigned int flags, uint32_t says)
{
	const LZ4F_preferences_t prefs = {
		.frameInfo = {
			.blockSizeID = LZ4F_max4MB,
			.blockMode = LZ4F_blockIndependent,
			.blockChecksumFlag = LZ4F_blockChecksumEnabled,
			.contentChecksumFlag = LZ4F_contentChecksumEnabled,
		},
	};
	size_t bound = LZ4F_compressFrameBound(content->len, &prefs);
	void *out = malloc(bound);
	size_t len = LZ4F_compressFrame(out, bound, content->data,
					content->len, &prefs);

	if (LZ4F_isError(len))
		abort();
	wire_u8(w, flags);
	wire_u32(w, says);
	wire_put(w, out, len);
	free(out);
}

/* The draft of version 4: all of it as one raw LZ4 block, in place */
static inline void wire_draft(struct wire *w)
{
	int bound = LZ4_compressBound(w->len);
	char *out = malloc(bound);
	int len = LZ4_compress_default((char *)w->data, out, w->len, bound);

	if (len <= 0)
		abort();
	w->len = 0;
	wire_put(w, out, len);
	free(out);
}

static inline void wire_free(struct wire *w)
{
	free(w->data);
	memset(w, 0, sizeof(*w));
}

#endif

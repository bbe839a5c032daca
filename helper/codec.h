/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Frames in user space: encode one, decode one.
 */
#ifndef LF_CODEC_H
#define LF_CODEC_H

#include "../kmod/pure.h"
#include "error.h"

/**
 * struct codec - one way to store a frame
 * @id: LAZYFRAME_CODEC_*
 * @name: as after --codec
 * @suffix: of the data object's name
 * @level_min: lowest level; 0 together with @level_max: the codec has none
 * @level_max: highest level
 * @level: default
 */
struct codec {
	u32 id;
	const char *name;
	const char *suffix;
	int level_min;
	int level_max;
	int level;
};

/* NULL where there is none. */
const struct codec *codec_by_name(const char *name);
const struct codec *codec_by_id(u32 id);

struct codec_encoder;

/**
 * codec_encoder_new - what one thread needs to encode frames
 * @codec: not LAZYFRAME_CODEC_NONE, which has nothing to encode
 * @level: checked by the caller
 * @frame_bytes: the largest frame that it will be given
 */
int codec_encoder_new(const struct codec *codec, int level, u32 frame_bytes,
		      struct codec_encoder **encoder, struct error *e);
void codec_encoder_free(struct codec_encoder *encoder);

/**
 * codec_bound - the most bytes that a frame of @bytes can take
 *
 * Both formats store what does not compress, so this is @bytes and the
 * overhead of frame and blocks.
 */
size_t codec_bound(const struct codec_encoder *encoder, size_t bytes);

/**
 * codec_encode - make one complete frame
 * @dst: codec_bound(@bytes) bytes
 * @src: @bytes of them, at most the encoder's frame_bytes, at least 1
 * @cbytes: out
 *
 * The frame carries its content's size and checksum and decodes on its own.
 */
int codec_encode(struct codec_encoder *encoder, void *dst, const void *src,
		 size_t bytes, size_t *cbytes, struct error *e);

/**
 * codec_decode - decode one complete frame
 * @id: LAZYFRAME_CODEC_*
 * @src: the frame, nothing before it and nothing behind it
 * @dst: exactly @dlen bytes will be written
 * @why: out, a sentence that stays valid
 *
 * Checks every checksum that the frame carries. Any thread.
 *
 * Return: 0 or -EBADMSG, -EOPNOTSUPP, -ENOMEM
 */
int codec_decode(u32 id, const void *src, size_t slen, void *dst, size_t dlen,
		 const char **why);

/**
 * codec_detect - what a data object's first bytes look like
 * @head: at least 4 bytes
 *
 * Return: LAZYFRAME_CODEC_NONE where they are neither zstd's nor LZ4's.
 */
u32 codec_detect(const void *head);

#endif

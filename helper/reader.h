/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An image's bytes by offset, for work that goes through it from start to end:
 * frames are fetched and decoded when they are needed, and a few are kept.
 */
#ifndef LF_READER_H
#define LF_READER_H

#include "image.h"

struct image_reader;

/**
 * image_reader_new - begin to read
 * @image: stays the caller's, and must outlive the reader
 *
 * One thread at a time. Keeps up to 32 decoded frames, of 64 MiB or one frame
 * in total.
 */
int image_reader_new(const struct image *image, struct image_reader **reader,
		     struct error *e);
void image_reader_free(struct image_reader *reader);

/**
 * image_peek - look at what is at @off
 * @off: below the image's size
 * @data: out: bytes that stay valid until the next call; NULL: zeros
 * @bytes: out: how many, at least 1
 *
 * Behind the end of a layer its image reads as zeros.
 */
int image_peek(struct image_reader *reader, u64 off, const u8 **data,
	       u64 *bytes, struct error *e);

/**
 * image_read - copy bytes out
 *
 * -EINVAL: behind the image's end.
 */
int image_read(struct image_reader *reader, u64 off, void *buf, size_t len,
	       struct error *e);

#endif

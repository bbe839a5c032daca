/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writing objects to S3 and what speaks like it: what is small in one request,
 * what is big in parts, of which several are on their way at a time.
 *
 * Nothing that exists is written over unless that is asked for: each request that
 * makes an object visible is conditional, and where the store does not know
 * conditions, a look before finds what is there. Each body has a checksum, which
 * the store compares.
 *
 * Parts grow, so that 10,000 of them, which is all that S3 takes, hold an object
 * of the size that S3 takes, while small objects need little memory.
 */
#ifndef LF_S3PUT_H
#define LF_S3PUT_H

#include "object.h"
#include "s3ask.h"

#define S3_MAX_PARTS	10000
#define S3_MIN_PART	(5ULL << 20)
#define S3_MAX_PART	(5ULL << 30)
#define S3_MAX_OBJECT	(5ULL << 40)

/* s3_part_bytes - of the part with this number, from 1 on */
u64 s3_part_bytes(unsigned int number);

/* As in struct object_ops */
int s3_put(const char *url, const void *buf, size_t len, u64 ubytes, bool over,
	   struct error *e);

/* So are these, but that parts come in order, from one thread. */
int s3_put_begin(const char *url, u64 ubytes, struct object_put **put,
		 struct error *e);
int s3_put_part(struct object_put *put, u64 off, const void *buf, size_t len,
		struct error *e);
int s3_put_commit(struct object_put *put, u64 bytes, u64 ubytes,
		  struct error *e);
void s3_put_abort(struct object_put *put);

/**
 * s3_set_ubytes - give an object that is there its uncompressed-size
 * @bytes: the object's own size
 *
 * How much a layer holds is known when all of it is written, but what an upload
 * in parts says of it has to be said at its start: so the store is made to copy
 * the object onto itself, from 1 GiB on in parts.
 */
int s3_set_ubytes(const char *url, u64 bytes, u64 ubytes, struct error *e);

#endif

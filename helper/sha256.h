/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LF_SHA256_H
#define LF_SHA256_H

#include "../kmod/pure.h"
#include "error.h"

#define SHA256_BYTES	32
#define SHA256_TEXT	65	/* hex digits with the terminating NUL */

struct sha256;

/* One hash, one thread at a time. */
int sha256_new(struct sha256 **sha, struct error *e);
void sha256_add(struct sha256 *sha, const void *data, size_t bytes);
/* Of all bytes so far; nothing may be added after it. */
void sha256_get(struct sha256 *sha, u8 sum[SHA256_BYTES]);
void sha256_free(struct sha256 *sha);

/* All at once; -ENOMEM where the library has no memory. */
int sha256_of(const void *data, size_t bytes, u8 sum[SHA256_BYTES]);
/* HMAC-SHA256 (RFC 2104) */
int sha256_hmac(const void *key, size_t key_bytes, const void *data,
		size_t bytes, u8 mac[SHA256_BYTES]);

void sha256_text(const u8 sum[SHA256_BYTES], char text[SHA256_TEXT]);

#endif

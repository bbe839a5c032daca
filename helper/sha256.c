// SPDX-License-Identifier: GPL-2.0-only
#include "sha256.h"

#include <gcrypt.h>
#include <pthread.h>
#include <stdio.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* The handle is all there is to it: struct sha256 is never defined. */
static gcry_md_hd_t handle(struct sha256 *sha)
{
	return (gcry_md_hd_t)sha;
}

static void init(void)
{
	gcry_check_version(NULL);
	gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
	gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
}

int sha256_new(struct sha256 **sha, struct error *e)
{
	gcry_md_hd_t hd;

	pthread_once(&once, init);
	if (gcry_md_open(&hd, GCRY_MD_SHA256, 0))
		return error_set(e, -ENOMEM, "cannot set up SHA-256");
	*sha = (struct sha256 *)hd;
	return 0;
}

void sha256_add(struct sha256 *sha, const void *data, size_t bytes)
{
	gcry_md_write(handle(sha), data, bytes);
}

void sha256_get(struct sha256 *sha, u8 sum[SHA256_BYTES])
{
	memcpy(sum, gcry_md_read(handle(sha), GCRY_MD_SHA256), SHA256_BYTES);
}

void sha256_free(struct sha256 *sha)
{
	if (sha)
		gcry_md_close(handle(sha));
}

static int hash(unsigned int flags, const gcry_buffer_t *part, int parts,
		u8 sum[SHA256_BYTES])
{
	pthread_once(&once, init);
	return gcry_md_hash_buffers(GCRY_MD_SHA256, flags, sum, part, parts) ?
		-ENOMEM : 0;
}

int sha256_of(const void *data, size_t bytes, u8 sum[SHA256_BYTES])
{
	gcry_buffer_t part = { .len = bytes, .data = (void *)data };

	return hash(0, &part, 1, sum);
}

int sha256_hmac(const void *key, size_t key_bytes, const void *data,
		size_t bytes, u8 mac[SHA256_BYTES])
{
	/* With this flag, the first part is the key. */
	gcry_buffer_t part[2] = {
		{ .len = key_bytes, .data = (void *)key },
		{ .len = bytes, .data = (void *)data },
	};

	return hash(GCRY_MD_FLAG_HMAC, part, 2, mac);
}

void sha256_text(const u8 sum[SHA256_BYTES], char text[SHA256_TEXT])
{
	size_t i;

	for (i = 0; i < SHA256_BYTES; i++)
		sprintf(text + 2 * i, "%02x", sum[i]);
}

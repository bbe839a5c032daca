/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For the libFuzzer targets: each reads one input and aborts where what a
 * parser promises does not hold. Memory errors are the sanitizers' business.
 */
#ifndef LF_FUZZ_H
#define LF_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define MUST(condition)							\
	do {								\
		if (!(condition)) {					\
			fprintf(stderr, "%s:%d: not so: %s\n",		\
				__FILE__, __LINE__, #condition);	\
			abort();					\
		}							\
	} while (0)

struct input {
	const uint8_t *p;
	size_t left;
};

/* The next @bytes of the input, zeros behind its end */
static inline void next(struct input *in, void *out, size_t bytes)
{
	size_t n = bytes < in->left ? bytes : in->left;

	memset(out, 0, bytes);
	if (n)
		memcpy(out, in->p, n);
	in->p += n;
	in->left -= n;
}

static inline uint32_t next_below(struct input *in, uint32_t below)
{
	uint32_t v;

	next(in, &v, sizeof(v));
	return v % below;
}

/* A buffer of the exact size, so that ASan sees what looks behind it. */
static inline void *exact(const void *data, size_t bytes)
{
	void *p = malloc(bytes + !bytes);

	if (bytes)
		memcpy(p, data, bytes);
	return p;
}

static inline void *next_exact(struct input *in, size_t bytes)
{
	void *p = malloc(bytes + !bytes);

	next(in, p, bytes);
	return p;
}

#endif

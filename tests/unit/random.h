/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The same pseudo-random numbers in every run (xorshift64*), so that a failure
 * can be had again.
 */
#ifndef LF_TEST_RANDOM_H
#define LF_TEST_RANDOM_H

#include <stdint.h>
#include <stddef.h>

static uint64_t random_state = 0x9e3779b97f4a7c15ULL;

static inline void random_seed(uint64_t seed)
{
	random_state = seed * 0x9e3779b97f4a7c15ULL | 1;
}

static inline uint64_t random_u64(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * 0x2545f4914f6cdd1dULL;
}

/* 0 <= n < @below */
static inline uint64_t random_below(uint64_t below)
{
	return random_u64() % below;
}

static inline void random_fill(void *p, size_t bytes)
{
	unsigned char *out = p;

	while (bytes--)
		*out++ = random_u64() >> 56;
}

#endif

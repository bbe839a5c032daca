/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How long a server takes to answer: quantiles of the last thousand answers or
 * so, in constant memory and time. Pure code.
 *
 * Counts in buckets that are an eighth of their octave wide; so a quantile is
 * too high by 12.5 % at most, never too low. Of the past, half is forgotten
 * whenever LATENCY_WINDOW samples were added.
 */
#ifndef LF_LATENCY_H
#define LF_LATENCY_H

#include "loop.h"

/* Fewer say nothing about a quantile. */
#define LATENCY_MIN	32
#define LATENCY_WINDOW	512

#define LATENCY_STEPS	8		/* buckets in an octave, a power of two */
#define LATENCY_UNIT	15		/* 2^15 ns: the first ones' width */
#define LATENCY_OCTAVES	20		/* up to four minutes */
#define LATENCY_BUCKETS	(LATENCY_STEPS * (LATENCY_OCTAVES + 1))

/**
 * struct latency - all zero is empty
 * @samples: since something was forgotten
 * @total: of @weight
 * @weight: by bucket; a sample's is large, for it to be halved often
 */
struct latency {
	u32 samples;
	u32 total;
	u32 weight[LATENCY_BUCKETS];
};

void latency_add(struct latency *l, u64 ns);

/**
 * latency_quantile - what @permille of the samples do not exceed
 *
 * Return: nanoseconds; 0 while there are fewer than LATENCY_MIN samples.
 */
u64 latency_quantile(const struct latency *l, unsigned int permille);

#endif

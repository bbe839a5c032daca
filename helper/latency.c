// SPDX-License-Identifier: GPL-2.0-only
#include "latency.h"

#define WEIGHT	1024

static unsigned int bucket(u64 ns)
{
	u64 v = ns >> LATENCY_UNIT;
	unsigned int octave = 0, i;

	while (v >> octave >= 2 * LATENCY_STEPS)
		octave++;
	/* In octave 0 there is the one before, too: it begins at nothing. */
	i = octave * LATENCY_STEPS + (v >> octave);
	return i < LATENCY_BUCKETS ? i : LATENCY_BUCKETS - 1;
}

/* What lies in bucket @i is less. */
static u64 upper_edge(unsigned int i)
{
	unsigned int octave = i < LATENCY_STEPS ? 0 : i / LATENCY_STEPS - 1;
	u64 v = i - octave * LATENCY_STEPS + 1;

	return v << octave << LATENCY_UNIT;
}

void latency_add(struct latency *l, u64 ns)
{
	unsigned int i;

	if (l->samples == 2 * LATENCY_WINDOW) {
		l->samples = LATENCY_WINDOW;
		l->total = 0;
		for (i = 0; i < LATENCY_BUCKETS; i++) {
			l->weight[i] /= 2;
			l->total += l->weight[i];
		}
	}
	l->samples++;
	l->total += WEIGHT;
	l->weight[bucket(ns)] += WEIGHT;
}

u64 latency_quantile(const struct latency *l, unsigned int permille)
{
	u64 need = (u64)l->total * permille, sum = 0;
	unsigned int i;

	if (l->samples < LATENCY_MIN)
		return 0;
	for (i = 0; i < LATENCY_BUCKETS - 1; i++) {
		sum += (u64)l->weight[i] * 1000;
		if (sum >= need)
			break;
	}
	return upper_edge(i);
}

// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "histogram.h"

static bool take_line(struct histogram *l, const char *key, u64 value)
{
	u32 i = l->buckets;

	if (!strcmp(key, "sum")) {
		l->sum = value;
		return true;
	}
	if (i == HISTOGRAM_BUCKETS || (i && !l->le[i - 1]))
		return false;
	l->le[i] = strcmp(key, "inf") ? strtoull(key, NULL, 10) : 0;
	l->count[i] = value;
	l->buckets++;
	return true;
}

bool histogram_read(const char *folder, const char *name,
		    struct histogram *h)
{
	unsigned long long value;
	char path[400], key[32];
	bool ok = true;
	FILE *file;

	*h = (struct histogram) {};
	snprintf(path, sizeof(path), "%s/latency/%s", folder, name);
	file = fopen(path, "re");
	if (!file)
		return false;
	while (ok && fscanf(file, "%31s %llu", key, &value) == 2)
		ok = take_line(h, key, value);
	ok = ok && feof(file) && h->buckets &&
	     !h->le[h->buckets - 1];
	fclose(file);
	if (!ok)
		h->buckets = 0;
	return ok;
}

u64 histogram_count(const struct histogram *h)
{
	u64 count = 0;
	u32 i;

	for (i = 0; i < h->buckets; i++)
		count += h->count[i];
	return count;
}

void histogram_minus(struct histogram *h, const struct histogram *then)
{
	u32 i;

	if (then->buckets != h->buckets || then->sum > h->sum)
		return;
	for (i = 0; i < h->buckets; i++)
		if (then->count[i] > h->count[i])
			return;
	for (i = 0; i < h->buckets; i++)
		h->count[i] -= then->count[i];
	h->sum -= then->sum;
}

u64 histogram_quantile(const struct histogram *h, double quantile)
{
	double want = quantile * histogram_count(h);
	u64 count = 0;
	u32 i;

	for (i = 0; i < h->buckets; i++) {
		count += h->count[i];
		if (count && count >= want)
			return h->le[i] ? h->le[i] * 1000 :
						  UINT64_MAX;
	}
	return 0;
}

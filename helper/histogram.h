/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The module's latency histograms, as kmod/histogram.c shows them in sysfs.
 */
#ifndef LF_HISTOGRAM_USER_H
#define LF_HISTOGRAM_USER_H

#include "../kmod/pure.h"

#define HISTOGRAM_BUCKETS	64

/**
 * struct histogram - one histogram
 * @buckets: how many there are; 0 where the module has no such file
 * @le: upper bound of each, inclusive, microseconds; 0: none, which is the last's
 * @count: how often, in this bucket alone
 * @sum: of all that was counted, nanoseconds
 */
struct histogram {
	u32 buckets;
	u64 le[HISTOGRAM_BUCKETS];
	u64 count[HISTOGRAM_BUCKETS];
	u64 sum;
};

/**
 * histogram_read - read a file of a folder latency/
 *
 * Return: false, and no buckets, where there is none that can be understood.
 */
bool histogram_read(const char *folder, const char *name,
		    struct histogram *h);

/* How many times are in it */
u64 histogram_count(const struct histogram *h);

/**
 * histogram_minus - what was counted since an earlier look
 *
 * Of a device that was removed and came back: all that is there.
 */
void histogram_minus(struct histogram *h, const struct histogram *then);

/**
 * histogram_quantile - a time that so many of them do not exceed
 * @quantile: 0.5 is the median
 *
 * Return: the upper bound of its bucket, nanoseconds; 0 where nothing was counted,
 * UINT64_MAX where it is beyond the last bound.
 */
u64 histogram_quantile(const struct histogram *h, double quantile);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How long things took: log2 histograms of microseconds.
 *
 * They are per CPU, so that counting touches no cache line that another CPU
 * writes, takes no lock and allocates nothing: two additions.
 */
#ifndef LF_HISTOGRAM_H
#define LF_HISTOGRAM_H

#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/percpu.h>
#include <linux/types.h>

/* At most 1 us, 2 us, 4 us, ... 2^26 us (67 s); and all that took longer. */
#define LF_BUCKETS	28

/**
 * struct lf_histogram - one CPU's part
 * @sum: of all that was counted, ns
 * @bucket: how often; @bucket[i] is what took at most 2^i us, and more than
 *	    @bucket[i - 1] holds
 */
struct lf_histogram {
	u64 sum;
	u64 bucket[LF_BUCKETS];
};

/* How long reads of a device took, from map() to their end, by what they needed. */
enum lf_latency {
	LF_LATENCY_HIT,		/* every frame was in memory */
	LF_LATENCY_STORE,	/* waited, but for the store alone */
	LF_LATENCY_FETCH,	/* waited for a helper */
	LF_LATENCIES,
};

/* How long the steps of a miss took; each frame's, of all devices together. */
enum lf_step {
	LF_STEP_QUEUE,		/* posted until a helper took it */
	LF_STEP_FIRST_BYTE,	/* from then until the first bytes came */
	LF_STEP_TRANSFER,	/* from then until the last ones had come */
	LF_STEP_LOAD,		/* a read from the store, its sum included */
	LF_STEP_VERIFY,		/* the frame table's checksum */
	LF_STEP_DECODE,		/* the codec, with the frame's own checksum */
	LF_STEPS,
};

/**
 * lf_bucket - where a time is counted
 * @ns: nanoseconds
 */
static inline unsigned int lf_bucket(u64 ns)
{
	u64 us = ns ? div_u64(ns - 1, NSEC_PER_USEC) : 0;

	return min_t(unsigned int, fls64(us), LF_BUCKETS - 1);
}

/**
 * lf_histogram_add - count one time
 * @histogram: where
 * @ns: nanoseconds
 *
 * Context: any.
 */
static inline void lf_histogram_add(struct lf_histogram __percpu *histogram,
				    u64 ns)
{
	this_cpu_inc(histogram->bucket[lf_bucket(ns)]);
	this_cpu_add(histogram->sum, ns);
}

/**
 * lf_step_took - count a step of a miss
 * @since: ktime_get_ns() when it began
 * @now: when it ended
 *
 * Context: any.
 */
void lf_step_took(enum lf_step step, u64 since, u64 now);

int lf_histograms_init(void);
void lf_histograms_exit(void);

#endif /* LF_HISTOGRAM_H */

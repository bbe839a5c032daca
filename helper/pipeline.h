/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Work on a stream of jobs in several threads, with the order kept and memory
 * bounded: one thread fills jobs, some work on them, one takes the results in
 * the order in which they were filled.
 */
#ifndef LF_PIPELINE_H
#define LF_PIPELINE_H

#include "error.h"

/**
 * struct pipeline - what is done at each stage
 * @produce: fill @job; 1, 0 where there are no more, or a negative errno.
 *	     One thread calls it, in order.
 * @work: the parallel part; @thread is below the number of threads and two
 *	  calls with the same one never overlap
 * @consume: take the result; the thread that called pipeline_run(), in order
 */
struct pipeline {
	int (*produce)(void *ctx, void *job, struct error *e);
	int (*work)(void *ctx, unsigned int thread, void *job,
		    struct error *e);
	int (*consume)(void *ctx, void *job, struct error *e);
};

/**
 * pipeline_run - run all jobs through all stages
 * @ops: the stages
 * @ctx: handed to them
 * @job: @jobs of them, used again and again; the caller's. More jobs than
 *	 threads let the stages overlap.
 * @jobs: how many, at least 1
 * @threads: workers, at least 1
 *
 * Ends at the first error, in the order of jobs: whatever the threads'
 * timing, the same input gives the same error. No thread is left running.
 */
int pipeline_run(const struct pipeline *ops, void *ctx, void *const *job,
		 unsigned int jobs, unsigned int threads, struct error *e);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How long to wait before another attempt. Pure code: no clock, no sockets.
 */
#ifndef LF_BACKOFF_H
#define LF_BACKOFF_H

#include "loop.h"

#define BACKOFF_BASE	(50 * NSEC_PER_MSEC)
#define BACKOFF_CAP	(5 * NSEC_PER_SEC)

/**
 * struct dice - random numbers that differ between hosts; no secret depends on
 *		 them
 */
struct dice {
	u64 state;
};

/* dice_init - @seed: any number */
void dice_init(struct dice *dice, u64 seed);

/* dice_below - from 0 to @limit - 1; 0 where @limit is 0 */
u64 dice_below(struct dice *dice, u64 limit);

/**
 * backoff - full jitter, so that hosts that failed together do not come back
 *	     together
 * @n: attempts that failed before this one
 *
 * Return: nanoseconds, from 0 to BACKOFF_BASE doubled @n times, and never as
 * much as BACKOFF_CAP; each value is as likely as any other.
 */
u64 backoff(struct dice *dice, unsigned int n);

#endif

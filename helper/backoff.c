// SPDX-License-Identifier: GPL-2.0-only
#include "backoff.h"

void dice_init(struct dice *dice, u64 seed)
{
	/* 0 is the generator's only fixed point. */
	dice->state = seed | 1;
}

/* xorshift64* */
u64 dice_below(struct dice *dice, u64 limit)
{
	dice->state ^= dice->state >> 12;
	dice->state ^= dice->state << 25;
	dice->state ^= dice->state >> 27;
	return limit ? (dice->state * 2685821657736338717ULL) % limit : 0;
}

u64 backoff(struct dice *dice, unsigned int n)
{
	u64 limit = BACKOFF_CAP;

	if (n < 32 && BACKOFF_BASE << n < BACKOFF_CAP)
		limit = BACKOFF_BASE << n;
	return dice_below(dice, limit);
}

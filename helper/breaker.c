// SPDX-License-Identifier: GPL-2.0-only
#include "breaker.h"

bool breaker_ready(const struct breaker *b, u64 now)
{
	return !b->open || now >= b->next;
}

bool breaker_started(struct breaker *b, u64 now)
{
	if (!b->open)
		return false;
	b->probes++;
	b->next = NEVER;
	b->soonest = now + BREAKER_HURRY;
	return true;
}

void breaker_hurry(struct breaker *b, u64 when)
{
	if (when < b->soonest)
		when = b->soonest;
	if (when < b->next)
		b->next = when;
}

bool breaker_answered(struct breaker *b)
{
	bool open = b->open;

	b->open = false;
	b->failures = 0;
	return open;
}

bool breaker_failed(struct breaker *b, bool probe, u64 now, u64 after_ns,
		    struct dice *dice)
{
	bool opens = !b->open && ++b->failures >= BREAKER_FAILURES;
	u64 interval = BREAKER_CAP;

	if (opens) {
		b->open = true;
		b->probes = 0;
		b->since = now;
		b->soonest = now;
	} else if (!b->open || !probe) {
		return false;	/* what started before has no say */
	}
	if (b->probes < 32 && BREAKER_FIRST << b->probes < BREAKER_CAP)
		interval = BREAKER_FIRST << b->probes;
	/* It grows, and yet is not the same on two hosts. */
	interval = interval / 2 + dice_below(dice, interval / 2);
	b->next = now + (after_ns > interval ? after_ns : interval);
	return opens;
}

void breaker_void(struct breaker *b)
{
	b->next = b->soonest;
}

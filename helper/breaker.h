/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A circuit breaker: when may a server be asked that does not answer? Pure code:
 * no clock, no sockets.
 *
 *	closed	  anything may start
 *	  |  BREAKER_FAILURES in sequence
 *	  v
 *	open	  one probe, then, if it fails, the next after a longer interval;
 *	  |	  everybody else waits for what the probes find
 *	  |  the server answered, a probe or whatever was still in flight
 *	  v
 *	closed
 *
 * A probe that hangs must not use up the time of those who wait: with
 * breaker_hurry() a deadline brings the next one forward, even beside one that
 * is out, but never more than one in BREAKER_HURRY.
 */
#ifndef LF_BREAKER_H
#define LF_BREAKER_H

#include "backoff.h"

#define BREAKER_FAILURES	5
/* The first interval, doubled after each probe up to the cap. */
#define BREAKER_FIRST		(100 * NSEC_PER_MSEC)
#define BREAKER_CAP		(2 * NSEC_PER_SEC)
#define BREAKER_HURRY		(500 * NSEC_PER_MSEC)

/**
 * struct breaker - all zero is closed
 * @open: for others to read
 * @failures: in sequence
 * @probes: since it opened, for others to read
 * @since: when it opened, for others to read
 * @next: when the next probe may start; NEVER: after the result of the last one
 * @soonest: the same for one in a hurry
 */
struct breaker {
	bool open;
	unsigned int failures;
	unsigned int probes;
	u64 since;
	u64 next;
	u64 soonest;
};

/* breaker_ready - may a transfer start @now? If it does, breaker_started(). */
bool breaker_ready(const struct breaker *b, u64 now);

/* breaker_started - Return: whether that is a probe */
bool breaker_started(struct breaker *b, u64 now);

/* breaker_hurry - there is somebody whom a probe after @when would not help */
void breaker_hurry(struct breaker *b, u64 when);

/* breaker_answered - Return: whether that closed it */
bool breaker_answered(struct breaker *b);

/**
 * breaker_failed - a transfer ended and the server did not answer
 * @probe: what breaker_started() said of it
 * @after_ns: the server's wish not to be asked before this time from now, or 0
 *
 * Return: whether that opened it.
 */
bool breaker_failed(struct breaker *b, bool probe, u64 now, u64 after_ns,
		    struct dice *dice);

/* breaker_void - a probe ended and nothing is known */
void breaker_void(struct breaker *b);

#endif

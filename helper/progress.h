/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LF_PROGRESS_H
#define LF_PROGRESS_H

#include "../kmod/pure.h"

/**
 * struct progress - a bar on stderr, if that is a terminal
 * @total: bytes of work
 * @shown: is there a bar?
 */
struct progress {
	const char *what;
	u64 total;
	double start;
	double last;
	bool shown;
};

/**
 * progress_start - begin, with nothing done
 * @what: what is being done, one word; not copied
 * @quiet: no bar, terminal or not
 */
void progress_start(struct progress *p, const char *what, u64 total,
		    bool quiet);

/* One thread only; prints ten times a second at most. */
void progress_update(struct progress *p, u64 done);

/* Wipes the bar, so that what follows stands alone. */
void progress_end(struct progress *p);

/* Seconds since progress_start(). */
double progress_seconds(const struct progress *p);

#endif

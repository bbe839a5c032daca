// SPDX-License-Identifier: GPL-2.0-only
#include "progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "units.h"

#define BAR	30	/* columns */

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

void progress_start(struct progress *p, const char *what, u64 total,
		    bool quiet)
{
	p->what = what;
	p->total = total;
	p->start = now();
	p->last = 0;
	p->shown = !quiet && isatty(STDERR_FILENO);
	progress_update(p, 0);
}

double progress_seconds(const struct progress *p)
{
	return now() - p->start;
}

void progress_update(struct progress *p, u64 done)
{
	double share = p->total ? (double)done / p->total : 1;
	double t = now(), seconds = t - p->start;
	char sofar[UNITS_TEXT], rate[UNITS_TEXT];
	static const char full[BAR + 1] = "##############################";
	int cells;

	if (!p->shown || t - p->last < 0.1)
		return;
	p->last = t;
	if (share > 1)
		share = 1;
	cells = share * BAR;
	fprintf(stderr, "\r%s [%-*.*s] %3d %%  %s  %s/s\033[K", p->what, BAR,
		cells, full, (int)(share * 100), units_text(done, sofar),
		units_text(seconds > 0 ? done / seconds : 0, rate));
	fflush(stderr);
}

void progress_end(struct progress *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Read-around: what a link can bring in the time in which it says nothing.
 *
 * A miss costs a first byte's time, whatever its size. So long again its neighbours
 * may take: behind the frame that the reader waits for, in the same range, which it
 * does not delay. How long one window takes tells how large the next ones may be: a
 * link that is far away and wide gets large ones, one that is near or narrow small
 * ones.
 *
 * What nobody reads is not worth even that. If some windows together bring hardly
 * anything that readers find there, the next misses stand alone, and the more of
 * them the more often this happens.
 */
#include <linux/ktime.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/sizes.h>

#include "lazyframe.h"

#define FIRST_WINDOW	SZ_512K
#define MIN_WINDOW	SZ_256K
/* So many windows are on trial at first, and so many later on. */
#define FIRST_TRIAL	32
#define TRIAL		8
/* One frame found for so many windows is worth it. */
#define WORTH		8
#define MAX_ALONE	1024
/* So many windows of the largest size are a small part of the cache. */
#define CACHE_PART	8
/* A watched window that takes longer was not sent at once. */
#define MIN_PATIENCE	(10ULL * NSEC_PER_MSEC)
static unsigned long around_kib;
module_param(around_kib, ulong, 0644);
MODULE_PARM_DESC(around_kib, "Limit of what is fetched around a random read that misses, KiB of content; 0, the default: nothing (live)");

void lf_around_init(struct lf_around *around)
{
	spin_lock_init(&around->lock);
	around->window = FIRST_WINDOW;
	around->trial = FIRST_TRIAL;
}

/*
 * Were the last windows worth it? They were if readers found something there that
 * they would have waited for.
 */
static void __judge(struct lf_around *around)
{
	unsigned int found = atomic_read(&around->found);

	lockdep_assert_held(&around->lock);
	if (found - around->found_before >= around->trial / WORTH) {
		around->alone = 0;
		around->rest = 0;
	} else {
		around->rest = clamp(around->rest * 2, FIRST_TRIAL, MAX_ALONE);
		around->alone = around->rest;
		around->trial = TRIAL;
	}
	around->found_before = found;
	around->windows = 0;
}

/* The next miss's window; 0: it stands alone. */
static u64 next_window(struct lf_around *around, u64 limit)
{
	u64 window = 0;

	spin_lock(&around->lock);
	if (around->windows == around->trial)
		__judge(around);
	if (around->alone) {
		around->alone--;
	} else {
		around->windows++;
		window = min(around->window, limit);
	}
	spin_unlock(&around->lock);
	return window;
}

/* Where the run of missing frames from @at on ends, within *@window bytes of it. */
static u64 run_end(struct lf_layer_table *table, u64 at, u64 *window,
		   u64 *last)
{
	struct lf_frame_pos pos;

	while (at < table->layer->ubytes &&
	       !lf_table_find(&table->table, at, &pos) &&
	       pos.ubytes <= *window &&
	       !lf_frame_known(table->layer, &pos)) {
		*window -= pos.ubytes;
		*last = pos.cstart;
		at = pos.ustart + pos.ubytes;
	}
	return at;
}

static u64 run_start(struct lf_layer_table *table, u64 at, u64 window)
{
	struct lf_frame_pos pos;

	while (at && !lf_table_find(&table->table, at - 1, &pos) &&
	       pos.ubytes <= window &&
	       !lf_frame_known(table->layer, &pos)) {
		window -= pos.ubytes;
		at = pos.ustart;
	}
	return at;
}

/* How long will it take, after @first? One window at a time is watched. */
static void watch(struct lf_around *around, u64 first, u64 last, u64 bytes)
{
	u64 now = ktime_get_ns();

	spin_lock(&around->lock);
	if (!around->since ||
	    now - around->since > max(4 * around->quick, MIN_PATIENCE)) {
		around->bytes = bytes;
		around->first = first;
		around->last = last;
		around->came = 0;
		around->since = now;
	}
	spin_unlock(&around->lock);
}

void lf_around_want(struct lf_io *io, const struct lf_frame_pos *pos)
{
	struct lf_layer_table *table = io->table;
	struct lf_around *around = &table->layer->around;
	u64 limit = min_t(u64, READ_ONCE(around_kib) << 10,
			  lf_cache_limit() / CACHE_PART);
	u64 from = max(pos->ustart + pos->ubytes, io->uend);
	u64 last = pos->cstart;
	u64 window, start, end;

	window = next_window(around, limit);
	if (!window)
		return;
	end = run_end(table, from, &window, &last);
	start = run_start(table, pos->ustart, window);
	if (last != pos->cstart)
		watch(around, pos->cstart, last, end - from);
	lf_frames_want(io->dev, table, from, end, true);
	lf_frames_want(io->dev, table, start, pos->ustart, true);
}

void lf_around_came(struct lf_around *around, u64 cstart)
{
	u64 now, took;

	/* Racy, but what matters is looked at again. */
	if (!READ_ONCE(around->since))
		return;
	now = ktime_get_ns();
	spin_lock(&around->lock);
	if (!around->since) {
		;
	} else if (cstart == around->first && !around->came) {
		took = now - around->since;
		around->came = now;
		/* Forgets slowly, so that it follows a link that changes. */
		around->quick += around->quick / 16;
		if (!around->quick || took < around->quick)
			around->quick = took;
	} else if (cstart == around->last) {
		took = around->came ? now - around->came : 0;
		around->since = 0;
		/* So much would have come in the time of the quickest miss. */
		around->window = clamp(div64_u64(around->bytes * around->quick,
						 max(took, 1ULL)),
				       around->window / 2, around->window * 16);
		around->window = clamp(around->window, (u64)MIN_WINDOW,
				       (u64)LF_AROUND_MAX);
	}
	spin_unlock(&around->lock);
}

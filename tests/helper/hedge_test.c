// SPDX-License-Identifier: GPL-2.0-only
/* Second requests: what they gain, what they cost, and that no byte is wrong. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "kselftest_harness.h"

#include "rig.h"

#define LINES		5000
#define MSEC		NSEC_PER_MSEC
#define SMALL		4096
/*
 * Requests that teach the fetcher what is late. So many and so quick that few of
 * them meet one of a busy machine's pauses: else those would be the measure.
 */
#define WARM		300
#define FRAMES		(OBJECT_BYTES / (2 * SMALL))
#define READERS		4

FIXTURE(hedge) {
	struct rig *rig;
	struct rig_line *log;
};

FIXTURE_SETUP(hedge)
{
	self->rig = malloc(sizeof(*self->rig));
	self->log = malloc(LINES * sizeof(*self->log));
	rig_up(self->rig);
	self->rig->options.hedge = 5;
}

FIXTURE_TEARDOWN(hedge)
{
	EXPECT_EQ(0, self->rig->wrong);
	rig_down(self->rig);
	free(self->rig);
	free(self->log);
}

static void post(struct rig *rig, u32 tag, u64 frame, u32 flags, u64 ms)
{
	rig_post(rig, tag, 1, frame % FRAMES * 2 * SMALL, SMALL, 0, flags, ms);
}

static int warm_up(struct rig *rig)
{
	u32 i;

	for (i = 0; i < WARM; i++) {
		post(rig, 0, i, 0, 0);
		if (rig_run(rig))
			return -1;
	}
	rig_tell(rig, "settle\nforget\n");
	return 0;
}

static int by_size(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

struct result {
	u64 p50, p95, p99;	/* ns */
	u64 ranges, hedges, won;
	int served;		/* requests that the server saw */
};

/* READERS readers, one request after the other each, until @n are answered */
static int measure(struct rig *rig, u32 n, struct rig_line *log,
		   struct result *result)
{
	const struct fetch_stats *stats = fetch_stats(rig->fetch);
	u64 *ns = calloc(n, sizeof(*ns)), begin[READERS];
	u32 posted = 0, done = 0, i;

	while (ns && done < n) {
		for (i = 0; i < READERS; i++) {
			if (rig->tag[i].open || posted == n)
				continue;
			begin[i] = now_ns();
			post(rig, i, posted++, 0, 0);
		}
		if (rig_turn(rig))
			break;
		for (i = 0; i < READERS; i++) {
			if (rig->tag[i].open || !rig->tag[i].when)
				continue;
			if (rig->tag[i].status)
				n = 0;
			else
				ns[done++] = rig->tag[i].when - begin[i];
			rig->tag[i].when = 0;
		}
	}
	qsort(ns, done, sizeof(*ns), by_size);
	if (done == n)
		*result = (struct result){
			.p50 = ns[n / 2],
			.p95 = ns[n * 95 / 100],
			.p99 = ns[n * 99 / 100],
			.ranges = stats->ranges,
			.hedges = stats->hedges,
			.won = stats->hedges_won,
			.served = rig_log(rig, log, LINES),
		};
	free(ns);
	return done == n ? 0 : -1;
}

static void print(const char *what, const struct result *r)
{
	/* past any buffer, as the harness ends this process without flushing */
	dprintf(1, "# result: %s: p50 %.1f, p95 %.1f, p99 %.1f ms; "
		"%llu ranges, %llu hedges, %llu won\n",
	       what, r->p50 / 1e6, r->p95 / 1e6, r->p99 / 1e6,
	       (unsigned long long)r->ranges, (unsigned long long)r->hedges,
	       (unsigned long long)r->won);
}

/*
 * Three answers in a hundred take a second, the others 5 ms. Where the machine
 * itself has a tail, as it is busy, four seconds.
 */
TEST_F_TIMEOUT(hedge, the_tail_is_cut_within_the_budget, 900)
{
	const char *more = getenv("LONG");
	u32 n = more && *more == '1' ? 4000 : 1000;
	struct result calm, without, with;
	struct rig *rig = self->rig;
	int slow = 1;

	rig->options.hedge = 0;
	rig->options.stall_ns = 20 * NSEC_PER_SEC;
	rig_go(rig);
	rig_tell(rig, "shape delay=0.005\n");
	ASSERT_EQ(0, measure(rig, 200, self->log, &calm));
	if (calm.p95 > 30 * MSEC)
		slow = 4;
	rig_tell(rig, "shape delay=0.005 tail=0.03 slow=%d\n", slow);
	ASSERT_EQ(0, measure(rig, n, self->log, &without));
	dprintf(1, "# result: 5 ms, 3 %% of answers %d s\n", slow);
	print("no second requests", &without);
	EXPECT_EQ(0, without.hedges);
	rig_down(rig);

	rig_up(rig);
	rig->options.hedge = 5;
	rig->options.stall_ns = 20 * NSEC_PER_SEC;
	rig_go(rig);
	rig_tell(rig, "shape delay=0.005 tail=0.03 slow=%d\n", slow);
	ASSERT_EQ(0, measure(rig, n, self->log, &with));
	print("5 % of them", &with);

	EXPECT_GE(without.p99, slow * NSEC_PER_SEC);
	EXPECT_LT(with.p99, without.p99 / 2);
	EXPECT_GT(with.won, 0);
	/* the budget, as the server sees it */
	EXPECT_EQ(n, with.ranges - with.hedges);
	EXPECT_LE(with.hedges * 100, n * 5);
	EXPECT_LE(with.served, n + with.hedges);
}

/*
 * After a long time, slower at once: each is late, until that is no longer late.
 * Few are asked for twice: what was saved up, and the share.
 */
TEST_F_TIMEOUT(hedge, a_slow_server_is_not_asked_twice_as_much, 60)
{
	struct rig *rig = self->rig;
	struct result quick, slow;

	rig_go(rig);
	ASSERT_EQ(0, measure(rig, 1200, self->log, &quick));
	rig_tell(rig, "shape delay=0.1\n");
	ASSERT_EQ(0, measure(rig, 60, self->log, &slow));
	print("as quick as it can", &quick);
	print("then slower, all of them", &slow);
	EXPECT_GT(slow.hedges, quick.hedges);
	EXPECT_LE(slow.hedges - quick.hedges, 10 + 60 * 5 / 100);
	EXPECT_LE(slow.hedges * 100, (slow.ranges - slow.hedges) * 5);
}

TEST_F(hedge, none_where_it_is_off)
{
	struct rig *rig = self->rig;

	rig->options.hedge = 0;
	rig_go(rig);
	ASSERT_EQ(0, warm_up(rig));
	rig_tell(rig, "fault late wait=0.5\n");
	post(rig, 0, 1, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(0, fetch_stats(rig->fetch)->hedges);
	EXPECT_EQ(1, rig_log(rig, self->log, LINES));
}

TEST_F(hedge, the_loser_is_aborted)
{
	struct rig *rig = self->rig;
	struct fetch_stats before;
	u64 begin;

	rig->options.hedge = 100;
	rig_go(rig);
	ASSERT_EQ(0, warm_up(rig));
	before = *fetch_stats(rig->fetch);
	rig_tell(rig, "fault late wait=20\n");
	begin = now_ns();
	post(rig, 0, 1, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_LT(now_ns() - begin, 5 * NSEC_PER_SEC);
	ASSERT_EQ(0, fetch_run(rig->fetch));
	EXPECT_EQ(before.hedges + 1, fetch_stats(rig->fetch)->hedges);
	EXPECT_EQ(before.hedges_won + 1, fetch_stats(rig->fetch)->hedges_won);
	EXPECT_EQ(before.wasted, fetch_stats(rig->fetch)->wasted);
	EXPECT_EQ(0, fetch_stats(rig->fetch)->running);
	/* The server sees it go. */
	ASSERT_EQ(2, rig_log(rig, self->log, LINES));
	EXPECT_EQ(1, !self->log[0].status + !self->log[1].status);
}

/* What nobody waits for is not worth it, until somebody does. */
TEST_F(hedge, not_for_what_is_read_ahead)
{
	struct rig *rig = self->rig;
	u64 end;

	rig->options.hedge = 100;
	rig_go(rig);
	ASSERT_EQ(0, warm_up(rig));
	rig_tell(rig, "fault late wait=20 first=%d\n", 2 * SMALL);
	end = now_ns() + 600 * MSEC;
	post(rig, 0, 1, LAZYFRAME_REQ_PREFETCH, 0);
	/* timers for others, so that turns come */
	while (now_ns() < end) {
		post(rig, 1, 5, 0, 0);
		while (rig->tag[1].open)
			ASSERT_EQ(0, rig_turn(rig));
	}
	EXPECT_TRUE(rig->tag[0].open);
	EXPECT_EQ(1, fetch_stats(rig->fetch)->running);
	post(rig, 0, 1, LAZYFRAME_REQ_PROMOTE, 0);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(0, rig->tag[0].status);
	EXPECT_GE(fetch_stats(rig->fetch)->hedges_won, 1);
}

/*
 * One of the two goes wrong in some way, and the other does not: the reader gets
 * the right bytes. Each byte is compared, and each must come once, in order.
 */
static const char *const wrong[] = {
	"status code=500", "status code=404", "status code=403",
	"status code=412", "unavailable after=5", "etag", "other", "noetag", "total",
	"range", "norange", "length", "empty", "whole", "encoding", "drop",
	"mute", "reset at=0", "reset at=1000", "short at=0", "short at=1000",
	"stall at=0", "stall at=1000", "chunked",
};

static void one_goes_wrong(struct __test_metadata *_metadata, struct rig *rig,
			   const char *first, const char *second)
{
	char url[160], etag[128];
	size_t i;

	rig->options.hedge = 100;
	rig->options.stall_ns = 500 * MSEC;
	rig_go(rig);
	rig_etag(rig, etag, sizeof(etag));
	snprintf(url, sizeof(url), "%s/object", rig->url);
	rig_layer(rig, 1, url, OBJECT_BYTES, etag);
	for (i = 0; i < ARRAY_SIZE(wrong); i++) {
		u64 hedges;

		/* What the last case taught is forgotten. */
		rig_tell(rig, "clear\n");
		ASSERT_EQ(0, warm_up(rig));
		hedges = fetch_stats(rig->fetch)->hedges;
		rig_tell(rig, first, wrong[i]);
		rig_tell(rig, second, wrong[i]);
		post(rig, 0, 2 * i, 0, 20000);
		ASSERT_EQ(0, rig_run(rig));
		EXPECT_EQ(0, rig->tag[0].status)
			TH_LOG("%s", wrong[i]);
		EXPECT_EQ(0, rig->wrong)
			TH_LOG("%s let wrong bytes through", wrong[i]);
		EXPECT_GT(fetch_stats(rig->fetch)->hedges, hedges)
			TH_LOG("%s: no second request", wrong[i]);
	}
}

TEST_F_TIMEOUT(hedge, the_second_goes_wrong, 120)
{
	one_goes_wrong(_metadata, self->rig, "fault late wait=0.4\n",
		       "fault %s\n");
}

TEST_F_TIMEOUT(hedge, the_first_goes_wrong_and_late, 120)
{
	one_goes_wrong(_metadata, self->rig, "fault %s wait=0.2\n",
		       "fault late wait=0.4\n");
}

TEST_F_TIMEOUT(hedge, the_first_goes_wrong_when_it_has_lost, 120)
{
	one_goes_wrong(_metadata, self->rig, "fault %s wait=0.2\n", "\n");
}

/* Only both of them can say that there is no such object. */
TEST_F(hedge, both_say_no)
{
	struct rig *rig = self->rig;

	rig->options.hedge = 100;
	rig_go(rig);
	ASSERT_EQ(0, warm_up(rig));
	rig_tell(rig, "fault status code=404 wait=0.3 count=2\n");
	post(rig, 0, 1, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(ENOENT, rig->tag[0].status);
	EXPECT_EQ(2, rig_log(rig, self->log, LINES));
}

/* The time of both ends when the reader's does. */
TEST_F(hedge, nothing_is_left_at_the_deadline)
{
	struct rig *rig = self->rig;
	u64 hedges;

	rig->options.hedge = 100;
	rig_go(rig);
	ASSERT_EQ(0, warm_up(rig));
	hedges = fetch_stats(rig->fetch)->hedges;
	rig_tell(rig, "fault mute count=0\n");
	/* shorter than what an attempt has to be silent for to have failed */
	post(rig, 0, 1, 0, 120);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(ETIMEDOUT, rig->tag[0].status);
	EXPECT_EQ(hedges + 1, fetch_stats(rig->fetch)->hedges);
	EXPECT_EQ(0, fetch_stats(rig->fetch)->running);
	EXPECT_EQ(0, fetch_stats(rig->fetch)->open);
}

/* Ranges of several frames, demanded and read ahead, in any order of events */
TEST_F_TIMEOUT(hedge, soak, 120)
{
	static const char *const tail[] = {
		"late wait=0.02", "late wait=0.1", "late wait=0.3",
	};
	struct rig *rig = self->rig;
	u32 done = 0, tag = 0, i;
	char url[160], etag[128];

	srand(3);
	rig->options.hedge = 100;
	rig->options.stall_ns = 150 * MSEC;
	rig->options.range_max = 1 << 20;
	rig_go(rig);
	rig_etag(rig, etag, sizeof(etag));
	snprintf(url, sizeof(url), "%s/object", rig->url);
	rig_layer(rig, 1, url, OBJECT_BYTES, etag);
	ASSERT_EQ(0, warm_up(rig));
	while (done < 3000) {
		u32 burst = rand() % 12, frame = rand() % 600;

		if (rand() % 3 == 0)
			rig_tell(rig, "fault %s\n", tail[rand() % 3]);
		if (rand() % 8 == 0) {
			i = rand() % ARRAY_SIZE(wrong);
			/* errors that are final are for other tests */
			if (!strstr(wrong[i], "=4") && strcmp(wrong[i], "etag") &&
			    strcmp(wrong[i], "total") && strcmp(wrong[i], "other") &&
			    !strstr(wrong[i], "unavailable"))
				rig_tell(rig, "fault %s wait=0.0%d\n", wrong[i],
					 rand() % 10);
		}
		while (burst-- && rig->open < TAGS) {
			while (rig->tag[tag].open)
				tag = (tag + 1) % TAGS;
			rig_post(rig, tag, 1, frame++ * 20000ULL, 20000, 0,
				 rand() % 2 ? LAZYFRAME_REQ_PREFETCH : 0, 0);
			if (rand() % 8 == 0)
				rig_post(rig, tag, 1, rig->tag[tag].offset,
					 20000, 0, LAZYFRAME_REQ_PROMOTE, 0);
			done++;
		}
		for (i = 0; i < 30 && rig->open; i++)
			ASSERT_EQ(0, rig_turn(rig));
	}
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(done + WARM, fetch_stats(rig->fetch)->completed);
	EXPECT_EQ(0, fetch_stats(rig->fetch)->failed);
	EXPECT_EQ((u64)done * 20000 + WARM * SMALL,
		  fetch_stats(rig->fetch)->bytes);
	EXPECT_GT(fetch_stats(rig->fetch)->hedges_won, 0);
	TH_LOG("%llu ranges, %llu second ones, %llu were first",
	       (unsigned long long)fetch_stats(rig->fetch)->ranges,
	       (unsigned long long)fetch_stats(rig->fetch)->hedges,
	       (unsigned long long)fetch_stats(rig->fetch)->hedges_won);
}

TEST_HARNESS_MAIN

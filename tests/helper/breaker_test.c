// SPDX-License-Identifier: GPL-2.0-only
/* A server that does not answer: what it costs, and whom. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kselftest_harness.h"

#include "../../helper/breaker.h"
#include "rig.h"

#define LINES		1024
#define MSEC		NSEC_PER_MSEC

FIXTURE(breaker) {
	struct rig *rig;
	struct rig_line *log;
};

FIXTURE_SETUP(breaker)
{
	self->rig = malloc(sizeof(*self->rig));
	self->log = malloc(LINES * sizeof(*self->log));
	rig_up(self->rig);
}

FIXTURE_TEARDOWN(breaker)
{
	EXPECT_EQ(0, self->rig->wrong);
	rig_down(self->rig);
	free(self->rig);
	free(self->log);
}

/* Layer 2: the same server by another name, and so another one to the fetcher. */
static void other_origin(struct rig *rig)
{
	char url[160], from[128], to[128];

	snprintf(from, sizeof(from), "%s/object", rig->dir);
	snprintf(to, sizeof(to), "%s/dead", rig->dir);
	if (link(from, to))
		abort();
	snprintf(url, sizeof(url), "http://localhost:%d/dead", rig->port);
	rig_layer(rig, 2, url, OBJECT_BYTES, "");
}

static void post(struct rig *rig, u32 tag, u64 layer, u64 frame, u64 ms)
{
	rig_post(rig, tag, layer, frame * 8192, 4096, 0, 0, ms);
}

/* Turns until the server does not answer, as the fetcher sees it */
static int until_down(struct rig *rig)
{
	u64 end = now_ns() + 20 * NSEC_PER_SEC;

	while (!fetch_down(rig->fetch))
		if (rig_turn(rig) || now_ns() > end)
			return -1;
	return 0;
}

static int turns_for(struct rig *rig, u64 ns)
{
	u64 end = now_ns() + ns;

	while (now_ns() < end)
		if (rig_turn(rig))
			return -1;
	return 0;
}

/* Many wait, one asks, less and less often. */
TEST_F(breaker, a_dead_server_gets_few_connections)
{
	struct rig *rig = self->rig;
	int before, after, i;

	rig_go(rig);
	rig_tell(rig, "fault drop count=0\n");
	for (i = 0; i < 100; i++)
		post(rig, i, 1, i, 0);
	ASSERT_EQ(0, until_down(rig));
	before = rig_log(rig, self->log, LINES);
	/* 5 that failed, and what was in flight beside them */
	EXPECT_LE(before, 5 + 8);
	ASSERT_EQ(0, turns_for(rig, 6 * NSEC_PER_SEC));
	after = rig_log(rig, self->log, LINES);
	/* 0.1, 0.2, 0.4, 0.8, 1.6, 2 s, or half of each */
	EXPECT_GE(after - before, 4);
	EXPECT_LE(after - before, 10);
	EXPECT_EQ(100, rig->open);
	EXPECT_EQ(1, fetch_down(rig->fetch));
	TH_LOG("%d connections until it counted as dead, %d in 6 seconds then, for 100 requests",
	       before, after - before);

	rig_tell(rig, "clear\n");
	ASSERT_EQ(0, rig_run(rig));
	for (i = 0; i < 100; i++)
		EXPECT_EQ(0, rig->tag[i].status);
	EXPECT_EQ(0, fetch_down(rig->fetch));
}

/* Deadlines of one second, new requests all the time: still few. */
TEST_F(breaker, readers_in_a_hurry_do_not_make_it_many)
{
	struct rig *rig = self->rig;
	int before, after, i;
	u64 end;

	rig_go(rig);
	rig_tell(rig, "fault drop count=0\n");
	for (i = 0; i < 100; i++)
		post(rig, i, 1, i, 0);
	ASSERT_EQ(0, until_down(rig));
	before = rig_log(rig, self->log, LINES);
	end = now_ns() + 6 * NSEC_PER_SEC;
	while (now_ns() < end) {
		for (i = 100; i < 200; i++)
			if (!rig->tag[i].open)
				post(rig, i, 1, i, 700 + 3 * i);
		ASSERT_EQ(0, rig_turn(rig));
	}
	after = rig_log(rig, self->log, LINES);
	EXPECT_LE(after - before, 6 * NSEC_PER_SEC / BREAKER_HURRY + 6);
	TH_LOG("%d connections in 6 seconds, for %llu requests", after - before,
	       (unsigned long long)fetch_stats(rig->fetch)->requests);
	rig_tell(rig, "clear\n");
	ASSERT_EQ(0, rig_run(rig));
}

/* Silence takes a connection until its time is over: one, not all. */
TEST_F(breaker, a_silent_server_holds_one_connection)
{
	struct rig *rig = self->rig;
	u64 end;
	int i;

	rig->options.stall_ns = 300 * MSEC;
	rig_go(rig);
	rig_tell(rig, "fault mute count=0\n");
	for (i = 0; i < 60; i++)
		post(rig, i, 1, i, 0);
	ASSERT_EQ(0, until_down(rig));
	ASSERT_EQ(0, turns_for(rig, 400 * MSEC));
	end = now_ns() + 3 * NSEC_PER_SEC;
	while (now_ns() < end) {
		EXPECT_LE(fetch_stats(rig->fetch)->running, 1);
		ASSERT_EQ(0, rig_turn(rig));
	}
	rig_tell(rig, "clear\n");
	ASSERT_EQ(0, rig_run(rig));
	for (i = 0; i < 60; i++)
		EXPECT_EQ(0, rig->tag[i].status);
}

/* Requests that wait have not burnt attempts: the first answer lets all go. */
TEST_F(breaker, the_first_answer_lets_all_go)
{
	struct rig *rig = self->rig;
	u64 begin;
	int i;

	rig_go(rig);
	rig_tell(rig, "fault drop count=0\n");
	post(rig, 0, 1, 0, 0);
	ASSERT_EQ(0, until_down(rig));
	for (i = 1; i < 200; i++)
		post(rig, i, 1, i, 0);
	ASSERT_EQ(0, turns_for(rig, 3 * NSEC_PER_SEC));
	rig_tell(rig, "clear\nforget\n");
	begin = now_ns();
	ASSERT_EQ(0, rig_run(rig));
	/* the interval that is running, 200 small requests, a busy machine */
	EXPECT_LT(now_ns() - begin, BREAKER_CAP + 2 * NSEC_PER_SEC);
	EXPECT_EQ(200, rig_log(rig, self->log, LINES));
}

/* The time that requests of layer 1 take, one after the other; the longest */
static u64 pace(struct rig *rig, u64 *longest)
{
	u64 begin = now_ns(), one;
	u32 i;

	*longest = 0;
	for (i = 0; i < 300; i++) {
		one = now_ns();
		post(rig, 0, 1, i, 5000);
		while (rig->tag[0].open)
			if (rig_turn(rig))
				return NEVER;
		one = now_ns() - one;
		*longest = one > *longest ? one : *longest;
	}
	return now_ns() - begin;
}

TEST_F(breaker, a_dead_server_does_not_slow_down_another)
{
	static const char *const kind[] = { "drop", "mute", "status code=503" };
	struct rig *rig = self->rig;
	u64 alone, beside, longest, most;
	size_t k;
	int i;

	rig->options.stall_ns = 2 * NSEC_PER_SEC;
	rig_go(rig);
	other_origin(rig);
	alone = pace(rig, &most);
	for (k = 0; k < ARRAY_SIZE(kind); k++) {
		rig_tell(rig, "fault %s path=/dead count=0\n", kind[k]);
		for (i = 1; i < 200; i++)
			post(rig, i, 2, i, 0);
		ASSERT_EQ(0, until_down(rig));
		beside = pace(rig, &longest);
		TH_LOG("alone %llu ms, beside one that is dead (%s) %llu ms, longest %llu and %llu",
		       (unsigned long long)(alone / MSEC), kind[k],
		       (unsigned long long)(beside / MSEC),
		       (unsigned long long)(most / MSEC),
		       (unsigned long long)(longest / MSEC));
		EXPECT_LT(beside, 3 * alone + NSEC_PER_SEC);
		EXPECT_EQ(199, rig->open);
		EXPECT_EQ(1, fetch_down(rig->fetch));
		rig_tell(rig, "clear\n");
		ASSERT_EQ(0, rig_run(rig));
	}
}

/* It is one object that fails: others of the same server get their turn. */
TEST_F(breaker, one_object_that_always_fails_does_not_stop_others)
{
	struct rig *rig = self->rig;
	int i;

	rig_go(rig);
	rig_tell(rig, "fault status first=0 count=0\n");
	post(rig, 0, 1, 0, 0);
	ASSERT_EQ(0, until_down(rig));
	for (i = 1; i < 10; i++) {
		post(rig, i, 1, i, 10000);
		while (rig->tag[i].open)
			ASSERT_EQ(0, rig_turn(rig));
		EXPECT_EQ(0, rig->tag[i].status);
		/* and it may go down again by the one that fails */
		ASSERT_EQ(0, turns_for(rig, 100 * MSEC));
	}
	EXPECT_TRUE(rig->tag[0].open);
	rig_tell(rig, "clear\n");
	ASSERT_EQ(0, rig_run(rig));
}

/* What a server does answer, however wrong, is no reason to stop asking it. */
TEST_F(breaker, answers_do_not_open_it)
{
	static const char *const kind[] = {
		"status code=404", "status code=403", "status code=416",
		"short at=0", "reset at=0", "stall at=10", "whole", "range",
	};
	struct rig *rig = self->rig;
	size_t k, i;

	rig->options.stall_ns = 300 * MSEC;
	rig_go(rig);
	for (k = 0; k < ARRAY_SIZE(kind); k++) {
		rig_tell(rig, "fault %s count=0\n", kind[k]);
		for (i = 0; i < 40; i++)
			post(rig, i, 1, i, 1500);
		while (rig->open) {
			ASSERT_EQ(0, rig_turn(rig));
			ASSERT_EQ(0, fetch_down(rig->fetch))
				TH_LOG("%s", kind[k]);
		}
		rig_tell(rig, "clear\n");
	}
}

/* A probe hangs, and has time; who has not gets one of its own. */
TEST_F(breaker, a_probe_that_hangs_does_not_use_up_others_time)
{
	struct rig *rig = self->rig;
	int i;

	rig->options.stall_ns = 30 * NSEC_PER_SEC;
	rig_go(rig);
	rig_tell(rig, "fault drop count=%d\nfault mute count=1\n",
		 BREAKER_FAILURES);
	post(rig, 0, 1, 0, 0);
	ASSERT_EQ(0, until_down(rig));
	do {
		rig_tell(rig, "faults\n");
	} while (*rig->text && !turns_for(rig, 10 * MSEC));
	EXPECT_EQ(1, fetch_stats(rig->fetch)->running);
	for (i = 1; i < 20; i++)
		post(rig, i, 1, i, 2000);
	while (rig->open > 1)
		ASSERT_EQ(0, rig_turn(rig));
	for (i = 1; i < 20; i++)
		EXPECT_EQ(0, rig->tag[i].status);
	EXPECT_TRUE(rig->tag[0].open);
}

/* Short deadlines and a server that comes back: nobody fails who could be served. */
TEST_F(breaker, back_in_time_is_in_time)
{
	struct rig *rig = self->rig;
	int i, round;

	rig_go(rig);
	for (round = 0; round < 3; round++) {
		rig_tell(rig, "fault drop count=0\n");
		for (i = 0; i < 50; i++)
			post(rig, i, 1, i, 4000);
		ASSERT_EQ(0, until_down(rig));
		/* half of the time is over, and the next probe is a while off */
		ASSERT_EQ(0, turns_for(rig, (1000 + 300 * round) * MSEC));
		rig_tell(rig, "clear\n");
		ASSERT_EQ(0, rig_run(rig));
		for (i = 0; i < 50; i++)
			EXPECT_EQ(0, rig->tag[i].status);
	}
}

static int lines_with(const char *path, const char *words)
{
	char line[1024];
	FILE *f = fopen(path, "r");
	int n = 0;

	while (f && fgets(line, sizeof(line), f))
		n += !!strstr(line, words);
	if (f)
		fclose(f);
	return n;
}

TEST_F(breaker, the_log_tells_each_change_once)
{
	struct rig *rig = self->rig;
	int i, round, saved, fd;
	char path[128];

	rig_go(rig);
	snprintf(path, sizeof(path), "%s/log", rig->dir);
	saved = dup(2);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
	dup2(fd, 2);
	close(fd);
	for (round = 1; round <= 3; round++) {
		rig_tell(rig, "fault drop count=0\n");
		for (i = 0; i < 20; i++)
			post(rig, i, 1, i, 0);
		if (until_down(rig) || turns_for(rig, 700 * MSEC))
			break;
		if (lines_with(path, "does not answer") != round ||
		    lines_with(path, "answers again") != round - 1)
			break;
		rig_tell(rig, "clear\n");
		if (rig_run(rig) ||
		    lines_with(path, "answers again") != round)
			break;
	}
	dup2(saved, 2);
	close(saved);
	EXPECT_EQ(4, round);
	EXPECT_EQ(3, lines_with(path, "does not answer, 5 attempts have failed: "));
	EXPECT_EQ(0, lines_with(path, "/object does not"));
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0-only
/* The daemon's fetcher against a server that misbehaves as it is told. */
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "rig.h"

#define PREFETCH	LAZYFRAME_REQ_PREFETCH
#define PROMOTE		LAZYFRAME_REQ_PROMOTE
#define LINES		1024

FIXTURE(fetch) {
	struct rig *rig;
	struct rig_line *log;
};

FIXTURE_SETUP(fetch)
{
	self->rig = malloc(sizeof(*self->rig));
	self->log = malloc(LINES * sizeof(*self->log));
	rig_up(self->rig);
}

FIXTURE_TEARDOWN(fetch)
{
	EXPECT_EQ(0, self->rig->wrong);
	rig_down(self->rig);
	free(self->rig);
	free(self->log);
}

static void post(struct rig *rig, u32 tag, u64 frame, u32 flags, u64 ms)
{
	rig_post(rig, tag, 1, frame * FRAME, FRAME, 0, flags, ms);
}

TEST_F(fetch, one_frame_is_one_range)
{
	struct rig *rig = self->rig;

	rig_go(rig);
	rig_post(rig, 0, 1, 12345, 54321, 0, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(0, rig->tag[0].status);
	ASSERT_EQ(1, rig_log(rig, self->log, LINES));
	EXPECT_EQ(12345, self->log[0].first);
	EXPECT_EQ(12345 + 54321 - 1, self->log[0].last);
	EXPECT_EQ(54321, self->log[0].sent);
}

TEST_F(fetch, neighbours_are_one_range)
{
	struct rig *rig = self->rig;
	u32 i;

	rig_go(rig);
	/* 37 has no common divisor with 64: every frame, out of order */
	for (i = 0; i < 64; i++)
		post(rig, i, i * 37 % 64, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	ASSERT_EQ(1, rig_log(rig, self->log, LINES));
	EXPECT_EQ(0, self->log[0].first);
	EXPECT_EQ(64 * FRAME - 1, self->log[0].last);
}

TEST_F(fetch, ranges_are_no_longer_than_range_max)
{
	struct rig *rig = self->rig;
	u32 i;

	rig->options.range_max = 1 << 20;
	rig_go(rig);
	for (i = 0; i < 64; i++)
		post(rig, i, i, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(8, rig_log(rig, self->log, LINES));
}

TEST_F(fetch, gaps_split_unless_allowed)
{
	struct rig *rig = self->rig;

	rig_go(rig);
	post(rig, 0, 0, 0, 0);
	post(rig, 1, 2, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(2, rig_log(rig, self->log, LINES));
	EXPECT_EQ(0, fetch_stats(rig->fetch)->wasted);
}

TEST_F(fetch, small_gaps_are_thrown_away)
{
	struct rig *rig = self->rig;

	rig->options.gap_max = FRAME;
	rig_go(rig);
	post(rig, 0, 0, 0, 0);
	post(rig, 1, 2, 0, 0);
	post(rig, 2, 5, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(2, rig_log(rig, self->log, LINES));
	EXPECT_EQ(FRAME, fetch_stats(rig->fetch)->wasted);
}

TEST_F(fetch, a_waiting_range_grows)
{
	struct rig *rig = self->rig;
	u32 i;

	rig->options.connections = 1;
	rig->options.stall_ns = 30 * NSEC_PER_SEC;
	rig_go(rig);
	rig_tell(rig, "fault hold at=1000\n");
	post(rig, 0, 80, 0, 0);
	while (!rig->tag[0].have)
		ASSERT_EQ(0, rig_turn(rig));
	for (i = 1; i < 33; i++) {
		post(rig, i, i, 0, 0);
		ASSERT_EQ(0, fetch_run(rig->fetch));
	}
	rig_tell(rig, "release\n");
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(2, rig_log(rig, self->log, LINES));
}

TEST_F(fetch, first_frame_is_there_before_the_range_is_complete)
{
	struct rig *rig = self->rig;
	u32 i;

	rig->options.stall_ns = 30 * NSEC_PER_SEC;
	rig_go(rig);
	rig_tell(rig, "fault hold at=%d\n", FRAME);
	for (i = 0; i < 64; i++)
		post(rig, i, i, 0, 0);
	while (rig->tag[0].open)
		ASSERT_EQ(0, rig_turn(rig));
	/* The server holds back the other 63. */
	EXPECT_EQ(63, rig->open);
	EXPECT_EQ(0, rig->tag[1].have);
	rig_tell(rig, "release\n");
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(1, rig_log(rig, self->log, LINES));
}

TEST_F(fetch, demand_overtakes_queued_prefetch)
{
	struct rig *rig = self->rig;

	rig->options.connections = 1;
	rig->options.stall_ns = 30 * NSEC_PER_SEC;
	rig_go(rig);
	rig_tell(rig, "fault hold at=1000\n");
	post(rig, 0, 0, 0, 0);
	while (!rig->tag[0].have)
		ASSERT_EQ(0, rig_turn(rig));
	post(rig, 1, 10, PREFETCH, 0);
	post(rig, 2, 20, PREFETCH, 0);
	post(rig, 3, 30, 0, 0);
	rig_tell(rig, "release\n");
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(2, rig->tag[3].finished);
	EXPECT_EQ(3, rig->tag[1].finished);
	EXPECT_EQ(4, rig->tag[2].finished);
}

TEST_F(fetch, promotion_overtakes_queued_prefetch)
{
	struct rig *rig = self->rig;

	rig->options.connections = 1;
	rig->options.stall_ns = 30 * NSEC_PER_SEC;
	rig_go(rig);
	rig_tell(rig, "fault hold at=1000\n");
	post(rig, 0, 0, 0, 0);
	while (!rig->tag[0].have)
		ASSERT_EQ(0, rig_turn(rig));
	post(rig, 1, 10, PREFETCH, 0);
	post(rig, 2, 20, PREFETCH, 0);
	post(rig, 2, 20, PREFETCH | PROMOTE, 0);
	post(rig, 7, 20, PROMOTE, 0);	/* no such request: ignored */
	rig_tell(rig, "release\n");
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(2, rig->tag[2].finished);
	EXPECT_EQ(3, rig->tag[1].finished);
	EXPECT_EQ(3, fetch_stats(rig->fetch)->requests);
	post(rig, 2, 20, PROMOTE, 0);	/* after its last answer: ignored */
	EXPECT_EQ(0, fetch_stats(rig->fetch)->open);
}

TEST_F(fetch, promotion_brings_a_deadline)
{
	struct rig *rig = self->rig;

	rig_go(rig);
	rig_tell(rig, "fault status count=0\n");
	post(rig, 0, 0, PREFETCH, 0);
	post(rig, 0, 0, PROMOTE, 300);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(ETIMEDOUT, rig->tag[0].status);
}

TEST_F(fetch, a_connection_is_kept_for_demand)
{
	struct rig *rig = self->rig;

	rig->options.connections = 3;
	rig->options.stall_ns = 30 * NSEC_PER_SEC;
	rig_go(rig);
	rig_tell(rig, "fault hold count=3\n");
	post(rig, 0, 0, PREFETCH, 0);
	post(rig, 1, 10, PREFETCH, 0);
	post(rig, 2, 20, PREFETCH, 0);
	ASSERT_EQ(0, fetch_run(rig->fetch));
	EXPECT_EQ(2, fetch_stats(rig->fetch)->running);
	/* Not even as a passenger of a demanded frame. */
	post(rig, 3, 30, 0, 0);
	post(rig, 4, 31, PREFETCH, 0);
	ASSERT_EQ(0, fetch_run(rig->fetch));
	EXPECT_EQ(3, fetch_stats(rig->fetch)->running);
	do {
		rig_tell(rig, "faults\n");
	} while (*rig->text && !rig_turn(rig));
	rig_tell(rig, "release\n");
	ASSERT_EQ(0, rig_run(rig));
	ASSERT_EQ(5, rig_log(rig, self->log, LINES));
}

TEST_F(fetch, prefetch_behind_demand_comes_along)
{
	struct rig *rig = self->rig;

	rig_go(rig);
	post(rig, 0, 1, PREFETCH, 0);
	post(rig, 1, 2, 0, 0);
	post(rig, 2, 3, PREFETCH, 0);
	ASSERT_EQ(0, rig_run(rig));
	/* 2 and 3 together, 1 is not to delay 2 */
	ASSERT_EQ(2, rig_log(rig, self->log, LINES));
	EXPECT_EQ(2, fetch_stats(rig->fetch)->ranges);
	EXPECT_EQ(3 * FRAME, self->log[0].sent + self->log[1].sent);
	EXPECT_NE(self->log[0].sent, self->log[1].sent);
}

TEST_F(fetch, connections_are_kept_alive)
{
	struct rig *rig = self->rig;
	u32 i;

	rig_go(rig);
	for (i = 0; i < 16; i++) {
		post(rig, i, 2 * i, 0, 0);
		ASSERT_EQ(0, rig_run(rig));
	}
	ASSERT_EQ(16, rig_log(rig, self->log, LINES));
	for (i = 1; i < 16; i++)
		EXPECT_EQ(self->log[0].connection, self->log[i].connection);
}

TEST_F(fetch, as_many_connections_as_allowed)
{
	struct rig *rig = self->rig;
	int low = 1 << 30, high = 0, i;

	rig->options.connections = 5;
	rig_go(rig);
	rig_tell(rig, "shape delay=0.05\n");
	for (i = 0; i < 40; i++)
		post(rig, i, 2 * i, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	ASSERT_EQ(40, rig_log(rig, self->log, LINES));
	for (i = 0; i < 40; i++) {
		int c = self->log[i].connection;

		low = c < low ? c : low;
		high = c > high ? c : high;
	}
	/* The connection of rig_tell() came first. */
	EXPECT_EQ(5, high - low + 1);
}

TEST_F(fetch, resumes_where_the_last_attempt_stopped)
{
	struct rig *rig = self->rig;

	rig_go(rig);
	rig_tell(rig, "fault short at=200000\nfault reset at=50000\n");
	post(rig, 0, 8, 0, 0);
	post(rig, 1, 9, 0, 0);
	post(rig, 2, 10, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	ASSERT_EQ(3, rig_log(rig, self->log, LINES));
	EXPECT_EQ(8 * FRAME, self->log[0].first);
	EXPECT_EQ(8 * FRAME + 200000, self->log[1].first);
	/* A reset may destroy bytes that had arrived. */
	EXPECT_GE(self->log[2].first, 8 * FRAME + 200000);
	EXPECT_LE(self->log[2].first, 8 * FRAME + 250000);
	EXPECT_EQ(11 * FRAME - 1, self->log[2].last);
	EXPECT_EQ(3 * FRAME, fetch_stats(rig->fetch)->bytes);
}

TEST_F(fetch, resumes_what_another_helper_began)
{
	struct rig *rig = self->rig;

	rig_go(rig);
	rig_post(rig, 0, 1, FRAME, FRAME, 70000, 0, 0);
	rig_post(rig, 1, 1, 2 * FRAME, FRAME, 0, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	ASSERT_EQ(1, rig_log(rig, self->log, LINES));
	EXPECT_EQ(FRAME + 70000, self->log[0].first);
	EXPECT_EQ(2 * FRAME - 70000, self->log[0].sent);
}

/* What is retried. A stray byte would show as "wrong" in the sink. */
static const char *const passing[] = {
	"status code=500", "status code=502", "status code=504",
	"status code=429", "status code=200", "status code=204",
	"status code=302", "unavailable after=0", "whole",
	"short at=0", "short at=100000", "reset at=0", "reset at=70000",
	"stall at=0", "stall at=90000", "loris", "range", "norange", "length",
	"noetag", "encoding", "empty", "redirect", "chunked",
	"drop", "mute", "status code=408", "unavailable date=1",
	"unavailable date=-5 skew=3600", "late wait=0.05", "trickle",
};

static bool is(const char *fault, const char *kind)
{
	return !strncmp(fault, kind, strlen(kind));
}

TEST_F_TIMEOUT(fetch, passing_faults_end_in_the_right_bytes, 120)
{
	struct rig *rig = self->rig;
	char url[160], etag[128];
	size_t i;

	rig->options.stall_ns = 200 * NSEC_PER_MSEC;
	rig_go(rig);
	rig_etag(rig, etag, sizeof(etag));
	snprintf(url, sizeof(url), "%s/object", rig->url);
	rig_layer(rig, 2, url, OBJECT_BYTES, etag);
	for (i = 0; i < ARRAY_SIZE(passing); i++) {
		u64 retries = fetch_stats(rig->fetch)->retries;
		bool fine = is(passing[i], "redirect") ||
			    is(passing[i], "chunked") ||
			    is(passing[i], "trickle") || is(passing[i], "late");

		rig_tell(rig, "clear\nfault %s count=%d\n", passing[i],
			 fine ? 1 : 2);
		rig_post(rig, 0, 2, FRAME, FRAME, 0, 0, 20000);
		rig_post(rig, 1, 2, 2 * FRAME, FRAME, 0, 0, 20000);
		ASSERT_EQ(0, rig_run(rig));
		rig_tell(rig, "faults\n");
		EXPECT_EQ(0, *rig->text)
			TH_LOG("%s did not happen", passing[i]);
		EXPECT_EQ(0, rig->tag[0].status + rig->tag[1].status)
			TH_LOG("%s", passing[i]);
		if (!fine)
			EXPECT_LT(retries, fetch_stats(rig->fetch)->retries)
				TH_LOG("%s was not noticed", passing[i]);
		EXPECT_EQ(0, rig->wrong)
			TH_LOG("%s let wrong bytes through", passing[i]);
	}
}

/*
 * The same without an end: an error at the deadline. A busy machine may be late,
 * but not by as much as another attempt would take.
 */
TEST_F_TIMEOUT(fetch, lasting_faults_end_at_the_deadline, 120)
{
	struct rig *rig = self->rig;
	char url[160], etag[128];
	size_t i;

	rig_go(rig);
	rig_etag(rig, etag, sizeof(etag));
	snprintf(url, sizeof(url), "%s/object", rig->url);
	rig_layer(rig, 2, url, OBJECT_BYTES, etag);
	for (i = 0; i < ARRAY_SIZE(passing); i++) {
		u64 begin;

		if (is(passing[i], "chunked") || is(passing[i], "trickle") ||
		    is(passing[i], "late") || is(passing[i], "short at=1") ||
		    is(passing[i], "stall at=9") ||
		    is(passing[i], "reset at=7"))
			continue;	/* succeeds piece by piece */
		rig_tell(rig, "clear\nfault %s count=0\n", passing[i]);
		begin = now_ns();
		rig_post(rig, 0, 2, FRAME, FRAME, 0, 0, 700);
		ASSERT_EQ(0, rig_run(rig));
		EXPECT_EQ(ETIMEDOUT, rig->tag[0].status)
			TH_LOG("%s", passing[i]);
		EXPECT_LT(rig->tag[0].when, begin + NSEC_PER_SEC)
			TH_LOG("%s: too late", passing[i]);
		EXPECT_GT(rig->tag[0].when, begin + 600 * NSEC_PER_MSEC)
			TH_LOG("%s: gave up early", passing[i]);
	}
}

TEST_F(fetch, a_deadline_leaves_time_for_another_attempt)
{
	struct rig *rig = self->rig;

	rig->options.stall_ns = 3600 * NSEC_PER_SEC;
	rig_go(rig);
	rig_tell(rig, "fault stall at=1000 count=2\n");
	post(rig, 0, 0, 0, 4000);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(0, rig->tag[0].status);
	EXPECT_EQ(3, rig_log(rig, self->log, LINES));
}

TEST_F(fetch, final_errors_come_at_once)
{
	static const struct {
		const char *fault;
		int error;
	} final[] = {
		{ "status code=404", ENOENT }, { "status code=410", ENOENT },
		{ "status code=401", EACCES }, { "status code=403", EACCES },
		{ "status code=412", ESTALE }, { "status code=416", ESTALE },
		{ "etag", ESTALE }, { "other", ESTALE }, { "total", ESTALE },
	};
	struct rig *rig = self->rig;
	char url[160], etag[128];
	size_t i;

	rig_go(rig);
	rig_etag(rig, etag, sizeof(etag));
	snprintf(url, sizeof(url), "%s/object", rig->url);
	rig_layer(rig, 2, url, OBJECT_BYTES, etag);
	for (i = 0; i < ARRAY_SIZE(final); i++) {
		rig_tell(rig, "clear\nforget\nfault %s\n", final[i].fault);
		rig_post(rig, 0, 2, FRAME, FRAME, 0, 0, 0);
		rig_post(rig, 1, 2, 2 * FRAME, FRAME, 0, 0, 0);
		ASSERT_EQ(0, rig_run(rig));
		EXPECT_EQ(final[i].error, rig->tag[0].status)
			TH_LOG("%s", final[i].fault);
		EXPECT_EQ(final[i].error, rig->tag[1].status)
			TH_LOG("%s", final[i].fault);
		EXPECT_EQ(1, rig_log(rig, self->log, LINES));
		EXPECT_EQ(0, rig->tag[0].have);
	}
	rig_tell(rig, "clear\nforget\n");
	snprintf(url, sizeof(url), "%s/nothing", rig->url);
	rig_layer(rig, 3, url, 0, "");
	rig_post(rig, 0, 3, 0, FRAME, 0, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(ENOENT, rig->tag[0].status);
}

TEST_F(fetch, a_changed_object_is_noticed_by_its_tag)
{
	struct rig *rig = self->rig;

	rig_go(rig);
	post(rig, 0, 0, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	/* The layer came without a tag: the first one seen counts. */
	rig_tell(rig, "etag other\n");
	post(rig, 1, 5, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(ESTALE, rig->tag[1].status);
	/* The request told what was wanted: the server could refuse. */
	ASSERT_EQ(2, rig_log(rig, self->log, LINES));
	EXPECT_EQ(412, self->log[1].status);
}

TEST_F(fetch, a_smaller_object_is_noticed)
{
	struct rig *rig = self->rig;
	char url[160];

	rig_go(rig);
	snprintf(url, sizeof(url), "%s/object", rig->url);
	rig_layer(rig, 2, url, OBJECT_BYTES + FRAME, "");
	rig_post(rig, 0, 2, OBJECT_BYTES - 100, FRAME, 0, 0, 0);
	rig_post(rig, 1, 2, OBJECT_BYTES, FRAME, 0, 0, 0);
	rig->tag[0].offset = 0;
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(ESTALE, rig->tag[0].status);
	EXPECT_EQ(ESTALE, rig->tag[1].status);
}

TEST_F(fetch, corrupt_bytes_are_passed_on_for_the_kernel_to_judge)
{
	struct rig *rig = self->rig;

	rig_go(rig);
	rig_tell(rig, "fault corrupt at=500\n");
	post(rig, 0, 0, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(1, rig->wrong);
	rig->wrong = 0;
	post(rig, 0, 0, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
}

TEST_F(fetch, the_whole_object_may_come_as_200)
{
	struct rig *rig = self->rig;
	char path[128], url[160];
	int fd;

	rig_go(rig);
	snprintf(path, sizeof(path), "%s/small", rig->dir);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	ASSERT_EQ(5000, write(fd, rig->object, 5000));
	close(fd);
	snprintf(url, sizeof(url), "%s/small", rig->url);
	rig_layer(rig, 2, url, 5000, "");
	rig_tell(rig, "fault whole\n");
	rig_post(rig, 0, 2, 0, 5000, 0, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(0, rig->tag[0].status);
	EXPECT_EQ(0, fetch_stats(rig->fetch)->retries);

	/* Only if it is what was asked for; here the size is not known. */
	rig_layer(rig, 3, url, 0, "");
	rig_tell(rig, "fault whole\nfault whole\n");
	rig_post(rig, 0, 3, 0, 4000, 0, 0, 0);
	rig_post(rig, 1, 3, 4500, 500, 0, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(0, rig->tag[0].status + rig->tag[1].status);
	EXPECT_EQ(2, fetch_stats(rig->fetch)->retries);
}

TEST_F(fetch, retry_after_is_obeyed_and_bounded)
{
	struct rig *rig = self->rig;

	rig_go(rig);
	rig_tell(rig, "fault unavailable after=1\n");
	post(rig, 0, 0, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	ASSERT_EQ(2, rig_log(rig, self->log, LINES));
	EXPECT_GE(self->log[1].start - self->log[0].start, 1.0);
	/* The refusal did not cost the connection. */
	EXPECT_EQ(self->log[0].connection, self->log[1].connection);

	rig_tell(rig, "forget\nfault unavailable after=100000\n");
	post(rig, 0, 0, 0, 4000);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(0, rig->tag[0].status);
}

/*
 * Retry-After as a date is a date of the server's clock, which is told in Date; of
 * ours, where it is not. Whole seconds: half of one may be lost on either side.
 */
TEST_F(fetch, retry_after_may_be_a_date)
{
	static const struct {
		const char *words;
		double least, most;
	} date[] = {
		{ "date=2 skew=0", 2, 6 },
		{ "date=2 skew=86400", 2, 6 },
		{ "date=2 skew=-86400", 2, 6 },
		{ "date=3", 1.9, 6 },
		{ "date=-10 skew=86400", 0, 3 },
		{ "date=-10", 0, 3 },
	};
	struct rig *rig = self->rig;
	double waited;
	size_t i;

	rig_go(rig);
	for (i = 0; i < ARRAY_SIZE(date); i++) {
		rig_tell(rig, "forget\nfault unavailable %s\n", date[i].words);
		post(rig, 0, i, 0, 0);
		ASSERT_EQ(0, rig_run(rig));
		ASSERT_EQ(2, rig_log(rig, self->log, LINES));
		waited = self->log[1].start - self->log[0].start;
		EXPECT_GE(waited, date[i].least)
			TH_LOG("%s", date[i].words);
		EXPECT_LE(waited, date[i].most)
			TH_LOG("%s", date[i].words);
	}
	/* A century is cut to the deadline, as are as many seconds. */
	rig_tell(rig, "fault unavailable date=3000000000\n");
	post(rig, 0, 0, 0, 2000);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(0, rig->tag[0].status);
}

/*
 * Connections that are never accepted: attempts are cut short enough for several
 * of them to fit, and the frame fails when its time is over, not later.
 */
TEST_F(fetch, a_deadline_is_divided_over_connection_attempts)
{
	struct sockaddr_in a = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct rig *rig = self->rig;
	socklen_t len = sizeof(a);
	u64 begin = now_ns();
	char url[160];
	int fd[4], i;

	ASSERT_EQ(0, bind(listener, (void *)&a, len));
	ASSERT_EQ(0, listen(listener, 0));
	ASSERT_EQ(0, getsockname(listener, (void *)&a, &len));
	/* The queue is full: whoever comes now waits for an answer. */
	for (i = 0; i < 4; i++) {
		fd[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK |
			       SOCK_CLOEXEC, 0);
		connect(fd[i], (void *)&a, len);
	}
	rig->options.connect_ns = 3600 * NSEC_PER_SEC;
	rig->options.stall_ns = 3600 * NSEC_PER_SEC;
	rig_go(rig);
	snprintf(url, sizeof(url), "http://127.0.0.1:%d/object",
		 ntohs(a.sin_port));
	rig_layer(rig, 2, url, OBJECT_BYTES, "");
	rig_post(rig, 0, 2, 0, FRAME, 0, 0, 3000);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(ETIMEDOUT, rig->tag[0].status);
	EXPECT_LT(rig->tag[0].when, begin + 3500 * NSEC_PER_MSEC);
	EXPECT_GE(fetch_stats(rig->fetch)->ranges, 4);
	for (i = 0; i < 4; i++)
		close(fd[i]);
	close(listener);
}

TEST_F(fetch, redirects_are_limited_and_stay_on_http)
{
	struct rig *rig = self->rig;

	rig_go(rig);
	rig_tell(rig, "fault redirect count=5\n");
	post(rig, 0, 0, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(0, fetch_stats(rig->fetch)->retries);
	rig_tell(rig, "fault redirect count=6\n");
	post(rig, 0, 0, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(1, fetch_stats(rig->fetch)->retries);
	rig_tell(rig, "clear\nfault redirect count=0 to=file://%s/object\n",
		 rig->dir);
	post(rig, 0, 0, 0, 400);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(ETIMEDOUT, rig->tag[0].status);
	EXPECT_EQ(0, rig->tag[0].have);
}

TEST_F(fetch, one_frame_that_always_breaks_does_not_stop_its_neighbours)
{
	struct rig *rig = self->rig;
	u32 i;

	rig_go(rig);
	rig_tell(rig, "fault short first=0 at=%d\nfault short first=%d count=0\n",
		 4 * FRAME, 4 * FRAME);
	for (i = 0; i < 16; i++)
		post(rig, i, i, 0, 3000);
	ASSERT_EQ(0, rig_run(rig));
	for (i = 0; i < 16; i++)
		EXPECT_EQ(i == 4 ? ETIMEDOUT : 0, rig->tag[i].status);
}

TEST_F(fetch, waits_for_a_server_that_is_away)
{
	struct rig *rig = self->rig;
	u64 begin = now_ns();
	u32 i;

	rig_go(rig);
	rig_server_stop(rig);
	for (i = 0; i < 32; i++)
		post(rig, i, i, 0, 0);
	while (now_ns() < begin + NSEC_PER_SEC)
		ASSERT_EQ(0, rig_turn(rig));
	EXPECT_EQ(32, rig->open);
	/* They fail together and are asked for together: backoff works. */
	EXPECT_GT(fetch_stats(rig->fetch)->ranges, 3);
	EXPECT_LT(fetch_stats(rig->fetch)->ranges, 50);
	rig_server(rig);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(1, rig_log(rig, self->log, LINES));
}

TEST_F(fetch, a_dead_origin_does_not_hold_up_another)
{
	struct rig *rig = self->rig;
	u32 i;

	rig->options.stall_ns = 30 * NSEC_PER_SEC;
	rig_go(rig);
	rig_layer(rig, 2, "http://localhost:1/object", OBJECT_BYTES, "");
	for (i = 0; i < 100; i++)
		rig_post(rig, i, 2, 2 * i * 4096, 4096, 0, 0, 0);
	post(rig, 200, 0, 0, 5000);
	while (rig->tag[200].open)
		ASSERT_EQ(0, rig_turn(rig));
	EXPECT_EQ(0, rig->tag[200].status);
	EXPECT_EQ(100, rig->open);
}

TEST_F(fetch, requests_that_make_no_sense_are_refused)
{
	static const char *const locator[] = {
		"", "object", "az://bucket/object", "s3://bucket/a%0", "gs:///object",
		"s3:///object", "file://elsewhere/object",
		"file:///tmp/a%0", "file:///tmp/%00", "http://",
	};
	struct rig *rig = self->rig;
	size_t i;

	rig_go(rig);
	rig_post(rig, 0, 1, OBJECT_BYTES - FRAME + 1, FRAME, 0, 0, 0);
	EXPECT_EQ(EPROTO, rig->tag[0].status);
	rig_post(rig, 0, 1, UINT64_MAX, FRAME, 0, 0, 0);
	EXPECT_EQ(EPROTO, rig->tag[0].status);
	rig_post(rig, 0, 1, 0, FRAME, FRAME, 0, 0);
	EXPECT_EQ(EPROTO, rig->tag[0].status);
	rig_post(rig, 0, 1, 0, 0, 0, 0, 0);
	EXPECT_EQ(EPROTO, rig->tag[0].status);
	rig_post(rig, 0, 15, 0, FRAME, 0, 0, 0);
	EXPECT_EQ(ENOENT, rig->tag[0].status);
	for (i = 1; i < ARRAY_SIZE(locator); i++) {
		/* The layer is looked up once: each needs its own id. */
		rig_layer(rig, i + 1, locator[i], 0, "");
		rig_post(rig, 0, i + 1, 0, FRAME, 0, 0, 500);
		ASSERT_EQ(0, rig_run(rig));
		EXPECT_EQ(EPROTO, rig->tag[0].status)
			TH_LOG("%s", locator[i]);
	}
}

TEST_F(fetch, an_answer_that_the_kernel_refuses_ends_one_request_only)
{
	struct rig *rig = self->rig;

	rig_go(rig);
	post(rig, 0, 0, 0, 0);
	post(rig, 1, 1, 0, 0);
	post(rig, 2, 2, 0, 0);
	rig->tag[1].refuse = true;
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(0, rig->tag[0].status);
	EXPECT_EQ(EIO, rig->tag[1].status);
	EXPECT_EQ(0, rig->tag[2].status);
	EXPECT_EQ(1, rig_log(rig, self->log, LINES));
}

TEST_F(fetch, a_lost_session_ends_it)
{
	struct rig *rig = self->rig;
	int err = 0;

	rig_go(rig);
	post(rig, 0, 0, 0, 0);
	rig->session_error = -ESTALE;
	while (!err)
		err = rig_turn(rig);
	EXPECT_EQ(-ESTALE, err);
}

TEST_F(fetch, leaving_with_work_in_flight)
{
	struct rig *rig = self->rig;
	char url[160];
	u32 i;

	rig_go(rig);
	snprintf(url, sizeof(url), "file://%s/object", rig->dir);
	rig_layer(rig, 2, url, OBJECT_BYTES, "");
	rig_tell(rig, "fault hold at=1000 count=0\n");
	for (i = 0; i < 20; i++) {
		post(rig, i, 2 * i, 0, 0);
		rig_post(rig, i + 20, 2, 2 * i * FRAME, FRAME, 0, 0, 0);
	}
	while (!rig->tag[0].have)
		ASSERT_EQ(0, rig_turn(rig));
}

TEST_F(fetch, files)
{
	struct rig *rig = self->rig;
	char url[160], path[128], etag[128];
	u32 i;

	rig_go(rig);
	rig_etag(rig, etag, sizeof(etag));
	snprintf(url, sizeof(url), "file://%s/%%6fbjec%%74", rig->dir);
	rig_layer(rig, 2, url, OBJECT_BYTES, etag);
	for (i = 0; i < 90; i++)
		rig_post(rig, i, 2, i * FRAME, FRAME, i, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	for (i = 0; i < 90; i++)
		EXPECT_EQ(0, rig->tag[i].status);

	snprintf(url, sizeof(url), "file://%s/object", rig->dir);
	rig_layer(rig, 3, url, OBJECT_BYTES, "\"1-2-3\"");
	rig_post(rig, 0, 3, 0, FRAME, 0, 0, 0);
	rig_layer(rig, 4, url, OBJECT_BYTES + 1, "");
	rig_post(rig, 1, 4, 0, FRAME, 0, 0, 0);
	rig_layer(rig, 5, "file:///nowhere/at/all", 0, "");
	rig_post(rig, 2, 5, 0, FRAME, 0, 0, 0);
	rig_layer(rig, 6, "file:///", 0, "");
	rig_post(rig, 3, 6, 0, FRAME, 0, 0, 0);
	snprintf(path, sizeof(path), "%s/fifo", rig->dir);
	ASSERT_EQ(0, mkfifo(path, 0600));
	snprintf(url, sizeof(url), "file://localhost%s", path);
	rig_layer(rig, 7, url, 0, "");
	rig_post(rig, 4, 7, 0, FRAME, 0, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(ESTALE, rig->tag[0].status);
	EXPECT_EQ(ESTALE, rig->tag[1].status);
	EXPECT_EQ(ENOENT, rig->tag[2].status);
	EXPECT_EQ(EPROTO, rig->tag[3].status);
	EXPECT_EQ(EPROTO, rig->tag[4].status);

	/* The file shrinks: what was attached is gone. */
	snprintf(path, sizeof(path), "%s/object", rig->dir);
	ASSERT_EQ(0, truncate(path, 5 * FRAME));
	rig_post(rig, 0, 2, 8 * FRAME, FRAME, 0, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(ESTALE, rig->tag[0].status);
}

static unsigned int open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int count = 0;

	while (dir && readdir(dir))
		count++;
	if (dir)
		closedir(dir);
	return count;
}

TEST_F(fetch, files_are_closed_again)
{
	struct rig *rig = self->rig;
	unsigned int before = 0;
	char url[160];
	u32 round, i;

	rig_go(rig);
	snprintf(url, sizeof(url), "file://%s/object", rig->dir);
	rig_layer(rig, 2, url, 0, "");
	rig_layer(rig, 3, url, OBJECT_BYTES + 1, "");
	rig_layer(rig, 4, url, 0, "\"1-2-3\"");
	for (round = 0; round < 40; round++) {
		for (i = 0; i < 4; i++)
			rig_post(rig, i, 2, (round + 2 * i) * FRAME, FRAME, 0,
				 0, 0);
		/* too short, another one, not there at all, ends early */
		rig_post(rig, 4, 3, 0, FRAME, 0, 0, 0);
		rig_post(rig, 5, 4, 0, FRAME, 0, 0, 0);
		rig_layer(rig, 5, "file:///nowhere/at/all", 0, "");
		rig_post(rig, 6, 5, 0, FRAME, 0, 0, 0);
		rig_post(rig, 7, 2, OBJECT_BYTES - 1000, FRAME, 0, 0, 0);
		ASSERT_EQ(0, rig_run(rig));
		for (i = 0; i < 4; i++)
			EXPECT_EQ(0, rig->tag[i].status);
		for (; i < 8; i++)
			EXPECT_NE(0, rig->tag[i].status);
		/* The first round opens what stays open, as event files. */
		if (!round)
			before = open_files();
	}
	EXPECT_EQ(before, open_files());
}

TEST_F(fetch, a_file_that_ends_early)
{
	struct rig *rig = self->rig;
	char url[160];

	rig_go(rig);
	snprintf(url, sizeof(url), "file://%s/object", rig->dir);
	rig_layer(rig, 2, url, 0, "");
	rig_post(rig, 0, 2, OBJECT_BYTES - 1000, FRAME, 0, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(EPROTO, rig->tag[0].status);
}

/* Everything at once; every byte is compared, everybody is answered. */
TEST_F_TIMEOUT(fetch, soak, 120)
{
	struct rig *rig = self->rig;
	char url[160], etag[128];
	u32 done = 0, tag = 0;
	size_t i;

	srand(1);
	rig->options.stall_ns = 100 * NSEC_PER_MSEC;
	rig->options.range_max = 1 << 20;
	rig_go(rig);
	rig_etag(rig, etag, sizeof(etag));
	snprintf(url, sizeof(url), "%s/object", rig->url);
	rig_layer(rig, 2, url, OBJECT_BYTES, etag);
	while (done < 3000) {
		u32 burst = rand() % 16, frame = rand() % 600;

		if (rand() % 4 == 0) {
			i = rand() % ARRAY_SIZE(passing);
			rig_tell(rig, "fault %s\n", passing[i]);
		}
		while (burst-- && rig->open < TAGS) {
			while (rig->tag[tag].open)
				tag = (tag + 1) % TAGS;
			rig_post(rig, tag, 2, frame++ * 20000ULL, 20000, 0,
				 rand() % 2 ? PREFETCH : 0, 0);
			if (rand() % 8 == 0)
				rig_post(rig, tag, 2, rig->tag[tag].offset,
					 20000, 0, PROMOTE, 0);
			done++;
		}
		for (i = 0; i < 20 && rig->open; i++)
			ASSERT_EQ(0, rig_turn(rig));
	}
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(done, fetch_stats(rig->fetch)->completed);
	EXPECT_EQ(0, fetch_stats(rig->fetch)->failed);
	EXPECT_EQ(0, fetch_stats(rig->fetch)->open);
	EXPECT_EQ((u64)done * 20000, fetch_stats(rig->fetch)->bytes);
}

TEST_HARNESS_MAIN

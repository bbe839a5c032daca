// SPDX-License-Identifier: GPL-2.0-only
/* Full jitter, by its distribution; the breaker, by its clock. */
#include "kselftest_harness.h"

#include "../../helper/breaker.h"

#define DRAWS	100000
#define BINS	20

static u64 limit_of(unsigned int n)
{
	u64 limit = BACKOFF_BASE;

	while (n-- && limit < BACKOFF_CAP)
		limit *= 2;
	return limit < BACKOFF_CAP ? limit : BACKOFF_CAP;
}

/* Each tenth of the way has its share: half a limit, for one, is no minimum. */
TEST(jitter_is_full)
{
	unsigned int n, i, bin[BINS];
	struct dice dice;

	dice_init(&dice, 12345);
	for (n = 0; n < 12; n++) {
		u64 limit = limit_of(n), sum = 0;
		double chi = 0, share = (double)DRAWS / BINS;

		memset(bin, 0, sizeof(bin));
		for (i = 0; i < DRAWS; i++) {
			u64 wait = backoff(&dice, n);

			ASSERT_LT(wait, limit);
			bin[wait * BINS / limit]++;
			sum += wait;
		}
		for (i = 0; i < BINS; i++)
			chi += (bin[i] - share) * (bin[i] - share) / share;
		/* 19 degrees of freedom: above 43.8 once in a thousand */
		EXPECT_LT(chi, 43.8)
			TH_LOG("after %u failures", n);
		EXPECT_GT(sum / DRAWS, limit * 49 / 100);
		EXPECT_LT(sum / DRAWS, limit * 51 / 100);
	}
}

TEST(jitter_doubles_up_to_its_cap)
{
	EXPECT_EQ(50 * NSEC_PER_MSEC, limit_of(0));
	EXPECT_EQ(100 * NSEC_PER_MSEC, limit_of(1));
	EXPECT_EQ(3200 * NSEC_PER_MSEC, limit_of(6));
	EXPECT_EQ(5 * NSEC_PER_SEC, limit_of(7));
}

TEST(jitter_has_no_end)
{
	static const unsigned int n[] = { 30, 31, 32, 63, 64, 65, 1000, ~0U };
	struct dice dice;
	size_t i, j;
	u64 most;

	dice_init(&dice, 1);
	for (i = 0; i < ARRAY_SIZE(n); i++) {
		for (most = 0, j = 0; j < 1000; j++) {
			u64 wait = backoff(&dice, n[i]);

			ASSERT_LT(wait, BACKOFF_CAP);
			most = wait > most ? wait : most;
		}
		EXPECT_GT(most, BACKOFF_CAP * 9 / 10);
	}
}

/* Two hosts that fail together do not come back together. */
TEST(hosts_differ)
{
	struct dice a, b, c;
	unsigned int i, same = 0;

	dice_init(&a, 1000);
	dice_init(&b, 1002);
	dice_init(&c, 0);
	for (i = 0; i < 1000; i++) {
		u64 x = backoff(&a, 3), y = backoff(&b, 3);
		u64 apart = x < y ? y - x : x - y;

		same += apart < 4 * NSEC_PER_MSEC;	/* a hundredth */
		backoff(&c, 3);
	}
	EXPECT_LT(same, 60);
	EXPECT_NE(backoff(&c, 3), backoff(&c, 3));
}

FIXTURE(breaker) {
	struct breaker b;
	struct dice dice;
	u64 now;
};

FIXTURE_SETUP(breaker)
{
	unsigned int i;

	dice_init(&self->dice, 99);
	self->now = 1000 * NSEC_PER_SEC;
	for (i = 1; i < BREAKER_FAILURES; i++) {
		EXPECT_FALSE(breaker_failed(&self->b, false, self->now, 0,
					    &self->dice));
		EXPECT_TRUE(breaker_ready(&self->b, self->now));
	}
	EXPECT_TRUE(breaker_failed(&self->b, false, self->now, 0, &self->dice));
}

FIXTURE_TEARDOWN(breaker)
{
}

TEST_F(breaker, one_success_between_is_no_sequence)
{
	struct breaker b = { };
	int i;

	for (i = 0; i < 1000; i++) {
		bool change = i % BREAKER_FAILURES == BREAKER_FAILURES - 1 ?
			breaker_answered(&b) :
			breaker_failed(&b, false, i, 0, &self->dice);

		EXPECT_FALSE(change);
		EXPECT_TRUE(breaker_ready(&b, i));
		EXPECT_FALSE(breaker_started(&b, i));
	}
}

TEST_F(breaker, one_probe_at_a_time)
{
	struct breaker *b = &self->b;

	EXPECT_TRUE(b->open);
	EXPECT_FALSE(breaker_ready(b, self->now));
	EXPECT_TRUE(breaker_ready(b, self->now + BREAKER_FIRST));
	EXPECT_TRUE(breaker_started(b, self->now + BREAKER_FIRST));
	EXPECT_FALSE(breaker_ready(b, self->now + 1000 * NSEC_PER_SEC));
	/* What began before it opened changes nothing when it fails. */
	EXPECT_FALSE(breaker_failed(b, false, self->now + 2, 0, &self->dice));
	EXPECT_FALSE(breaker_ready(b, self->now + 1000 * NSEC_PER_SEC));
}

TEST_F(breaker, intervals_grow_up_to_a_cap)
{
	struct breaker *b = &self->b;
	u64 least = BREAKER_FIRST / 2, now = self->now;
	int i;

	for (i = 0; i < 100; i++) {
		u64 wait = b->next - now;

		EXPECT_GE(wait, least);
		EXPECT_LT(wait, 2 * least);
		now = b->next;
		EXPECT_FALSE(breaker_ready(b, now - 1));
		EXPECT_TRUE(breaker_ready(b, now));
		EXPECT_TRUE(breaker_started(b, now));
		EXPECT_FALSE(breaker_failed(b, true, now, 0, &self->dice));
		least *= 2;
		if (least > BREAKER_CAP / 2)
			least = BREAKER_CAP / 2;
	}
	EXPECT_EQ(100, b->probes);
	EXPECT_EQ(self->now, b->since);
}

TEST_F(breaker, an_answer_closes_it_and_it_begins_anew)
{
	struct breaker *b = &self->b;
	int i;

	for (i = 0; i < 10; i++) {
		breaker_started(b, self->now);
		breaker_failed(b, true, self->now, 0, &self->dice);
	}
	EXPECT_TRUE(breaker_answered(b));
	EXPECT_FALSE(breaker_answered(b));
	EXPECT_TRUE(breaker_ready(b, self->now));
	for (i = 1; i < BREAKER_FAILURES; i++)
		EXPECT_FALSE(breaker_failed(b, false, self->now, 0,
					    &self->dice));
	EXPECT_TRUE(breaker_failed(b, false, self->now, 0, &self->dice));
	EXPECT_LE(b->next, self->now + BREAKER_FIRST);
}

TEST_F(breaker, the_servers_wish_is_respected)
{
	struct breaker *b = &self->b;

	breaker_started(b, self->now);
	breaker_failed(b, true, self->now, 30 * NSEC_PER_SEC, &self->dice);
	EXPECT_EQ(self->now + 30 * NSEC_PER_SEC, b->next);
}

TEST_F(breaker, deadlines_hurry_it_within_bounds)
{
	struct breaker *b = &self->b;
	u64 at = self->now, end = at + 60 * NSEC_PER_SEC;
	unsigned int probes = 0;

	/* before its time, if somebody cannot wait */
	breaker_hurry(b, at + 1);
	EXPECT_TRUE(breaker_ready(b, at + 1));
	/* beside one that hangs; a later wish changes nothing */
	breaker_started(b, at + 1);
	breaker_hurry(b, at + BREAKER_CAP);
	breaker_hurry(b, at + 2 * BREAKER_CAP);
	EXPECT_FALSE(breaker_ready(b, at + BREAKER_CAP - 1));
	EXPECT_TRUE(breaker_ready(b, at + BREAKER_CAP));
	/* and however many are in a hurry, they get no more than this */
	breaker_started(b, at);
	for (; at < end; at += NSEC_PER_MSEC) {
		breaker_hurry(b, at);
		if (!breaker_ready(b, at))
			continue;
		breaker_started(b, at);
		breaker_failed(b, true, at, 0, &self->dice);
		probes++;
	}
	EXPECT_LE(probes, 60 * NSEC_PER_SEC / BREAKER_HURRY);
	EXPECT_GE(probes, 60 * NSEC_PER_SEC / BREAKER_HURRY - 2);
}

TEST_F(breaker, a_probe_without_a_result_is_repeated)
{
	struct breaker *b = &self->b;

	breaker_started(b, self->now);
	breaker_void(b);
	EXPECT_FALSE(breaker_ready(b, self->now + BREAKER_HURRY - 1));
	EXPECT_TRUE(breaker_ready(b, self->now + BREAKER_HURRY));
	EXPECT_TRUE(b->open);
}

TEST_HARNESS_MAIN

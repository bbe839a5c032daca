// SPDX-License-Identifier: GPL-2.0-only
/* Quantiles of times, against the sorted times themselves. */
#include <stdlib.h>

#include "kselftest_harness.h"

#include "../../helper/latency.h"

#define MSEC	NSEC_PER_MSEC

static int by_size(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

/* Never too low, and not too high by more than a bucket: an eighth, or the unit. */
static void compare(struct __test_metadata *_metadata, const struct latency *l,
		    u64 *ns, size_t n)
{
	static const unsigned int permille[] = { 1, 100, 500, 900, 950, 990, 999 };
	size_t i;

	qsort(ns, n, sizeof(*ns), by_size);
	for (i = 0; i < ARRAY_SIZE(permille); i++) {
		u64 exact = ns[(n * permille[i] + 999) / 1000 - 1];
		u64 got = latency_quantile(l, permille[i]);

		EXPECT_GT(got, exact)
			TH_LOG("%u permille of %zu", permille[i], n);
		EXPECT_LE(got, exact + exact / 8 + (1 << LATENCY_UNIT))
			TH_LOG("%u permille of %zu: %llu for %llu", permille[i],
			       n, (unsigned long long)got,
			       (unsigned long long)exact);
	}
}

TEST(quantiles_are_within_a_bucket)
{
	static u64 ns[2 * LATENCY_WINDOW];
	struct latency l;
	int round;
	size_t i;

	srand48(7);
	for (round = 0; round < 60; round++) {
		/* from 60 us to a minute, narrow and wide */
		double least = 60e3 * (1 << round % 17), spread = round / 6;

		memset(&l, 0, sizeof(l));
		for (i = 0; i < ARRAY_SIZE(ns); i++) {
			ns[i] = least * (1 + spread * drand48());
			latency_add(&l, ns[i]);
		}
		compare(_metadata, &l, ns, ARRAY_SIZE(ns));
	}
}

TEST(a_few_samples_say_nothing)
{
	struct latency l = { };
	int i;

	for (i = 1; i < LATENCY_MIN; i++) {
		latency_add(&l, MSEC);
		EXPECT_EQ(0, latency_quantile(&l, 950));
	}
	latency_add(&l, MSEC);
	EXPECT_GT(latency_quantile(&l, 950), MSEC);
}

/* Three in a hundred are slow: that is above the 95th of them, not in it. */
TEST(a_tail_is_no_part_of_it)
{
	struct latency l = { };
	int i;

	for (i = 0; i < 20000; i++) {
		latency_add(&l, i % 33 ? 5 * MSEC : 1000 * MSEC);
		if (i < 100)
			continue;
		ASSERT_LT(latency_quantile(&l, 950), 6 * MSEC);
		ASSERT_GT(latency_quantile(&l, 990), 1000 * MSEC);
	}
}

/* Rare ones are halved away, not dropped at once and not kept for ever. */
TEST(the_past_is_forgotten)
{
	struct latency l = { };
	u64 old = 100 * MSEC, new = 3 * MSEC;
	int i, seen = 0;

	for (i = 0; i < 5000; i++)
		latency_add(&l, old);
	for (i = 0; i < 5000 && latency_quantile(&l, 500) > old; i++)
		latency_add(&l, new);
	EXPECT_GE(i, LATENCY_WINDOW / 2);
	EXPECT_LE(i, LATENCY_WINDOW * 2);
	for (i = 0; i < 20 * LATENCY_WINDOW; i++)
		latency_add(&l, new);
	EXPECT_LT(latency_quantile(&l, 999), 4 * MSEC);
	/* slower now: that shows as soon as it is more than the quantile's rest */
	while (latency_quantile(&l, 950) < old) {
		latency_add(&l, old);
		seen++;
	}
	EXPECT_GE(seen, LATENCY_WINDOW / 20);
	EXPECT_LE(seen, LATENCY_WINDOW / 5);
}

TEST(any_time_has_a_bucket)
{
	struct latency l = { };
	u64 ns;
	int i;

	for (ns = 1, i = 0; i < 64; i++, ns *= 2) {
		latency_add(&l, ns - 1);
		latency_add(&l, ns);
	}
	latency_add(&l, NEVER);
	latency_add(&l, 0);
	EXPECT_GT(latency_quantile(&l, 1000), 240 * NSEC_PER_SEC);
	EXPECT_LE(latency_quantile(&l, 0), 1 << LATENCY_UNIT);
}

/* No sum overflows, and none drifts from its parts. */
TEST(a_long_life)
{
	struct latency l = { };
	u32 i, sum;

	srand48(1);
	for (i = 0; i < 3000000; i++)
		latency_add(&l, 1000 * (1 + lrand48() % 1000000));
	for (sum = 0, i = 0; i < LATENCY_BUCKETS; i++)
		sum += l.weight[i];
	EXPECT_EQ(sum, l.total);
	EXPECT_GT(latency_quantile(&l, 950), 900 * MSEC);
	EXPECT_LT(latency_quantile(&l, 950), 1130 * MSEC);
}

TEST_HARNESS_MAIN

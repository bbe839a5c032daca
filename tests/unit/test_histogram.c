// SPDX-License-Identifier: GPL-2.0-only
/* The module's histograms as its tools read them. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kselftest_harness.h"

#include "../../helper/histogram.h"

/* Write a file of latency/ and read it. */
static bool take(struct __test_metadata *_metadata, const char *text,
		 struct histogram *h)
{
	char folder[] = "/tmp/histogram.XXXXXX", path[64];
	FILE *file;
	bool ok;

	ASSERT_NE(NULL, mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/latency", folder);
	ASSERT_EQ(0, mkdir(path, 0700));
	snprintf(path, sizeof(path), "%s/latency/hit", folder);
	file = fopen(path, "w");
	ASSERT_NE(NULL, file);
	fputs(text, file);
	fclose(file);
	ok = histogram_read(folder, "hit", h);
	unlink(path);
	snprintf(path, sizeof(path), "%s/latency", folder);
	rmdir(path);
	rmdir(folder);
	return ok;
}

TEST(what_is_read_is_what_was_written)
{
	struct histogram h;

	ASSERT_TRUE(take(_metadata, "1 5\n2 0\n4 7\ninf 1\nsum 12345\n", &h));
	EXPECT_EQ(4, h.buckets);
	EXPECT_EQ(4, h.le[2]);
	EXPECT_EQ(0, h.le[3]);
	EXPECT_EQ(7, h.count[2]);
	EXPECT_EQ(1, h.count[3]);
	EXPECT_EQ(12345, h.sum);
	EXPECT_EQ(13, histogram_count(&h));
}

TEST(what_cannot_be_understood_is_none)
{
	static const char *const bad[] = {
		"", "sum 5\n", "1 5\n2 6\nsum 5\n", "1 5\ninf 6\n2 7\nsum 5\n",
		"1 x\ninf 6\nsum 1\n", "1\n"
	};
	char many[4096] = "";
	struct histogram h;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_FALSE(take(_metadata, bad[i], &h))
			TH_LOG("\"%s\"", bad[i]);
		EXPECT_EQ(0, h.buckets);
	}
	for (i = 0; i < HISTOGRAM_BUCKETS + 1; i++)
		strcat(many, "1 1\n");
	strcat(many, "inf 1\nsum 1\n");
	EXPECT_FALSE(take(_metadata, many, &h));
	EXPECT_FALSE(histogram_read("/nonexistent", "hit", &h));
}

TEST(quantiles)
{
	struct histogram h;

	ASSERT_TRUE(take(_metadata, "1 50\n2 0\n4 49\ninf 1\nsum 1\n", &h));
	EXPECT_EQ(1000, histogram_quantile(&h, 0.01));
	EXPECT_EQ(1000, histogram_quantile(&h, 0.5));
	EXPECT_EQ(4000, histogram_quantile(&h, 0.51));
	EXPECT_EQ(4000, histogram_quantile(&h, 0.99));
	EXPECT_EQ(UINT64_MAX, histogram_quantile(&h, 1));
	ASSERT_TRUE(take(_metadata, "1 0\ninf 0\nsum 0\n", &h));
	EXPECT_EQ(0, histogram_quantile(&h, 0.5));
}

TEST(the_difference_to_an_earlier_look)
{
	struct histogram now, then;

	ASSERT_TRUE(take(_metadata, "1 5\n2 7\ninf 1\nsum 100\n", &then));
	ASSERT_TRUE(take(_metadata, "1 6\n2 7\ninf 3\nsum 140\n", &now));
	histogram_minus(&now, &then);
	EXPECT_EQ(1, now.count[0]);
	EXPECT_EQ(0, now.count[1]);
	EXPECT_EQ(2, now.count[2]);
	EXPECT_EQ(40, now.sum);
	/* Another device has its name by now: it begins with what it has. */
	ASSERT_TRUE(take(_metadata, "1 1\n2 0\ninf 0\nsum 500\n", &now));
	histogram_minus(&now, &then);
	EXPECT_EQ(1, histogram_count(&now));
	EXPECT_EQ(500, now.sum);
}

TEST_HARNESS_MAIN

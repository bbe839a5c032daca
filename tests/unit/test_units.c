// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sizes and counts as people write them.
 */
#include "kselftest_harness.h"

#include "../../helper/units.h"

TEST(sizes_have_suffixes)
{
	static const struct {
		const char *text;
		u64 bytes;
	} good[] = {
		{ "0", 0 }, { "131072", 131072 }, { "128K", 128 << 10 },
		{ "3m", 3 << 20 }, { "2G", 2ULL << 30 }, { "16T", 1ULL << 44 },
		{ "18446744073709551615", UINT64_MAX },
	};
	static const char *const bad[] = {
		"", "K", "-1", "+1", " 1", "1 ", "1KB", "1P", "0x10",
		"18446744073709551616", "16777216T",
	};
	u64 bytes;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(good); i++) {
		ASSERT_TRUE(units_parse(good[i].text, &bytes));
		EXPECT_EQ(good[i].bytes, bytes);
	}
	for (i = 0; i < ARRAY_SIZE(bad); i++)
		EXPECT_FALSE(units_parse(bad[i], &bytes))
			TH_LOG("number %zu", i);
}

TEST(counts_have_none_and_lie_between_bounds)
{
	static const char *const bad[] = {
		"", "0", "11", "5K", "5 ", " 5", "-5", "+5", "5.0", "five",
		"18446744073709551621",
	};
	u64 n = 7;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad); i++)
		EXPECT_FALSE(units_count(bad[i], 1, 10, &n))
			TH_LOG("number %zu", i);
	/* 5120 would be between these */
	EXPECT_FALSE(units_count("5K", 1, 10000, &n));
	EXPECT_EQ(7, n);
	EXPECT_TRUE(units_count("1", 1, 10, &n));
	EXPECT_EQ(1, n);
	EXPECT_TRUE(units_count("10", 1, 10, &n));
	EXPECT_EQ(10, n);
}

TEST_HARNESS_MAIN

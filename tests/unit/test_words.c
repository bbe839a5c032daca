// SPDX-License-Identifier: GPL-2.0-only
/*
 * Names and words: UUIDs as text, errors that grow in front.
 */
#include <errno.h>
#include <string.h>

#include "../../helper/error.h"
#include "../../helper/uuid.h"
#include "kselftest_harness.h"
#include "random.h"

TEST(uuid_text_is_in_order_of_memory)
{
	static const uint8_t uuid[16] = {
		0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
		0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
	};
	char text[UUID_TEXT];

	uuid_text(uuid, text);
	EXPECT_STREQ("00112233-4455-6677-8899-aabbccddeeff", text);
}

TEST(uuid_any_text_reads_back)
{
	uint8_t uuid[16], back[16];
	char text[UUID_TEXT];
	unsigned int i;

	for (i = 0; i < 1000; i++) {
		random_fill(uuid, sizeof(uuid));
		uuid_text(uuid, text);
		ASSERT_TRUE(uuid_parse(text, back));
		ASSERT_EQ(0, memcmp(uuid, back, sizeof(uuid)));
	}
	EXPECT_TRUE(uuid_parse("00112233-4455-6677-8899-AABBCCDDEEFF", back));
	EXPECT_EQ(0xff, back[15]);
}

TEST(uuid_other_text_is_refused)
{
	static const char * const texts[] = {
		"", "0", "00112233", "00112233-4455-6677-8899-aabbccddeef",
		"00112233-4455-6677-8899-aabbccddeeff0",
		"00112233-4455-6677-8899-aabbccddeeff ",
		"00112233445566778899aabbccddeeff",
		"0011223-34455-6677-8899-aabbccddeeff",
		"00112233-4455-6677-8899-aabbccddeegf",
		"{0112233-4455-6677-8899-aabbccddeeff}",
		"00112233-4455-6677-8899_aabbccddeeff",
	};
	uint8_t uuid[16];
	unsigned int i;

	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		EXPECT_FALSE(uuid_parse(texts[i], uuid))
			TH_LOG("text %u", i);
}

TEST(uuid_random_ones_differ_and_say_what_they_are)
{
	uint8_t a[16], b[16];

	ASSERT_EQ(0, uuid_random(a));
	ASSERT_EQ(0, uuid_random(b));
	EXPECT_NE(0, memcmp(a, b, sizeof(a)));
	EXPECT_EQ(4, a[6] >> 4);
	EXPECT_EQ(2, a[8] >> 6);
	EXPECT_FALSE(uuid_is_nil(a));
}

TEST(uuid_from_the_same_bytes_is_the_same)
{
	uint8_t a[16], b[16], c[16];

	uuid_from("http://host/object", 18, a);
	uuid_from("http://host/object", 18, b);
	uuid_from("http://host/objecT", 18, c);
	EXPECT_EQ(0, memcmp(a, b, sizeof(a)));
	EXPECT_NE(0, memcmp(a, c, sizeof(a)));
	EXPECT_EQ(8, a[6] >> 4);
	EXPECT_EQ(2, a[8] >> 6);
}

TEST(uuid_nil_is_all_zeros)
{
	uint8_t uuid[16] = {0};

	EXPECT_TRUE(uuid_is_nil(uuid));
	uuid[15] = 1;
	EXPECT_FALSE(uuid_is_nil(uuid));
}

TEST(error_has_its_words_and_returns_its_number)
{
	struct error e;

	EXPECT_EQ(-EIO, error_set(&e, -EIO, "%s has %d", "disk", 7));
	EXPECT_STREQ("disk has 7", e.text);
	error_prefix(&e, "reading %s", "x");
	EXPECT_STREQ("reading x: disk has 7", e.text);
	EXPECT_EQ(-EIO, error_set(NULL, -EIO, "nobody listens"));
	error_prefix(NULL, "nobody listens");
}

TEST(error_that_is_too_long_loses_its_end)
{
	char long_text[3000];
	struct error e;
	size_t i;

	memset(long_text, 'x', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	error_set(&e, -EIO, "%s", long_text);
	EXPECT_EQ(sizeof(e.text) - 1, strlen(e.text));
	error_prefix(&e, "prefix");
	EXPECT_EQ(sizeof(e.text) - 1, strlen(e.text));
	EXPECT_EQ(0, strncmp(e.text, "prefix: xxx", 11));
	for (i = 0; i < 3; i++)
		error_prefix(&e, "%s", long_text);
	EXPECT_GT(sizeof(e.text), strlen(e.text));
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Signing, against what AWS publishes: the examples of the Amazon S3 API
 * Reference and cases of the Signature Version 4 test suite.
 */
#include <stdlib.h>

#include "../../helper/sigv4.h"
#include "kselftest_harness.h"

#define EMPTY	"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

#define TOKEN	"AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="

static const struct sigv4_key s3_key = {
	.access_key = "AKIAIOSFODNN7EXAMPLE",
	.secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
	.region = "us-east-1",
	.service = "s3",
	.date = "20130524T000000Z",
	.words = &sigv4_aws,
};

static const struct sigv4_key suite_key = {
	.access_key = "AKIDEXAMPLE",
	.secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
	.region = "us-east-1",
	.service = "service",
	.date = "20150830T123600Z",
	.words = &sigv4_aws,
};

/* The last 64 characters of what is signed, or "" */
static const char *signature(const struct sigv4_key *key, const char *method,
			     const char *path, const char *query,
			     const struct sigv4_header *header, size_t headers,
			     const char *payload)
{
	static char sig[SHA256_TEXT];
	struct sigv4_request req = {
		.method = method,
		.path = path,
		.query = query,
		.header = header,
		.headers = headers,
		.payload = payload,
	};
	char *value = NULL;

	sig[0] = 0;
	if (!sigv4_sign(&req, key, &value) && strlen(value) > 64)
		memcpy(sig, value + strlen(value) - 64, 65);
	free(value);
	return sig;
}

#define S3_HEADERS(hash)						\
	{ "host", "examplebucket.s3.amazonaws.com" },			\
	{ "x-amz-content-sha256", hash },				\
	{ "x-amz-date", "20130524T000000Z" }
#define SUITE_HEADERS							\
	{ "host", "example.amazonaws.com" },				\
	{ "x-amz-date", "20150830T123600Z" }
#define H(...)	((const struct sigv4_header[]){ __VA_ARGS__ }),		\
	ARRAY_SIZE(((const struct sigv4_header[]){ __VA_ARGS__ }))

TEST(s3_get_of_a_range)
{
	struct sigv4_request req = {
		.method = "GET", .path = "/test.txt", .query = "",
		.header = H({ "range", "bytes=0-9" }, S3_HEADERS(EMPTY)),
		.payload = EMPTY,
	};
	static const char canonical_request[] =
		"GET\n/test.txt\n\nhost:examplebucket.s3.amazonaws.com\n"
		"range:bytes=0-9\nx-amz-content-sha256:" EMPTY "\n"
		"x-amz-date:20130524T000000Z\n\n"
		"host;range;x-amz-content-sha256;x-amz-date\n" EMPTY;
	char *canonical, *names, *text, *value;

	canonical = sigv4_canonical(&req, &names);
	ASSERT_NE(NULL, canonical);
	EXPECT_STREQ(canonical_request, canonical);
	EXPECT_STREQ("host;range;x-amz-content-sha256;x-amz-date", names);
	text = sigv4_string_to_sign(&s3_key, canonical);
	ASSERT_NE(NULL, text);
	EXPECT_STREQ("AWS4-HMAC-SHA256\n20130524T000000Z\n"
		     "20130524/us-east-1/s3/aws4_request\n"
		     "7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972",
		     text);
	ASSERT_EQ(0, sigv4_sign(&req, &s3_key, &value));
	EXPECT_STREQ("AWS4-HMAC-SHA256 "
		     "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
		     "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
		     "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
		     value);
	free(value);
	free(text);
	free(names);
	free(canonical);
}

TEST(s3_put_with_a_signed_body_and_an_escaped_path)
{
	char hash[SHA256_TEXT];

	ASSERT_EQ(0, sigv4_payload("Welcome to Amazon S3.", 21, hash));
	EXPECT_STREQ("44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
		     hash);
	EXPECT_STREQ("98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
		     signature(&s3_key, "PUT", "/test%24file.text", "",
			       H({ "x-amz-storage-class", "REDUCED_REDUNDANCY" },
				 { "date", "Fri, 24 May 2013 00:00:00 GMT" },
				 S3_HEADERS(hash)), hash));
}

TEST(s3_query_without_a_value)
{
	EXPECT_STREQ("fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
		     signature(&s3_key, "GET", "/", "lifecycle",
			       H(S3_HEADERS(EMPTY)), EMPTY));
	EXPECT_STREQ("fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
		     signature(&s3_key, "GET", "/", "lifecycle=",
			       H(S3_HEADERS(EMPTY)), EMPTY));
}

TEST(s3_query_out_of_order)
{
	EXPECT_STREQ("34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
		     signature(&s3_key, "GET", "/", "prefix=J&max-keys=2",
			       H(S3_HEADERS(EMPTY)), EMPTY));
}

TEST(suite_vanilla)
{
	EXPECT_STREQ("5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
		     signature(&suite_key, "GET", "/", "", H(SUITE_HEADERS),
			       EMPTY));
	EXPECT_STREQ("5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
		     signature(&suite_key, "POST", "/", "", H(SUITE_HEADERS),
			       EMPTY));
}

TEST(suite_query_order)
{
	EXPECT_STREQ("b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
		     signature(&suite_key, "GET", "/",
			       "Param2=value2&Param1=value1",
			       H(SUITE_HEADERS), EMPTY));
}

TEST(suite_spaces_in_headers)
{
	EXPECT_STREQ("acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
		     signature(&suite_key, "GET", "/", "",
			       H({ "my-header1", " value1" },
				 { "my-header2", " \"a   b   c\"" },
				 SUITE_HEADERS), EMPTY));
}

TEST(suite_headers_of_one_name)
{
	EXPECT_STREQ("c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
		     signature(&suite_key, "GET", "/", "",
			       H({ "my-header1", "value2" },
				 { "my-header1", "value2" },
				 { "my-header1", "value1" },
				 SUITE_HEADERS), EMPTY));
}

TEST(suite_session_token)
{
	EXPECT_STREQ("85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
		     signature(&suite_key, "POST", "/", "",
			       H({ "x-amz-security-token", TOKEN },
				 SUITE_HEADERS), EMPTY));
}

/* '-' and '.' sort in front of '=': names are compared before values. */
TEST(names_of_queries_that_are_prefixes)
{
	struct sigv4_request req = {
		.method = "GET", .path = "/", .payload = EMPTY,
		.query = "a-b=1&a=2&a=1&ab&a.=3&",
		.header = H(SUITE_HEADERS),
	};
	char *names, *canonical = sigv4_canonical(&req, &names);

	ASSERT_NE(NULL, canonical);
	EXPECT_EQ(0, strncmp(canonical, "GET\n/\na=1&a=2&a-b=1&a.=3&ab=\n",
			     29));
	free(canonical);
	free(names);
}

TEST(dates)
{
	char date[SIGV4_DATE];

	sigv4_date(1440938160, date);
	EXPECT_STREQ("20150830T123600Z", date);
	sigv4_date(0, date);
	EXPECT_STREQ("19700101T000000Z", date);
	sigv4_date(1709164800, date);
	EXPECT_STREQ("20240229T000000Z", date);
}

TEST_HARNESS_MAIN

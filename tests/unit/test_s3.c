// SPDX-License-Identifier: GPL-2.0-only
/*
 * What stands around a signature: URLs, the files of the AWS tools, answers of
 * the services that give credentials.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../helper/credentials.h"
#include "../../helper/gs.h"
#include "../../helper/ini.h"
#include "../../helper/keyring.h"
#include "../../helper/origin.h"
#include "../../helper/auth.h"
#include "../../helper/s3put.h"
#include "../../helper/bucket.h"
#include "../../helper/secret.h"
#include "../../helper/xml.h"
#include "kselftest_harness.h"

/* "URL HOST PATH" of a request, or the error's text */
static const char *target(const char *text, const char *endpoint,
			  enum bucket_style style)
{
	static char out[1024];
	struct bucket_target t = { };
	struct bucket_url url;
	struct error e;

	if (bucket_parse(text, &url, &e) ||
	    bucket_target(&url, endpoint, "eu-west-1", style, &t, &e))
		snprintf(out, sizeof(out), "%s", e.text);
	else
		snprintf(out, sizeof(out), "%s %s %s", t.url, t.host, t.path);
	bucket_target_free(&t);
	bucket_free(&url);
	return out;
}

/* What a store lists: never beyond the text's end, whatever it ends in */
TEST(names_are_unescaped)
{
	static const char *const wrong[] = {
		"%", "a%", "a%4", "%4", "%-1", "% 4", "%4g", "%00", "a%4\0b",
	};
	char text[16] = "a%41%2fb%C3";
	size_t i;

	EXPECT_TRUE(url_unescape(text));
	EXPECT_STREQ("aA/b\xc3", text);
	for (i = 0; i < ARRAY_SIZE(wrong); i++) {
		/* As long as it is: the sanitizer sees who reads on. */
		char *copy = strdup(wrong[i]);

		EXPECT_FALSE(url_unescape(copy)) {
			TH_LOG("%s", wrong[i]);
		}
		free(copy);
	}
}

TEST(words_of_servers_are_one_plain_line)
{
	struct error e;

	error_set(&e, -EIO, "%s", "a\nb\033[2J\x7f");
	EXPECT_STREQ("a?b?[2J?", e.text);
}

TEST(urls)
{
	EXPECT_STREQ("https://my-bucket.s3.eu-west-1.amazonaws.com/a/b my-bucket.s3.eu-west-1.amazonaws.com /a/b",
		     target("s3://my-bucket/a/b", NULL, BUCKET_AUTO));
	/* A name with dots has no certificate. */
	EXPECT_STREQ("https://s3.eu-west-1.amazonaws.com/my.bucket/a s3.eu-west-1.amazonaws.com /my.bucket/a",
		     target("s3://my.bucket/a", NULL, BUCKET_AUTO));
	EXPECT_STREQ("http://host:9000/bucket/a host:9000 /bucket/a",
		     target("s3://bucket/a", "http://host:9000", BUCKET_AUTO));
	EXPECT_STREQ("http://bucket.host:9000/a bucket.host:9000 /a",
		     target("s3://bucket/a", "http://host:9000/", BUCKET_VIRTUAL));
	EXPECT_STREQ("http://[::1]/gate/bucket/a [::1] /gate/bucket/a",
		     target("s3://bucket/a", "http://[::1]:80/gate/", BUCKET_AUTO));
	EXPECT_STREQ("https://host/bucket host /bucket",
		     target("s3://bucket", "https://host:443", BUCKET_AUTO));
	EXPECT_STREQ("https://host:80/bucket host:80 /bucket",
		     target("s3://bucket/", "https://host:80", BUCKET_AUTO));
}

TEST(keys_are_escaped_once)
{
	EXPECT_STREQ("http://h/bucket/a%20b%2Bc%25/.././%C3%A4~-_.%27%28 h /bucket/a%20b%2Bc%25/.././%C3%A4~-_.%27%28",
		     target("s3://bucket/a b+c%25/.././ä~-_.'%28", "http://h",
			    BUCKET_AUTO));
	EXPECT_NE(NULL, strstr(target("s3://bucket/a%", "http://h", BUCKET_AUTO),
			       "write %25 for %"));
	EXPECT_NE(NULL, strstr(target("s3://bucket/a%00", "http://h", BUCKET_AUTO),
			       "not 00"));
	EXPECT_NE(NULL, strstr(target("s3://bucket/a?b", "http://h", BUCKET_AUTO),
			       "%3F"));
	EXPECT_NE(NULL, strstr(target("s3://buck@et/a", "http://h", BUCKET_AUTO),
			       "no bucket's name"));
	EXPECT_NE(NULL, strstr(target("s3://ab/a", "http://h", BUCKET_AUTO),
			       "no bucket's name"));
}

TEST(endpoints)
{
	static const char *const bad[] = {
		"", "host", "ftp://host", "http://", "http:///x",
		"http://a:b@host", "http://host/?x", "http://host#x",
		"http://ho st", "http://host\r\nx: y",
	};
	struct error e;
	size_t i;

	EXPECT_EQ(0, endpoint_check("http://host", &e));
	EXPECT_EQ(0, endpoint_check("https://host:1/x/", &e));
	for (i = 0; i < ARRAY_SIZE(bad); i++)
		EXPECT_EQ(-EINVAL, endpoint_check(bad[i], &e)) {
			TH_LOG("%s", bad[i]);
		}
	endpoint_check("http://me:hush@host", &e);
	EXPECT_EQ(NULL, strstr(e.text, "hush"));
}

#define ORIGIN(url, value) ({						\
	char *__got = origin_of(url);					\
	EXPECT_STREQ(value, __got ? __got : "(none)");			\
	free(__got);							\
})

/* What one server may know, one with a similar name must not. */
TEST(origins)
{
	ORIGIN("https://Host.Example/a/b?c", "https://host.example");
	ORIGIN("HTTPS://host:443?x", "https://host");
	ORIGIN("http://host:443/", "http://host:443");
	ORIGIN("http://host:80", "http://host");
	ORIGIN("http://[::1]:8080/x", "http://[::1]:8080");
	ORIGIN("http://host#@other/", "http://host");
	ORIGIN("http://me:hush@host/", "(none)");
	ORIGIN("https://host@other/", "(none)");
	ORIGIN("http:///x", "(none)");
	ORIGIN("ftp://host/", "(none)");
	ORIGIN("s3://bucket/key", "(none)");
}

#define INI(section, name, value) ({					\
	char *__got = ini_get(text, section, name);			\
	EXPECT_STREQ(value, __got ? __got : "(none)");			\
	free(__got);							\
})

TEST(files_of_the_tools)
{
	static const char text[] =
		"stray = 1\n"
		"# [default]\n"
		"; key = 2\n"
		"[ default ]\r\n"
		"key=value = with equals # and more\r\n"
		"  empty =\n"
		"other = x\n"
		"s3 =\n"
		"    addressing_style = path\n"
		"\tkey = nested\n"
		"key2 = y\n"
		"[profile a b]\n"
		"key = z\n"
		"[default]\n"
		"other = later\n"
		"[broken\n"
		"key = no\n"
		"[";

	INI("default", "key", "value = with equals # and more");
	INI("default", "s3.addressing_style", "path");
	INI("default", "s3.key", "nested");
	INI("default", "key2", "y");
	INI("default", "empty", "(none)");
	INI("default", "other", "later");
	INI("default", "addressing_style", "(none)");
	INI("default", "stray", "(none)");
	INI("profile a b", "key", "z");
	INI("broken", "key", "(none)");
	EXPECT_TRUE(ini_has(text, "profile a b"));
	EXPECT_FALSE(ini_has(text, "a b"));
	EXPECT_FALSE(ini_has(NULL, "default"));
	EXPECT_EQ(NULL, ini_get(NULL, "default", "key"));
}

#define XML(text, name, value) ({					\
	char *__got = xml_get(text, name, NULL);			\
	EXPECT_STREQ(value, __got ? __got : "(none)");			\
	free(__got);							\
})

TEST(answers)
{
	const char *at = "<K>1</K><Key>2</Key><K a='b'>3</K><K/>";
	char *one, *three;

	XML("<E><Code>A &lt;b&gt;&amp;&quot;&#39;&#xe4;&#x;&no;&</Code></E>",
	    "Code", "A <b>&\"'\xc3\xa4&#x;&no;&");
	XML("<Code></Code>", "Code", "");
	XML("<Codes>x</Codes>", "Code", "(none)");
	XML("<Code>x", "Code", "(none)");
	XML("<Code", "Code", "(none)");
	XML("<Code/>x</Code>", "Code", "(none)");
	XML("", "Code", "(none)");
	one = xml_get(NULL, "K", &at);
	three = xml_get(NULL, "K", &at);
	EXPECT_STREQ("1", one);
	EXPECT_STREQ("3", three);
	EXPECT_EQ(NULL, xml_get(NULL, "K", &at));
	free(one);
	free(three);
}

TEST(credentials_in_json)
{
	static const char good[] =
		"{\"Code\":\"Success\",\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"s/+\","
		"\"Token\":\"t==\",\"Expiration\":\"2026-11-23T10:00:00.5Z\",\"x\":[1]}";
	static const char *const bad[] = {
		"", "null", "[]", "{}", "{\"AccessKeyId\":\"A\"}",
		"{\"Code\":\"Failed\",\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"hush\"}",
		"{\"AccessKeyId\":1,\"SecretAccessKey\":\"hush\"}",
		"{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"hush\",\"Expiration\":\"soon\"}",
		"{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"hush\",\"Expiration\":\"2026-11-23T10:00:00\"}",
		"{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"hush\",\"Token\":\"a\\nb\"}",
		"{\"AccessKeyId\":\"A\\r\\nx:y\",\"SecretAccessKey\":\"hush\"}",
		"{\"AccessKeyId\":\"A/b\",\"SecretAccessKey\":\"hush\"}",
	};
	struct credentials c;
	struct error e;
	size_t i;

	/* By the clock of who gave them */
	ASSERT_EQ(0, credentials_json(good, 1795427985, &c, &e));
	EXPECT_STREQ("A", c.access_key);
	EXPECT_STREQ("s/+", c.secret);
	EXPECT_STREQ("t==", c.token);
	EXPECT_EQ(15, c.seconds);
	credentials_free(&c);
	ASSERT_EQ(0, credentials_json(good, 1895427985, &c, &e));
	EXPECT_EQ(1, c.seconds);
	credentials_free(&c);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_GT(0, credentials_json(bad[i], 0, &c, &e)) {
			TH_LOG("%s", bad[i]);
		}
		EXPECT_EQ(NULL, strstr(e.text, "hush"));
	}
}

TEST(credentials_in_xml)
{
	static const char good[] =
		"<A><AccessKeyId>A</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
		"<SessionToken>t&amp;</SessionToken>"
		"<Expiration>2026-11-23T10:00:00+00:00</Expiration></A>";
	struct credentials c;
	struct error e;

	ASSERT_EQ(0, credentials_xml(good, 1795427985, &c, &e));
	EXPECT_STREQ("t&", c.token);
	EXPECT_EQ(15, c.seconds);
	credentials_free(&c);
	EXPECT_GT(0, credentials_xml("<AccessKeyId>A</AccessKeyId>", 0, &c,
				     &e));
}

/* 10,000 parts hold all that an object may have, and none is refused. */
TEST(parts_of_an_upload)
{
	u64 sum = 0, last = 0;
	unsigned int i;

	for (i = 1; i <= S3_MAX_PARTS; i++) {
		u64 bytes = s3_part_bytes(i);

		ASSERT_LE(S3_MIN_PART, bytes);
		ASSERT_GE(S3_MAX_PART, bytes);
		ASSERT_LE(last, bytes);
		last = bytes;
		sum += bytes;
	}
	EXPECT_LE(S3_MAX_OBJECT, sum);
	/* 16 GiB of an image take no more memory than 16 MiB. */
	EXPECT_EQ(s3_part_bytes(1), s3_part_bytes(1024));
}

FIXTURE(environment) {
	char dir[32];
	char path[64];
};

FIXTURE_SETUP(environment)
{
	clearenv();
	strcpy(self->dir, "/tmp/lf-s3.XXXXXX");
	ASSERT_NE(NULL, mkdtemp(self->dir));
	setenv("HOME", self->dir, 1);
	snprintf(self->path, sizeof(self->path), "%s/file", self->dir);
}

FIXTURE_TEARDOWN(environment)
{
	unlink(self->path);
	rmdir(self->dir);
}

/* Of the environment, with keys in it */
static struct auth *open_with_keys(void)
{
	setenv("AWS_ACCESS_KEY_ID", "AKIA", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "hush", 1);
	return auth_open(&auth_s3, NULL, NULL, NULL);
}

TEST_F(environment, defaults)
{
	struct error e;
	struct aws *aws;

	ASSERT_EQ(0, aws_load(&aws, NULL, &e));
	EXPECT_STREQ("us-east-1", aws->region);
	EXPECT_EQ(NULL, aws->endpoint);
	EXPECT_EQ(AWS_INSTANCE, aws->source);
	EXPECT_STREQ("http://169.254.169.254", aws->metadata);
	aws_free(aws);
	setenv("AWS_REGION", "../x", 1);
	EXPECT_EQ(-EINVAL, aws_load(&aws, NULL, &e));
	setenv("AWS_REGION", "", 1);
	setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x", 1);
	ASSERT_EQ(0, aws_load(&aws, NULL, &e));
	EXPECT_STREQ("http://169.254.170.2/v2/x", aws->agent);
	aws_free(aws);
	/* It must not become part of the host's name. */
	setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", ".evil/x", 1);
	EXPECT_EQ(-EINVAL, aws_load(&aws, NULL, &e));
}

TEST_F(environment, keys_are_signed_with_and_kept_out_of_core_files)
{
	static const char names[] =
		"SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,";
	struct auth_call call = { .method = "GET", .url = "s3://bucket/key",
				.query = "a=b" };
	struct auth_signed sig;
	struct curl_slist *l;
	struct error e;
	int lines = 0;
	struct auth *s3;

	setenv("AWS_SESSION_TOKEN", "token", 1);
	setenv("AWS_ENDPOINT_URL", "http://h", 1);
	EXPECT_EQ(1, prctl(PR_GET_DUMPABLE));
	s3 = open_with_keys();
	ASSERT_NE(NULL, s3);
	ASSERT_EQ(0, auth_sign(s3, &call, &sig, &e));
	EXPECT_EQ(0, prctl(PR_GET_DUMPABLE));
	EXPECT_STREQ("http://h/bucket/key?a=b", sig.url);
	for (l = sig.header; l; l = l->next) {
		EXPECT_EQ(NULL, strstr(l->data, "hush"));
		lines += !strncmp(l->data, "x-amz-date: ", 12) ||
			 !strncmp(l->data, "x-amz-content-sha256: e3b0", 26) ||
			 !strcmp(l->data, "x-amz-security-token: token") ||
			 strstr(l->data, names);
	}
	EXPECT_EQ(4, lines);
	auth_signed_free(&sig);
	auth_close(s3);
}

/* A file in self->dir, for its owner alone; returns its path */
static char *make_file(const char *dir, const char *name, const char *text)
{
	char *path;
	int fd;

	if (asprintf(&path, "%s/%s", dir, name) < 0)
		abort();
	fd = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		abort();
	close(fd);
	return path;
}

TEST_F(environment, tokens_of_origins_are_kept_out_of_core_files)
{
	struct auth_call call = { .method = "GET" };
	struct auth_signed sig;
	struct keyring *ring;
	struct auth *auth;
	struct error e;
	char text[512], *config, *token;

	token = make_file(self->dir, "token", "hush\n");
	snprintf(text, sizeof(text), "[https://HOST:443]\nbearer_file = %s\n",
		 token);
	config = make_file(self->dir, "http.conf", text);
	setenv("LAZYFRAME_HTTP_CONFIG", config, 1);
	EXPECT_EQ(1, prctl(PR_GET_DUMPABLE));
	ASSERT_EQ(0, keyring_open(&ring, NULL, NULL, &e));
	ASSERT_EQ(0, keyring_find(ring, "https://hosts/x", &auth));
	EXPECT_EQ(NULL, auth);
	ASSERT_EQ(0, keyring_find(ring, "http://host/x", &auth));
	EXPECT_EQ(NULL, auth);
	ASSERT_EQ(0, keyring_find(ring, "https://host.other/x", &auth));
	EXPECT_EQ(NULL, auth);
	ASSERT_EQ(0, keyring_find(ring, "https://host/x", &auth));
	ASSERT_NE(NULL, auth);
	call.url = "https://host/x";
	ASSERT_EQ(0, auth_sign(auth, &call, &sig, &e));
	EXPECT_EQ(0, prctl(PR_GET_DUMPABLE));
	EXPECT_STREQ("https://host/x", sig.url);
	EXPECT_STREQ("Authorization: Bearer hush", sig.header->data);
	EXPECT_TRUE(sig.follow);
	auth_signed_free(&sig);
	keyring_close(ring);
	unlink(token);
	unlink(config);
	free(token);
	free(config);
	unsetenv("LAZYFRAME_HTTP_CONFIG");
}

TEST_F(environment, cloud_storage)
{
	struct error e;
	struct gs *gs;

	unsetenv("STORAGE_EMULATOR_HOST");
	unsetenv("NO_GCE_CHECK");
	ASSERT_EQ(0, gs_load(&gs, NULL, &e));
	EXPECT_STREQ("https://storage.googleapis.com", gs->endpoint);
	EXPECT_EQ(GS_INSTANCE, gs->source);
	EXPECT_STREQ("metadata.google.internal", gs->metadata);
	gs_free(gs);
	setenv("GCE_METADATA_HOST", "evil/x?", 1);
	EXPECT_EQ(-EINVAL, gs_load(&gs, NULL, &e));
	unsetenv("GCE_METADATA_HOST");
	setenv("STORAGE_EMULATOR_HOST", "localhost:9023", 1);
	ASSERT_EQ(0, gs_load(&gs, NULL, &e));
	EXPECT_STREQ("http://localhost:9023", gs->endpoint);
	EXPECT_EQ(GS_NONE, gs->source);
	gs_free(gs);
	setenv("STORAGE_EMULATOR_HOST", "http://me:hush@localhost", 1);
	EXPECT_EQ(-EINVAL, gs_load(&gs, NULL, &e));
	EXPECT_EQ(NULL, strstr(e.text, "hush"));
	unsetenv("STORAGE_EMULATOR_HOST");
}

TEST_F(environment, clocks_that_differ)
{
	struct auth_call call = { .method = "GET", .url = "s3://bucket/key" };
	struct auth_signed sig;
	struct error e;
	struct auth *s3 = open_with_keys();

	ASSERT_NE(NULL, s3);
	ASSERT_EQ(0, auth_sign(s3, &call, &sig, &e));
	EXPECT_FALSE(auth_refused(s3, &sig, 403, "AccessDenied", 0));
	EXPECT_TRUE(auth_refused(s3, &sig, 403, "RequestTimeTooSkewed",
				 2362034977));
	auth_signed_free(&sig);
	ASSERT_EQ(0, auth_sign(s3, &call, &sig, &e));
	EXPECT_LE(2362034977, sig.when);
	EXPECT_GE(2362034977 + 60, sig.when);
	EXPECT_FALSE(auth_refused(s3, &sig, 403, "RequestTimeTooSkewed",
				 2362034977));
	auth_signed_free(&sig);
	auth_close(s3);
}

/* Keys of the environment do not change: once is enough to know. */
TEST_F(environment, a_refusal_is_believed_in_the_end)
{
	struct auth_call call = { .method = "GET", .url = "s3://bucket/key" };
	struct auth_signed sig;
	struct error e;
	struct auth *s3 = open_with_keys();

	ASSERT_NE(NULL, s3);
	ASSERT_EQ(0, auth_sign(s3, &call, &sig, &e));
	EXPECT_TRUE(auth_refused(s3, &sig, 400, "ExpiredToken", 0));
	/* Those who signed with what was renewed meanwhile */
	EXPECT_TRUE(auth_refused(s3, &sig, 400, "ExpiredToken", 0));
	auth_signed_free(&sig);
	ASSERT_EQ(0, auth_sign(s3, &call, &sig, &e));
	EXPECT_FALSE(auth_refused(s3, &sig, 400, "ExpiredToken", 0));
	/* Once accepted, they may end again. */
	auth_accepted(s3, &sig);
	EXPECT_TRUE(auth_refused(s3, &sig, 400, "ExpiredToken", 0));
	auth_signed_free(&sig);
	auth_close(s3);
}

TEST_F(environment, small_files_only)
{
	bool shared;
	char *text;
	int fd;

	fd = open(self->path, O_CREAT | O_WRONLY, 0600);
	ASSERT_LE(0, fd);
	ASSERT_EQ(8, write(fd, "secret\n\n", 8));
	text = secret_read(self->path, &shared);
	EXPECT_STREQ("secret", text);
	EXPECT_FALSE(shared);
	secret_free(text);
	fchmod(fd, 0640);
	text = secret_read(self->path, &shared);
	EXPECT_TRUE(shared);
	secret_free(text);
	ASSERT_EQ(0, ftruncate(fd, 256 << 10));
	errno = 0;
	EXPECT_EQ(NULL, secret_read(self->path, NULL));
	EXPECT_EQ(E2BIG, errno);
	EXPECT_EQ(NULL, secret_read(self->dir, NULL));
	EXPECT_EQ(EISDIR, errno);
	close(fd);
}

/* Root's file that a group may read is meant for who is in that group. */
TEST_F(environment, files_of_another_user)
{
	static const struct {
		mode_t mode;
		bool shared;
	} file[] = { { 0640, false }, { 0644, true }, { 0604, true } };
	bool shared;
	char *text;
	size_t i;
	int fd;

	if (geteuid())
		SKIP(return, "only root can become another user");
	fd = open(self->path, O_CREAT | O_WRONLY, 0600);
	ASSERT_LE(0, fd);
	ASSERT_EQ(6, write(fd, "secret", 6));
	ASSERT_EQ(0, chmod(self->dir, 0755));
	for (i = 0; i < ARRAY_SIZE(file); i++) {
		ASSERT_EQ(0, fchown(fd, 0, file[i].mode & 0040 ? 65534 : 0));
		ASSERT_EQ(0, fchmod(fd, file[i].mode));
		ASSERT_EQ(0, setegid(65534));
		ASSERT_EQ(0, seteuid(65534));
		text = secret_read(self->path, &shared);
		ASSERT_EQ(0, seteuid(0));
		ASSERT_EQ(0, setegid(0));
		EXPECT_STREQ("secret", text);
		EXPECT_EQ(file[i].shared, shared);
		secret_free(text);
	}
	close(fd);
}

TEST_HARNESS_MAIN

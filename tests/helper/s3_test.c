// SPDX-License-Identifier: GPL-2.0-only
/*
 * The daemon's fetcher against an S3 store that checks signatures, and others that
 * want to know who asks, with credentials that end, are late, or never come.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../helper/http.h"
#include "../../helper/log.h"
#include "../../helper/s3put.h"
#include "kselftest_harness.h"
#include "rig.h"

FIXTURE(s3) {
	struct rig *rig;
};

/* What is not there is empty, which is as good as unset. */
static void no_environment(void)
{
	static const char *const names[] = {
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
		"AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE",
		"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL",
		"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_STS",
		"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE",
		"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
		"LAZYFRAME_S3_ADDRESSING", "LAZYFRAME_HTTP_CONFIG",
		"GOOGLE_APPLICATION_CREDENTIALS", "BOTO_CONFIG",
		"CLOUDSDK_AUTH_ACCESS_TOKEN_FILE", "CLOUDSDK_CONFIG",
		"GS_ACCESS_KEY_ID", "GS_SECRET_ACCESS_KEY",
		"GCE_METADATA_HOST",
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		unsetenv(names[i]);
	setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
	setenv("NO_GCE_CHECK", "true", 1);
}

FIXTURE_SETUP(s3)
{
	char from[96], to[96], server[512];
	size_t len = strlen(SERVER) - strlen("server");

	snprintf(server, sizeof(server), "%.*ss3-server", (int)len, SERVER);
	setenv("LAZYFRAME_SERVER", server, 1);
	no_environment();
	self->rig = malloc(sizeof(*self->rig));
	rig_up(self->rig);
	snprintf(to, sizeof(to), "%s/bucket", self->rig->dir);
	ASSERT_EQ(0, mkdir(to, 0700));
	snprintf(from, sizeof(from), "%s/object", self->rig->dir);
	snprintf(to, sizeof(to), "%s/bucket/an object+", self->rig->dir);
	ASSERT_EQ(0, link(from, to));
	rig_layer(self->rig, 1, "s3://bucket/an%20object+", OBJECT_BYTES, "");
	setenv("AWS_ENDPOINT_URL", self->rig->url, 1);
	setenv("STORAGE_EMULATOR_HOST", self->rig->url, 1);
}

FIXTURE_TEARDOWN(s3)
{
	EXPECT_EQ(0, self->rig->wrong);
	rig_down(self->rig);
	free(self->rig);
}

static void use_keys(struct rig *rig)
{
	setenv("AWS_ACCESS_KEY_ID", "AKIA", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "hush", 1);
	rig_tell(rig, "key AKIA hush\n");
}

static void use_agent(struct rig *rig)
{
	char url[160];

	snprintf(url, sizeof(url), "%s/agent", rig->url);
	setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url, 1);
	setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "agent-1", 1);
}

/* @n frames that are no neighbours, each to be a range of its own */
static void post_frames(struct rig *rig, u32 n, u64 ms)
{
	u32 i;

	for (i = 0; i < n; i++)
		rig_post(rig, i, 1, 2ULL * i * FRAME, FRAME, 0, 0, ms);
}

/* How many of them ended with this status? */
static u32 ended(const struct rig *rig, u32 n, int status)
{
	u32 i, count = 0;

	for (i = 0; i < n; i++)
		count += !rig->tag[i].open && rig->tag[i].status == status;
	return count;
}

/* Lines of the server's log with this in them, once it wrote them all */
static int lines(struct rig *rig, const char *what)
{
	int n = 0;
	char *p;

	rig_tell(rig, "settle\nlog\n");
	for (p = rig->text; (p = strstr(p, what)); p++)
		n++;
	return n;
}

static void on_timer(void *arg, int fd, u32 events)
{
	(void)arg;
	(void)fd;
	(void)events;
}

static void run_for(struct rig *rig, u64 ms)
{
	u64 until = now_ns() + ms * NSEC_PER_MSEC;
	int timer = loop_timer(&rig->loop, on_timer, NULL);

	/* A turn waits for an event: let there be one at the end. */
	if (timer < 0)
		abort();
	timer_set(timer, until);
	while (now_ns() < until)
		rig_turn(rig);
	loop_unwatch(&rig->loop, timer);
	close(timer);
}

TEST_F(s3, ranges_are_signed)
{
	use_keys(self->rig);
	rig_go(self->rig);
	post_frames(self->rig, 40, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(40, ended(self->rig, 40, 0));
	EXPECT_EQ(40, lines(self->rig, " 206 - AKIA"));
	EXPECT_EQ(40, lines(self->rig, "GET "));
}

/* More than are asked for at once: by then, some have come. */
TEST_F(s3, credentials_end_in_the_middle)
{
	use_agent(self->rig);
	rig_tell(self->rig, "issue uses=10\n");
	rig_go(self->rig);
	post_frames(self->rig, 40, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(40, ended(self->rig, 40, 0));
	EXPECT_LE(4, lines(self->rig, "/agent"));
	EXPECT_GE(6, lines(self->rig, "/agent"));
	EXPECT_LE(3, lines(self->rig, "ExpiredToken"));
}

TEST_F(s3, credentials_are_renewed_before_their_end)
{
	int i;

	use_agent(self->rig);
	rig_tell(self->rig, "issue seconds=4\n");
	rig_go(self->rig);
	for (i = 0; i < 6; i++) {
		post_frames(self->rig, 2, 20000);
		ASSERT_EQ(0, rig_run(self->rig));
		run_for(self->rig, 1000);
	}
	EXPECT_EQ(0, lines(self->rig, "ExpiredToken"));
	EXPECT_EQ(12, lines(self->rig, " 206 "));
	EXPECT_LE(2, lines(self->rig, "/agent"));
	EXPECT_GE(4, lines(self->rig, "/agent"));
}

TEST_F(s3, a_clock_that_is_wrong)
{
	use_keys(self->rig);
	rig_tell(self->rig, "clock 7200\n");
	rig_go(self->rig);
	post_frames(self->rig, 20, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(20, ended(self->rig, 20, 0));
	EXPECT_LE(1, lines(self->rig, "RequestTimeTooSkewed"));
	EXPECT_GE(8, lines(self->rig, "RequestTimeTooSkewed"));
}

TEST_F(s3, refused_for_good)
{
	u64 start = now_ns();

	use_keys(self->rig);
	rig_tell(self->rig, "deny AccessDenied\n");
	rig_go(self->rig);
	post_frames(self->rig, 4, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(4, ended(self->rig, 4, EACCES));
	EXPECT_EQ(4, lines(self->rig, "AccessDenied"));
	EXPECT_GT(5 * NSEC_PER_SEC, now_ns() - start);
}

TEST_F(s3, the_wrong_region_is_final)
{
	setenv("AWS_REGION", "eu-west-1", 1);
	use_keys(self->rig);
	rig_go(self->rig);
	post_frames(self->rig, 1, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(1, ended(self->rig, 1, EACCES));
}

TEST_F(s3, credentials_that_never_work)
{
	use_agent(self->rig);
	rig_tell(self->rig, "issue uses=0\n");
	rig_go(self->rig);
	post_frames(self->rig, 4, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(4, ended(self->rig, 4, EACCES));
	EXPECT_EQ(2, lines(self->rig, "/agent"));
	/* Nor is the agent asked for each of the next ones. */
	post_frames(self->rig, 4, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(4, ended(self->rig, 4, EACCES));
	EXPECT_EQ(2, lines(self->rig, "/agent"));
}

TEST_F(s3, an_agent_that_comes_late)
{
	use_agent(self->rig);
	rig_tell(self->rig, "fail agent 0\n");
	rig_go(self->rig);
	post_frames(self->rig, 4, 30000);
	run_for(self->rig, 2500);
	EXPECT_EQ(4, self->rig->open);
	EXPECT_EQ(0, lines(self->rig, "GET /bucket"));
	rig_tell(self->rig, "fail agent -1\n");
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(4, ended(self->rig, 4, 0));
}

/* That is not the store's fault. */
TEST_F(s3, an_agent_that_takes_its_time)
{
	use_agent(self->rig);
	rig_tell(self->rig, "slow 8\n");
	rig_go(self->rig);
	post_frames(self->rig, 8, 30000);
	run_for(self->rig, 6000);
	EXPECT_EQ(8, self->rig->open);
	EXPECT_EQ(0, fetch_down(self->rig->fetch));
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(8, ended(self->rig, 8, 0));
}

/* What was accepted once is not refused for good while the agent is away. */
TEST_F(s3, an_agent_that_is_away_when_credentials_end)
{
	use_agent(self->rig);
	rig_tell(self->rig, "issue uses=2\n");
	rig_go(self->rig);
	post_frames(self->rig, 2, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	rig_tell(self->rig, "fail agent 0\nissue\n");
	post_frames(self->rig, 4, 30000);
	run_for(self->rig, 2500);
	EXPECT_EQ(4, self->rig->open);
	rig_tell(self->rig, "fail agent -1\n");
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(4, ended(self->rig, 4, 0));
}

TEST_F(s3, no_credentials_until_the_deadline)
{
	use_agent(self->rig);
	rig_tell(self->rig, "fail agent 0\n");
	rig_go(self->rig);
	post_frames(self->rig, 4, 3000);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(4, ended(self->rig, 4, ETIMEDOUT));
}

/* In rig->dir; whole at any time, as those who renew such files do it */
static void write_text(struct rig *rig, const char *name, const char *fmt, ...)
{
	char path[96], other[128], text[512];
	va_list ap;
	int fd, len;

	va_start(ap, fmt);
	len = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(path, sizeof(path), "%s/%s", rig->dir, name);
	snprintf(other, sizeof(other), "%s.new", path);
	fd = open(other, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, len) != len || rename(other, path))
		abort();
	close(fd);
}

/* @secret NULL: the line is missing, which makes the file wrong */
static void write_file(struct rig *rig, const char *id, const char *secret)
{
	write_text(rig, "keys", "[default]\naws_access_key_id = %s\n%s%s\n",
		   id, secret ? "aws_secret_access_key = " : "",
		   secret ? secret : "");
}

static void use_file(struct rig *rig)
{
	char path[96];

	snprintf(path, sizeof(path), "%s/keys", rig->dir);
	setenv("AWS_SHARED_CREDENTIALS_FILE", path, 1);
	rig_tell(rig, "key AKIA hush\n");
}

TEST_F(s3, files_are_read_again_when_told)
{
	use_file(self->rig);
	write_file(self->rig, "AKIA", "wrong");
	rig_go(self->rig);
	post_frames(self->rig, 1, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(1, ended(self->rig, 1, EACCES));
	write_file(self->rig, "AKIA", "hush");
	http_reload(self->rig->http);
	run_for(self->rig, 300);
	post_frames(self->rig, 1, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(1, ended(self->rig, 1, 0));
}

/* Keys of a file are good for two reads, which are made. */
static int use_up(struct rig *rig)
{
	use_file(rig);
	rig_tell(rig, "key OLD old uses=2 code=InvalidAccessKeyId\n");
	write_file(rig, "OLD", "old");
	rig_go(rig);
	post_frames(rig, 2, 20000);
	return rig_run(rig);
}

/* Keys that are changed in time: the old ones end, the file has new ones. */
TEST_F(s3, files_are_read_again_when_keys_end)
{
	ASSERT_EQ(0, use_up(self->rig));
	write_file(self->rig, "AKIA", "hush");
	post_frames(self->rig, 4, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(4, ended(self->rig, 4, 0));
	EXPECT_LE(1, lines(self->rig, "InvalidAccessKeyId"));
}

/* The old ones end first; until the file has new ones, it is looked at seldom. */
TEST_F(s3, keys_that_end_before_there_are_new_ones)
{
	ASSERT_EQ(0, use_up(self->rig));
	post_frames(self->rig, 4, 30000);
	run_for(self->rig, 4000);
	EXPECT_EQ(4, self->rig->open);
	EXPECT_LE(3, lines(self->rig, "InvalidAccessKeyId"));
	EXPECT_GE(5 * 4, lines(self->rig, "InvalidAccessKeyId"));
	write_file(self->rig, "AKIA", "hush");
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(4, ended(self->rig, 4, 0));
}

/* Ceph does not say that a session has ended; nor is it asked for ever. */
TEST_F(s3, sessions_that_end_with_a_mere_refusal)
{
	static const char text[] =
		"[default]\naws_access_key_id=%s\naws_secret_access_key=%s\n"
		"aws_session_token=%s\n";

	use_file(self->rig);
	rig_tell(self->rig, "key OLD old token=one uses=2 code=AccessDenied\n"
			    "key NEW new token=two\n");
	write_text(self->rig, "keys", text, "OLD", "old", "one");
	rig_go(self->rig);
	post_frames(self->rig, 2, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	write_text(self->rig, "keys", text, "NEW", "new", "two");
	post_frames(self->rig, 4, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(4, ended(self->rig, 4, 0));
	EXPECT_LE(1, lines(self->rig, "AccessDenied"));
	rig_tell(self->rig, "forget\ndeny AccessDenied\n");
	post_frames(self->rig, 4, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(4, ended(self->rig, 4, EACCES));
	EXPECT_GE(8, lines(self->rig, "AccessDenied"));
}

/* A broken file is no reason not to start, nor to stay broken. */
TEST_F(s3, a_file_that_is_wrong_at_the_start)
{
	use_file(self->rig);
	write_file(self->rig, "AKIA", NULL);
	rig_go(self->rig);
	post_frames(self->rig, 1, 30000);
	run_for(self->rig, 300);
	EXPECT_EQ(1, self->rig->open);
	write_file(self->rig, "AKIA", "hush");
	http_reload(self->rig->http);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(1, ended(self->rig, 1, 0));
}

/* Cloud Storage */

static void use_gs(struct rig *rig)
{
	rig_layer(rig, 1, "gs://bucket/an%20object+", OBJECT_BYTES, "");
}

static void use_instance(struct rig *rig)
{
	use_gs(rig);
	unsetenv("NO_GCE_CHECK");
	setenv("GCE_METADATA_HOST", rig->url + strlen("http://"), 1);
}

TEST_F(s3, gs_tokens_end_in_the_middle)
{
	use_instance(self->rig);
	rig_tell(self->rig, "issue uses=10\n");
	rig_go(self->rig);
	post_frames(self->rig, 40, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(40, ended(self->rig, 40, 0));
	EXPECT_LE(4, lines(self->rig, "default/token"));
	EXPECT_GE(6, lines(self->rig, "default/token"));
	EXPECT_LE(3, lines(self->rig, " 401 "));
}

TEST_F(s3, gs_tokens_are_renewed_before_their_end)
{
	int i;

	use_instance(self->rig);
	rig_tell(self->rig, "issue seconds=2\n");
	rig_go(self->rig);
	for (i = 0; i < 5; i++) {
		post_frames(self->rig, 2, 20000);
		ASSERT_EQ(0, rig_run(self->rig));
		run_for(self->rig, 600);
	}
	EXPECT_EQ(0, lines(self->rig, " 401 "));
	EXPECT_EQ(10, lines(self->rig, " 206 "));
	EXPECT_LE(2, lines(self->rig, "default/token"));
	EXPECT_GE(4, lines(self->rig, "default/token"));
}

TEST_F(s3, gs_tokens_that_never_work)
{
	use_instance(self->rig);
	rig_tell(self->rig, "issue uses=0\n");
	rig_go(self->rig);
	post_frames(self->rig, 4, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(4, ended(self->rig, 4, EACCES));
	EXPECT_EQ(2, lines(self->rig, "default/token"));
}

TEST_F(s3, gs_refused_for_good)
{
	use_instance(self->rig);
	rig_tell(self->rig, "deny AccessDenied\n");
	rig_go(self->rig);
	post_frames(self->rig, 4, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(4, ended(self->rig, 4, EACCES));
	EXPECT_EQ(1, lines(self->rig, "default/token"));
}

TEST_F(s3, gs_signed_with_a_key)
{
	use_gs(self->rig);
	setenv("GS_ACCESS_KEY_ID", "GOOG1", 1);
	setenv("GS_SECRET_ACCESS_KEY", "hush", 1);
	rig_tell(self->rig, "key GOOG1 hush\n");
	rig_go(self->rig);
	post_frames(self->rig, 4, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(4, ended(self->rig, 4, 0));
	EXPECT_EQ(4, lines(self->rig, " 206 - GOOG1"));
}

/* One service that is away is no reason for the other one to wait. */
TEST_F(s3, gs_goes_on_without_s3)
{
	use_agent(self->rig);
	rig_tell(self->rig, "slow 20\n");
	rig_layer(self->rig, 2, "s3://bucket/an%20object+", OBJECT_BYTES, "");
	use_instance(self->rig);
	rig_go(self->rig);
	rig_post(self->rig, 8, 2, 0, FRAME, 0, 0, 3000);
	post_frames(self->rig, 4, 2500);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(4, ended(self->rig, 4, 0));
	EXPECT_EQ(ETIMEDOUT, self->rig->tag[8].status);
}

/* Plain HTTP */

/* @host: as it is in the layer's URL and in the file */
static void use_origin(struct rig *rig, const char *host, const char *section,
		       const char *what)
{
	char path[96], url[128];

	snprintf(url, sizeof(url), "http://%s:%d/bucket/an%%20object+", host,
		 rig->port);
	rig_layer(rig, 1, url, OBJECT_BYTES, "");
	write_text(rig, "http.conf", "[HTTP://%s:%d]\n%s = %s/secret\n", section,
		   rig->port, what, rig->dir);
	snprintf(path, sizeof(path), "%s/http.conf", rig->dir);
	setenv("LAZYFRAME_HTTP_CONFIG", path, 1);
}

TEST_F(s3, a_bearer_file_that_changes)
{
	use_origin(self->rig, "127.0.0.1", "127.0.0.1", "bearer_file");
	write_text(self->rig, "secret", "old-token\n");
	rig_tell(self->rig, "bearer old-token uses=3\nbearer new-token\n");
	rig_go(self->rig);
	post_frames(self->rig, 3, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	write_text(self->rig, "secret", "new-token\n");
	post_frames(self->rig, 4, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(4, ended(self->rig, 4, 0));
	EXPECT_LE(1, lines(self->rig, " 401 "));
	EXPECT_GE(4, lines(self->rig, " 401 "));
}

TEST_F(s3, a_bearer_file_that_is_not_there_yet)
{
	use_origin(self->rig, "127.0.0.1", "127.0.0.1", "bearer_file");
	rig_tell(self->rig, "bearer new-token\n");
	rig_go(self->rig);
	post_frames(self->rig, 2, 30000);
	run_for(self->rig, 300);
	EXPECT_EQ(2, self->rig->open);
	EXPECT_EQ(0, lines(self->rig, "GET /bucket"));
	write_text(self->rig, "secret", "new-token\n");
	http_reload(self->rig->http);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(2, ended(self->rig, 2, 0));
}

TEST_F(s3, a_header_file)
{
	use_origin(self->rig, "127.0.0.1", "127.0.0.1", "header_file");
	write_text(self->rig, "secret",
		   "X-Other: b\n\nAuthorization: Bearer new-token\r\n");
	rig_tell(self->rig, "bearer new-token\n");
	rig_go(self->rig);
	post_frames(self->rig, 2, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(2, ended(self->rig, 2, 0));
}

TEST_F(s3, no_other_origin_gets_the_token)
{
	use_origin(self->rig, "localhost", "127.0.0.1", "bearer_file");
	write_text(self->rig, "secret", "new-token\n");
	rig_tell(self->rig, "bearer new-token\n");
	rig_go(self->rig);
	post_frames(self->rig, 1, 20000);
	ASSERT_EQ(0, rig_run(self->rig));
	EXPECT_EQ(1, ended(self->rig, 1, EACCES));
	EXPECT_EQ(1, lines(self->rig, " 403 AccessDenied -"));
}

/* What is logged goes to rig->dir/log, until log_end() */
static int log_begin(const struct rig *rig)
{
	int saved = dup(STDERR_FILENO), fd;
	char path[96];

	snprintf(path, sizeof(path), "%s/log", rig->dir);
	fd = open(path, O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600);
	if (saved < 0 || fd < 0 || dup2(fd, STDERR_FILENO) < 0)
		abort();
	close(fd);
	return saved;
}

static char *log_end(int saved)
{
	static char text[1 << 20];
	ssize_t n = pread(STDERR_FILENO, text, sizeof(text) - 1, 0);

	text[n > 0 ? n : 0] = 0;
	dup2(saved, STDERR_FILENO);
	close(saved);
	fputs(text, stderr);
	return text;
}

/*
 * The most that there is to say, about a server that says all it likes: a redirect
 * with a password, a code with what moves a terminal's cursor.
 */
TEST_F(s3, a_verbose_log_shows_no_secret)
{
	static const char *const secret[] = {
		"uthorization", "ignature", "very-hush", "sess-very", "tok-very",
		"amz-", "AKIA", "me:pass-very", "pass-very", "Location",
	};
	struct rig *rig = self->rig;
	const char *text, *p;
	int saved;
	size_t i;

	setenv("VERBOSE", "1", 1);
	setenv("AWS_ACCESS_KEY_ID", "AKIA", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "very-hush", 1);
	setenv("AWS_SESSION_TOKEN", "sess-very", 1);
	rig_tell(rig, "key AKIA very-hush token=sess-very\nbearer tok-very\n");
	rig_layer(rig, 2, "s3://bucket/an%20object+", OBJECT_BYTES, "");
	use_origin(rig, "127.0.0.1", "127.0.0.1", "bearer_file");
	write_text(rig, "secret", "tok-very\n");
	saved = log_begin(rig);
	log_init(1);
	rig_go(rig);
	post_frames(rig, 2, 20000);
	rig_post(rig, 8, 2, 0, FRAME, 0, 0, 20000);
	i = rig_run(rig);
	rig_tell(rig, "redirect http://me:pass-very@localhost:%d\n", rig->port);
	rig_post(rig, 0, 1, 0, FRAME, 0, 0, 20000);
	i += rig_run(rig);
	rig_tell(rig, "redirect\ndeny Access\033[2JDenied\177\n");
	rig_post(rig, 8, 2, 0, FRAME, 0, 0, 20000);
	i += rig_run(rig);
	text = log_end(saved);
	log_init(0);
	unsetenv("VERBOSE");
	EXPECT_EQ(0, i);
	EXPECT_NE(NULL, strstr(text, "libcurl: "));
	EXPECT_NE(NULL, strstr(text, "403, Access?[2JDenied"));
	for (i = 0; i < ARRAY_SIZE(secret); i++)
		EXPECT_EQ(NULL, strstr(text, secret[i]));
	for (p = text; *p; p++)
		EXPECT_EQ(true, *p == '\n' || ((u8)*p >= ' ' && *p != 0x7f));
}

/* What the store has as the object's uncompressed-size */
static u64 told_size(struct rig *rig)
{
	unsigned long long size = 0;
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/bucket/large.uncompressed-size",
		 rig->dir);
	f = fopen(path, "re");
	if (f && fscanf(f, "%llu", &size) != 1)
		size = 0;
	if (f)
		fclose(f);
	return size;
}

/*
 * The server takes nothing but ranges that are in order and that together are
 * the whole object.
 */
TEST_F(s3, large_objects_are_told_their_size_in_parts)
{
	static const struct {
		u64 bytes;
		int parts;
	} object[] = {
		{ 1ULL << 30, 0 },
		{ (1ULL << 30) + 1, 2 },
		{ 3ULL << 30, 3 },
		{ (9ULL << 30) - 1, 9 },
	};
	struct error e = { "" };
	char path[96];
	size_t i;

	use_keys(self->rig);
	rig_go(self->rig);
	snprintf(path, sizeof(path), "%s/bucket/large", self->rig->dir);
	for (i = 0; i < ARRAY_SIZE(object); i++) {
		int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

		ASSERT_LE(0, fd);
		ASSERT_EQ(0, ftruncate(fd, object[i].bytes));
		close(fd);
		rig_tell(self->rig, "forget\n");
		EXPECT_EQ(0, s3_set_ubytes("s3://bucket/large", object[i].bytes,
					   12345 + i, &e)) {
			TH_LOG("%s", e.text);
		}
		EXPECT_EQ(12345 + i, told_size(self->rig));
		EXPECT_EQ(object[i].parts, lines(self->rig, "partNumber="));
		EXPECT_EQ(!!object[i].parts, lines(self->rig, "?uploads"));
	}
	/* An upload that fails in the middle leaves nothing. */
	EXPECT_NE(0, s3_set_ubytes("s3://bucket/large", 10ULL << 30, 1, &e));
	EXPECT_EQ(12345 + i - 1, told_size(self->rig));
	rig_tell(self->rig, "uploads\n");
	EXPECT_STREQ("", self->rig->text);
}

TEST_HARNESS_MAIN

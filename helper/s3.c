// SPDX-License-Identifier: GPL-2.0-only
#include "s3.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "credentials.h"
#include "secret.h"
#include "xml.h"

#define NEVER		UINT64_MAX
#define NSEC		1000000000ULL
/* Renewed so long before their end, or a quarter of their life. */
#define EARLY		300
/* After a failure: doubled each time */
#define BACKOFF		NSEC
#define BACKOFF_MAX	(10 * NSEC)
/* After a refusal, and if nobody accepts what it was renewed to: the next time */
#define PATIENCE	(60 * NSEC)
/* Servers accept a quarter of an hour; less may be a slow answer. */
#define SKEW		120
#define EMPTY	"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

/**
 * struct s3
 * @lock: held for moments only
 * @renewing: held while somebody renews without the thread
 * @work: for the thread
 * @aws, @cred: what is signed with, if @cred has keys
 * @generation: counts renewals; 0: there never were credentials
 * @ends, @due: of @cred, monotonic time
 * @tried: when it was last renewed because of a refusal; 0: since then a server
 *	   has accepted it
 * @not_before: the next attempt
 * @backoff: the next wait after a failure
 * @skew: seconds to add to our clock
 * @fresh: @aws was just read
 * @suspect: a server says that @cred has ended; it is being renewed
 * @failed: the last attempt to renew failed, as @problem says
 * @wanted: for the thread: renew
 * @busy: it does
 */
struct s3 {
	pthread_mutex_t lock;
	pthread_mutex_t renewing;
	pthread_cond_t work;
	pthread_t thread;
	aws_warn *warn;
	const struct curl_blob *authorities;
	struct aws *aws;
	struct credentials cred;
	u64 generation;
	u64 ends;
	u64 due;
	u64 tried;
	u64 not_before;
	u64 backoff;
	time_t skew;
	bool fresh;
	bool suspect;
	bool failed;
	bool wanted;
	bool busy;
	bool background;
	atomic_bool stop;
	int wake;
	struct error problem;
};

static u64 now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NSEC + ts.tv_nsec;
}

/* Renewing */

/* s3->lock is held. */
static void take(struct s3 *s3, struct credentials *cred)
{
	u64 at = now(), early = cred->seconds / 4;

	credentials_free(&s3->cred);
	s3->cred = *cred;
	if (early > EARLY)
		early = EARLY;
	s3->ends = cred->seconds ? at + cred->seconds * NSEC : NEVER;
	s3->due = cred->seconds ? at + (cred->seconds - early) * NSEC : NEVER;
	s3->generation++;
	s3->suspect = false;
	s3->failed = false;
	s3->backoff = BACKOFF;
	/* What ends in a moment is asked for again, but not all the time. */
	s3->not_before = at + BACKOFF;
}

/* Without the thread, the caller has an error to show. */
static void warn_failure(struct s3 *s3)
{
	char text[sizeof(s3->problem.text) + 64];

	if (!s3->warn || !s3->background)
		return;
	snprintf(text, sizeof(text), "cannot get credentials for s3: %s",
		 s3->problem.text);
	s3->warn(text);
}

static void note_failure(struct s3 *s3, const struct error *e)
{
	s3->failed = true;
	s3->suspect &= s3->background;
	s3->problem = *e;
	s3->not_before = now() + s3->backoff;
	s3->backoff = s3->backoff * 2 < BACKOFF_MAX ? s3->backoff * 2 :
						      BACKOFF_MAX;
	warn_failure(s3);
}

/* No lock is held but s3->renewing, or this is the thread. */
static int renew(struct s3 *s3)
{
	struct web web = {
		.authorities = s3->authorities,
		.stop = &s3->stop,
	};
	struct credentials cred;
	struct error e = { "" };
	struct aws *aws = NULL;
	bool fresh;
	int err;

	pthread_mutex_lock(&s3->lock);
	fresh = s3->fresh;
	s3->fresh = false;
	/* Told once, not each time. */
	web.warn = s3->generation ? NULL : s3->warn;
	pthread_mutex_unlock(&s3->lock);

	err = fresh ? 0 : aws_load(&aws, NULL, &e);
	if (!err)
		err = credentials_get(aws ? aws : s3->aws, &web, &cred, &e);

	pthread_mutex_lock(&s3->lock);
	if (err) {
		aws_free(aws);
		note_failure(s3, &e);
	} else {
		if (aws) {
			aws_free(s3->aws);
			s3->aws = aws;
		}
		take(s3, &cred);
	}
	pthread_mutex_unlock(&s3->lock);
	return err;
}

static void wait_until(struct s3 *s3, u64 when)
{
	struct timespec ts = { when / NSEC, when % NSEC };

	if (when == NEVER)
		pthread_cond_wait(&s3->work, &s3->lock);
	else
		pthread_cond_timedwait(&s3->work, &s3->lock, &ts);
}

/* When the thread has something to do; s3->lock is held. */
static u64 next(const struct s3 *s3)
{
	if (s3->wanted && !s3->failed)
		return 0;
	if (s3->wanted || s3->due < s3->not_before)
		return s3->not_before;
	return s3->due;
}

static void *thread(void *arg)
{
	struct s3 *s3 = arg;
	u64 one = 1;

	pthread_mutex_lock(&s3->lock);
	while (!atomic_load(&s3->stop)) {
		if (next(s3) > now()) {
			wait_until(s3, next(s3));
			continue;
		}
		s3->wanted = false;
		s3->busy = true;
		pthread_mutex_unlock(&s3->lock);
		renew(s3);
		pthread_mutex_lock(&s3->lock);
		s3->busy = false;
		/* Cannot fail: the counter is far from its end. */
		if (write(s3->wake, &one, sizeof(one)) < 0)
			one = 1;
	}
	pthread_mutex_unlock(&s3->lock);
	return NULL;
}

/* s3->lock is held. What is under way is as good as what would follow. */
static void want(struct s3 *s3)
{
	s3->wanted |= !s3->busy;
	pthread_cond_signal(&s3->work);
}

/* Unless somebody else has renewed what was there. */
static void renew_now(struct s3 *s3, u64 generation)
{
	bool same;

	pthread_mutex_lock(&s3->renewing);
	pthread_mutex_lock(&s3->lock);
	same = s3->generation == generation;
	pthread_mutex_unlock(&s3->lock);
	if (same)
		renew(s3);
	pthread_mutex_unlock(&s3->renewing);
}

/* Life */

int s3_open(struct s3 **result, aws_warn *warn,
	    const struct curl_blob *authorities, struct error *e)
{
	struct s3 *s3 = calloc(1, sizeof(*s3));
	struct web web = { .warn = warn };
	struct credentials cred;
	pthread_condattr_t attr;
	int err;

	if (!s3)
		return error_set(e, -ENOMEM, "out of memory");
	s3->warn = warn;
	s3->authorities = authorities;
	s3->backoff = BACKOFF;
	s3->ends = NEVER;
	s3->due = NEVER;
	s3->wake = -1;
	err = aws_load(&s3->aws, warn, &s3->problem);
	/* Keys are at hand; all else is asked for when it is needed. */
	if (!err && s3->aws->source == AWS_KEYS) {
		err = credentials_get(s3->aws, &web, &cred, &s3->problem);
		if (!err)
			take(s3, &cred);
		s3->not_before = 0;
	} else {
		s3->fresh = !err;
	}
	s3->failed = err;
	pthread_mutex_init(&s3->lock, NULL);
	pthread_mutex_init(&s3->renewing, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s3->work, &attr);
	pthread_condattr_destroy(&attr);
	*result = s3;
	return 0;
}

int s3_background(struct s3 *s3, int wake)
{
	int err;

	s3->wake = wake;
	s3->background = true;
	/*
	 * Who configured an agent will want it. An instance's is asked only
	 * when there is a request to sign.
	 */
	if (s3->failed)
		warn_failure(s3);
	else if (!s3->generation && s3->aws->source != AWS_INSTANCE)
		s3->wanted = true;
	err = pthread_create(&s3->thread, NULL, thread, s3);
	if (err)
		s3->background = false;
	return -err;
}

void s3_reload(struct s3 *s3)
{
	pthread_mutex_lock(&s3->lock);
	s3->not_before = 0;
	s3->fresh = false;
	s3->wanted = true;
	pthread_cond_signal(&s3->work);
	pthread_mutex_unlock(&s3->lock);
}

void s3_close(struct s3 *s3)
{
	if (!s3)
		return;
	if (s3->background) {
		pthread_mutex_lock(&s3->lock);
		atomic_store(&s3->stop, true);
		pthread_cond_signal(&s3->work);
		pthread_mutex_unlock(&s3->lock);
		pthread_join(s3->thread, NULL);
	}
	credentials_free(&s3->cred);
	aws_free(s3->aws);
	pthread_cond_destroy(&s3->work);
	pthread_mutex_destroy(&s3->renewing);
	pthread_mutex_destroy(&s3->lock);
	free(s3);
}

/* Signing */

static bool append(struct curl_slist **list, const char *name,
		   const char *value)
{
	struct curl_slist *more = NULL;
	char *line;

	if (asprintf(&line, "%s: %s", name, value) < 0)
		return false;
	more = curl_slist_append(*list, line);
	secret_free(line);
	if (!more)
		return false;
	*list = more;
	return true;
}

/* s3->lock is held, and there are credentials. */
static int sign(struct s3 *s3, const struct s3_call *call,
		const struct s3_target *target, struct s3_signed *sig)
{
	struct sigv4_header header[16] = { };
	char date[SIGV4_DATE], *value;
	struct sigv4_request req = {
		.method = call->method,
		.path = target->path,
		.query = call->query ? call->query : "",
		.header = header,
		.payload = call->payload ? call->payload : EMPTY,
	};
	struct sigv4_key key = {
		.access_key = s3->cred.access_key,
		.secret = s3->cred.secret,
		.region = s3->aws->region,
		.service = "s3",
		.date = date,
	};
	size_t i, n = 0;

	if (call->headers > ARRAY_SIZE(header) - 4)
		return -EINVAL;
	for (i = 0; i < call->headers; i++)
		header[n++] = call->header[i];
	sig->when = time(NULL) + s3->skew;
	sig->generation = s3->generation;
	sigv4_date(sig->when, date);
	header[n++] = (struct sigv4_header){ "x-amz-date", date };
	header[n++] = (struct sigv4_header){ "x-amz-content-sha256",
					     req.payload };
	if (s3->cred.token)
		header[n++] = (struct sigv4_header){ "x-amz-security-token",
						     s3->cred.token };
	for (i = 0; i < n; i++)
		if (!append(&sig->header, header[i].name, header[i].value))
			return -ENOMEM;
	/* libcurl makes this line itself. */
	header[n++] = (struct sigv4_header){ "host", target->host };
	req.headers = n;
	if (sigv4_sign(&req, &key, &value))
		return -ENOMEM;
	i = append(&sig->header, "Authorization", value);
	free(value);
	if (!i)
		return -ENOMEM;
	if (asprintf(&sig->url, "%s%s%s", target->url, *req.query ? "?" : "",
		     req.query) < 0) {
		sig->url = NULL;
		return -ENOMEM;
	}
	return 0;
}

/*
 * What can be signed with, or -EAGAIN. s3->lock is held. What has ended is used
 * where there is no better: its server knows for sure.
 */
static int usable(struct s3 *s3, struct error *e)
{
	if (s3->cred.access_key && !s3->suspect &&
	    (s3->failed || now() < s3->ends))
		return 0;
	want(s3);
	if (s3->failed)
		*e = s3->problem;
	else
		e->text[0] = 0;
	return -EAGAIN;
}

static int ready(struct s3 *s3, struct error *e)
{
	u64 generation = s3->generation;

	if (s3->background)
		return usable(s3, e);
	if (s3->cred.access_key &&
	    (now() < s3->due || now() < s3->not_before))
		return 0;
	pthread_mutex_unlock(&s3->lock);
	renew_now(s3, generation);
	pthread_mutex_lock(&s3->lock);
	if (s3->cred.access_key)
		return 0;
	*e = s3->problem;
	return -EACCES;
}

int s3_sign(struct s3 *s3, const struct s3_call *call, struct s3_signed *sig,
	    struct error *e)
{
	struct s3_target target = { };
	struct s3_url url;
	int err;

	memset(sig, 0, sizeof(*sig));
	err = s3_url_parse(call->url, &url, e);
	if (err)
		goto out;
	pthread_mutex_lock(&s3->lock);
	err = ready(s3, e);
	if (!err)
		err = s3_target(&url, s3->aws->endpoint, s3->aws->region,
				s3->aws->style, &target, e);
	if (!err) {
		err = sign(s3, call, &target, sig);
		if (err)
			error_set(e, err, "%s: cannot sign: %s", call->url,
				  strerror(-err));
	}
	pthread_mutex_unlock(&s3->lock);
out:
	s3_target_free(&target);
	s3_url_free(&url);
	return err;
}

void s3_signed_free(struct s3_signed *sig)
{
	struct curl_slist *line;

	for (line = sig->header; line; line = line->next)
		explicit_bzero(line->data, strlen(line->data));
	curl_slist_free_all(sig->header);
	free(sig->url);
	memset(sig, 0, sizeof(*sig));
}

/* Answers */

static bool means_expiry(long status, const char *code)
{
	static const char *const codes[] = {
		"ExpiredToken", "ExpiredTokenException", "RequestExpired",
		"TokenRefreshRequired", "InvalidToken", "InvalidAccessKeyId",
		"InvalidClientTokenId",
	};
	size_t i;

	for (i = 0; code && i < ARRAY_SIZE(codes); i++)
		if (!strcmp(code, codes[i]))
			return true;
	return !code && status == 401;
}

/* s3->lock is held. */
static bool correct_clock(struct s3 *s3, const struct s3_signed *sig,
			  const char *date)
{
	time_t there = date ? curl_getdate(date, NULL) : -1;
	time_t off = there < 0 ? 0 : there - sig->when;

	if (off >= -SKEW && off <= SKEW)
		return false;
	/* Not added to what another answer may have changed meanwhile. */
	s3->skew = there - time(NULL);
	return true;
}

bool s3_refused(struct s3 *s3, const struct s3_signed *sig, long status,
		const char *code, const char *date)
{
	bool again = true;

	pthread_mutex_lock(&s3->lock);
	if (correct_clock(s3, sig, date))
		goto out;
	again = means_expiry(status, code) || now() >= s3->ends;
	if (!again || s3->generation != sig->generation)
		goto out;
	if (!s3->suspect && s3->tried && now() - s3->tried < PATIENCE) {
		again = false;
		goto out;
	}
	if (!s3->suspect)
		s3->tried = now();
	s3->suspect = true;
	if (s3->background) {
		want(s3);
		goto out;
	}
	pthread_mutex_unlock(&s3->lock);
	renew_now(s3, sig->generation);
	pthread_mutex_lock(&s3->lock);
	again = s3->generation != sig->generation;
out:
	pthread_mutex_unlock(&s3->lock);
	return again;
}

void s3_accepted(struct s3 *s3, const struct s3_signed *sig)
{
	pthread_mutex_lock(&s3->lock);
	if (s3->generation == sig->generation)
		s3->tried = 0;
	pthread_mutex_unlock(&s3->lock);
}

void s3_answer(const char *body, char **code, char *why, size_t size)
{
	char *region;

	*code = xml_get(body, "Code", NULL);
	region = xml_get(body, "Region", NULL);
	snprintf(why, size, "%.48s%s%.32s", *code ? *code : "no reason given",
		 region ? "; set AWS_REGION to " : "", region ? region : "");
	free(region);
}

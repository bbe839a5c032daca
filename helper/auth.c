// SPDX-License-Identifier: GPL-2.0-only
#include "auth.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "secret.h"

#define NEVER		UINT64_MAX
#define NSEC		1000000000ULL
/* What a server calls longer than this, seconds, is renewed by then all the same. */
#define YEAR		(365 * 24 * 3600ULL)
/* Renewed so long before their end, or a quarter of their life. */
#define EARLY		300
/* After a failure, and where what was renewed is refused: doubled each time */
#define BACKOFF		NSEC
#define BACKOFF_MAX	(10 * NSEC)
/* After a refusal, if what it was renewed to never worked: the next time */
#define PATIENCE	(60 * NSEC)
/* Servers accept a quarter of an hour; less may be a slow answer. */
#define SKEW		120
#define EMPTY	"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

/**
 * struct auth
 * @lock: held for moments only
 * @renewing: held while somebody renews without the thread
 * @work: for the thread
 * @conf, @cred: what is signed with, if there ever were credentials
 * @generation: counts renewals; 0: there never were credentials
 * @ends, @due: of @cred, monotonic time
 * @tried: when it was last renewed because of a refusal; 0: since then a server
 *	   has accepted it
 * @doubted: when it was last renewed as it may have ended; 0: never
 * @known: some server has accepted what came from here: it will again
 * @not_before: the next attempt
 * @backoff: the next wait after a failure
 * @skew: seconds to add to our clock
 * @fresh: @conf was just read
 * @suspect: a server says that @cred has ended; it is being renewed
 * @failed: the last attempt to renew failed, as @problem says
 * @wanted: for the thread: renew
 * @busy: it does
 */
struct auth {
	pthread_mutex_t lock;
	pthread_mutex_t renewing;
	pthread_cond_t work;
	pthread_t thread;
	const struct auth_kind *kind;
	char *origin;
	secret_warn *warn;
	const struct tls *tls;
	void *conf;
	struct credentials cred;
	u64 generation;
	u64 ends;
	u64 due;
	u64 tried;
	u64 doubted;
	u64 not_before;
	u64 backoff;
	time_t skew;
	bool fresh;
	bool suspect;
	bool known;
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

/* auth->lock is held. */
static void take(struct auth *auth, const struct credentials *cred)
{
	u64 life = cred->seconds < YEAR ? cred->seconds : YEAR;
	u64 early = life / 4 < EARLY ? life / 4 : EARLY;
	u64 at = now();

	credentials_free(&auth->cred);
	auth->cred = *cred;
	auth->ends = life ? at + life * NSEC : NEVER;
	auth->due = life ? at + (life - early) * NSEC : NEVER;
	auth->generation++;
	auth->suspect = false;
	auth->failed = false;
	if (!auth->tried)
		auth->backoff = BACKOFF;
	/* What ends in a moment is asked for again, but not all the time. */
	auth->not_before = at + BACKOFF;
}

/* Without the thread, the caller has an error to show. */
static void warn_failure(struct auth *auth)
{
	char text[sizeof(auth->problem.text) + 256];

	if (!auth->warn || !auth->background)
		return;
	snprintf(text, sizeof(text), "cannot get credentials for %s: %s",
		 auth->origin ? auth->origin : auth->kind->name,
		 auth->problem.text);
	auth->warn(text);
}

static void note_failure(struct auth *auth, const struct error *e)
{
	auth->failed = true;
	auth->suspect &= auth->background;
	auth->problem = *e;
	auth->not_before = now() + auth->backoff;
	auth->backoff = auth->backoff * 2 < BACKOFF_MAX ? auth->backoff * 2 :
						      BACKOFF_MAX;
	warn_failure(auth);
}

static int get(struct auth *auth, const void *conf, const struct web *web,
	       struct credentials *cred, struct error *e)
{
	int err;

	memset(cred, 0, sizeof(*cred));
	secret_hide();
	err = auth->kind->get(conf, web, cred, e);
	if (err)
		credentials_free(cred);
	return err;
}

/* No lock is held but auth->renewing, or this is the thread. */
static int renew(struct auth *auth)
{
	struct web web = { .tls = auth->tls, .stop = &auth->stop };
	struct credentials cred;
	struct error e = { "" };
	void *conf = NULL;
	bool fresh;
	int err;

	pthread_mutex_lock(&auth->lock);
	fresh = auth->fresh;
	auth->fresh = false;
	/* Told once, not each time. */
	web.warn = auth->generation ? NULL : auth->warn;
	pthread_mutex_unlock(&auth->lock);

	err = fresh ? 0 : auth->kind->load(auth->origin, &conf, NULL, &e);
	if (!err)
		err = get(auth, conf ? conf : auth->conf, &web, &cred, &e);

	pthread_mutex_lock(&auth->lock);
	if (err) {
		auth->kind->unload(conf);
		note_failure(auth, &e);
	} else {
		if (conf) {
			auth->kind->unload(auth->conf);
			auth->conf = conf;
		}
		take(auth, &cred);
	}
	pthread_mutex_unlock(&auth->lock);
	return err;
}

static void wait_until(struct auth *auth, u64 when)
{
	struct timespec ts = { when / NSEC, when % NSEC };

	if (when == NEVER)
		pthread_cond_wait(&auth->work, &auth->lock);
	else
		pthread_cond_timedwait(&auth->work, &auth->lock, &ts);
}

/* When the thread has something to do; auth->lock is held. */
static u64 next(const struct auth *auth)
{
	if (auth->wanted && !auth->failed)
		return 0;
	if (auth->wanted || auth->due < auth->not_before)
		return auth->not_before;
	return auth->due;
}

static void *thread(void *arg)
{
	struct auth *auth = arg;
	u64 one = 1;

	pthread_mutex_lock(&auth->lock);
	while (!atomic_load(&auth->stop)) {
		if (next(auth) > now()) {
			wait_until(auth, next(auth));
			continue;
		}
		auth->wanted = false;
		auth->busy = true;
		pthread_mutex_unlock(&auth->lock);
		renew(auth);
		pthread_mutex_lock(&auth->lock);
		auth->busy = false;
		/* Cannot fail: the counter is far from its end. */
		if (write(auth->wake, &one, sizeof(one)) < 0)
			one = 1;
	}
	pthread_mutex_unlock(&auth->lock);
	return NULL;
}

/* auth->lock is held. What is under way is as good as what would follow. */
static void want(struct auth *auth)
{
	auth->wanted |= !auth->busy;
	pthread_cond_signal(&auth->work);
}

/* Unless somebody else has renewed what was there. */
static void renew_now(struct auth *auth, u64 generation)
{
	bool same;

	pthread_mutex_lock(&auth->renewing);
	pthread_mutex_lock(&auth->lock);
	same = auth->generation == generation;
	pthread_mutex_unlock(&auth->lock);
	if (same)
		renew(auth);
	pthread_mutex_unlock(&auth->renewing);
}

/* Life */

struct auth *auth_open(const struct auth_kind *kind, const char *origin,
		       secret_warn *warn, const struct tls *tls)
{
	struct auth *auth = calloc(1, sizeof(*auth));
	struct web web = { .tls = tls, .warn = warn };
	struct credentials cred;
	pthread_condattr_t attr;
	int err;

	if (auth && origin)
		auth->origin = strdup(origin);
	if (!auth || (origin && !auth->origin)) {
		free(auth);
		return NULL;
	}
	auth->kind = kind;
	auth->warn = warn;
	auth->tls = tls;
	auth->backoff = BACKOFF;
	auth->ends = NEVER;
	auth->due = NEVER;
	auth->wake = -1;
	err = kind->load(origin, &auth->conf, warn, &auth->problem);
	/* What is at hand is taken; all else is asked for when it is needed. */
	if (!err && kind->source(auth->conf) == AUTH_AT_HAND) {
		err = get(auth, auth->conf, &web, &cred, &auth->problem);
		if (!err)
			take(auth, &cred);
		auth->not_before = 0;
	} else {
		auth->fresh = !err;
	}
	auth->failed = err;
	pthread_mutex_init(&auth->lock, NULL);
	pthread_mutex_init(&auth->renewing, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&auth->work, &attr);
	pthread_condattr_destroy(&attr);
	return auth;
}

int auth_background(struct auth *auth, int wake)
{
	int err;

	auth->wake = wake;
	auth->background = true;
	/*
	 * Who named a service will want it. One that may be there is asked only
	 * when there is a request to sign.
	 */
	if (auth->failed)
		warn_failure(auth);
	else if (!auth->generation &&
		 auth->kind->source(auth->conf) == AUTH_NAMED)
		auth->wanted = true;
	err = pthread_create(&auth->thread, NULL, thread, auth);
	if (err)
		auth->background = false;
	return -err;
}

void auth_reload(struct auth *auth)
{
	pthread_mutex_lock(&auth->lock);
	auth->not_before = 0;
	auth->fresh = false;
	auth->wanted = true;
	pthread_cond_signal(&auth->work);
	pthread_mutex_unlock(&auth->lock);
}

void auth_close(struct auth *auth)
{
	if (!auth)
		return;
	if (auth->background) {
		pthread_mutex_lock(&auth->lock);
		atomic_store(&auth->stop, true);
		pthread_cond_signal(&auth->work);
		pthread_mutex_unlock(&auth->lock);
		pthread_join(auth->thread, NULL);
	}
	credentials_free(&auth->cred);
	auth->kind->unload(auth->conf);
	free(auth->origin);
	pthread_cond_destroy(&auth->work);
	pthread_mutex_destroy(&auth->renewing);
	pthread_mutex_destroy(&auth->lock);
	free(auth);
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

/* What was given, and what the credentials say without a signature */
static int add_lines(struct auth *auth, const struct auth_call *call,
		     struct auth_signed *sig)
{
	const char *p = auth->cred.lines ? auth->cred.lines : "";
	struct curl_slist *more;
	size_t i, len;
	char *line;

	for (i = 0; i < call->headers; i++)
		if (!append(&sig->header, call->header[i].name,
			    call->header[i].value))
			return -ENOMEM;
	for (; *p; p += len + (p[len] == '\n')) {
		len = strcspn(p, "\n");
		line = strndup(p, len);
		more = line ? curl_slist_append(sig->header, line) : NULL;
		secret_free(line);
		if (!more)
			return -ENOMEM;
		sig->header = more;
	}
	return 0;
}

static int sign(struct auth *auth, const struct auth_call *call,
		const struct auth_place *place, struct auth_signed *sig)
{
	const struct sigv4_words *words = auth->kind->words;
	struct sigv4_header header[AUTH_HEADERS + 4] = { };
	char date[SIGV4_DATE], *value;
	struct sigv4_request req = {
		.method = call->method,
		.path = place->target.path,
		.query = call->query ? call->query : "",
		.header = header,
		.payload = call->payload ? call->payload : EMPTY,
	};
	struct sigv4_key key = {
		.access_key = auth->cred.access_key,
		.secret = auth->cred.secret,
		.region = place->region,
		.service = words->service,
		.date = date,
		.words = words,
	};
	size_t i, n = 0;

	for (i = 0; i < call->headers; i++)
		header[n++] = call->header[i];
	sigv4_date(sig->when, date);
	header[n++] = (struct sigv4_header){ words->date, date };
	header[n++] = (struct sigv4_header){ words->payload, req.payload };
	if (auth->cred.token)
		header[n++] = (struct sigv4_header){ words->token,
						     auth->cred.token };
	for (i = 0; i < n; i++)
		if (!append(&sig->header, header[i].name, header[i].value))
			return -ENOMEM;
	/* libcurl makes this line itself. */
	header[n++] = (struct sigv4_header){ "host", place->target.host };
	req.headers = n;
	if (sigv4_sign(&req, &key, &value))
		return -ENOMEM;
	i = append(&sig->header, "Authorization", value);
	free(value);
	return i ? 0 : -ENOMEM;
}

/* May a server that this one names be asked with them? See auth_signed. */
static bool may_follow(const char *lines)
{
	size_t len;

	for (; *lines; lines += len + (lines[len] == '\n')) {
		len = strcspn(lines, "\n");
		if (strncasecmp(lines, "Authorization:", 14) &&
		    strncasecmp(lines, "Cookie:", 7))
			return false;
	}
	return true;
}

static bool copy(char **to, const char *from)
{
	*to = from ? strdup(from) : NULL;
	return !from || *to;
}

/* auth->lock is held, and there are credentials. */
static int make(struct auth *auth, const struct auth_call *call,
		const struct auth_place *place, struct auth_signed *sig)
{
	const struct credentials *cred = &auth->cred;
	bool query = call->query && *call->query;
	int err;

	if (call->headers > AUTH_HEADERS)
		return -EINVAL;
	sig->when = time(NULL) + auth->skew;
	sig->generation = auth->generation;
	err = cred->access_key ? sign(auth, call, place, sig) :
				 add_lines(auth, call, sig);
	if (err)
		return err;
	/* A certificate is shown to whoever a redirect leads to, too. */
	sig->follow = !auth->kind->words && !cred->cert &&
		      (!cred->lines || may_follow(cred->lines));
	if (!copy(&sig->cert, cred->cert) || !copy(&sig->key, cred->key))
		return -ENOMEM;
	if (asprintf(&sig->url, "%s%s%s", place->target.url, query ? "?" : "",
		     query ? call->query : "") < 0) {
		sig->url = NULL;
		return -ENOMEM;
	}
	return 0;
}

/*
 * What can be signed with, or -EAGAIN. auth->lock is held. What has ended is used
 * where there is no better: its server knows for sure.
 */
static int usable(struct auth *auth, struct error *e)
{
	if (auth->generation && !auth->suspect &&
	    (auth->failed || now() < auth->ends))
		return 0;
	want(auth);
	if (auth->failed)
		*e = auth->problem;
	else
		e->text[0] = 0;
	return -EAGAIN;
}

static int ready(struct auth *auth, struct error *e)
{
	u64 generation = auth->generation;

	if (auth->background)
		return usable(auth, e);
	if (auth->generation &&
	    (now() < auth->due || now() < auth->not_before))
		return 0;
	pthread_mutex_unlock(&auth->lock);
	renew_now(auth, generation);
	pthread_mutex_lock(&auth->lock);
	if (auth->generation)
		return 0;
	*e = auth->problem;
	return -EACCES;
}

int auth_sign(struct auth *auth, const struct auth_call *call,
	      struct auth_signed *sig, struct error *e)
{
	const struct auth_kind *kind = auth->kind;
	struct auth_place place = { };
	struct bucket_url url = { };
	int err = 0;

	memset(sig, 0, sizeof(*sig));
	if (kind->place)
		err = bucket_parse(call->url, &url, e);
	else if (!copy(&place.target.url, call->url))
		err = no_memory(e);
	if (err)
		goto out;
	pthread_mutex_lock(&auth->lock);
	err = ready(auth, e);
	if (!err && kind->place)
		err = kind->place(auth->conf, &url, &place, e);
	if (!err) {
		err = make(auth, call, &place, sig);
		if (err)
			error_set(e, err, "%s: cannot sign: %s", call->url,
				  strerror(-err));
	}
	pthread_mutex_unlock(&auth->lock);
out:
	bucket_target_free(&place.target);
	bucket_free(&url);
	return err;
}

void auth_signed_free(struct auth_signed *sig)
{
	struct curl_slist *line;

	for (line = sig->header; line; line = line->next)
		explicit_bzero(line->data, strlen(line->data));
	curl_slist_free_all(sig->header);
	secret_free(sig->key);
	free(sig->cert);
	free(sig->url);
	memset(sig, 0, sizeof(*sig));
}

/* libcurl's copy lives as long as its connection may. */
static CURLcode apply_pem(CURL *curl, CURLoption option, char *text)
{
	struct curl_blob blob = {
		.data = text,
		.len = text ? strlen(text) : 0,
		.flags = CURL_BLOB_COPY,
	};

	return curl_easy_setopt(curl, option, text ? &blob : NULL);
}

CURLcode auth_apply(CURL *curl, const struct auth_signed *sig)
{
	CURLcode rc = curl_easy_setopt(curl, CURLOPT_URL, sig->url);

	/* A signature covers the path as it is. */
	if (!rc)
		rc = curl_easy_setopt(curl, CURLOPT_PATH_AS_IS,
				      (long)!sig->follow);
	if (!rc)
		rc = curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION,
				      (long)sig->follow);
	if (!rc)
		rc = apply_pem(curl, CURLOPT_SSLCERT_BLOB, sig->cert);
	if (!rc)
		rc = apply_pem(curl, CURLOPT_SSLKEY_BLOB, sig->key);
	return rc;
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
	return status == 401;
}

/*
 * Ceph says AccessDenied for a session that has ended, and a file does not say
 * when that is. Is it worth a look whether there is another by now? auth->lock is
 * held.
 */
static bool may_have_ended(const struct auth *auth,
			   const struct auth_signed *sig, long status)
{
	if (status != 403 || !auth->cred.token || auth->ends != NEVER)
		return false;
	if (auth->suspect || auth->generation != sig->generation)
		return true;
	return !auth->doubted || now() - auth->doubted >= BACKOFF_MAX;
}

/*
 * What credentials were renewed to after a refusal is refused, too; auth->lock is
 * held. Those that never worked are wrong. Those that did are being changed, and
 * the new ones are not there yet: the thread looks for them until they are.
 *
 * Return: is it worth signing once more?
 */
static bool refused_again(struct auth *auth)
{
	struct error e;

	if (!auth->background || !auth->known)
		return now() - auth->tried >= PATIENCE;
	error_set(&e, -EACCES,
		  "the server says that they have ended, and there are no others yet");
	note_failure(auth, &e);
	return true;
}

/* auth->lock is held. */
static bool correct_clock(struct auth *auth, const struct auth_signed *sig,
			  time_t there)
{
	time_t off = there ? there - sig->when : 0;

	if (off >= -SKEW && off <= SKEW)
		return false;
	/* Not added to what another answer may have changed meanwhile. */
	auth->skew = there - time(NULL);
	return true;
}

bool auth_refused(struct auth *auth, const struct auth_signed *sig,
		  long status, const char *code, time_t date)
{
	bool again = true, sure;

	pthread_mutex_lock(&auth->lock);
	if (auth->kind->words && correct_clock(auth, sig, date))
		goto out;
	sure = means_expiry(status, code) || now() >= auth->ends;
	again = sure || may_have_ended(auth, sig, status);
	if (!again || auth->generation != sig->generation)
		goto out;
	if (!auth->suspect && sure && auth->tried && !refused_again(auth)) {
		again = false;
		goto out;
	}
	if (!auth->suspect)
		*(sure ? &auth->tried : &auth->doubted) = now();
	auth->suspect = true;
	if (auth->background) {
		want(auth);
		goto out;
	}
	pthread_mutex_unlock(&auth->lock);
	renew_now(auth, sig->generation);
	pthread_mutex_lock(&auth->lock);
	again = auth->generation != sig->generation;
out:
	pthread_mutex_unlock(&auth->lock);
	return again;
}

void auth_accepted(struct auth *auth, const struct auth_signed *sig)
{
	pthread_mutex_lock(&auth->lock);
	if (auth->generation == sig->generation) {
		if (auth->tried)
			auth->backoff = BACKOFF;
		auth->tried = 0;
		auth->known = true;
	}
	pthread_mutex_unlock(&auth->lock);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * One pool of easy handles, made at the start; libcurl's sockets are watched by
 * the daemon's loop. Bytes go from libcurl's receive buffer to fetch_bytes(), in
 * its write callback. Before the first one, check() has seen the whole head of
 * the final answer.
 */
#include <curl/curl.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <unistd.h>

#include "head.h"
#include "http.h"
#include "keyring.h"
#include "log.h"

#define BUFFER_BYTES	(256 << 10)
/* The body of an error is read up to here, so that the connection lives on. */
#define SWALLOW_MAX	65536
#define MAX_REDIRECTS	5L
/* Of the body of an answer that refuses, enough to find its code in. */
#define REFUSAL_BYTES	2048

struct transfer {
	TAILQ_ENTRY(transfer) link;	/* in http->idle or http->parked */
	struct http *http;
	CURL *easy;
	struct range *range;
	struct curl_slist header[2];
	char if_match[16 + LAZYFRAME_VALIDATOR_MAX];
	char error[CURL_ERROR_SIZE];
	char why[CURL_ERROR_SIZE + 64];
	struct auth *auth;		/* NULL: nobody asks who we are */
	struct auth_signed sig;		/* with @auth */
	char refusal[REFUSAL_BYTES];
	size_t refusal_bytes;		/* that came; there may be more */
	int err;			/* what check() or fetch_bytes() said */
	bool checked;
	bool parked;			/* waits for credentials */
};

TAILQ_HEAD(transfer_list, transfer);

struct http {
	struct transport transport;
	struct loop *loop;
	CURLM *multi;
	int timer;
	struct tls tls;
	struct keyring *keyring;
	int renewed;			/* eventfd: there may be credentials */
	struct transfer_list idle;
	struct transfer_list parked;
	struct transfer *pool;
	unsigned int transfers;
};

/* The answer's head */

static int check_status(struct transfer *t, long status)
{
	snprintf(t->why, sizeof(t->why), "HTTP status %ld", status);
	switch (status) {
	case 200:
	case 206:
		return 0;
	case 404:
	case 410:
		return -ENOENT;
	case 401:
	case 403:
		return -EACCES;
	case 412:
	case 416:
		/* The tag or the size is not the one that we know. */
		return -ESTALE;
	case 408:
	case 429:
		return -EHOSTDOWN;
	default:
		return status >= 500 ? -EHOSTDOWN : -EAGAIN;
	}
}

/* Is this answer the range that was asked for? 0 or a negative errno, t->why. */
static int check(struct transfer *t)
{
	struct range *range = t->range;
	u64 size = 0, len = range->last + 1 - range->first;
	struct head_range got;
	const char *value;
	curl_off_t length = -1;
	long status = 0;
	int err;

	t->checked = true;
	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(t->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
	err = check_status(t, status);
	if (err)
		return err;
	if (t->auth)
		auth_accepted(t->auth, &t->sig);
	value = head_get(t->easy, "Content-Encoding");
	if (value && strcasecmp(value, "identity") != 0) {
		snprintf(t->why, sizeof(t->why), "Content-Encoding is %.64s",
			 value);
		return -EAGAIN;
	}
	if (status == 200) {
		if (length < 0 || range->first || (u64)length != len ||
		    (range->size && range->size != len)) {
			snprintf(t->why, sizeof(t->why),
				 "HTTP status 200: the server ignores ranges");
			return -EAGAIN;
		}
		size = len;
	} else {
		bool told = head_range(t->easy, &got);

		if (!told || got.empty || got.first != range->first ||
		    got.last != range->last) {
			value = head_get(t->easy, "Content-Range");
			snprintf(t->why, sizeof(t->why),
				 "Content-Range is %.64s, %" PRIu64 "-%" PRIu64 " was asked for",
				 value ? value : "missing", range->first,
				 range->last);
			/* Cut short by the end of a smaller object? */
			if (told && got.size <= range->last)
				return -ESTALE;
			return -EAGAIN;
		}
		size = got.size == HEAD_UNKNOWN ? 0 : got.size;
		if (range->size && !size) {
			snprintf(t->why, sizeof(t->why),
				 "Content-Range does not tell the object's size");
			return -EAGAIN;
		}
		if (length >= 0 && (u64)length != len) {
			snprintf(t->why, sizeof(t->why),
				 "Content-Length is %lld for %llu bytes",
				 (long long)length, (unsigned long long)len);
			return -EAGAIN;
		}
	}
	value = head_get(t->easy, "ETag");
	if (!value || !head_strong(value, LAZYFRAME_VALIDATOR_MAX))
		value = "";
	return fetch_identity(range, value, size, t->why, sizeof(t->why));
}

static void keep_refusal(struct transfer *t, const char *bytes, size_t len)
{
	size_t room = sizeof(t->refusal) - 1, have = t->refusal_bytes;

	if (t->auth && have < room) {
		memcpy(t->refusal + have, bytes,
		       len < room - have ? len : room - have);
		t->refusal[len < room - have ? have + len : room] = 0;
	}
	t->refusal_bytes += len;
}

/*
 * An answer that is not the object, where it matters who asks: what does it
 * mean? After it has ended, for its body tells.
 */
static int check_refusal(struct transfer *t, long status, int err)
{
	bool bucket = bucket_is(t->range->url);
	char why[128], *code = NULL;
	size_t used;

	/* A redirect of other servers' that is not followed stays one. */
	if (status > 403 ||
	    (status < 400 && status != 301 && (bucket || status < 300)))
		return err;
	if (bucket) {
		bucket_answer(t->refusal, &code, why, sizeof(why));
		used = strlen(t->why);
		snprintf(t->why + used, sizeof(t->why) - used, ", %s", why);
	}
	err = -EACCES;
	if ((code && !strcmp(code, "RequestTimeout")) ||
	    auth_refused(t->auth, &t->sig, status, code, head_date(t->easy)))
		err = -EAGAIN;
	free(code);
	return err;
}

static size_t on_bytes(char *bytes, size_t one, size_t len, void *arg)
{
	struct transfer *t = arg;
	curl_off_t length;

	(void)one;
	if (!t->checked)
		t->err = check(t);
	if (!t->err) {
		t->err = fetch_bytes(t->range, bytes, len);
		if (t->err == -EPROTO) {
			t->err = -EAGAIN;
			snprintf(t->why, sizeof(t->why),
				 "more bytes came than were asked for");
		}
		return t->err ? 0 : len;
	}
	keep_refusal(t, bytes, len);
	if (!curl_easy_getinfo(t->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T,
			       &length) &&
	    length >= 0 && length <= SWALLOW_MAX)
		return len;
	/* S3 does not tell how long its errors are. */
	return t->auth && length < 0 && t->refusal_bytes <= SWALLOW_MAX ?
		len : 0;
}

/* The life of a transfer */

static void release(struct http *h, struct transfer *t)
{
	if (t->parked)
		TAILQ_REMOVE(&h->parked, t, link);
	else
		curl_multi_remove_handle(h->multi, t->easy);
	t->parked = false;
	auth_signed_free(&t->sig);
	t->range = NULL;
	TAILQ_INSERT_HEAD(&h->idle, t, link);
}

/*
 * With everything that is not the same for all ranges. @lines are ours; libcurl
 * needs them as long as it runs.
 */
static int launch(struct http *h, struct transfer *t,
		  const struct auth_signed *sig, struct curl_slist *lines)
{
	bool tls = !strncasecmp(sig->url, "https:", 6);
	struct range *range = t->range;
	CURL *easy = t->easy;
	char bytes[64];

	snprintf(bytes, sizeof(bytes), "%" PRIu64 "-%" PRIu64, range->first,
		 range->last);
	t->err = 0;
	t->checked = false;
	t->error[0] = 0;
	t->refusal[0] = 0;
	t->refusal_bytes = 0;
	/*
	 * Waiting for a connection that may take many streams is right only
	 * where HTTP/2 is possible; else it would make transfers queue up
	 * behind the first one's answer.
	 */
	if (auth_apply(easy, sig) ||
	    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, lines) ||
	    curl_easy_setopt(easy, CURLOPT_RANGE, bytes) ||
	    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
			     (long)(range->wait_ns / NSEC_PER_MSEC) + 1) ||
	    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION,
			     tls ? CURL_HTTP_VERSION_2TLS :
				   CURL_HTTP_VERSION_1_1) ||
	    curl_easy_setopt(easy, CURLOPT_PIPEWAIT,
			     (long)(tls && !range->hedge)))
		return -ENOMEM;
	return curl_multi_add_handle(h->multi, easy) ? -ENOMEM : 0;
}

/* Each attempt is signed anew. -EAGAIN: no credentials now. */
static int launch_signed(struct http *h, struct transfer *t, struct error *e)
{
	const struct auth_call call = { .method = "GET", .url = t->range->url };
	struct curl_slist *own, *more;
	int err;

	err = auth_sign(t->auth, &call, &t->sig, e);
	for (own = t->header; own && !err; own = own->next) {
		more = curl_slist_append(t->sig.header, own->data);
		if (!more)
			err = -ENOMEM;
		else
			t->sig.header = more;
	}
	if (!err)
		err = launch(h, t, &t->sig, t->sig.header);
	if (err)
		auth_signed_free(&t->sig);
	return err == -EINVAL ? -EPROTO : err;
}

static int http_start(struct transport *transport, struct range *range)
{
	struct http *h = (struct http *)transport;
	struct transfer *t = TAILQ_FIRST(&h->idle);
	const struct auth_signed plain = {
		.url = (char *)range->url,
		.follow = true,
	};
	struct error e;
	int err;

	t->header[0].next = NULL;
	if (head_strong(range->validator, LAZYFRAME_VALIDATOR_MAX)) {
		snprintf(t->if_match, sizeof(t->if_match), "If-Match: %s",
			 range->validator);
		t->header[0].next = &t->header[1];
	}
	t->range = range;
	err = keyring_find(h->keyring, range->url, &t->auth);
	if (err)
		return err;
	if (t->auth) {
		err = launch_signed(h, t, &e);
		t->parked = err == -EAGAIN;
	} else {
		err = launch(h, t, &plain, t->header);
	}
	if (err && !t->parked)
		return err;
	TAILQ_REMOVE(&h->idle, t, link);
	if (t->parked) {
		range->unsent = "it waits for credentials";
		TAILQ_INSERT_TAIL(&h->parked, t, link);
	}
	range->transfer = t;
	return 0;
}

/*
 * What waited for credentials goes on, or fails and is tried again later. The
 * end of one range may abort another, so nothing is kept over fetch_done().
 */
static void on_renewed(void *arg, int fd, u32 events)
{
	struct http *h = arg;
	unsigned int i = h->transfers;
	struct transfer *t;
	u64 n;

	(void)events;
	if (read(fd, &n, sizeof(n)) != sizeof(n))
		return;
	for (; i && (t = TAILQ_FIRST(&h->parked)); i--) {
		struct range *range = t->range;
		struct error e = { "" };
		int err = launch_signed(h, t, &e);

		TAILQ_REMOVE(&h->parked, t, link);
		t->parked = err == -EAGAIN && !*e.text;
		if (t->parked)
			TAILQ_INSERT_TAIL(&h->parked, t, link);
		if (!err)
			range->unsent = NULL;
		if (!err || t->parked)
			continue;
		TAILQ_INSERT_HEAD(&h->idle, t, link);
		fetch_done(range, err == -EPROTO ? err : -EAGAIN,
			   *e.text ? e.text : strerror(-err), 0);
	}
}

/*
 * A transfer that ends without a byte: was it the right object at least? Then
 * fetch.c knows that the trouble is with these bytes, not with the server.
 */
static int check_late(struct transfer *t)
{
	long status = 0;
	int err = 0;

	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	if (!t->checked && status == 206)
		err = check(t);
	/* A head that was cut off lacks lines; that is not the cause. */
	return err == -EAGAIN ? 0 : err;
}

static void http_abort(struct transport *transport, struct range *range)
{
	struct transfer *t = range->transfer;

	if (!t->parked)
		check_late(t);
	release((struct http *)transport, t);
}

/*
 * Retry-After: seconds, or a date by the server's own clock, which is known from
 * the same answer. 0 where that is over.
 */
static u64 retry_after(CURL *easy)
{
	const char *after = head_get(easy, "Retry-After"), *p = after;
	time_t then, now = head_date(easy);
	u64 seconds;

	if (!after)
		return 0;
	if (!head_u64(&p, &seconds) || *p) {
		then = curl_getdate(after, NULL);
		if (!now)
			now = time(NULL);
		seconds = then > now ? then - now : 0;
	}
	return seconds > NEVER / NSEC_PER_SEC ? NEVER : seconds * NSEC_PER_SEC;
}

static void finish(struct http *h, struct transfer *t, CURLcode code)
{
	struct range *range = t->range;
	u64 after = 0;
	long status = 0;
	int err = t->err;

	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	if (!err && !t->checked)
		err = code ? check_late(t) : check(t);
	if (!err && code) {
		/* Not a line of an answer? Our own URL, or the server. */
		err = status ? -EAGAIN : -EHOSTDOWN;
		if (code == CURLE_URL_MALFORMAT && !status)
			err = -EPROTO;
		snprintf(t->why, sizeof(t->why), "%s",
			 *t->error ? t->error : curl_easy_strerror(code));
	}
	if (t->auth && err)
		err = check_refusal(t, status, err);
	if (err == -EAGAIN || err == -EHOSTDOWN)
		after = retry_after(t->easy);
	release(h, t);
	fetch_done(range, err, t->why, after);
}

static void reap(struct http *h)
{
	struct CURLMsg *msg;
	int left;

	while ((msg = curl_multi_info_read(h->multi, &left))) {
		struct transfer *t;
		CURLcode code = msg->data.result;

		if (msg->msg != CURLMSG_DONE)
			continue;
		/* The message dies with curl_multi_remove_handle(). */
		if (!curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &t))
			finish(h, t, code);
	}
}

/* libcurl and the loop */

static void on_socket(void *arg, int fd, u32 events)
{
	struct http *h = arg;
	int mask = 0, running;

	if (events & EPOLLIN)
		mask |= CURL_CSELECT_IN;
	if (events & EPOLLOUT)
		mask |= CURL_CSELECT_OUT;
	if (events & (EPOLLERR | EPOLLHUP))
		mask |= CURL_CSELECT_ERR;
	curl_multi_socket_action(h->multi, fd, mask, &running);
	reap(h);
}

static void on_timer(void *arg, int fd, u32 events)
{
	struct http *h = arg;
	int running;

	(void)fd;
	(void)events;
	curl_multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	reap(h);
}

static int watch(CURL *easy, curl_socket_t fd, int what, void *arg, void *data)
{
	struct http *h = arg;
	u32 events = 0;

	(void)easy;
	(void)data;
	if (what == CURL_POLL_REMOVE) {
		loop_unwatch(h->loop, fd);
		return 0;
	}
	if (what & CURL_POLL_IN)
		events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		events |= EPOLLOUT;
	return loop_watch(h->loop, fd, events, on_socket, h) ? -1 : 0;
}

static int set_timer(CURLM *multi, long ms, void *arg)
{
	struct http *h = arg;

	(void)multi;
	timer_set(h->timer, ms < 0 ? NEVER : now_ns() + ms * NSEC_PER_MSEC);
	return 0;
}

/*
 * What of libcurl's words may be logged: how connections come and go. Others have
 * headers, URLs with signatures, or a proxy's password in them.
 */
static bool may_be_told(const char *text, size_t len)
{
	static const char *const words[] = {
		"Trying ", "Connected to ", "Connection ", "Re-using ",
		"Closing ", "Could not resolve ", "Failed to ", "SSL ", "TLS",
		"ALPN", "Operation timed out", "Server certificate",
	};
	size_t i;

	for (; len && *text == ' '; len--)
		text++;
	for (i = 0; i < ARRAY_SIZE(words); i++)
		if (len > strlen(words[i]) &&
		    !memcmp(text, words[i], strlen(words[i])))
			return true;
	return false;
}

static int trace(CURL *easy, curl_infotype type, char *text, size_t len,
		 void *arg)
{
	(void)easy;
	(void)arg;
	if (type == CURLINFO_TEXT && may_be_told(text, len))
		log_debug("libcurl: %.*s",
			  (int)(len && text[len - 1] == '\n' ? len - 1 : len),
			  text);
	return 0;
}

/* Construction */

static int make_transfer(struct http *h, struct transfer *t, bool verbose)
{
	CURL *easy = curl_easy_init();

	t->easy = easy;
	if (!easy)
		return -1;
	t->header[0].data = (char *)"Accept-Encoding: identity";
	t->header[1].data = t->if_match;
#define set(option, value) curl_easy_setopt(easy, CURLOPT_##option, value)
	if (set(PRIVATE, t) || set(ERRORBUFFER, t->error) ||
	    set(WRITEFUNCTION, on_bytes) || set(WRITEDATA, t) ||
	    set(USERAGENT, "lazyframed") ||
	    set(PROTOCOLS_STR, "http,https") ||
	    set(REDIR_PROTOCOLS_STR, "http,https") ||
	    set(MAXREDIRS, MAX_REDIRECTS) ||
	    set(BUFFERSIZE, (long)BUFFER_BYTES) || set(NOSIGNAL, 1L) ||
	    set(NOPROGRESS, 1L) || set(TCP_KEEPALIVE, 1L) ||
	    set(HTTP_CONTENT_DECODING, 0L) || set(SUPPRESS_CONNECT_HEADERS, 1L))
		return -1;
	if (tls_apply(easy, &h->tls))
		return -1;
	if (verbose && (set(DEBUGFUNCTION, trace) || set(VERBOSE, 1L)))
		return -1;
#undef set
	return 0;
}

static void on_warning(const char *text)
{
	log_warn("%s", text);
}

int http_credentials(struct transport *t)
{
	struct http *h = (struct http *)t;

	return keyring_background(h->keyring, h->renewed);
}

void http_reload(struct transport *t)
{
	keyring_reload(((struct http *)t)->keyring);
}

struct transport *http_new(struct loop *loop, const struct http_options *opt)
{
	static const char *const schemes[] = { "https", "http", "s3", "gs",
					     NULL };
	unsigned int i, n = fetch_transfers(opt->connections);
	struct http *h = calloc(1, sizeof(*h));
	struct error e = { "" };

	if (!h || curl_global_init(CURL_GLOBAL_DEFAULT)) {
		log_err("cannot start libcurl");
		free(h);
		return NULL;
	}
	h->transport.schemes = schemes;
	h->transport.hedge = true;
	h->transport.start = http_start;
	h->transport.abort = http_abort;
	h->loop = loop;
	h->timer = loop_timer(loop, on_timer, h);
	h->multi = curl_multi_init();
	h->pool = calloc(n, sizeof(*h->pool));
	h->renewed = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	TAILQ_INIT(&h->idle);
	TAILQ_INIT(&h->parked);
	if ((opt->cafile && tls_load(&h->tls, opt->cafile, &e)) ||
	    keyring_open(&h->keyring, on_warning, &h->tls, &e)) {
		log_err("%s", e.text);
		goto fail;
	}
	if (h->timer < 0 || !h->multi || !h->pool || h->renewed < 0 ||
	    loop_watch(loop, h->renewed, EPOLLIN, on_renewed, h) ||
	    keyring_all(h->keyring))
		goto nomem;
#define set(option, value) curl_multi_setopt(h->multi, CURLMOPT_##option, value)
	if (set(SOCKETFUNCTION, watch) || set(SOCKETDATA, h) ||
	    set(TIMERFUNCTION, set_timer) || set(TIMERDATA, h) ||
	    set(PIPELINING, CURLPIPE_MULTIPLEX) || set(MAXCONNECTS, (long)n) ||
	    set(MAX_TOTAL_CONNECTIONS, (long)n) ||
	    set(MAX_CONCURRENT_STREAMS, (long)opt->connections))
		goto nomem;
#undef set
	for (i = 0; i < n; i++) {
		h->transfers++;
		h->pool[i].http = h;
		if (make_transfer(h, &h->pool[i], opt->verbose))
			goto nomem;
		TAILQ_INSERT_TAIL(&h->idle, &h->pool[i], link);
	}
	return &h->transport;
nomem:
	log_err("libcurl refuses its options or there is no memory");
fail:
	http_free(&h->transport);
	return NULL;
}

void http_free(struct transport *t)
{
	struct http *h = (struct http *)t;
	unsigned int i;

	keyring_close(h->keyring);
	for (i = 0; h->pool && i < h->transfers; i++)
		curl_easy_cleanup(h->pool[i].easy);
	if (h->multi)
		curl_multi_cleanup(h->multi);
	if (h->timer >= 0) {
		loop_unwatch(h->loop, h->timer);
		close(h->timer);
	}
	if (h->renewed >= 0) {
		loop_unwatch(h->loop, h->renewed);
		close(h->renewed);
	}
	tls_free(&h->tls);
	free(h->pool);
	free(h);
	curl_global_cleanup();
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Objects behind http://, https:// and s3://, read-only, one request at a time.
 * The daemon's reader is another one: it has deadlines and many ranges in flight.
 */
#include "object_s3.h"
#include "web.h"

#include <ctype.h>
#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ATTEMPTS	4
#define IDLE		16	/* connections kept for the next request */
/* Of the body of an answer that refuses, enough to find its code in. */
#define REFUSAL_BYTES	2048

/**
 * struct reply - what a server answered
 * @buf: where the body goes, @room bytes
 * @got: bytes of body so far
 * @overflow: the body is longer than @room
 * @status: of the last header block (redirects have blocks of their own)
 * @has_range: @first, @last and @total are what Content-Range says
 * @total: ~0 where the server does not tell
 * @refusal: what an answer that is not the object says
 * @date: its Date header
 */
struct reply {
	u8 *buf;
	size_t room;
	size_t got;
	bool overflow;
	long status;
	bool has_range;
	u64 first;
	u64 last;
	u64 total;
	bool has_ubytes;
	u64 ubytes;
	char validator[256];
	char refusal[REFUSAL_BYTES];
	size_t refused;
	char date[64];
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t idle_lock = PTHREAD_MUTEX_INITIALIZER;
static CURL *idle[IDLE];

static void init(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

void *handle_take(void)
{
	CURL *curl = NULL;
	int i;

	pthread_once(&once, init);
	pthread_mutex_lock(&idle_lock);
	for (i = 0; i < IDLE && !curl; i++) {
		curl = idle[i];
		idle[i] = NULL;
	}
	pthread_mutex_unlock(&idle_lock);
	if (!curl)
		return curl_easy_init();
	/* Options go, connections stay. */
	curl_easy_reset(curl);
	return curl;
}

void handle_give(CURL *curl)
{
	int i;

	pthread_mutex_lock(&idle_lock);
	for (i = 0; i < IDLE && curl; i++) {
		if (!idle[i]) {
			idle[i] = curl;
			curl = NULL;
		}
	}
	pthread_mutex_unlock(&idle_lock);
	curl_easy_cleanup(curl);
}

static bool decimal(const char **p, u64 *n)
{
	char *end;

	if (!isdigit((unsigned char)**p))
		return false;
	errno = 0;
	*n = strtoull(*p, &end, 10);
	*p = end;
	return !errno;
}

/* "bytes 0-99/1234", "bytes 0-99/<star>", "bytes <star>/1234" */
static void parse_range(struct reply *r, const char *p)
{
	if (strncasecmp(p, "bytes ", 6))
		return;
	p += 6;
	r->first = 0;
	r->last = ~0ULL;
	if (*p == '*') {
		p++;
	} else if (!decimal(&p, &r->first) || *p++ != '-' ||
		   !decimal(&p, &r->last)) {
		return;
	}
	if (*p++ != '/')
		return;
	if (*p == '*' && !p[1])
		r->total = ~0ULL;
	else if (!decimal(&p, &r->total) || *p)
		return;
	r->has_range = true;
}

/* Only a strong entity tag says that the bytes are the same. */
static void parse_etag(struct reply *r, const char *p)
{
	size_t i, len = strlen(p);

	if (len < 2 || len >= sizeof(r->validator) || p[0] != '"' ||
	    p[len - 1] != '"')
		return;
	for (i = 0; i < len; i++)
		if ((unsigned char)p[i] < 0x20 || p[i] == 0x7f)
			return;
	memcpy(r->validator, p, len + 1);
}

/* The value, if @line is this header; ends and spaces are cut in place. */
static const char *header_value(char *line, const char *name)
{
	size_t len = strlen(name);
	char *end;

	if (strncasecmp(line, name, len) || line[len] != ':')
		return NULL;
	line += len + 1;
	while (*line == ' ' || *line == '\t')
		line++;
	end = line + strlen(line);
	while (end > line && isspace((unsigned char)end[-1]))
		*--end = 0;
	return line;
}

static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
	struct reply *r = arg;
	char line[1024];
	const char *v;

	if (size * n >= sizeof(line))
		return size * n;
	memcpy(line, data, size * n);
	line[size * n] = 0;

	if (!strncmp(line, "HTTP/", 5)) {
		v = strchr(line, ' ');
		r->status = v ? strtol(v, NULL, 10) : 0;
		r->has_range = false;
		r->has_ubytes = false;
		r->validator[0] = 0;
		r->got = 0;
		r->refused = 0;
		r->date[0] = 0;
		return size * n;
	}
	v = header_value(line, "content-range");
	if (v)
		parse_range(r, v);
	v = header_value(line, "etag");
	if (v)
		parse_etag(r, v);
	v = header_value(line, "date");
	if (v)
		snprintf(r->date, sizeof(r->date), "%s", v);
	v = header_value(line, "x-amz-meta-uncompressed-size");
	if (!v)
		v = header_value(line, "x-goog-meta-uncompressed-size");
	if (v)
		r->has_ubytes = decimal(&v, &r->ubytes) && !*v;
	return size * n;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
	struct reply *r = arg;
	size_t len = size * n;

	/* The body of a redirect or an error is for people, if at all. */
	if (r->status != 200 && r->status != 206) {
		size_t room = sizeof(r->refusal) - 1 - r->refused;

		memcpy(r->refusal + r->refused, data, len < room ? len : room);
		r->refused += len < room ? len : room;
		r->refusal[r->refused] = 0;
		return len;
	}
	if (len > r->room - r->got) {
		r->overflow = true;
		return 0;
	}
	memcpy(r->buf + r->got, data, len);
	r->got += len;
	return len;
}

static void set_options(CURL *curl, const char *url, struct reply *r,
			char *detail)
{
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
	curl_easy_setopt(curl, CURLOPT_MAXREDIRS, 5L);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 10L);
	curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, 30L);
	curl_easy_setopt(curl, CURLOPT_USERAGENT, "lazyframe");
	curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(curl, CURLOPT_HEADERDATA, r);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, r);
}

/* What a status means, if it is not one that was hoped for. */
static int status_error(long status)
{
	switch (status) {
	case 401:
	case 403:
		return -EACCES;
	case 404:
	case 410:
		return -ENOENT;
	case 416:
		return -ERANGE;
	default:
		return -EPROTO;
	}
}

static bool worth_a_retry(long status)
{
	return status == 408 || status == 429 || status >= 500;
}

/* Each attempt has a signature of its own. */
static int sign(CURL *curl, const char *url, const char *method,
		struct s3_signed *sig, struct error *e)
{
	struct s3_call call = { .method = method, .url = url };
	int err = object_s3_sign(&call, sig, e);

	if (err) {
		error_prefix(e, "%s", url);
		return err;
	}
	curl_easy_setopt(curl, CURLOPT_URL, sig->url);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, sig->header);
	curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
	if (aws_ca_bundle())
		curl_easy_setopt(curl, CURLOPT_CAINFO, aws_ca_bundle());
	return 0;
}

/*
 * One request. @range: "first-last", or NULL for a HEAD.
 *
 * Return: 0: @r is a full answer with any status; 1: try again; the error's
 * text is set.
 */
static int attempt(const char *url, const char *range, struct reply *r,
		   u64 *length, struct error *e)
{
	char detail[CURL_ERROR_SIZE] = "";
	struct s3_signed sig = { };
	curl_off_t bytes = -1;
	CURL *curl = handle_take();
	bool again = false;
	CURLcode rc;
	int err;

	if (!curl)
		return error_set(e, -ENOMEM, "out of memory");
	set_options(curl, url, r, detail);
	err = s3_url_is(url) ? sign(curl, url, range ? "GET" : "HEAD", &sig, e) : 0;
	if (err) {
		s3_signed_free(&sig);
		handle_give(curl);
		return err;
	}
	if (range)
		curl_easy_setopt(curl, CURLOPT_RANGE, range);
	else
		curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
	rc = curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &bytes);
	*length = bytes < 0 ? ~0ULL : (u64)bytes;
	handle_give(curl);
	if (sig.url && !rc)
		again = object_s3_answer(&sig, r->status, r->refusal, r->date);
	s3_signed_free(&sig);

	if (rc == CURLE_URL_MALFORMAT || rc == CURLE_UNSUPPORTED_PROTOCOL)
		return error_set(e, -EINVAL, "%s: %s", url, *detail ? detail :
				 curl_easy_strerror(rc));
	if (r->overflow) {
		error_set(e, -EPROTO,
			  "%s: status %ld with more bytes than were asked for; the server must support ranges",
			  url, r->status);
		return 1;
	}
	if (rc) {
		error_set(e, -EIO, "%s: %s", url, *detail ? detail :
			  curl_easy_strerror(rc));
		return 1;
	}
	if (worth_a_retry(r->status) || again) {
		error_set(e, -EIO, "%s: the server says %ld", url, r->status);
		return 1;
	}
	return 0;
}

/* Is it the range that was asked for, or all of an object of that size? */
static bool range_is(const struct reply *r, u64 off, size_t len)
{
	if (r->got != len)
		return false;
	if (r->status == 200)
		return !off;
	return r->status == 206 && r->has_range && r->first == off &&
	       r->last == off + len - 1;
}

/*
 * @range as for attempt(); a body must be exactly @len bytes from @off.
 */
static int request(const char *url, const char *range, u64 off, void *buf,
		   size_t len, struct reply *r, u64 *length, struct error *e)
{
	unsigned int i;
	int err;

	for (i = 0; i < ATTEMPTS; i++) {
		web_pause(i);
		memset(r, 0, sizeof(*r));
		r->buf = buf;
		r->room = len;
		err = attempt(url, range, r, length, e);
		if (err < 0)
			return err;
		if (err)
			continue;
		if (!range || (r->status != 200 && r->status != 206) ||
		    range_is(r, off, len))
			return 0;
		error_set(e, -EPROTO,
			  "%s: asked for bytes %s, got status %ld and %zu other bytes",
			  url, range, r->status, r->got);
	}
	error_prefix(e, "after %d attempts", ATTEMPTS);
	return -EIO;
}

static int refused(const char *url, const struct reply *r, struct error *e)
{
	char *code, why[128] = "";

	if (s3_url_is(url) && r->refused) {
		strcpy(why, ": ");
		s3_answer(r->refusal, &code, why + 2, sizeof(why) - 2);
		free(code);
	}
	return error_set(e, status_error(r->status), "%s: %s%ld%s", url,
			 r->status == 404 ? "no such object, the server says " :
					    "the server says ", r->status, why);
}

static int http_get_range(const char *url, u64 off, void *buf, size_t len,
			  struct error *e)
{
	char range[48];
	struct reply r;
	u64 length;
	int err;

	if (!len)
		return 0;
	snprintf(range, sizeof(range), "%llu-%llu", (unsigned long long)off,
		 (unsigned long long)(off + len - 1));
	err = request(url, range, off, buf, len, &r, &length, e);
	if (err)
		return err;
	if (r.status == 200 || r.status == 206)
		return 0;
	return refused(url, &r, e);
}

/*
 * HEAD where the server allows it; a signed URL for GET does not. Then the
 * size stands behind the slash in a small range's Content-Range.
 */
static int http_stat(const char *url, struct object_info *info,
		     struct error *e)
{
	struct reply r;
	u64 length;
	u8 byte;
	int err;

	memset(info, 0, sizeof(*info));
	err = request(url, NULL, 0, NULL, 0, &r, &length, e);
	if (err)
		return err;
	if (r.status == 200 && length != ~0ULL) {
		info->bytes = length;
		goto found;
	}
	if (r.status == 404 || r.status == 410)
		goto refused;

	err = request(url, "0-0", 0, &byte, 1, &r, &length, e);
	if (err)
		return err;
	if (r.status == 416 && r.has_range && !r.total)
		info->bytes = 0;
	else if (r.status == 206 && r.total != ~0ULL)
		info->bytes = r.total;
	else if (r.status == 200)
		info->bytes = 1;
	else if (r.status == 206)
		return error_set(e, -EPROTO,
				 "%s: the server does not tell the size",
				 url);
	else
		goto refused;
found:
	info->ubytes = r.ubytes;
	info->has_ubytes = r.has_ubytes;
	memcpy(info->validator, r.validator, sizeof(info->validator));
	return 0;

refused:
	return refused(url, &r, e);
}

const struct object_ops object_http_ops = {
	.scheme = "http",
	.stat = http_stat,
	.get_range = http_get_range,
};

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Objects behind http://, https://, s3:// and gs://, read-only, one request at a
 * time.
 * The daemon's reader is another one: it has deadlines and many ranges in flight.
 */
#include "client.h"
#include "head.h"
#include "object.h"

#include <stdio.h>
#include <stdlib.h>

#define ATTEMPTS	4
/* Of the body of an answer that refuses, enough to find its code in. */
#define REFUSAL_BYTES	2048

/**
 * struct reply - what a server answered
 * @curl: only as long as it answers
 * @buf: where the body goes, @room bytes
 * @got: bytes of body so far
 * @overflow: the body is longer than @room
 * @length: Content-Length, or HEAD_UNKNOWN
 * @has_range: @range is what Content-Range says
 * @refusal: what an answer that is not the object says
 */
struct reply {
	CURL *curl;
	u8 *buf;
	size_t room;
	size_t got;
	bool overflow;
	long status;
	u64 length;
	bool has_range;
	struct head_range range;
	bool has_ubytes;
	u64 ubytes;
	char validator[256];
	char refusal[REFUSAL_BYTES];
	size_t refused;
};

static void read_head(CURL *curl, struct reply *r)
{
	const char *etag = head_get(curl, "ETag");
	const char *ubytes = head_get(curl, "x-amz-meta-uncompressed-size");
	curl_off_t bytes = -1;

	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &r->status);
	curl_easy_getinfo(curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &bytes);
	r->length = bytes < 0 ? HEAD_UNKNOWN : (u64)bytes;
	r->has_range = head_range(curl, &r->range);
	if (etag && head_strong(etag, sizeof(r->validator)))
		memcpy(r->validator, etag, strlen(etag) + 1);
	if (!ubytes)
		ubytes = head_get(curl, "x-goog-meta-uncompressed-size");
	r->has_ubytes = ubytes && head_u64(&ubytes, &r->ubytes) && !*ubytes;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
	struct reply *r = arg;
	size_t len = size * n;

	curl_easy_getinfo(r->curl, CURLINFO_RESPONSE_CODE, &r->status);
	/* The body of an error is for people, if at all. */
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

static void set_options(CURL *curl, struct reply *r, char *detail)
{
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(curl, CURLOPT_MAXREDIRS, 5L);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 10L);
	curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, 30L);
	curl_easy_setopt(curl, CURLOPT_USERAGENT, "lazyframe");
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

/*
 * One request, with a signature of its own. @range: "first-last", or NULL for a
 * HEAD.
 *
 * Return: 0: @r is a full answer with any status; 1: try again; the error's
 * text is set.
 */
static int attempt(const char *url, const char *range, struct reply *r,
		   struct error *e)
{
	struct auth_call call = {
		.method = range ? "GET" : "HEAD",
		.url = url,
	};
	char detail[CURL_ERROR_SIZE] = "";
	struct auth_signed sig = { };
	CURL *curl = client_take(e);
	struct auth *auth;
	bool again = false;
	CURLcode rc;
	int err;

	if (!curl)
		return -EIO;
	set_options(curl, r, detail);
	err = client_sign(&call, &auth, &sig, e);
	if (err) {
		error_prefix(e, "%s", url);
		goto out;
	}
	if (auth_apply(curl, &sig) ||
	    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, sig.header)) {
		err = error_set(e, -ENOMEM, "out of memory");
		goto out;
	}
	if (range)
		curl_easy_setopt(curl, CURLOPT_RANGE, range);
	else
		curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
	r->curl = curl;
	rc = curl_easy_perform(curl);
	read_head(curl, r);
	if (!rc)
		again = client_answer(auth, &sig, r->status, r->refusal,
				      head_date(curl));
	if (rc == CURLE_URL_MALFORMAT || rc == CURLE_UNSUPPORTED_PROTOCOL) {
		err = error_set(e, -EINVAL, "%s: %s", url, *detail ? detail :
				curl_easy_strerror(rc));
	} else if (r->overflow) {
		error_set(e, -EPROTO,
			  "%s: status %ld with more bytes than were asked for; the server must support ranges",
			  url, r->status);
		err = 1;
	} else if (rc) {
		error_set(e, -EIO, "%s: %s", url, *detail ? detail :
			  curl_easy_strerror(rc));
		err = 1;
	} else if (worth_a_retry(r->status) || again) {
		error_set(e, -EIO, "%s: the server says %ld", url, r->status);
		err = 1;
	}
out:
	auth_signed_free(&sig);
	client_give(curl);
	return err;
}

/* Is it the range that was asked for, or all of an object of that size? */
static bool range_is(const struct reply *r, u64 off, size_t len)
{
	if (r->got != len)
		return false;
	if (r->status == 200)
		return !off;
	return r->status == 206 && r->has_range && !r->range.empty &&
	       r->range.first == off && r->range.last == off + len - 1;
}

/*
 * @range as for attempt(); a body must be exactly @len bytes from @off.
 */
static int request(const char *url, const char *range, u64 off, void *buf,
		   size_t len, struct reply *r, struct error *e)
{
	unsigned int i;
	int err;

	for (i = 0; i < ATTEMPTS; i++) {
		web_pause(i);
		memset(r, 0, sizeof(*r));
		r->buf = buf;
		r->room = len;
		err = attempt(url, range, r, e);
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
	error_prefix(e, "%s%s after %d attempts", range ? "bytes " : "the size",
		     range ? range : "", ATTEMPTS);
	return -EIO;
}

/* @range: that was asked for, or NULL */
static int refused(const char *url, const char *range, const struct reply *r,
		   struct error *e)
{
	char *code, why[128] = "";

	if (bucket_is(url) && r->refused) {
		strcpy(why, ": ");
		bucket_answer(r->refusal, &code, why + 2, sizeof(why) - 2);
		free(code);
	}
	if (r->status == 404)
		return error_set(e, -ENOENT,
				 "%s: no such object, the server says 404%s",
				 url, why);
	return error_set(e, status_error(r->status), "%s: %s%s%sthe server says %ld%s",
			 url, range ? "bytes " : "", range ? range : "",
			 range ? ": " : "", r->status, why);
}

static int http_get_range(const char *url, u64 off, void *buf, size_t len,
			  struct error *e)
{
	char range[48];
	struct reply r;
	int err;

	if (!len)
		return 0;
	snprintf(range, sizeof(range), "%llu-%llu", (unsigned long long)off,
		 (unsigned long long)(off + len - 1));
	err = request(url, range, off, buf, len, &r, e);
	if (err)
		return err;
	if (r.status == 200 || r.status == 206)
		return 0;
	return refused(url, range, &r, e);
}

/*
 * HEAD where the server allows it; a signed URL for GET does not. Then the
 * size stands behind the slash in a small range's Content-Range.
 */
static int http_stat(const char *url, struct object_info *info,
		     struct error *e)
{
	struct reply r;
	u8 byte;
	int err;

	memset(info, 0, sizeof(*info));
	err = request(url, NULL, 0, NULL, 0, &r, e);
	if (err)
		return err;
	if (r.status == 200 && r.length != HEAD_UNKNOWN) {
		info->bytes = r.length;
		goto found;
	}
	if (r.status == 404 || r.status == 410)
		goto refused;

	err = request(url, "0-0", 0, &byte, 1, &r, e);
	if (err)
		return err;
	if (r.status == 416 && r.has_range && !r.range.size)
		info->bytes = 0;
	else if (r.status == 206 && r.range.size != HEAD_UNKNOWN)
		info->bytes = r.range.size;
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
	return refused(url, NULL, &r, e);
}

const struct object_ops object_http_ops = {
	.scheme = "http",
	.stat = http_stat,
	.get_range = http_get_range,
};

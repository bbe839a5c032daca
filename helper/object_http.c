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
 * struct want - what is asked for
 * @range: "first-last", or of as many last bytes "-many"; "": all
 * @off: of the body's first byte; unused if @peek
 * @buf: for the body; unused if @peek
 * @len: of the body, exactly; at most if @peek
 * @head: no body
 * @peek: see http_peek(): the head tells how long the body is
 * @tail: with @peek: @len bytes will do of a longer object
 */
struct want {
	char range[48];
	u64 off;
	void *buf;
	size_t len;
	bool head;
	bool peek;
	bool tail;
};

/**
 * struct reply - what a server answered
 * @curl: only as long as it answers
 * @buf: where the body goes, @room bytes; of a peek malloc()ed
 * @got: bytes of body so far
 * @overflow: the body is longer than @room
 * @unfit: an error: by its head, the answer is not what a peek can use
 * @size: of the object, if it is
 * @length: Content-Length, or HEAD_UNKNOWN
 * @has_range: @range is what Content-Range says
 * @refusal: what an answer that is not the object says
 */
struct reply {
	CURL *curl;
	const struct want *want;
	u8 *buf;
	size_t room;
	size_t got;
	bool overflow;
	int unfit;
	u64 size;
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

static bool body_counts(long status)
{
	return status == 200 || status == 206;
}

/*
 * Is a peek's answer, by its head, all of an object that is not too long, or as
 * many of its last bytes as were asked for? Then there is room for it. Whatever
 * else it may be is left to those who ask twice.
 */
static int fit(struct reply *r)
{
	const struct want *want = r->want;
	const struct head_range *range = &r->range;
	u64 bytes = r->length;

	r->size = r->length;
	if (r->status == 206 && want->tail && r->has_range && !range->empty &&
	    range->last + 1 == range->size) {
		r->size = range->size;
		bytes = range->last - range->first + 1;
		if (bytes != (r->size < want->len ? r->size : want->len))
			return -EAGAIN;
	} else if (r->status != 200 || r->length == HEAD_UNKNOWN) {
		return -EAGAIN;
	} else if (bytes > want->len) {
		return want->tail ? -EAGAIN : -EFBIG;
	}
	r->buf = malloc(bytes + 1);
	r->room = bytes;
	return r->buf ? 0 : -ENOMEM;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
	struct reply *r = arg;
	size_t len = size * n;

	curl_easy_getinfo(r->curl, CURLINFO_RESPONSE_CODE, &r->status);
	/* The body of an error is for people, if at all. */
	if (!body_counts(r->status)) {
		size_t room = sizeof(r->refusal) - 1 - r->refused;

		memcpy(r->refusal + r->refused, data, len < room ? len : room);
		r->refused += len < room ? len : room;
		r->refusal[r->refused] = 0;
		return len;
	}
	if (r->want->peek && !r->buf) {
		read_head(r->curl, r);
		r->unfit = fit(r);
		if (r->unfit)
			return 0;
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
 * One request, with a signature of its own.
 *
 * Return: 0: @r is a full answer with any status; 1: try again; the error's
 * text is set.
 */
static int attempt(const char *url, const struct want *want, struct reply *r,
		   struct error *e)
{
	struct auth_call call = {
		.method = want->head ? "HEAD" : "GET",
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
		err = no_memory(e);
		goto out;
	}
	if (want->range[0])
		curl_easy_setopt(curl, CURLOPT_RANGE, want->range);
	if (want->head)
		curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
	r->curl = curl;
	rc = curl_easy_perform(curl);
	read_head(curl, r);
	/* Nobody looked at the head of an answer without a body yet. */
	if (!rc && want->peek && !r->buf && body_counts(r->status))
		r->unfit = fit(r);
	if (!rc)
		again = client_answer(auth, &sig, r->status, r->refusal,
				      head_date(curl));
	if (rc == CURLE_URL_MALFORMAT || rc == CURLE_UNSUPPORTED_PROTOCOL) {
		err = error_set(e, -EINVAL, "%s: %s", url, *detail ? detail :
				curl_easy_strerror(rc));
	} else if (r->unfit) {
		err = error_set(e, r->unfit, "%s: %s", url,
				strerror(-r->unfit));
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

/*
 * Is it the range that was asked for, or all of an object of that size? Of a
 * peek, is it all that its head told?
 */
static bool body_is(const struct reply *r)
{
	const struct want *want = r->want;

	if (want->head || !body_counts(r->status))
		return true;
	if (want->peek)
		return r->got == r->room;
	if (r->got != want->len)
		return false;
	if (r->status == 200)
		return !want->off;
	return r->has_range && !r->range.empty &&
	       r->range.first == want->off &&
	       r->range.last == want->off + want->len - 1;
}

static int request(const char *url, const struct want *want, struct reply *r,
		   struct error *e)
{
	unsigned int i;
	int err;

	for (i = 0; i < ATTEMPTS; i++) {
		web_pause(i);
		memset(r, 0, sizeof(*r));
		r->want = want;
		r->buf = want->buf;
		r->room = want->len;
		err = attempt(url, want, r, e);
		if (!err && body_is(r))
			return 0;
		if (!err)
			error_set(e, -EPROTO,
				  "%s: asked for bytes %s, got status %ld and %zu other bytes",
				  url, want->range, r->status, r->got);
		if (want->peek)
			free(r->buf);
		if (err < 0)
			return err;
	}
	error_prefix(e, "%s%s after %d attempts", want->head ? "the size" :
		     want->range[0] ? "bytes " : "the object", want->range,
		     ATTEMPTS);
	return -EIO;
}

static int refused(const char *url, const struct reply *r, struct error *e)
{
	const char *range = r->want->range;
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
			 url, *range ? "bytes " : "", range,
			 *range ? ": " : "", r->status, why);
}

static int http_get_range(const char *url, u64 off, void *buf, size_t len,
			  struct error *e)
{
	struct want want = { .off = off, .buf = buf, .len = len };
	struct reply r;
	int err;

	if (!len)
		return 0;
	snprintf(want.range, sizeof(want.range), "%llu-%llu",
		 (unsigned long long)off, (unsigned long long)(off + len - 1));
	err = request(url, &want, &r, e);
	if (err || body_counts(r.status))
		return err;
	return refused(url, &r, e);
}

static void take_info(const struct reply *r, u64 bytes,
		      struct object_info *info)
{
	info->bytes = bytes;
	info->ubytes = r->ubytes;
	info->has_ubytes = r->has_ubytes;
	memcpy(info->validator, r->validator, sizeof(info->validator));
}

/*
 * HEAD where the server allows it; a signed URL for GET does not. Then the
 * size stands behind the slash in a small range's Content-Range.
 */
static int http_stat(const char *url, struct object_info *info,
		     struct error *e)
{
	static const struct want head = { .head = true };
	u8 byte;
	const struct want first = { .range = "0-0", .buf = &byte, .len = 1 };
	struct reply r;
	int err;

	memset(info, 0, sizeof(*info));
	err = request(url, &head, &r, e);
	if (err)
		return err;
	if (r.status == 200 && r.length != HEAD_UNKNOWN) {
		take_info(&r, r.length, info);
		return 0;
	}
	if (r.status == 404 || r.status == 410)
		return refused(url, &r, e);

	err = request(url, &first, &r, e);
	if (err)
		return err;
	if (r.status == 416 && r.has_range && !r.range.size)
		take_info(&r, 0, info);
	else if (r.status == 206 && r.range.size != HEAD_UNKNOWN)
		take_info(&r, r.range.size, info);
	else if (r.status == 200)
		take_info(&r, 1, info);
	else if (r.status == 206)
		return error_set(e, -EPROTO,
				 "%s: the server does not tell the size",
				 url);
	else
		return refused(url, &r, e);
	return 0;
}

/*
 * A suffix range brings an object's size along with its end, in Content-Range;
 * not all servers know them.
 */
static int http_peek(const char *url, bool tail, size_t len, void **data,
		     struct object_info *info, struct error *e)
{
	struct want want = { .len = len, .peek = true, .tail = tail };
	struct reply r;
	int err;

	memset(info, 0, sizeof(*info));
	if (tail)
		snprintf(want.range, sizeof(want.range), "-%zu", len);
	err = request(url, &want, &r, e);
	if (err) {
		info->bytes = r.size;
		return err;
	}
	if (r.status == 401 || r.status == 403 || r.status == 404 ||
	    r.status == 410)
		return refused(url, &r, e);
	if (!r.buf)
		return -EAGAIN;
	take_info(&r, r.size, info);
	*data = r.buf;
	return 0;
}

const struct object_ops object_http_ops = {
	.scheme = "http",
	.stat = http_stat,
	.get_range = http_get_range,
	.peek = http_peek,
};

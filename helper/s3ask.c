// SPDX-License-Identifier: GPL-2.0-only
#include "s3ask.h"

#include <stdlib.h>

#include "web.h"
#include "xml.h"

#define ATTEMPTS	5
#define BODY_MAX	(4 << 20)

struct body {
	char *text;
	size_t len;
};

static size_t on_body(char *data, size_t one, size_t len, void *arg)
{
	struct body *body = arg;
	char *more;

	(void)one;
	if (len > BODY_MAX - body->len)
		return 0;
	more = realloc(body->text, body->len + len + 1);
	if (!more)
		return 0;
	body->text = more;
	memcpy(more + body->len, data, len);
	body->len += len;
	more[body->len] = 0;
	return len;
}

static int set_up(CURL *curl, const struct s3_ask *ask, struct s3_signed *sig,
		  struct body *body, char *detail)
{
	bool head = !strcmp(ask->call.method, "HEAD");
	/* Not what libcurl takes the body for. */
	const char *type = "Content-Type: application/octet-stream";
	const char *const *line = ask->line;
	struct curl_slist *more;

	more = ask->data ? curl_slist_append(sig->header, type) : sig->header;
	for (; more && line && *line; line++)
		more = curl_slist_append(sig->header, *line);
	if (!more)
		return -ENOMEM;
#define set(option, value) curl_easy_setopt(curl, CURLOPT_##option, value)
	if (set(URL, sig->url) || set(HTTPHEADER, sig->header) ||
	    set(CUSTOMREQUEST, ask->call.method) || set(NOBODY, (long)head) ||
	    set(PATH_AS_IS, 1L) || set(FOLLOWLOCATION, 0L) ||
	    set(ERRORBUFFER, detail) || set(WRITEFUNCTION, on_body) ||
	    set(WRITEDATA, body) || set(XFERINFOFUNCTION, web_progress) ||
	    set(XFERINFODATA, ask->stop) || set(NOPROGRESS, 0L) ||
	    set(NOSIGNAL, 1L) || set(PROTOCOLS_STR, "http,https") ||
	    set(CONNECTTIMEOUT, 10L) || set(LOW_SPEED_LIMIT, 1L) ||
	    set(LOW_SPEED_TIME, 60L) || set(USERAGENT, "lazyframe"))
		return -ENOMEM;
	/* Without a copy of the body, which stays ours. */
	if (ask->data && (set(POSTFIELDS, ask->data) ||
			  set(POSTFIELDSIZE_LARGE, (curl_off_t)ask->bytes) ||
			  set(CUSTOMREQUEST, ask->call.method)))
		return -ENOMEM;
	if (aws_ca_bundle() && set(CAINFO, aws_ca_bundle()))
		return -ENOMEM;
#undef set
	return 0;
}

static const char *header(CURL *curl, const char *name)
{
	struct curl_header *h;

	return curl_easy_header(curl, name, 0, CURLH_HEADER, -1, &h) ? NULL :
								h->value;
}

static void read_head(CURL *curl, struct s3_reply *reply)
{
	const char *etag = header(curl, "ETag"), *date = header(curl, "Date");
	curl_off_t length = -1;

	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &reply->status);
	curl_easy_getinfo(curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
	reply->length = length < 0 ? ~0ULL : (u64)length;
	reply->etag[0] = 0;
	if (etag && strlen(etag) < sizeof(reply->etag))
		memcpy(reply->etag, etag, strlen(etag) + 1);
	reply->now = date ? curl_getdate(date, NULL) : 0;
}

static bool hides_error(const struct s3_reply *reply)
{
	const char *p = reply->body;

	if (reply->status != 200)
		return false;
	/* The root of the document, behind its declaration */
	while ((p = strchr(p, '<')) && (p[1] == '?' || p[1] == '!'))
		p++;
	return p && !strncmp(p, "<Error", 6);
}

/* 0: an answer; 1: try again, with @e saying why */
static int attempt(const struct s3_ask *ask, struct s3_reply *reply,
		   struct error *e)
{
	char detail[CURL_ERROR_SIZE] = "", why[128], date[64] = "", *code;
	struct body body = { .text = strdup("") };
	CURL *curl = handle_take();
	struct s3_signed sig = { };
	CURLcode rc;
	int err;

	if (!curl || !body.text) {
		err = error_set(e, -ENOMEM, "out of memory");
		goto out;
	}
	err = object_s3_sign(&ask->call, &sig, e);
	if (err) {
		error_prefix(e, "%s", ask->call.url);
		goto out;
	}
	err = set_up(curl, ask, &sig, &body, detail);
	if (err) {
		error_set(e, err, "out of memory");
		goto out;
	}
	rc = curl_easy_perform(curl);
	if (!rc && header(curl, "Date"))
		snprintf(date, sizeof(date), "%s", header(curl, "Date"));
	read_head(curl, reply);
	reply->body = body.text;
	body.text = NULL;
	if (rc) {
		reply->unsure = true;
		error_set(e, -EIO, "%s: %s", ask->call.url, *detail ? detail :
			  curl_easy_strerror(rc));
		err = 1;
		goto out;
	}
	if (hides_error(reply))
		reply->status = 500;
	if (object_s3_answer(&sig, reply->status, reply->body, date)) {
		err = 1;
	} else if (reply->status >= 500 || reply->status == 429 ||
		   reply->status == 408) {
		reply->unsure |= reply->status >= 500;
		err = 1;
	}
	s3_answer(reply->body, &code, why, sizeof(why));
	if (code && !strcmp(code, "RequestTimeout"))
		err = 1;
	free(code);
	if (err)
		error_set(e, -EIO, "%s: the server says %ld: %s",
			  ask->call.url, reply->status, why);
out:
	free(body.text);
	s3_signed_free(&sig);
	handle_give(curl);
	return err;
}

int s3_ask(const struct s3_ask *given, struct s3_reply *reply, struct error *e)
{
	char payload[SHA256_TEXT];
	struct s3_ask ask = *given;
	unsigned int i;
	int err = 1;

	memset(reply, 0, sizeof(*reply));
	/* The server compares: it is the body's checksum, too. */
	if (ask.data) {
		if (sigv4_payload(ask.data, ask.bytes, payload))
			return error_set(e, -ENOMEM, "out of memory");
		ask.call.payload = payload;
	}
	for (i = 0; i < ATTEMPTS && err > 0; i++) {
		web_pause(i);
		if (ask.stop && atomic_load(ask.stop)) {
			err = error_set(e, -ECANCELED, "%s: given up",
					ask.call.url);
			break;
		}
		free(reply->body);
		reply->body = NULL;
		err = attempt(&ask, reply, e);
	}
	if (err <= 0)
		return err;
	error_prefix(e, "after %d attempts", ATTEMPTS);
	return -EIO;
}

int s3_expect(const struct s3_ask *ask, const struct s3_reply *reply,
	      struct error *e)
{
	char *code, why[128];
	int err;

	if (reply->status >= 200 && reply->status < 300)
		return 0;
	s3_answer(reply->body, &code, why, sizeof(why));
	switch (reply->status) {
	case 404:
		err = -ENOENT;
		break;
	case 409:
	case 412:
		err = -EEXIST;
		break;
	case 401:
	case 403:
		err = -EACCES;
		break;
	default:
		err = -EPROTO;
	}
	error_set(e, err, "%s: the server says %ld: %s", ask->call.url,
		  reply->status, *reply->body ? why : "no reason given");
	free(code);
	return err;
}

int s3_do(const struct s3_ask *ask, struct s3_reply *reply, struct error *e)
{
	int err = s3_ask(ask, reply, e);

	return err ? err : s3_expect(ask, reply, e);
}

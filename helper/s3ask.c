// SPDX-License-Identifier: GPL-2.0-only
#include "s3ask.h"

#include <gcrypt.h>
#include <stdlib.h>

#include "head.h"
#include "xml.h"

#define ATTEMPTS	5
#define BODY_MAX	(4 << 20)
#define MD5_TEXT	25	/* base64, with its NUL */

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

static int set_up(CURL *curl, const struct s3_ask *ask, struct auth_signed *sig,
		  struct body *body, char *detail)
{
	bool head = !strcmp(ask->call.method, "HEAD");
	/* Not what libcurl takes the body for. */
	const char *type = "Content-Type: application/octet-stream";
	struct curl_slist *more;

	more = ask->data ? curl_slist_append(sig->header, type) : sig->header;
	if (ask->data && !more)
		return -ENOMEM;
	sig->header = more;
#define set(option, value) curl_easy_setopt(curl, CURLOPT_##option, value)
	if (auth_apply(curl, sig) || set(HTTPHEADER, sig->header) ||
	    set(CUSTOMREQUEST, ask->call.method) || set(NOBODY, (long)head) ||
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
#undef set
	return 0;
}

static void read_head(CURL *curl, struct s3_reply *reply)
{
	const char *etag = head_get(curl, "ETag");
	curl_off_t length = -1;

	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &reply->status);
	curl_easy_getinfo(curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
	reply->length = length < 0 ? ~0ULL : (u64)length;
	reply->etag[0] = 0;
	if (etag && strlen(etag) < sizeof(reply->etag))
		memcpy(reply->etag, etag, strlen(etag) + 1);
	reply->now = head_date(curl);
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
	char detail[CURL_ERROR_SIZE] = "", why[128], *code;
	struct body body = { .text = strdup("") };
	struct auth_signed sig = { };
	CURL *curl = client_take(e);
	struct auth *auth;
	CURLcode rc;
	int err;

	if (!curl) {
		err = -EIO;
		goto out;
	}
	if (!body.text) {
		err = no_memory(e);
		goto out;
	}
	err = client_sign(&ask->call, &auth, &sig, e);
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
	if (client_answer(auth, &sig, reply->status, reply->body,
			  reply->now)) {
		err = 1;
	} else if (reply->status >= 500 || reply->status == 429 ||
		   reply->status == 408) {
		reply->unsure |= reply->status >= 500;
		err = 1;
	}
	bucket_answer(reply->body, &code, why, sizeof(why));
	if (code && !strcmp(code, "RequestTimeout"))
		err = 1;
	free(code);
	if (err)
		error_set(e, -EIO, "%s: the server says %ld: %s",
			  ask->call.url, reply->status, why);
out:
	free(body.text);
	auth_signed_free(&sig);
	if (curl)
		client_give(curl);
	return err;
}

/* The store compares, and says so if other bytes have come. */
static int content_md5(const struct s3_ask *ask, char text[MD5_TEXT])
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	u8 sum[18] = { };	/* two more, for three bytes a time */
	unsigned int i, j;

	if (gcry_md_test_algo(GCRY_MD_MD5))
		return -EOPNOTSUPP;
	gcry_md_hash_buffer(GCRY_MD_MD5, sum, ask->data, ask->bytes);
	for (i = 0; i < 6; i++) {
		u32 three = sum[3 * i] << 16 | sum[3 * i + 1] << 8 |
			    sum[3 * i + 2];

		for (j = 0; j < 4; j++)
			text[4 * i + j] = digits[three >> (18 - 6 * j) & 63];
	}
	memcpy(text + 22, "==", 3);
	return 0;
}

/* With what shows the store that the body is the right one */
static int add_checksum(struct s3_ask *ask, struct sigv4_header *header,
			char *payload, char *md5)
{
	const struct bucket_words *words = bucket_words(ask->call.url);
	size_t n = ask->call.headers, i;

	if (!ask->data)
		return 0;
	if (sigv4_payload(ask->data, ask->bytes, payload))
		return -ENOMEM;
	ask->call.payload = payload;
	/* Where there is no MD5 (FIPS), a body goes without. */
	if (!words || !words->md5 || content_md5(ask, md5))
		return 0;
	if (n == AUTH_HEADERS)
		return -EINVAL;
	for (i = 0; i < n; i++)
		header[i] = ask->call.header[i];
	header[n] = (struct sigv4_header){ "content-md5", md5 };
	ask->call.header = header;
	ask->call.headers = n + 1;
	return 0;
}

int s3_ask(const struct s3_ask *given, struct s3_reply *reply, struct error *e)
{
	struct sigv4_header header[AUTH_HEADERS];
	char payload[SHA256_TEXT], md5[MD5_TEXT];
	struct s3_ask ask = *given;
	unsigned int i;
	int err = 1;

	memset(reply, 0, sizeof(*reply));
	if (add_checksum(&ask, header, payload, md5))
		return no_memory(e);
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
	bucket_answer(reply->body, &code, why, sizeof(why));
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

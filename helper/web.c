// SPDX-License-Identifier: GPL-2.0-only
#include "web.h"

#include <stdio.h>
#include <stdlib.h>

#include "head.h"

#define ATTEMPTS	3
#define BACKOFF_MS	200	/* doubled each time */
#define CONNECT_MS	2000L
#define ALL_MS		10000L
#define BODY_MAX	(256 << 10)

/* Growing by realloc() would leave copies behind: the room is there at once. */
struct body {
	char *text;
	size_t len;
};

static size_t on_body(char *data, size_t one, size_t len, void *arg)
{
	struct body *body = arg;

	(void)one;
	if (len > BODY_MAX - 1 - body->len)
		return 0;
	memcpy(body->text + body->len, data, len);
	body->len += len;
	body->text[body->len] = 0;
	return len;
}

int web_progress(void *stop, curl_off_t a, curl_off_t b, curl_off_t c,
		 curl_off_t d)
{
	const atomic_bool *is_over = stop;

	(void)a;
	(void)b;
	(void)c;
	(void)d;
	return is_over && atomic_load(is_over);
}

bool web_safe(const char *url)
{
	static const char *const hosts[] = {
		"localhost", "127.0.0.1", "[::1]", "169.254.170.2",
		"169.254.170.23", "[fd00:ec2::23]",
	};
	size_t i, len;

	if (!strncmp(url, "https://", 8))
		return true;
	if (strncmp(url, "http://", 7))
		return false;
	url += 7;
	/* "127.0.0.1:80@elsewhere" */
	if (memchr(url, '@', strcspn(url, "/?#")))
		return false;
	for (i = 0; i < ARRAY_SIZE(hosts); i++) {
		len = strlen(hosts[i]);
		if (!strncmp(url, hosts[i], len) &&
		    strchr("/:", url[len]))	/* its end, too */
			return true;
	}
	return false;
}

void web_tell(secret_warn *warn, const char *url, const char *what)
{
	char text[512];

	if (!warn || web_safe(url))
		return;
	snprintf(text, sizeof(text), "%s: %s can be read on the way; use https://",
		 url, what);
	warn(text);
}

/* Scheme, host and path: what may be shown */
static int shown(const char *url)
{
	return strcspn(url, "?#");
}

static CURLcode perform(const struct web *web, const struct web_request *req,
			struct curl_slist *headers, struct body *body,
			CURL *curl, char *detail)
{
#define set(option, value) curl_easy_setopt(curl, CURLOPT_##option, value)
	if (set(URL, req->url) || set(CUSTOMREQUEST, req->method) ||
	    set(HTTPHEADER, headers) || set(ERRORBUFFER, detail) ||
	    set(WRITEFUNCTION, on_body) || set(WRITEDATA, body) ||
	    set(XFERINFOFUNCTION, web_progress) ||
	    set(XFERINFODATA, web->stop) ||
	    set(NOPROGRESS, 0L) || set(NOSIGNAL, 1L) ||
	    set(PROTOCOLS_STR, "http,https") || set(FOLLOWLOCATION, 0L) ||
	    set(CONNECTTIMEOUT_MS, CONNECT_MS) || set(TIMEOUT_MS, ALL_MS) ||
	    set(USERAGENT, "lazyframe"))
		return CURLE_OUT_OF_MEMORY;
	if (req->body && (set(POSTFIELDS, req->body) ||
			  set(CUSTOMREQUEST, req->method)))
		return CURLE_OUT_OF_MEMORY;
	if (req->direct && set(NOPROXY, "*"))
		return CURLE_OUT_OF_MEMORY;
	if (tls_apply(curl, web->tls))
		return CURLE_OUT_OF_MEMORY;
#undef set
	return curl_easy_perform(curl);
}

static int attempt(const struct web *web, const struct web_request *req,
		   struct curl_slist *headers, struct web_answer *answer,
		   struct error *e)
{
	char detail[CURL_ERROR_SIZE] = "";
	struct body body = { .text = malloc(BODY_MAX) };
	CURL *curl = curl_easy_init();
	const char *wanted;
	CURLcode rc;

	if (!curl || !body.text) {
		curl_easy_cleanup(curl);
		free(body.text);
		return no_memory(e);
	}
	body.text[0] = 0;
	rc = perform(web, req, headers, &body, curl, detail);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer->status);
	answer->date = head_date(curl);
	wanted = req->want ? head_get(curl, req->want) : NULL;
	snprintf(answer->wanted, sizeof(answer->wanted), "%s",
		 wanted ? wanted : "");
	curl_easy_cleanup(curl);
	if (!rc && answer->status < 500 && answer->status != 429) {
		answer->body = body.text;
		return 0;
	}
	secret_free(body.text);
	if (rc)
		return error_set(e, -EIO, "%.*s: %s", shown(req->url), req->url,
				 *detail ? detail : curl_easy_strerror(rc));
	return error_set(e, -EIO, "%.*s: the server says %ld", shown(req->url),
			 req->url, answer->status);
}

void web_pause(unsigned int number)
{
	unsigned int ms = number ? BACKOFF_MS << (number - 1) : 0;
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000L };

	nanosleep(&ts, NULL);
}

int web_ask(const struct web *web, const struct web_request *req,
	    struct web_answer *answer, struct error *e)
{
	struct curl_slist *headers = NULL, *more;
	const char *const *line;
	unsigned int i;
	int err = -EIO;

	memset(answer, 0, sizeof(*answer));
	for (line = req->header; line && *line; line++) {
		more = curl_slist_append(headers, *line);
		if (!more) {
			curl_slist_free_all(headers);
			return no_memory(e);
		}
		headers = more;
	}
	for (i = 0; i < ATTEMPTS && err; i++) {
		if (web->stop && atomic_load(web->stop))
			break;
		web_pause(i);
		err = attempt(web, req, headers, answer, e);
		if (err == -ENOMEM)
			break;
	}
	curl_slist_free_all(headers);
	return err;
}

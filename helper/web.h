/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Small questions to the services that give credentials. They wait for the answer.
 */
#ifndef LF_WEB_H
#define LF_WEB_H

#include <curl/curl.h>
#include <stdatomic.h>
#include <time.h>

#include "secret.h"
#include "tls.h"

/**
 * struct web - how to ask
 * @tls: whom to trust for https
 * @stop: give up soon when this turns true; may be NULL
 * @warn: is told about files that others can read; may be NULL
 */
struct web {
	const struct tls *tls;
	const atomic_bool *stop;
	secret_warn *warn;
};

/**
 * struct web_request
 * @header: full lines, NULL at the end; may be NULL
 * @body: of a POST; may be NULL
 * @direct: never by way of a proxy: the service is beside us
 * @want: name of a header to keep; may be NULL
 */
struct web_request {
	const char *method;
	const char *url;
	const char *const *header;
	const char *body;
	bool direct;
	const char *want;
};

/**
 * struct web_answer
 * @body: with a NUL behind it; secret_free()
 * @date: what time it is there, 0 if it did not tell
 * @wanted: the header's value, "" where there is none
 */
struct web_answer {
	long status;
	char *body;
	time_t date;
	char wanted[64];
};

/**
 * web_ask - several attempts; 5xx and 429 are failures, other answers are not
 *
 * Neither query, headers nor bodies get into an error's text.
 */
int web_ask(const struct web *web, const struct web_request *req,
	    struct web_answer *answer, struct error *e);

/**
 * web_safe - may a secret be sent there?
 *
 * Over plain HTTP, to this machine and its agents alone.
 */
bool web_safe(const char *url);

/**
 * web_tell - @warn, if it is not NULL, that what goes to @url can be read on the
 * way, unless web_safe()
 * @what: that goes there, and where that is said
 */
void web_tell(secret_warn *warn, const char *url, const char *what);

/**
 * web_pause - before attempt number @number, counted from 0, which has none
 */
void web_pause(unsigned int number);

/**
 * web_progress - for CURLOPT_XFERINFOFUNCTION: ends a transfer
 * @stop: a const atomic_bool that says when; may be NULL
 */
int web_progress(void *stop, curl_off_t a, curl_off_t b, curl_off_t c,
		 curl_off_t d);

#endif

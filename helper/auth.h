/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Requests that say who asks, with credentials that renew themselves: one struct
 * auth for each kind of server that wants some (keyring.h has them all).
 *
 * Credentials are renewed before they end, and when a server's answer says that
 * they have ended: environment and files are read again then, and the service
 * that the credentials are from is asked. In a command, whoever signs does that
 * and waits for it. In the daemon a thread does, and nobody waits: neither a
 * name server, nor a metadata service, nor a file on a disk that does not answer
 * keep the loop from serving, nor one kind's service another kind's. What was
 * there before stays in use meanwhile, and where renewing fails.
 *
 * The server's clock counts: what its Date header is off is added to the time
 * that is signed.
 */
#ifndef LF_AUTH_H
#define LF_AUTH_H

#include <curl/curl.h>

#include "bucket.h"
#include "credentials.h"
#include "sigv4.h"

struct auth;

/**
 * enum auth_source - what loading has found
 * @AUTH_AT_HAND: credentials, but for a file to be read
 * @AUTH_NAMED: a service that somebody wants to be asked
 * @AUTH_PERHAPS: a service that may be there
 */
enum auth_source { AUTH_AT_HAND, AUTH_NAMED, AUTH_PERHAPS };

/**
 * struct auth_place - where a request goes
 * @region: for the signature, not to be freed
 */
struct auth_place {
	struct bucket_target target;
	const char *region;
};

/**
 * struct auth_kind - one kind of server. A @conf is what environment and files say
 * @name: "s3", for messages
 * @words: of its signatures; NULL: there are none
 * @load: no network. @origin: of auth_open()
 * @source: of what is loaded
 * @get: may wait for a service, or a disk. No secret gets into an error's text.
 * @place: of @url, pure; NULL: requests go to the URL that is given
 */
struct auth_kind {
	const char *name;
	const struct sigv4_words *words;
	int (*load)(const char *origin, void **conf, secret_warn *warn,
		    struct error *e);
	void (*unload)(void *conf);
	enum auth_source (*source)(const void *conf);
	int (*get)(const void *conf, const struct web *web,
		   struct credentials *cred, struct error *e);
	int (*place)(const void *conf, const struct bucket_url *url,
		     struct auth_place *place, struct error *e);
};

extern const struct auth_kind auth_s3;
extern const struct auth_kind auth_gs;
extern const struct auth_kind auth_origin;

/**
 * struct auth_call - what is to be asked
 * @query: escaped, or NULL
 * @header: to be sent, and signed if there is a signature, for which "host" and
 *	    those of struct sigv4_words are added. Up to AUTH_HEADERS
 * @payload: of sigv4_payload(), or SIGV4_UNSIGNED; NULL: there is no body
 */
struct auth_call {
	const char *method;
	const char *url;
	const char *query;
	const struct sigv4_header *header;
	size_t headers;
	const char *payload;
};

#define AUTH_HEADERS	8

/**
 * struct auth_signed - to be sent at once, one time, and to no other URL
 * @url: for libcurl, with CURLOPT_PATH_AS_IS
 * @header: whole lines; the caller may append
 * @cert, @key: of a client, PEM; or NULL
 * @follow: redirects may be followed: what is secret here, libcurl keeps from
 *	    other servers
 * @when, @generation: for auth_refused() and auth_accepted()
 */
struct auth_signed {
	char *url;
	struct curl_slist *header;
	char *cert;
	char *key;
	bool follow;
	time_t when;
	u64 generation;
};

/**
 * auth_open - reads environment and files; no network
 *
 * What is wrong with them shows when something is to be signed, and may be right
 * by then.
 * @origin: for auth_origin: which one
 * @warn: is told about files that others can read, and when credentials cannot
 *	  be renewed, from any thread. May be NULL.
 * @tls: for https where credentials come from. Not copied.
 * Return: NULL where memory is out
 */
struct auth *auth_open(const struct auth_kind *kind, const char *origin,
		       secret_warn *warn, const struct tls *tls);
void auth_close(struct auth *auth);

/**
 * auth_background - from now on a thread renews
 * @wake: eventfd that is written to after each attempt
 *
 * The thread inherits what its creator may do.
 * Return: 0 or a negative errno
 */
int auth_background(struct auth *auth, int wake);

/* auth_reload - begin anew with what environment and files say now */
void auth_reload(struct auth *auth);

/**
 * auth_sign - any thread
 *
 * -EAGAIN (with auth_background() only): there are no credentials at the moment;
 * @e says why, if the last attempt to get some failed, else it is empty.
 * auth_signed_free() is right after a failure, too.
 */
int auth_sign(struct auth *auth, const struct auth_call *call,
	      struct auth_signed *sig, struct error *e);
void auth_signed_free(struct auth_signed *sig);

/* auth_apply - URL, redirects and the client's certificate, for a transfer */
CURLcode auth_apply(CURL *curl, const struct auth_signed *sig);

/**
 * auth_refused - a server answered 400, 401 or 403
 * @code: from the answer's body, or NULL
 * @date: of head_date()
 *
 * Return: is it worth signing once more?
 */
bool auth_refused(struct auth *auth, const struct auth_signed *sig,
		  long status, const char *code, time_t date);

/* auth_accepted - a server answered as if it knows us */
void auth_accepted(struct auth *auth, const struct auth_signed *sig);

#endif

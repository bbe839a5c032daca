/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Requests to S3, signed with credentials that renew themselves.
 *
 * Credentials are renewed before they end, and when a server's answer says that
 * they have ended: environment and files are read again then, and the service
 * that the credentials are from is asked. In a command, whoever signs does that
 * and waits for it. In the daemon a thread does, and nobody waits: neither a
 * name server, nor a metadata service, nor a file on a disk that does not answer
 * keep the loop from serving. What was there before stays in use meanwhile, and
 * where renewing fails.
 *
 * The server's clock counts: what its Date header is off is added to the time
 * that is signed.
 */
#ifndef LF_S3_H
#define LF_S3_H

#include <curl/curl.h>

#include "aws.h"
#include "sigv4.h"

struct s3;

/**
 * struct s3_call - what is to be asked
 * @url: s3://bucket/key
 * @query: escaped, or NULL
 * @header: to be sent and signed; "host", "x-amz-date", "x-amz-content-sha256" and
 *	    "x-amz-security-token" are added
 * @payload: of sigv4_payload(), or SIGV4_UNSIGNED; NULL: there is no body
 */
struct s3_call {
	const char *method;
	const char *url;
	const char *query;
	const struct sigv4_header *header;
	size_t headers;
	const char *payload;
};

/**
 * struct s3_signed - to be sent at once, one time, and to no other URL
 * @url: for libcurl, with CURLOPT_PATH_AS_IS, and without following redirects:
 *	 they would take the session token to others
 * @header: whole lines; the caller may append
 * @when, @generation: for s3_refused() and s3_accepted()
 */
struct s3_signed {
	char *url;
	struct curl_slist *header;
	time_t when;
	u64 generation;
};

/**
 * s3_open - reads environment and files; no network
 *
 * What is wrong with them shows when something is to be signed, and may be right
 * by then.
 * @warn: see aws_load(); it is also told when credentials cannot be renewed,
 *	  from any thread. May be NULL.
 * @authorities: to trust for https where credentials come from; NULL: the
 *		 system's. Not copied.
 */
int s3_open(struct s3 **s3, aws_warn *warn, const struct curl_blob *authorities,
	    struct error *e);
void s3_close(struct s3 *s3);

/**
 * s3_background - from now on a thread renews
 * @wake: eventfd that is written to after each attempt
 *
 * The thread inherits what its creator may do.
 * Return: 0 or a negative errno
 */
int s3_background(struct s3 *s3, int wake);

/* s3_reload - begin anew with what environment and files say now */
void s3_reload(struct s3 *s3);

/**
 * s3_sign - any thread
 *
 * -EAGAIN (with s3_background() only): there are no credentials at the moment;
 * @e says why, if the last attempt to get some failed, else it is empty.
 * s3_signed_free() is right after a failure, too.
 */
int s3_sign(struct s3 *s3, const struct s3_call *call, struct s3_signed *sig,
	    struct error *e);
void s3_signed_free(struct s3_signed *sig);

/**
 * s3_refused - a server answered 400, 401 or 403
 * @code: from the answer's body, or NULL
 * @date: the answer's Date header, or NULL
 *
 * Return: is it worth signing once more?
 */
bool s3_refused(struct s3 *s3, const struct s3_signed *sig, long status,
		const char *code, const char *date);

/* s3_accepted - a server answered as if it knows us */
void s3_accepted(struct s3 *s3, const struct s3_signed *sig);

/**
 * s3_answer - what a refusal says, for people
 * @body: of the answer, with a NUL behind it
 * @code: out, malloc()ed or NULL
 */
void s3_answer(const char *body, char **code, char *why, size_t size);

#endif

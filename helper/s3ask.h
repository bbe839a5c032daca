/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One request to S3, or what speaks like it, with a small answer, for the commands:
 * signed anew at each attempt, tried again where that may help.
 */
#ifndef LF_S3ASK_H
#define LF_S3ASK_H

#include <stdatomic.h>

#include "client.h"

/**
 * struct s3_ask
 * @call: see there; its payload is set by s3_ask()
 * @data, @bytes: the request's body
 * @stop: give up soon when this turns true; may be NULL
 */
struct s3_ask {
	struct auth_call call;
	const void *data;
	size_t bytes;
	const atomic_bool *stop;
};

/**
 * struct s3_reply
 * @body: with a NUL behind it, "" where there is none; free() it
 * @length: Content-Length, ~0 where there is none; of a HEAD it is the object's
 * @now: what time it is there, 0 if it did not tell
 * @unsure: an attempt before had no answer, or one of 5xx: it may have been
 *	    carried out all the same
 */
struct s3_reply {
	long status;
	char *body;
	u64 length;
	char etag[256];
	time_t now;
	bool unsure;
};

/**
 * s3_ask - until there is an answer that is not worth another attempt
 *
 * An error in the body of an answer of status 200 counts as 500.
 * Return: 0 with @reply of any status, to be looked at with s3_expect()
 */
int s3_ask(const struct s3_ask *ask, struct s3_reply *reply, struct error *e);

/**
 * s3_do - s3_ask(), where every status but 2xx is an error
 *
 * @reply is filled in all the same; its body is to be freed.
 */
int s3_do(const struct s3_ask *ask, struct s3_reply *reply, struct error *e);

/* s3_expect - 0, or the error that the reply's status means; frees nothing */
int s3_expect(const struct s3_ask *ask, const struct s3_reply *reply,
	      struct error *e);

#endif

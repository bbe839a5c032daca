/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * AWS Signature Version 4, in an Authorization header, and the same in the words
 * of Google Cloud Storage. Pure: no clock, no network, no environment. The rules
 * are those of "Signature Calculations for the Authorization Header" in the Amazon
 * S3 API Reference; what S3 does otherwise than other services (a path is escaped
 * once) is the caller's to escape.
 */
#ifndef LF_SIGV4_H
#define LF_SIGV4_H

#include <time.h>

#include "sha256.h"

#define SIGV4_DATE	17	/* "20130524T000000Z" with its NUL */
/* Instead of a payload's hash: the payload is not signed. */
#define SIGV4_UNSIGNED	"UNSIGNED-PAYLOAD"

/**
 * struct sigv4_words - what stores call it
 * @secret: stands in front of the secret
 * @end: of the scope
 * @date, @payload, @token: names of headers
 */
struct sigv4_words {
	const char *algorithm;
	const char *secret;
	const char *end;
	const char *service;
	const char *date;
	const char *payload;
	const char *token;
};

extern const struct sigv4_words sigv4_aws;
extern const struct sigv4_words sigv4_google;

/* @name: in lower case */
struct sigv4_header {
	const char *name;
	const char *value;
};

/**
 * struct sigv4_request - what is signed
 * @path: absolute, escaped as it is sent
 * @query: "name=value&name", escaped as it is sent, in any order; or ""
 * @header: in any order; all of them are signed, and "host" must be there
 * @payload: hex SHA-256 of the body, or SIGV4_UNSIGNED
 */
struct sigv4_request {
	const char *method;
	const char *path;
	const char *query;
	const struct sigv4_header *header;
	size_t headers;
	const char *payload;
};

/**
 * struct sigv4_key - by whom, for whom and when
 * @service: of the words, but where the same signature has another use
 * @date: of sigv4_date(); also the value of the header that @words names
 */
struct sigv4_key {
	const char *access_key;
	const char *secret;
	const char *region;
	const char *service;
	const char *date;
	const struct sigv4_words *words;
};

void sigv4_date(time_t when, char date[SIGV4_DATE]);

/* sigv4_payload - hex SHA-256 of a body */
int sigv4_payload(const void *data, size_t bytes, char text[SHA256_TEXT]);

/**
 * sigv4_canonical - the canonical request
 * @signed_names: out, malloc()ed: names of the headers, for the answer
 *
 * Return: malloc()ed; NULL where memory is out
 */
char *sigv4_canonical(const struct sigv4_request *req, char **signed_names);

/* sigv4_string_to_sign - malloc()ed; NULL where memory is out */
char *sigv4_string_to_sign(const struct sigv4_key *key, const char *canonical);

/**
 * sigv4_sign - the value of the Authorization header
 * @value: out, malloc()ed
 *
 * Return: 0 or -ENOMEM
 */
int sigv4_sign(const struct sigv4_request *req, const struct sigv4_key *key,
	       char **value);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * s3://bucket/key and gs://bucket/key, where that is asked for, and in whose words.
 */
#ifndef LF_BUCKET_H
#define LF_BUCKET_H

#include <stdbool.h>
#include <string.h>

#include "../kmod/pure.h"
#include "error.h"

/**
 * struct bucket_words - what the stores that speak S3's language call otherwise
 * @scheme: with its slashes
 * @ubytes: header with "uncompressed-size" of an object
 * @source, @source_range, @replace: headers of a copy; @replace says that it has
 *				     metadata of its own
 * @only_new, @only_new_value: header of a request that shall fail if there is
 *			       such an object
 * @parts_only_new: it goes with the end of an upload in parts, too. Else that is
 *		    written under another name, and copied with the condition
 * @md5: bodies have a Content-MD5 instead of a signed checksum
 */
struct bucket_words {
	const char *scheme;
	const char *ubytes;
	const char *source;
	const char *source_range;
	const char *replace;
	const char *only_new;
	const char *only_new_value;
	bool parts_only_new;
	bool md5;
};

/* bucket_words - NULL: the URL is none of these */
const struct bucket_words *bucket_words(const char *url);

static inline bool bucket_is(const char *url)
{
	return bucket_words(url);
}

/**
 * enum bucket_style - where the bucket's name goes
 * @BUCKET_AUTO: into the host at AWS where it can be part of one, else into the path
 * @BUCKET_PATH: https://host/bucket/key
 * @BUCKET_VIRTUAL: https://bucket.host/key
 */
enum bucket_style { BUCKET_AUTO, BUCKET_PATH, BUCKET_VIRTUAL };

/**
 * struct bucket_url - "s3://bucket/key", "gs://bucket/key"
 * @key: escaped as it is signed and sent: all but letters, digits, "-._~" and
 *	 slashes; "" names the bucket
 */
struct bucket_url {
	char *bucket;
	char *key;
};

/**
 * bucket_parse - in the URL, % and two hex digits stand for any byte but 00
 *
 * bucket_free() is right after a failure, too.
 */
int bucket_parse(const char *text, struct bucket_url *url, struct error *e);
void bucket_free(struct bucket_url *url);

/**
 * struct bucket_target - an HTTP request's place
 * @url: all of it, without a query
 * @host: as in the Host header; NULL where nothing is signed
 * @path: of @url
 */
struct bucket_target {
	char *url;
	char *host;
	char *path;
};

/**
 * bucket_target - where an object lies
 * @endpoint: "http://host:port/path" of a service; NULL: AWS
 */
int bucket_target(const struct bucket_url *url, const char *endpoint,
		  const char *region, enum bucket_style style,
		  struct bucket_target *target, struct error *e);
void bucket_target_free(struct bucket_target *target);

/**
 * endpoint_check - can this be an endpoint?
 *
 * No user or password, query or fragment in it.
 */
int endpoint_check(const char *endpoint, struct error *e);

/**
 * bucket_answer - what a refusal says, for people
 * @body: of the answer, with a NUL behind it
 * @code: out, malloc()ed or NULL
 */
void bucket_answer(const char *body, char **code, char *why, size_t size);

/* url_host - bytes of the host, with its port unless that is the scheme's own */
size_t url_host(const char *host, bool tls);

/* url_escape - malloc()ed; @keep: characters left alone beside the unreserved */
char *url_escape(const char *text, const char *keep);

/* url_unescape - in place. False: a % that two digits do not follow, or 00 */
bool url_unescape(char *text);

#endif

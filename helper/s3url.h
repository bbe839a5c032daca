/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * s3://bucket/key, and where that is asked for.
 */
#ifndef LF_S3URL_H
#define LF_S3URL_H

#include <stdbool.h>
#include <string.h>

#include "../kmod/pure.h"
#include "error.h"

#define S3_SCHEME	"s3://"

static inline bool s3_url_is(const char *url)
{
	return !strncmp(url, S3_SCHEME, strlen(S3_SCHEME));
}

/**
 * enum s3_style - where the bucket's name goes
 * @S3_AUTO: into the host at AWS where it can be part of one, else into the path
 * @S3_PATH: https://host/bucket/key
 * @S3_VIRTUAL: https://bucket.host/key
 */
enum s3_style { S3_AUTO, S3_PATH, S3_VIRTUAL };

/**
 * struct s3_url - "s3://bucket/key"
 * @key: escaped as it is signed and sent: all but letters, digits, "-._~" and
 *	 slashes; "" names the bucket
 */
struct s3_url {
	char *bucket;
	char *key;
};

/**
 * s3_url_parse - in the URL, % and two hex digits stand for any byte but 00
 *
 * s3_url_free() is right after a failure, too.
 */
int s3_url_parse(const char *text, struct s3_url *url, struct error *e);
void s3_url_free(struct s3_url *url);

/**
 * struct s3_target - an HTTP request's place
 * @url: all of it, without a query
 * @host: as in the Host header
 * @path: of @url
 */
struct s3_target {
	char *url;
	char *host;
	char *path;
};

/**
 * s3_target - where an object lies
 * @endpoint: "http://host:port/path" of a service of your own; NULL: AWS
 */
int s3_target(const struct s3_url *url, const char *endpoint,
	      const char *region, enum s3_style style,
	      struct s3_target *target, struct error *e);
void s3_target_free(struct s3_target *target);

/**
 * s3_endpoint_check - can this be an endpoint?
 *
 * No user or password, query or fragment in it.
 */
int s3_endpoint_check(const char *endpoint, struct error *e);

/* s3_escape - malloc()ed; @keep: characters left alone beside the unreserved */
char *s3_escape(const char *text, const char *keep);

#endif

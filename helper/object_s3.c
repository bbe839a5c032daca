// SPDX-License-Identifier: GPL-2.0-only
/*
 * Objects of S3 and of what speaks like it: s3://bucket/key, gs://bucket/key.
 * Reading is that of object_http.c; writing is in s3put.c.
 */
#include <stdio.h>
#include <stdlib.h>

#include "object.h"
#include "s3ask.h"
#include "s3put.h"
#include "xml.h"

/* Reading */

static int s3_stat(const char *url, struct object_info *info, struct error *e)
{
	return object_http_ops.stat(url, info, e);
}

static int s3_get_range(const char *url, u64 off, void *buf, size_t len,
			struct error *e)
{
	return object_http_ops.get_range(url, off, buf, len, e);
}

static int s3_peek(const char *url, bool tail, size_t len, void **data,
		   struct object_info *info, struct error *e)
{
	return object_http_ops.peek(url, tail, len, data, info, e);
}

/* Finding and deleting */

/* s3://bucket, malloc()ed */
static char *only_bucket(const char *url)
{
	size_t scheme = strlen(bucket_words(url)->scheme);

	return strndup(url, scheme + strcspn(url + scheme, "/"));
}

static int s3_writable(const char *url, struct error *e)
{
	char *bucket = only_bucket(url);
	struct s3_ask ask = { .call = { .method = "HEAD", .url = bucket } };
	struct s3_reply reply = { };
	int err;

	if (!bucket)
		return no_memory(e);
	err = s3_ask(&ask, &reply, e);
	if (!err && reply.status == 404)
		err = error_set(e, -ENOENT, "%s: no such bucket; make it first",
				bucket);
	/* Who may write need not be allowed to look. */
	else if (!err && reply.status != 403)
		err = s3_expect(&ask, &reply, e);
	free(reply.body);
	free(bucket);
	return err;
}

static int s3_delete(const char *url, struct error *e)
{
	struct s3_ask ask = { .call = { .method = "DELETE", .url = url } };
	struct s3_reply reply;
	int err = s3_do(&ask, &reply, e);

	free(reply.body);
	return err;
}

/* "2026-11-23T09:45:00.000Z"; 0: in the future, or no time */
static u64 age(const char *text, time_t now)
{
	struct tm tm = { };
	time_t then;

	if (!text || !strptime(text, "%Y-%m-%dT%H:%M:%S", &tm))
		return 0;
	then = timegm(&tm);
	return then < now ? now - then : 0;
}

/* One <Contents>: <prefix><dir>/<name>, or of no interest. */
static int list_one(const char *text, size_t prefix, bool escaped, time_t now,
		    object_each *each, void *arg, struct error *e)
{
	char *key = xml_get(text, "Key", NULL);
	char *size = xml_get(text, "Size", NULL);
	char *date = xml_get(text, "LastModified", NULL), *slash, *dir;
	struct object_entry entry;
	int err = 0;

	if (!key || !size)
		goto out;
	if (escaped && !url_unescape(key)) {
		err = error_set(e, -EPROTO,
				"the store lists a name with a wrong escape");
		goto out;
	}
	if (strlen(key) < prefix)
		goto out;
	dir = key + prefix;
	slash = strchr(dir, '/');
	if (!slash || slash == dir || !slash[1] || strchr(slash + 1, '/') ||
	    *dir == '.' || slash[1] == '.')
		goto out;
	*slash = 0;
	entry = (struct object_entry){
		.dir = dir,
		.name = slash + 1,
		.bytes = strtoull(size, NULL, 10),
		.age = age(date, now),
	};
	err = each(arg, &entry, e);
out:
	free(key);
	free(size);
	free(date);
	return err;
}

/* @token: in: of this page, out: of the next; malloc()ed, or NULL */
static int list_page(const char *bucket, const char *prefix, char **token,
		     object_each *each, void *arg, struct error *e)
{
	char *escaped = url_escape(prefix, ""), *query = NULL;
	char *next = *token ? url_escape(*token, "") : NULL;
	char *item, *more, *encoding;
	struct s3_ask ask = { .call = { .method = "GET", .url = bucket } };
	struct s3_reply reply = { };
	const char *at;
	int err = -ENOMEM;

	if (escaped && (next || !*token) &&
	    asprintf(&query, "%s%s%sencoding-type=url&list-type=2&prefix=%s",
		     next ? "continuation-token=" : "", next ? next : "",
		     next ? "&" : "", escaped) >= 0) {
		ask.call.query = query;
		err = s3_do(&ask, &reply, e);
	} else {
		query = NULL;
		error_set(e, err, "out of memory");
	}
	free(*token);
	*token = NULL;
	if (err)
		goto out;
	/* Not all that are asked to escape keys do so; those say it. */
	encoding = xml_get(reply.body, "EncodingType", NULL);
	at = reply.body;
	while (!err && (item = xml_get(NULL, "Contents", &at))) {
		err = list_one(item, strlen(prefix),
			       encoding && !strcmp(encoding, "url"),
			       reply.now ? reply.now : time(NULL), each, arg,
			       e);
		free(item);
	}
	more = xml_get(reply.body, "IsTruncated", NULL);
	if (!err && more && !strcmp(more, "true")) {
		*token = xml_get(reply.body, "NextContinuationToken", NULL);
		/* To stop here would make layers look unused. */
		if (!*token)
			err = error_set(e, -EPROTO,
					"%s: the listing breaks off", bucket);
	}
	free(more);
	free(encoding);
out:
	free(reply.body);
	free(query);
	free(next);
	free(escaped);
	return err;
}

static int s3_list(const char *url, object_each *each, void *arg,
		   struct error *e)
{
	char *bucket = only_bucket(url), *token = NULL, *prefix = NULL;
	struct bucket_url parsed;
	size_t len;
	int err;

	err = bucket_parse(url, &parsed, e);
	if (err)
		goto out;
	/* It was checked when it was parsed. */
	(void)url_unescape(parsed.key);
	len = strlen(parsed.key);
	while (len && parsed.key[len - 1] == '/')
		len--;
	if (!bucket || asprintf(&prefix, "%.*s%s", (int)len, parsed.key,
				len ? "/" : "") < 0) {
		prefix = NULL;
		err = no_memory(e);
		goto out;
	}
	do {
		err = list_page(bucket, prefix, &token, each, arg, e);
	} while (!err && token);
out:
	free(token);
	free(prefix);
	free(bucket);
	bucket_free(&parsed);
	return err;
}

const struct object_ops object_s3_ops = {
	.scheme = "s3",
	.writable = s3_writable,
	.stat = s3_stat,
	.get_range = s3_get_range,
	.peek = s3_peek,
	.put = s3_put,
	.put_begin = s3_put_begin,
	.put_part = s3_put_part,
	.put_commit = s3_put_commit,
	.put_abort = s3_put_abort,
	.delete = s3_delete,
	.list = s3_list,
};

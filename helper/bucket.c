// SPDX-License-Identifier: GPL-2.0-only
#include "bucket.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "xml.h"

static const struct bucket_words stores[] = {
	{
		.scheme = "s3://",
		.ubytes = "x-amz-meta-uncompressed-size",
		.source = "x-amz-copy-source",
		.source_range = "x-amz-copy-source-range",
		.replace = "x-amz-metadata-directive",
		.only_new = "if-none-match",
		.only_new_value = "*",
		.parts_only_new = true,
	}, {
		.scheme = "gs://",
		.ubytes = "x-goog-meta-uncompressed-size",
		.source = "x-goog-copy-source",
		.replace = "x-goog-metadata-directive",
		.only_new = "x-goog-if-generation-match",
		.only_new_value = "0",
		.md5 = true,
	},
};

const struct bucket_words *bucket_words(const char *url)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(stores); i++)
		if (!strncmp(url, stores[i].scheme, strlen(stores[i].scheme)))
			return &stores[i];
	return NULL;
}

static int unhex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

char *url_escape(const char *text, const char *keep)
{
	char *to = malloc(3 * strlen(text) + 1), *p = to;

	if (!to)
		return NULL;
	for (; *text; text++) {
		unsigned char c = *text;

		if ((c < 0x80 && isalnum(c)) || strchr("-._~", c) ||
		    strchr(keep, c))
			*p++ = c;
		else
			p += sprintf(p, "%%%02X", c);
	}
	*p = 0;
	return to;
}

bool url_unescape(char *text)
{
	char *to = text;

	while (*text) {
		int high, low;

		if (*text != '%') {
			*to++ = *text++;
			continue;
		}
		high = unhex(text[1]);
		low = high < 0 ? -1 : unhex(text[2]);
		if (low < 0 || !(high | low))
			return false;
		*to++ = high << 4 | low;
		text += 3;
	}
	*to = 0;
	return true;
}

size_t url_host(const char *host, bool tls)
{
	const char *port = tls ? ":443" : ":80";
	size_t len = strcspn(host, "/?#");

	if (len > strlen(port) &&
	    !strncmp(host + len - strlen(port), port, strlen(port)))
		len -= strlen(port);
	return len;
}

/* What any store takes for a name, and nothing that could change a URL. */
static bool bucket_valid(const char *name)
{
	size_t len = strlen(name), i;

	for (i = 0; i < len; i++)
		if (!isascii(name[i]) ||
		    (!isalnum(name[i]) && (!i || !strchr("._-", name[i]))))
			return false;
	return len >= 3 && len <= 255;
}

/* Can it stand in front of a host that has a certificate for *.host? */
static bool bucket_is_label(const char *name)
{
	size_t len = strlen(name);

	return len <= 63 && isalnum((unsigned char)name[len - 1]) &&
	       strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

int bucket_parse(const char *text, struct bucket_url *url, struct error *e)
{
	const struct bucket_words *words = bucket_words(text);
	const char *p, *slash;
	char *key;

	memset(url, 0, sizeof(*url));
	if (!words)
		return error_set(e, -EINVAL, "%s: names no bucket", text);
	p = text + strlen(words->scheme);
	slash = strchrnul(p, '/');
	if (strpbrk(p, "?#"))
		return error_set(e, -EINVAL,
				 "%s: a URL of %s has no query or fragment; write %%3F for ? and %%23 for #",
				 text, words->scheme);
	url->bucket = strndup(p, slash - p);
	key = strdup(*slash ? slash + 1 : "");
	if (!url->bucket || !key) {
		free(key);
		return no_memory(e);
	}
	if (!bucket_valid(url->bucket)) {
		free(key);
		return error_set(e, -EINVAL,
				 "%s: \"%s\" is no bucket's name; objects are named %sbucket/key",
				 text, url->bucket, words->scheme);
	}
	if (!url_unescape(key)) {
		free(key);
		return error_set(e, -EINVAL,
				 "%s: a %% that two hex digits, not 00, do not follow; write %%25 for %%",
				 text);
	}
	url->key = url_escape(key, "/");
	free(key);
	return url->key ? 0 : no_memory(e);
}

void bucket_free(struct bucket_url *url)
{
	free(url->bucket);
	free(url->key);
	memset(url, 0, sizeof(*url));
}

int endpoint_check(const char *endpoint, struct error *e)
{
	size_t scheme = !strncmp(endpoint, "https://", 8) ? 8 :
			!strncmp(endpoint, "http://", 7) ? 7 : 0;
	const char *host = endpoint + scheme;
	size_t i;

	if (!scheme || !strcspn(host, "/"))
		return error_set(e, -EINVAL,
				 "\"%s\" is no endpoint; one is https://host or http://host:port",
				 endpoint);
	/* The text is not shown: there may be a password in it. */
	if (strpbrk(host, "@?#"))
		return error_set(e, -EINVAL,
				 "the endpoint's URL has a user, query or fragment; an endpoint has none of them");
	for (i = 0; host[i]; i++)
		if ((unsigned char)host[i] <= ' ' || host[i] == 0x7f)
			return error_set(e, -EINVAL,
					 "the endpoint's URL has spaces or control characters");
	return 0;
}

/* The host as libcurl sends it: without a port that is the scheme's own. */
static char *endpoint_host(const char *endpoint, const char **path)
{
	const char *host = strstr(endpoint, "://") + 3;

	*path = host + strcspn(host, "/");
	return strndup(host, url_host(host, !strncmp(endpoint, "https:", 6)));
}

int bucket_target(const struct bucket_url *url, const char *endpoint,
		  const char *region, enum bucket_style style,
		  struct bucket_target *target, struct error *e)
{
	const char *prefix = "", *scheme = "https";
	char *host = NULL;
	size_t len;

	memset(target, 0, sizeof(*target));
	if (endpoint) {
		scheme = !strncmp(endpoint, "https:", 6) ? "https" : "http";
		host = endpoint_host(endpoint, &prefix);
	} else if (asprintf(&host, "s3.%s.amazonaws.com%s", region,
			    !strncmp(region, "cn-", 3) ? ".cn" : "") < 0) {
		host = NULL;
	}
	if (!host)
		goto nomem;
	if (style == BUCKET_AUTO)
		style = endpoint || !bucket_is_label(url->bucket) ?
			BUCKET_PATH : BUCKET_VIRTUAL;
	for (len = strlen(prefix); len && prefix[len - 1] == '/'; len--)
		;
	if (style == BUCKET_VIRTUAL) {
		if (asprintf(&target->host, "%s.%s", url->bucket, host) < 0)
			target->host = NULL;
		if (asprintf(&target->path, "%.*s/%s", (int)len, prefix,
			     url->key) < 0)
			target->path = NULL;
	} else {
		target->host = strdup(host);
		if (asprintf(&target->path, "%.*s/%s%s%s", (int)len, prefix,
			     url->bucket, *url->key ? "/" : "", url->key) < 0)
			target->path = NULL;
	}
	if (!target->host || !target->path)
		goto nomem;
	if (asprintf(&target->url, "%s://%s%s", scheme, target->host,
		     target->path) < 0) {
		target->url = NULL;
		goto nomem;
	}
	free(host);
	return 0;
nomem:
	free(host);
	bucket_target_free(target);
	return no_memory(e);
}

void bucket_target_free(struct bucket_target *target)
{
	free(target->url);
	free(target->host);
	free(target->path);
	memset(target, 0, sizeof(*target));
}

void bucket_answer(const char *body, char **code, char *why, size_t size)
{
	char *region;

	*code = xml_get(body, "Code", NULL);
	region = xml_get(body, "Region", NULL);
	snprintf(why, size, "%.48s%s%.32s", *code ? *code : "no reason given",
		 region ? "; set AWS_REGION to " : "", region ? region : "");
	free(region);
}

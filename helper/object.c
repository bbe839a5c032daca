// SPDX-License-Identifier: GPL-2.0-only
#include "object.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

static const struct {
	const char *prefix;
	const struct object_ops *ops;
} schemes[] = {
	{ "file://", &object_file_ops },
	{ "http://", &object_http_ops },
	{ "https://", &object_http_ops },
	{ "s3://", &object_s3_ops },
	{ "gs://", &object_s3_ops },
};

const struct object_ops *object_ops(const char *url, struct error *e)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(schemes); i++)
		if (!strncmp(url, schemes[i].prefix,
			     strlen(schemes[i].prefix)))
			return schemes[i].ops;
	if (!strstr(url, "://"))
		error_set(e, -EINVAL,
			  "%s: not a URL; a file is named file:///directory/name",
			  url);
	else
		error_set(e, -EPROTONOSUPPORT,
			  "%s: unknown kind of URL; known are file://, http://, https://, s3:// and gs://",
			  url);
	return NULL;
}

int object_get(const char *url, u64 max, void **data, size_t *bytes,
	       struct error *e)
{
	const struct object_ops *ops = object_ops(url, e);
	struct object_info info;
	void *buf;
	int err;

	if (!ops)
		return -EINVAL;
	err = ops->stat(url, &info, e);
	if (err)
		return err;
	if (info.bytes > max)
		return error_set(e, -EFBIG,
				 "%s: %llu bytes, more than the %llu that are allowed here",
				 url, (unsigned long long)info.bytes,
				 (unsigned long long)max);
	buf = malloc(info.bytes + 1);
	if (!buf)
		return error_set(e, -ENOMEM, "%s: no memory for %llu bytes",
				 url, (unsigned long long)info.bytes);
	err = ops->get_range(url, 0, buf, info.bytes, e);
	if (err) {
		free(buf);
		return err;
	}
	*data = buf;
	*bytes = info.bytes;
	return 0;
}

char *object_url_escape(const char *name)
{
	char *url = malloc(3 * strlen(name) + 1), *p = url;

	if (!url)
		return NULL;
	for (; *name; name++) {
		unsigned char c = *name;

		/* What RFC 3986 calls unreserved. */
		if (isalnum(c) || strchr("-._~", c))
			*p++ = c;
		else
			p += sprintf(p, "%%%02X", c);
	}
	*p = 0;
	return url;
}

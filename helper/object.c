// SPDX-License-Identifier: GPL-2.0-only
#include "object.h"

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

/* As object_ops.peek, from every store, by two requests if need be. */
static int peek(const char *url, bool tail, size_t len, void **data,
		struct object_info *info, struct error *e)
{
	const struct object_ops *ops = object_ops(url, e);
	int err = -EAGAIN;
	void *buf;

	if (!ops)
		return -EINVAL;
	if (ops->peek)
		err = ops->peek(url, tail, len, data, info, e);
	if (err != -EAGAIN)
		return err;
	err = ops->stat(url, info, e);
	if (err)
		return err;
	if (info->bytes < len)
		len = info->bytes;
	else if (info->bytes > len && !tail)
		return -EFBIG;
	buf = malloc(len + 1);
	if (!buf)
		return error_set(e, -ENOMEM, "%s: no memory for %zu bytes",
				 url, len);
	err = ops->get_range(url, info->bytes - len, buf, len, e);
	if (err)
		free(buf);
	else
		*data = buf;
	return err;
}

int object_get(const char *url, u64 max, void **data, size_t *bytes,
	       struct error *e)
{
	struct object_info info;
	int err = peek(url, false, max, data, &info, e);

	if (err == -EFBIG)
		error_set(e, err,
			  "%s: %llu bytes, more than the %llu that are allowed here",
			  url, (unsigned long long)info.bytes,
			  (unsigned long long)max);
	if (!err)
		*bytes = info.bytes;
	return err;
}

int object_tail(const char *url, size_t len, void **data,
		struct object_info *info, struct error *e)
{
	return peek(url, true, len, data, info, e);
}

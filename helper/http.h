/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Ranges of http://, https://, s3:// and gs:// objects, by libcurl's multi interface.
 */
#ifndef LF_HTTP_H
#define LF_HTTP_H

#include "fetch.h"

/**
 * struct http_options
 * @connections: per origin, as in struct fetch_options
 * @cafile: PEM file with the authorities to trust; read once, now; NULL: none
 *	    is trusted, so every https transfer fails
 * @verbose: libcurl's own account of what it does, at LOG_DEBUG
 */
struct http_options {
	unsigned int connections;
	const char *cafile;
	bool verbose;
};

/**
 * http_new - memory and handles for all transfers that can ever run at once
 *
 * Return: NULL after an error that was logged.
 */
struct transport *http_new(struct loop *loop, const struct http_options *opt);

/**
 * http_credentials - from now on credentials are renewed
 *
 * By a thread, which inherits what its creator may do.
 * Return: 0 or a negative errno
 */
int http_credentials(struct transport *t);

/* http_reload - read again where credentials come from */
void http_reload(struct transport *t);

/* http_free - after fetch_free() */
void http_free(struct transport *t);

#endif

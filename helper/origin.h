/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Servers of http:// and https:// that want to know who asks. The file that
 * LAZYFRAME_HTTP_CONFIG names has a section for each:
 *
 *	[https://images.example:8443]
 *	bearer_file = /etc/lazyframe/token
 *	header_file = /etc/lazyframe/headers
 *	certificate = /etc/lazyframe/client.pem
 *	key = /etc/lazyframe/client.key
 *
 * What is secret goes to that scheme, host and port alone.
 */
#ifndef LF_ORIGIN_H
#define LF_ORIGIN_H

#include "error.h"
#include "../kmod/pure.h"

/**
 * origin_of - scheme, host and port of a URL, in one spelling
 *
 * Return: malloc()ed; NULL: it is neither http:// nor https://, or has no host, or
 * has a user or a password, or memory is out
 */
char *origin_of(const char *url);

/**
 * origin_list - all that the file has
 * @names: out: of origin_of(), NULL at the end, malloc()ed; origin_list_free()
 */
int origin_list(char ***names, struct error *e);
void origin_list_free(char **names);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whom to trust for https: one way for the daemon and the commands.
 */
#ifndef LF_TLS_H
#define LF_TLS_H

#include <curl/curl.h>

#include "../kmod/pure.h"
#include "error.h"

/**
 * struct tls
 * @authorities: PEM, in memory: no transfer waits for a disk. No data: none but
 *		 the system's, if @system is set, is trusted
 */
struct tls {
	struct curl_blob authorities;
	bool system;
};

/**
 * tls_cafile - the file with the authorities to trust instead of the system's
 * @option: what --cafile says, or NULL: the environment counts
 *
 * Return: NULL where none is named
 */
const char *tls_cafile(const char *option);

/* tls_load - from a file, or with @path NULL the system's; then tls_free() */
int tls_load(struct tls *tls, const char *path, struct error *e);
void tls_free(struct tls *tls);

/* tls_apply - @tls has to stay until the transfer has ended */
CURLcode tls_apply(CURL *curl, const struct tls *tls);

#endif

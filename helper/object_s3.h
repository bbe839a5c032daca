/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What object_http.c and object_s3.c share: connections, and signing for the
 * commands.
 */
#ifndef LF_OBJECT_S3_H
#define LF_OBJECT_S3_H

#include <curl/curl.h>

#include "object.h"
#include "s3.h"

/* handle_take - a CURL with its connections, no option set; NULL: no memory */
void *handle_take(void);
void handle_give(CURL *curl);

/* object_s3_sign - as s3_sign(), by the one that this process has */
int object_s3_sign(const struct s3_call *call, struct s3_signed *sig,
		   struct error *e);

/**
 * object_s3_answer - tell what came of it
 * @body: of an answer that refuses
 *
 * Return: is it worth signing once more?
 */
bool object_s3_answer(const struct s3_signed *sig, long status,
		      const char *body, const char *date);

#endif

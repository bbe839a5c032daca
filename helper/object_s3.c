// SPDX-License-Identifier: GPL-2.0-only
/*
 * Objects of S3 and of what speaks like it: s3://bucket/key. Reading is that of
 * object_http.c, with a signature.
 */
#include "object_s3.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct s3 *s3;	/* for the life of the process */

/* Signing */

static void on_warning(const char *text)
{
	fprintf(stderr, "lazyframe: warning: %s\n", text);
}

int object_s3_sign(const struct s3_call *call, struct s3_signed *sig,
		   struct error *e)
{
	int err = 0;

	memset(sig, 0, sizeof(*sig));
	pthread_mutex_lock(&lock);
	if (!s3)
		err = s3_open(&s3, on_warning, NULL, e);
	pthread_mutex_unlock(&lock);
	return err ? err : s3_sign(s3, call, sig, e);
}

bool object_s3_answer(const struct s3_signed *sig, long status,
		      const char *body, const char *date)
{
	bool again = false;
	char *code, why[64];

	if (status < 300) {
		s3_accepted(s3, sig);
	} else if (status == 400 || status == 401 || status == 403) {
		s3_answer(body, &code, why, sizeof(why));
		again = s3_refused(s3, sig, status, code, date);
		free(code);
	}
	return again;
}

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

const struct object_ops object_s3_ops = {
	.scheme = "s3",
	.stat = s3_stat,
	.get_range = s3_get_range,
};

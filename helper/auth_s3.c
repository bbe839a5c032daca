// SPDX-License-Identifier: GPL-2.0-only
/*
 * s3://: signatures, with keys from wherever aws_load() finds that they come from.
 */
#include "auth.h"

#include <stdlib.h>

static int s3_load(const char *origin, void **conf, secret_warn *warn,
		   struct error *e)
{
	struct aws *aws = NULL;
	int err = aws_load(&aws, warn, e);

	(void)origin;
	*conf = aws;
	return err;
}

static void s3_unload(void *conf)
{
	aws_free(conf);
}

static enum auth_source s3_source(const void *conf)
{
	const struct aws *aws = conf;

	switch (aws->source) {
	case AWS_KEYS:
		return AUTH_AT_HAND;
	case AWS_INSTANCE:
		return AUTH_PERHAPS;
	default:
		return AUTH_NAMED;
	}
}

static int s3_get(const void *conf, const struct web *web,
		  struct credentials *cred, struct error *e)
{
	const struct aws *aws = conf;

	switch (aws->source) {
	case AWS_KEYS:
		return credentials_keys(aws->access_key, aws->secret,
					aws->token, aws->from ? aws->from :
					"keys", cred, e);
	case AWS_WEB_IDENTITY:
		return credentials_web_identity(aws, web, cred, e);
	case AWS_CONTAINER:
		return credentials_container(aws, web, cred, e);
	default:
		return credentials_instance(aws, web, cred, e);
	}
}

static int s3_place(const void *conf, const struct bucket_url *url,
		    struct auth_place *place, struct error *e)
{
	const struct aws *aws = conf;

	place->region = aws->region;
	return bucket_target(url, aws->endpoint, aws->region, aws->style,
			     &place->target, e);
}

const struct auth_kind auth_s3 = {
	.name = "s3",
	.words = &sigv4_aws,
	.load = s3_load,
	.unload = s3_unload,
	.source = s3_source,
	.get = s3_get,
	.place = s3_place,
};

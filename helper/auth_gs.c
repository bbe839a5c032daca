// SPDX-License-Identifier: GPL-2.0-only
/*
 * gs://: an access token in each request, or with an HMAC key a signature.
 */
#include "auth.h"

#include <stdlib.h>

#include "gs.h"

static int load(const char *origin, void **conf, secret_warn *warn,
		struct error *e)
{
	struct gs *gs = NULL;
	int err = gs_load(&gs, warn, e);

	(void)origin;
	*conf = gs;
	return err;
}

static void unload(void *conf)
{
	gs_free(conf);
}

static enum auth_source source(const void *conf)
{
	const struct gs *gs = conf;

	switch (gs->source) {
	case GS_KEYS:
	case GS_TOKEN:
	case GS_NONE:
		return AUTH_AT_HAND;
	case GS_INSTANCE:
		return AUTH_PERHAPS;
	default:
		return AUTH_NAMED;
	}
}

static int get(const void *conf, const struct web *web,
	       struct credentials *cred, struct error *e)
{
	const struct gs *gs = conf;

	switch (gs->source) {
	case GS_KEYS:
		return credentials_keys(gs->access_key, gs->secret, NULL,
					gs->from, cred, e);
	case GS_TOKEN:
		cred->seconds = CREDENTIALS_FILE_SECONDS;
		return credentials_bearer_file(gs->token_file, web->warn, cred,
					       e);
	case GS_NONE:
		return 0;
	case GS_INSTANCE:
		return credentials_gce(gs, web, cred, e);
	default:
		return credentials_google(gs, web, cred, e);
	}
}

static int place(const void *conf, const struct bucket_url *url,
		 struct auth_place *place, struct error *e)
{
	const struct gs *gs = conf;

	/* What a signature's scope has is not looked at. */
	place->region = "auto";
	return bucket_target(url, gs->endpoint, "auto", BUCKET_PATH,
			     &place->target, e);
}

const struct auth_kind auth_gs = {
	.name = "gs",
	.words = &sigv4_google,
	.load = load,
	.unload = unload,
	.source = source,
	.get = get,
	.place = place,
};

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Access tokens of the service account that a Compute Engine instance has, from
 * its metadata server.
 */
#include <stdio.h>
#include <stdlib.h>

#include "gs.h"

#define TOKEN	"/computeMetadata/v1/instance/service-accounts/default/token"
#define FLAVOR	"Metadata-Flavor"
#define NOT_FOUND \
	"no credentials in environment or files (see GOOGLE_APPLICATION_CREDENTIALS), and of this instance"

int credentials_gce(const struct gs *gs, const struct web *web,
		    struct credentials *cred, struct error *e)
{
	/* Without it, a confused proxy could be made to ask. */
	static const char *const header[] = { FLAVOR ": Google", NULL };
	struct web_request req = {
		.method = "GET",
		.header = header,
		.direct = true,
		.want = FLAVOR,
	};
	struct web_answer answer;
	char *url;
	int err;

	if (!gs->metadata)
		return error_set(e, -ENOENT,
				 "no credentials: set GOOGLE_APPLICATION_CREDENTIALS to the file with a service account's key; the metadata server is switched off by NO_GCE_CHECK");
	if (asprintf(&url, "http://%s" TOKEN, gs->metadata) < 0)
		return no_memory(e);
	req.url = url;
	err = web_ask(web, &req, &answer, e);
	free(url);
	if (err)
		goto out;
	/* Whoever answers for a name that is not known, it is not Google. */
	if (strcmp(answer.wanted, "Google"))
		err = error_set(e, -EPROTO,
				"what answers at %s is no metadata server",
				gs->metadata);
	else if (answer.status == 404)
		err = error_set(e, -ENOENT,
				"the instance has no service account");
	else if (answer.status != 200)
		err = error_set(e, -EACCES, "the metadata server says %ld",
				answer.status);
	else
		err = credentials_oauth(answer.body, cred, e);
	secret_free(answer.body);
out:
	if (err)
		error_prefix(e, NOT_FOUND);
	return err;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Credentials of an EC2 instance, by version 2 of its metadata service alone: a
 * PUT gives a session's token, which goes with the GETs for the role's name and
 * its keys. Version 1, without the token, is what a confused proxy could be
 * made to ask.
 */
#include <stdio.h>
#include <stdlib.h>

#include "credentials.h"
#include "secret.h"

#define ROLES	"/latest/meta-data/iam/security-credentials/"

/* One answer of status 200, or an error that says what was asked for. */
static int ask(const struct aws *aws, const struct web *web, const char *method,
	       const char *path, const char *header, const char *what,
	       struct web_answer *answer, struct error *e)
{
	const char *const headers[] = { header, NULL };
	size_t len = strlen(aws->metadata);
	struct web_request req = {
		.method = method,
		.header = headers,
		.direct = true,
	};
	char *url;
	int err;

	while (len && aws->metadata[len - 1] == '/')
		len--;
	if (asprintf(&url, "%.*s%s", (int)len, aws->metadata, path) < 0)
		return no_memory(e);
	req.url = url;
	err = web_ask(web, &req, answer, e);
	free(url);
	if (err)
		return err;
	if (answer->status == 200)
		return 0;
	secret_free(answer->body);
	return error_set(e, answer->status == 404 ? -ENOENT : -EACCES,
			 "%s: the metadata service says %ld", what,
			 answer->status);
}

/* The first line of the list is the name of the role. */
static int role_path(const char *list, char **path, struct error *e)
{
	size_t len = strcspn(list, "\r\n");
	char *name = strndup(list, len), *escaped;

	escaped = name ? url_escape(name, "") : NULL;
	free(name);
	if (!escaped || asprintf(path, ROLES "%s", escaped) < 0) {
		free(escaped);
		return no_memory(e);
	}
	free(escaped);
	if (len)
		return 0;
	free(*path);
	return error_set(e, -ENOENT, "the instance has no role");
}

int credentials_instance(const struct aws *aws, const struct web *web,
			 struct credentials *cred, struct error *e)
{
	struct web_answer answer;
	char *line = NULL, *path;
	int err;

	if (!aws->metadata)
		return error_set(e, -ENOENT,
				 "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write them to ~/.aws/credentials; instance metadata is switched off by AWS_EC2_METADATA_DISABLED");
	err = ask(aws, web, "PUT", "/latest/api/token",
		  "X-aws-ec2-metadata-token-ttl-seconds: 21600", "a token",
		  &answer, e);
	if (err)
		goto out;
	if (!strpbrk(answer.body, "\r\n") &&
	    asprintf(&line, "X-aws-ec2-metadata-token: %s", answer.body) < 0)
		line = NULL;
	secret_free(answer.body);
	if (!line) {
		err = error_set(e, -EPROTO,
				"a token: the answer is not one line");
		goto out;
	}
	err = ask(aws, web, "GET", ROLES, line, "the role's name", &answer, e);
	if (err)
		goto out;
	err = role_path(answer.body, &path, e);
	secret_free(answer.body);
	if (err)
		goto out;
	err = ask(aws, web, "GET", path, line, "the role's keys", &answer, e);
	free(path);
	if (err)
		goto out;
	err = credentials_json(answer.body, answer.date, cred, e);
	secret_free(answer.body);
out:
	secret_free(line);
	if (err)
		error_prefix(e, "no keys in environment or ~/.aws, and of this instance");
	return err;
}

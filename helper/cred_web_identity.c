// SPDX-License-Identifier: GPL-2.0-only
/*
 * Credentials for the token of an identity provider (Kubernetes service
 * accounts, CI systems): STS is asked for AssumeRoleWithWebIdentity. The request
 * needs no signature; the token's file is read anew each time, for it changes.
 */
#include <stdio.h>
#include <stdlib.h>

#include "credentials.h"
#include "secret.h"
#include "xml.h"

static char *make_body(const struct aws *aws, const char *token)
{
	char *role = url_escape(aws->role, "");
	char *session = url_escape(aws->session ? aws->session : "lazyframe", "");
	char *escaped = url_escape(token, ""), *body = NULL;

	if (role && session && escaped &&
	    asprintf(&body,
		     "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=%s&RoleSessionName=%s&WebIdentityToken=%s",
		     role, session, escaped) < 0)
		body = NULL;
	free(role);
	free(session);
	secret_free(escaped);
	return body;
}

static char *make_url(const struct aws *aws)
{
	bool slash = aws->sts && aws->sts[strlen(aws->sts) - 1] == '/';
	char *url;
	int n;

	if (aws->sts)
		n = asprintf(&url, "%s%s", aws->sts, slash ? "" : "/");
	else
		n = asprintf(&url, "https://sts.%s.amazonaws.com%s/",
			     aws->region,
			     !strncmp(aws->region, "cn-", 3) ? ".cn" : "");
	return n < 0 ? NULL : url;
}

static int refusal(const struct web_answer *answer, struct error *e)
{
	char *code = xml_get(answer->body, "Code", NULL);
	int err;

	err = error_set(e, -EACCES, "STS says %ld%s%.64s", answer->status,
			code ? " " : "", code ? code : "");
	free(code);
	return err;
}

int credentials_web_identity(const struct aws *aws, const struct web *web,
			     struct credentials *cred, struct error *e)
{
	struct web_request req = { .method = "POST" };
	char *token, *body = NULL, *url = NULL;
	struct web_answer answer;
	int err;

	err = secret_file(aws->token_file, web->warn, &token, e);
	if (err)
		goto out;
	body = make_body(aws, token);
	url = make_url(aws);
	secret_free(token);
	if (!body || !url) {
		err = no_memory(e);
		goto out;
	}
	req.url = url;
	req.body = body;
	err = web_ask(web, &req, &answer, e);
	if (err)
		goto out;
	if (answer.status == 200)
		err = credentials_xml(answer.body, answer.date, cred, e);
	else
		err = refusal(&answer, e);
	secret_free(answer.body);
out:
	free(url);
	secret_free(body);
	if (err)
		error_prefix(e, "credentials for the web identity of %s",
			     aws->role);
	return err;
}

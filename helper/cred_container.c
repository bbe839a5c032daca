// SPDX-License-Identifier: GPL-2.0-only
/*
 * Credentials of a container (ECS, EKS Pod Identity): a GET of the agent's URL,
 * with a token that the environment or a file gives, which may change.
 */
#include <stdio.h>
#include <stdlib.h>

#include "credentials.h"
#include "secret.h"

static int make_header(const struct aws *aws, const struct web *web,
		       char **line, struct error *e)
{
	const char *token = aws->agent_token;
	char *read = NULL;
	int err = 0;

	*line = NULL;
	if (aws->token_file) {
		err = secret_file(aws->token_file, web->warn, &read, e);
		token = read;
	}
	if (!err && token && strpbrk(token, "\r\n"))
		err = error_set(e, -EINVAL,
				"the container's authorization token has several lines");
	if (!err && token && asprintf(line, "Authorization: %s", token) < 0) {
		*line = NULL;
		err = no_memory(e);
	}
	secret_free(read);
	return err;
}

static int ask(const struct aws *aws, const struct web *web, const char *line,
	       struct web_answer *answer, struct error *e)
{
	const char *const header[] = { line, NULL };
	struct web_request req = {
		.method = "GET",
		.url = aws->agent,
		.header = header,
		.direct = true,
	};

	return web_ask(web, &req, answer, e);
}

int credentials_container(const struct aws *aws, const struct web *web,
			  struct credentials *cred, struct error *e)
{
	struct web_answer answer;
	char *line;
	int err;

	err = make_header(aws, web, &line, e);
	if (!err)
		err = ask(aws, web, line, &answer, e);
	secret_free(line);
	if (err)
		goto out;
	if (answer.status != 200)
		err = error_set(e, -EACCES, "the agent says %ld",
				answer.status);
	else
		err = credentials_json(answer.body, answer.date, cred, e);
	secret_free(answer.body);
out:
	if (err)
		error_prefix(e, "credentials of this container");
	return err;
}

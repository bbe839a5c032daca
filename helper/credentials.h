/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What shows a server who asks.
 */
#ifndef LF_CREDENTIALS_H
#define LF_CREDENTIALS_H

#include "aws.h"
#include "web.h"

/**
 * struct credentials
 * @access_key, @secret, @token: to sign with; @token is a session's, or NULL. No
 *				 @access_key: nothing is signed
 * @lines: of the request's head instead, with a newline between two; or NULL
 * @cert, @key: of a client, for TLS, PEM; or NULL
 * @seconds: they are good for so long from now; 0: there is no end to them.
 *	     By the clock of who gave them, where that is known.
 */
struct credentials {
	char *access_key;
	char *secret;
	char *token;
	char *lines;
	char *cert;
	char *key;
	u64 seconds;
};

/* credentials_free - they are wiped, and may be freed again */
void credentials_free(struct credentials *cred);

/* What a file holds is read again so often, whether it has changed or not. */
#define CREDENTIALS_FILE_SECONDS	60

/* credentials_env - of the environment; NULL: not there, or empty */
const char *credentials_env(const char *name);

/* credentials_home - a file in the user's home directory; malloc()ed */
char *credentials_home(const char *tail);

/* credentials_copy - NULL stays NULL, and so becomes "" */
int credentials_copy(char **to, const char *text, struct error *e);

/**
 * credentials_keys - copies, checked
 * @from: who says so, for an error
 */
int credentials_keys(const char *access_key, const char *secret,
		     const char *token, const char *from,
		     struct credentials *cred, struct error *e);

/* credentials_check - can these keys stand in a header's line? */
int credentials_check(const struct credentials *cred, struct error *e);

/**
 * credentials_json - as container agents and the instance's metadata give them
 * @date: what time it is there, or 0
 */
int credentials_json(const char *text, time_t date, struct credentials *cred,
		     struct error *e);

/* credentials_xml - as AssumeRoleWithWebIdentity gives them */
int credentials_xml(const char *text, time_t date, struct credentials *cred,
		    struct error *e);

/**
 * credentials_oauth - "access_token" and "expires_in", for a bearer
 */
int credentials_oauth(const char *text, struct credentials *cred,
		      struct error *e);

/**
 * credentials_bearer - the line for a token
 *
 * Return: 0, -EINVAL if it cannot stand there, or -ENOMEM
 */
int credentials_bearer(const char *token, struct credentials *cred,
		       struct error *e);

/* credentials_bearer_file - the same for a file's; it sets no end */
int credentials_bearer_file(const char *path, secret_warn *warn,
			    struct credentials *cred, struct error *e);

/* One source of the AWS ones each; see enum aws_source. */
int credentials_web_identity(const struct aws *aws, const struct web *web,
			     struct credentials *cred, struct error *e);
int credentials_container(const struct aws *aws, const struct web *web,
			  struct credentials *cred, struct error *e);
int credentials_instance(const struct aws *aws, const struct web *web,
			 struct credentials *cred, struct error *e);

#endif

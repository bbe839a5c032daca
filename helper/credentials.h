/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Keys to sign with, from wherever aws_load() found that they come from.
 */
#ifndef LF_CREDENTIALS_H
#define LF_CREDENTIALS_H

#include "web.h"

/**
 * struct credentials
 * @token: session token, or NULL
 * @seconds: they are good for so long from now; 0: there is no end to them.
 *	     By the clock of who gave them, where that is known.
 */
struct credentials {
	char *access_key;
	char *secret;
	char *token;
	u64 seconds;
};

/**
 * credentials_get - may wait for a network service
 *
 * No secret gets into an error's text. credentials_free() also after a failure.
 */
int credentials_get(const struct aws *aws, const struct web *web,
		    struct credentials *cred, struct error *e);
void credentials_free(struct credentials *cred);

/**
 * credentials_json - as container agents and the instance's metadata give them
 * @date: what time it is there, or 0
 */
int credentials_json(const char *text, time_t date, struct credentials *cred,
		     struct error *e);

/* credentials_xml - as AssumeRoleWithWebIdentity gives them */
int credentials_xml(const char *text, time_t date, struct credentials *cred,
		    struct error *e);

/* One source each; see enum aws_source. */
int credentials_web_identity(const struct aws *aws, const struct web *web,
			     struct credentials *cred, struct error *e);
int credentials_container(const struct aws *aws, const struct web *web,
			  struct credentials *cred, struct error *e);
int credentials_instance(const struct aws *aws, const struct web *web,
			 struct credentials *cred, struct error *e);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the environment and the files of Google's tools say: where Cloud Storage
 * is, and where credentials come from. Names and order are those of the Google
 * Cloud libraries and gcloud.
 */
#ifndef LF_GS_H
#define LF_GS_H

#include "credentials.h"

/**
 * enum gs_source - in the order in which they are looked for
 * @GS_KEYS: an HMAC key, from the environment
 * @GS_TOKEN: a file with an access token, that somebody else renews
 * @GS_ACCOUNT: a service account's private key
 * @GS_USER: a user's refresh token
 * @GS_NONE: an emulator, and nobody has named credentials
 * @GS_INSTANCE: the metadata server of a Compute Engine instance
 */
enum gs_source {
	GS_KEYS,
	GS_TOKEN,
	GS_ACCOUNT,
	GS_USER,
	GS_NONE,
	GS_INSTANCE,
};

/**
 * struct gs - all of it
 * @endpoint: of Cloud Storage
 * @from: where credentials are from, in words
 * @account: e-mail address of the service account, or client of the user
 * @key: private key, PEM; of a user the client's secret
 * @key_id: of the private key, or NULL
 * @refresh: token, of a user
 * @token_uri: where one is exchanged for an access token
 * @metadata: host, perhaps with a port; NULL: there shall be none
 */
struct gs {
	char *endpoint;
	char *from;
	enum gs_source source;
	char *access_key;
	char *secret;
	char *token_file;
	char *account;
	char *key;
	char *key_id;
	char *refresh;
	char *token_uri;
	char *metadata;
};

/* gs_load - read environment and files; no network. @warn may be NULL */
int gs_load(struct gs **gs, secret_warn *warn, struct error *e);
void gs_free(struct gs *gs);

/* Access tokens: of GS_ACCOUNT and GS_USER, and of GS_INSTANCE */
int credentials_google(const struct gs *gs, const struct web *web,
		       struct credentials *cred, struct error *e);
int credentials_gce(const struct gs *gs, const struct web *web,
		    struct credentials *cred, struct error *e);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the commands share when they ask servers: connections, whom to trust, and
 * who they are. One of each for the life of the process.
 */
#ifndef LF_CLIENT_H
#define LF_CLIENT_H

#include "keyring.h"

/**
 * client_cafile - certificate authorities for https, for handles taken from now on
 * @path: NULL: those of tls_cafile()
 */
int client_cafile(const char *path, struct error *e);

/**
 * client_take - a CURL with its connections, no option set but whom to trust
 *
 * NULL: an error
 */
CURL *client_take(struct error *e);
void client_give(CURL *curl);

/**
 * client_sign - as auth_sign(), by whom this URL wants
 * @auth: out; NULL: nobody: there is only @sig->url
 */
int client_sign(const struct auth_call *call, struct auth **auth,
		struct auth_signed *sig, struct error *e);

/**
 * client_answer - tell what came of it
 * @body: of an answer that refuses
 *
 * Return: is it worth signing once more?
 */
bool client_answer(struct auth *auth, const struct auth_signed *sig,
		   long status, const char *body, time_t date);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * All that shows servers who asks: one struct auth for s3://, one for gs://, and
 * one for each origin that the file of origin.h names.
 */
#ifndef LF_KEYRING_H
#define LF_KEYRING_H

#include "auth.h"

struct keyring;

/**
 * keyring_open - no network, and no file but the one with the origins
 * @warn, @tls: of auth_open()
 */
int keyring_open(struct keyring **ring, secret_warn *warn,
		 const struct tls *tls, struct error *e);
void keyring_close(struct keyring *ring);

/**
 * keyring_all - environment and files are read now, not when they are needed
 *
 * Return: 0 or -ENOMEM
 */
int keyring_all(struct keyring *ring);

/* keyring_background - auth_background() for all, after keyring_all() */
int keyring_background(struct keyring *ring, int wake);
void keyring_reload(struct keyring *ring);

/**
 * keyring_find - who is asked for credentials for this URL
 * @auth: out, NULL: nobody; it stays the keyring's
 *
 * Any thread. Return: 0 or -ENOMEM; after keyring_all() it cannot fail.
 */
int keyring_find(struct keyring *ring, const char *url, struct auth **auth);

#endif

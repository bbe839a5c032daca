/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * JSON Web Tokens (RFC 7519) signed with RS256, as service accounts' are.
 */
#ifndef LF_JWT_H
#define LF_JWT_H

#include "error.h"

/**
 * jwt_sign
 * @head, @claims: JSON
 * @pem: private RSA key, PKCS #8 or #1
 * @token: out, malloc()ed; secret_free()
 */
int jwt_sign(const char *head, const char *claims, const char *pem,
	     char **token, struct error *e);

#endif

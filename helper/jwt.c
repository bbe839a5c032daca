// SPDX-License-Identifier: GPL-2.0-only
/*
 * GnuTLS parses the key and signs: Debian's libcurl has brought it into these
 * processes anyway, and its licence goes with ours.
 */
#include "jwt.h"

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "secret.h"

/* Of URLs, without padding; malloc()ed */
static char *base64(const void *data, size_t bytes)
{
	gnutls_datum_t in = { (void *)data, bytes }, out;
	char *text, *p;

	if (gnutls_base64_encode2(&in, &out))
		return NULL;
	text = strndup((char *)out.data, out.size);
	gnutls_memset(out.data, 0, out.size);
	gnutls_free(out.data);
	if (!text)
		return NULL;
	for (p = text; *p && *p != '='; p++)
		*p = *p == '+' ? '-' : *p == '/' ? '_' : *p;
	*p = 0;
	return text;
}

static int import(const char *pem, gnutls_privkey_t *key, struct error *e)
{
	gnutls_datum_t data = { (void *)pem, strlen(pem) };
	int rc = gnutls_privkey_init(key);

	if (rc)
		return no_memory(e);
	rc = gnutls_privkey_import_x509_raw(*key, &data, GNUTLS_X509_FMT_PEM,
					    NULL, 0);
	if (!rc && gnutls_privkey_get_pk_algorithm(*key, NULL) ==
	    GNUTLS_PK_RSA)
		return 0;
	gnutls_privkey_deinit(*key);
	return error_set(e, -EINVAL, "private_key: %s",
			 rc ? gnutls_strerror(rc) : "it is no RSA key");
}

int jwt_sign(const char *head, const char *claims, const char *pem,
	     char **token, struct error *e)
{
	char *first = base64(head, strlen(head));
	char *second = base64(claims, strlen(claims));
	char *third = NULL, *text = NULL;
	gnutls_datum_t data, sum = { };
	gnutls_privkey_t key;
	int rc, err;

	*token = NULL;
	err = import(pem, &key, e);
	if (err)
		goto out;
	if (!first || !second ||
	    asprintf(&text, "%s.%s", first, second) < 0) {
		text = NULL;
		goto nomem;
	}
	data = (gnutls_datum_t){ (void *)text, strlen(text) };
	rc = gnutls_privkey_sign_data2(key, GNUTLS_SIGN_RSA_SHA256, 0, &data,
				       &sum);
	if (rc) {
		err = error_set(e, -EINVAL, "private_key: cannot sign: %s",
				gnutls_strerror(rc));
		goto deinit;
	}
	third = base64(sum.data, sum.size);
	gnutls_free(sum.data);
	if (third && asprintf(token, "%s.%s", text, third) >= 0)
		goto deinit;
	*token = NULL;
nomem:
	err = no_memory(e);
deinit:
	gnutls_privkey_deinit(key);
out:
	secret_free(third);
	free(first);
	free(second);
	free(text);
	return err;
}

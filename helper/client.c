// SPDX-License-Identifier: GPL-2.0-only
#include "client.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define IDLE		16	/* connections kept for the next request */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static CURL *idle[IDLE];
static struct keyring *keyring;
static struct tls tls;
static bool trust;	/* tls is loaded */
static bool started;

int client_cafile(const char *path, struct error *e)
{
	int err = 0;

	pthread_mutex_lock(&lock);
	if (!trust)
		err = tls_load(&tls, tls_cafile(path), e);
	trust = !err;
	pthread_mutex_unlock(&lock);
	return err;
}

CURL *client_take(struct error *e)
{
	CURL *curl = NULL;
	int i;

	if (client_cafile(NULL, e))
		return NULL;
	pthread_mutex_lock(&lock);
	if (!started)
		curl_global_init(CURL_GLOBAL_DEFAULT);
	started = true;
	for (i = 0; i < IDLE && !curl; i++) {
		curl = idle[i];
		idle[i] = NULL;
	}
	pthread_mutex_unlock(&lock);
	/* Options go, connections stay. */
	if (curl)
		curl_easy_reset(curl);
	else
		curl = curl_easy_init();
	if (!curl || tls_apply(curl, &tls)) {
		curl_easy_cleanup(curl);
		no_memory(e);
		return NULL;
	}
	return curl;
}

void client_give(CURL *curl)
{
	int i;

	pthread_mutex_lock(&lock);
	for (i = 0; i < IDLE && curl; i++) {
		if (!idle[i]) {
			idle[i] = curl;
			curl = NULL;
		}
	}
	pthread_mutex_unlock(&lock);
	curl_easy_cleanup(curl);
}

static void on_warning(const char *text)
{
	fprintf(stderr, "lazyframe: warning: %s\n", text);
}

int client_sign(const struct auth_call *call, struct auth **auth,
		struct auth_signed *sig, struct error *e)
{
	int err = 0;

	memset(sig, 0, sizeof(*sig));
	*auth = NULL;
	pthread_mutex_lock(&lock);
	if (!keyring)
		err = keyring_open(&keyring, on_warning, &tls, e);
	pthread_mutex_unlock(&lock);
	if (!err && keyring_find(keyring, call->url, auth))
		err = no_memory(e);
	if (err)
		return err;
	if (*auth)
		return auth_sign(*auth, call, sig, e);
	sig->follow = true;
	sig->url = strdup(call->url);
	return sig->url ? 0 : no_memory(e);
}

bool client_answer(struct auth *auth, const struct auth_signed *sig,
		   long status, const char *body, time_t date)
{
	bool again = false;
	char *code, why[64];

	if (!auth)
		return false;
	if (status < 300) {
		auth_accepted(auth, sig);
	} else if (status == 400 || status == 401 || status == 403) {
		bucket_answer(body, &code, why, sizeof(why));
		again = auth_refused(auth, sig, status, code, date);
		free(code);
	}
	return again;
}

// SPDX-License-Identifier: GPL-2.0-only
#include "keyring.h"

#include <pthread.h>
#include <stdlib.h>

#include "origin.h"

/**
 * struct slot
 * @prefix: of the URLs: a scheme with its slashes, or an origin
 * @origin: it is the latter
 * @auth: NULL: not yet opened
 */
struct slot {
	const char *prefix;
	bool origin;
	const struct auth_kind *kind;
	struct auth *auth;
};

struct keyring {
	pthread_mutex_t lock;
	secret_warn *warn;
	const struct tls *tls;
	char **origins;
	struct slot *slot;
	size_t slots;
};

int keyring_open(struct keyring **result, secret_warn *warn,
		 const struct tls *tls, struct error *e)
{
	struct keyring *ring = calloc(1, sizeof(*ring));
	size_t i;
	int err;

	if (!ring)
		return no_memory(e);
	err = origin_list(&ring->origins, e);
	if (err)
		goto fail;
	while (ring->origins[ring->slots])
		ring->slots++;
	ring->slots += 2;
	ring->slot = calloc(ring->slots, sizeof(*ring->slot));
	if (!ring->slot) {
		err = no_memory(e);
		goto fail;
	}
	ring->slot[0] = (struct slot){ .prefix = "s3://", .kind = &auth_s3 };
	ring->slot[1] = (struct slot){ .prefix = "gs://", .kind = &auth_gs };
	for (i = 2; i < ring->slots; i++)
		ring->slot[i] = (struct slot){
			.prefix = ring->origins[i - 2],
			.origin = true,
			.kind = &auth_origin,
		};
	ring->warn = warn;
	ring->tls = tls;
	pthread_mutex_init(&ring->lock, NULL);
	*result = ring;
	return 0;
fail:
	origin_list_free(ring->origins);
	free(ring);
	return err;
}

void keyring_close(struct keyring *ring)
{
	size_t i;

	if (!ring)
		return;
	for (i = 0; i < ring->slots; i++)
		auth_close(ring->slot[i].auth);
	pthread_mutex_destroy(&ring->lock);
	origin_list_free(ring->origins);
	free(ring->slot);
	free(ring);
}

/* ring->lock is held. */
static int slot_open(struct keyring *ring, struct slot *slot)
{
	if (!slot->auth)
		slot->auth = auth_open(slot->kind,
				       slot->origin ? slot->prefix : NULL,
				       ring->warn, ring->tls);
	return slot->auth ? 0 : -ENOMEM;
}

int keyring_all(struct keyring *ring)
{
	size_t i;
	int err = 0;

	pthread_mutex_lock(&ring->lock);
	for (i = 0; i < ring->slots && !err; i++)
		err = slot_open(ring, &ring->slot[i]);
	pthread_mutex_unlock(&ring->lock);
	return err;
}

int keyring_background(struct keyring *ring, int wake)
{
	size_t i;
	int err = 0;

	for (i = 0; i < ring->slots && !err; i++)
		err = auth_background(ring->slot[i].auth, wake);
	return err;
}

void keyring_reload(struct keyring *ring)
{
	size_t i;

	for (i = 0; i < ring->slots; i++)
		auth_reload(ring->slot[i].auth);
}

static bool fits(const struct slot *slot, const char *url, const char *origin)
{
	if (slot->origin)
		return origin && !strcmp(slot->prefix, origin);
	return !strncmp(url, slot->prefix, strlen(slot->prefix));
}

int keyring_find(struct keyring *ring, const char *url, struct auth **auth)
{
	char *origin = ring->slots > 2 ? origin_of(url) : NULL;
	int err = 0;
	size_t i;

	*auth = NULL;
	pthread_mutex_lock(&ring->lock);
	for (i = 0; i < ring->slots; i++) {
		struct slot *slot = &ring->slot[i];

		if (!fits(slot, url, origin))
			continue;
		err = slot_open(ring, slot);
		*auth = slot->auth;
		break;
	}
	pthread_mutex_unlock(&ring->lock);
	free(origin);
	return err;
}

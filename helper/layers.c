// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <stdlib.h>

#include "layers.h"
#include "log.h"

static void uuid_name(const u8 u[16], char *name, size_t size)
{
	snprintf(name, size,
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
		 u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9],
		 u[10], u[11], u[12], u[13], u[14], u[15]);
}

static struct transport *find_transport(struct layers *ls, const char *url)
{
	struct transport *const *t;
	const char *const *s;
	size_t len;

	for (t = ls->transport; *t; t++) {
		for (s = (*t)->schemes; *s; s++) {
			len = strlen(*s);
			if (!strncasecmp(url, *s, len) &&
			    !strncmp(url + len, "://", 3))
				return *t;
		}
	}
	return NULL;
}

/* Scheme, host and port; never the user and password before an '@'. */
static void origin_name(const char *url, char *name, size_t size)
{
	const char *host = strstr(url, "://") + 3;
	size_t len = strcspn(host, "/?#");
	size_t i, user = 0;

	for (i = 0; i < len; i++)
		if (host[i] == '@')
			user = i + 1;
	snprintf(name, size, "%.*s%.*s", (int)(host - url), url,
		 (int)(len - user), host + user);
}

static struct origin *get_origin(struct layers *ls, const char *url,
				 struct transport *t)
{
	struct origin *o = NULL, *at;
	char name[sizeof(o->name)];

	origin_name(url, name, sizeof(name));
	/* There are no more origins than layers: one is unused or the one. */
	for (at = ls->origin; at < ls->origin + ls->slots; at++) {
		if (at->layers && !strcmp(at->name, name)) {
			o = at;
			break;
		}
		if (!at->layers && !o)
			o = at;
	}
	if (!o)
		return NULL;
	if (!o->layers) {
		memset(o, 0, sizeof(*o));
		o->transport = t;
		memcpy(o->name, name, sizeof(name));
	}
	o->layers++;
	return o;
}

static void put_layer(struct layer *l)
{
	if (l->origin)
		l->origin->layers--;
	l->origin = NULL;
}

int layers_get(struct layers *ls, u64 id, struct layer **layer)
{
	struct layer *l, *victim = NULL;
	struct transport *t;
	int err;

	TAILQ_FOREACH(l, &ls->lru, lru) {
		if (l->origin && l->info.layer == id)
			goto found;
		if (!l->open)
			victim = l;
	}
	if (!victim)
		return -ENOMEM;
	l = victim;
	put_layer(l);
	memset(&l->info, 0, sizeof(l->info));
	l->info.layer = id;
	err = ls->sink->layer(ls->sink, &l->info);
	if (err) {
		if (err == -ENOENT)
			log_info("layer %llu is gone", (unsigned long long)id);
		else
			log_err("layer %llu: the module does not describe it: %s",
				(unsigned long long)id, strerror(-err));
		return err;
	}
	l->info.locator[sizeof(l->info.locator) - 1] = 0;
	l->info.validator[sizeof(l->info.validator) - 1] = 0;
	uuid_name(l->info.uuid, l->name, sizeof(l->name));
	t = find_transport(ls, l->info.locator);
	if (!t) {
		log_err("layer %s: no way to fetch from \"%.*s\"; file, http, https, s3 and gs URLs are known",
			l->name, (int)strcspn(l->info.locator, ":"),
			l->info.locator);
		return -EPROTO;
	}
	l->origin = get_origin(ls, l->info.locator, t);
	if (!l->origin)
		return -ENOMEM;
	l->size = l->info.csize;
	l->tagged = *l->info.validator;
found:
	TAILQ_REMOVE(&ls->lru, l, lru);
	TAILQ_INSERT_HEAD(&ls->lru, l, lru);
	*layer = l;
	return 0;
}

bool origin_answered(struct origin *o)
{
	if (!breaker_answered(&o->breaker))
		return false;
	log_info("%s answers again, after %llu ms and %u attempts at it",
		 o->name, (unsigned long long)(now_ns() - o->breaker.since) /
		 NSEC_PER_MSEC, o->breaker.probes);
	return true;
}

void origin_failed(struct origin *o, bool probe, const char *why, u64 after_ns,
		   struct dice *dice)
{
	if (breaker_failed(&o->breaker, probe, now_ns(), after_ns, dice))
		log_warn("%s does not answer, %u attempts have failed: %s; one at a time until it does, all else waits",
			 o->name, o->breaker.failures, why);
}

unsigned int layers_down(const struct layers *ls)
{
	unsigned int down = 0;
	u32 i;

	for (i = 0; i < ls->slots; i++)
		down += ls->origin[i].layers && ls->origin[i].breaker.open;
	return down;
}

int layers_init(struct layers *ls, struct sink *sink,
		struct transport *const *transport, u32 slots)
{
	u32 i;

	ls->sink = sink;
	ls->transport = transport;
	ls->slots = slots;
	ls->layer = calloc(slots, sizeof(*ls->layer));
	ls->origin = calloc(slots, sizeof(*ls->origin));
	if (!ls->layer || !ls->origin)
		return -ENOMEM;
	TAILQ_INIT(&ls->lru);
	for (i = 0; i < slots; i++) {
		TAILQ_INIT(&ls->layer[i].queued);
		TAILQ_INSERT_TAIL(&ls->lru, &ls->layer[i], lru);
	}
	return 0;
}

void layers_exit(struct layers *ls)
{
	free(ls->origin);
	free(ls->layer);
}

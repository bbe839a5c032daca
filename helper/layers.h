/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The layers that requests name, and the servers that these lie on.
 */
#ifndef LF_LAYERS_H
#define LF_LAYERS_H

#include "breaker.h"
#include "fetch.h"
#include "latency.h"

/**
 * struct origin - scheme, host and port: what limits on connections, on attempts
 *		   and on second requests are about
 * @latency: from the start of a transfer until the right object answers
 * @credit: for second requests, a hundredth of one each
 * @layers: that lie there; 0: the slot is free
 * @running: ranges
 * @prefetching: those that hold prefetch
 */
struct origin {
	struct transport *transport;
	struct breaker breaker;
	struct latency latency;
	unsigned int credit;
	unsigned int layers;
	unsigned int running;
	unsigned int prefetching;
	char name[256];			/* "scheme://host:port" */
};

/**
 * struct layer - an object that requests are about
 * @origin: NULL: the slot is free
 * @queued: requests that wait to be part of a range, by offset
 * @size: of the object, 0 where it is not known yet
 * @open: requests, and ranges; while there are any, it stays what it is
 * @tagged: it had an entity tag when its device was set up
 */
struct layer {
	TAILQ_ENTRY(layer) lru;
	struct lazyframe_layer_info info;
	struct origin *origin;
	struct request_list queued;
	u64 size;
	unsigned int open;
	bool tagged;
	char name[37];
};

TAILQ_HEAD(layer_list, layer);

/**
 * struct layers - memory for as many as can be in use, and for what they lie on
 * @lru: most recently used first
 */
struct layers {
	struct sink *sink;
	struct transport *const *transport;
	u32 slots;
	struct layer *layer;
	struct origin *origin;
	struct layer_list lru;
};

/**
 * layers_init - @transport: NULL after the last
 * @slots: one for each tag and for each transfer, as each holds at most one
 *
 * Return: 0 or -ENOMEM; layers_exit() in both cases.
 */
int layers_init(struct layers *ls, struct sink *sink,
		struct transport *const *transport, u32 slots);
void layers_exit(struct layers *ls);

/**
 * layers_get - the layer @id, described by the sink when it is new
 *
 * Return: 0; -ENOENT it is gone; -EPROTO its URL is of no known kind; another
 * errno. All were logged.
 */
int layers_get(struct layers *ls, u64 id, struct layer **layer);

/* layers_down - origins that do not answer now */
unsigned int layers_down(const struct layers *ls);

/* origin_answered - Return: whether that is a change, which is logged */
bool origin_answered(struct origin *o);

/* origin_failed - see breaker_failed(); a change is logged, with @why */
void origin_failed(struct origin *o, bool probe, const char *why, u64 after_ns,
		   struct dice *dice);

#endif

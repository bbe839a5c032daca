/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The daemon's end of /dev/lazyframe; see uapi/linux/lazyframe.h.
 */
#ifndef LF_CHANNEL_H
#define LF_CHANNEL_H

#include "fetch.h"

struct channel {
	struct sink sink;
	int fd;
	u64 generation;
	u32 tags;		/* requests that can be open at once */
	size_t ring_bytes;
	const struct lazyframe_ring *ring;
	u64 tail;		/* entries before this one were taken */
};

/**
 * channel_open - open the module's device: all that needs a privilege
 * @path: LAZYFRAME_DEVICE, as a rule
 *
 * Return: 0, or a negative errno that was logged, with what to do.
 */
int channel_open(struct channel *c, const char *path);

/**
 * channel_attach - begin a session, map the ring
 * @path: for what is logged
 * @replace: take over from another helper
 *
 * Return: 0; -EBUSY another helper is attached, and this may be called again;
 * another negative errno. All but -EBUSY were logged, with what to do.
 */
int channel_attach(struct channel *c, const char *path, bool replace);

/*
 * channel_close - the module gives unanswered requests to the next helper
 *
 * Does nothing to one that is not open.
 */
void channel_close(struct channel *c);

/**
 * channel_take - pass what was posted since the last time to @take
 *
 * Return: 0; -ESTALE when another helper has replaced this one; -EPROTO (logged)
 * when the ring contradicts itself: only a new session helps then.
 */
int channel_take(struct channel *c,
		 void (*take)(void *arg, const struct lazyframe_request *req),
		 void *arg);

#endif

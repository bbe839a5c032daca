/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which ranges are fetched when.
 *
 * Requests (one frame each) come in, wait in their layer's queue sorted by C
 * offset, leave it as a range together with their neighbours when a connection
 * is free, and are answered with bytes as they arrive. What a broken transfer
 * leaves over goes back to the queue and is asked for again, from where it
 * stopped, until the deadline.
 *
 *	fetch_request()		fetch_run()		fetch_done()
 *   ring ----------> queued ------------> in flight -------------> answered
 *			^		       |
 *			+---- backoff ---------+  what is missing
 *
 * A server that does not answer at all has one transfer at a time, until it does
 * (breaker.h); all that is queued for it waits. A range whose first byte is late,
 * as that server goes (latency.h), is asked for a second time: whichever of the
 * two first shows that it is the right object gets the requests, the other one
 * is aborted.
 *
 * Where there is a shared directory (shared_io.h), a request is first looked for in
 * it, and queued when it is not there, together with all that came with it, so
 * that neighbours stay neighbours; when no answer comes, it does not wait long.
 * What comes for it from its server is copied for the directory on its way.
 *
 * Memory is taken by fetch_new() only: a request's slot is its tag modulo the
 * number of tags, there is a layer for each tag and each transfer, and a range
 * for each transfer.
 */
#ifndef LF_FETCH_H
#define LF_FETCH_H

#include <linux/lazyframe.h>
#include <sys/queue.h>

#include "loop.h"

struct fetch;
struct layer;
struct origin;
struct request;
struct shared;

TAILQ_HEAD(request_list, request);

/**
 * struct sink - where requests come from and bytes go: the module, or a test
 * @fill: give @bytes (@fill->length of them) to the request @fill->tag. 0;
 *	  -EINVAL the answer fits no open request; -ESTALE (and anything else)
 *	  the session is over. @fill->generation is the sink's business.
 * @layer: fill in @info by @info->layer. 0, -ENOENT or another errno.
 */
struct sink {
	int (*fill)(struct sink *sink, struct lazyframe_fill *fill,
		    const void *bytes);
	int (*layer)(struct sink *sink, struct lazyframe_layer_info *info);
};

/**
 * struct range - one transfer: neighbouring bytes of one object
 *
 * For the transports to read:
 * @url: the layer's locator
 * @first, @last: bytes of the object, both inclusive
 * @size: of the object, 0 where it is not known
 * @validator: the object's strong entity tag, quotes included, or ""
 * @wait_ns: give up connecting after this time
 * @hedge: the second one for these bytes: better not on the first one's
 *	   connection, if that is not up yet
 * @pos: next byte of the object that fetch_bytes() expects
 * For the transports to write:
 * @transfer: their own
 * @unsent: why the server was not asked yet, in words; NULL: it was
 * The rest is fetch.c's.
 */
struct range {
	const char *url;
	u64 first;
	u64 last;
	u64 size;
	const char *validator;
	u64 wait_ns;
	bool hedge;
	u64 pos;
	void *transfer;
	const char *unsent;

	TAILQ_ENTRY(range) link;
	struct fetch *fetch;
	struct layer *layer;
	struct request_list requests;	/* open ones, by offset */
	u64 gained;			/* bytes that a request wanted */
	u64 started;
	u64 moved;			/* when a byte last came */
	u64 attempt_end;
	u64 stall_ns;
	u64 hedge_at;			/* NEVER: not at all */
	struct range *twin;		/* the other one for these bytes */
	unsigned int attempt;
	unsigned int fruitless;		/* attempts before that brought nothing */
	bool begun;			/* the right object was seen to answer */
	bool prefetch;			/* holds requests nobody waited for */
	bool probe;			/* of a server that did not answer */
	bool lost;			/* the twin was first: to be aborted */
};

/**
 * struct transport - a way to get bytes of an object
 * @schemes: of the URLs it takes, NULL at the end
 * @hedge: it may be faster to ask a second time
 * @start: begin; from then on the transport owes exactly one fetch_done(), not
 *	   before start() has returned, unless @abort comes first. On error
 *	   (negative errno; -EPROTO: the URL is wrong) it owes nothing.
 * @abort: stop; neither fetch_bytes() nor fetch_done() may follow. Never called
 *	   from within fetch_bytes().
 */
struct transport {
	const char *const *schemes;
	bool hedge;
	int (*start)(struct transport *t, struct range *range);
	void (*abort)(struct transport *t, struct range *range);
};

#define FETCH_TRANSPORTS	4

/**
 * struct fetch_options
 * @connections: transfers at once for each origin (scheme, host and port)
 * @range_max: bytes; neighbours are merged up to this size
 * @gap_max: bytes that nobody wants between two frames for them to be merged
 * @stall_ns: a transfer that brings no byte for so long has failed
 * @connect_ns: time for name lookup, connection and TLS together
 * @hedge: transfers that may be started twice, in percent; 0: none
 * @shared: where to look first, or NULL; it outlives the fetcher
 * @transport: NULL after the last
 */
struct fetch_options {
	unsigned int connections;
	u64 range_max;
	u64 gap_max;
	u64 stall_ns;
	u64 connect_ns;
	unsigned int hedge;
	struct shared *shared;
	struct transport *transport[FETCH_TRANSPORTS + 1];
};

/* Transfers at once, all origins together. */
#define fetch_transfers(connections)	(4 * (connections))

/**
 * struct fetch_stats - since the start
 * @requests: taken from the ring, promotions not counted
 * @ranges: transfers started, hedges included
 * @hedges: those that were a second request for the same bytes
 * @hedges_won: and were first to answer
 * @retries: transfers that failed and left something to ask for again
 * @bytes: handed over
 * @wasted: arrived, but nobody wanted them (any more)
 * @completed, @failed: requests
 * @open: requests now
 * @running: transfers now
 */
struct fetch_stats {
	u64 requests;
	u64 ranges;
	u64 hedges;
	u64 hedges_won;
	u64 retries;
	u64 bytes;
	u64 wasted;
	u64 completed;
	u64 failed;
	unsigned int open;
	unsigned int running;
};

/**
 * fetch_new - @tags: request slots
 *
 * Return: NULL with errno set. fetch_free() aborts what runs; it answers nobody.
 */
struct fetch *fetch_new(struct loop *loop, struct sink *sink, u32 tags,
			const struct fetch_options *options);
void fetch_free(struct fetch *fetch);

/**
 * fetch_request - take one entry of the ring; nothing is started yet
 */
void fetch_request(struct fetch *fetch, const struct lazyframe_request *req);

/**
 * fetch_run - start what can be started
 *
 * To be called once a turn, after all of the turn's requests were taken, so
 * that neighbours find each other. Not from a transport's callback.
 * Return: 0, or a negative errno when the sink's session is over.
 */
int fetch_run(struct fetch *fetch);

const struct fetch_stats *fetch_stats(const struct fetch *fetch);

/* fetch_down - servers that do not answer now */
unsigned int fetch_down(const struct fetch *fetch);

/**
 * fetch_bytes - transports hand over bytes in order, whatever their number
 *
 * Return: 0; -ECANCELED nobody wants the rest, stop and call fetch_done();
 * -EPROTO more bytes than the range has.
 */
int fetch_bytes(struct range *range, const void *bytes, size_t len);

/**
 * fetch_identity - transports tell what they saw, before the first byte
 * @etag: a strong entity tag or ""; the first one seen becomes the layer's if it
 *	  had none
 * @size: of the object, 0 if it was not told; likewise
 *
 * Return: 0; -ESTALE this is not the object that was attached; -EAGAIN the
 * answer does not tell. Both with a reason in @why.
 */
int fetch_identity(struct range *range, const char *etag, u64 size,
		   char *why, size_t why_size);

/**
 * fetch_done - a transfer has ended; @range is gone on return
 * @err: 0; -ENOENT, -EACCES, -ESTALE, -EPROTO, -EIO: not worth another attempt;
 *	 -EHOSTDOWN: the server did not answer, or refuses any work: to be tried
 *	 again, one at a time if this goes on; anything else, or 0 with bytes
 *	 missing: to be tried again
 * @why: in words, if @err
 * @after_ns: the server's wish not to be asked again before this time from now
 */
void fetch_done(struct range *range, int err, const char *why, u64 after_ns);

#endif

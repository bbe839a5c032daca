// SPDX-License-Identifier: GPL-2.0-only
/*
 * See fetch.h for the path of a request.
 *
 * Who goes first: of the requests whose backoff is over, those that a reader
 * waits for in order of arrival, then prefetch. The chosen one takes its
 * neighbours along: forward whatever they are, backward only if they are not
 * worth less than itself, because bytes in front of it delay it. Ranges with
 * prefetch in them never have all of an origin's connections.
 *
 * A queued request waits in two lists: its layer's, by offset, to find
 * neighbours, and its class's, by age, to find who is next.
 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "fetch.h"
#include "log.h"

#define BACKOFF_BASE	(50 * NSEC_PER_MSEC)
#define BACKOFF_CAP	(5 * NSEC_PER_SEC)
#define AFTER_CAP	(60 * NSEC_PER_SEC)	/* patience with Retry-After */
#define MIN_ATTEMPT	(250 * NSEC_PER_MSEC)
/* Our "timed out" is to be there before the kernel's own. */
#define MARGIN		(20 * NSEC_PER_MSEC)
/* A connection is worth this many bytes that nobody wants. */
#define DRAIN_MAX	65536
/* Breaking this often at one frame, the frame no longer has company. */
#define ALONE_AFTER	2
#define WHY_BYTES	160

enum { DEMAND, PREFETCH, CLASSES };

struct request {
	TAILQ_ENTRY(request) by_offset;	/* in layer->queued or range->requests */
	TAILQ_ENTRY(request) by_age;	/* in fetch->queue[], while queued */
	struct layer *layer;		/* NULL: the tag is free */
	struct range *range;		/* NULL: queued */
	u64 offset;
	u64 deadline;			/* NEVER if there is none */
	u64 not_before;
	u64 born;			/* number in the order of arrival */
	u32 tag;
	u32 length;
	u32 have;
	u16 attempts;
	u16 fruitless;			/* attempts since a byte last came */
	u16 broke;			/* transfers that broke at this frame */
	bool prefetch;
	char why[WHY_BYTES];		/* its last failure, or "" */
};

struct layer {
	TAILQ_ENTRY(layer) lru;
	struct lazyframe_layer_info info;
	struct origin *origin;		/* NULL: the slot is free */
	struct request_list queued;
	u64 size;			/* 0: not known yet */
	unsigned int open;		/* requests */
	char name[37];
};

/* What a limit on connections is about. */
struct origin {
	struct transport *transport;
	unsigned int layers;		/* that lie there; 0: the slot is free */
	unsigned int running;		/* ranges */
	unsigned int prefetching;	/* those that hold prefetch */
	char name[256];			/* "scheme://host:port" */
};

TAILQ_HEAD(layer_list, layer);
TAILQ_HEAD(range_list, range);

struct fetch {
	struct loop *loop;
	struct sink *sink;
	struct fetch_options opt;
	int timer;
	u64 wake;			/* what the timer is set to */
	bool dirty;			/* something may be startable */
	int over;			/* the sink's error that ends it all */
	u32 tags;
	u32 layers;			/* slots for layers, and for origins */
	u64 born;
	u64 seed;
	struct request *request;	/* by tag */
	struct layer *layer;
	struct layer_list lru;		/* most recently used first */
	struct origin *origin;
	struct range *range;
	struct range_list idle;
	struct range_list running;
	struct request_list queue[CLASSES];
	struct fetch_stats stats;
};

/* Timers */

static void wake_at(struct fetch *f, u64 when)
{
	if (when >= f->wake)
		return;
	f->wake = when;
	timer_set(f->timer, when);
}

/* xorshift64*: backoff needs to differ between hosts, not to be secret */
static u64 draw(struct fetch *f, u64 below)
{
	f->seed ^= f->seed >> 12;
	f->seed ^= f->seed << 25;
	f->seed ^= f->seed >> 27;
	return below ? (f->seed * 2685821657736338717ULL) % below : 0;
}

/* Layers and origins */

static void uuid_name(const u8 u[16], char *name, size_t size)
{
	snprintf(name, size,
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
		 u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9],
		 u[10], u[11], u[12], u[13], u[14], u[15]);
}

static struct transport *find_transport(struct fetch *f, const char *url)
{
	struct transport *const *t;
	const char *const *s;
	size_t len;

	for (t = f->opt.transport; *t; t++) {
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

static struct origin *get_origin(struct fetch *f, const char *url,
				 struct transport *t)
{
	struct origin *o = NULL, *at;
	char name[sizeof(o->name)];

	origin_name(url, name, sizeof(name));
	/* There are no more origins than layers: one is unused or the one. */
	for (at = f->origin; at < f->origin + f->layers; at++) {
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

/*
 * The layer of a request. There is always a slot: each tag and each transfer
 * holds at most one.
 */
static int get_layer(struct fetch *f, u64 id, struct layer **layer)
{
	struct layer *l, *victim = NULL;
	struct transport *t;
	int err;

	TAILQ_FOREACH(l, &f->lru, lru) {
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
	err = f->sink->layer(f->sink, &l->info);
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
	t = find_transport(f, l->info.locator);
	if (!t) {
		log_err("layer %s: no way to fetch from \"%.*s\"; file, http, https and s3 URLs are known",
			l->name, (int)strcspn(l->info.locator, ":"),
			l->info.locator);
		return -EPROTO;
	}
	l->origin = get_origin(f, l->info.locator, t);
	if (!l->origin)
		return -ENOMEM;
	l->size = l->info.csize;
found:
	TAILQ_REMOVE(&f->lru, l, lru);
	TAILQ_INSERT_HEAD(&f->lru, l, lru);
	*layer = l;
	return 0;
}

/* Queues */

static u64 wanted_from(const struct request *r)
{
	return r->offset + r->have;
}

static u64 wanted_to(const struct request *r)
{
	return r->offset + r->length;
}

static void enqueue(struct fetch *f, struct request *r)
{
	struct request_list *queue = &f->queue[r->prefetch ? PREFETCH : DEMAND];
	struct request_list *queued = &r->layer->queued;
	struct request *at;

	r->range = NULL;
	TAILQ_FOREACH_REVERSE(at, queued, request_list, by_offset)
		if (at->offset <= r->offset)
			break;
	if (at)
		TAILQ_INSERT_AFTER(queued, at, r, by_offset);
	else
		TAILQ_INSERT_HEAD(queued, r, by_offset);

	/* Most are new and go last; one that comes back goes to its place. */
	TAILQ_FOREACH_REVERSE(at, queue, request_list, by_age)
		if (at->born < r->born)
			break;
	if (at)
		TAILQ_INSERT_AFTER(queue, at, r, by_age);
	else
		TAILQ_INSERT_HEAD(queue, r, by_age);
	f->dirty = true;
}

static void dequeue(struct fetch *f, struct request *r)
{
	TAILQ_REMOVE(&r->layer->queued, r, by_offset);
	TAILQ_REMOVE(&f->queue[r->prefetch ? PREFETCH : DEMAND], r, by_age);
}

/* The end of a request: out of wherever it is, its tag is free. */
static void drop(struct fetch *f, struct request *r)
{
	assert(r->layer);
	if (r->range)
		TAILQ_REMOVE(&r->range->requests, r, by_offset);
	else
		dequeue(f, r);
	r->layer->open--;
	r->layer = NULL;
	r->range = NULL;
	f->stats.open--;
}

static void say(struct fetch *f, u32 tag, u32 have, int err)
{
	struct lazyframe_fill fill = {
		.tag = tag,
		.status = -err,
		.offset = have,
	};
	int ret = f->sink->fill(f->sink, &fill, NULL);

	/* -EINVAL: the kernel gave up by itself a moment earlier. */
	if (ret && ret != -EINVAL)
		f->over = ret;
}

static void fail(struct fetch *f, struct request *r, int err)
{
	u32 tag = r->tag, have = r->have;

	log_warn("layer %s: frame at %llu+%u fails with \"%s\" after %u attempts, %u bytes had come: %s",
		 r->layer->name, (unsigned long long)r->offset, r->length,
		 strerror(-err), r->attempts, have,
		 *r->why ? r->why : "no attempt was made");
	drop(f, r);
	f->stats.failed++;
	say(f, tag, have, err);
}

/* Tags are distinct modulo their number. */
static struct request *slot(struct fetch *f, u32 tag)
{
	return &f->request[tag % f->tags];
}

static void set_deadline(struct fetch *f, struct request *r, u64 deadline)
{
	r->deadline = deadline ? deadline : NEVER;
	if (deadline)
		wake_at(f, deadline > MARGIN ? deadline - MARGIN : 0);
}

static void promote(struct fetch *f, const struct lazyframe_request *req)
{
	struct request *r = slot(f, req->tag);

	if (!r->layer || r->tag != req->tag || !r->prefetch)
		return;
	set_deadline(f, r, req->deadline);
	if (r->range) {
		r->prefetch = false;
		return;
	}
	dequeue(f, r);
	r->prefetch = false;
	enqueue(f, r);
}

static void end_range(struct range *range)
{
	struct origin *o = range->layer->origin;
	struct fetch *f = range->fetch;

	o->running--;
	o->prefetching -= range->prefetch;
	range->layer->open--;
	TAILQ_REMOVE(&f->running, range, link);
	TAILQ_INSERT_HEAD(&f->idle, range, link);
	f->stats.running--;
	f->dirty = true;
}

static void abort_range(struct range *range)
{
	struct transport *t = range->layer->origin->transport;

	t->abort(t, range);
}

void fetch_request(struct fetch *f, const struct lazyframe_request *req)
{
	struct request *r;
	struct layer *layer;
	u64 end;
	int err;

	if (req->flags & LAZYFRAME_REQ_PROMOTE) {
		promote(f, req);
		return;
	}
	r = slot(f, req->tag);
	if (r->layer) {
		struct range *range = r->range;

		log_err("the module posted tag %u before the last answer to tag %u",
			req->tag, r->tag);
		drop(f, r);
		if (range && TAILQ_EMPTY(&range->requests)) {
			abort_range(range);
			end_range(range);
		}
	}
	f->stats.requests++;
	err = get_layer(f, req->layer, &layer);
	if (err) {
		f->stats.failed++;
		say(f, req->tag, req->have,
		    err == -ENOENT || err == -EPROTO ? err : -EIO);
		return;
	}
	if (!req->length || req->length > LAZYFRAME_MAX_CFRAME ||
	    req->have >= req->length ||
	    check_add_overflow(req->offset, (u64)req->length, &end) ||
	    end > INT64_MAX || (layer->info.csize && end > layer->info.csize)) {
		log_err("layer %s: the frame at %llu+%u does not lie in the object of %llu bytes",
			layer->name, (unsigned long long)req->offset,
			req->length, (unsigned long long)layer->info.csize);
		f->stats.failed++;
		say(f, req->tag, req->have, -EPROTO);
		return;
	}
	*r = (struct request){
		.layer = layer,
		.offset = req->offset,
		.born = ++f->born,
		.tag = req->tag,
		.length = req->length,
		.have = req->have,
		.prefetch = req->flags & LAZYFRAME_REQ_PREFETCH,
	};
	layer->open++;
	f->stats.open++;
	set_deadline(f, r, req->deadline);
	enqueue(f, r);
}

/* Starting ranges */

static bool prefetch_room(struct fetch *f, const struct origin *o)
{
	unsigned int n = f->opt.connections;

	return o->prefetching < (n > 1 ? n - 1 : 1);
}

static bool room(struct fetch *f, const struct origin *o, bool prefetch)
{
	return o->running < f->opt.connections &&
	       (!prefetch || prefetch_room(f, o));
}

/* Can @b follow @a in one range? */
static bool adjacent(struct fetch *f, const struct request *a,
		     const struct request *b)
{
	return wanted_from(b) >= wanted_to(a) &&
	       wanted_from(b) - wanted_to(a) <= f->opt.gap_max &&
	       a->broke < ALONE_AFTER && b->broke < ALONE_AFTER;
}

static void take(struct fetch *f, struct range *range, struct request *r,
		 bool front)
{
	dequeue(f, r);
	r->range = range;
	if (front)
		TAILQ_INSERT_HEAD(&range->requests, r, by_offset);
	else
		TAILQ_INSERT_TAIL(&range->requests, r, by_offset);
	if (r->prefetch)
		range->prefetch = true;
	if (r->attempts < UINT16_MAX)
		r->attempts++;
	if (r->attempts > range->attempt)
		range->attempt = r->attempts;
	if (r->fruitless > range->fruitless)
		range->fruitless = r->fruitless;
}

/* @seed and the neighbours that fit leave the queue. */
static void gather(struct fetch *f, struct range *range, struct request *seed)
{
	struct origin *o = seed->layer->origin;
	struct request *a, *r;

	range->first = wanted_from(seed);
	range->last = wanted_to(seed) - 1;
	r = TAILQ_NEXT(seed, by_offset);
	a = TAILQ_PREV(seed, request_list, by_offset);
	take(f, range, seed, false);
	while (r && adjacent(f, seed, r) &&
	       wanted_to(r) - range->first <= f->opt.range_max &&
	       (!r->prefetch || range->prefetch || prefetch_room(f, o))) {
		struct request *next = TAILQ_NEXT(r, by_offset);

		take(f, range, r, false);
		range->last = wanted_to(r) - 1;
		seed = r;
		r = next;
	}
	r = TAILQ_FIRST(&range->requests);
	while (a && adjacent(f, a, r) &&
	       range->last + 1 - wanted_from(a) <= f->opt.range_max &&
	       (!a->prefetch || r->prefetch)) {
		struct request *prev = TAILQ_PREV(a, request_list, by_offset);

		take(f, range, a, true);
		range->first = wanted_from(a);
		r = a;
		a = prev;
	}
}

/*
 * An attempt gets half of what is left of the tightest deadline, so that there
 * is always time for another one.
 */
static void set_limits(struct fetch *f, struct range *range, u64 now)
{
	u64 left = NEVER, share;
	struct request *r;

	TAILQ_FOREACH(r, &range->requests, by_offset) {
		u64 until = r->deadline == NEVER ? NEVER :
			    r->deadline > now ? r->deadline - now : 0;

		if (until < left)
			left = until;
	}
	range->started = now;
	range->moved = now;
	range->stall_ns = f->opt.stall_ns;
	range->wait_ns = f->opt.connect_ns;
	range->attempt_end = NEVER;
	if (left == NEVER)
		return;
	share = left / 2 > MIN_ATTEMPT ? left / 2 : MIN_ATTEMPT;
	range->attempt_end = now + share;
	if (share / 2 < range->stall_ns)
		range->stall_ns = share / 2;
	if (share / 2 < range->wait_ns)
		range->wait_ns = share / 2;
}

static void start(struct fetch *f, struct request *seed, u64 now)
{
	struct range *range = TAILQ_FIRST(&f->idle);
	struct layer *l = seed->layer;
	struct transport *t = l->origin->transport;
	u64 limit;
	int err;

	TAILQ_REMOVE(&f->idle, range, link);
	memset(range, 0, sizeof(*range));
	TAILQ_INIT(&range->requests);
	gather(f, range, seed);
	TAILQ_INSERT_TAIL(&f->running, range, link);
	range->fetch = f;
	range->layer = l;
	range->url = l->info.locator;
	range->size = l->size;
	range->validator = l->info.validator;
	range->pos = range->first;
	set_limits(f, range, now);
	l->open++;	/* the range's own hold: requests may go before it */
	l->origin->running++;
	l->origin->prefetching += range->prefetch;
	f->stats.running++;
	f->stats.ranges++;
	limit = now + range->stall_ns;
	wake_at(f, limit < range->attempt_end ? limit : range->attempt_end);
	log_debug("layer %s: bytes %llu-%llu from %s: attempt %u", l->name,
		  (unsigned long long)range->first,
		  (unsigned long long)range->last, l->origin->name,
		  range->attempt);
	err = t->start(t, range);
	if (err)
		fetch_done(range, err == -EPROTO ? err : -EAGAIN,
			   strerror(-err), 0);
}

static void start_ranges(struct fetch *f)
{
	u64 now = now_ns();
	struct request *r;
	int class;

	f->dirty = false;
	for (class = 0; class < CLASSES; class++) {
again:
		TAILQ_FOREACH(r, &f->queue[class], by_age) {
			if (TAILQ_EMPTY(&f->idle))
				return;
			if (r->not_before > now ||
			    !room(f, r->layer->origin, r->prefetch))
				continue;
			start(f, r, now);
			/* It took others along: no place is kept. */
			goto again;
		}
	}
}

int fetch_run(struct fetch *f)
{
	while (f->dirty && !f->over)
		start_ranges(f);
	return f->over;
}

/* Time */

static void expire(struct fetch *f, struct request *r)
{
	struct range *range = r->range;

	fail(f, r, -ETIMEDOUT);
	if (range && TAILQ_EMPTY(&range->requests)) {
		abort_range(range);
		end_range(range);
	}
}

static void on_timer(void *arg, int fd, u32 events)
{
	struct range *range, *next;
	struct fetch *f = arg;
	u64 now = now_ns();
	u32 tag;

	(void)fd;
	(void)events;
	f->wake = NEVER;
	f->dirty = true;	/* somebody's backoff may be over */
	for (tag = 0; tag < f->tags; tag++) {
		struct request *r = &f->request[tag];

		if (!r->layer)
			continue;
		if (r->deadline != NEVER && now + MARGIN >= r->deadline) {
			expire(f, r);
			continue;
		}
		if (r->deadline != NEVER)
			wake_at(f, r->deadline - MARGIN);
		if (!r->range && r->not_before > now)
			wake_at(f, r->not_before);
	}
	for (range = TAILQ_FIRST(&f->running); range; range = next) {
		u64 stalled = range->moved + range->stall_ns;
		char why[WHY_BYTES];

		next = TAILQ_NEXT(range, link);
		if (now < stalled && now < range->attempt_end) {
			wake_at(f, stalled < range->attempt_end ?
				stalled : range->attempt_end);
			continue;
		}
		if (now >= stalled)
			snprintf(why, sizeof(why), "no byte came for %llu ms",
				 (unsigned long long)range->stall_ns / NSEC_PER_MSEC);
		else
			snprintf(why, sizeof(why), "not done after %llu ms",
				 (unsigned long long)(now - range->started) /
				 NSEC_PER_MSEC);
		abort_range(range);
		fetch_done(range, -EAGAIN, why, 0);
	}
}

/* What transports call */

int fetch_identity(struct range *range, const char *etag, u64 size,
		   char *why, size_t why_size)
{
	struct layer *l = range->layer;
	char *ours = l->info.validator;

	if (l->size && size && size != l->size) {
		snprintf(why, why_size, "the object has %llu bytes, not %llu",
			 (unsigned long long)size, (unsigned long long)l->size);
		return -ESTALE;
	}
	if (*ours && !*etag) {
		snprintf(why, why_size, "no strong entity tag came, %.64s is wanted",
			 ours);
		return -EAGAIN;
	}
	if (*ours && strcmp(ours, etag) != 0) {
		snprintf(why, why_size, "the entity tag is %.64s, not %.64s",
			 etag, ours);
		return -ESTALE;
	}
	if (!*ours)
		snprintf(ours, sizeof(l->info.validator), "%s", etag);
	if (!l->size)
		l->size = size;
	range->begun = true;
	return 0;
}

/* Bytes for the first request of the range. */
static int give(struct range *range, struct request *r, const u8 *bytes,
		u32 len)
{
	struct fetch *f = range->fetch;
	struct lazyframe_fill fill = {
		.tag = r->tag,
		.offset = r->have,
		.length = len,
	};
	int err = f->sink->fill(f->sink, &fill, bytes);

	if (err == -EINVAL) {
		u32 tag = r->tag, have = r->have;

		/*
		 * The kernel's idea of this request is another one than ours.
		 * If it still has it open it must not wait for ever.
		 */
		log_err("layer %s: frame at %llu+%u: the module refused bytes %u+%u",
			r->layer->name, (unsigned long long)r->offset,
			r->length, have, len);
		drop(f, r);
		f->stats.failed++;
		say(f, tag, have, -EIO);
		return f->over;
	}
	if (err) {
		f->over = err;
		return err;
	}
	f->stats.bytes += len;
	range->gained += len;
	r->have += len;
	r->broke = 0;
	if (r->have == r->length) {
		drop(f, r);
		f->stats.completed++;
	}
	return 0;
}

int fetch_bytes(struct range *range, const void *bytes, size_t len)
{
	struct fetch *f = range->fetch;
	const u8 *p = bytes;

	if (len > range->last + 1 - range->pos)
		return -EPROTO;
	if (len)
		range->moved = now_ns();
	while (len) {
		struct request *r = TAILQ_FIRST(&range->requests);
		u64 n = len;
		int err;

		if (r && range->pos == wanted_from(r)) {
			if (n > r->length - r->have)
				n = r->length - r->have;
			err = give(range, r, p, n);
			if (err)
				return -ECANCELED;
		} else {
			/* A gap, or somebody who no longer waits. */
			if (r && n > wanted_from(r) - range->pos)
				n = wanted_from(r) - range->pos;
			f->stats.wasted += n;
		}
		p += n;
		len -= n;
		range->pos += n;
	}
	if (TAILQ_EMPTY(&range->requests) &&
	    range->last + 1 - range->pos > DRAIN_MAX)
		return -ECANCELED;
	return 0;
}

/* Full jitter: anything between now and twice the last limit. */
static u64 backoff(struct fetch *f, const struct range *range, u64 after_ns)
{
	unsigned int n = range->gained ? 0 : range->fruitless;
	u64 limit = BACKOFF_CAP;

	if (n < 7 && BACKOFF_BASE << n < BACKOFF_CAP)
		limit = BACKOFF_BASE << n;
	if (after_ns > AFTER_CAP)
		after_ns = AFTER_CAP;
	return after_ns + draw(f, limit);
}

/* What is left of a broken range goes back to the queue. */
static void requeue(struct fetch *f, struct range *range, const char *why,
		    u64 after_ns)
{
	u64 now = now_ns(), delay = backoff(f, range, after_ns), soonest = delay;
	struct request *r = TAILQ_FIRST(&range->requests);

	f->stats.retries++;
	/* Only a transfer that had begun says something about this frame. */
	if (range->begun && r->broke < UINT16_MAX)
		r->broke++;
	while ((r = TAILQ_FIRST(&range->requests))) {
		u64 wait = delay, left;

		TAILQ_REMOVE(&range->requests, r, by_offset);
		if (r->deadline != NEVER) {
			left = r->deadline > now ? r->deadline - now : 0;
			/* However long we are asked to wait, try once more. */
			if (wait > left / 2)
				wait = left / 2;
			if (wait < soonest)
				soonest = wait;
		}
		r->fruitless = range->gained ? 0 : range->fruitless + 1;
		r->not_before = now + wait;
		enqueue(f, r);
		wake_at(f, r->not_before);
	}
	log_info("layer %s: bytes %llu-%llu from %s: attempt %u stopped at %llu: %s; again in %llu ms",
		 range->layer->name, (unsigned long long)range->first,
		 (unsigned long long)range->last, range->layer->origin->name,
		 range->attempt, (unsigned long long)range->pos,
		 why, (unsigned long long)soonest / NSEC_PER_MSEC);
}

void fetch_done(struct range *range, int err, const char *why, u64 after_ns)
{
	struct fetch *f = range->fetch;
	char last[WHY_BYTES];
	struct request *r;

	if (err)
		snprintf(last, sizeof(last), "%s", why);
	else
		snprintf(last, sizeof(last), "%llu of %llu bytes came",
			 (unsigned long long)(range->pos - range->first),
			 (unsigned long long)(range->last + 1 - range->first));
	TAILQ_FOREACH(r, &range->requests, by_offset)
		memcpy(r->why, last, sizeof(last));
	switch (err) {
	case -ENOENT:
	case -EACCES:
	case -ESTALE:
	case -EPROTO:
	case -EIO:
		while ((r = TAILQ_FIRST(&range->requests)))
			fail(f, r, err);
		break;
	default:
		if (!TAILQ_EMPTY(&range->requests))
			requeue(f, range, last, after_ns);
	}
	end_range(range);
}

const struct fetch_stats *fetch_stats(const struct fetch *f)
{
	return &f->stats;
}

struct fetch *fetch_new(struct loop *loop, struct sink *sink, u32 tags,
			const struct fetch_options *options)
{
	unsigned int transfers = fetch_transfers(options->connections), i;
	struct fetch *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->loop = loop;
	f->sink = sink;
	f->opt = *options;
	f->tags = tags;
	f->wake = NEVER;
	f->request = calloc(tags, sizeof(*f->request));
	f->layers = tags + transfers;
	f->layer = calloc(f->layers, sizeof(*f->layer));
	f->origin = calloc(f->layers, sizeof(*f->origin));
	f->range = calloc(transfers, sizeof(*f->range));
	f->timer = loop_timer(loop, on_timer, f);
	if (!f->request || !f->layer || !f->origin || !f->range ||
	    f->timer < 0) {
		if (f->timer < 0)
			errno = -f->timer;
		fetch_free(f);
		return NULL;
	}
	if (getrandom(&f->seed, sizeof(f->seed), GRND_NONBLOCK) < 0)
		f->seed = now_ns() ^ getpid();
	f->seed |= 1;	/* 0 is the generator's only fixed point */
	TAILQ_INIT(&f->lru);
	TAILQ_INIT(&f->idle);
	TAILQ_INIT(&f->running);
	TAILQ_INIT(&f->queue[DEMAND]);
	TAILQ_INIT(&f->queue[PREFETCH]);
	for (i = 0; i < f->layers; i++) {
		TAILQ_INIT(&f->layer[i].queued);
		TAILQ_INSERT_TAIL(&f->lru, &f->layer[i], lru);
	}
	for (i = 0; i < transfers; i++)
		TAILQ_INSERT_TAIL(&f->idle, &f->range[i], link);
	return f;
}

void fetch_free(struct fetch *f)
{
	struct range *range;

	if (f->running.tqh_last)
		TAILQ_FOREACH(range, &f->running, link)
			abort_range(range);
	if (f->timer >= 0) {
		loop_unwatch(f->loop, f->timer);
		close(f->timer);
	}
	free(f->range);
	free(f->origin);
	free(f->layer);
	free(f->request);
	free(f);
}

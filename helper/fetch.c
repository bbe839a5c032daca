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
 *
 * Of two ranges for the same bytes, one holds the requests and the other none. No
 * byte is handed over before one of them has won, and then its twin holds none
 * for good, so nothing is handed over twice.
 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "fetch.h"
#include "layers.h"
#include "log.h"
#include "shared_io.h"

#define AFTER_CAP	(60 * NSEC_PER_SEC)	/* patience with Retry-After */
#define MIN_ATTEMPT	(250 * NSEC_PER_MSEC)
/* Our "timed out" is to be there before the kernel's own. */
#define MARGIN		(20 * NSEC_PER_MSEC)
/* A connection is worth this many bytes that nobody wants. */
#define DRAIN_MAX	65536
/* Breaking this often at one frame, the frame no longer has company. */
#define ALONE_AFTER	2
#define WHY_BYTES	160
/* A second request, when the first has waited for longer than so many do */
#define HEDGE_PERMILLE	950
/* A new connection in the place of the loser's has its price. */
#define HEDGE_SOONEST	(2 * NSEC_PER_MSEC)
/* Second requests that were not needed and may be made up for, at most */
#define HEDGE_SAVED	10

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
	/* Of the shared directory */
	struct shared_job *lookup;	/* neither queued nor in a range */
	struct shared_copy *copy;	/* of the bytes up to @have */
	bool missed;			/* and waits for those of its turn */
	u64 turn;
	u64 patience;			/* until when it may wait for all that */
};

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
	u64 born;
	u64 turn;			/* counts calls of fetch_run() */
	struct dice dice;
	struct request *request;	/* by tag */
	struct layers layers;
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

static bool is_looked_for(const struct request *r)
{
	return r->lookup || r->missed;
}

static void stop_looking(struct fetch *f, struct request *r, bool late)
{
	if (r->lookup)
		shared_leave(f->opt.shared, r->lookup, late);
	r->lookup = NULL;
	r->missed = false;
}

/* The end of a request: out of wherever it is, its tag is free. */
static void drop(struct fetch *f, struct request *r)
{
	assert(r->layer);
	if (r->range)
		TAILQ_REMOVE(&r->range->requests, r, by_offset);
	else if (is_looked_for(r))
		stop_looking(f, r, false);
	else
		dequeue(f, r);
	if (r->copy)
		shared_copy_end(f->opt.shared, r->copy, r->have == r->length);
	r->copy = NULL;
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
	if (r->range || is_looked_for(r)) {
		r->prefetch = false;
		f->dirty = true;	/* it may be worth a second request now */
		if (r->lookup)
			shared_promote(f->opt.shared, r->lookup);
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
	/*
	 * How long it would have taken is not known, but it was not less. Of a
	 * second request that means nothing: it may have begun just now.
	 */
	if (!range->begun && !range->hedge)
		latency_add(&range->layer->origin->latency,
			    now_ns() - range->started);
}

/* Nobody waits for it any more. */
static void abandon(struct range *range)
{
	struct range *twin = range->twin;

	if (range->probe)
		breaker_void(&range->layer->origin->breaker);
	abort_range(range);
	end_range(range);
	if (!twin)
		return;
	twin->twin = NULL;
	abandon(twin);
}

/* The shared directory */

/*
 * May it be kept for others? What its name does not tell from other objects, or
 * what lies in a file of this host, is not.
 */
static bool may_share(const struct layer *l)
{
	static const u8 nil[sizeof(l->info.uuid)];

	if (!memcmp(l->info.uuid, nil, sizeof(nil)) ||
	    !strncasecmp(l->info.locator, "file:", 5))
		return false;
	/* An object of another tool is named by its URL, size and entity tag. */
	return l->info.uuid[6] >> 4 != 8 || l->tagged;
}

static bool shared_key_of(const struct fetch *f, const struct request *r,
			  struct shared_key *key)
{
	if (!f->opt.shared || !may_share(r->layer))
		return false;
	memcpy(key->layer, r->layer->info.uuid, sizeof(key->layer));
	key->offset = r->offset;
	key->length = r->length;
	return true;
}

/* Return: false: @r has to be queued. */
static bool look(struct fetch *f, struct request *r, bool refused)
{
	struct shared_key key;

	if (!shared_key_of(f, r, &key))
		return false;
	if (refused) {
		shared_refuse(f->opt.shared, &key);
		return false;
	}
	r->lookup = shared_ask(f->opt.shared, &key, !r->prefetch, r);
	if (!r->lookup)
		return false;
	r->turn = f->turn;
	r->patience = now_ns() + shared_patience(f->opt.shared);
	wake_at(f, r->patience);
	return true;
}

/*
 * When all that came with @turn was looked for, what was not there is queued at
 * once: one by one, they would leave for the server one by one.
 */
static void end_turn(struct fetch *f, u64 turn)
{
	struct request *r;

	for (r = f->request; r < f->request + f->tags; r++)
		if (r->layer && r->lookup && r->turn == turn)
			return;
	for (r = f->request; r < f->request + f->tags; r++) {
		if (!r->layer || !r->missed || r->turn != turn)
			continue;
		r->missed = false;
		enqueue(f, r);
	}
}

static int hand(struct fetch *f, struct request *r, const u8 *bytes, u32 len);

static void on_lookup(void *arg, void *owner, const u8 *bytes)
{
	struct request *r = owner;
	struct fetch *f = arg;
	u64 turn = r->turn;

	r->lookup = NULL;
	r->missed = true;
	if (bytes && !f->over)
		hand(f, r, bytes + r->have, r->length - r->have);
	end_turn(f, turn);
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
		if (range && TAILQ_EMPTY(&range->requests))
			abandon(range);
	}
	f->stats.requests++;
	err = layers_get(&f->layers, req->layer, &layer);
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
	if (!look(f, r, req->flags & LAZYFRAME_REQ_AGAIN))
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

/* An unused range for bytes of @l */
static struct range *new_range(struct fetch *f, struct layer *l)
{
	struct range *range = TAILQ_FIRST(&f->idle);

	TAILQ_REMOVE(&f->idle, range, link);
	memset(range, 0, sizeof(*range));
	TAILQ_INIT(&range->requests);
	range->fetch = f;
	range->layer = l;
	range->url = l->info.locator;
	range->size = l->size;
	range->validator = l->info.validator;
	range->hedge_at = NEVER;
	return range;
}

static void launch(struct fetch *f, struct range *range)
{
	struct layer *l = range->layer;
	struct origin *o = l->origin;
	struct transport *t = o->transport;
	u64 limit = range->started + range->stall_ns;
	int err;

	range->pos = range->first;
	TAILQ_INSERT_TAIL(&f->running, range, link);
	l->open++;	/* the range's own hold: requests may go before it */
	o->running++;
	o->prefetching += range->prefetch;
	f->stats.running++;
	f->stats.ranges++;
	wake_at(f, limit < range->attempt_end ? limit : range->attempt_end);
	wake_at(f, range->hedge_at);
	log_debug("layer %s: bytes %llu-%llu from %s: attempt %u%s", l->name,
		  (unsigned long long)range->first,
		  (unsigned long long)range->last, o->name, range->attempt,
		  range->hedge ? ", second request" : "");
	err = t->start(t, range);
	if (err)
		fetch_done(range, err == -EPROTO ? err : -EAGAIN,
			   strerror(-err), 0);
}

static void start(struct fetch *f, struct request *seed, u64 now)
{
	struct origin *o = seed->layer->origin;
	struct range *range = new_range(f, seed->layer);
	u64 late = 0;

	gather(f, range, seed);
	set_limits(f, range, now);
	range->probe = breaker_started(&o->breaker, now);
	if (o->transport->hedge && f->opt.hedge && !range->probe)
		late = latency_quantile(&o->latency, HEDGE_PERMILLE);
	if (late)
		range->hedge_at = now + (late > HEDGE_SOONEST ? late :
					 HEDGE_SOONEST);
	o->credit += f->opt.hedge;
	if (o->credit > HEDGE_SAVED * 100)
		o->credit = HEDGE_SAVED * 100;
	launch(f, range);
}

/*
 * May @r, whose server does not answer, be the one that finds out? If not, it
 * waits for what others find, and asks for them to be quick.
 */
static bool may_probe(struct fetch *f, const struct request *r, u64 now)
{
	struct breaker *b = &r->layer->origin->breaker;

	if (r->deadline != NEVER && r->deadline > now)
		breaker_hurry(b, now + (r->deadline - now) / 2);
	wake_at(f, b->next);
	return breaker_ready(b, now);
}

/*
 * Who has tried least: if it is one object that the server fails at, others are
 * not to wait for it.
 */
static struct request *next_probe(struct request *first)
{
	struct request *r = first, *best = first;

	for (; r; r = TAILQ_NEXT(r, by_age))
		if (r->layer->origin == first->layer->origin &&
		    r->fruitless < best->fruitless)
			best = r;
	return best;
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
			struct origin *o = r->layer->origin;

			if (TAILQ_EMPTY(&f->idle))
				return;
			if (!room(f, o, r->prefetch))
				continue;
			if (o->breaker.open) {
				if (!may_probe(f, r, now))
					continue;
				r = next_probe(r);
			} else if (r->not_before > now) {
				continue;
			}
			start(f, r, now);
			/* It took others along: no place is kept. */
			goto again;
		}
	}
}

/* Second requests */

static bool may_hedge(struct fetch *f, const struct range *range)
{
	struct origin *o = range->layer->origin;
	struct request *r;

	if (range->begun || range->twin || range->lost || o->credit < 100 ||
	    o->breaker.open || TAILQ_EMPTY(&f->idle) ||
	    !room(f, o, range->prefetch))
		return false;
	TAILQ_FOREACH(r, &range->requests, by_offset)
		if (!r->prefetch)
			return true;
	return false;
}

static void start_hedges(struct fetch *f)
{
	struct range *range, *second;
	u64 now = now_ns();

	TAILQ_FOREACH(range, &f->running, link) {
		if (range->hedge_at > now) {
			wake_at(f, range->hedge_at);
			continue;
		}
		if (!may_hedge(f, range))
			continue;
		second = new_range(f, range->layer);
		second->hedge = true;
		second->first = range->first;
		second->last = range->last;
		second->started = now;
		second->moved = now;
		second->wait_ns = range->wait_ns;
		second->stall_ns = range->stall_ns;
		second->attempt_end = range->attempt_end;
		second->attempt = range->attempt;
		second->fruitless = range->fruitless;
		second->twin = range;
		range->twin = second;
		range->layer->origin->credit -= 100;
		f->stats.hedges++;
		launch(f, second);
	}
}

/* All requests of @from, and what they mean for counters, go to @to. */
static void hand_over(struct range *from, struct range *to)
{
	struct request *r;

	TAILQ_FOREACH(r, &from->requests, by_offset)
		r->range = to;
	TAILQ_CONCAT(&to->requests, &from->requests, by_offset);
	to->prefetch |= from->prefetch;
	from->prefetch = false;
}

/*
 * @range was first to show the right object. Its twin is aborted by fetch_run():
 * this may run below a callback of a transport.
 */
static void win(struct range *range)
{
	struct range *loser = range->twin;
	struct fetch *f = range->fetch;

	range->twin = NULL;
	loser->twin = NULL;
	loser->lost = true;
	hand_over(loser, range);
	f->stats.hedges_won += range->hedge;
	f->dirty = true;
}

static void end_losers(struct fetch *f)
{
	struct range *range, *next;

	for (range = TAILQ_FIRST(&f->running); range; range = next) {
		next = TAILQ_NEXT(range, link);
		if (range->lost)
			abandon(range);
	}
}

int fetch_run(struct fetch *f)
{
	f->turn++;
	while (f->dirty && !f->over) {
		end_losers(f);
		start_ranges(f);
		start_hedges(f);
	}
	return f->over;
}

/* Time */

static void expire(struct fetch *f, struct request *r)
{
	const struct origin *o = r->layer->origin;
	struct range *range = r->range;

	if (!*r->why && o->breaker.open)
		snprintf(r->why, sizeof(r->why), "%.100s does not answer",
			 o->name);
	fail(f, r, -ETIMEDOUT);
	if (range && TAILQ_EMPTY(&range->requests))
		abandon(range);
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
		if (is_looked_for(r)) {
			if (now < r->patience) {
				wake_at(f, r->patience);
				continue;
			}
			stop_looking(f, r, true);
			enqueue(f, r);
		}
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
		if (range->unsent)
			snprintf(why, sizeof(why), "%s", range->unsent);
		else if (now >= stalled)
			snprintf(why, sizeof(why), "no byte came for %llu ms",
				 (unsigned long long)range->stall_ns / NSEC_PER_MSEC);
		else
			snprintf(why, sizeof(why), "not done after %llu ms",
				 (unsigned long long)(now - range->started) /
				 NSEC_PER_MSEC);
		abort_range(range);
		fetch_done(range, range->begun || range->unsent ? -EAGAIN :
			   -EHOSTDOWN, why, 0);
	}
}

/* What does the end of @range tell about its server? */
static void judge(struct range *range, int err, const char *why, u64 after_ns)
{
	struct origin *o = range->layer->origin;
	struct fetch *f = range->fetch;

	if (range->begun || err == -ENOENT || err == -EACCES || err == -ESTALE)
		f->dirty |= origin_answered(o);
	else if (err == -EHOSTDOWN)
		origin_failed(o, range->probe, why, after_ns, &f->dice);
	else if (range->probe)
		breaker_void(&o->breaker);
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
	if (!range->begun)
		latency_add(&l->origin->latency, now_ns() - range->started);
	range->begun = true;
	range->fetch->dirty |= origin_answered(l->origin);
	if (range->twin)
		win(range);
	return 0;
}

/*
 * The next bytes of @r go to the module; with the last one @r is gone, and so it
 * is where the module does not want them.
 */
static int hand(struct fetch *f, struct request *r, const u8 *bytes, u32 len)
{
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
		return err;
	}
	if (err) {
		f->over = err;
		return err;
	}
	f->stats.bytes += len;
	r->have += len;
	r->broke = 0;
	if (r->have == r->length) {
		drop(f, r);
		f->stats.completed++;
	}
	return 0;
}

/* Bytes for the first request of the range. */
static int give(struct range *range, struct request *r, const u8 *bytes,
		u32 len)
{
	struct fetch *f = range->fetch;
	struct shared_key key;
	int err;

	if (!r->have && !r->copy && shared_key_of(f, r, &key))
		r->copy = shared_copy(f->opt.shared, &key);
	if (r->copy)
		shared_copy_add(r->copy, bytes, len);
	err = hand(f, r, bytes, len);
	if (!err)
		range->gained += len;
	return err == -EINVAL ? f->over : err;
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

/* Where nobody is asked before a probe has found something, that is enough. */
static u64 rest(struct fetch *f, const struct range *range, u64 after_ns)
{
	if (range->layer->origin->breaker.open)
		return 0;
	if (after_ns > AFTER_CAP)
		after_ns = AFTER_CAP;
	return after_ns + backoff(&f->dice, range->gained ? 0 : range->fruitless);
}

/* What is left of a broken range goes back to the queue. */
static void requeue(struct fetch *f, struct range *range, const char *why,
		    u64 after_ns)
{
	u64 now = now_ns(), delay = rest(f, range, after_ns), soonest = delay;
	struct request *r = TAILQ_FIRST(&range->requests);
	char again[40];

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
	if (range->layer->origin->breaker.open)
		strcpy(again, "when the server answers");
	else
		snprintf(again, sizeof(again), "in %llu ms",
			 (unsigned long long)soonest / NSEC_PER_MSEC);
	log_info("layer %s: bytes %llu-%llu from %s: attempt %u stopped at %llu: %s; again %s",
		 range->layer->name, (unsigned long long)range->first,
		 (unsigned long long)range->last, range->layer->origin->name,
		 range->attempt, (unsigned long long)range->pos,
		 why, again);
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
	judge(range, err, last, after_ns < AFTER_CAP ? after_ns : AFTER_CAP);
	if (range->twin) {
		/* It is up to the other one now, whatever this one found. */
		log_debug("layer %s: one of two requests for %llu-%llu stopped: %s",
			  range->layer->name, (unsigned long long)range->first,
			  (unsigned long long)range->last, last);
		hand_over(range, range->twin);
		range->twin->twin = NULL;
		end_range(range);
		return;
	}
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

unsigned int fetch_down(const struct fetch *f)
{
	return layers_down(&f->layers);
}

struct fetch *fetch_new(struct loop *loop, struct sink *sink, u32 tags,
			const struct fetch_options *options)
{
	unsigned int transfers = fetch_transfers(options->connections), i;
	struct fetch *f = calloc(1, sizeof(*f));
	u64 seed;

	if (!f)
		return NULL;
	f->loop = loop;
	f->sink = sink;
	f->opt = *options;
	f->tags = tags;
	f->wake = NEVER;
	f->request = calloc(tags, sizeof(*f->request));
	f->range = calloc(transfers, sizeof(*f->range));
	f->timer = loop_timer(loop, on_timer, f);
	if (layers_init(&f->layers, sink, f->opt.transport, tags + transfers) ||
	    !f->request || !f->range || f->timer < 0) {
		if (f->timer < 0)
			errno = -f->timer;
		fetch_free(f);
		return NULL;
	}
	if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) < 0)
		seed = now_ns() ^ getpid();
	dice_init(&f->dice, seed);
	if (f->opt.shared)
		shared_listen(f->opt.shared, on_lookup, f);
	TAILQ_INIT(&f->idle);
	TAILQ_INIT(&f->running);
	TAILQ_INIT(&f->queue[DEMAND]);
	TAILQ_INIT(&f->queue[PREFETCH]);
	for (i = 0; i < transfers; i++)
		TAILQ_INSERT_TAIL(&f->idle, &f->range[i], link);
	return f;
}

static void leave_shared(struct fetch *f)
{
	u32 tag;

	for (tag = 0; f->request && tag < f->tags; tag++) {
		struct request *r = &f->request[tag];

		if (!r->layer)
			continue;
		stop_looking(f, r, false);
		if (r->copy)
			shared_copy_end(f->opt.shared, r->copy, false);
	}
	shared_listen(f->opt.shared, NULL, NULL);
}

void fetch_free(struct fetch *f)
{
	struct range *range;

	if (f->opt.shared)
		leave_shared(f);
	if (f->running.tqh_last)
		TAILQ_FOREACH(range, &f->running, link)
			abort_range(range);
	if (f->timer >= 0) {
		loop_unwatch(f->loop, f->timer);
		close(f->timer);
	}
	free(f->range);
	layers_exit(&f->layers);
	free(f->request);
	free(f);
}

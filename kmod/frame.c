// SPDX-License-Identifier: GPL-2.0-only
/*
 * Frames: what is here, what is on its way, and who waits. The only file that
 * changes a frame's state.
 *
 * One fetch per frame, however many wait
 * --------------------------------------
 * A frame is found by (layer, C offset) in one hash. Looking up takes RCU and
 * a reference; inserting takes frames.lock and looks again first, so the
 * second of two readers finds the first one's frame and parks on it.
 *
 * Why a parked read cannot be lost
 * --------------------------------
 * A read is on its frame's list of waiters and on its device's list of parked
 * reads, both or none, under frames.lock (from its waking until it is over it is
 * on another list, for those who ask why). Three things take it off, each
 * under the lock and each by queueing its work exactly once: the frame becomes
 * READY or FAILED; the device's policy gives up on it (review). A frame with
 * waiters is WANTED, LOADING or SENT. WANTED is on a want list, which every event
 * that could make room (an answer, a free slot, freed memory, a new helper, the
 * end of a load) looks through again. SENT has a slot, which ends by an answer or
 * with its session. LOADING ends with its load, or by the patience of the review.
 *
 *	reader				helper
 *	lookup: SENT
 *					last byte: lock, READY, wake, unlock
 *	lock: state is READY: no
 *	parking, served at once
 *
 * Memory
 * ------
 * A frame's buffer is charged before it is allocated, so the cache never
 * exceeds its limit (in bytes asked for; the allocator rounds up), with one
 * exception: where nothing is on its way, in or out, one frame may go over it,
 * or a limit below a frame's size would stop the device.
 * A load that takes too long keeps its buffer until it ends; the frame gets
 * another one.
 * READY frames are evicted in second-chance order. Readers hold references, so
 * eviction never takes bytes from under a decode or a read that was promised
 * them; their memory stays charged until they let go.
 */
#include <linux/hash.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/nospec.h>
#include <linux/rculist.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "fill.h"
#include "lazyframe.h"
#include "trace.h"

#define HASH_BITS	14
#define RETRY_DELAY	(HZ / 50)
#define REVIEW_PERIOD	(HZ / 4)
/* So long a reader waits for the store before the helper is asked, too. */
#define LOAD_PATIENCE	(2 * HZ)
#define MAX_LOADS	128
/* Refused frames that are remembered until they are wanted again. */
#define MAX_REFUSED	64
/* What devices like to read into. */
#define BUFFER_ALIGN	4096
/*
 * Where no more than a fourth of the tags is left, whoever has the others, they are
 * for frames that somebody waits for, until half of all are free: one by one, frames
 * would travel one by one.
 */
#define TAGS_CROWDED	(LF_TAGS - LF_TAGS / 4)
#define TAGS_EASY	(LF_TAGS / 2)
/* Bounds of what is done under the lock at once. */
#define MAX_CHANCES	64
#define MAX_FORGET	256
#define MAX_COMPANY	256

/**
 * struct slot - one tag
 * @frame: what the helper brings; NULL if the tag is free, or if the frame's
 *	   layer went away: then the answer is taken and thrown away
 * @tag: current value, 0 if free; the low bits are the slot's number
 * @uses: makes the next tag differ from the last
 * @cbytes: size of the answer
 * @have: bytes of it that arrived
 * @filling: a write() is copying into the frame
 * @step: how far the request came
 * @since: ktime_get_ns() of when it came there
 */
struct slot {
	struct lf_frame *frame;
	u32 tag;
	u32 uses;
	u32 cbytes;
	u32 have;
	bool filling;
	enum { POSTED, TAKEN, RECEIVING } step;
	u64 since;
};

static struct {
	spinlock_t lock;		/* of all here but what says otherwise */
	struct hlist_head *hash;
	struct list_head stored;	/* WANTED, and the store should have it */
	struct list_head demand;	/* WANTED, somebody waits */
	struct list_head prefetch;	/* WANTED, nobody does yet */
	struct list_head lru;		/* READY; the oldest first */
	struct list_head starved;	/* reads that got no memory for a frame */
	struct {
		u64 layer;		/* 0: unused */
		u64 cstart;
	} refused[MAX_REFUSED];
	unsigned int next_refused;
	unsigned int refused_used;
	struct slot slot[LF_TAGS];
	unsigned int slots_used;
	bool crowded;			/* @prefetch has to wait for slots */
	unsigned int sent;		/* slots that have a frame */
	unsigned int loading;		/* loads under way, abandoned ones too */
	unsigned int batches;		/* windows being put on @prefetch */
	unsigned int next_slot;
	unsigned int count;		/* hashed frames */
	u64 ahead;			/* C bytes that come for an owner */
	u64 serial;
	struct lf_session *session;
	u64 generation;
	unsigned long changed;		/* jiffies when @session last changed */
	atomic64_t charged;		/* bytes of all frames' buffers */
	atomic64_t leaving;		/* those of frames that are not hashed */
	struct kmem_cache *slab;
	struct delayed_work post_work;
	struct delayed_work starved_work;
} frames;

static unsigned long cache_mib = 128;

unsigned long lf_cache_limit(void)
{
	return READ_ONCE(cache_mib) << 20;
}

u64 lf_cache_used(void)
{
	return atomic64_read(&frames.charged);
}

unsigned int lf_cache_frames(void)
{
	return READ_ONCE(frames.count);
}

u64 lf_frames_ahead(void)
{
	return READ_ONCE(frames.ahead);
}

bool lf_helper_attached(void)
{
	return READ_ONCE(frames.session);
}

/*
 * ----------------------------------------------------------------
 * References and the hash
 * ----------------------------------------------------------------
 */

static struct hlist_head *bucket(const struct lf_layer *layer, u64 cstart)
{
	return &frames.hash[hash_64(cstart + layer->id * GOLDEN_RATIO_64,
				    HASH_BITS)];
}

static void frame_free_rcu(struct rcu_head *rcu)
{
	kmem_cache_free(frames.slab, container_of(rcu, struct lf_frame, rcu));
}

/* A buffer of a frame that is not hashed, or that was abandoned. */
static void buffer_free(void *data, u32 bytes)
{
	kvfree(data);
	atomic64_sub(bytes, &frames.charged);
	atomic64_sub(bytes, &frames.leaving);
	/* Somebody may have been waiting for this memory. */
	if (!list_empty_careful(&frames.demand) ||
	    !list_empty_careful(&frames.prefetch) ||
	    !list_empty_careful(&frames.stored))
		lf_frames_post();
}

void lf_frame_put(struct lf_frame *frame)
{
	if (!refcount_dec_and_test(&frame->refs))
		return;
	if (frame->orphan)
		atomic64_add(frame->pos.cbytes, &frames.leaving);
	lf_decoded_drop(frame);
	if (frame->data)
		buffer_free(frame->data, frame->pos.cbytes);
	lf_store_put(frame->store);
	call_rcu(&frame->rcu, frame_free_rcu);
}

static void put_list(struct list_head *list)
{
	struct lf_frame *frame, *next;

	list_for_each_entry_safe(frame, next, list, node) {
		list_del_init(&frame->node);
		lf_frame_put(frame);
	}
}

static struct lf_frame *lookup(struct lf_layer *layer, u64 cstart)
{
	struct lf_frame *frame;

	rcu_read_lock();
	hlist_for_each_entry_rcu(frame, bucket(layer, cstart), hash)
		if (frame->layer == layer && frame->pos.cstart == cstart &&
		    refcount_inc_not_zero(&frame->refs))
			goto out;
	frame = NULL;
out:
	rcu_read_unlock();
	return frame;
}

static struct lf_frame *frame_alloc(struct lf_store *store,
				    struct lf_layer *layer,
				    const struct lf_frame_pos *pos)
{
	struct lf_frame *frame;

	frame = kmem_cache_zalloc(frames.slab, GFP_NOIO | __GFP_NOWARN);
	if (!frame)
		return NULL;
	INIT_HLIST_NODE(&frame->hash);
	INIT_LIST_HEAD(&frame->in_layer);
	INIT_LIST_HEAD(&frame->node);
	INIT_LIST_HEAD(&frame->waiters);
	INIT_LIST_HEAD(&frame->owned);
	frame->layer = layer;
	frame->codec = layer->codec;
	frame->pos = *pos;
	frame->store = lf_store_get(store);
	frame->stored = lf_store_has(store, layer, pos);
	refcount_set(&frame->refs, 2);	/* the hash's and the caller's */
	return frame;
}

/* One that was never hashed. */
static void frame_free(struct lf_frame *frame)
{
	lf_store_put(frame->store);
	kmem_cache_free(frames.slab, frame);
}

/* Take a frame out of the hash; the hash's reference is now the caller's. */
static void __unhash(struct lf_frame *frame)
{
	lockdep_assert_held(&frames.lock);
	hlist_del_init_rcu(&frame->hash);
	list_del_init(&frame->in_layer);
	list_del_init(&frame->node);
	frames.count--;
	if (frame->data)
		atomic64_add(frame->pos.cbytes, &frames.leaving);
}

static struct list_head *want_list(const struct lf_frame *frame)
{
	if (frame->stored)
		return &frames.stored;
	return frame->prefetch ? &frames.prefetch : &frames.demand;
}

/*
 * What the helper brought for @frame did not verify. The next request for it says
 * so; whoever makes it, for the frame itself is gone. Where so many are refused
 * that the oldest is overwritten, that one's does not.
 */
static void __remember_refused(const struct lf_frame *frame)
{
	unsigned int i = frames.next_refused++ % MAX_REFUSED;

	lockdep_assert_held(&frames.lock);
	frames.refused_used += !frames.refused[i].layer;
	frames.refused[i].layer = frame->layer->id;
	frames.refused[i].cstart = frame->pos.cstart;
}

static bool __was_refused(const struct lf_frame *frame)
{
	unsigned int i;

	if (!frames.refused_used)
		return false;
	for (i = 0; i < MAX_REFUSED; i++) {
		if (frames.refused[i].layer != frame->layer->id ||
		    frames.refused[i].cstart != frame->pos.cstart)
			continue;
		frames.refused[i].layer = 0;
		frames.refused_used--;
		return true;
	}
	return false;
}

/*
 * Insert @fresh as WANTED unless its like is there already. Returns the one
 * that is hashed, with a reference; the other is the caller's to put.
 */
static struct lf_frame *__insert(struct lf_frame *fresh, bool prefetch)
{
	struct lf_frame *frame;

	lockdep_assert_held(&frames.lock);
	frame = lookup(fresh->layer, fresh->pos.cstart);
	if (frame)
		return frame;
	fresh->serial = ++frames.serial;
	fresh->state = LF_FRAME_WANTED;
	fresh->prefetch = prefetch;
	fresh->again = __was_refused(fresh);
	fresh->since = jiffies;
	hlist_add_head_rcu(&fresh->hash,
			   bucket(fresh->layer, fresh->pos.cstart));
	list_add(&fresh->in_layer, &fresh->layer->frames);
	list_add_tail(&fresh->node, want_list(fresh));
	frames.count++;
	trace_lazyframe_wanted(fresh);
	return fresh;
}

/*
 * ----------------------------------------------------------------
 * What a device asked for ahead of its readers. It owns the frame until that
 * is read, waited for or gone; each of them makes it count once.
 * ----------------------------------------------------------------
 */

static void __own(struct lf_frame *frame, struct lf_device *dev,
		  unsigned int chunk)
{
	struct lf_chunk *c;

	lockdep_assert_held(&frames.lock);
	WRITE_ONCE(frame->owner, dev);
	frame->chunk = chunk;
	list_add_tail(&frame->owned, &dev->prefetch.frames);
	WRITE_ONCE(frames.ahead, frames.ahead + frame->pos.cbytes);
	if (!chunk)
		return;
	c = &dev->prefetch.chunk[chunk - 1];
	c->left += frame->pos.cbytes;
}

/* It is here, or will not come: one less to wait for. */
static void __leave_chunk(struct lf_frame *frame)
{
	struct lf_prefetch *p = &frame->owner->prefetch;
	struct lf_chunk *c;
	u64 now;
	int i;

	if (!frame->chunk)
		return;
	c = &p->chunk[frame->chunk - 1];
	frame->chunk = 0;
	c->left -= frame->pos.cbytes;
	if (c->left)
		return;
	now = ktime_get_ns();
	p->took = now - c->began;
	/*
	 * The two chunks of an order stand in line for a slow link: the one behind
	 * did not have it to itself until now. To say so of all four that hydrate,
	 * on links of their own, would make them seem shorter than they are.
	 */
	if (READ_ONCE(p->source) == LF_PREFETCH_ORDER)
		for (i = 0; i < LF_CHUNKS; i++)
			p->chunk[i].began = max(p->chunk[i].began, now);
	lf_prefetch_kick(frame->owner);
}

static void __kept(struct lf_frame *frame)
{
	struct lf_prefetch *p = &frame->owner->prefetch;

	if (frame->landed && !frame->kept)
		p->unread -= frame->pos.cbytes;
	frame->kept = true;
	if (!p->full && p->unread)
		return;
	p->full = false;
	lf_prefetch_kick(frame->owner);
}

/* @stat: what became of it; LF_STATS: nothing that counts */
static void __disown(struct lf_frame *frame, enum lf_stat stat)
{
	struct lf_device *dev = frame->owner;

	lockdep_assert_held(&frames.lock);
	if (!dev)
		return;
	__leave_chunk(frame);
	__kept(frame);
	if (stat == LF_PREFETCH_LATE)
		this_cpu_add(dev->stats->count[LF_PREFETCH_BYTES],
			     frame->pos.cbytes);
	if (stat != LF_STATS)
		this_cpu_add(dev->stats->count[stat], frame->pos.cbytes);
	list_del_init(&frame->owned);
	if (!frame->landed)
		WRITE_ONCE(frames.ahead, frames.ahead - frame->pos.cbytes);
	WRITE_ONCE(frame->owner, NULL);
}

/* A READY frame that nobody read leaves memory. */
static void __disown_unread(struct lf_frame *frame)
{
	if (frame->owner)
		__disown(frame, lf_store_keeps(frame->store, frame->layer,
					       &frame->pos) ?
				LF_PREFETCH_STORED : LF_PREFETCH_WASTED);
}

static void __landed(struct lf_frame *frame)
{
	struct lf_device *dev = frame->owner;

	if (!dev)
		return;
	this_cpu_add(dev->stats->count[LF_PREFETCH_BYTES], frame->pos.cbytes);
	__leave_chunk(frame);
	frame->landed = true;
	WRITE_ONCE(frames.ahead, frames.ahead - frame->pos.cbytes);
	/* What came from the store can go there again. */
	frame->kept = frame->stored;
	if (!frame->kept)
		dev->prefetch.unread += frame->pos.cbytes;
}

static void first_read(struct lf_frame *frame)
{
	spin_lock(&frames.lock);
	__disown(frame, LF_PREFETCH_USEFUL);
	spin_unlock(&frames.lock);
}

void lf_frame_offered(struct lf_frame *frame)
{
	if (!READ_ONCE(frame->owner))
		return;
	spin_lock(&frames.lock);
	if (frame->owner) {
		__kept(frame);
		/* Nobody has read it: of all that could leave memory, the first. */
		if (frame->owner->prefetch.source == LF_PREFETCH_ALL) {
			__disown(frame, LF_STATS);
			list_move(&frame->node, &frames.lru);
		}
	}
	spin_unlock(&frames.lock);
}

int lf_chunk_begin(struct lf_device *dev, unsigned int chunks, u64 bytes,
		   u64 limit, u32 *next, u64 *took)
{
	struct lf_prefetch *p = &dev->prefetch;
	int free = -EBUSY;
	unsigned int i;
	u64 left = 0;

	spin_lock(&frames.lock);
	if (p->lost < *next)
		*next = p->lost;
	p->lost = U32_MAX;
	*took = p->took;
	p->took = 0;
	for (i = 0; i < chunks; i++) {
		left += p->chunk[i].left;
		if (!p->chunk[i].left)
			free = i;
	}
	p->full = free >= 0 && p->unread &&
		  p->unread + left + bytes > limit;
	if (!p->runs || p->full)
		free = -EBUSY;
	/* One byte holds it until lf_chunk_end(). */
	if (free >= 0)
		p->chunk[free] = (struct lf_chunk) {
			.start = *next,
			.left = 1,
			.began = ktime_get_ns(),
		};
	spin_unlock(&frames.lock);
	return free;
}

void lf_chunk_end(struct lf_device *dev, unsigned int chunk)
{
	spin_lock(&frames.lock);
	dev->prefetch.chunk[chunk].left--;
	spin_unlock(&frames.lock);
}

void lf_chunks_reset(struct lf_device *dev, bool runs)
{
	struct lf_prefetch *p = &dev->prefetch;
	struct lf_frame *frame;

	spin_lock(&frames.lock);
	list_for_each_entry(frame, &p->frames, owned)
		frame->chunk = 0;
	memset(p->chunk, 0, sizeof(p->chunk));
	p->lost = U32_MAX;
	p->full = false;
	p->took = 0;
	p->runs = runs;
	spin_unlock(&frames.lock);
}

void lf_chunks_read(struct lf_device *dev, u64 *left, u64 *unread)
{
	struct lf_prefetch *p = &dev->prefetch;
	int i;

	spin_lock(&frames.lock);
	*left = 0;
	for (i = 0; i < LF_CHUNKS; i++)
		*left += p->chunk[i].left;
	*unread = p->unread;
	spin_unlock(&frames.lock);
}

/*
 * Tables of one layer may be trimmed, but where they name the same frame they
 * must say the same of it.
 */
static bool same_pos(const struct lf_frame_pos *a, const struct lf_frame_pos *b)
{
	return a->ustart == b->ustart && a->ubytes == b->ubytes &&
	       a->cbytes == b->cbytes && a->sum == b->sum &&
	       a->has_sum == b->has_sum;
}

/*
 * ----------------------------------------------------------------
 * Waiting: parking, waking, giving up
 * ----------------------------------------------------------------
 */

/* jiffies since which the helper that is there, or the lack of one, counts */
static unsigned long __counts_from(unsigned long since)
{
	return time_after(frames.changed, since) ? frames.changed : since;
}

/* When must this read end, if nothing changes? false: never. */
static bool __expiry(const struct lf_io *io, unsigned long *when)
{
	const struct lf_device *dev = io->dev;
	unsigned int limit = frames.session ?
			     READ_ONCE(dev->fetch_timeout) :
			     READ_ONCE(dev->no_helper_timeout);

	*when = __counts_from(io->since) + limit * HZ;
	return limit;
}

/*
 * May this read wait for @frame, or for memory (NULL)? BLK_STS_OK, or how must it
 * end? The store needs no helper, and ends by itself.
 */
static blk_status_t __verdict(const struct lf_io *io,
			      const struct lf_frame *frame)
{
	const struct lf_device *dev = io->dev;
	unsigned long when;

	lockdep_assert_held(&frames.lock);
	/* The core lets reads in before it undoes an interrupted suspend. */
	if (dev->requeue && dm_noflush_suspending(dev->ti))
		return BLK_STS_DM_REQUEUE;
	if (frame && frame->stored)
		return BLK_STS_OK;
	if (!frames.session &&
	    (dev->draining || READ_ONCE(dev->error_if_no_helper)))
		return BLK_STS_TRANSPORT;
	if (__expiry(io, &when) && time_after_eq(jiffies, when))
		return frames.session ? BLK_STS_TIMEOUT : BLK_STS_TRANSPORT;
	return BLK_STS_OK;
}

static void __park(struct lf_io *io, struct lf_frame *frame)
{
	unsigned int timeout = READ_ONCE(io->dev->fetch_timeout);

	lockdep_assert_held(&frames.lock);
	io->frame = frame;
	list_add_tail(&io->waiter, &frame->waiters);
	list_move_tail(&io->parked, &io->dev->parked);
	io->dev->waiting++;
	trace_lazyframe_read_waits(io, BLK_STS_OK);
	/* The longest patience of all who wait; 0 is without end. */
	if (list_is_singular(&frame->waiters) || !timeout)
		frame->timeout = timeout;
	else if (frame->timeout)
		frame->timeout = max(frame->timeout, timeout);
	queue_delayed_work(lf_wq, &io->dev->expire, REVIEW_PERIOD);
}

/* From here on the read belongs to its work. */
static void __unpark(struct lf_io *io)
{
	lockdep_assert_held(&frames.lock);
	list_del_init(&io->waiter);
	list_move_tail(&io->parked, &io->dev->woken);
	io->dev->waiting--;
	queue_work(lf_wq, &io->work);
}

static void __wake(struct lf_frame *frame)
{
	struct lf_io *io, *next;

	list_for_each_entry_safe(io, next, &frame->waiters, waiter)
		__unpark(io);
}

/* A frame that is SENT no longer is; the slot may still get its answer. */
static void __leave_slot(struct lf_frame *frame)
{
	frames.slot[frame->slot].frame = NULL;
	frames.sent--;
}

/*
 * WANTED, LOADING or SENT -> FAILED, out of the hash. The hash's reference goes
 * onto @put, for put_list() once the lock is dropped. A helper may still answer
 * for a SENT frame; lf_fill() throws that away. So does lf_frame_loaded().
 */
static void __fail(struct lf_frame *frame, int error, struct list_head *put)
{
	if (frame->state == LF_FRAME_SENT)
		__leave_slot(frame);
	frame->load = NULL;
	if (frame->chunk && error == -ECANCELED)
		frame->owner->prefetch.lost =
			min(frame->owner->prefetch.lost,
			    frame->owner->prefetch.chunk[frame->chunk - 1].start);
	__disown(frame, LF_STATS);
	__unhash(frame);
	/* It was not asked for again after all: the next one like it is to say so. */
	if (frame->again && error != -ENODEV)
		__remember_refused(frame);
	frame->error = error;
	trace_lazyframe_failed(frame);
	frame->state = LF_FRAME_FAILED;
	list_add(&frame->node, put);
	__wake(frame);
}

/*
 * A read stopped waiting. Nobody needs a frame that was not even sent for; and
 * one that the helper did not bring in time it may have lost: the next reader
 * shall ask anew.
 */
static void __give_up(struct lf_frame *frame, blk_status_t status,
		      struct list_head *put)
{
	if (!list_empty(&frame->waiters))
		return;
	if (frame->state == LF_FRAME_WANTED ||
	    (frame->state == LF_FRAME_SENT && status == BLK_STS_TIMEOUT))
		__fail(frame, -ECANCELED, put);
}

/* The store does not bring it, the helper is to: WANTED, in line with others. */
static void __want_helper(struct lf_frame *frame, struct list_head *put)
{
	frame->stored = false;
	frame->load = NULL;
	frame->since = jiffies;
	frame->state = LF_FRAME_WANTED;
	list_move_tail(&frame->node, want_list(frame));
	/* The next helper shall not bring what nobody needs. */
	if (!frames.session && list_empty(&frame->waiters))
		__fail(frame, -ECANCELED, put);
}

/* The store takes too long. A load that is under way keeps the buffer. */
static bool __lose_patience(struct lf_frame *frame, struct list_head *put)
{
	if (!frame->stored || frame->state >= LF_FRAME_READY ||
	    !frames.session ||
	    time_before(jiffies, frame->since + LOAD_PATIENCE))
		return false;
	if (frame->load) {
		atomic64_add(frame->pos.cbytes, &frames.leaving);
		frame->load->abandoned = true;
		frame->data = NULL;
	}
	__want_helper(frame, put);
	return true;
}

void lf_device_review(struct lf_device *dev)
{
	struct lf_io *io, *next;
	bool post = false;
	LIST_HEAD(put);

	spin_lock(&frames.lock);
	list_for_each_entry_safe(io, next, &dev->parked, parked) {
		struct lf_frame *frame = io->frame;
		blk_status_t status;

		post |= __lose_patience(frame, &put);
		status = __verdict(io, frame);
		if (!status)
			continue;
		io->status = status;
		trace_lazyframe_read_gave_up(io, status);
		__unpark(io);
		__give_up(frame, status, &put);
	}
	if (!list_empty(&dev->parked))
		queue_delayed_work(lf_wq, &dev->expire, REVIEW_PERIOD);
	spin_unlock(&frames.lock);
	put_list(&put);
	if (post)
		lf_frames_post();
}

void lf_device_set_suspend(struct lf_device *dev, bool requeue, bool draining)
{
	spin_lock(&frames.lock);
	dev->requeue = requeue;
	dev->draining = draining;
	spin_unlock(&frames.lock);
	lf_device_review(dev);
}

/*
 * ----------------------------------------------------------------
 * Making room
 * ----------------------------------------------------------------
 */

/*
 * Second chance: a frame that was read since the hand passed goes round again,
 * and so does one that a reader holds, for its memory would not come free. So does,
 * once, what came before its reader.
 */
static bool __has_chance(struct lf_frame *frame)
{
	bool spare = frame->owner && !frame->spared;

	frame->spared |= spare;
	return spare || READ_ONCE(frame->referenced) ||
	       refcount_read(&frame->refs) != 1;
}

static struct lf_frame *__evict_one(void)
{
	unsigned int chances = MAX_CHANCES;
	struct lf_frame *frame;

	lockdep_assert_held(&frames.lock);
	for (;;) {
		frame = list_first_entry_or_null(&frames.lru, struct lf_frame,
						 node);
		if (!frame)
			return NULL;
		if (!chances-- || !__has_chance(frame))
			break;
		WRITE_ONCE(frame->referenced, false);
		list_move_tail(&frame->node, &frames.lru);
	}
	__disown_unread(frame);
	__unhash(frame);
	atomic64_inc(&lf_module_stat[LF_EVICTIONS]);
	return frame;
}

/* Evict until @bytes more would fit. Returns false if they still do not. */
static bool make_room(u32 bytes)
{
	u64 limit = lf_cache_limit();
	struct lf_frame *frame;

	while (lf_cache_used() + bytes > limit) {
		spin_lock(&frames.lock);
		frame = __evict_one();
		spin_unlock(&frames.lock);
		if (!frame)
			return false;
		lf_frame_put(frame);
	}
	return true;
}

/*
 * No memory for so much as a struct lf_frame: come back a little later.
 * Returns false if the read may not wait.
 */
static bool starve(struct lf_io *io)
{
	struct lf_frame *victim = NULL;
	bool parked;

	spin_lock(&frames.lock);
	io->status = __verdict(io, NULL);
	parked = !io->status;
	if (parked) {
		victim = __evict_one();
		list_del_init(&io->parked);
		list_add_tail(&io->waiter, &frames.starved);
		queue_delayed_work(lf_wq, &frames.starved_work, RETRY_DELAY);
	}
	spin_unlock(&frames.lock);
	if (victim)
		lf_frame_put(victim);
	return parked;
}

static void starved_work(struct work_struct *work)
{
	struct lf_io *io, *next;

	spin_lock(&frames.lock);
	list_for_each_entry_safe(io, next, &frames.starved, waiter) {
		list_del_init(&io->waiter);
		list_add_tail(&io->parked, &io->dev->woken);
		queue_work(lf_wq, &io->work);
	}
	spin_unlock(&frames.lock);
}

static int cache_mib_set(const char *val, const struct kernel_param *kp)
{
	unsigned long mib;
	int err;

	err = kstrtoul(val, 0, &mib);
	if (err)
		return err;
	if (!mib || mib > ULONG_MAX >> 21)
		return -ERANGE;
	WRITE_ONCE(cache_mib, mib);
	/* Before the module is up, and after, there is nothing to evict. */
	if (frames.hash)
		make_room(0);
	return 0;
}

static const struct kernel_param_ops cache_mib_ops = {
	.set = cache_mib_set,
	.get = param_get_ulong,
};

module_param_cb(cache_mib, &cache_mib_ops, &cache_mib, 0644);
MODULE_PARM_DESC(cache_mib, "Limit of the memory cache of compressed frames, MiB (live)");

/*
 * ----------------------------------------------------------------
 * Posting
 * ----------------------------------------------------------------
 */

static struct lf_frame *__next_wanted(void)
{
	lockdep_assert_held(&frames.lock);
	if (frames.loading < MAX_LOADS && !list_empty(&frames.stored))
		return list_first_entry(&frames.stored, struct lf_frame, node);
	if (!frames.session || frames.slots_used == LF_TAGS)
		return NULL;
	if (!list_empty(&frames.demand))
		return list_first_entry(&frames.demand, struct lf_frame, node);
	if (frames.slots_used >= TAGS_CROWDED)
		WRITE_ONCE(frames.crowded, true);
	else if (frames.slots_used <= TAGS_EASY)
		WRITE_ONCE(frames.crowded, false);
	/* A window goes as a whole, or it would not travel as one range. */
	if (frames.batches || frames.crowded)
		return NULL;
	return list_first_entry_or_null(&frames.prefetch, struct lf_frame,
					node);
}

/*
 * The helper's deadline lies before that of the frame's first reader, so that
 * the helper, who knows the cause, has the first word.
 */
static u64 __deadline(const struct lf_frame *frame)
{
	unsigned long from = __counts_from(frame->since);
	u64 limit_ms = (u64)frame->timeout * MSEC_PER_SEC;
	u64 past_ms = jiffies_to_msecs(jiffies - from);

	if (!limit_ms)
		return 0;
	limit_ms -= min_t(u64, limit_ms / 8, MSEC_PER_SEC);
	limit_ms = limit_ms > past_ms ? limit_ms - past_ms : 0;
	return ktime_get_ns() + limit_ms * NSEC_PER_MSEC;
}

static void __post(struct lf_frame *frame, u32 flags)
{
	const struct slot *slot = &frames.slot[frame->slot];
	struct lazyframe_request request = {
		.generation = frames.generation,
		.layer = frame->layer->id,
		.offset = frame->pos.cstart,
		.deadline = __deadline(frame),
		.length = frame->pos.cbytes,
		.have = frame->have,
		.tag = slot->tag,
		.flags = flags,
	};

	lf_ring_post(frames.session, &request);
}

/* WANTED -> SENT */
static void __send(struct lf_frame *frame)
{
	struct slot *slot;

	lockdep_assert_held(&frames.lock);
	do {
		frame->slot = frames.next_slot++ % LF_TAGS;
		slot = &frames.slot[frame->slot];
	} while (slot->tag);
	/* Never 0, and never the value that this slot had just now. */
	slot->uses = (slot->uses + 1) % (U32_MAX / LF_TAGS);
	slot->tag = (slot->uses + 1) * LF_TAGS + frame->slot;
	slot->frame = frame;
	frames.sent++;
	slot->cbytes = frame->pos.cbytes;
	slot->have = frame->have;
	slot->step = POSTED;
	slot->since = ktime_get_ns();
	frames.slots_used++;

	list_del_init(&frame->node);
	frame->state = LF_FRAME_SENT;
	__post(frame, (frame->prefetch ? LAZYFRAME_REQ_PREFETCH : 0) |
		      (frame->again ? LAZYFRAME_REQ_AGAIN : 0));
	atomic64_inc(&lf_module_stat[LF_REQUESTS]);
	trace_lazyframe_posted(frame);
}

static void __free_slot(struct slot *slot)
{
	slot->tag = 0;
	frames.slots_used--;
}

/*
 * A reader waits for what was only read ahead. lf_frames_post() must follow: to
 * show this entry now could show a part of a batch that is being posted.
 */
static void __promote(struct lf_frame *frame)
{
	lockdep_assert_held(&frames.lock);
	if (!frame->prefetch)
		return;
	frame->prefetch = false;
	/* By the store, more at a time would not come sooner. */
	if (frame->owner && !frame->chunk && !frame->stored)
		WRITE_ONCE(frame->owner->ahead_late,
			   frame->owner->ahead_late + 1);
	__disown(frame, LF_PREFETCH_LATE);
	frame->since = jiffies;
	if (frame->state == LF_FRAME_WANTED)
		list_move_tail(&frame->node, want_list(frame));
	else if (frame->state == LF_FRAME_SENT)
		__post(frame, LAZYFRAME_REQ_PROMOTE);
}

/*
 * May a buffer of @bytes be allocated? Nothing on its way, in or out, means
 * that no event will make room, so then one frame may always go.
 */
static bool charge(u32 bytes)
{
	if (!make_room(bytes) && (READ_ONCE(frames.sent) ||
				  READ_ONCE(frames.loading) ||
				  atomic64_read(&frames.leaving)))
		return false;
	atomic64_add(bytes, &frames.charged);
	return true;
}

/* A buffer for @frame, charged; NULL: an event, or time, must make room. */
static void *buffer_alloc(const struct lf_frame *frame)
{
	size_t room = frame->store ? round_up(frame->pos.cbytes, BUFFER_ALIGN) :
				     frame->pos.cbytes;
	struct lf_frame *victim;
	void *data;

	if (!charge(frame->pos.cbytes))
		return NULL;
	for (;;) {
		data = kvmalloc(room, GFP_NOIO | __GFP_NOWARN);
		if (data) {
			/* For the store, which writes and sums up all of it. */
			memset(data + frame->pos.cbytes, 0,
			       room - frame->pos.cbytes);
			return data;
		}
		spin_lock(&frames.lock);
		victim = __evict_one();
		spin_unlock(&frames.lock);
		if (!victim)
			break;
		lf_frame_put(victim);
	}
	atomic64_sub(frame->pos.cbytes, &frames.charged);
	queue_delayed_work(lf_wq, &frames.post_work, RETRY_DELAY);
	return NULL;
}

/* WANTED -> LOADING; or else the helper is to bring it, and false. */
static bool __load(struct lf_frame *frame, struct lf_load *load,
		   struct list_head *put)
{
	lockdep_assert_held(&frames.lock);
	if (!lf_store_begin(frame->store, frame, load)) {
		__want_helper(frame, put);
		return false;
	}
	list_del_init(&frame->node);
	refcount_inc(&frame->refs);
	load->frame = frame;
	load->data = frame->data;
	load->abandoned = false;
	frame->load = load;
	frame->since = jiffies;
	load->start = ktime_get_ns();
	frame->state = LF_FRAME_LOADING;
	trace_lazyframe_loading(frame);
	frames.loading++;
	return true;
}

/*
 * Send what is wanted, as far as slots and memory go, and show it to the
 * helper all at once, so that neighbours travel in one range.
 *
 * A work, and so the only poster: whoever wants something posted, readers or
 * the helper itself, never waits for this memory.
 */
static void post_work(struct work_struct *work)
{
	unsigned int noio = memalloc_noio_save();
	struct lf_load *load = NULL;
	struct lf_frame *frame;
	LIST_HEAD(put);
	void *data;

	for (;;) {
		spin_lock(&frames.lock);
		frame = __next_wanted();
		if (frame && frame->data && frame->stored) {
			bool loads = load && __load(frame, load, &put);

			spin_unlock(&frames.lock);
			put_list(&put);
			if (!load) {
				load = lf_load_alloc();
			} else if (loads) {
				lf_store_read(load);
				load = NULL;
			}
			continue;
		}
		if (frame && frame->data) {
			__send(frame);
			spin_unlock(&frames.lock);
			continue;
		}
		if (frame)
			refcount_inc(&frame->refs);
		spin_unlock(&frames.lock);
		if (!frame)
			break;

		data = buffer_alloc(frame);
		if (data) {
			spin_lock(&frames.lock);
			frame->data = data;
			if (hlist_unhashed(&frame->hash))
				atomic64_add(frame->pos.cbytes,
					     &frames.leaving);
			spin_unlock(&frames.lock);
		}
		lf_frame_put(frame);
		if (!data)
			break;
	}
	spin_lock(&frames.lock);
	if (frames.session)
		lf_ring_publish(frames.session);
	spin_unlock(&frames.lock);
	if (load)
		lf_load_free(load);
	memalloc_noio_restore(noio);
}

void lf_frames_post(void)
{
	/* mod_: not when a delayed retry would have come. */
	mod_delayed_work(lf_wq, &frames.post_work, 0);
}

/*
 * ----------------------------------------------------------------
 * Readers
 * ----------------------------------------------------------------
 */

/*
 * One that nobody is about to wait for, with a reference. NULL: no memory, or no
 * helper, without which nobody would ever take it off a want list.
 */
static struct lf_frame *find_or_insert(struct lf_device *dev,
				       struct lf_layer *layer,
				       const struct lf_frame_pos *pos,
				       bool prefetch, unsigned int chunk)
{
	struct lf_frame *frame, *fresh;

	frame = lookup(layer, pos->cstart);
	if (frame)
		return frame;
	fresh = frame_alloc(dev->store, layer, pos);
	if (!fresh)
		return NULL;
	fresh->timeout = READ_ONCE(dev->fetch_timeout);
	spin_lock(&frames.lock);
	if (fresh->stored || frames.session)
		frame = __insert(fresh, prefetch);
	if (frame == fresh && prefetch)
		__own(frame, dev, chunk);
	spin_unlock(&frames.lock);
	if (frame != fresh)
		frame_free(fresh);
	else
		this_cpu_inc(dev->stats->count[prefetch ?
			     LF_FRAMES_PREFETCHED : LF_FRAMES_DEMANDED]);
	return frame;
}

/*
 * Whoever is about to wait for another frame waits for this one, too. If it is about
 * to be posted as prefetch, that is as good, and it keeps its neighbours.
 */
static void promote_crowded(struct lf_frame *frame)
{
	if (!READ_ONCE(frames.crowded))
		return;
	spin_lock(&frames.lock);
	if (frames.crowded && frame->state == LF_FRAME_WANTED)
		__promote(frame);
	spin_unlock(&frames.lock);
}

/* Posting leaves @frames.prefetch alone while a batch is being put on it. */
void lf_frames_batch(int n)
{
	if (!n)
		return;
	spin_lock(&frames.lock);
	frames.batches += n;
	spin_unlock(&frames.lock);
}

void lf_frames_want(struct lf_device *dev, struct lf_layer_table *table,
		    u64 from, u64 to, bool prefetch)
{
	unsigned int room = LF_TAGS;
	struct lf_frame *frame;
	struct lf_frame_pos pos;

	lf_frames_batch(prefetch);
	while (from < to && room--) {
		if (lf_table_find(&table->table, from, &pos))
			break;
		frame = find_or_insert(dev, table->layer, &pos, prefetch, 0);
		if (!frame)
			break;
		if (!prefetch)
			promote_crowded(frame);
		lf_frame_put(frame);
		from = pos.ustart + pos.ubytes;
	}
	lf_frames_batch(-prefetch);
}

int lf_frame_prefetch(struct lf_device *dev, struct lf_layer_table *table,
		      const struct lf_frame_pos *pos, unsigned int chunk)
{
	struct lf_frame *frame;
	int asked = 0;

	frame = find_or_insert(dev, table->layer, pos, true, chunk + 1);
	if (!frame)
		return lf_helper_attached() ? -ENOMEM : -ENOTCONN;
	spin_lock(&frames.lock);
	if (frame->owner == dev && frame->chunk == chunk + 1)
		asked = 1;
	else if (frame->state == LF_FRAME_READY && !frame->stored &&
		 !frame->bad && !hlist_unhashed(&frame->hash) &&
		 dev->prefetch.source == LF_PREFETCH_ALL)
		/* It is here, but the store had no use for it, or no time. */
		lf_store_offer(frame);
	spin_unlock(&frames.lock);
	lf_frame_put(frame);
	return asked;
}

void lf_frames_disown(struct lf_device *dev)
{
	struct lf_frame *frame, *next;
	LIST_HEAD(put);

	spin_lock(&frames.lock);
	list_for_each_entry_safe(frame, next, &dev->prefetch.frames, owned) {
		bool wanted = frame->state == LF_FRAME_WANTED;

		frame->chunk = 0;
		__disown(frame, LF_STATS);
		/* Nobody waits for it, or it had been promoted. */
		if (wanted)
			__fail(frame, -ECANCELED, &put);
	}
	spin_unlock(&frames.lock);
	put_list(&put);
}

static bool is_ready(const struct lf_frame *frame)
{
	/* Pairs with the release in __ready(): then the bytes are there, too. */
	return smp_load_acquire(&frame->state) == LF_FRAME_READY;
}

static void touch(struct lf_frame *frame)
{
	/* Most often it is set: do not take the line from other processors. */
	if (READ_ONCE(frame->referenced))
		return;
	WRITE_ONCE(frame->referenced, true);
	if (READ_ONCE(frame->owner))
		first_read(frame);
}

struct lf_frame *lf_frame_try(struct lf_layer *layer,
			      const struct lf_frame_pos *pos)
{
	struct lf_frame *frame = lookup(layer, pos->cstart);

	if (!frame)
		return NULL;
	if (!is_ready(frame) || !same_pos(&frame->pos, pos)) {
		lf_frame_put(frame);
		return NULL;
	}
	touch(frame);
	return frame;
}

/*
 * The frame that this read was parked on, once more. NULL: look it up anew.
 * It may be evicted by now; its bytes are good as long as the reference is.
 */
static struct lf_frame *parked_frame(struct lf_io *io)
{
	struct lf_frame *frame = io->frame;
	unsigned long when;
	bool retry;
	int error;

	io->frame = NULL;
	if (!frame)
		return NULL;
	if (!READ_ONCE(frame->stored))
		io->fetched = true;
	if (!io->status && is_ready(frame))
		return frame;
	error = io->status ? -ECANCELED : frame->error;
	lf_frame_put(frame);
	/* Its helper was replaced in the middle of a write to it. */
	if (error == -EAGAIN)
		return NULL;
	if (error != -ETIMEDOUT)
		return ERR_PTR(error);

	/* The deadline may have been that of a reader who came earlier. */
	spin_lock(&frames.lock);
	retry = !__expiry(io, &when) || time_before(jiffies + 2 * HZ, when);
	spin_unlock(&frames.lock);
	return retry ? NULL : ERR_PTR(error);
}

/* true: the read was parked and is no longer the caller's. */
static bool park(struct lf_io *io, struct lf_frame *frame)
{
	bool parked = false;
	LIST_HEAD(put);

	spin_lock(&frames.lock);
	if (frame->state < LF_FRAME_READY) {
		io->status = __verdict(io, frame);
		if (!io->status) {
			__park(io, frame);
			__promote(frame);
			parked = true;
		} else {
			trace_lazyframe_read_gave_up(io, io->status);
			__give_up(frame, io->status, &put);
		}
	}
	spin_unlock(&frames.lock);
	put_list(&put);
	return parked;
}

static void start_waiting(struct lf_io *io)
{
	if (io->waited)
		return;
	io->waited = true;
	io->since = jiffies;
	INIT_LIST_HEAD(&io->parked);
}

/*
 * U offsets of what a read that has to wait for @frame wants besides: its own rest
 * and, where the device has read_around, a window of its extent. Whoever follows an
 * order knows better than a window.
 */
static u64 company_begin(const struct lf_io *io, const struct lf_frame *frame,
			 u64 *end)
{
	/* Around @frame, not at a window's start, where frames are small */
	u64 most = min_t(u64, lf_cache_limit() / 4,
			 (u64)MAX_COMPANY * frame->pos.ubytes);
	u64 window = min_t(u64, READ_ONCE(io->dev->read_around),
			   rounddown_pow_of_two(most));
	u64 first = le64_to_cpu(io->extent->storage);
	u64 last = first + le64_to_cpu(io->extent->length);
	u64 begin = round_down(io->upos, window ?: 1);

	*end = io->uend;
	if (!window || READ_ONCE(io->dev->prefetch.replays))
		return frame->pos.ustart + frame->pos.ubytes;
	*end = max(*end, min(begin + window, last));
	return max(begin, first);
}

/* Frames that are to be asked for with @frame, with no reference but the hash's */
static void company_alloc(const struct lf_io *io, const struct lf_frame *frame,
			  struct list_head *company)
{
	struct lf_layer *layer = frame->layer;
	unsigned int room = MAX_COMPANY;
	struct lf_frame *other;
	struct lf_frame_pos pos;
	u64 upos, end;

	/* What the store has, it brings by itself. */
	if (frame->stored || !lf_helper_attached())
		return;
	upos = company_begin(io, frame, &end);
	for (; upos < end && room; upos = pos.ustart + pos.ubytes) {
		if (lf_table_find(&io->table->table, upos, &pos))
			break;
		if (pos.cstart == frame->pos.cstart ||
		    lf_store_keeps(io->dev->store, layer, &pos))
			continue;
		other = lookup(layer, pos.cstart);
		if (other) {
			lf_frame_put(other);
			continue;
		}
		other = frame_alloc(io->dev->store, layer, &pos);
		if (!other)
			break;
		refcount_set(&other->refs, 1);
		other->timeout = frame->timeout;
		list_add_tail(&other->node, company);
		room--;
	}
}

/* Return: how many were inserted; the rest stays in @company. */
static unsigned int __insert_company(struct list_head *company)
{
	struct lf_frame *frame, *next, *like;
	unsigned int n = 0;
	LIST_HEAD(known);

	/* The next helper shall not bring what nobody needs. */
	if (!frames.session)
		return 0;
	list_for_each_entry_safe(frame, next, company, node) {
		list_del_init(&frame->node);
		like = __insert(frame, false);
		if (like == frame) {
			n++;
			continue;
		}
		/* Not the last reference: it is hashed. */
		lf_frame_put(like);
		list_add(&frame->node, &known);
	}
	list_splice(&known, company);
	return n;
}

/*
 * The frame that a reader is about to wait for, with a reference; NULL: no memory. What
 * it wants besides is put on the want list in one go, or posting in between would make
 * two ranges of it.
 */
static struct lf_frame *demand(struct lf_io *io, const struct lf_frame_pos *pos)
{
	struct lf_device *dev = io->dev;
	struct lf_frame *frame, *fresh, *next;
	unsigned int inserted = 0;
	LIST_HEAD(company);

	frame = lookup(io->table->layer, pos->cstart);
	if (frame)
		return frame;
	fresh = frame_alloc(dev->store, io->table->layer, pos);
	if (!fresh)
		return NULL;
	fresh->timeout = READ_ONCE(dev->fetch_timeout);
	company_alloc(io, fresh, &company);
	spin_lock(&frames.lock);
	frame = __insert(fresh, false);
	if (frame == fresh)
		inserted = 1 + __insert_company(&company);
	spin_unlock(&frames.lock);
	if (frame != fresh)
		frame_free(fresh);
	list_for_each_entry_safe(fresh, next, &company, node)
		frame_free(fresh);
	this_cpu_add(dev->stats->count[LF_FRAMES_DEMANDED], inserted);
	return frame;
}

struct lf_frame *lf_frame_get(struct lf_io *io, const struct lf_frame_pos *pos)
{
	struct lf_frame *frame = parked_frame(io);
	bool waits = false;

	if (frame)
		return frame;
	do {
		frame = demand(io, pos);
		if (!frame || !is_ready(frame)) {
			start_waiting(io);
			waits = true;
		}
		if (!frame) {
			if (starve(io))
				return NULL;
			break;
		}
		if (!same_pos(&frame->pos, pos)) {
			lf_frame_put(frame);
			return ERR_PTR(-EUCLEAN);
		}
		if (is_ready(frame)) {
			io->fetched |= waits && !READ_ONCE(frame->stored);
			touch(frame);
			return frame;
		}
		lf_frames_want(io->dev, io->table, pos->ustart + pos->ubytes,
			       io->uend, false);
		/* Parked, the read may be over before the next line runs. */
		if (park(io, frame)) {
			lf_frames_post();
			return NULL;
		}
		lf_frame_put(frame);
		/* Else it became READY, or FAILED, just now: look again. */
	} while (!io->status);
	return ERR_PTR(-ECANCELED);
}

bool lf_frame_drop(struct lf_frame *frame)
{
	bool mine;

	spin_lock(&frames.lock);
	/* What was bad in the store was not asked of a helper. */
	if (!frame->bad && !frame->stored)
		__remember_refused(frame);
	/* Pairs with the store's look at it, once it is written there. */
	WRITE_ONCE(frame->bad, true);
	spin_unlock(&frames.lock);
	lf_store_forget(frame->store, frame->layer, &frame->pos);
	spin_lock(&frames.lock);
	mine = !hlist_unhashed(&frame->hash);
	if (mine) {
		__disown(frame, LF_PREFETCH_WASTED);
		__unhash(frame);
	}
	spin_unlock(&frames.lock);
	if (mine)
		lf_frame_put(frame);
	return mine;
}

void lf_frames_forget(struct lf_layer *layer)
{
	struct lf_frame *frame, *next;
	unsigned int n;
	LIST_HEAD(put);

	/* Nobody adds to the list any more. */
	do {
		n = MAX_FORGET;
		spin_lock(&frames.lock);
		list_for_each_entry_safe(frame, next, &layer->frames,
					 in_layer) {
			if (frame->state == LF_FRAME_READY) {
				__disown(frame, LF_STATS);
				__unhash(frame);
				list_add(&frame->node, &put);
			} else {
				__fail(frame, -ENODEV, &put);
			}
			if (!--n)
				break;
		}
		spin_unlock(&frames.lock);
		put_list(&put);
		cond_resched();
	} while (!n);
}

/*
 * ----------------------------------------------------------------
 * The helper's side
 * ----------------------------------------------------------------
 */

/*
 * A write() of a replaced helper is copying into this frame, and it may take for
 * ever. It keeps the buffer; nobody may wait for that memory, which is why it is
 * none of what is leaving. Readers look the frame up anew.
 */
static void __orphan(struct lf_frame *frame, struct list_head *put)
{
	__fail(frame, -EAGAIN, put);
	frame->orphan = true;
	atomic64_sub(frame->pos.cbytes, &frames.leaving);
}

/* What was asked of the helper that goes is wanted, before all else. */
static void __end_session(struct list_head *put)
{
	int i;

	lockdep_assert_held(&frames.lock);
	for (i = LF_TAGS - 1; i >= 0; i--) {
		struct slot *slot = &frames.slot[i];
		struct lf_frame *frame = slot->frame;

		if (!slot->tag)
			continue;
		__free_slot(slot);
		if (frame && slot->filling) {
			__orphan(frame, put);
		} else if (frame) {
			/* SENT -> WANTED; what arrived of it stays. */
			__leave_slot(frame);
			frame->state = LF_FRAME_WANTED;
			list_add(&frame->node, want_list(frame));
			trace_lazyframe_requeued(frame);
		}
		slot->filling = false;
	}
	frames.session = NULL;
	frames.generation++;
	frames.changed = jiffies;
}

int lf_session_attach(struct lf_session *session, bool replace)
{
	LIST_HEAD(put);

	spin_lock(&frames.lock);
	if (session->generation || (frames.session && !replace)) {
		spin_unlock(&frames.lock);
		return -EBUSY;
	}
	if (frames.session) {
		WRITE_ONCE(frames.session->replaced, true);
		wake_up(&frames.session->wait);
		__end_session(&put);
	}
	session->generation = ++frames.generation;
	session->heard = jiffies;
	frames.session = session;
	frames.changed = jiffies;
	spin_unlock(&frames.lock);
	put_list(&put);
	atomic64_inc(&lf_module_stat[LF_SESSIONS]);
	lf_devices_kick();
	lf_frames_post();
	return 0;
}

/* Those without readers: the next helper shall not bring what nobody needs. */
static void __drop_unwaited(struct list_head *list, struct list_head *put)
{
	struct lf_frame *frame, *next;

	list_for_each_entry_safe(frame, next, list, node)
		if (list_empty(&frame->waiters))
			__fail(frame, -ECANCELED, put);
}

void lf_session_detach(struct lf_session *session)
{
	LIST_HEAD(put);

	spin_lock(&frames.lock);
	if (frames.session != session) {
		spin_unlock(&frames.lock);
		return;
	}
	/* No write() can be filling: it would hold the file open. */
	__end_session(&put);
	__drop_unwaited(&frames.demand, &put);
	__drop_unwaited(&frames.prefetch, &put);
	spin_unlock(&frames.lock);
	put_list(&put);
	lf_devices_kick();
}

/* SENT or LOADING -> READY */
static void __ready(struct lf_frame *frame)
{
	lockdep_assert_held(&frames.lock);
	list_add_tail(&frame->node, &frames.lru);
	__landed(frame);
	if (frame->state == LF_FRAME_SENT)
		__leave_slot(frame);
	frame->load = NULL;
	/* Pairs with the acquire in is_ready(). */
	smp_store_release(&frame->state, LF_FRAME_READY);
	__wake(frame);
}

/* The errors that readers can tell apart; anything else is EIO. */
static int fill_error(u32 status)
{
	switch (status) {
	case ENOENT:
	case EACCES:
	case ESTALE:
	case ETIMEDOUT:
		return -(int)status;
	default:
		return -EIO;
	}
}

/* A step is over; the slot's time is that of the next one. */
static void __took_step(struct slot *slot, enum lf_step step)
{
	u64 now = ktime_get_ns();

	lockdep_assert_held(&frames.lock);
	lf_step_took(step, slot->since, now);
	slot->since = now;
}

static void __taken(struct slot *slot)
{
	if (slot->step != POSTED)
		return;
	slot->step = TAKEN;
	__took_step(slot, LF_STEP_QUEUE);
	if (slot->frame)
		trace_lazyframe_taken(slot->frame);
}

/* Bytes came for a request; a helper may look at the ring and never read(). */
static void __received(struct slot *slot)
{
	__taken(slot);
	if (slot->step != TAKEN)
		return;
	slot->step = RECEIVING;
	__took_step(slot, LF_STEP_FIRST_BYTE);
	if (slot->frame)
		trace_lazyframe_first_bytes(slot->frame);
}

void lf_session_took(struct lf_session *session, u64 head)
{
	const struct lazyframe_request *request;
	struct slot *slot;

	spin_lock(&frames.lock);
	if (frames.session == session) {
		session->heard = jiffies;
		/* What it answered unread may have been overwritten. */
		session->taken = max(session->taken,
				     head - min_t(u64, head, LF_RING_ENTRIES));
		for (; session->taken < head; session->taken++) {
			request = lf_ring_entry(session, session->taken);
			slot = &frames.slot[request->tag % LF_TAGS];
			if (slot->tag == request->tag &&
			    request->seq == session->taken)
				__taken(slot);
		}
	}
	spin_unlock(&frames.lock);
}

/* The last answer to a request: SENT -> READY or FAILED; the slot is free. */
static void __answered(struct slot *slot, u32 status, struct list_head *put)
{
	struct lf_frame *frame = slot->frame;

	if (!status)
		__took_step(slot, LF_STEP_TRANSFER);
	if (frame && !status) {
		trace_lazyframe_filled(frame);
		__ready(frame);
		if (!lf_store_offer(frame) && frame->owner &&
		    frame->owner->prefetch.source == LF_PREFETCH_ALL)
			__disown(frame, LF_STATS);
	} else if (frame) {
		__fail(frame, fill_error(status), put);
	}
	__free_slot(slot);
}

/*
 * Only this write touches the frame's bytes from @have on: it has the slot's
 * filling bit, and nobody reads them before READY. @frame is NULL where its
 * layer went away.
 */
static bool fill_copy(struct lf_frame *frame, const struct lazyframe_fill *fill,
		      struct iov_iter *from)
{
	if (!frame) {
		iov_iter_advance(from, fill->length);
		return true;
	}
	return copy_from_iter(frame->data + fill->offset, fill->length,
			      from) == fill->length;
}

int lf_fill(struct lf_session *session, const struct lazyframe_fill *fill,
	    struct iov_iter *from)
{
	u32 index = array_index_nospec(fill->tag % LF_TAGS, LF_TAGS);
	struct slot *slot = &frames.slot[index];
	struct lf_frame *frame = NULL;
	bool answered = false;
	LIST_HEAD(put);
	int err;

	spin_lock(&frames.lock);
	/* A free slot's tag is 0; no answer may match that. */
	if (frames.session != session)
		err = -ESTALE;
	else
		err = lf_fill_check(fill, iov_iter_count(from),
				    session->generation,
				    slot->tag ?: ~fill->tag, slot->have,
				    slot->cbytes);
	if (!err && slot->filling)
		err = -EINVAL;
	if (err)
		goto out_unlock;
	session->heard = jiffies;
	if (fill->status) {
		atomic64_inc(&lf_module_stat[LF_FILL_ERRORS]);
		__answered(slot, fill->status, &put);
		answered = true;
		goto out_unlock;
	}
	__received(slot);
	slot->filling = true;
	frame = slot->frame;
	if (frame)
		refcount_inc(&frame->refs);
	spin_unlock(&frames.lock);

	if (!fill_copy(frame, fill, from))
		err = -EFAULT;

	spin_lock(&frames.lock);
	if (frames.session != session) {
		/* Replaced meanwhile: the slot is not this write's any more. */
		err = -ESTALE;
		goto out_unlock;
	}
	slot->filling = false;
	if (err)
		goto out_unlock;
	atomic64_add(fill->length, &lf_module_stat[LF_FILL_BYTES]);
	slot->have += fill->length;
	if (slot->frame)
		slot->frame->have = slot->have;
	if (slot->have == slot->cbytes) {
		__answered(slot, 0, &put);
		answered = true;
	}
out_unlock:
	spin_unlock(&frames.lock);
	put_list(&put);
	if (frame)
		lf_frame_put(frame);
	if (answered)
		lf_frames_post();
	return err;
}

/*
 * ----------------------------------------------------------------
 * Who waits, and for what
 * ----------------------------------------------------------------
 */

void lf_read_over(struct lf_io *io)
{
	spin_lock(&frames.lock);
	list_del_init(&io->parked);
	spin_unlock(&frames.lock);
}

static u64 ms_since(unsigned long when)
{
	return jiffies64_to_msecs(jiffies - when);
}

/* A frame that is neither READY nor FAILED: what would make it so? */
static enum lf_wait __waits_for(const struct lf_frame *frame, u64 *here)
{
	const struct slot *slot;

	lockdep_assert_held(&frames.lock);
	*here = ms_since(frame->since);
	if (frame->state == LF_FRAME_LOADING)
		return LF_WAIT_LOADING;
	if (frame->state == LF_FRAME_WANTED && frame->stored)
		return LF_WAIT_STORE_QUEUE;
	if (frame->state == LF_FRAME_WANTED) {
		*here = ms_since(__counts_from(frame->since));
		return frames.session ? LF_WAIT_QUEUE : LF_WAIT_HELPER;
	}
	slot = &frames.slot[frame->slot];
	*here = div_u64(ktime_get_ns() - slot->since, NSEC_PER_MSEC);
	switch (slot->step) {
	case POSTED:
		return LF_WAIT_POSTED;
	case TAKEN:
		return LF_WAIT_TAKEN;
	default:
		return LF_WAIT_RECEIVING;
	}
}

static struct lf_waiter *__describe(struct lf_waiting *waiting,
				    const struct lf_io *io)
{
	struct lf_waiter *waiter = &waiting->waiter[waiting->count++];
	const struct lf_layer *layer = io->table->layer;

	*waiter = (struct lf_waiter) {
		.age = ms_since(io->since),
		.layer = layer->id,
		.upos = io->upos,
	};
	memcpy(waiter->uuid, layer->uuid, sizeof(waiter->uuid));
	return waiter;
}

static bool full(const struct lf_waiting *waiting)
{
	return waiting->count == ARRAY_SIZE(waiting->waiter);
}

static void __waiting_parked(struct lf_device *dev, struct lf_waiting *waiting)
{
	struct lf_waiter *waiter;
	struct lf_io *io;

	list_for_each_entry(io, &dev->parked, parked) {
		if (full(waiting))
			return;
		waiter = __describe(waiting, io);
		waiter->wait = __waits_for(io->frame, &waiter->here);
		/* It may have been on its way before this read came. */
		waiter->here = min(waiter->here, waiter->age);
		waiter->cstart = io->frame->pos.cstart;
		waiter->have = io->frame->have;
		waiter->cbytes = io->frame->pos.cbytes;
	}
}

static void __waiting_else(struct lf_device *dev, struct lf_waiting *waiting)
{
	unsigned int most = ARRAY_SIZE(waiting->waiter);
	struct lf_waiter *waiter;
	struct lf_io *io;

	list_for_each_entry(io, &frames.starved, waiter) {
		if (full(waiting) || !most--)
			return;
		if (io->dev != dev)
			continue;
		waiter = __describe(waiting, io);
		waiter->wait = LF_WAIT_MEMORY;
		waiter->here = waiter->age;
	}
	list_for_each_entry(io, &dev->woken, parked) {
		if (full(waiting))
			return;
		waiter = __describe(waiting, io);
		waiter->wait = LF_WAIT_DECODING;
	}
}

void lf_device_waiting(struct lf_device *dev, struct lf_waiting *waiting)
{
	spin_lock(&frames.lock);
	waiting->helper = frames.session;
	waiting->since = ms_since(frames.changed);
	waiting->silent = frames.session ? ms_since(frames.session->heard) :
					   waiting->since;
	waiting->waiting = dev->waiting;
	waiting->count = 0;
	__waiting_parked(dev, waiting);
	__waiting_else(dev, waiting);
	spin_unlock(&frames.lock);
}

/*
 * ----------------------------------------------------------------
 * The store's side
 * ----------------------------------------------------------------
 */

void lf_frame_loaded(struct lf_load *load)
{
	struct lf_frame *frame = load->frame;
	LIST_HEAD(put);

	spin_lock(&frames.lock);
	frames.loading--;
	if (frame->load == load && !load->error) {
		lf_step_took(LF_STEP_LOAD, load->start, ktime_get_ns());
		trace_lazyframe_loaded(frame);
		__ready(frame);
	} else if (frame->load == load) {
		__want_helper(frame, &put);
	}
	spin_unlock(&frames.lock);
	if (load->abandoned)
		buffer_free(load->data, frame->pos.cbytes);
	put_list(&put);
	lf_frame_put(frame);
	lf_load_free(load);
	lf_frames_post();
}

/*
 * ----------------------------------------------------------------
 * Init
 * ----------------------------------------------------------------
 */

int lf_frames_init(void)
{
	struct hlist_head *hash;

	spin_lock_init(&frames.lock);
	frames.changed = jiffies;
	INIT_LIST_HEAD(&frames.stored);
	INIT_LIST_HEAD(&frames.demand);
	INIT_LIST_HEAD(&frames.prefetch);
	INIT_LIST_HEAD(&frames.lru);
	INIT_LIST_HEAD(&frames.starved);
	INIT_DELAYED_WORK(&frames.post_work, post_work);
	INIT_DELAYED_WORK(&frames.starved_work, starved_work);
	frames.slab = KMEM_CACHE(lf_frame, 0);
	if (!frames.slab)
		return -ENOMEM;
	hash = kvcalloc(1 << HASH_BITS, sizeof(*hash), GFP_KERNEL);
	if (!hash) {
		kmem_cache_destroy(frames.slab);
		return -ENOMEM;
	}
	frames.hash = hash;
	return 0;
}

/* No device and no session is left: layers took their frames with them. */
void lf_frames_exit(void)
{
	cancel_delayed_work_sync(&frames.post_work);
	cancel_delayed_work_sync(&frames.starved_work);
	WARN_ON(frames.count || frames.slots_used || frames.ahead ||
		atomic64_read(&frames.charged));
	/* The parameter outlives this function. */
	kernel_param_lock(THIS_MODULE);
	kvfree(frames.hash);
	frames.hash = NULL;
	kernel_param_unlock(THIS_MODULE);
	rcu_barrier();
	kmem_cache_destroy(frames.slab);
}

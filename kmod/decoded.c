// SPDX-License-Identifier: GPL-2.0-only
/*
 * What frames decode to, kept for those who read them in small parts: a part of
 * a frame costs as much to decode as all of it. Bounded by a module parameter,
 * shared by all devices, given back when memory is short.
 *
 * A frame points to its content. Readers follow the pointer under RCU and take
 * no lock; all changes are made under decoded.lock. What was taken off the list
 * is charged until RCU lets it go, so the bound (in bytes asked for; the allocator
 * rounds up) holds at any moment.
 */
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/shrinker.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "lazyframe.h"

/* Bounds of what is done under the lock at once. */
#define MAX_CHANCES	64
/* RCU takes its time with what is evicted: this much room is made at once. */
#define ROOM		8	/* th part of the limit */

/**
 * struct lf_decoded - the content of a frame
 * @node: in decoded.lru, the oldest first, once published
 * @frame: whose, while it is published: the frame takes it along when it is freed
 * @referenced: touched since the hand passed; racy
 * @bytes: of @content
 * @rcu: readers may still copy from it
 * @content: an allocation of its own, or those of powers of two would double;
 *	     verified before it is published
 */
struct lf_decoded {
	struct list_head node;
	struct lf_frame *frame;
	bool referenced;
	size_t bytes;
	struct rcu_head rcu;
	void *content;
};

static struct {
	spinlock_t lock;		/* a leaf */
	struct list_head lru;
	u64 listed;			/* bytes on @lru */
	atomic64_t charged;		/* bytes that are allocated */
	struct shrinker *shrinker;
} decoded = {
	.lock = __SPIN_LOCK_UNLOCKED(decoded.lock),
	.lru = LIST_HEAD_INIT(decoded.lru),
};

static unsigned long decoded_mib = 64;

static u64 limit(void)
{
	return (u64)READ_ONCE(decoded_mib) << 20;
}

u64 lf_decoded_used(void)
{
	return atomic64_read(&decoded.charged);
}

static void decoded_free(struct lf_decoded *d)
{
	atomic64_sub(d->bytes, &decoded.charged);
	kvfree(d->content);
	kfree(d);
}

static void decoded_free_rcu(struct rcu_head *rcu)
{
	decoded_free(container_of(rcu, struct lf_decoded, rcu));
}

static void __withdraw(struct lf_decoded *d)
{
	lockdep_assert_held(&decoded.lock);
	list_del(&d->node);
	decoded.listed -= d->bytes;
	rcu_assign_pointer(d->frame->decoded, NULL);
	call_rcu(&d->rcu, decoded_free_rcu);
}

/* Second chance, as for the frames themselves. 0: there is none left. */
static size_t __evict_one(void)
{
	unsigned int chances = MAX_CHANCES;
	struct lf_decoded *d;
	size_t bytes;

	lockdep_assert_held(&decoded.lock);
	for (;;) {
		d = list_first_entry_or_null(&decoded.lru, struct lf_decoded,
					     node);
		if (!d)
			return 0;
		if (!READ_ONCE(d->referenced) || !chances--)
			break;
		WRITE_ONCE(d->referenced, false);
		list_move_tail(&d->node, &decoded.lru);
	}
	bytes = d->bytes;
	__withdraw(d);
	return bytes;
}

/* Evict until not more than @target bytes are listed; what was freed. */
static u64 shrink_to(u64 target, u64 max)
{
	u64 freed = 0;
	size_t bytes;

	do {
		spin_lock(&decoded.lock);
		bytes = decoded.listed > target ? __evict_one() : 0;
		spin_unlock(&decoded.lock);
		freed += bytes;
	} while (bytes && freed < max);
	return freed;
}

bool lf_decoded_read(struct lf_frame *frame, u32 off, u32 len, struct bio *bio,
		     struct bvec_iter *iter)
{
	struct lf_decoded *d;

	rcu_read_lock();
	d = rcu_dereference(frame->decoded);
	if (d) {
		if (!READ_ONCE(d->referenced))
			WRITE_ONCE(d->referenced, true);
		lf_copy_to_bio(bio, iter, d->content + off, len);
	}
	rcu_read_unlock();
	return d;
}

struct lf_decoded *lf_decoded_new(const struct lf_frame *frame)
{
	size_t bytes = frame->pos.ubytes;
	struct lf_decoded *d;
	u64 most = limit();

	if (bytes > most)
		return NULL;
	shrink_to(most - max_t(u64, bytes, most / ROOM), U64_MAX);
	/* What was evicted just now may still be read: a later one has its room. */
	if (atomic64_add_return(bytes, &decoded.charged) > most)
		goto uncharge;
	d = kmalloc(sizeof(*d), GFP_NOIO | __GFP_NOWARN);
	if (!d)
		goto uncharge;
	d->content = kvmalloc(bytes, GFP_NOIO | __GFP_NOWARN);
	if (!d->content) {
		kfree(d);
		goto uncharge;
	}
	d->referenced = false;
	d->bytes = bytes;
	return d;

uncharge:
	atomic64_sub(bytes, &decoded.charged);
	return NULL;
}

void *lf_decoded_content(struct lf_decoded *d)
{
	return d->content;
}

void lf_decoded_publish(struct lf_frame *frame, struct lf_decoded *d)
{
	bool first;

	spin_lock(&decoded.lock);
	first = !rcu_access_pointer(frame->decoded);
	if (first) {
		d->frame = frame;
		list_add_tail(&d->node, &decoded.lru);
		decoded.listed += d->bytes;
		rcu_assign_pointer(frame->decoded, d);
	}
	spin_unlock(&decoded.lock);
	if (!first)
		decoded_free(d);
	/* The limit may have become less since there was room. */
	shrink_to(limit(), U64_MAX);
}

void lf_decoded_cancel(struct lf_decoded *d)
{
	decoded_free(d);
}

void lf_decoded_drop(struct lf_frame *frame)
{
	struct lf_decoded *d;

	if (!rcu_access_pointer(frame->decoded))
		return;
	spin_lock(&decoded.lock);
	d = rcu_dereference_protected(frame->decoded,
				      lockdep_is_held(&decoded.lock));
	if (d)
		__withdraw(d);
	spin_unlock(&decoded.lock);
}

static int decoded_mib_set(const char *val, const struct kernel_param *kp)
{
	unsigned long mib;
	int err;

	err = kstrtoul(val, 0, &mib);
	if (err)
		return err;
	if (mib > ULONG_MAX >> 21)
		return -ERANGE;
	WRITE_ONCE(decoded_mib, mib);
	while (shrink_to(limit(), SZ_16M))
		cond_resched();
	return 0;
}

static const struct kernel_param_ops decoded_mib_ops = {
	.set = decoded_mib_set,
	.get = param_get_ulong,
};

module_param_cb(decoded_mib, &decoded_mib_ops, &decoded_mib, 0644);
MODULE_PARM_DESC(decoded_mib, "Limit of the memory cache of decoded frames, MiB; 0: none (live)");

static unsigned long decoded_count(struct shrinker *shrinker,
				   struct shrink_control *sc)
{
	return READ_ONCE(decoded.listed) >> PAGE_SHIFT;
}

static unsigned long decoded_scan(struct shrinker *shrinker,
				  struct shrink_control *sc)
{
	u64 freed = shrink_to(0, (u64)sc->nr_to_scan << PAGE_SHIFT);

	return freed ? DIV_ROUND_UP_ULL(freed, PAGE_SIZE) : SHRINK_STOP;
}

int lf_decoded_init(void)
{
	decoded.shrinker = shrinker_alloc(0, "lazyframe-decoded");
	if (!decoded.shrinker)
		return -ENOMEM;
	decoded.shrinker->count_objects = decoded_count;
	decoded.shrinker->scan_objects = decoded_scan;
	decoded.shrinker->seeks = DEFAULT_SEEKS;
	shrinker_register(decoded.shrinker);
	return 0;
}

/* All frames are gone, and took their content along. */
void lf_decoded_exit(void)
{
	shrinker_free(decoded.shrinker);
	rcu_barrier();
	WARN_ON(decoded.listed || lf_decoded_used());
}

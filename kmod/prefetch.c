// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fetching before anybody reads: frames in an order that was recorded, or all of
 * an image for the store. It goes on whoever the helper is, and ends with the
 * device. Messages:
 *
 *	prefetch begin <n>	room for an order of n entries, in place of what
 *				was there
 *	prefetch add <hex>	more of it, 16 digits each: the layer's number in
 *				the first four, the frame's U offset
 *	prefetch all		all frames of the image that the store has not
 *	prefetch rate <n>	at most n C bytes a second, 0 for no limit
 *	prefetch pause|resume	ask for nothing more; go on
 *	prefetch stop		forget
 *	prefetch status		<what> <state> <next> <count> <asked> <on its way>
 *				<unread> <chunk> <rate>
 *
 * Chunks
 * ------
 * What is next is asked for in chunks, sorted by C offset, so that neighbours
 * travel as one range. Of an order two are under way at a time, so that the
 * connections never run dry; of all, where no part is worth more than another, as
 * many as there are chunks. Their size follows the time in which one comes (struct
 * lf_chunk): on a slow way the order matters more than long ranges, and a reader
 * that needs something else shall not find much in front of it. Readers go first
 * everywhere: on the want lists, and in the helper, where prefetch never has all
 * connections.
 *
 * Where a helper went, and what it was asked for with it, it is asked for again
 * from the start of that chunk: what is here already costs a look.
 *
 * Room
 * ----
 * What was fetched and not read takes at most half of the memory cache; then
 * this waits until some of it is read. With a store, what that has written does
 * not count. For the store (all), half of what it may have waiting is the limit.
 */
#include <linux/kernel.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/sort.h>

#include "lazyframe.h"

#define CHUNK_MIN	(256U << 10)
/* Chunks that are under way leave half of the tags to readers. */
#define CHUNK_FRAMES	(LF_TAGS / 2)
/* Positions that one chunk looks at. */
#define LOOKS		4096
#define ENTRY_DIGITS	16
#define RETRY_DELAY	(HZ / 50)

/*
 * @first, @max: C bytes of a chunk
 * @chunks: under way at a time
 * @share: what was fetched and not read or written takes no more than the memory
 *	   cache's bytes divided by this
 */
static const struct manner {
	u32 first;
	u32 max;
	unsigned int chunks;
	unsigned int share;
} manners[] = {
	[LF_PREFETCH_ORDER] = { 512 << 10, 4 << 20, 2, 2 },
	[LF_PREFETCH_ALL] = { 2 << 20, 8 << 20, LF_CHUNKS, 8 },
};

static unsigned int prefetch_ms = 800;
module_param(prefetch_ms, uint, 0644);
MODULE_PARM_DESC(prefetch_ms, "What is fetched before it is read is asked for in chunks that take no longer, ms (live)");

unsigned int lf_prefetch_ms(void)
{
	return READ_ONCE(prefetch_ms);
}

struct place {
	struct lf_layer_table *table;
	struct lf_frame_pos pos;
};

/*
 * ----------------------------------------------------------------
 * What is next. All here is under prefetch.lock.
 * ----------------------------------------------------------------
 */

static bool order_place(struct lf_device *dev, u64 entry, struct place *place)
{
	u32 layer = lf_order_layer(entry);

	if (layer >= dev->image.super.layers)
		return false;
	place->table = dev->image.table[layer];
	return !lf_table_find(&place->table->table, lf_order_upos(entry),
			      &place->pos);
}

static u32 table_of_bit(const struct lf_device *dev, u32 bit)
{
	u32 low = 0, high = dev->image.super.layers;

	while (high - low > 1) {
		u32 mid = low + (high - low) / 2;

		if (dev->prefetch.mapped.first[mid] <= bit)
			low = mid;
		else
			high = mid;
	}
	return low;
}

/* The frame of a number in its table */
static bool table_frame(const struct lf_table *table, u32 index,
			struct lf_frame_pos *pos)
{
	u32 low = 0, high = table->runs;
	u64 upos;

	while (high - low > 1) {
		u32 mid = low + (high - low) / 2;

		if (le32_to_cpu(table->run[mid].first) <= index)
			low = mid;
		else
			high = mid;
	}
	if (!table->runs)
		return false;
	upos = le64_to_cpu(table->run[low].ustart) +
	       (u64)(index - le32_to_cpu(table->run[low].first)) *
	       le32_to_cpu(table->run[low].ubytes);
	return !lf_table_find(table, upos, pos);
}

static bool bit_place(struct lf_device *dev, u32 bit, struct place *place)
{
	u32 layer = table_of_bit(dev, bit);

	place->table = dev->image.table[layer];
	return table_frame(&place->table->table,
			   bit - dev->prefetch.mapped.first[layer],
			   &place->pos) &&
	       !lf_store_keeps(dev->store, place->table->layer, &place->pos);
}

/* The next place, if there is one before @looks have been made */
static bool next_place(struct lf_device *dev, unsigned int *looks,
		       struct place *place)
{
	struct lf_prefetch *p = &dev->prefetch;
	bool found = false;

	while (!found && p->next < p->count && *looks) {
		--*looks;
		if (p->source == LF_PREFETCH_ORDER) {
			found = order_place(dev, p->order[p->next++], place);
			continue;
		}
		p->next = find_next_bit(p->mapped.bit, p->count, p->next);
		if (p->next < p->count)
			found = bit_place(dev, p->next++, place);
	}
	return found;
}

static int place_cmp(const void *left, const void *right)
{
	const struct place *a = left, *b = right;

	if (a->table->layer->id != b->table->layer->id)
		return a->table->layer->id < b->table->layer->id ? -1 : 1;
	if (a->pos.cstart == b->pos.cstart)
		return 0;
	return a->pos.cstart < b->pos.cstart ? -1 : 1;
}

/* Bytes of the next chunk: a link's jitter shall not change them each time. */
static void adapt(struct lf_prefetch *p, u64 took)
{
	u64 most = (u64)lf_prefetch_ms() * NSEC_PER_MSEC;

	if (took && took < most / 4)
		p->size = min(p->size * 2, manners[p->source].max);
	else if (took > most)
		p->size = max(p->size / 2, CHUNK_MIN);
}

static u64 room_limit(const struct lf_prefetch *p)
{
	return lf_cache_limit() / manners[p->source].share;
}

static u32 chunk_bytes(const struct lf_prefetch *p)
{
	u64 bytes = min_t(u64, p->size,
			  room_limit(p) / manners[p->source].chunks);

	/* A limit shall be kept at any time, not only in the long run. */
	if (p->rate)
		bytes = min(bytes, p->rate / 4);
	return max_t(u64, bytes, 1);
}

/* Is it too early? Then the work comes back in time. */
static bool too_early(struct lf_prefetch *p)
{
	u64 now = ktime_get_ns();

	if (!p->rate || now >= p->not_before)
		return false;
	mod_delayed_work(lf_wq, &p->work,
			 nsecs_to_jiffies(p->not_before - now) + 1);
	return true;
}

static void pay(struct lf_prefetch *p, u64 bytes)
{
	p->asked += bytes;
	p->pass += bytes;
	if (p->rate)
		p->not_before = max(p->not_before, ktime_get_ns()) +
				mul_u64_u64_div_u64(bytes, NSEC_PER_SEC,
						    p->rate);
}

static unsigned int gather(struct lf_device *dev, struct place *place,
			   unsigned int *looks)
{
	const struct lf_prefetch *p = &dev->prefetch;
	unsigned int n = 0, most = CHUNK_FRAMES / manners[p->source].chunks;
	u64 bytes = 0, limit = chunk_bytes(p);

	while (n < most && bytes < limit &&
	       next_place(dev, looks, &place[n]))
		bytes += place[n++].pos.cbytes;
	sort(place, n, sizeof(*place), place_cmp, NULL);
	return n;
}

static int ask(struct lf_device *dev, const struct place *place,
	       unsigned int n, unsigned int chunk)
{
	u64 bytes = 0;
	int ret = 0;

	lf_frames_batch(1);
	for (; n && ret >= 0; n--, place++) {
		ret = lf_frame_prefetch(dev, place->table, &place->pos, chunk);
		if (ret > 0)
			bytes += place->pos.cbytes;
	}
	lf_frames_batch(-1);
	lf_frames_post();
	pay(&dev->prefetch, bytes);
	return ret < 0 ? ret : 0;
}

/*
 * All was asked for. What the store had no time for comes again, once; more
 * often would not help a store that is too small.
 */
static void end_of_pass(struct lf_device *dev)
{
	struct lf_prefetch *p = &dev->prefetch;
	u64 left, unread;

	lf_chunks_read(dev, &left, &unread);
	if (left)
		return;
	if (p->source == LF_PREFETCH_ALL && p->pass && !p->last) {
		if (unread)
			return;
		p->last = true;
		p->pass = 0;
		p->next = 0;
		lf_prefetch_kick(dev);
		return;
	}
	/* There may be more to come. */
	if (p->count == p->room)
		WRITE_ONCE(p->replays, false);
}

/* Returns false if there is nothing to do until something changes. */
static bool ask_chunk(struct lf_device *dev, struct place *place)
{
	struct lf_prefetch *p = &dev->prefetch;
	unsigned int looks = LOOKS, n;
	u32 start;
	u64 took;
	int chunk, err;

	if (p->paused || too_early(p))
		return false;
	chunk = lf_chunk_begin(dev, manners[p->source].chunks, chunk_bytes(p),
			       room_limit(p), &p->next, &took);
	if (chunk < 0)
		return false;
	adapt(p, took);
	start = p->next;
	n = gather(dev, place, &looks);
	err = n ? ask(dev, place, n, chunk) : 0;
	lf_chunk_end(dev, chunk);
	if (err) {
		p->next = start;
		if (err == -ENOMEM)
			mod_delayed_work(lf_wq, &p->work, RETRY_DELAY);
		return false;
	}
	if (n || p->next < p->count)
		return true;
	end_of_pass(dev);
	return false;
}

static void prefetch_work(struct work_struct *work)
{
	struct lf_prefetch *p = container_of(to_delayed_work(work),
					     struct lf_prefetch, work);
	struct lf_device *dev = container_of(p, struct lf_device, prefetch);
	unsigned int noio = memalloc_noio_save();
	struct place *place;
	bool more;

	place = kvmalloc_array(CHUNK_FRAMES, sizeof(*place),
			       GFP_NOIO | __GFP_NOWARN);
	if (!place) {
		mod_delayed_work(lf_wq, &p->work, RETRY_DELAY);
		goto out;
	}
	do {
		mutex_lock(&p->lock);
		more = p->source && ask_chunk(dev, place);
		mutex_unlock(&p->lock);
		cond_resched();
	} while (more);
	kvfree(place);
out:
	memalloc_noio_restore(noio);
}

void lf_prefetch_kick(struct lf_device *dev)
{
	if (READ_ONCE(dev->prefetch.runs))
		mod_delayed_work(lf_wq, &dev->prefetch.work, 0);
}

/*
 * ----------------------------------------------------------------
 * Messages
 * ----------------------------------------------------------------
 */

static void forget(struct lf_device *dev)
{
	struct lf_prefetch *p = &dev->prefetch;

	WRITE_ONCE(p->replays, false);
	lf_chunks_reset(dev, false);
	WRITE_ONCE(p->source, LF_PREFETCH_NONE);
	kvfree(p->order);
	lf_frame_bits_free(&p->mapped);
	p->order = NULL;
	p->room = 0;
	p->count = 0;
	p->next = 0;
	p->asked = 0;
	p->pass = 0;
	p->last = false;
	p->paused = false;
	p->not_before = 0;
	p->size = 0;
}

static void begin(struct lf_device *dev, enum lf_prefetch_source source)
{
	struct lf_prefetch *p = &dev->prefetch;

	p->size = manners[source].first;
	WRITE_ONCE(p->source, source);
	lf_chunks_reset(dev, true);
}

static int begin_order(struct lf_device *dev, const char *arg)
{
	struct lf_prefetch *p = &dev->prefetch;
	u32 room;

	if (kstrtou32(arg, 10, &room) || room > LF_ORDER_MAX)
		return -EINVAL;
	forget(dev);
	p->order = kvmalloc_array(max(room, 1U), sizeof(*p->order), GFP_KERNEL);
	if (!p->order)
		return -ENOMEM;
	p->room = room;
	WRITE_ONCE(p->replays, room);
	begin(dev, LF_PREFETCH_ORDER);
	return 0;
}

static int add_order(struct lf_device *dev, const char *hex)
{
	struct lf_prefetch *p = &dev->prefetch;
	size_t entries = strlen(hex) / ENTRY_DIGITS;
	char digits[ENTRY_DIGITS + 1] = {};

	if (p->source != LF_PREFETCH_ORDER || strlen(hex) % ENTRY_DIGITS ||
	    entries > p->room - p->count)
		return -EINVAL;
	for (; entries; entries--, hex += ENTRY_DIGITS) {
		memcpy(digits, hex, ENTRY_DIGITS);
		if (kstrtou64(digits, 16, &p->order[p->count]))
			return -EINVAL;
		p->count++;
	}
	WRITE_ONCE(p->replays, true);
	lf_prefetch_kick(dev);
	return 0;
}

/* A layer may have frames that this image has nothing of. */
static void map_extents(struct lf_device *dev)
{
	struct lf_frame_bits *mapped = &dev->prefetch.mapped;
	struct lf_frame_pos pos;
	u32 i;

	for (i = 0; i < dev->image.super.extents; i++) {
		const struct lf_disk_extent *extent = &dev->image.extent[i];
		u32 layer = le32_to_cpu(extent->layer);
		const struct lf_table *table = &dev->image.table[layer]->table;
		u64 upos = le64_to_cpu(extent->storage);
		u64 end = upos + le64_to_cpu(extent->length);

		for (; upos < end && !lf_table_find(table, upos, &pos);
		     upos = pos.ustart + pos.ubytes) {
			__set_bit(mapped->first[layer] + pos.index,
				  mapped->bit);
			cond_resched();
		}
	}
}

static int begin_all(struct lf_device *dev)
{
	struct lf_prefetch *p = &dev->prefetch;
	int err;

	/* Memory would lose it again. */
	if (!dev->store)
		return -EOPNOTSUPP;
	if (READ_ONCE(p->replays))
		return -EBUSY;
	forget(dev);
	err = lf_frame_bits_alloc(&p->mapped, &dev->image);
	if (err)
		return err;
	map_extents(dev);
	p->count = p->mapped.count;
	begin(dev, LF_PREFETCH_ALL);
	lf_prefetch_kick(dev);
	return 0;
}

static int set_rate(struct lf_device *dev, const char *arg)
{
	struct lf_prefetch *p = &dev->prefetch;
	u64 rate;

	if (kstrtou64(arg, 10, &rate) || rate > 1ULL << 40)
		return -EINVAL;
	p->rate = rate;
	p->not_before = 0;
	lf_prefetch_kick(dev);
	return 0;
}

static int set_paused(struct lf_device *dev, bool paused)
{
	struct lf_prefetch *p = &dev->prefetch;

	if (!p->source)
		return -ENODATA;
	p->paused = paused;
	/* Who pauses this does not read the order's frames soon. */
	WRITE_ONCE(p->replays, !paused && p->source == LF_PREFETCH_ORDER);
	lf_prefetch_kick(dev);
	return 0;
}

static int show(struct lf_device *dev, char *result, unsigned int maxlen)
{
	static const char * const what[] = {
		[LF_PREFETCH_NONE] = "none",
		[LF_PREFETCH_ORDER] = "order",
		[LF_PREFETCH_ALL] = "all",
	};
	struct lf_prefetch *p = &dev->prefetch;
	const char *state = "running";
	unsigned int sz = 0;
	u64 left, unread;

	lf_chunks_read(dev, &left, &unread);
	if (!p->source)
		state = "off";
	else if (p->paused)
		state = "paused";
	else if (p->next >= p->count && !left &&
		 (p->source == LF_PREFETCH_ORDER ? p->count == p->room :
						   p->last || !p->pass))
		state = "done";
	else if (READ_ONCE(p->full))
		state = "full";
	else if (!lf_helper_attached())
		state = "helper";
	DMEMIT("%s %s %u %u %llu %llu %llu %u %llu\n", what[p->source], state,
	       p->next, p->count, p->asked, left, unread, p->size, p->rate);
	return 1;
}

static int message(struct lf_device *dev, const char *word, const char *arg,
		   char *result, unsigned int maxlen)
{
	if (arg) {
		if (!strcasecmp(word, "begin"))
			return begin_order(dev, arg);
		if (!strcasecmp(word, "add"))
			return add_order(dev, arg);
		if (!strcasecmp(word, "rate"))
			return set_rate(dev, arg);
		return -EINVAL;
	}
	if (!strcasecmp(word, "status"))
		return show(dev, result, maxlen);
	if (!strcasecmp(word, "all"))
		return begin_all(dev);
	if (!strcasecmp(word, "pause"))
		return set_paused(dev, true);
	if (!strcasecmp(word, "resume"))
		return set_paused(dev, false);
	if (strcasecmp(word, "stop"))
		return -EINVAL;
	forget(dev);
	return 0;
}

int lf_prefetch_message(struct lf_device *dev, unsigned int argc, char **argv,
			char *result, unsigned int maxlen)
{
	unsigned int noio;
	int ret;

	if (argc > 3)
		return -EINVAL;
	mutex_lock(&dev->prefetch.lock);
	/* The work, which reads may wait for, takes the lock, too. */
	noio = memalloc_noio_save();
	ret = message(dev, argv[1], argc > 2 ? argv[2] : NULL, result, maxlen);
	memalloc_noio_restore(noio);
	mutex_unlock(&dev->prefetch.lock);
	return ret;
}

/*
 * ----------------------------------------------------------------
 * The device's life
 * ----------------------------------------------------------------
 */

void lf_prefetch_init(struct lf_device *dev)
{
	struct lf_prefetch *p = &dev->prefetch;

	mutex_init(&p->lock);
	INIT_DELAYED_WORK(&p->work, prefetch_work);
	INIT_LIST_HEAD(&p->frames);
	p->lost = U32_MAX;
}

void lf_prefetch_resume(struct lf_device *dev)
{
	struct lf_prefetch *p = &dev->prefetch;

	mutex_lock(&p->lock);
	if (p->source)
		lf_chunks_reset(dev, true);
	lf_prefetch_kick(dev);
	mutex_unlock(&p->lock);
}

void lf_prefetch_suspend(struct lf_device *dev)
{
	lf_chunks_reset(dev, false);
	cancel_delayed_work_sync(&dev->prefetch.work);
}

void lf_prefetch_drop(struct lf_device *dev)
{
	forget(dev);
	lf_frames_disown(dev);
	mutex_destroy(&dev->prefetch.lock);
}

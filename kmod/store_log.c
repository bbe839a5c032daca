// SPDX-License-Identifier: GPL-2.0-only
/*
 * What is on disk of a store, and all that changes it: segments are filled,
 * emptied and described, one work for each store. store.c has the rules.
 */
#include <linux/completion.h>
#include <linux/dm-bufio.h>
#include <linux/math64.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "store.h"

/* The young log's share of all segments. */
#define YOUNG_SHARE	10
/* A segment that is being emptied needs another to move frames to. */
#define RESERVE		1
#define COMMIT_DELAY	(5 * HZ)
/* Where all is pinned, so long nobody looks for room again. */
#define FULL_DELAY	(10 * HZ)
#define SCRUB_STEP	64
/* Bytes that wait to be written: a fourth of the cache that holds them. */
#define queue_limit()	(lf_cache_limit() / 4)

/* A frame that waits to be written. Its layer may be gone by then. */
struct lf_offer {
	struct list_head link;
	struct lf_frame *frame;
	u64 id;
	u8 uuid[16];
};

/*
 * ----------------------------------------------------------------
 * Blocks. All here is under store->write_lock.
 * ----------------------------------------------------------------
 */

/* Put @data into blocks of their own; write_blocks() makes them durable. */
static int stage(struct lf_store *store, u64 block, const void *data, u32 blocks)
{
	struct dm_buffer *buffer;
	void *to;

	for (; blocks--; block++, data += LF_META_BLOCK) {
		to = dm_bufio_new(store->bufio, block, &buffer);
		if (IS_ERR(to))
			return PTR_ERR(to);
		memcpy(to, data, LF_META_BLOCK);
		dm_bufio_mark_buffer_dirty(buffer);
		dm_bufio_release(buffer);
	}
	return 0;
}

static int write_blocks(struct lf_store *store)
{
	return dm_bufio_write_dirty_buffers(store->bufio);
}

/*
 * ----------------------------------------------------------------
 * Summaries and layers. From here on, all under store->write_lock.
 * ----------------------------------------------------------------
 */

static int write_summary(struct lf_store *store, struct lf_segment *segment)
{
	u32 segment_no = lf_segment_number(store, segment);
	struct lf_disk_summary *summary = store->summary;
	u32 first = segment_no * store->shape.slots;
	u32 i, n = 0;
	int err;

	memset(summary, 0, store->shape.summary_blocks * LF_META_BLOCK);
	spin_lock(&store->lock);
	for (i = 0; i < segment->entries; i++) {
		const struct lf_store_entry *entry = &store->entry[first + i];
		struct lf_disk_store_entry *disk = &summary->entry[n];

		if (!entry->sectors)
			continue;
		disk->key = cpu_to_le64(lf_entry_key(entry));
		disk->offset = cpu_to_le16(entry->offset);
		disk->sectors = cpu_to_le16(entry->sectors);
		disk->sum = cpu_to_le32(entry->sum);
		n++;
	}
	spin_unlock(&store->lock);
	memcpy(summary->store, store->uuid, sizeof(summary->store));
	summary->sequence = cpu_to_le64(segment->sequence);
	summary->segment = cpu_to_le32(segment_no);
	summary->entries = cpu_to_le32(n);
	summary->log = cpu_to_le32(segment->log);
	lf_summary_finish(summary, &store->shape);

	/* Its data before it. */
	err = blkdev_issue_flush(store->bdev);
	if (!err)
		err = stage(store, lf_summary_place(&store->shape, segment_no),
			    summary, store->shape.summary_blocks);
	if (!err)
		err = write_blocks(store);
	if (!err)
		segment->fresh = false;
	return err;
}

/* Before any of its data changes. */
static int wipe_summary(struct lf_store *store, struct lf_segment *segment)
{
	u32 number = lf_segment_number(store, segment);
	int err;

	err = stage(store, lf_summary_place(&store->shape, number),
		    page_address(ZERO_PAGE(0)), 1);
	return err ?: write_blocks(store);
}

/* Both open segments' summaries. */
void lf_store_commit(struct lf_store *store)
{
	u32 i;

	store->uncommitted = false;
	for (i = 0; i < LF_LOGS && store->mode == LF_STORE_RW; i++)
		if (store->opened[i] && store->opened[i]->fresh &&
		    write_summary(store, store->opened[i]))
			lf_store_write_failed(store);
}

static int write_layer(struct lf_store *store, u32 place)
{
	u32 per_block = LF_META_BLOCK / sizeof(struct lf_disk_store_layer);
	struct lf_disk_store_layer *disk = (void *)store->summary;
	u32 first = round_down(place, per_block), i;
	int err;

	memset(disk, 0, LF_META_BLOCK);
	for (i = 0; i < per_block; i++) {
		const struct lf_store_layer *layer = &store->layer[first + i];

		if (!memchr_inv(layer->uuid, 0, sizeof(layer->uuid)))
			continue;
		memcpy(disk[i].uuid, layer->uuid, sizeof(disk[i].uuid));
		disk[i].flags = cpu_to_le32(layer->flags);
		lf_store_layer_finish(&disk[i]);
	}
	err = stage(store, LF_STORE_COPIES + first / per_block, disk, 1);
	return err ?: write_blocks(store);
}

/* The place of a layer, made if there is none. */
static int layer_place(struct lf_store *store, u64 id, const u8 *uuid,
		       u32 *place)
{
	struct lf_store_layer *layer;
	bool made = false;
	int err = 0;
	u32 i;

	spin_lock(&store->lock);
	*place = __lf_store_layer(store, id, uuid);
	for (i = 0; *place == LF_STORE_NONE && i < store->shape.layers; i++) {
		layer = &store->layer[i];
		if (layer->frames || layer->flags)
			continue;
		xa_erase(&store->ids, layer->id);
		layer->id = 0;
		memcpy(layer->uuid, uuid, sizeof(layer->uuid));
		store->layer_end = max(store->layer_end, i + 1);
		*place = i;
		made = true;
	}
	spin_unlock(&store->lock);
	if (*place == LF_STORE_NONE)
		return -ENOSPC;
	if (made)
		err = write_layer(store, *place);
	if (err)
		lf_store_write_failed(store);
	return err;
}

/*
 * ----------------------------------------------------------------
 * Segments
 * ----------------------------------------------------------------
 */

static void close_segment(struct lf_store *store, u32 log)
{
	struct lf_segment *segment = store->opened[log];

	if (!segment)
		return;
	store->opened[log] = NULL;
	list_add_tail(&segment->link, &store->log[log]);
	if (segment->fresh && store->mode == LF_STORE_RW &&
	    write_summary(store, segment))
		lf_store_write_failed(store);
}

/* Making room moves frames, and to move one takes room. */
static int place_frame(struct lf_store *store, u32 log, u32 sectors,
		       bool moving, u32 *number);

/*
 * Ghosts are remembered by a few bits, and until another takes their place; by
 * the layer's uuid, as its place may be another layer's by then.
 */
static u16 *ghost_of(const struct lf_store *store, const u8 *uuid, u64 key,
		     u16 *bits)
{
	u64 hash = lf_store_name(uuid, key);

	*bits = hash | 1;
	return &store->ghost[mul_u64_u32_shr(hash, store->ghosts, 64)];
}

static bool is_ghost(const struct lf_store *store, const u8 *uuid, u64 key)
{
	u16 bits;

	return *ghost_of(store, uuid, key, &bits) == bits;
}

static void make_ghost(struct lf_store *store, const struct lf_store_entry *entry)
{
	u64 key = lf_entry_key(entry);
	u16 bits, *ghost;

	ghost = ghost_of(store, store->layer[lf_store_key_layer(key)].uuid, key,
			 &bits);
	*ghost = bits;
}

/*
 * struct lf_look - what an entry held when it was looked at
 */
struct lf_look {
	struct lf_store_entry entry;
	u8 uuid[16];
};

/* Returns false if it holds nothing. */
static bool look_at(struct lf_store *store, u32 number, struct lf_look *look)
{
	const struct lf_store_layer *layer;

	spin_lock(&store->lock);
	look->entry = store->entry[number];
	layer = &store->layer[lf_store_key_layer(lf_entry_key(&look->entry))];
	memcpy(look->uuid, layer->uuid, sizeof(look->uuid));
	spin_unlock(&store->lock);
	return look->entry.sectors;
}

static void look_failed(struct lf_store *store, u32 number,
			enum lf_store_stat stat)
{
	spin_lock(&store->lock);
	if (store->entry[number].sectors && stat == LF_STORE_BAD)
		__lf_store_forget(store, number);
	__lf_store_count(store, stat);
	spin_unlock(&store->lock);
}

/* Its bytes, verified, to be freed; or NULL. Only we change what is there. */
static void *read_entry(struct lf_store *store, u32 number,
			const struct lf_look *look)
{
	const struct lf_store_entry *entry = &look->entry;
	void *data;

	data = kvmalloc((size_t)entry->sectors << SECTOR_SHIFT,
			GFP_NOIO | __GFP_NOWARN);
	if (!data)
		return NULL;
	if (lf_store_io(store, REQ_OP_READ, lf_entry_sector(store, number),
			entry->sectors, data))
		look_failed(store, number, LF_STORE_ERRORS);
	else if (lf_store_sum(look->uuid, lf_entry_key(entry), data,
			      entry->sectors) != entry->sum)
		look_failed(store, number, LF_STORE_BAD);
	else
		return data;
	kvfree(data);
	return NULL;
}

/*
 * Copy a frame to the main log, where it is found from then on. One that cannot
 * be read is lost with its segment, which is no error.
 */
static int move_frame(struct lf_store *store, u32 number, u32 freq)
{
	struct lf_look look;
	u32 to, sectors;
	void *data;
	int err;

	if (!look_at(store, number, &look))
		return 0;
	data = read_entry(store, number, &look);
	if (!data)
		return 0;
	sectors = look.entry.sectors;
	err = place_frame(store, LF_LOG_MAIN, sectors, true, &to);
	if (err)
		goto out;
	err = lf_store_io(store, REQ_OP_WRITE, lf_entry_sector(store, to), sectors,
			  data);
	if (err) {
		lf_store_write_failed(store);
		goto out;
	}
	spin_lock(&store->lock);
	/* A reader may have found it bad meanwhile. */
	if (store->entry[number].sectors) {
		__lf_store_forget(store, number);
		__lf_store_fill(store, to, lf_entry_key(&look.entry), freq, sectors,
				look.entry.sum);
		__lf_store_count(store, LF_STORE_MOVED);
	}
	spin_unlock(&store->lock);
out:
	kvfree(data);
	return err;
}

static bool is_pinned(struct lf_store *store, const struct lf_store_entry *entry)
{
	return store->layer[lf_store_key_layer(lf_entry_key(entry))].flags &
	       LF_STORE_PINNED;
}

/*
 * Move what shall stay, the hottest first, but not more than half of a segment:
 * so each one that is emptied makes room. What is pinned stays in any case.
 */
static int move_hot(struct lf_store *store, struct lf_segment *victim)
{
	u32 first = lf_segment_number(store, victim) * store->shape.slots;
	u32 room = lf_segment_sectors(store) / 2;
	u32 level, i;
	int err;

	for (level = LF_FREQ_MAX + 1; level; level--) {
		for (i = 0; i < victim->entries; i++) {
			struct lf_store_entry *entry = &store->entry[first + i];
			u32 freq = lf_entry_freq(entry);
			bool pinned;

			if (!entry->sectors)
				continue;
			pinned = is_pinned(store, entry);
			if (level != (pinned ? LF_FREQ_MAX + 1 : freq))
				continue;
			if (!pinned) {
				if (entry->sectors > room)
					continue;
				room -= entry->sectors;
				freq = victim->log == LF_LOG_MAIN ? freq - 1 : 0;
			}
			err = move_frame(store, first + i, freq);
			if (err)
				/* No segment to move to: a crash left none. */
				return err == -ENOSPC ? 0 : err;
			cond_resched();
		}
	}
	return 0;
}

static bool no_reads(struct lf_store *store, struct lf_segment *segment)
{
	bool none;

	spin_lock(&store->lock);
	none = !segment->reading;
	spin_unlock(&store->lock);
	return none;
}

static bool is_hot(struct lf_store *store, const struct lf_store_entry *entry)
{
	return lf_entry_freq(entry);
}

/* More than half of it would have to be written again. */
static bool mostly(struct lf_store *store, struct lf_segment *segment,
		   bool (*is)(struct lf_store *store,
			      const struct lf_store_entry *entry))
{
	u32 first = lf_segment_number(store, segment) * store->shape.slots;
	u32 sectors = 0, i;

	for (i = 0; i < segment->entries; i++) {
		if (is(store, &store->entry[first + i]))
			sectors += store->entry[first + i].sectors;
	}
	return sectors > lf_segment_sectors(store) / 2;
}

/*
 * A young segment that would be moved nearly as it is becomes one of the main
 * log where it lies. On disk it stays a young one: after a restart it has to
 * prove itself again.
 */
static void promote(struct lf_store *store, struct lf_segment *segment)
{
	u32 first = lf_segment_number(store, segment) * store->shape.slots;
	u32 i;

	spin_lock(&store->lock);
	for (i = 0; i < segment->entries; i++) {
		struct lf_store_entry *entry = &store->entry[first + i];

		if (!lf_entry_freq(entry))
			continue;
		lf_entry_set(entry, lf_entry_key(entry), 0);
		__lf_store_count(store, LF_STORE_MOVED);
	}
	spin_unlock(&store->lock);
	store->logs[segment->log]--;
	segment->log = LF_LOG_MAIN;
	store->logs[segment->log]++;
	list_move_tail(&segment->link, &store->log[segment->log]);
}

/* The segment that gives way; NULL: those whose turn it was are pinned. */
static struct lf_segment *pick_victim(struct lf_store *store)
{
	u32 share = max(store->shape.segments / YOUNG_SHARE, 1U);
	u32 log = store->logs[LF_LOG_YOUNG] > share ? LF_LOG_YOUNG :
						      LF_LOG_MAIN;
	struct lf_segment *victim;
	u32 i;

	for (i = 0; i < LF_LOGS; i++, log = !log) {
		victim = list_first_entry_or_null(&store->log[log],
						  struct lf_segment, link);
		if (!victim)
			continue;
		if (!mostly(store, victim, is_pinned))
			return victim;
		list_move_tail(&victim->link, &store->log[log]);
	}
	return NULL;
}

/* Empty a segment; -EAGAIN: not this one. */
static int reclaim(struct lf_store *store)
{
	struct lf_segment *victim = pick_victim(store);
	u32 first, i;
	int err;

	if (!victim)
		return -EAGAIN;
	if (victim->log == LF_LOG_YOUNG && mostly(store, victim, is_hot)) {
		promote(store, victim);
		return -EAGAIN;
	}
	first = lf_segment_number(store, victim) * store->shape.slots;
	err = move_hot(store, victim);
	/* The old summary goes: what was moved must be named by a new one. */
	if (!err && store->opened[LF_LOG_MAIN] &&
	    store->opened[LF_LOG_MAIN]->fresh) {
		err = write_summary(store, store->opened[LF_LOG_MAIN]);
		if (err)
			lf_store_write_failed(store);
	}
	if (err)
		return err;
	spin_lock(&store->lock);
	for (i = 0; i < victim->entries; i++) {
		struct lf_store_entry *entry = &store->entry[first + i];

		if (!entry->sectors)
			continue;
		if (victim->log == LF_LOG_YOUNG)
			make_ghost(store, entry);
		__lf_store_forget(store, first + i);
		__lf_store_count(store, LF_STORE_EVICTED);
	}
	spin_unlock(&store->lock);
	wait_event(store->idle, no_reads(store, victim));
	err = wipe_summary(store, victim);
	if (err) {
		lf_store_write_failed(store);
		return err;
	}
	victim->used = 0;
	victim->entries = 0;
	victim->fresh = false;
	list_move(&victim->link, &store->free);
	store->frees++;
	store->logs[victim->log]--;
	return 0;
}

static int open_segment(struct lf_store *store, u32 log, bool moving)
{
	u32 reserve = moving ? 0 : RESERVE;
	u32 tries = 2 * store->shape.segments;
	struct lf_segment *segment;
	int err;

	while (store->frees <= reserve) {
		if (moving || !tries--)
			return -ENOSPC;
		err = reclaim(store);
		if (err && err != -EAGAIN)
			return err;
	}
	/* What was moved may have opened one for us. */
	if (store->opened[log])
		return 0;
	segment = list_first_entry(&store->free, struct lf_segment, link);
	list_del_init(&segment->link);
	store->frees--;
	segment->log = log;
	segment->sequence = ++store->sequence;
	store->logs[log]++;
	store->opened[log] = segment;
	return 0;
}

static bool has_room(const struct lf_store *store, u32 log, u32 sectors)
{
	const struct lf_segment *segment = store->opened[log];

	return segment && segment->entries < store->shape.slots &&
	       segment->used + sectors <= lf_segment_sectors(store);
}

/* Room for a frame at the end of a log: the entry gets its offset. */
static int place_frame(struct lf_store *store, u32 log, u32 sectors,
		       bool moving, u32 *number)
{
	struct lf_segment *segment;
	int err;

	while (!has_room(store, log, sectors)) {
		close_segment(store, log);
		err = open_segment(store, log, moving);
		if (err)
			return err;
	}
	segment = store->opened[log];
	*number = lf_segment_number(store, segment) * store->shape.slots +
		  segment->entries++;
	store->entry[*number].offset = segment->used;
	segment->used += sectors;
	segment->fresh = true;
	if (!store->uncommitted) {
		store->uncommitted = true;
		store->commit_at = jiffies + COMMIT_DELAY;
	}
	return 0;
}

/*
 * ----------------------------------------------------------------
 * Writing
 * ----------------------------------------------------------------
 */

bool lf_store_offer(struct lf_frame *frame)
{
	struct lf_store *store = frame->store;
	struct lf_offer *offer;

	if (!store)
		return false;
	offer = kmalloc(sizeof(*offer), GFP_NOWAIT | __GFP_NOWARN);
	spin_lock(&store->lock);
	if (!offer || !store->active || store->mode != LF_STORE_RW ||
	    (store->queued && store->queued + frame->pos.cbytes >
	     queue_limit())) {
		__lf_store_count(store, LF_STORE_SKIPPED);
		spin_unlock(&store->lock);
		kfree(offer);
		return false;
	}
	refcount_inc(&frame->refs);
	offer->frame = frame;
	offer->id = frame->layer->id;
	memcpy(offer->uuid, frame->layer->uuid, sizeof(offer->uuid));
	list_add_tail(&offer->link, &store->queue);
	store->queued += frame->pos.cbytes;
	mod_delayed_work(lf_store_wq, &store->work, 0);
	spin_unlock(&store->lock);
	return true;
}

/*
 * struct lf_batch - frames that are written at once
 * @left: writes that have not ended, and one for who waits
 */
struct lf_batch {
	atomic_t left;
	struct completion done;
};

static void put_done(int err, void *context)
{
	struct lf_put *put = context;
	struct lf_batch *batch = put->batch;

	put->error = err;
	if (atomic_dec_and_test(&batch->left))
		complete(&batch->done);
}

/* Where a frame goes; put_finish() must follow. An error: nowhere. */
static int put_prepare(struct lf_store *store, struct lf_put *put, bool first)
{
	const struct lf_offer *offer = put->offer;
	const struct lf_frame_pos *pos = &offer->frame->pos;
	u32 place, found, log;
	int err;

	put->sectors = lf_frame_sectors(store, pos->cbytes);
	if (put->sectors > lf_segment_sectors(store) ||
	    pos->cstart >> LF_STORE_OFFSET_BITS)
		return -EFBIG;
	err = layer_place(store, offer->id, offer->uuid, &place);
	if (err)
		return err;
	put->key = lf_store_key(place, pos->cstart);
	spin_lock(&store->lock);
	found = __lf_store_find(store, put->key);
	/* There, but of another size: a table of the layer that is no more. */
	if (found != LF_STORE_NONE && store->entry[found].sectors != put->sectors) {
		__lf_store_forget(store, found);
		found = LF_STORE_NONE;
	}
	spin_unlock(&store->lock);
	if (found != LF_STORE_NONE)
		return -EEXIST;
	if (store->full && time_before(jiffies, store->full_until))
		return -ENOSPC;
	log = is_ghost(store, offer->uuid, put->key) ? LF_LOG_MAIN : LF_LOG_YOUNG;
	/* A segment that is full is closed when all of it is written. */
	if (!first && !has_room(store, log, put->sectors))
		return -EAGAIN;
	err = place_frame(store, log, put->sectors, false, &put->number);
	store->full = err == -ENOSPC;
	if (store->full)
		store->full_until = jiffies + FULL_DELAY;
	if (err)
		return err;
	/* Its place in the table of layers is not for another layer. */
	spin_lock(&store->lock);
	store->layer[place].frames++;
	spin_unlock(&store->lock);
	return 0;
}

/* Its data is on the device, or is not: from now on it is found. */
static void put_finish(struct lf_store *store, struct lf_put *put)
{
	const struct lf_offer *offer = put->offer;
	u32 sum = lf_store_sum(offer->uuid, put->key, offer->frame->data,
			       put->sectors);

	spin_lock(&store->lock);
	store->layer[lf_store_key_layer(put->key)].frames--;
	/* Pairs with lf_frame_drop(), which marks it before it looks here. */
	if (!put->error && !READ_ONCE(offer->frame->bad) &&
	    __lf_store_find(store, put->key) == LF_STORE_NONE) {
		__lf_store_fill(store, put->number, put->key, 0, put->sectors, sum);
		__lf_store_count(store, LF_STORE_STORED);
	}
	spin_unlock(&store->lock);
}

static void drop_offer(struct lf_offer *offer)
{
	lf_frame_offered(offer->frame);
	lf_frame_put(offer->frame);
	kfree(offer);
}

static struct lf_offer *next_offer(struct lf_store *store)
{
	struct lf_offer *offer;

	spin_lock(&store->lock);
	offer = list_first_entry_or_null(&store->queue, struct lf_offer, link);
	if (offer) {
		list_del(&offer->link);
		store->queued -= offer->frame->pos.cbytes;
	}
	spin_unlock(&store->lock);
	return offer;
}

void lf_store_drop_queue(struct lf_store *store)
{
	struct lf_offer *offer;

	while ((offer = next_offer(store)))
		drop_offer(offer);
}

static void put_back(struct lf_store *store, struct lf_offer *offer)
{
	spin_lock(&store->lock);
	list_add(&offer->link, &store->queue);
	store->queued += offer->frame->pos.cbytes;
	spin_unlock(&store->lock);
}

/* Some of the queue, all at once. Returns false if there was nothing. */
static bool write_some(struct lf_store *store)
{
	struct lf_put *put = store->put, *p;
	struct lf_batch batch;
	struct lf_offer *offer;
	u32 n = 0, i;
	int err;

	atomic_set(&batch.left, 1);
	init_completion(&batch.done);
	while (n < LF_STORE_BATCH && (offer = next_offer(store))) {
		p = &put[n];
		*p = (struct lf_put) {
			.offer = offer,
			.batch = &batch,
		};
		err = store->mode != LF_STORE_RW ? -EROFS :
						   put_prepare(store, p, !n);
		if (err == -EAGAIN) {
			put_back(store, offer);
			break;
		}
		if (err) {
			if (err != -EEXIST)
				lf_store_count(store, LF_STORE_SKIPPED);
			drop_offer(offer);
			continue;
		}
		n++;
		atomic_inc(&batch.left);
		lf_store_submit(store, REQ_OP_WRITE,
				lf_entry_sector(store, p->number), p->sectors,
				offer->frame->data, put_done, p);
	}
	if (!atomic_dec_and_test(&batch.left))
		wait_for_completion(&batch.done);
	for (i = 0; i < n; i++) {
		if (put[i].error)
			lf_store_write_failed(store);
		put_finish(store, &put[i]);
		drop_offer(put[i].offer);
	}
	return n || offer;
}

/*
 * ----------------------------------------------------------------
 * Scrubbing
 * ----------------------------------------------------------------
 */

/* Some of it, so that frames that wait to be written come in between. */
static void scrub_some(struct lf_store *store)
{
	u32 all = store->shape.segments * store->shape.slots;
	u32 steps = SCRUB_STEP;
	struct lf_look look;

	while (store->scrub_next < all && steps) {
		u32 number = store->scrub_next++;

		if (!look_at(store, number, &look))
			continue;
		kvfree(read_entry(store, number, &look));
		steps--;
		cond_resched();
	}
	if (store->scrub_next < all)
		return;
	spin_lock(&store->lock);
	store->scrubbing = false;
	spin_unlock(&store->lock);
	queue_work(lf_store_wq, &store->event);
}

int lf_store_scrub(struct lf_store *store)
{
	int err = -ENODEV;

	mutex_lock(&store->write_lock);
	store->scrub_next = 0;
	spin_lock(&store->lock);
	if (store->active) {
		store->scrubbing = true;
		mod_delayed_work(lf_store_wq, &store->work, 0);
		err = 0;
	}
	spin_unlock(&store->lock);
	mutex_unlock(&store->write_lock);
	return err;
}

void lf_store_work(struct work_struct *work)
{
	struct lf_store *store = container_of(to_delayed_work(work),
					      struct lf_store, work);
	unsigned int noio = memalloc_noio_save();
	bool more;

	do {
		mutex_lock(&store->write_lock);
		more = write_some(store);
		if (!more && store->scrubbing) {
			scrub_some(store);
			more = true;
		}
		if (store->uncommitted && time_after_eq(jiffies,
							store->commit_at))
			lf_store_commit(store);
		mutex_unlock(&store->write_lock);
		cond_resched();
	} while (more && READ_ONCE(store->active));
	mutex_lock(&store->write_lock);
	if (store->uncommitted && READ_ONCE(store->active))
		queue_delayed_work(lf_store_wq, &store->work, COMMIT_DELAY);
	mutex_unlock(&store->write_lock);
	memalloc_noio_restore(noio);
}

int lf_store_pin(struct lf_store *store, const u8 uuid[16], bool pin)
{
	int err = -ENODEV;
	u32 place;

	mutex_lock(&store->write_lock);
	if (!store->active)
		goto out;
	err = -EROFS;
	if (store->mode != LF_STORE_RW)
		goto out;
	if (pin) {
		err = layer_place(store, 0, uuid, &place);
	} else {
		spin_lock(&store->lock);
		place = __lf_store_layer(store, 0, uuid);
		spin_unlock(&store->lock);
		err = place == LF_STORE_NONE ? -ENOENT : 0;
	}
	if (err)
		goto out;
	spin_lock(&store->lock);
	store->layer[place].flags = pin ? LF_STORE_PINNED : 0;
	spin_unlock(&store->lock);
	err = write_layer(store, place);
	if (err)
		lf_store_write_failed(store);
out:
	mutex_unlock(&store->write_lock);
	return err;
}

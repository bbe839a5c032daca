// SPDX-License-Identifier: GPL-2.0-only
/*
 * The store: compressed frames on a block device, for every device on this
 * host. It has the device's size and never more; store_disk.h has the layout
 * and the crash argument.
 *
 * Two logs of segments
 * --------------------
 * Frames come in at the end of the young log. When no segment is free, the
 * oldest of a log gives way: the young log's while it has more than its share,
 * otherwise the main log's. A frame of the young log that was read since it
 * came moves to the main log, or, where most of a segment was, all of that does
 * where it lies; one that was not is forgotten, and remembered for a while as a
 * ghost: should it come again, it goes to the main log at once. A frame of the
 * main log stays as often as it was read, up to a limit. So what is read once, a
 * scan, passes through a tenth of the store and pushes nothing out of the rest
 * (S3-FIFO, with segments for queues).
 *
 * Who does what
 * -------------
 * Readers look up and read; they never wait for a write. A frame that arrived
 * is offered by frame.c and written by one work, the only one that changes what
 * is on disk. That work forgets a segment's frames before it frees the segment,
 * and waits for the reads that are still in flight there in between. A frame
 * that moves is found at its old place until it is at the new one.
 *
 * Nothing here is ever an error for a reader: what cannot be read, or does not
 * verify, is forgotten and fetched. A write that fails ends the writing; after
 * some reads in sequence that fail the store passes everything by.
 */
#include <linux/hash.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "store.h"

#define MAX_FAULTS	16
#define MIN_LOADS	16

struct workqueue_struct *lf_store_wq;
static mempool_t *load_pool;

/*
 * ----------------------------------------------------------------
 * The index. All under store->lock.
 * ----------------------------------------------------------------
 */

static u32 *bucket(struct lf_store *store, u64 key)
{
	return &store->head[hash_64(key, store->hash_bits)];
}

u32 __lf_store_find(struct lf_store *store, u64 key)
{
	u32 next = *bucket(store, key);

	while (next) {
		if (lf_entry_key(&store->entry[next - 1]) == key)
			return next - 1;
		next = store->entry[next - 1].next;
	}
	return LF_STORE_NONE;
}

static void __link(struct lf_store *store, u32 number)
{
	struct lf_store_entry *entry = &store->entry[number];
	u32 *head = bucket(store, lf_entry_key(entry));

	entry->next = *head;
	*head = number + 1;
	store->count++;
	store->used += entry->sectors;
	store->layer[lf_store_key_layer(lf_entry_key(entry))].frames++;
}

void __lf_store_forget(struct lf_store *store, u32 number)
{
	struct lf_store_entry *entry = &store->entry[number];
	u32 *link = bucket(store, lf_entry_key(entry));

	while (*link != number + 1)
		link = &store->entry[*link - 1].next;
	*link = entry->next;
	store->count--;
	store->used -= entry->sectors;
	store->layer[lf_store_key_layer(lf_entry_key(entry))].frames--;
	entry->sectors = 0;
}

/* An entry that has its place gets what it holds, and is found. */
void __lf_store_fill(struct lf_store *store, u32 number, u64 key, u32 freq,
		     u32 sectors, u32 sum)
{
	struct lf_store_entry *entry = &store->entry[number];

	entry->sectors = sectors;
	entry->sum = sum;
	lf_entry_set(entry, key, freq);
	__link(store, number);
}

/* The place of a layer, or LF_STORE_NONE. */
u32 __lf_store_layer(struct lf_store *store, u64 id, const u8 *uuid)
{
	void *value = id ? xa_load(&store->ids, id) : NULL;
	struct lf_store_layer *layer;
	u32 place;

	if (value)
		return xa_to_value(value);
	for (place = 0; place < store->layer_end; place++) {
		layer = &store->layer[place];
		if (memcmp(layer->uuid, uuid, sizeof(layer->uuid)))
			continue;
		/* No more than a shortcut: it may fail. */
		if (id) {
			xa_erase(&store->ids, layer->id);
			layer->id = id;
			xa_store(&store->ids, id, xa_mk_value(place),
				 GFP_NOWAIT);
		}
		return place;
	}
	return LF_STORE_NONE;
}

static u32 __find_frame(struct lf_store *store, const struct lf_layer *layer,
			const struct lf_frame_pos *pos)
{
	u32 place, number;

	if (!store->active || store->mode == LF_STORE_FAIL)
		return LF_STORE_NONE;
	place = __lf_store_layer(store, layer->id, layer->uuid);
	if (place == LF_STORE_NONE)
		return LF_STORE_NONE;
	number = __lf_store_find(store, lf_store_key(place, pos->cstart));
	if (number == LF_STORE_NONE)
		return LF_STORE_NONE;
	/* Another table of the layer may cut its frames in another way. */
	if (store->entry[number].sectors !=
	    lf_frame_sectors(store, pos->cbytes))
		return LF_STORE_NONE;
	return number;
}

/*
 * ----------------------------------------------------------------
 * Modes
 * ----------------------------------------------------------------
 */

void lf_store_set_mode(struct lf_store *store, enum lf_store_mode mode,
		       const char *why)
{
	bool changed;

	spin_lock(&store->lock);
	changed = mode > store->mode;
	if (changed) {
		store->mode = mode;
		if (store->active)
			queue_work(lf_store_wq, &store->event);
	}
	spin_unlock(&store->lock);
	if (changed)
		DMERR_LIMIT("store %pUb: %s: %s", store->uuid,
			    mode == LF_STORE_RO ? "no more frames are stored" :
						  "it is passed by", why);
}

void lf_store_write_failed(struct lf_store *store)
{
	lf_store_count(store, LF_STORE_ERRORS);
	lf_store_set_mode(store, LF_STORE_RO, "a write or flush failed");
}

/*
 * ----------------------------------------------------------------
 * Reading
 * ----------------------------------------------------------------
 */

bool lf_store_has(struct lf_store *store, const struct lf_layer *layer,
		  const struct lf_frame_pos *pos)
{
	bool has;

	if (!store)
		return false;
	spin_lock(&store->lock);
	has = __find_frame(store, layer, pos) != LF_STORE_NONE;
	if (!has && store->active)
		__lf_store_count(store, LF_STORE_MISSES);
	spin_unlock(&store->lock);
	return has;
}

bool lf_store_keeps(struct lf_store *store, const struct lf_layer *layer,
		    const struct lf_frame_pos *pos)
{
	bool keeps;

	if (!store)
		return false;
	spin_lock(&store->lock);
	keeps = __find_frame(store, layer, pos) != LF_STORE_NONE;
	spin_unlock(&store->lock);
	return keeps;
}

struct lf_load *lf_load_alloc(void)
{
	return mempool_alloc(load_pool, GFP_NOIO);
}

void lf_load_free(struct lf_load *load)
{
	mempool_free(load, load_pool);
}

bool lf_store_begin(struct lf_store *store, struct lf_frame *frame,
		    struct lf_load *load)
{
	struct lf_store_entry *entry;
	u32 number;

	spin_lock(&store->lock);
	number = __find_frame(store, frame->layer, &frame->pos);
	if (number == LF_STORE_NONE) {
		spin_unlock(&store->lock);
		return false;
	}
	entry = &store->entry[number];
	if (lf_entry_freq(entry) < LF_FREQ_MAX)
		lf_entry_set(entry, lf_entry_key(entry), lf_entry_freq(entry) + 1);
	lf_segment_of(store, number)->reading++;
	store->reading++;
	load->store = store;
	load->number = number;
	load->sum = entry->sum;
	load->sector = lf_entry_sector(store, number);
	load->sectors = entry->sectors;
	load->key = lf_entry_key(entry);
	memcpy(load->uuid, frame->layer->uuid, sizeof(load->uuid));
	spin_unlock(&store->lock);
	return true;
}

/* The entry is that of the read, and not another one that took its place. */
static void __load_bad(struct lf_store *store, struct lf_load *load)
{
	struct lf_store_entry *entry = &store->entry[load->number];

	if (entry->sectors == load->sectors && entry->sum == load->sum)
		__lf_store_forget(store, load->number);
}

static void load_work(struct work_struct *work)
{
	struct lf_load *load = container_of(work, struct lf_load, work);
	struct lf_store *store = load->store;
	bool failed = false;

	if (!load->error && lf_store_sum(load->uuid, load->key, load->data,
					 load->sectors) != load->sum)
		load->error = -EBADMSG;
	spin_lock(&store->lock);
	if (load->error)
		__load_bad(store, load);
	if (!load->error) {
		__lf_store_count(store, LF_STORE_HITS);
		store->faults = 0;
	} else if (load->error == -EBADMSG) {
		__lf_store_count(store, LF_STORE_BAD);
	} else {
		__lf_store_count(store, LF_STORE_ERRORS);
		failed = ++store->faults >= MAX_FAULTS;
	}
	spin_unlock(&store->lock);
	if (failed)
		lf_store_set_mode(store, LF_STORE_FAIL, "too many reads failed");
	spin_lock(&store->lock);
	lf_segment_of(store, load->number)->reading--;
	store->reading--;
	/* Under the lock: who waits may close the store behind it. */
	wake_up(&store->idle);
	spin_unlock(&store->lock);
	lf_frame_loaded(load);
}

static void load_done(int err, void *context)
{
	struct lf_load *load = context;

	load->error = err ? -EIO : 0;
	queue_work(lf_wq, &load->work);
}

void lf_store_read(struct lf_load *load)
{
	INIT_WORK(&load->work, load_work);
	lf_store_submit(load->store, REQ_OP_READ, load->sector, load->sectors,
			load->data, load_done, load);
}

void lf_store_forget(struct lf_store *store, const struct lf_layer *layer,
		     const struct lf_frame_pos *pos)
{
	u32 number;

	if (!store)
		return;
	spin_lock(&store->lock);
	number = __find_frame(store, layer, pos);
	if (number != LF_STORE_NONE) {
		__lf_store_forget(store, number);
		__lf_store_count(store, LF_STORE_BAD);
	}
	spin_unlock(&store->lock);
}

int lf_stores_init(void)
{
	int err;

	err = lf_store_io_init();
	if (err)
		return err;
	err = -ENOMEM;
	lf_store_wq = alloc_workqueue("lazyframe-store",
				      WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!lf_store_wq)
		goto out_io;
	load_pool = mempool_create_kmalloc_pool(MIN_LOADS,
						sizeof(struct lf_load));
	if (!load_pool)
		goto out_wq;
	return 0;
out_wq:
	destroy_workqueue(lf_store_wq);
out_io:
	lf_store_io_exit();
	return err;
}

void lf_stores_exit(void)
{
	destroy_workqueue(lf_store_wq);
	mempool_destroy(load_pool);
	lf_store_io_exit();
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Stores come and go: the registry, and the way of an index from the cache
 * device into memory.
 */
#include <linux/dm-bufio.h>
#include <linux/list_sort.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "store.h"

#define GHOSTS_PER_UNIT	64

static LIST_HEAD(lf_stores);
static DEFINE_MUTEX(lf_stores_lock);

/*
 * ----------------------------------------------------------------
 * Opening
 * ----------------------------------------------------------------
 */

static void free_index(struct lf_store *store)
{
	if (!IS_ERR_OR_NULL(store->bufio))
		lf_bufio_destroy(store->bufio);
	kvfree(store->summary);
	kvfree(store->entry);
	kvfree(store->head);
	kvfree(store->ghost);
	kvfree(store->segment);
	kvfree(store->layer);
	xa_destroy(&store->ids);
	store->bufio = NULL;
	store->summary = NULL;
	store->entry = NULL;
	store->head = NULL;
	store->ghost = NULL;
	store->segment = NULL;
	store->layer = NULL;
}

size_t lf_store_memory(const struct lf_store *store)
{
	const struct lf_store_shape *shape = &store->shape;

	return (size_t)shape->segments * shape->slots * sizeof(*store->entry) +
	       (sizeof(*store->head) << store->hash_bits) +
	       store->ghosts * sizeof(*store->ghost) +
	       shape->segments * sizeof(*store->segment) +
	       shape->layers * sizeof(*store->layer) +
	       shape->summary_blocks * LF_META_BLOCK;
}

static int alloc_index(struct lf_store *store)
{
	const struct lf_store_shape *shape = &store->shape;
	u32 units = shape->segments * shape->summary_blocks;
	size_t entries = (size_t)shape->segments * shape->slots;
	u32 i;

	store->hash_bits = ilog2(entries) - 1;
	store->ghosts = units * GHOSTS_PER_UNIT;
	store->summary = kvmalloc((size_t)shape->summary_blocks * LF_META_BLOCK,
				  GFP_KERNEL);
	store->entry = kvcalloc(entries, sizeof(*store->entry), GFP_KERNEL);
	store->head = kvcalloc(1UL << store->hash_bits, sizeof(*store->head),
			       GFP_KERNEL);
	store->ghost = kvcalloc(store->ghosts, sizeof(*store->ghost),
				GFP_KERNEL);
	store->segment = kvcalloc(shape->segments, sizeof(*store->segment),
				  GFP_KERNEL);
	store->layer = kvcalloc(shape->layers, sizeof(*store->layer),
				GFP_KERNEL);
	if (!store->summary || !store->entry || !store->head || !store->ghost ||
	    !store->segment || !store->layer)
		return -ENOMEM;
	INIT_LIST_HEAD(&store->free);
	for (i = 0; i < LF_LOGS; i++) {
		INIT_LIST_HEAD(&store->log[i]);
		store->logs[i] = 0;
		store->opened[i] = NULL;
	}
	store->layer_end = 0;
	store->frees = 0;
	store->sequence = 0;
	store->uncommitted = false;
	store->scrubbing = false;
	store->full = false;
	store->count = 0;
	store->used = 0;
	store->faults = 0;
	return 0;
}

static int load_super(struct dm_bufio_client *bufio, struct block_device *bdev,
		      struct lf_store_shape *shape, u8 uuid[16],
		      const char **why)
{
	u32 sector_bytes = bdev_logical_block_size(bdev);
	u64 dev_bytes = bdev_nr_bytes(bdev);
	const struct lf_disk_store *super;
	void *copies;
	int err;

	*why = "Cannot allocate memory for the store";
	copies = kmalloc(LF_STORE_COPIES * LF_META_BLOCK, GFP_KERNEL);
	if (!copies)
		return -ENOMEM;
	*why = "the device is too small for a store";
	err = -EINVAL;
	if (dev_bytes < LF_STORE_COPIES * LF_META_BLOCK)
		goto out;
	*why = "the device's sectors are larger than 4 KiB";
	if (sector_bytes > LF_META_BLOCK)
		goto out;
	*why = "Cannot read the cache device";
	err = lf_bufio_read(bufio, 0, copies, LF_STORE_COPIES * LF_META_BLOCK);
	if (!err)
		err = lf_store_pick(copies, dev_bytes, &super, shape, why);
	if (!err)
		memcpy(uuid, super->uuid, sizeof(super->uuid));
out:
	kfree(copies);
	return err;
}

int lf_store_probe(struct block_device *bdev, const char **why)
{
	struct dm_bufio_client *bufio = lf_bufio_create(bdev);
	struct lf_store_shape shape;
	u8 uuid[16];
	int err;

	*why = "Cannot open the cache device through dm-bufio";
	if (IS_ERR(bufio))
		return PTR_ERR(bufio);
	err = load_super(bufio, bdev, &shape, uuid, why);
	lf_bufio_destroy(bufio);
	return err;
}

static int load_layers(struct lf_store *store)
{
	u32 per_block = LF_META_BLOCK / sizeof(struct lf_disk_store_layer);
	struct lf_disk_store_layer *disk = (void *)store->summary;
	u32 i;
	int err;

	for (i = 0; i < store->shape.layers; i++) {
		struct lf_store_layer *layer = &store->layer[i];

		if (!(i % per_block)) {
			err = lf_bufio_read(store->bufio,
					    LF_STORE_COPIES + i / per_block,
					    disk, LF_META_BLOCK);
			if (err)
				return err;
			cond_resched();
		}
		if (!lf_store_layer_ok(&disk[i % per_block]))
			continue;
		memcpy(layer->uuid, disk[i % per_block].uuid,
		       sizeof(layer->uuid));
		layer->flags = le32_to_cpu(disk[i % per_block].flags) &
			       LF_STORE_PINNED;
		store->layer_end = i + 1;
	}
	return 0;
}

/* The younger of two that a crash left behind when a frame was moved. */
static void load_entry(struct lf_store *store, struct lf_segment *segment,
		       u32 number, const struct lf_disk_store_entry *disk)
{
	u64 key = le64_to_cpu(disk->key) & GENMASK_ULL(LF_KEY_BITS - 1, 0);
	const struct lf_store_layer *layer;
	u32 other;

	store->entry[number].offset = le16_to_cpu(disk->offset);
	layer = &store->layer[lf_store_key_layer(key)];
	if (!memchr_inv(layer->uuid, 0, sizeof(layer->uuid)))
		return;
	other = __lf_store_find(store, key);
	if (other != LF_STORE_NONE) {
		if (lf_segment_of(store, other)->sequence > segment->sequence)
			return;
		__lf_store_forget(store, other);
	}
	__lf_store_fill(store, number, key, 0, le16_to_cpu(disk->sectors),
			le32_to_cpu(disk->sum));
}

static int load_segment(struct lf_store *store, u32 number)
{
	struct lf_disk_summary *summary = store->summary;
	struct lf_segment *segment = &store->segment[number];
	const char *why;
	u32 i;
	int err;

	err = lf_bufio_read(store->bufio,
			    lf_summary_place(&store->shape, number), summary,
			    (u64)store->shape.summary_blocks * LF_META_BLOCK);
	if (err)
		return err;
	err = lf_summary_check(summary, &store->shape, store->uuid, number,
			       &why);
	if (err) {
		if (err == -EINVAL) {
			DMWARN("store %pUb: segment %u is lost: its summary is damaged: %s",
			       store->uuid, number, why);
			__lf_store_count(store, LF_STORE_BAD);
		}
		list_add_tail(&segment->link, &store->free);
		store->frees++;
		return 0;
	}
	segment->sequence = le64_to_cpu(summary->sequence);
	segment->log = le32_to_cpu(summary->log);
	segment->entries = le32_to_cpu(summary->entries);
	if (segment->entries) {
		const struct lf_disk_store_entry *last =
			&summary->entry[segment->entries - 1];

		segment->used = round_up(le16_to_cpu(last->offset) +
					 le16_to_cpu(last->sectors),
					 store->align);
	}
	store->sequence = max(store->sequence, segment->sequence);
	store->logs[segment->log]++;
	list_add_tail(&segment->link, &store->log[segment->log]);
	spin_lock(&store->lock);
	for (i = 0; i < segment->entries; i++)
		load_entry(store, segment, number * store->shape.slots + i,
			   &summary->entry[i]);
	spin_unlock(&store->lock);
	return 0;
}

static int by_sequence(void *priv, const struct list_head *a,
		       const struct list_head *b)
{
	return list_entry(a, struct lf_segment, link)->sequence >
	       list_entry(b, struct lf_segment, link)->sequence;
}

static int load(struct lf_store *store, const char **why)
{
	u32 i;
	int err;

	err = load_super(store->bufio, store->bdev, &store->shape, store->uuid,
			 why);
	if (err)
		return err;
	*why = "Cannot allocate memory for the store's index";
	err = alloc_index(store);
	if (err)
		return err;
	*why = "Cannot read the cache device";
	err = load_layers(store);
	for (i = 0; !err && i < store->shape.segments; i++) {
		err = load_segment(store, i);
		cond_resched();
	}
	for (i = 0; !err && i < LF_LOGS; i++) {
		list_sort(NULL, &store->log[i], by_sequence);
		if (list_empty(&store->log[i]))
			continue;
		/* The youngest may have room. */
		store->opened[i] = list_last_entry(&store->log[i],
						   struct lf_segment, link);
		list_del_init(&store->opened[i]->link);
	}
	return err;
}

/* Two mapped devices may have the same cache device, but not two stores. */
static bool in_use(const struct lf_store *store, struct block_device *bdev)
{
	struct lf_store *other;

	lockdep_assert_held(&lf_stores_lock);
	list_for_each_entry(other, &lf_stores, link)
		if (other != store && other->bdev &&
		    other->bdev->bd_dev == bdev->bd_dev)
			return true;
	return false;
}

static bool take_device(struct lf_store *store, struct block_device *bdev)
{
	bool taken;

	mutex_lock(&lf_stores_lock);
	taken = !in_use(store, bdev);
	if (taken)
		store->bdev = bdev;
	mutex_unlock(&lf_stores_lock);
	return taken;
}

static void leave_device(struct lf_store *store)
{
	mutex_lock(&lf_stores_lock);
	store->bdev = NULL;
	mutex_unlock(&lf_stores_lock);
}

int lf_store_open(struct lf_store *store, struct block_device *bdev,
		  struct dm_table *table, bool read_only, const char **why)
{
	unsigned int noio = memalloc_noio_save();
	int err;

	*why = "the cache device has a store that is active already";
	err = -EBUSY;
	if (!take_device(store, bdev))
		goto out;
	mutex_lock(&store->write_lock);
	store->align = max(bdev_logical_block_size(bdev) >> SECTOR_SHIFT, 1U);
	*why = "Cannot open the cache device";
	store->bufio = lf_bufio_create(bdev);
	err = PTR_ERR_OR_ZERO(store->bufio);
	if (err)
		goto out_free;
	err = load(store, why);
	if (err)
		goto out_free;
	spin_lock(&store->lock);
	store->mode = read_only ? LF_STORE_RO : LF_STORE_RW;
	store->table = table;
	store->active = true;
	spin_unlock(&store->lock);
out_free:
	if (err)
		free_index(store);
	mutex_unlock(&store->write_lock);
	if (err)
		leave_device(store);
out:
	memalloc_noio_restore(noio);
	return err;
}

static bool is_idle(struct lf_store *store)
{
	bool idle;

	spin_lock(&store->lock);
	idle = !store->reading;
	spin_unlock(&store->lock);
	return idle;
}

void lf_store_close(struct lf_store *store)
{
	unsigned int noio = memalloc_noio_save();
	bool was;
	u32 i;

	spin_lock(&store->lock);
	was = store->active;
	store->active = false;
	store->scrubbing = false;
	spin_unlock(&store->lock);
	if (!was)
		goto out;
	cancel_delayed_work_sync(&store->work);
	wait_event(store->idle, is_idle(store));
	for (i = 0; i < store->shape.segments; i++)
		/* One that stays up keeps its segment from being emptied. */
		WARN_ON_ONCE(store->segment[i].reading);
	mutex_lock(&store->write_lock);
	lf_store_drop_queue(store);
	lf_store_commit(store);
	cancel_work_sync(&store->event);
	store->table = NULL;
	free_index(store);
	mutex_unlock(&store->write_lock);
	leave_device(store);
out:
	memalloc_noio_restore(noio);
}

/*
 * ----------------------------------------------------------------
 * The registry
 * ----------------------------------------------------------------
 */

static void event_work(struct work_struct *work)
{
	struct lf_store *store = container_of(work, struct lf_store, event);

	/* Who closes it waits for us before the table goes. */
	dm_table_event(store->table);
}

static struct lf_store *store_new(dev_t dev)
{
	struct lf_store *store = kzalloc(sizeof(*store), GFP_KERNEL);

	if (!store)
		return NULL;
	refcount_set(&store->refs, 1);
	store->dev = dev;
	mutex_init(&store->write_lock);
	spin_lock_init(&store->lock);
	xa_init(&store->ids);
	INIT_LIST_HEAD(&store->queue);
	init_waitqueue_head(&store->idle);
	INIT_DELAYED_WORK(&store->work, lf_store_work);
	INIT_WORK(&store->event, event_work);
	list_add(&store->link, &lf_stores);
	return store;
}

struct lf_store *lf_store_find(dev_t dev, bool make)
{
	struct lf_store *store;

	mutex_lock(&lf_stores_lock);
	list_for_each_entry(store, &lf_stores, link) {
		/* Its last user may be about to free it. */
		if (store->dev == dev && refcount_inc_not_zero(&store->refs))
			goto out;
	}
	store = make ? store_new(dev) : NULL;
out:
	mutex_unlock(&lf_stores_lock);
	return store;
}

struct lf_store *lf_store_get(struct lf_store *store)
{
	if (store)
		refcount_inc(&store->refs);
	return store;
}

static void release_work(struct work_struct *work)
{
	struct lf_store *store = container_of(work, struct lf_store, event);

	mutex_lock(&lf_stores_lock);
	list_del(&store->link);
	mutex_unlock(&lf_stores_lock);
	mutex_destroy(&store->write_lock);
	kfree(store);
}

void lf_store_put(struct lf_store *store)
{
	if (!store || !refcount_dec_and_test(&store->refs))
		return;
	/* A frame's last reference may be put in a context that cannot sleep. */
	INIT_WORK(&store->event, release_work);
	queue_work(lf_store_wq, &store->event);
}

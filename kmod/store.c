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
 * came moves to the main log; one that was not is forgotten, and remembered for
 * a while as a ghost: should it come again, it goes to the main log at once. A
 * frame of the main log stays as often as it was read, up to a limit. So what
 * is read once, a scan, passes through a tenth of the store and pushes nothing
 * out of the rest (S3-FIFO, with segments for queues).
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
#include <linux/dm-bufio.h>
#include <linux/hash.h>
#include <linux/list_sort.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "store.h"

#define NONE		U32_MAX
#define KEY_BITS	60
#define FREQ_MAX	3
/* The young log's share of all segments. */
#define YOUNG_SHARE	10
/* A segment that is being emptied needs another to move frames to. */
#define RESERVE		1
#define COMMIT_DELAY	(5 * HZ)
/* Where all is pinned, so long nobody looks for room again. */
#define FULL_DELAY	(10 * HZ)
#define MAX_FAULTS	16
#define BATCH		32
#define GHOSTS_PER_UNIT	64
#define MIN_LOADS	16
#define SCRUB_STEP	64
/* Bytes that wait to be written: an eighth of the cache that holds them. */
#define queue_limit()	(lf_cache_limit() / 8)

static LIST_HEAD(lf_stores);
static DEFINE_MUTEX(lf_stores_lock);
struct workqueue_struct *lf_store_wq;
static mempool_t *load_pool;

/* A frame that waits to be written. Its layer may be gone by then. */
struct lf_offer {
	struct list_head link;
	struct lf_frame *frame;
	u64 id;
	u8 uuid[16];
};

/*
 * ----------------------------------------------------------------
 * The index. All under store->lock.
 * ----------------------------------------------------------------
 */

static u64 entry_key(const struct lf_store_entry *entry)
{
	return ((u64)entry->key[1] << 32 | entry->key[0]) &
	       GENMASK_ULL(KEY_BITS - 1, 0);
}

static u32 entry_freq(const struct lf_store_entry *entry)
{
	return entry->key[1] >> (KEY_BITS - 32);
}

static void entry_set(struct lf_store_entry *entry, u64 key, u32 freq)
{
	key |= (u64)freq << KEY_BITS;
	entry->key[0] = key;
	entry->key[1] = key >> 32;
}

static u32 *bucket(struct lf_store *store, u64 key)
{
	return &store->head[hash_64(key, store->hash_bits)];
}

static struct lf_segment *segment_of(struct lf_store *store, u32 number)
{
	return &store->segment[number / store->shape.slots];
}

static sector_t entry_sector(const struct lf_store *store, u32 number)
{
	u64 block = lf_segment_place(&store->shape,
				     number / store->shape.slots);

	return block * (LF_META_BLOCK >> SECTOR_SHIFT) +
	       store->entry[number].offset;
}

static u32 __find(struct lf_store *store, u64 key)
{
	u32 next = *bucket(store, key);

	while (next) {
		if (entry_key(&store->entry[next - 1]) == key)
			return next - 1;
		next = store->entry[next - 1].next;
	}
	return NONE;
}

static void __link(struct lf_store *store, u32 number)
{
	struct lf_store_entry *entry = &store->entry[number];
	u32 *head = bucket(store, entry_key(entry));

	entry->next = *head;
	*head = number + 1;
	store->count++;
	store->used += entry->sectors;
	store->layer[lf_store_key_layer(entry_key(entry))].frames++;
}

static void __forget(struct lf_store *store, u32 number)
{
	struct lf_store_entry *entry = &store->entry[number];
	u32 *link = bucket(store, entry_key(entry));

	while (*link != number + 1)
		link = &store->entry[*link - 1].next;
	*link = entry->next;
	store->count--;
	store->used -= entry->sectors;
	store->layer[lf_store_key_layer(entry_key(entry))].frames--;
	entry->sectors = 0;
}

static void __count(struct lf_store *store, enum lf_store_stat stat)
{
	store->stat[stat]++;
}

static void count(struct lf_store *store, enum lf_store_stat stat)
{
	spin_lock(&store->lock);
	__count(store, stat);
	spin_unlock(&store->lock);
}

/* The place of a layer, or NONE. */
static u32 __layer_place(struct lf_store *store, u64 id, const u8 *uuid)
{
	void *value = id ? xa_load(&store->ids, id) : NULL;
	struct lf_store_layer *layer;
	u32 place;

	if (value)
		return xa_to_value(value);
	for (place = 0; place < store->shape.layers; place++) {
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
	return NONE;
}

static u32 __find_frame(struct lf_store *store, const struct lf_layer *layer,
			const struct lf_frame_pos *pos)
{
	u32 place, number;

	if (!store->active || store->mode == LF_STORE_FAIL)
		return NONE;
	place = __layer_place(store, layer->id, layer->uuid);
	if (place == NONE)
		return NONE;
	number = __find(store, lf_store_key(place, pos->cstart));
	if (number == NONE)
		return NONE;
	/* Another table of the layer may cut its frames in another way. */
	if (store->entry[number].sectors !=
	    round_up(DIV_ROUND_UP(pos->cbytes, SECTOR_SIZE), store->align))
		return NONE;
	return number;
}

/*
 * ----------------------------------------------------------------
 * Modes
 * ----------------------------------------------------------------
 */

static void event_work(struct work_struct *work)
{
	struct lf_store *store = container_of(work, struct lf_store, event);

	/* Who closes it waits for us before the table goes. */
	dm_table_event(store->table);
}

static void set_mode(struct lf_store *store, enum lf_store_mode mode,
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

static void write_failed(struct lf_store *store)
{
	count(store, LF_STORE_ERRORS);
	set_mode(store, LF_STORE_RO, "a write or flush failed");
}

/*
 * ----------------------------------------------------------------
 * I/O
 * ----------------------------------------------------------------
 */

static int segment_io(struct lf_store *store, blk_opf_t opf, sector_t sector,
		      u32 sectors, void *data, io_notify_fn done, void *context)
{
	struct dm_io_request request = {
		.bi_opf = opf,
		.mem.type = is_vmalloc_addr(data) ? DM_IO_VMA : DM_IO_KMEM,
		.mem.ptr.addr = data,
		.notify.fn = done,
		.notify.context = context,
		.client = store->io,
	};
	struct dm_io_region region = {
		.bdev = store->bdev,
		.sector = sector,
		.count = sectors,
	};

	return dm_io(&request, 1, &region, NULL, IOPRIO_DEFAULT);
}

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
	has = __find_frame(store, layer, pos) != NONE;
	if (!has && store->active)
		__count(store, LF_STORE_MISSES);
	spin_unlock(&store->lock);
	return has;
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
	if (number == NONE) {
		spin_unlock(&store->lock);
		return false;
	}
	entry = &store->entry[number];
	if (entry_freq(entry) < FREQ_MAX)
		entry_set(entry, entry_key(entry), entry_freq(entry) + 1);
	segment_of(store, number)->reading++;
	store->reading++;
	load->store = store;
	load->number = number;
	load->sum = entry->sum;
	load->sector = entry_sector(store, number);
	load->sectors = entry->sectors;
	load->key = entry_key(entry);
	memcpy(load->uuid, frame->layer->uuid, sizeof(load->uuid));
	spin_unlock(&store->lock);
	return true;
}

/* The entry is that of the read, and not another one that took its place. */
static void __load_bad(struct lf_store *store, struct lf_load *load)
{
	struct lf_store_entry *entry = &store->entry[load->number];

	if (entry->sectors == load->sectors && entry->sum == load->sum)
		__forget(store, load->number);
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
		__count(store, LF_STORE_HITS);
		store->faults = 0;
	} else if (load->error == -EBADMSG) {
		__count(store, LF_STORE_BAD);
	} else {
		__count(store, LF_STORE_ERRORS);
		failed = ++store->faults >= MAX_FAULTS;
	}
	spin_unlock(&store->lock);
	if (failed)
		set_mode(store, LF_STORE_FAIL, "too many reads failed");
	spin_lock(&store->lock);
	segment_of(store, load->number)->reading--;
	store->reading--;
	/* Under the lock: who waits may close the store behind it. */
	wake_up(&store->idle);
	spin_unlock(&store->lock);
	lf_frame_loaded(load);
}

static void load_done(unsigned long error, void *context)
{
	struct lf_load *load = context;

	load->error = error ? -EIO : 0;
	queue_work(lf_wq, &load->work);
}

void lf_store_read(struct lf_load *load)
{
	INIT_WORK(&load->work, load_work);
	if (segment_io(load->store, REQ_OP_READ, load->sector, load->sectors,
		       load->data, load_done, load))
		load_done(1, load);
}

void lf_store_forget(struct lf_store *store, const struct lf_layer *layer,
		     const struct lf_frame_pos *pos)
{
	u32 number;

	if (!store)
		return;
	spin_lock(&store->lock);
	number = __find_frame(store, layer, pos);
	if (number != NONE) {
		__forget(store, number);
		__count(store, LF_STORE_BAD);
	}
	spin_unlock(&store->lock);
}

/*
 * ----------------------------------------------------------------
 * Summaries and layers. From here on, all under store->write_lock.
 * ----------------------------------------------------------------
 */

static u32 segment_number(struct lf_store *store, struct lf_segment *segment)
{
	return segment - store->segment;
}

static int write_summary(struct lf_store *store, struct lf_segment *segment)
{
	u32 segment_no = segment_number(store, segment);
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
		disk->key = cpu_to_le64(entry_key(entry));
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
	u32 number = segment_number(store, segment);
	int err;

	err = stage(store, lf_summary_place(&store->shape, number),
		    page_address(ZERO_PAGE(0)), 1);
	return err ?: write_blocks(store);
}

/* Both open segments' summaries. */
static void commit(struct lf_store *store)
{
	u32 i;

	store->uncommitted = false;
	for (i = 0; i < LF_LOGS && store->mode == LF_STORE_RW; i++)
		if (store->opened[i] && store->opened[i]->fresh &&
		    write_summary(store, store->opened[i]))
			write_failed(store);
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
	*place = __layer_place(store, id, uuid);
	for (i = 0; *place == NONE && i < store->shape.layers; i++) {
		layer = &store->layer[i];
		if (layer->frames || layer->flags)
			continue;
		xa_erase(&store->ids, layer->id);
		layer->id = 0;
		memcpy(layer->uuid, uuid, sizeof(layer->uuid));
		*place = i;
		made = true;
	}
	spin_unlock(&store->lock);
	if (*place == NONE)
		return -ENOSPC;
	if (made)
		err = write_layer(store, *place);
	if (err)
		write_failed(store);
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
		write_failed(store);
}

static int place_frame(struct lf_store *store, u32 log, u32 sectors,
		       bool moving, u32 *number);

/* Ghosts are remembered by a few bits, and until another takes their place. */
static bool is_ghost(const struct lf_store *store, u64 key)
{
	u64 hash = hash_64(key, 64);

	return store->ghost[hash % store->ghosts] == (u16)(hash >> 48 | 1);
}

static void make_ghost(struct lf_store *store, u64 key)
{
	u64 hash = hash_64(key, 64);

	store->ghost[hash % store->ghosts] = hash >> 48 | 1;
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
	layer = &store->layer[lf_store_key_layer(entry_key(&look->entry))];
	memcpy(look->uuid, layer->uuid, sizeof(look->uuid));
	spin_unlock(&store->lock);
	return look->entry.sectors;
}

static void look_failed(struct lf_store *store, u32 number,
			const struct lf_look *look, enum lf_store_stat stat)
{
	spin_lock(&store->lock);
	if (store->entry[number].sectors && stat == LF_STORE_BAD)
		__forget(store, number);
	__count(store, stat);
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
	if (segment_io(store, REQ_OP_READ, entry_sector(store, number),
		       entry->sectors, data, NULL, NULL))
		look_failed(store, number, look, LF_STORE_ERRORS);
	else if (lf_store_sum(look->uuid, entry_key(entry), data,
			      entry->sectors) != entry->sum)
		look_failed(store, number, look, LF_STORE_BAD);
	else
		return data;
	kvfree(data);
	return NULL;
}

/* An entry that has its place gets what it holds, and is found. */
static void __fill(struct lf_store *store, u32 number, u64 key, u32 freq,
		   u32 sectors, u32 sum)
{
	struct lf_store_entry *entry = &store->entry[number];

	entry->sectors = sectors;
	entry->sum = sum;
	entry_set(entry, key, freq);
	__link(store, number);
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
	err = segment_io(store, REQ_OP_WRITE, entry_sector(store, to), sectors,
			 data, NULL, NULL);
	if (err) {
		write_failed(store);
		goto out;
	}
	spin_lock(&store->lock);
	/* A reader may have found it bad meanwhile. */
	if (store->entry[number].sectors) {
		__forget(store, number);
		__fill(store, to, entry_key(&look.entry), freq, sectors,
		       look.entry.sum);
		__count(store, LF_STORE_MOVED);
	}
	spin_unlock(&store->lock);
out:
	kvfree(data);
	return err;
}

static bool is_pinned(struct lf_store *store, const struct lf_store_entry *entry)
{
	return store->layer[lf_store_key_layer(entry_key(entry))].flags &
	       LF_STORE_PINNED;
}

/*
 * Move what shall stay, the hottest first, but not more than half of a segment:
 * so each one that is emptied makes room. What is pinned stays in any case.
 */
static int move_hot(struct lf_store *store, struct lf_segment *victim)
{
	u32 first = segment_number(store, victim) * store->shape.slots;
	u32 room = store->shape.segment_bytes >> SECTOR_SHIFT >> 1;
	u32 level, i;
	int err;

	for (level = FREQ_MAX + 1; level; level--) {
		for (i = 0; i < victim->entries; i++) {
			struct lf_store_entry *entry = &store->entry[first + i];
			u32 freq = entry_freq(entry);
			bool pinned;

			if (!entry->sectors)
				continue;
			pinned = is_pinned(store, entry);
			if (level != (pinned ? FREQ_MAX + 1 : freq))
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

/* More than half of it would have to be written again. */
static bool mostly_pinned(struct lf_store *store, struct lf_segment *segment)
{
	u32 first = segment_number(store, segment) * store->shape.slots;
	u32 pinned = 0, i;

	for (i = 0; i < segment->entries; i++) {
		const struct lf_store_entry *entry = &store->entry[first + i];

		if (is_pinned(store, entry))
			pinned += entry->sectors;
	}
	return pinned > store->shape.segment_bytes >> SECTOR_SHIFT >> 1;
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
		if (!mostly_pinned(store, victim))
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
	first = segment_number(store, victim) * store->shape.slots;
	err = move_hot(store, victim);
	/* The old summary goes: what was moved must be named by a new one. */
	if (!err && store->opened[LF_LOG_MAIN] &&
	    store->opened[LF_LOG_MAIN]->fresh) {
		err = write_summary(store, store->opened[LF_LOG_MAIN]);
		if (err)
			write_failed(store);
	}
	if (err)
		return err;
	spin_lock(&store->lock);
	for (i = 0; i < victim->entries; i++) {
		struct lf_store_entry *entry = &store->entry[first + i];

		if (!entry->sectors)
			continue;
		if (victim->log == LF_LOG_YOUNG)
			make_ghost(store, entry_key(entry));
		__forget(store, first + i);
		__count(store, LF_STORE_EVICTED);
	}
	spin_unlock(&store->lock);
	wait_event(store->idle, no_reads(store, victim));
	err = wipe_summary(store, victim);
	if (err) {
		write_failed(store);
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
	u32 tries = store->shape.segments;
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
	       segment->used + sectors <=
	       store->shape.segment_bytes >> SECTOR_SHIFT;
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
	*number = segment_number(store, segment) * store->shape.slots +
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

void lf_store_offer(struct lf_frame *frame)
{
	struct lf_store *store = frame->store;
	struct lf_offer *offer;

	if (!store)
		return;
	offer = kmalloc(sizeof(*offer), GFP_NOWAIT | __GFP_NOWARN);
	spin_lock(&store->lock);
	if (!offer || !store->active || store->mode != LF_STORE_RW ||
	    (store->queued && store->queued + frame->pos.cbytes >
	     queue_limit())) {
		__count(store, LF_STORE_SKIPPED);
		spin_unlock(&store->lock);
		kfree(offer);
		return;
	}
	refcount_inc(&frame->refs);
	offer->frame = frame;
	offer->id = frame->layer->id;
	memcpy(offer->uuid, frame->layer->uuid, sizeof(offer->uuid));
	list_add_tail(&offer->link, &store->queue);
	store->queued += frame->pos.cbytes;
	mod_delayed_work(lf_store_wq, &store->work, 0);
	spin_unlock(&store->lock);
}

/*
 * struct lf_batch - frames that are written at once
 * @left: writes that have not ended, and one for who waits
 */
struct lf_batch {
	atomic_t left;
	struct completion done;
};

/*
 * struct lf_put - a frame on its way into the store
 */
struct lf_put {
	struct lf_offer *offer;
	struct lf_batch *batch;
	u64 key;
	u32 number;
	u32 sectors;
	int error;
};

static void put_done(unsigned long error, void *context)
{
	struct lf_put *put = context;
	struct lf_batch *batch = put->batch;

	put->error = error ? -EIO : 0;
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

	put->sectors = round_up(DIV_ROUND_UP(pos->cbytes, SECTOR_SIZE),
				store->align);
	if (put->sectors > store->shape.segment_bytes >> SECTOR_SHIFT ||
	    pos->cstart >> LF_STORE_OFFSET_BITS)
		return -EFBIG;
	err = layer_place(store, offer->id, offer->uuid, &place);
	if (err)
		return err;
	put->key = lf_store_key(place, pos->cstart);
	spin_lock(&store->lock);
	found = __find(store, put->key);
	/* There, but of another size: a table of the layer that is no more. */
	if (found != NONE && store->entry[found].sectors != put->sectors) {
		__forget(store, found);
		found = NONE;
	}
	spin_unlock(&store->lock);
	if (found != NONE)
		return -EEXIST;
	if (store->full && time_before(jiffies, store->full_until))
		return -ENOSPC;
	log = is_ghost(store, put->key) ? LF_LOG_MAIN : LF_LOG_YOUNG;
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
	    __find(store, put->key) == NONE) {
		__fill(store, put->number, put->key, 0, put->sectors, sum);
		__count(store, LF_STORE_STORED);
	}
	spin_unlock(&store->lock);
}

static void drop_offer(struct lf_offer *offer)
{
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
	struct lf_put put[BATCH], *p;
	struct lf_batch batch;
	struct lf_offer *offer;
	u32 n = 0, i;
	int err;

	atomic_set(&batch.left, 1);
	init_completion(&batch.done);
	while (n < BATCH && (offer = next_offer(store))) {
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
				count(store, LF_STORE_SKIPPED);
			drop_offer(offer);
			continue;
		}
		n++;
		atomic_inc(&batch.left);
		if (segment_io(store, REQ_OP_WRITE,
			       entry_sector(store, p->number), p->sectors,
			       offer->frame->data, put_done, p))
			put_done(1, p);
	}
	if (!atomic_dec_and_test(&batch.left))
		wait_for_completion(&batch.done);
	for (i = 0; i < n; i++) {
		if (put[i].error)
			write_failed(store);
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

static void store_work(struct work_struct *work)
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
			commit(store);
		mutex_unlock(&store->write_lock);
		cond_resched();
	} while (more && !READ_ONCE(store->closing));
	mutex_lock(&store->write_lock);
	if (store->uncommitted && !READ_ONCE(store->closing))
		queue_delayed_work(lf_store_wq, &store->work, COMMIT_DELAY);
	mutex_unlock(&store->write_lock);
	memalloc_noio_restore(noio);
}

/*
 * ----------------------------------------------------------------
 * Opening
 * ----------------------------------------------------------------
 */

static void free_index(struct lf_store *store)
{
	if (!IS_ERR_OR_NULL(store->io))
		dm_io_client_destroy(store->io);
	if (!IS_ERR_OR_NULL(store->bufio))
		lf_bufio_destroy(store->bufio);
	kvfree(store->summary);
	kvfree(store->entry);
	kvfree(store->head);
	kvfree(store->ghost);
	kvfree(store->segment);
	kvfree(store->layer);
	xa_destroy(&store->ids);
	store->bdev = NULL;
	store->io = NULL;
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
	store->summary = kvmalloc(max_t(size_t, shape->summary_blocks,
					1) * LF_META_BLOCK, GFP_KERNEL);
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
	}
	return 0;
}

/* The younger of two that a crash left behind when a frame was moved. */
static void load_entry(struct lf_store *store, struct lf_segment *segment,
		       u32 number, const struct lf_disk_store_entry *disk)
{
	u64 key = le64_to_cpu(disk->key) & GENMASK_ULL(KEY_BITS - 1, 0);
	const struct lf_store_layer *layer;
	u32 other;

	store->entry[number].offset = le16_to_cpu(disk->offset);
	layer = &store->layer[lf_store_key_layer(key)];
	if (!memchr_inv(layer->uuid, 0, sizeof(layer->uuid)))
		return;
	other = __find(store, key);
	if (other != NONE) {
		if (segment_of(store, other)->sequence > segment->sequence)
			return;
		__forget(store, other);
	}
	__fill(store, number, key, 0, le16_to_cpu(disk->sectors),
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
			__count(store, LF_STORE_BAD);
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

int lf_store_open(struct lf_store *store, struct block_device *bdev,
		  struct dm_table *table, bool read_only, const char **why)
{
	unsigned int noio = memalloc_noio_save();
	int err = 0;

	mutex_lock(&lf_stores_lock);
	if (in_use(store, bdev))
		err = -EBUSY;
	else
		store->bdev = bdev;
	mutex_unlock(&lf_stores_lock);
	if (err) {
		*why = "the cache device has a store that is active already";
		memalloc_noio_restore(noio);
		return err;
	}
	mutex_lock(&store->write_lock);
	store->align = max(bdev_logical_block_size(bdev) >> SECTOR_SHIFT, 1U);
	*why = "Cannot open the cache device";
	store->bufio = lf_bufio_create(bdev);
	err = PTR_ERR_OR_ZERO(store->bufio);
	if (err)
		goto out;
	store->io = dm_io_client_create();
	err = PTR_ERR_OR_ZERO(store->io);
	if (err)
		goto out;
	err = load(store, why);
	if (err)
		goto out;
	spin_lock(&store->lock);
	store->mode = read_only ? LF_STORE_RO : LF_STORE_RW;
	store->closing = false;
	store->table = table;
	store->active = true;
	spin_unlock(&store->lock);
out:
	if (err)
		free_index(store);
	mutex_unlock(&store->write_lock);
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
	struct lf_offer *offer;
	bool was;

	spin_lock(&store->lock);
	was = store->active;
	store->active = false;
	store->closing = true;
	store->scrubbing = false;
	spin_unlock(&store->lock);
	if (!was)
		goto out;
	cancel_delayed_work_sync(&store->work);
	wait_event(store->idle, is_idle(store));
	mutex_lock(&store->write_lock);
	while ((offer = next_offer(store)))
		drop_offer(offer);
	commit(store);
	cancel_work_sync(&store->event);
	store->table = NULL;
	free_index(store);
	mutex_unlock(&store->write_lock);
out:
	memalloc_noio_restore(noio);
}

int lf_store_pin(struct lf_store *store, const u8 uuid[16], bool pin)
{
	int err = -ENODEV;
	u32 place;

	mutex_lock(&store->write_lock);
	if (!store->active)
		goto out;
	err = layer_place(store, 0, uuid, &place);
	if (err)
		goto out;
	spin_lock(&store->lock);
	store->layer[place].flags = pin ? LF_STORE_PINNED : 0;
	spin_unlock(&store->lock);
	err = write_layer(store, place);
	if (err)
		write_failed(store);
out:
	mutex_unlock(&store->write_lock);
	return err;
}

/*
 * ----------------------------------------------------------------
 * The registry
 * ----------------------------------------------------------------
 */

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
	INIT_DELAYED_WORK(&store->work, store_work);
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

int lf_stores_init(void)
{
	lf_store_wq = alloc_workqueue("lazyframe-store",
				      WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!lf_store_wq)
		return -ENOMEM;
	load_pool = mempool_create_kmalloc_pool(MIN_LOADS,
						sizeof(struct lf_load));
	if (!load_pool) {
		destroy_workqueue(lf_store_wq);
		return -ENOMEM;
	}
	return 0;
}

void lf_stores_exit(void)
{
	destroy_workqueue(lf_store_wq);
	mempool_destroy(load_pool);
}

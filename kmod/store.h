/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The store: between store.c, which keeps frames, and store_target.c, which is
 * the device-mapper target that it lies on. What the rest of the module sees of
 * it is in lazyframe.h.
 */
#ifndef LF_STORE_H
#define LF_STORE_H

#include <linux/blk_types.h>
#include <linux/xarray.h>

#include "lazyframe.h"
#include "store_disk.h"

/*
 * struct lf_store_entry - one frame in the store
 * @next: number + 1 of the next entry in the bucket; 0: none
 * @sum: lf_store_sum()
 * @key: in two halves, for the alignment; above it, how often it was read
 * @offset: in its segment, sectors
 * @sectors: 0: this place holds nothing, or no longer
 */
struct lf_store_entry {
	u32 next;
	u32 sum;
	u32 key[2];
	u16 offset;
	u16 sectors;
};

/*
 * struct lf_segment
 * @link: in store->free or in one of store->log; the open ones are in neither
 * @used: sectors from its beginning
 * @entries: slots that were given away
 * @reading: reads in flight (L)
 * @fresh: it has entries that its summary on disk does not name
 */
struct lf_segment {
	struct list_head link;
	u64 sequence;
	u32 used;
	u32 reading;
	u16 entries;
	u8 log;
	bool fresh;
};

/*
 * struct lf_store_layer - a place in the table of layers
 * @id: of the struct lf_layer that store->ids maps to here, or 0
 * @frames: entries that name it (L)
 */
struct lf_store_layer {
	u8 uuid[16];
	u64 id;
	u32 frames;
	u32 flags;
};

/* LF_STORE_RO: keeps what it has; LF_STORE_FAIL: passes everything by. */
enum lf_store_mode {
	LF_STORE_RW,
	LF_STORE_RO,
	LF_STORE_FAIL,
};

enum lf_store_stat {
	LF_STORE_HITS,		/* frames read from it */
	LF_STORE_MISSES,	/* frames asked for that it did not have */
	LF_STORE_STORED,	/* frames written */
	LF_STORE_SKIPPED,	/* frames not written: too big, too many, or no room */
	LF_STORE_EVICTED,	/* frames that had to go */
	LF_STORE_MOVED,		/* frames written again because they are read often */
	LF_STORE_BAD,		/* frames that did not verify, and were forgotten */
	LF_STORE_ERRORS,	/* reads and writes that the cache device failed */
	LF_STORE_STATS,
};

/* Frames that are written at once. */
#define LF_STORE_BATCH	32

/*
 * struct lf_put - a frame on its way into the store
 * @number: of its entry, which is filled when all is written
 */
struct lf_put {
	struct lf_offer *offer;
	struct lf_batch *batch;
	u64 key;
	u32 number;
	u32 sectors;
	int error;
};

/*
 * struct lf_store - a store, shared by the devices that name it
 *
 * I: set when it was made. O: set by lf_store_open(). L: lock. W: write_lock.
 */
struct lf_store {
	struct list_head link;		/* lf_stores_lock */
	refcount_t refs;
	dev_t dev;			/* I: the mapped device */

	struct mutex write_lock;	/* who changes what is on disk */
	struct block_device *bdev;	/* O; NULL: not open (lf_stores_lock) */
	struct dm_bufio_client *bufio;	/* O: all but what is in the segments */
	struct lf_store_shape shape;	/* O */
	u8 uuid[16];			/* O */
	u32 align;			/* O: frames begin at multiples, sectors */
	struct lf_disk_summary *summary; /* W: scratch */
	struct lf_put put[LF_STORE_BATCH]; /* W */
	struct lf_segment *opened[LF_LOGS]; /* W */
	u64 sequence;			/* W */
	unsigned long commit_at;	/* W: jiffies, valid if @uncommitted */
	bool uncommitted;		/* W */
	bool full;			/* W: of what is pinned, when last tried */
	unsigned long full_until;	/* W: jiffies, valid if @full */
	u32 scrub_next;			/* W: entry */

	spinlock_t lock;		/* a leaf */
	bool active;			/* L: it is open, and lends itself */
	bool scrubbing;			/* L */
	enum lf_store_mode mode;	/* L */
	unsigned int faults;		/* L: reads that failed, in sequence */
	unsigned int reading;		/* L: reads in flight */
	struct lf_store_entry *entry;	/* L: slots of all segments */
	u32 *head;			/* L: number + 1 of each bucket's first */
	u32 hash_bits;			/* O */
	u16 *ghost;			/* W: who was evicted unread, by bucket */
	u32 ghosts;			/* O */
	struct lf_segment *segment;	/* O: the array */
	struct list_head free;		/* W */
	struct list_head log[LF_LOGS];	/* W: oldest first */
	u32 frees;			/* W: length of @free */
	u32 logs[LF_LOGS];		/* W: of each log, with the open one */
	struct lf_store_layer *layer;	/* L: uuid and flags change with W, too */
	u32 layer_end;			/* L: no place behind it was ever taken */
	struct xarray ids;		/* lf_layer.id -> place */
	struct list_head queue;		/* L: struct lf_offer */
	u64 queued;			/* L: bytes */
	u64 used;			/* L: sectors of all entries */
	u32 count;			/* L: entries */
	u64 stat[LF_STORE_STATS];	/* L */

	wait_queue_head_t idle;		/* a read ended */
	struct delayed_work work;
	struct work_struct event;
	struct dm_table *table;		/* L: whose event it is; NULL: inactive */
};

extern struct workqueue_struct *lf_store_wq;

/*
 * store.c: the index. What begins with __ is under store->lock.
 */

#define LF_STORE_NONE	U32_MAX
#define LF_KEY_BITS	60
#define LF_FREQ_MAX	3

static inline u64 lf_entry_key(const struct lf_store_entry *entry)
{
	return ((u64)entry->key[1] << 32 | entry->key[0]) &
	       GENMASK_ULL(LF_KEY_BITS - 1, 0);
}

static inline u32 lf_entry_freq(const struct lf_store_entry *entry)
{
	return entry->key[1] >> (LF_KEY_BITS - 32);
}

static inline void lf_entry_set(struct lf_store_entry *entry, u64 key, u32 freq)
{
	key |= (u64)freq << LF_KEY_BITS;
	entry->key[0] = key;
	entry->key[1] = key >> 32;
}

static inline struct lf_segment *lf_segment_of(struct lf_store *store, u32 number)
{
	return &store->segment[number / store->shape.slots];
}

static inline sector_t lf_entry_sector(const struct lf_store *store, u32 number)
{
	u64 block = lf_segment_place(&store->shape,
				     number / store->shape.slots);

	return block * (LF_META_BLOCK >> SECTOR_SHIFT) +
	       store->entry[number].offset;
}

/* Sectors of a segment, and those that a frame takes there */
static inline u32 lf_segment_sectors(const struct lf_store *store)
{
	return store->shape.segment_bytes >> SECTOR_SHIFT;
}

static inline u32 lf_frame_sectors(const struct lf_store *store, u32 cbytes)
{
	return round_up(DIV_ROUND_UP(cbytes, SECTOR_SIZE), store->align);
}

static inline u32 lf_segment_number(struct lf_store *store, struct lf_segment *segment)
{
	return segment - store->segment;
}

static inline void __lf_store_count(struct lf_store *store, enum lf_store_stat stat)
{
	store->stat[stat]++;
}

static inline void lf_store_count(struct lf_store *store, enum lf_store_stat stat)
{
	spin_lock(&store->lock);
	__lf_store_count(store, stat);
	spin_unlock(&store->lock);
}

/**
 * __lf_store_find - the entry of a key, or LF_STORE_NONE
 */
u32 __lf_store_find(struct lf_store *store, u64 key);

/**
 * __lf_store_fill - an entry that has its place gets what it holds, and is found
 */
void __lf_store_fill(struct lf_store *store, u32 number, u64 key, u32 freq,
		     u32 sectors, u32 sum);
void __lf_store_forget(struct lf_store *store, u32 number);

/**
 * __lf_store_layer - the place of a layer, or LF_STORE_NONE
 * @id: of its struct lf_layer, 0: none; it is found sooner by that
 */
u32 __lf_store_layer(struct lf_store *store, u64 id, const u8 *uuid);

/**
 * lf_store_set_mode - to a worse one
 * @why: for the log
 */
void lf_store_set_mode(struct lf_store *store, enum lf_store_mode mode,
		       const char *why);
void lf_store_write_failed(struct lf_store *store);

typedef void (*lf_store_done)(int err, void *context);

/**
 * lf_store_submit - begin to read or write what lies in a segment
 * @opf: REQ_OP_READ or REQ_OP_WRITE
 * @sector: of the store's device, in units of 512 bytes, as @sectors are
 * @sectors: not 0
 * @data: from kvmalloc(); it has to stay until @done
 * @done: called when it has ended, in any context
 *
 * Context: may sleep; not from map(), whose bios would wait for each other.
 */
void lf_store_submit(struct lf_store *store, blk_opf_t opf, sector_t sector,
		     u32 sectors, void *data, lf_store_done done,
		     void *context);

/* The same, and wait for its end. */
int lf_store_io(struct lf_store *store, blk_opf_t opf, sector_t sector,
		u32 sectors, void *data);

int lf_store_io_init(void);
void lf_store_io_exit(void);

/*
 * store_log.c
 */

/* Writes what was offered, commits, scrubs. */
void lf_store_work(struct work_struct *work);

/* Write the summaries that are due. Context: write_lock held. */
void lf_store_commit(struct lf_store *store);
void lf_store_drop_queue(struct lf_store *store);

/*
 * store_open.c
 */

/**
 * lf_store_open - load what is on a device
 * @store: no other target has it open
 *
 * Context: process. Reads the superblock and every summary.
 */
int lf_store_open(struct lf_store *store, struct block_device *bdev,
		  struct dm_table *table, bool read_only, const char **why);

/**
 * lf_store_probe - is there a store on a device?
 */
int lf_store_probe(struct block_device *bdev, const char **why);

/**
 * lf_store_close - write down what is new, and forget all of it
 */
void lf_store_close(struct lf_store *store);

/**
 * lf_store_find - the store on a mapped device, with a reference
 * @make: if there is none, for the target's constructor
 */
struct lf_store *lf_store_find(dev_t dev, bool make);

/**
 * lf_store_pin - keep a layer's frames, or no longer
 *
 * Return: 0; -ENOSPC: the table of layers is full; or an I/O error.
 */
int lf_store_pin(struct lf_store *store, const u8 uuid[16], bool pin);

/**
 * lf_store_scrub - read and verify all of it, in the background
 */
int lf_store_scrub(struct lf_store *store);

/**
 * lf_store_memory - bytes of the index
 */
size_t lf_store_memory(const struct lf_store *store);

#endif /* LF_STORE_H */

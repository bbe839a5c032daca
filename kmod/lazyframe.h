/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * lazyframe: block devices that exist at once and arrive as they are read.
 *
 * A device is an array of extents that map image space onto the U space of
 * layers. A layer is one immutable, compressed object somewhere else, cut into
 * frames that decode on their own. Each question has its place:
 *
 *	which frame holds this sector?	target.c, disk.c
 *	is it here, and who waits?	frame.c
 *	what does it say?		codec.c, decoded.c
 *	who brings it?			channel.c, and the helper behind it
 *	what was written since?		overlay.c, commit.c
 *	what did the host keep?		store.c
 *	who waits, and for whom?	stats.c, histogram.c, trace.h, why.c
 *	what was read first, and next?	record.c, prefetch.c
 *
 * The life of a read
 * ------------------
 * map() finds the extent. What is decoded already it copies itself; else it hands
 * the bio to the workqueue. The worker walks
 * the read's frames: a frame that is READY is decoded, checked and copied; for
 * one that is not, the read is parked on it and the worker is free again. Who
 * makes the frame READY (or FAILED) queues the parked reads' work once more.
 * So map() never waits, and no thread waits for the helper.
 *
 * Locks, outermost first
 * ----------------------
 *	session->attach_lock (mutex)	one ATTACH at a time
 *	lf_devices_lock (mutex)	the list of active devices
 *	lf_layers_lock (mutex)	the registry of layers and their tables
 *	pool.grow_lock (mutex)	one growth of the decode pool at a time
 *	lf_record_lock (mutex)		recordings
 *	prefetch.lock (mutex)		what a device is to fetch ahead of its readers
 *	lf_overlays_lock (mutex)	the overlays and their users
 *	overlay->commit_lock (mutex)	one commit at a time
 *	lf_stores_lock (mutex)		the stores
 *	store->write_lock (mutex)	who writes to a store
 *	frames.lock (spinlock)	every frame's state, waiters, the want lists,
 *				the LRU, the slots, the session, parked reads
 *	store->lock (spinlock, a leaf)	its index and its queue
 *	dev->stream_lock, pool.lock, decoded.lock (spinlocks, leaves)
 *	overlay->lock (spinlock, a leaf, irq-safe)	its bits, claims and mode
 *
 * Nothing sleeps under a spinlock, and none is held while a bio is ended or
 * bytes are copied from user space. RCU's callbacks and the ends of bios on
 * the COW device come in any context; all else runs in process context.
 */
#ifndef LF_LAZYFRAME_H
#define LF_LAZYFRAME_H

#include <linux/atomic.h>
#include <linux/blkdev.h>
#include <linux/completion.h>
#include <linux/device-mapper.h>
#include <linux/kobject.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/rbtree.h>
#include <linux/refcount.h>
#include <linux/types.h>
#include <linux/uio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include <linux/lazyframe.h>

#include "compat.h"
#include "disk.h"
#include "histogram.h"

#ifndef CONFIG_64BIT
#error "lazyframe needs a 64-bit kernel"
#endif

#undef DM_MSG_PREFIX
#define DM_MSG_PREFIX "lazyframe"

/* Decoding, verifying, ending: everything that serves reads. */
extern struct workqueue_struct *lf_wq;

/*
 * ----------------------------------------------------------------
 * stats.c
 * ----------------------------------------------------------------
 */

/* Counters of one device. Each read is counted once, when it ends. */
enum lf_stat {
	LF_READS,		/* = overlay + origin + zero + memory + store + fetched + failed */
	LF_READS_OVERLAY,	/* from the COW device */
	LF_READS_ORIGIN,	/* handed on to the sealed device below */
	LF_READS_ZERO,		/* no extent there, or zeroed: zeros */
	LF_READS_MEMORY,	/* every frame was in memory */
	LF_READS_STORE,		/* waited, but for the store alone */
	LF_READS_FETCHED,	/* waited for a helper */
	LF_READS_FAILED,	/* ended with an error */
	LF_READ_BYTES,		/* bytes of reads that did not fail */
	LF_FRAMES_DEMANDED,	/* frames first asked for by a waiting read */
	LF_FRAMES_PREFETCHED,	/* frames first asked for by read-ahead */
	LF_FRAMES_BAD,		/* frames whose bytes did not verify */
	LF_PREFETCH_BYTES,	/* came, or were waited for: = the next four + unread */
	LF_PREFETCH_USEFUL,	/* read later, in memory */
	LF_PREFETCH_LATE,	/* a reader had to wait for them */
	LF_PREFETCH_WASTED,	/* left memory unread */
	LF_PREFETCH_STORED,	/* likewise, but the store keeps them */
	LF_WRITES,		/* writes and zeroings that ended */
	LF_WRITES_FAILED,	/* of them, with an error */
	LF_WRITE_BYTES,		/* bytes of those that did not fail */
	LF_COPY_UPS,		/* blocks written whole for a part of them */
	LF_ZEROINGS,		/* discards and write-zeroes */
	LF_COMMITS,		/* by a flush, FUA or the timer */
	LF_STATS,
};

struct lf_stats {
	u64 count[LF_STATS];
	struct lf_histogram latency[LF_LATENCIES];
};

/* Counters of the module: layers are shared, so what is fetched is too. */
enum lf_module_stat {
	LF_REQUESTS,		/* frames posted to a helper */
	LF_FILL_BYTES,		/* payload bytes accepted from helpers */
	LF_FILL_ERRORS,		/* requests that a helper answered with an error */
	LF_SESSIONS,		/* helpers that ever attached */
	LF_EVICTIONS,		/* frames dropped to make room */
	LF_DECODES,		/* frames decoded */
	LF_MODULE_STATS,
};

extern atomic64_t lf_module_stat[LF_MODULE_STATS];
extern const struct attribute_group *lf_module_groups[];
/* histogram.c: the folders latency/ */
extern const struct attribute_group lf_latency_group;
extern const struct attribute_group lf_step_group;

struct lf_device;

u64 lf_stat_read(struct lf_device *dev, enum lf_stat stat);

/**
 * lf_count_read - count a read that ended
 * @stat: where its bytes came from, if it did not fail
 */
void lf_count_read(struct lf_device *dev, blk_status_t status,
		   enum lf_stat stat, u32 bytes);

/**
 * lf_sysfs_add - show the device's counters below its disk
 *
 * Without memory for them the device works all the same: that is only logged.
 * Context: process, while the device is suspended.
 */
void lf_sysfs_add(struct lf_device *dev);
void lf_sysfs_remove(struct lf_device *dev);

/*
 * ----------------------------------------------------------------
 * layer.c
 * ----------------------------------------------------------------
 */

/**
 * struct lf_layer - one layer, shared by every device that maps it
 * @node: in the registry
 * @tables: struct lf_layer_table.node
 * @id: the layer's name for the helper; never used twice
 * @uuid: the layer's name for images
 * @codec: LAZYFRAME_CODEC_*
 * @ubytes: size in U space
 * @cbytes: size of the data object
 * @sums: do its frame tables carry checksums?
 * @locator: for the helper
 * @validator: entity tag, or ""
 * @frames: every hashed frame (frames.lock)
 *
 * All but @frames is constant while the layer is in the registry.
 */
struct lf_layer {
	struct list_head node;
	struct list_head tables;
	struct list_head frames;
	u64 id;
	u8 uuid[16];
	u32 codec;
	u64 ubytes;
	u64 cbytes;
	bool sums;
	char *locator;
	char *validator;
};

/**
 * struct lf_layer_table - a frame table of a layer
 *
 * @node: in layer->tables
 * @layer: whose
 * @table: points into @memory
 * @sum: of @table, to find its like
 * @users: devices (lf_layers_lock)
 * @memory: runs and frames
 *
 * Headers may carry a table that was trimmed to the frames that they map, so
 * images may come with different tables of one layer. Frames are shared all
 * the same: their identity is the C offset.
 */
struct lf_layer_table {
	struct list_head node;
	struct lf_layer *layer;
	struct lf_table table;
	u64 sum;
	unsigned int users;
	void *memory;
};

/**
 * struct lf_layer_spec - a layer as a meta device describes it
 * @uuid: name
 * @codec: LAZYFRAME_CODEC_*
 * @ubytes: size in U space
 * @cbytes: size of the data object
 * @table: the frame table, checked; copied by lf_layer_get()
 * @locator: not NUL-terminated
 * @locator_bytes: its length
 * @validator: not NUL-terminated
 * @validator_bytes: its length
 */
struct lf_layer_spec {
	const u8 *uuid;
	u32 codec;
	u64 ubytes;
	u64 cbytes;
	struct lf_table table;
	const char *locator;
	u32 locator_bytes;
	const char *validator;
	u32 validator_bytes;
};

/**
 * lf_layer_get - find or make a layer and its table
 * @spec: what a meta device says
 * @why: out, static sentence
 *
 * Return: a table with a reference for lf_layer_put(), or an ERR_PTR: -EEXIST where
 * another device says something else about the same layer.
 * Context: process, GFP_KERNEL.
 */
struct lf_layer_table *lf_layer_get(const struct lf_layer_spec *spec,
				    const char **why);
void lf_layer_put(struct lf_layer_table *table);

/**
 * lf_layer_info - answer LAZYFRAME_IOC_LAYER
 *
 * Return: 0 or -ENOENT.
 */
int lf_layer_info(struct lazyframe_layer_info *info);

/*
 * ----------------------------------------------------------------
 * meta.c
 * ----------------------------------------------------------------
 */

/**
 * struct lf_image - what a meta device says
 * @extent: LE, as on disk
 * @table: one per layer
 */
struct lf_image {
	struct lf_super super;
	u32 max_frame;		/* largest U size of any frame, bytes */
	struct lf_disk_extent *extent;
	struct lf_layer_table **table;
};

/**
 * lf_meta_load - read and check a meta device
 * @why: out, static sentence
 *
 * Context: process, GFP_KERNEL; waits for the meta device only.
 */
int lf_meta_load(struct block_device *bdev, struct lf_image *image,
		 const char **why);
void lf_meta_unload(struct lf_image *image);

/**
 * struct lf_frame_bits - a bit for each frame of an image's tables
 * @first: each table's first bit
 * @count: bits
 * @bit: all clear at first
 */
struct lf_frame_bits {
	u32 *first;
	u32 count;
	unsigned long *bit;
};

/**
 * lf_frame_bits_alloc - make them
 *
 * Return: 0 or -ENOMEM, with nothing to free.
 * Context: process, GFP_KERNEL.
 */
int lf_frame_bits_alloc(struct lf_frame_bits *bits,
			const struct lf_image *image);
void lf_frame_bits_free(struct lf_frame_bits *bits);

struct dm_bufio_client;
/**
 * lf_bufio_create - a client with blocks of LF_META_BLOCK bytes, or ERR_PTR
 */
struct dm_bufio_client *lf_bufio_create(struct block_device *bdev);
void lf_bufio_destroy(struct dm_bufio_client *bufio);

/**
 * lf_bufio_read - copy from consecutive blocks
 * @start: block
 * @bytes: the last block's rest is left out
 *
 * Context: process; waits for the device.
 */
int lf_bufio_read(struct dm_bufio_client *bufio, u64 start, void *to,
		  u64 bytes);

/*
 * ----------------------------------------------------------------
 * target.c
 * ----------------------------------------------------------------
 */

#define LF_STREAMS	4

/*
 * Entries of an order in which frames are read: layer (its number in the image)
 * and U offset of the frame.
 */
#define LF_ORDER_MAX		(1U << 20)
#define LF_ORDER_SHIFT		48

static inline u64 lf_order_entry(u32 layer, u64 upos)
{
	return (u64)layer << LF_ORDER_SHIFT | upos;
}

static inline u32 lf_order_layer(u64 entry)
{
	return entry >> LF_ORDER_SHIFT;
}

static inline u64 lf_order_upos(u64 entry)
{
	return entry & (BIT_ULL(LF_ORDER_SHIFT) - 1);
}

struct lf_record;

/* What a device fetches ahead of its readers. */
enum lf_prefetch_source {
	LF_PREFETCH_NONE,
	LF_PREFETCH_ORDER,	/* frames in a given order */
	LF_PREFETCH_ALL,	/* all of the image, for the store */
};

#define LF_CHUNKS	4

/**
 * struct lf_chunk - frames that were asked for at once
 * @start: where it began, to go back to
 * @left: C bytes that are not here yet
 * @began: ktime_get_ns(), when it was asked for; in an order, when nothing else kept
 *	   it waiting any more
 */
struct lf_chunk {
	u32 start;
	u64 left;
	u64 began;
};

/**
 * struct lf_prefetch - see prefetch.c. L: @lock. F: frames.lock.
 * @order: entries, @count of @room; freed at the end
 * @mapped: of LF_PREFETCH_ALL: the frames that the image maps
 * @next: what is asked for next: of @order, or a bit
 * @asked: C bytes that were asked for
 * @rate: C bytes a second, 0 for no limit
 * @not_before: ktime_get_ns(), by @rate
 * @size: C bytes of the next chunk
 * @pass: of LF_PREFETCH_ALL: bytes that this pass asked for
 * @last: it is the last pass
 * @replays: an order is being followed: read-ahead would only be in its way
 * @frames: lf_frame.owned: asked for and not read yet, those of read-ahead too
 * @unread: C bytes of @frames that are here, but for those that the store has
 * @lost: the first @start whose frames were given up with their helper
 * @runs: there is work, and the device is active
 * @full: no room, until something is read or dropped
 */
struct lf_prefetch {
	struct mutex lock;		/* of those marked L */
	struct delayed_work work;
	enum lf_prefetch_source source;	/* L */
	bool paused;			/* L */
	bool last;			/* L */
	bool replays;			/* L; read without */
	u64 *order;			/* L */
	u32 room;			/* L */
	u32 count;			/* L */
	struct lf_frame_bits mapped;	/* L */
	u32 next;			/* L */
	u32 size;			/* L */
	u64 asked;			/* L */
	u64 pass;			/* L */
	u64 rate;			/* L */
	u64 not_before;			/* L */
	struct list_head frames;	/* F */
	struct lf_chunk chunk[LF_CHUNKS]; /* F */
	u64 took;			/* F: ns, the last chunk; 0: nothing to learn */
	u64 unread;			/* F */
	u32 lost;			/* F */
	bool runs;			/* F */
	bool full;			/* F */
};

enum lf_mode {
	LF_MODE_RW,
	LF_MODE_RO,		/* writes fail */
};

/**
 * struct lf_stream - one sequential reader, in the U space of a layer
 * @next: where its next read would begin
 * @ahead: up to where frames were asked for
 * @run: bytes read in sequence so far
 * @window: size of the last read-ahead, bytes
 * @windows: so many of them may be asked for and not read
 * @asked: jiffies of the last one
 * @late: dev->ahead_late then
 */
struct lf_stream {
	struct lf_layer_table *table;
	u64 next;
	u64 ahead;
	u64 run;
	u64 window;
	unsigned long asked;
	u32 windows;
	u32 late;
};

/**
 * struct lf_device - one device-mapper target
 *
 * I: set in ctr. F: frames.lock. S: @stream_lock. W: written by messages only.
 */
struct lf_device {
	struct dm_target *ti;		/* I */
	struct dm_dev *meta;		/* I */
	struct dm_dev *cow;		/* I: NULL: no overlay */
	struct dm_dev *origin;		/* I: in the image's place, or NULL */
	struct dm_dev *store_dev;	/* I: NULL: frames are in memory only */
	struct lf_store *store;		/* I: on it */
	struct lf_overlay *overlay;	/* I: NULL without @cow */
	struct lf_image image;		/* I */
	u32 io_bytes;			/* I: reads of the image are cut there */
	struct lf_stats __percpu *stats; /* I */

	bool error_if_no_helper;	/* W */
	bool read_only;			/* I: the feature */
	bool writable;			/* I: has an overlay that may change */
	bool failed;			/* written while suspended: all I/O fails */
	unsigned int no_helper_timeout;	/* W: seconds, 0: for ever */
	unsigned int fetch_timeout;	/* W: seconds, 0: for ever */
	u32 read_around;		/* W: bytes, a power of two; 0: none */

	struct list_head parked;	/* F: reads that wait */
	struct list_head woken;		/* F: that did, and are not over yet */
	unsigned int waiting;		/* F: how many */
	bool requeue;			/* F: noflush suspend: give reads back */
	bool draining;			/* F: flush suspend: reads must end */
	struct delayed_work expire;

	struct lf_record __rcu *record;	/* lf_record_lock; NULL: none */
	struct lf_prefetch prefetch;

	spinlock_t stream_lock;		/* of @stream; a leaf */
	struct lf_stream stream[LF_STREAMS]; /* S: most recent first */
	u32 ahead_late;			/* F: how often a read had to wait for what a
					 *    helper brings ahead; read without
					 */

	struct list_head node;		/* lf_devices_lock */
	bool has_kobj;
	struct kobject kobj;
	struct completion kobj_gone;
};

/**
 * struct lf_claim - blocks of an overlay that are in one bio's hands
 */
struct lf_claim {
	struct rb_node node;
	u64 first;
	u64 last;
};

/* What is left to do when a bio ends that was sent on. */
enum lf_io_kind {
	LF_IO_OTHER,		/* nothing */
	LF_IO_READ,		/* count it as @stat */
	LF_IO_FLUSH,
	LF_IO_REWRITE,
	LF_IO_FRESH,		/* its blocks become dirty */
};

/**
 * struct lf_io - per-bio data: one read of one extent, or one write
 * @to: where the bytes of the image go: the bio, or one of overlay.c
 * @done: called when they are there or an error ended it; NULL: end the bio
 * @extent: of the image: where the bytes are, in @table's layer
 * @iter: the part of @to that is still to be filled
 * @upos: U offset of its next byte
 * @uend: U offset where the layer's bytes end; the rest of @to is zeros
 * @ahead_from: read-ahead that this read sets off, U offsets; empty if equal to @ahead_to
 * @frame: the frame that the read was parked on, with a reference
 * @fetched: a frame that it waited for did not come from the store
 * @start: ktime_get_ns() in map(), of a read of the image
 * @waiter: in frame->waiters, while @parked is in dev->parked; both or none
 *	    (frames.lock). @parked is in dev->woken from then until the read is over.
 *	    A write that is blocked by a claim is in overlay->blocked by @waiter
 * @since: jiffies of the first wait, valid if @waited
 * @status: what ended the wait, where it was not the frame
 * @refetched: a frame of this read did not verify and was fetched again
 * @claim: a write's blocks; a zeroing's that are still to be done
 * @fua: a write that ends with a commit
 * @bytes: size of the bio when it was mapped
 */
struct lf_io {
	struct work_struct work;
	struct lf_device *dev;
	struct bio *to;
	void (*done)(struct bio *to, blk_status_t status);
	struct lf_claim claim;
	u32 bytes;
	enum lf_io_kind kind;
	enum lf_stat stat;
	bool fua;
	const struct lf_disk_extent *extent;
	struct lf_layer_table *table;
	struct bvec_iter iter;
	u64 upos;
	u64 uend;
	u64 ahead_from;
	u64 ahead_to;
	struct lf_frame *frame;
	struct list_head waiter;
	struct list_head parked;
	u64 start;
	unsigned long since;
	blk_status_t status;
	bool waited;
	bool fetched;
	bool refetched;
};

/**
 * lf_devices_kick - tell every active device that a helper came or went
 *
 * Context: any; the work is done later.
 */
void lf_devices_kick(void);

/* "rw", "ro" or "fail"; "-" without an overlay */
const char *lf_mode_name(struct lf_device *dev);

/**
 * lf_cut - shorten a bio in map(), if it has more than @bytes
 */
void lf_cut(struct bio *bio, u64 bytes);

/**
 * lf_zero_read - answer a read with zeros, in map()
 */
int lf_zero_read(struct lf_io *io, struct bio *bio);

/**
 * lf_image_map - read from the image, in map(); cuts the bio
 * @off: image offset, bytes
 */
int lf_image_map(struct lf_io *io, struct bio *bio, u64 off);

/**
 * lf_image_read - read a block of the image into a bio of our own
 * @to: not longer than the block; no two extents meet in it
 * @done: called when it is filled, in a worker
 *
 * Context: worker.
 */
void lf_image_read(struct lf_io *io, struct bio *to, u64 off,
		   void (*done)(struct bio *to, blk_status_t status));

/* Does the image have anything but zeros in this range? */
bool lf_image_maps(const struct lf_device *dev, u64 off, u64 bytes);

/*
 * ----------------------------------------------------------------
 * record.c
 * ----------------------------------------------------------------
 */

/**
 * lf_record_io - note the frames of a read, while dev->record is there
 * @layer: number of its layer in the image
 *
 * Context: any that may not sleep.
 */
void lf_record_io(const struct lf_io *io, u32 layer);

/**
 * lf_record_message - the messages "record ..."
 *
 * Return: 1 with an answer, 0, -EBUSY: one is made already, -ENODATA: none is.
 */
int lf_record_message(struct lf_device *dev, unsigned int argc, char **argv,
		      char *result, unsigned int maxlen);
int lf_layers_message(struct lf_device *dev, const char *arg, char *result,
		      unsigned int maxlen);
/* When no read and no message is left. */
void lf_record_drop(struct lf_device *dev);

/*
 * ----------------------------------------------------------------
 * prefetch.c
 * ----------------------------------------------------------------
 */

void lf_prefetch_init(struct lf_device *dev);

/**
 * lf_prefetch_message - the messages "prefetch ..."
 */
int lf_prefetch_message(struct lf_device *dev, unsigned int argc, char **argv,
			char *result, unsigned int maxlen);

/* How long a piece of what is fetched ahead of readers may take, ms */
unsigned int lf_prefetch_ms(void);

/* The device is active: go on. */
void lf_prefetch_resume(struct lf_device *dev);

/**
 * lf_prefetch_suspend - ask for nothing more; on return nothing does
 */
void lf_prefetch_suspend(struct lf_device *dev);

/* After lf_prefetch_suspend(): forget all. */
void lf_prefetch_drop(struct lf_device *dev);

/**
 * lf_prefetch_kick - something changed that it may wait for
 *
 * Context: any; the work is done later.
 */
void lf_prefetch_kick(struct lf_device *dev);

/*
 * ----------------------------------------------------------------
 * overlay.c, commit.c
 * ----------------------------------------------------------------
 */

/**
 * struct lf_overlay_info - for status
 * @dirty: blocks
 * @zero: blocks
 */
struct lf_overlay_info {
	enum lf_mode mode;
	u64 dirty;
	u64 zero;
};

/**
 * lf_overlay_get - find or load the overlay on two devices
 * @why: out, static sentence
 *
 * Reads only. The caller holds both devices until lf_overlay_put().
 * Return: an overlay that is not active, or ERR_PTR.
 * Context: process, GFP_KERNEL.
 */
struct lf_overlay *lf_overlay_get(struct block_device *meta,
				  struct block_device *cow,
				  const struct lf_super *super,
				  const char **why);
void lf_overlay_put(struct lf_overlay *ov);

/**
 * lf_overlay_activate - take the overlay for a device that is being resumed
 *
 * A writable device begins an epoch, or tries again after an error.
 * Return: 0; -EBUSY: another device has it; another error: it has it, but read-only.
 */
int lf_overlay_activate(struct lf_device *dev);

/**
 * lf_overlay_deactivate - commit, and let go of it. No I/O is left.
 */
void lf_overlay_deactivate(struct lf_device *dev);

/**
 * lf_overlay_map - what map() does for a device with an overlay
 * @off: byte of the device
 */
int lf_overlay_map(struct lf_io *io, struct bio *bio, u64 off);

/**
 * lf_overlay_end_io - a bio that was sent on has ended, in any context
 *
 * Return: DM_ENDIO_DONE, or DM_ENDIO_INCOMPLETE: it ends with a commit.
 */
int lf_overlay_end_io(struct lf_io *io, struct bio *bio, blk_status_t status);

/**
 * lf_overlay_seal - have the commit at the next suspend seal it, or undo that
 */
int lf_overlay_seal(struct lf_overlay *ov, bool seal);
bool lf_overlay_sealed(struct lf_overlay *ov);
int lf_overlay_commit(struct lf_overlay *ov);
const u8 *lf_overlay_uuid(const struct lf_overlay *ov);
/* Without an overlay: read-only, no blocks */
struct lf_overlay_info lf_overlay_info(const struct lf_device *dev);
int lf_overlays_init(void);
void lf_overlays_exit(void);

/*
 * ----------------------------------------------------------------
 * store.c, store_target.c. Where a store is passed, NULL is none.
 * ----------------------------------------------------------------
 */

struct lf_frame_pos;
struct lf_store *lf_store_get(struct lf_store *store);
/* Context: any */
void lf_store_put(struct lf_store *store);

/**
 * struct lf_load - one read from the store
 * @frame: whose, with a reference
 * @data: its buffer
 * @error: 0, or -errno
 * @abandoned: the frame has another buffer by now (frames.lock)
 * @start: ktime_get_ns() when it began
 *
 * All else is the store's.
 */
struct lf_load {
	struct lf_frame *frame;
	void *data;
	int error;
	bool abandoned;
	u64 start;
	struct work_struct work;
	struct lf_store *store;
	u64 key;
	sector_t sector;
	u32 sectors;
	u32 number;
	u32 sum;
	u8 uuid[16];
};

/* Context: may sleep, but only for loads that are under way. */
struct lf_load *lf_load_alloc(void);
void lf_load_free(struct lf_load *load);

/**
 * lf_store_has - is it worth asking?
 *
 * Context: may be under frames.lock.
 */
bool lf_store_has(struct lf_store *store, const struct lf_layer *layer,
		  const struct lf_frame_pos *pos);

/**
 * lf_store_begin - hold a frame's place in the store for a read
 *
 * Return: false if it is not there; true: lf_store_read() must follow.
 * Context: under frames.lock; the frame is hashed.
 */
bool lf_store_begin(struct lf_store *store, struct lf_frame *frame,
		    struct lf_load *load);

/**
 * lf_store_read - read into load->data; lf_frame_loaded() follows
 */
void lf_store_read(struct lf_load *load);

/**
 * lf_store_offer - a frame arrived: it may be stored, in the background
 *
 * Return: false: it will not be. Else lf_frame_offered() follows.
 * Context: under frames.lock; the frame is hashed.
 */
bool lf_store_offer(struct lf_frame *frame);

/**
 * lf_store_keeps - as lf_store_has(), for those who do not want the frame
 */
bool lf_store_keeps(struct lf_store *store, const struct lf_layer *layer,
		    const struct lf_frame_pos *pos);

/**
 * lf_store_forget - what was stored of a frame is wrong
 */
void lf_store_forget(struct lf_store *store, const struct lf_layer *layer,
		     const struct lf_frame_pos *pos);

/**
 * lf_store_on - the store on a device that a table line names
 *
 * Return: with a reference, or NULL: there is none.
 */
struct lf_store *lf_store_on(struct block_device *bdev);

int lf_stores_init(void);
void lf_stores_exit(void);
int lf_store_target_init(void);
void lf_store_target_exit(void);

/*
 * ----------------------------------------------------------------
 * frame.c
 * ----------------------------------------------------------------
 */

/*
 * WANTED -> SENT -> READY is the way of a frame that was missing. SENT ->
 * WANTED when a helper goes; FAILED, if that is in the middle of a write. One
 * that the store should have goes WANTED -> LOADING -> READY; or back to WANTED,
 * if it was not there after all. All but READY -> FAILED by a final error, with
 * the layer, or because nobody wants it any more; @error says which. READY and
 * FAILED are final. A FAILED frame is never in the hash; a READY one leaves it by
 * eviction, and then lives on by references only.
 */
enum lf_frame_state {
	LF_FRAME_WANTED,	/* on a want list */
	LF_FRAME_LOADING,	/* the store reads it */
	LF_FRAME_SENT,		/* has a slot; a helper brings it */
	LF_FRAME_READY,		/* complete, on the LRU */
	LF_FRAME_FAILED,	/* not hashed */
};

/**
 * struct lf_frame - one frame in memory, or on its way
 *
 * I: set when it is made. F: frames.lock. A: atomic. Once @state is READY (seen with
 * acquire), @data is constant.
 */
struct lf_frame {
	struct hlist_node hash;		/* F, RCU */
	struct list_head in_layer;	/* F */
	struct list_head node;		/* F: want list or LRU */
	struct list_head waiters;	/* F: lf_io.waiter */
	struct lf_layer *layer;		/* I; valid while hashed */
	struct lf_frame_pos pos;	/* I */
	u64 serial;			/* I: never used twice */
	refcount_t refs;		/* A: one is the hash's */
	enum lf_frame_state state;	/* F; READY is read with acquire */
	bool prefetch;			/* F: nobody has waited for it yet */
	bool again;			/* F: the last one like it did not verify */
	bool stored;			/* F: the store is to be asked, or gave it */
	bool orphan;			/* F: only a replaced helper's write holds it */
	bool bad;			/* did not verify: not for the store */
	bool referenced;		/* touched since the LRU hand passed; racy */
	bool verified;			/* content was checked once; 0 -> 1 */
	int error;			/* set before FAILED */
	u32 codec;			/* I */
	u32 have;			/* F: bytes of @data that are there */
	u32 slot;			/* F: valid in SENT */
	bool landed;			/* F: of an @owner's: it is here */
	bool kept;			/* F: of an @owner's: the store has it */
	bool spared;			/* F: of an @owner's: the LRU hand passed */
	u8 chunk;			/* F: number + 1 in its @owner; 0: none */
	struct list_head owned;		/* F: lf_prefetch.frames */
	struct lf_device *owner;	/* F: for whom it came unread, or NULL; tested without */
	unsigned long since;		/* F: jiffies when first wanted */
	unsigned int timeout;		/* F: longest of its readers', seconds; 0 none */
	struct lf_store *store;		/* I: with a reference, or NULL */
	struct lf_load *load;		/* F: in LOADING */
	void *data;			/* pos.cbytes, or NULL before the first post */
	struct lf_decoded __rcu *decoded; /* decoded.c; NULL: not kept */
	struct rcu_head rcu;
};

/**
 * lf_frame_get - the frame at a read's position
 * @io: the read
 * @pos: where the frame is
 *
 * Return: a READY frame with a reference; NULL: @io was parked, its work will
 * run again, and it must not be touched any more; ERR_PTR(errno).
 * Context: worker; may sleep in GFP_NOIO allocations, never for the helper.
 */
struct lf_frame *lf_frame_get(struct lf_io *io, const struct lf_frame_pos *pos);
void lf_frame_put(struct lf_frame *frame);

/**
 * lf_frame_try - a frame, if it is READY
 *
 * Return: with a reference, or NULL: lf_frame_get() is to be asked.
 * Context: any that may sleep; takes no lock.
 */
struct lf_frame *lf_frame_try(struct lf_layer *layer,
			      const struct lf_frame_pos *pos);

/**
 * lf_frame_drop - forget a frame whose bytes did not verify
 *
 * Return: true for the caller that did it, false if it was gone already.
 */
bool lf_frame_drop(struct lf_frame *frame);

/**
 * lf_frames_want - put all missing frames of a U range on the want lists
 * @dev: charged with them in its counters
 * @table: of the layer
 * @from: U offset
 * @to: U offset behind the last byte
 * @prefetch: read ahead; otherwise the caller is about to wait for one of them
 *
 * Only while there is a helper, and not more than it can be asked for at once;
 * this is a hint. lf_frames_post() sends them; a batch that is
 * posted at once can travel in one range.
 * Context: worker; as lf_frame_get().
 */
void lf_frames_want(struct lf_device *dev, struct lf_layer_table *table,
		    u64 from, u64 to, bool prefetch);

/**
 * lf_frames_batch - what is put on the want list belongs together
 * @n: 1 before it, -1 behind it
 */
void lf_frames_batch(int n);

/**
 * lf_frame_prefetch - have a frame fetched for which nobody waits
 * @chunk: of dev->prefetch, begun by lf_chunk_begin()
 *
 * Return: 1 it was asked for; 0 there was no need; -ENOTCONN no helper, -ENOMEM.
 * Context: as lf_frame_get(); lf_frames_post() is to follow.
 */
int lf_frame_prefetch(struct lf_device *dev, struct lf_layer_table *table,
		      const struct lf_frame_pos *pos, unsigned int chunk);

/**
 * lf_chunk_begin - may more be asked for?
 * @chunks: so many may be under way, this one included
 * @bytes: so much
 * @next: where it begins; changed if what was given up is to be asked for first
 * @took: out: nanoseconds that the chunk that ended last took, 0: none did
 *
 * Return: number of a chunk, which lf_chunk_end() must follow, or -EBUSY.
 */
int lf_chunk_begin(struct lf_device *dev, unsigned int chunks, u64 bytes,
		   u64 limit, u32 *next, u64 *took);
void lf_chunk_end(struct lf_device *dev, unsigned int chunk);

/* lf_chunks_reset - what is on its way is no chunk's any more */
void lf_chunks_reset(struct lf_device *dev, bool runs);

/* C bytes that all devices asked for ahead of their readers, and that are not here */
u64 lf_frames_ahead(void);

/* C bytes that are on their way, and that are here unread */
void lf_chunks_read(struct lf_device *dev, u64 *left, u64 *unread);

/**
 * lf_frames_disown - a device goes: what was only asked for is no longer wanted
 */
void lf_frames_disown(struct lf_device *dev);

/**
 * lf_frame_offered - the store is done with an offer
 *
 * Context: process.
 */
void lf_frame_offered(struct lf_frame *frame);

/**
 * lf_frames_post - have wanted frames sent, as far as tags and memory go
 *
 * Context: any; the work is done later.
 */
void lf_frames_post(void);

/**
 * lf_frames_forget - drop every frame of a layer that nobody maps any more
 */
void lf_frames_forget(struct lf_layer *layer);

/**
 * lf_read_over - a read that waited is about to end
 */
void lf_read_over(struct lf_io *io);

/* What a read waits for. */
enum lf_wait {
	LF_WAIT_HELPER,		/* that one attaches */
	LF_WAIT_QUEUE,		/* that it can be posted: a tag, memory */
	LF_WAIT_POSTED,		/* that the helper takes the request */
	LF_WAIT_TAKEN,		/* the first bytes */
	LF_WAIT_RECEIVING,	/* the last bytes */
	LF_WAIT_STORE_QUEUE,	/* other reads from the store */
	LF_WAIT_LOADING,	/* the store's device */
	LF_WAIT_MEMORY,		/* so much as a struct lf_frame */
	LF_WAIT_DECODING,	/* nothing: a worker decodes, or will */
	LF_WAITS,
};

/**
 * struct lf_waiter - one read that waits
 * @wait: for what
 * @age: since when it waits, ms
 * @here: since when it waits for that, ms
 * @uuid: of the layer
 * @layer: the layer's id
 * @upos: U offset of the next byte that it needs
 * @cstart: C offset of the frame that it waits for; where there is one, also
 * @have: bytes of the frame that are there
 * @cbytes: of so many
 */
struct lf_waiter {
	enum lf_wait wait;
	u64 age;
	u64 here;
	u64 layer;
	u64 upos;
	u64 cstart;
	u32 have;
	u32 cbytes;
	u8 uuid[16];
};

/**
 * struct lf_waiting - who waits, in one device
 * @helper: is one attached?
 * @since: since when that is so, ms
 * @silent: since when nothing was heard from the helper, ms
 * @waiting: reads that wait
 * @count: of them, and of those that did, those in @waiter
 * @waiter: those that wait longest, more or less
 */
struct lf_waiting {
	bool helper;
	u64 since;
	u64 silent;
	unsigned int waiting;
	unsigned int count;
	struct lf_waiter waiter[128];
};

/**
 * lf_device_waiting - see who waits
 * @waiting: out, all of it
 *
 * Looks at no more reads than it tells of. Context: process.
 */
void lf_device_waiting(struct lf_device *dev, struct lf_waiting *waiting);

/**
 * lf_device_why - answer the message "why"; why.c has the format
 *
 * Return: 1, there is an answer, or -ENOMEM.
 * Context: process. Waits for no I/O.
 */
int lf_device_why(struct lf_device *dev, char *result, unsigned int maxlen);

/**
 * lf_device_review - apply the device's policy to its parked reads now
 *
 * Those that may not wait any longer are ended (by their work).
 */
void lf_device_review(struct lf_device *dev);
void lf_device_set_suspend(struct lf_device *dev, bool requeue, bool draining);

unsigned long lf_cache_limit(void);
u64 lf_cache_used(void);
unsigned int lf_cache_frames(void);
bool lf_helper_attached(void);

struct lf_session;

/**
 * lf_session_attach - begin the session of a file, its first and only one
 * @replace: end that of another, if need be
 *
 * Return: 0 or -EBUSY.
 */
int lf_session_attach(struct lf_session *session, bool replace);
void lf_session_detach(struct lf_session *session);

/**
 * lf_session_took - a helper has read that the ring is filled up to @head
 */
void lf_session_took(struct lf_session *session, u64 head);

/**
 * lf_fill - take a helper's answer
 * @from: the payload, all of it
 *
 * Return: 0 or the errors that the protocol names.
 */
int lf_fill(struct lf_session *session, const struct lazyframe_fill *fill,
	    struct iov_iter *from);

/**
 * lf_frame_loaded - a read from the store has ended
 *
 * Context: worker. Frees @load.
 */
void lf_frame_loaded(struct lf_load *load);

int lf_frames_init(void);
void lf_frames_exit(void);

/*
 * ----------------------------------------------------------------
 * codec.c
 * ----------------------------------------------------------------
 */

/**
 * lf_codec_reserve - make room to decode frames of this U size, bytes
 *
 * Context: process, GFP_KERNEL; may wait for decodes in progress.
 */
int lf_codec_reserve(u32 ubytes);

/**
 * lf_codec_read - decode a frame, verify it and copy a part of it
 * @frame: READY, the caller has a reference
 * @off: first byte wanted, in the frame's content
 * @len: bytes
 * @bio: where they go; @iter is advanced
 *
 * Nothing is copied unless all of the frame verified, now or before.
 *
 * Return: 0, or -EBADMSG.
 * Context: worker. Waits for a free decode context, and so only for decodes.
 */
int lf_codec_read(struct lf_frame *frame, u32 off, u32 len, struct bio *bio,
		  struct bvec_iter *iter);

/**
 * lf_codec_try - copy a part of a frame, if nothing is to be decoded or verified
 *
 * As lf_codec_read(), but in any context that may sleep, and at once.
 * Return: false: it is not, and nothing was copied.
 */
bool lf_codec_try(struct lf_frame *frame, u32 off, u32 len, struct bio *bio,
		  struct bvec_iter *iter);
void lf_copy_to_bio(struct bio *bio, struct bvec_iter *iter, const void *from,
		    u32 len);
int lf_codec_init(void);
void lf_codec_exit(void);

/*
 * ----------------------------------------------------------------
 * decoded.c
 * ----------------------------------------------------------------
 */

struct lf_decoded;

/**
 * lf_decoded_read - copy a part of a frame's content, if it is kept
 *
 * Return: false: it is not.
 */
bool lf_decoded_read(struct lf_frame *frame, u32 off, u32 len, struct bio *bio,
		     struct bvec_iter *iter);

/**
 * lf_decoded_new - room for a frame's content, all of it
 *
 * Return: NULL: none; it will be decoded again. Else lf_decoded_publish() must
 * follow, once it was filled and verified, or lf_decoded_cancel().
 * Context: worker; evicts others.
 */
struct lf_decoded *lf_decoded_new(const struct lf_frame *frame);
void *lf_decoded_content(struct lf_decoded *d);
void lf_decoded_publish(struct lf_frame *frame, struct lf_decoded *d);
void lf_decoded_cancel(struct lf_decoded *d);

/* lf_decoded_drop - of a frame that is being freed */
void lf_decoded_drop(struct lf_frame *frame);
/* bytes, those that RCU still holds included */
u64 lf_decoded_used(void);
int lf_decoded_init(void);
void lf_decoded_exit(void);

/*
 * ----------------------------------------------------------------
 * channel.c
 * ----------------------------------------------------------------
 */

#define LF_TAGS		1024
#define LF_RING_ENTRIES	(4 * LF_TAGS)	/* see struct lazyframe_ring */

/**
 * struct lf_session - one open /dev/lazyframe
 * @attach_lock: one ATTACH at a time
 * @ring: mapped read-only by the helper; NULL before ATTACH
 * @head: the kernel's own count of posted requests (frames.lock)
 * @shown: what was published of it; the ring's copy is never read back
 * @seen: what the helper read() last
 * @taken: entries before this one were taken, in lf_session_took() (frames.lock)
 * @heard: jiffies when the helper last took or answered something (frames.lock)
 * @replaced: another session took its place (frames.lock; never undone)
 */
struct lf_session {
	struct mutex attach_lock;	/* outermost */
	struct lazyframe_ring *ring;
	u64 generation;
	u64 head;
	u64 shown;
	u64 seen;
	u64 taken;
	unsigned long heard;
	bool replaced;
	wait_queue_head_t wait;
};

/**
 * lf_ring_post - write the next entry; lf_ring_publish() shows it
 *
 * Context: frames.lock held.
 */
void lf_ring_post(struct lf_session *session,
		  const struct lazyframe_request *request);
void lf_ring_publish(struct lf_session *session);
/* The entry that has, or had, this number. Context: frames.lock held. */
const struct lazyframe_request *lf_ring_entry(const struct lf_session *session,
					      u64 number);
int lf_channel_init(void);
void lf_channel_exit(void);

#endif /* LF_LAZYFRAME_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What overlay.c (the way of a write) and commit.c (what lasts) share.
 */
#ifndef LF_OVERLAY_H
#define LF_OVERLAY_H

#include <linux/bitmap.h>
#include <linux/mempool.h>
#include <linux/seqlock.h>
#include <linux/slab.h>

#include "lazyframe.h"
#include "overlay_disk.h"

#define LF_COMMIT_DELAY	HZ

/*
 * struct lf_leaf - LF_LEAF_BLOCKS blocks, and their place in the tree
 * @dirty: bits (lock)
 * @zero: likewise
 * @sum: of what is in each slot; 0: nothing (commit_lock)
 * @dirty_in: blocks in each slot (commit_lock)
 * @zero_in: likewise
 * @unmap_first: with @unmap_last: holds the blocks that were dirty, are zero and
 *		 still have space on the COW device; empty if it is the greater (lock)
 */
struct lf_leaf {
	unsigned long dirty[LF_LEAF_WORDS];
	unsigned long zero[LF_LEAF_WORDS];
	u64 sum[2];
	u16 dirty_in[2];
	u16 zero_in[2];
	u16 unmap_first;
	u16 unmap_last;
};

/*
 * struct lf_copy - a copy-up
 * @bio: reads @page from the origin, or writes it to the COW device
 */
struct lf_copy {
	struct work_struct work;
	struct lf_io *io;
	struct page *page;
	struct bio_vec vec;
	struct bio bio;
};

/*
 * struct lf_overlay - an overlay, shared by the tables that name it
 *
 * I: set when it was loaded. C: commit_lock. L: lock.
 */
struct lf_overlay {
	struct list_head link;		/* lf_overlays_lock */
	unsigned int users;		/* lf_overlays_lock: tables */
	dev_t meta_dev;			/* I */
	struct block_device *cow;	/* I */
	struct dm_bufio_client *bufio;	/* I: of the meta device */
	struct dm_bufio_client *cow_bufio; /* I: for the identity alone */
	u64 start;			/* I: of the region OVERLAY, block */
	struct lf_tree tree;		/* I */

	struct mutex commit_lock;	/* one commit at a time */
	struct lf_disk_root *root;	/* C: of the last commit */
	struct lf_disk_root *next;	/* C: of the one being made */
	unsigned long *slot;		/* C: for each leaf, which one is valid */
	unsigned long *writing;		/* C and L: leaves of a commit under way */
	bool unsure;			/* C: the next root may be on disk already */
	bool open;			/* C: the epoch was begun */

	spinlock_t lock;		/* irq-safe; a leaf */
	seqcount_spinlock_t seq;	/* of the bits */
	struct lf_leaf **leaf;		/* L: NULL: all is the image's; set once */
	unsigned long *changed;		/* L: leaves with bits that no commit took */
	bool uncommitted;		/* L: such bits, or some in a commit */
	struct lf_device *owner;	/* L: the active one; constant while it is */
	bool leaving;			/* its owner waits for @unmap */
	bool sealing;			/* C: the commit at the next suspend seals it */
	u64 dirty;			/* L: blocks */
	u64 zero;			/* L */
	enum lf_mode mode;		/* L */
	struct rb_root claims;		/* L: struct lf_claim, disjoint */
	struct list_head blocked;	/* L: lf_io.waiter: found a claim in their way */
	struct bio_list flushes;	/* L: bios that wait for a commit */

	struct delayed_work commit;
	struct work_struct unmap;
	struct work_struct event;
	mempool_t copies;
	mempool_t pages;
};

extern struct kmem_cache *lf_leaf_slab;
extern struct workqueue_struct *lf_commit_wq;

/*
 * overlay.c
 */

/* Gives back the space of blocks that were zeroed before the last commit. */
void lf_overlay_unmap(struct work_struct *work);

void lf_overlay_count_write(struct lf_io *io, blk_status_t status);

/*
 * commit.c
 */

/* Under the lock, in any context; an event follows. @why: for the log, or NULL */
void __lf_overlay_set_mode(struct lf_overlay *ov, enum lf_mode mode,
			   const char *why);

void lf_overlay_set_mode(struct lf_overlay *ov, enum lf_mode mode,
			 const char *why);

/**
 * lf_overlay_commit_for - end a bio when all that was acknowledged before is durable
 *
 * Context: any.
 */
void lf_overlay_commit_for(struct lf_overlay *ov, struct bio *bio);

#endif /* LF_OVERLAY_H */

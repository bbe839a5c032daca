// SPDX-License-Identifier: GPL-2.0-only
/*
 * The overlay: what a device wrote. Which blocks, in bitmaps in memory and in
 * the meta device's tree; what, on the COW device. overlay_disk.h has the
 * layout and the crash argument.
 *
 * The way of a write
 * ------------------
 *	rewrite	every block is dirty: straight to the COW device
 *	fresh	whole blocks: straight there too; when that is done, they
 *		are dirty
 *	copy-up	part of a block that is not dirty: its other bytes come
 *		from the image (or the origin, or are zeros), the whole block
 *		goes to the COW device; then it is dirty
 *	zeroing	discard and write-zeroes: whole blocks are marked, no more.
 *		Their space on the COW device is given back after the commit
 *
 * None of them but a copy-up needs the helper.
 *
 * Claims
 * ------
 * A fresh write and a copy-up claim their blocks until the bits are set, so
 * that nobody else changes what these blocks are meanwhile: a copy-up must not
 * bring back what a zeroing or another write replaced. Giving back space claims
 * as well. Who finds a block claimed is blocked until any claim ends. Rewrites
 * need no claim: they change no bit, and whatever happens to their block while
 * they are in flight happens at the same time.
 *
 * Commits
 * -------
 * A bit is set in memory when its data is on the COW device, and is written
 * to the meta device by a commit:
 *
 *	1. take the changed leaves' bits as they are now
 *	2. flush the COW device: the data of those bits is durable
 *	3. write leaves and indexes into their free slots, flush
 *	4. write the root into its free slot, flush
 *
 * All flushes that wait share one commit. A commit that fails makes the overlay
 * read-only; memory keeps what is dirty. Whether its root reached the device is
 * not known, so the next commit wipes that slot before it reuses what the root
 * may name.
 *
 * Context
 * -------
 * Bits change under ov->lock, in any context; map() reads them without it,
 * guarded by ov->seq. Leaves are allocated by workers and stay.
 */
#include <linux/bitmap.h>
#include <linux/dm-bufio.h>
#include <linux/mempool.h>
#include <linux/mm.h>
#include <linux/rbtree.h>
#include <linux/sched/mm.h>
#include <linux/seqlock.h>
#include <linux/slab.h>

#include "lazyframe.h"
#include "overlay_disk.h"

#define BLOCK_SECTORS	(LF_META_BLOCK >> SECTOR_SHIFT)
#define COMMIT_DELAY	HZ
#define MIN_COPIES	16

/*
 * struct leaf - bits of LF_LEAF_BLOCKS blocks
 * @unmap_first: with @unmap_last: holds the blocks that were dirty, are zero and still
 *		 have space on the COW device; empty if it is the greater one
 */
struct leaf {
	unsigned long dirty[LF_LEAF_WORDS];
	unsigned long zero[LF_LEAF_WORDS];
	u32 unmap_first;
	u32 unmap_last;
};

/**
 * struct node - a leaf's place in the tree
 * @leaf: NULL: all blocks are the image's. Set once, with release
 * @sum: of what is in each slot (commit_lock)
 * @dirty: blocks in each slot (commit_lock)
 * @zero: likewise
 */
struct node {
	struct leaf *leaf;
	u64 sum[2];
	u16 dirty[2];
	u16 zero[2];
};

/*
 * struct copy - a copy-up
 * @bio: reads @page from the origin, or writes it to the COW device
 */
struct copy {
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
	u64 start;			/* I: of the region OVERLAY, block */
	struct lf_tree tree;		/* I */

	struct mutex commit_lock;	/* one commit at a time */
	struct lf_disk_root *root;	/* C: of the last commit */
	struct lf_disk_root *next;	/* C: of the one being made */
	u64 *index_sum;			/* C: two for each index, by slot */
	unsigned long *index_slot;	/* C: bit: the valid one */
	unsigned long *slot;		/* C: likewise, for each leaf */
	unsigned long *writing;		/* C and L: leaves of a commit under way */
	bool unsure;			/* C: the next root may be on disk already */
	bool open;			/* C: the epoch was begun */

	spinlock_t lock;		/* irq-safe; a leaf */
	seqcount_spinlock_t seq;	/* of the bits */
	struct node *node;		/* L: the leaves' bits */
	unsigned long *changed;		/* L: leaves with bits that no commit took */
	bool uncommitted;		/* L: such bits, or some in a commit */
	struct lf_device *owner;	/* L: the active one; constant while it is */
	bool leaving;			/* its owner waits for @unmap */
	bool sealing;			/* C: the commit at suspend seals it */
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

static LIST_HEAD(lf_overlays);
static DEFINE_MUTEX(lf_overlays_lock);
static struct kmem_cache *leaf_slab;
static struct workqueue_struct *commit_wq;

/*
 * ----------------------------------------------------------------
 * Bits
 * ----------------------------------------------------------------
 */

enum state {
	STATE_IMAGE,
	STATE_DIRTY,
	STATE_ZERO,
};

static u64 leaf_first(u32 number)
{
	return (u64)number * LF_LEAF_BLOCKS;
}

static struct leaf *leaf_of(const struct lf_overlay *ov, u64 block)
{
	/* Pairs with leaf_make(). */
	return smp_load_acquire(&ov->node[block / LF_LEAF_BLOCKS].leaf);
}

/* The state of a block, and of how many from there on, up to the leaf's end. */
static enum state run_of(struct lf_overlay *ov, u64 block, u32 *count)
{
	u32 bit = block % LF_LEAF_BLOCKS;
	const struct leaf *leaf = leaf_of(ov, block);
	unsigned int seq;
	enum state state;
	u32 end;

	if (!leaf) {
		*count = LF_LEAF_BLOCKS - bit;
		return STATE_IMAGE;
	}
	do {
		seq = read_seqcount_begin(&ov->seq);
		if (test_bit(bit, leaf->dirty)) {
			state = STATE_DIRTY;
			end = find_next_zero_bit(leaf->dirty, LF_LEAF_BLOCKS,
						 bit);
		} else if (test_bit(bit, leaf->zero)) {
			state = STATE_ZERO;
			end = find_next_zero_bit(leaf->zero, LF_LEAF_BLOCKS,
						 bit);
		} else {
			state = STATE_IMAGE;
			end = find_next_bit(leaf->dirty, LF_LEAF_BLOCKS, bit);
			end = find_next_bit(leaf->zero, end, bit);
		}
	} while (read_seqcount_retry(&ov->seq, seq));
	*count = end - bit;
	return state;
}

static bool all_dirty(struct lf_overlay *ov, u64 first, u64 last)
{
	u32 count;

	for (; first <= last; first += count)
		if (run_of(ov, first, &count) != STATE_DIRTY)
			return false;
	return true;
}

/* Before anybody sets a bit in it. */
static int leaf_make(struct lf_overlay *ov, u64 block)
{
	struct node *node = &ov->node[block / LF_LEAF_BLOCKS];
	struct leaf *leaf;
	unsigned long flags;

	if (leaf_of(ov, block))
		return 0;
	leaf = kmem_cache_zalloc(leaf_slab, GFP_NOIO);
	if (!leaf)
		return -ENOMEM;
	leaf->unmap_first = LF_LEAF_BLOCKS;
	spin_lock_irqsave(&ov->lock, flags);
	if (!node->leaf) {
		/* Empty before it is seen. */
		smp_store_release(&node->leaf, leaf);
		leaf = NULL;
	}
	spin_unlock_irqrestore(&ov->lock, flags);
	if (leaf)
		kmem_cache_free(leaf_slab, leaf);
	return 0;
}

static int leaves_make(struct lf_overlay *ov, u64 first, u64 last)
{
	int err = 0;

	for (; !err && first <= last; first = round_up(first + 1, LF_LEAF_BLOCKS))
		err = leaf_make(ov, first);
	return err;
}

static u32 weight(const unsigned long *bits, u32 from, u32 count)
{
	u32 end = from + count, n = 0, i;
	unsigned long word;

	for (i = from / BITS_PER_LONG; i * BITS_PER_LONG < end; i++) {
		word = bits[i];
		if (i == from / BITS_PER_LONG)
			word &= BITMAP_FIRST_WORD_MASK(from);
		if (end - i * BITS_PER_LONG < BITS_PER_LONG)
			word &= BITMAP_LAST_WORD_MASK(end);
		n += hweight_long(word);
	}
	return n;
}

static void __changed(struct lf_overlay *ov, u32 number)
{
	__set_bit(number, ov->changed);
	if (!ov->uncommitted) {
		WRITE_ONCE(ov->uncommitted, true);
		queue_delayed_work(commit_wq, &ov->commit, COMMIT_DELAY);
	}
}

/* All in one leaf. Under the lock. */
static void __mark(struct lf_overlay *ov, u64 first, u32 count, bool dirty)
{
	struct leaf *leaf = leaf_of(ov, first);
	u32 bit = first % LF_LEAF_BLOCKS;
	u32 were_dirty, were_zero;

	were_dirty = weight(leaf->dirty, bit, count);
	were_zero = weight(leaf->zero, bit, count);
	if ((dirty ? were_dirty : were_zero) == count)
		return;
	write_seqcount_begin(&ov->seq);
	bitmap_set(dirty ? leaf->dirty : leaf->zero, bit, count);
	bitmap_clear(dirty ? leaf->zero : leaf->dirty, bit, count);
	write_seqcount_end(&ov->seq);
	WRITE_ONCE(ov->dirty, ov->dirty + (dirty ? count : 0) - were_dirty);
	WRITE_ONCE(ov->zero, ov->zero + (dirty ? 0 : count) - were_zero);
	if (!dirty && were_dirty) {
		leaf->unmap_first = min(leaf->unmap_first, bit);
		leaf->unmap_last = max(leaf->unmap_last, bit + count - 1);
	}
	__changed(ov, first / LF_LEAF_BLOCKS);
}

/* How many of @first .. @last are in the first one's leaf. */
static u32 in_leaf(u64 first, u64 last)
{
	return min_t(u64, last - first + 1,
		     LF_LEAF_BLOCKS - first % LF_LEAF_BLOCKS);
}

static void __mark_dirty(struct lf_overlay *ov, u64 first, u64 last)
{
	u32 count;

	for (; first <= last; first += count) {
		count = in_leaf(first, last);
		__mark(ov, first, count, true);
	}
}

/*
 * ----------------------------------------------------------------
 * Claims
 * ----------------------------------------------------------------
 */

/* The claim that has one of @first .. @last, or NULL. */
static struct lf_claim *__claimed(struct lf_overlay *ov, u64 first, u64 last)
{
	struct rb_node *node = ov->claims.rb_node;

	while (node) {
		struct lf_claim *claim = rb_entry(node, struct lf_claim, node);

		if (last < claim->first)
			node = node->rb_left;
		else if (first > claim->last)
			node = node->rb_right;
		else
			return claim;
	}
	return NULL;
}

static bool __claim(struct lf_overlay *ov, struct lf_claim *claim)
{
	struct rb_node **link = &ov->claims.rb_node;
	struct rb_node *parent = NULL;

	if (__claimed(ov, claim->first, claim->last))
		return false;
	while (*link) {
		parent = *link;
		link = claim->first < rb_entry(parent, struct lf_claim,
					       node)->first ?
			&parent->rb_left : &parent->rb_right;
	}
	rb_link_node(&claim->node, parent, link);
	rb_insert_color(&claim->node, &ov->claims);
	return true;
}

/* Whoever was blocked looks again. */
static void __unclaim(struct lf_overlay *ov, struct lf_claim *claim)
{
	struct lf_io *io, *tmp;

	rb_erase(&claim->node, &ov->claims);
	list_for_each_entry_safe(io, tmp, &ov->blocked, waiter) {
		list_del(&io->waiter);
		queue_work(lf_wq, &io->work);
	}
}

/*
 * ----------------------------------------------------------------
 * Modes
 * ----------------------------------------------------------------
 */

static void event_work(struct work_struct *work)
{
	struct lf_overlay *ov = container_of(work, struct lf_overlay, event);

	/* The owner waits for us before it goes. */
	dm_table_event(ov->owner->ti->table);
}

static void __set_mode(struct lf_overlay *ov, enum lf_mode mode,
		       const char *why)
{
	if (ov->mode == mode)
		return;
	WRITE_ONCE(ov->mode, mode);
	if (mode != LF_MODE_RW)
		DMERR_LIMIT("overlay %pUb: no more writes: %s", ov->root->uuid,
			    why);
	if (ov->owner)
		queue_work(commit_wq, &ov->event);
}

static void set_mode(struct lf_overlay *ov, enum lf_mode mode, const char *why)
{
	unsigned long flags;

	spin_lock_irqsave(&ov->lock, flags);
	__set_mode(ov, mode, why);
	spin_unlock_irqrestore(&ov->lock, flags);
}

/*
 * ----------------------------------------------------------------
 * Commits
 * ----------------------------------------------------------------
 */

/* The block is the caller's until it is put back, then it is to be written. */
static void *stage(struct lf_overlay *ov, u64 place, struct dm_buffer **buffer)
{
	return dm_bufio_new(ov->bufio, ov->start + place, buffer);
}

static void staged(struct dm_buffer *buffer)
{
	dm_bufio_mark_buffer_dirty(buffer);
	dm_bufio_release(buffer);
}

static u32 next_slot(const unsigned long *slot, u32 n)
{
	return !test_bit(n, slot);
}

static int stage_leaf(struct lf_overlay *ov, u32 number)
{
	struct node *node = &ov->node[number];
	u32 slot = next_slot(ov->slot, number);
	struct lf_disk_leaf *disk;
	struct dm_buffer *buffer;
	unsigned long flags;
	u32 i;

	disk = stage(ov, lf_leaf_place(&ov->tree, number, slot), &buffer);
	if (IS_ERR(disk))
		return PTR_ERR(disk);
	spin_lock_irqsave(&ov->lock, flags);
	for (i = 0; i < LF_LEAF_WORDS; i++) {
		disk->dirty[i] = cpu_to_le64(node->leaf->dirty[i]);
		disk->zero[i] = cpu_to_le64(node->leaf->zero[i]);
	}
	spin_unlock_irqrestore(&ov->lock, flags);
	node->sum[slot] = lf_node_sum(disk, number);
	node->dirty[slot] = bitmap_weight((void *)disk->dirty, LF_LEAF_BLOCKS);
	node->zero[slot] = bitmap_weight((void *)disk->zero, LF_LEAF_BLOCKS);
	staged(buffer);
	return 0;
}

/* Which slot of leaf @number the root in the making is to name. */
static u32 leaf_slot(const struct lf_overlay *ov, u32 number)
{
	return test_bit(number, ov->slot) ^ test_bit(number, ov->writing);
}

static int stage_index(struct lf_overlay *ov, u32 index)
{
	u32 first = index * LF_INDEX_LEAVES;
	u32 count = min(ov->tree.leaves - first, LF_INDEX_LEAVES);
	u32 slot = next_slot(ov->index_slot, index);
	struct lf_disk_index *disk;
	struct dm_buffer *buffer;
	u32 i;

	disk = stage(ov, lf_index_place(index, slot), &buffer);
	if (IS_ERR(disk))
		return PTR_ERR(disk);
	memset(disk, 0, sizeof(*disk));
	for (i = 0; i < count; i++) {
		u32 s = leaf_slot(ov, first + i);

		disk->sum[i] = cpu_to_le64(ov->node[first + i].sum[s]);
		if (s)
			lf_slot_flip(disk->slot, i);
	}
	ov->index_sum[2 * index + slot] = lf_node_sum(disk, index);
	staged(buffer);
	return 0;
}

static int write_root(struct lf_overlay *ov, const struct lf_disk_root *root)
{
	struct dm_buffer *buffer;
	void *disk;
	u32 copy;

	for (copy = 0; copy < LF_ROOT_COPIES; copy++) {
		disk = stage(ov, lf_root_place(le64_to_cpu(ov->next->sequence),
					       copy), &buffer);
		if (IS_ERR(disk))
			return PTR_ERR(disk);
		if (root)
			memcpy(disk, root, sizeof(*root));
		else
			memset(disk, 0, sizeof(*root));
		staged(buffer);
	}
	return dm_bufio_write_dirty_buffers(ov->bufio);
}

/* Leaves and indexes that @writing names go to their free slots. */
static int write_tree(struct lf_overlay *ov)
{
	u32 number, index;
	int err;

	for_each_set_bit(number, ov->writing, ov->tree.leaves) {
		err = stage_leaf(ov, number);
		if (err)
			return err;
		cond_resched();
	}
	/* The bits are taken: now make true what they say. */
	err = blkdev_issue_flush(ov->cow);
	if (err)
		return err;
	for (index = 0; index < ov->tree.indexes; index++) {
		u32 from = index * LF_INDEX_LEAVES;
		u32 to = min(from + LF_INDEX_LEAVES, ov->tree.leaves);

		if (find_next_bit(ov->writing, to, from) >= to)
			continue;
		err = stage_index(ov, index);
		if (err)
			return err;
		ov->next->sum[index] = cpu_to_le64(ov->index_sum[2 * index +
					next_slot(ov->index_slot, index)]);
		lf_slot_flip(ov->next->slot, index);
	}
	return dm_bufio_write_dirty_buffers(ov->bufio);
}

/* The root that @next will be is that of @root and what @writing changes. */
static void count_blocks(struct lf_overlay *ov)
{
	u64 dirty = le64_to_cpu(ov->root->dirty);
	u64 zero = le64_to_cpu(ov->root->zero);
	u32 number;

	for_each_set_bit(number, ov->writing, ov->tree.leaves) {
		struct node *node = &ov->node[number];
		u32 slot = next_slot(ov->slot, number);

		dirty += node->dirty[slot] - node->dirty[!slot];
		zero += node->zero[slot] - node->zero[!slot];
	}
	ov->next->dirty = cpu_to_le64(dirty);
	ov->next->zero = cpu_to_le64(zero);
}

/* The root on disk names the new slots: so does memory. */
static void commit_done(struct lf_overlay *ov)
{
	u32 index;

	for (index = 0; index < ov->tree.indexes; index++)
		if (ov->next->sum[index] != ov->root->sum[index] ||
		    lf_slot_get(ov->next->slot, index) !=
		    lf_slot_get(ov->root->slot, index))
			__change_bit(index, ov->index_slot);
	bitmap_xor(ov->slot, ov->slot, ov->writing, ov->tree.leaves);
	swap(ov->root, ov->next);
}

/*
 * commit_root - write a root with these flags and this epoch, and what changed
 *
 * Context: commit_lock held.
 */
static int commit_root(struct lf_overlay *ov, u32 flags, u64 epoch)
{
	u64 sequence = le64_to_cpu(ov->root->sequence) + 1;
	int err;

	*ov->next = *ov->root;
	ov->next->sequence = cpu_to_le64(sequence);
	ov->next->flags = cpu_to_le32(flags);
	ov->next->epoch = cpu_to_le64(epoch);
	if (ov->unsure) {
		err = write_root(ov, NULL);
		if (err)
			return err;
		ov->unsure = false;
	}
	err = write_tree(ov);
	if (err)
		return err;
	count_blocks(ov);
	lf_root_finish(ov->next);
	err = write_root(ov, ov->next);
	if (err) {
		ov->unsure = true;
		return err;
	}
	commit_done(ov);
	return 0;
}

/* Make durable what was written. Context: commit_lock held. */
static int commit(struct lf_overlay *ov, bool seal)
{
	u32 flags = seal ? LF_ROOT_SEALED : 0;
	unsigned long irq;
	bool changes;
	int err;

	spin_lock_irqsave(&ov->lock, irq);
	changes = ov->uncommitted;
	bitmap_copy(ov->writing, ov->changed, ov->tree.leaves);
	bitmap_zero(ov->changed, ov->tree.leaves);
	spin_unlock_irqrestore(&ov->lock, irq);

	if (!changes && flags == le32_to_cpu(ov->root->flags))
		return blkdev_issue_flush(ov->cow);
	err = commit_root(ov, flags, le64_to_cpu(ov->root->epoch));

	spin_lock_irqsave(&ov->lock, irq);
	if (err)
		bitmap_or(ov->changed, ov->changed, ov->writing,
			  ov->tree.leaves);
	bitmap_zero(ov->writing, ov->tree.leaves);
	WRITE_ONCE(ov->uncommitted,
		   !bitmap_empty(ov->changed, ov->tree.leaves));
	if (err || seal)
		__set_mode(ov, LF_MODE_RO,
			   seal ? "it is sealed" : "a commit failed");
	else if (ov->uncommitted)
		queue_delayed_work(commit_wq, &ov->commit, COMMIT_DELAY);
	spin_unlock_irqrestore(&ov->lock, irq);
	return err;
}

/* With changes, a read-only overlay cannot keep what a flush promises. */
static int commit_if_writable(struct lf_overlay *ov)
{
	if (READ_ONCE(ov->mode) != LF_MODE_RW)
		return READ_ONCE(ov->uncommitted) ? -EROFS : 0;
	return commit(ov, false);
}

static void commit_work(struct work_struct *work)
{
	struct lf_overlay *ov = container_of(to_delayed_work(work),
					     struct lf_overlay, commit);
	unsigned int noio = memalloc_noio_save();
	struct bio_list bios;
	unsigned long flags;
	struct bio *bio;
	int err;

	mutex_lock(&ov->commit_lock);
	spin_lock_irqsave(&ov->lock, flags);
	bios = ov->flushes;
	bio_list_init(&ov->flushes);
	spin_unlock_irqrestore(&ov->lock, flags);
	err = commit_if_writable(ov);
	if (!err && ov->owner)
		this_cpu_inc(ov->owner->stats->count[LF_COMMITS]);
	mutex_unlock(&ov->commit_lock);
	while ((bio = bio_list_pop(&bios))) {
		bio->bi_status = err ? BLK_STS_IOERR : BLK_STS_OK;
		bio_endio(bio);
	}
	if (!err)
		queue_work(lf_wq, &ov->unmap);
	memalloc_noio_restore(noio);
}

/* The bio ends when all that was acknowledged before is durable. */
static void commit_for(struct lf_overlay *ov, struct bio *bio)
{
	unsigned long flags;

	spin_lock_irqsave(&ov->lock, flags);
	bio_list_add(&ov->flushes, bio);
	spin_unlock_irqrestore(&ov->lock, flags);
	mod_delayed_work(commit_wq, &ov->commit, 0);
}

/*
 * ----------------------------------------------------------------
 * Giving back the space of blocks that were zeroed
 * ----------------------------------------------------------------
 */

static void give_back(struct lf_overlay *ov, u64 first, u32 count)
{
	sector_t sector = first * BLOCK_SECTORS;
	sector_t sectors = (sector_t)count * BLOCK_SECTORS;
	int err = 0;

	/* Zeros are what a read that is still in flight may see. */
	if (bdev_write_zeroes_sectors(ov->cow))
		err = blkdev_issue_zeroout(ov->cow, sector, sectors, GFP_NOIO,
					   BLKDEV_ZERO_NOFALLBACK);
	else if (bdev_max_discard_sectors(ov->cow))
		err = blkdev_issue_discard(ov->cow, sector, sectors, GFP_NOIO);
	if (err && err != -EOPNOTSUPP)
		DMWARN_LIMIT("overlay %pUb: space of %u blocks was not given back: error %d",
			     ov->root->uuid, count, err);
}

/*
 * Take the first run of @leaf's blocks that may be given back. What its commit
 * did not take yet may not: after a crash those blocks are dirty again.
 */
static bool unmap_claim(struct lf_overlay *ov, u32 number,
			struct lf_claim *claim)
{
	struct leaf *leaf = ov->node[number].leaf;
	bool found = false;
	unsigned long flags;
	u32 bit, end;

	spin_lock_irqsave(&ov->lock, flags);
	if (test_bit(number, ov->changed) || test_bit(number, ov->writing))
		goto out;
	while (leaf->unmap_first <= leaf->unmap_last) {
		bit = find_next_bit(leaf->zero, leaf->unmap_last + 1,
				    leaf->unmap_first);
		end = find_next_zero_bit(leaf->zero, leaf->unmap_last + 1, bit);
		leaf->unmap_first = end;
		claim->first = leaf_first(number) + bit;
		claim->last = leaf_first(number) + end - 1;
		/* Claimed for writing: they will be dirty again. */
		found = bit < end && __claim(ov, claim);
		if (found)
			break;
	}
	if (leaf->unmap_first > leaf->unmap_last) {
		leaf->unmap_first = LF_LEAF_BLOCKS;
		leaf->unmap_last = 0;
	}
out:
	spin_unlock_irqrestore(&ov->lock, flags);
	return found;
}

static void unmap_work(struct work_struct *work)
{
	struct lf_overlay *ov = container_of(work, struct lf_overlay, unmap);
	struct lf_claim claim;
	unsigned long flags;
	u32 number;

	for (number = 0; number < ov->tree.leaves; number++) {
		if (!leaf_of(ov, leaf_first(number)))
			continue;
		while (!READ_ONCE(ov->leaving) &&
		       unmap_claim(ov, number, &claim)) {
			give_back(ov, claim.first, claim.last - claim.first + 1);
			spin_lock_irqsave(&ov->lock, flags);
			__unclaim(ov, &claim);
			spin_unlock_irqrestore(&ov->lock, flags);
			cond_resched();
		}
	}
}

/*
 * ----------------------------------------------------------------
 * The way of a write
 * ----------------------------------------------------------------
 */

static struct lf_overlay *overlay_of(const struct lf_io *io)
{
	return io->dev->overlay;
}

static struct bio *bio_of(struct lf_io *io)
{
	return dm_bio_from_per_bio_data(io, sizeof(*io));
}

static void count_write(struct lf_io *io, blk_status_t status)
{
	struct lf_stats __percpu *stats = io->dev->stats;

	if (status == BLK_STS_DM_REQUEUE)
		return;
	this_cpu_inc(stats->count[LF_WRITES]);
	if (status)
		this_cpu_inc(stats->count[LF_WRITES_FAILED]);
	else
		this_cpu_add(stats->count[LF_WRITE_BYTES], io->bytes);
}

/* End a write that does not end by itself. */
static void write_end(struct lf_io *io, blk_status_t status)
{
	struct bio *bio = bio_of(io);

	count_write(io, status);
	io->kind = LF_IO_OTHER;
	if (!status && io->fua) {
		commit_for(overlay_of(io), bio);
		return;
	}
	bio->bi_status = status;
	bio_endio(bio);
}

static void cow_failed(struct lf_overlay *ov, blk_status_t status)
{
	if (status != BLK_STS_DM_REQUEUE)
		set_mode(ov, LF_MODE_RO, "a write to the COW device failed");
}

/* The data of a claimed range is on the COW device, or is not. */
static void claim_end(struct lf_io *io, bool written)
{
	struct lf_overlay *ov = overlay_of(io);
	unsigned long flags;

	spin_lock_irqsave(&ov->lock, flags);
	if (written)
		__mark_dirty(ov, io->claim.first, io->claim.last);
	__unclaim(ov, &io->claim);
	spin_unlock_irqrestore(&ov->lock, flags);
}

static void count_read(struct lf_io *io, blk_status_t status)
{
	struct lf_stats __percpu *stats = io->dev->stats;

	if (status == BLK_STS_DM_REQUEUE)
		return;
	this_cpu_inc(stats->count[LF_READS]);
	this_cpu_inc(stats->count[status ? LF_READS_FAILED : io->stat]);
	if (!status)
		this_cpu_add(stats->count[LF_READ_BYTES], io->bytes);
}

int lf_overlay_end_io(struct lf_io *io, struct bio *bio, blk_status_t status)
{
	enum lf_io_kind kind = io->kind;

	/* A bio that waits for a commit comes here twice. */
	io->kind = LF_IO_OTHER;
	switch (kind) {
	case LF_IO_OTHER:
		return DM_ENDIO_DONE;
	case LF_IO_READ:
		count_read(io, status);
		return DM_ENDIO_DONE;
	case LF_IO_FRESH:
		claim_end(io, !status);
		break;
	case LF_IO_REWRITE:
		break;
	}
	if (status)
		cow_failed(overlay_of(io), status);
	count_write(io, status);
	if (status || !io->fua)
		return DM_ENDIO_DONE;
	commit_for(overlay_of(io), bio);
	return DM_ENDIO_INCOMPLETE;
}

/*
 * ----------------------------------------------------------------
 * Copy-up
 * ----------------------------------------------------------------
 */

static void copy_end(struct copy *copy, blk_status_t status)
{
	struct lf_io *io = copy->io;
	struct lf_overlay *ov = overlay_of(io);

	claim_end(io, !status);
	mempool_free(copy->page, &ov->pages);
	mempool_free(copy, &ov->copies);
	write_end(io, status);
}

static void copy_written(struct bio *bio)
{
	struct copy *copy = container_of(bio, struct copy, bio);

	if (bio->bi_status)
		cow_failed(overlay_of(copy->io), bio->bi_status);
	copy_end(copy, bio->bi_status);
}

/*
 * Put the write's bytes over what the page has, and write it: the whole block,
 * but only these bytes where the block is dirty. Rewrites of its other bytes
 * may be in flight.
 */
static void copy_merge(struct copy *copy, bool whole)
{
	struct lf_io *io = copy->io;
	struct bio *bio = bio_of(io);
	u32 off = (bio->bi_iter.bi_sector % BLOCK_SECTORS) << SECTOR_SHIFT;
	void *to = page_address(copy->page) + off;
	struct bvec_iter iter;
	struct bio_vec bv;

	if (bio_op(bio) == REQ_OP_WRITE_ZEROES) {
		memset(to, 0, io->bytes);
	} else {
		bio_for_each_segment(bv, bio, iter) {
			memcpy_from_bvec(to, &bv);
			to += bv.bv_len;
		}
	}
	bio_init(&copy->bio, overlay_of(io)->cow, &copy->vec, 1,
		 REQ_OP_WRITE | (bio->bi_opf & (REQ_SYNC | REQ_IDLE)));
	copy->bio.bi_iter.bi_sector = io->claim.first * BLOCK_SECTORS;
	copy->bio.bi_end_io = copy_written;
	if (whole) {
		this_cpu_inc(io->dev->stats->count[LF_COPY_UPS]);
		__bio_add_page(&copy->bio, copy->page, LF_META_BLOCK, 0);
	} else {
		copy->bio.bi_iter.bi_sector += off >> SECTOR_SHIFT;
		__bio_add_page(&copy->bio, copy->page, io->bytes, off);
	}
	submit_bio_noacct(&copy->bio);
}

/* What the block was is in the page, or will not come. */
static void copy_filled(struct bio *bio, blk_status_t status)
{
	struct copy *copy = container_of(bio, struct copy, bio);

	if (status)
		copy_end(copy, status);
	else
		copy_merge(copy, true);
}

static void copy_filled_work(struct work_struct *work)
{
	struct copy *copy = container_of(work, struct copy, work);

	copy_filled(&copy->bio, copy->bio.bi_status);
}

static void copy_read(struct bio *bio)
{
	queue_work(lf_wq, &container_of(bio, struct copy, bio)->work);
}

/* Bytes of a block that the device has: the last one may be cut short. */
static u32 block_bytes(const struct lf_io *io, u64 block)
{
	u64 left = (io->dev->ti->len << SECTOR_SHIFT) - block * LF_META_BLOCK;

	return min_t(u64, left, LF_META_BLOCK);
}

/* The io has claimed its block. */
static void copy_start(struct lf_io *io)
{
	struct lf_overlay *ov = overlay_of(io);
	struct dm_dev *origin = io->dev->origin;
	u64 block = io->claim.first;
	struct copy *copy;
	u32 count;

	copy = mempool_alloc(&ov->copies, GFP_NOIO);
	copy->page = mempool_alloc(&ov->pages, GFP_NOIO);
	clear_page(page_address(copy->page));
	copy->io = io;
	switch (run_of(ov, block, &count)) {
	case STATE_DIRTY:
		copy_merge(copy, false);
		return;
	case STATE_ZERO:
		copy_merge(copy, true);
		return;
	case STATE_IMAGE:
		break;
	}
	INIT_WORK(&copy->work, copy_filled_work);
	bio_init(&copy->bio, origin ? origin->bdev : ov->cow, &copy->vec, 1,
		 REQ_OP_READ);
	__bio_add_page(&copy->bio, copy->page, block_bytes(io, block), 0);
	copy->bio.bi_iter.bi_sector = block * BLOCK_SECTORS;
	copy->bio.bi_end_io = copy_read;
	if (origin)
		submit_bio_noacct(&copy->bio);
	else
		lf_image_read(io, &copy->bio, block * LF_META_BLOCK,
			      copy_filled);
}

/*
 * ----------------------------------------------------------------
 * What map() leaves to a worker
 * ----------------------------------------------------------------
 */

/* The io's blocks are its own now, or it waits for them. */
static bool claim_or_block(struct lf_overlay *ov, struct lf_io *io)
{
	unsigned long flags;
	bool mine;

	spin_lock_irqsave(&ov->lock, flags);
	mine = __claim(ov, &io->claim);
	if (!mine)
		list_add_tail(&io->waiter, &ov->blocked);
	spin_unlock_irqrestore(&ov->lock, flags);
	return mine;
}

static void write_work(struct work_struct *work)
{
	struct lf_io *io = container_of(work, struct lf_io, work);
	unsigned int noio = memalloc_noio_save();
	struct lf_overlay *ov = overlay_of(io);

	if (READ_ONCE(ov->mode) != LF_MODE_RW)
		write_end(io, BLK_STS_IOERR);
	else if (leaves_make(ov, io->claim.first, io->claim.last))
		write_end(io, BLK_STS_RESOURCE);
	else if (!claim_or_block(ov, io))
		goto out;	/* no longer ours */
	else if (io->kind == LF_IO_FRESH)
		submit_bio_noacct(bio_of(io));
	else
		copy_start(io);
out:
	memalloc_noio_restore(noio);
}

/* Blocks that read as zeros anyway need no mark, and a mark needs memory. */
static bool needs_mark(struct lf_overlay *ov, struct lf_io *io, u64 first,
		       u32 count)
{
	return leaf_of(ov, first) || io->dev->origin ||
	       lf_image_maps(io->dev, first * LF_META_BLOCK,
			     (u64)count * LF_META_BLOCK);
}

/* Zero the first of the io's blocks; false: it waits for their claim's end. */
static bool zero_some(struct lf_overlay *ov, struct lf_io *io, u32 count)
{
	unsigned long flags;
	bool mine;

	spin_lock_irqsave(&ov->lock, flags);
	mine = !__claimed(ov, io->claim.first, io->claim.first + count - 1);
	if (mine)
		__mark(ov, io->claim.first, count, false);
	else
		list_add_tail(&io->waiter, &ov->blocked);
	spin_unlock_irqrestore(&ov->lock, flags);
	return mine;
}

static void zero_work(struct work_struct *work)
{
	struct lf_io *io = container_of(work, struct lf_io, work);
	unsigned int noio = memalloc_noio_save();
	struct lf_overlay *ov = overlay_of(io);
	blk_status_t status = BLK_STS_OK;
	u32 count;

	for (; io->claim.first <= io->claim.last; io->claim.first += count) {
		count = in_leaf(io->claim.first, io->claim.last);
		if (READ_ONCE(ov->mode) != LF_MODE_RW) {
			status = BLK_STS_IOERR;
			break;
		}
		if (!needs_mark(ov, io, io->claim.first, count))
			continue;
		if (leaf_make(ov, io->claim.first)) {
			status = BLK_STS_RESOURCE;
			break;
		}
		if (!zero_some(ov, io, count))
			goto out;	/* no longer ours */
		cond_resched();
	}
	if (!status)
		this_cpu_inc(io->dev->stats->count[LF_ZEROINGS]);
	write_end(io, status);
out:
	memalloc_noio_restore(noio);
}

/*
 * ----------------------------------------------------------------
 * map()
 * ----------------------------------------------------------------
 */

static int leave_to(struct lf_io *io, work_func_t work)
{
	INIT_WORK(&io->work, work);
	queue_work(lf_wq, &io->work);
	return DM_MAPIO_SUBMITTED;
}

static int map_flush(struct lf_overlay *ov, struct lf_io *io, struct bio *bio)
{
	if (!io->dev->writable) {
		bio_endio(bio);
		return DM_MAPIO_SUBMITTED;
	}
	if (READ_ONCE(ov->uncommitted)) {
		commit_for(ov, bio);
		return DM_MAPIO_SUBMITTED;
	}
	bio_set_dev(bio, ov->cow);
	return DM_MAPIO_REMAPPED;
}

static int read_from(struct lf_io *io, struct bio *bio,
		     struct block_device *bdev, enum lf_stat stat)
{
	io->kind = LF_IO_READ;
	io->stat = stat;
	io->bytes = bio->bi_iter.bi_size;
	bio_set_dev(bio, bdev);
	return DM_MAPIO_REMAPPED;
}

static int map_read(struct lf_overlay *ov, struct lf_io *io, struct bio *bio,
		    u64 off)
{
	u64 block = off / LF_META_BLOCK;
	enum state state;
	u32 count;

	state = run_of(ov, block, &count);
	lf_cut(bio, (block + count) * LF_META_BLOCK - off);
	switch (state) {
	case STATE_DIRTY:
		return read_from(io, bio, ov->cow, LF_READS_OVERLAY);
	case STATE_ZERO:
		return lf_zero_read(io, bio);
	case STATE_IMAGE:
		break;
	}
	if (io->dev->origin)
		return read_from(io, bio, io->dev->origin->bdev,
				 LF_READS_ORIGIN);
	return lf_image_map(io, bio, off);
}

/*
 * Cut a write to one part of a block, or to whole blocks, and set its range.
 * The device's end ends a block, too.
 */
static bool whole_blocks(struct lf_io *io, struct bio *bio, u64 off)
{
	u64 dev_end = io->dev->ti->len << SECTOR_SHIFT;
	u64 end = off + bio->bi_iter.bi_size;
	u64 block = off / LF_META_BLOCK;
	bool whole = true;

	if (end < dev_end)
		end = round_down(end, LF_META_BLOCK);
	if (off % LF_META_BLOCK || end <= off) {
		whole = false;
		end = min((block + 1) * LF_META_BLOCK, dev_end);
	}
	lf_cut(bio, end - off);
	io->bytes = bio->bi_iter.bi_size;
	io->claim.first = block;
	io->claim.last = (off + io->bytes - 1) / LF_META_BLOCK;
	return whole;
}

static int map_write(struct lf_overlay *ov, struct lf_io *io, struct bio *bio,
		     u64 off)
{
	bool whole = whole_blocks(io, bio, off);
	u64 first = io->claim.first;
	u64 last = io->claim.last;

	io->fua = bio->bi_opf & REQ_FUA;
	if (all_dirty(ov, first, last)) {
		io->kind = LF_IO_REWRITE;
		/* Nothing but this write's own data is to be made durable. */
		if (io->fua && !READ_ONCE(ov->uncommitted))
			io->fua = false;
	} else if (whole) {
		io->kind = LF_IO_FRESH;
	} else {
		return leave_to(io, write_work);
	}
	if (io->fua)
		bio->bi_opf &= ~REQ_FUA;
	bio_set_dev(bio, ov->cow);
	if (io->kind == LF_IO_REWRITE)
		return DM_MAPIO_REMAPPED;
	if (!leaf_of(ov, first) || !leaf_of(ov, last))
		return leave_to(io, write_work);
	INIT_WORK(&io->work, write_work);
	return claim_or_block(ov, io) ? DM_MAPIO_REMAPPED : DM_MAPIO_SUBMITTED;
}

/* Only whole blocks; what is left at both ends stays as it is. */
static int map_discard(struct lf_overlay *ov, struct lf_io *io,
		       struct bio *bio, u64 off)
{
	u64 end = off + bio->bi_iter.bi_size;

	io->bytes = bio->bi_iter.bi_size;
	io->claim.first = DIV_ROUND_UP_ULL(off, LF_META_BLOCK);
	io->claim.last = end >> SECTOR_SHIFT == io->dev->ti->len ?
			 ov->tree.blocks : end / LF_META_BLOCK;
	if (io->claim.first >= io->claim.last) {
		bio_endio(bio);
		return DM_MAPIO_SUBMITTED;
	}
	io->claim.last--;
	return leave_to(io, zero_work);
}

static int map_write_zeroes(struct lf_io *io, struct bio *bio, u64 off)
{
	io->fua = bio->bi_opf & REQ_FUA;
	return leave_to(io, whole_blocks(io, bio, off) ? zero_work :
							 write_work);
}

int lf_overlay_map(struct lf_io *io, struct bio *bio, u64 off)
{
	struct lf_overlay *ov = overlay_of(io);

	if (bio->bi_opf & REQ_PREFLUSH)
		return map_flush(ov, io, bio);
	if (bio_op(bio) == REQ_OP_READ)
		return map_read(ov, io, bio, off);
	if (!io->dev->writable || READ_ONCE(ov->mode) != LF_MODE_RW) {
		count_write(io, BLK_STS_IOERR);
		return DM_MAPIO_KILL;
	}
	switch (bio_op(bio)) {
	case REQ_OP_WRITE:
		return map_write(ov, io, bio, off);
	case REQ_OP_DISCARD:
		return map_discard(ov, io, bio, off);
	case REQ_OP_WRITE_ZEROES:
		return map_write_zeroes(io, bio, off);
	default:
		return DM_MAPIO_KILL;
	}
}

/*
 * ----------------------------------------------------------------
 * Loading
 * ----------------------------------------------------------------
 */

static int read_node(struct lf_overlay *ov, u64 place, void *to)
{
	struct dm_buffer *buffer;
	void *from = dm_bufio_read(ov->bufio, ov->start + place, &buffer);

	if (IS_ERR(from))
		return PTR_ERR(from);
	memcpy(to, from, LF_META_BLOCK);
	dm_bufio_release(buffer);
	return 0;
}

static int load_leaf(struct lf_overlay *ov, u32 number, u32 slot, u64 sum,
		     struct lf_disk_leaf *disk, const char **why)
{
	struct node *node = &ov->node[number];
	struct leaf *leaf;
	int err;
	u32 i;

	*why = "Cannot read the overlay";
	err = read_node(ov, lf_leaf_place(&ov->tree, number, slot), disk);
	if (err)
		return err;
	*why = "a leaf of the overlay is damaged or of another time";
	if (lf_node_sum(disk, number) != sum)
		return -EILSEQ;
	err = lf_leaf_check(disk, &ov->tree, number, why);
	if (err)
		return err;
	*why = "Cannot allocate memory for the overlay";
	leaf = kmem_cache_zalloc(leaf_slab, GFP_KERNEL);
	if (!leaf)
		return -ENOMEM;
	leaf->unmap_first = LF_LEAF_BLOCKS;
	for (i = 0; i < LF_LEAF_WORDS; i++) {
		leaf->dirty[i] = le64_to_cpu(disk->dirty[i]);
		leaf->zero[i] = le64_to_cpu(disk->zero[i]);
	}
	node->leaf = leaf;
	node->sum[slot] = sum;
	node->dirty[slot] = bitmap_weight(leaf->dirty, LF_LEAF_BLOCKS);
	node->zero[slot] = bitmap_weight(leaf->zero, LF_LEAF_BLOCKS);
	ov->dirty += node->dirty[slot];
	ov->zero += node->zero[slot];
	if (slot)
		__set_bit(number, ov->slot);
	return 0;
}

static int load_index(struct lf_overlay *ov, u32 index, void *scratch,
		      const char **why)
{
	u32 slot = lf_slot_get(ov->root->slot, index);
	u64 sum = le64_to_cpu(ov->root->sum[index]);
	u32 first = index * LF_INDEX_LEAVES;
	u32 count = min(ov->tree.leaves - first, LF_INDEX_LEAVES);
	struct lf_disk_index *disk = scratch;
	int err;
	u32 i;

	if (!sum)
		return 0;
	*why = "Cannot read the overlay";
	err = read_node(ov, lf_index_place(index, slot), disk);
	if (err)
		return err;
	*why = "an index of the overlay is damaged or of another time";
	if (lf_node_sum(disk, index) != sum)
		return -EILSEQ;
	ov->index_sum[2 * index + slot] = sum;
	if (slot)
		__set_bit(index, ov->index_slot);
	for (i = 0; i < LF_INDEX_LEAVES; i++) {
		if (!disk->sum[i])
			continue;
		*why = "the overlay has more leaves than the image needs";
		if (i >= count)
			return -EINVAL;
		err = load_leaf(ov, first + i, lf_slot_get(disk->slot, i),
				le64_to_cpu(disk->sum[i]),
				scratch + LF_META_BLOCK, why);
		if (err)
			return err;
		cond_resched();
	}
	return 0;
}

static int read_identity(struct lf_overlay *ov, void *copies, const char **why)
{
	struct dm_bufio_client *bufio;
	struct dm_buffer *buffer;
	int err = 0;
	void *from;
	u32 i;

	*why = "the COW device is too small for the image: it was cut short, or is another";
	if (bdev_nr_bytes(ov->cow) < lf_cow_bytes(&ov->tree))
		return -EINVAL;
	*why = "Cannot read the COW device";
	bufio = lf_bufio_create(ov->cow);
	if (IS_ERR(bufio))
		return PTR_ERR(bufio);
	for (i = 0; i < LF_COW_COPIES && !err; i++) {
		from = dm_bufio_read(bufio, ov->tree.blocks + i, &buffer);
		if (IS_ERR(from)) {
			err = PTR_ERR(from);
			break;
		}
		memcpy(copies + i * LF_META_BLOCK, from, LF_META_BLOCK);
		dm_bufio_release(buffer);
	}
	lf_bufio_destroy(bufio);
	return err;
}

static int write_identity(struct lf_overlay *ov, u64 epoch)
{
	struct dm_bufio_client *bufio = lf_bufio_create(ov->cow);
	struct dm_buffer *buffer;
	struct lf_disk_cow *cow;
	int err;

	if (IS_ERR(bufio))
		return PTR_ERR(bufio);
	cow = dm_bufio_new(bufio, ov->tree.blocks + epoch % LF_COW_COPIES,
			   &buffer);
	err = PTR_ERR_OR_ZERO(cow);
	if (err)
		goto out;
	memset(cow, 0, sizeof(*cow));
	memcpy(cow->uuid, ov->root->uuid, sizeof(cow->uuid));
	cow->epoch = cpu_to_le64(epoch);
	cow->blocks = cpu_to_le64(ov->tree.blocks);
	lf_cow_finish(cow);
	staged(buffer);
	err = dm_bufio_write_dirty_buffers(bufio);
out:
	lf_bufio_destroy(bufio);
	return err;
}

static int load(struct lf_overlay *ov, const char **why)
{
	const struct lf_disk_root *root;
	const struct lf_disk_cow *cow;
	void *scratch;
	int err;
	u32 i;

	*why = "Cannot allocate memory for the overlay";
	scratch = kmalloc(LF_ROOT_BLOCKS * LF_META_BLOCK, GFP_KERNEL);
	if (!scratch)
		return -ENOMEM;
	*why = "Cannot read the overlay";
	for (i = 0; i < LF_ROOT_BLOCKS; i++) {
		err = read_node(ov, i, scratch + i * LF_META_BLOCK);
		if (err)
			goto out;
	}
	err = lf_root_pick(scratch, &ov->tree, &root, why);
	if (err)
		goto out;
	*ov->root = *root;
	err = read_identity(ov, scratch, why);
	if (err)
		goto out;
	err = lf_cow_pick(scratch, &ov->tree, &cow, why);
	if (!err)
		err = lf_pair_check(ov->root, cow, why);
	for (i = 0; !err && i < ov->tree.indexes; i++)
		err = load_index(ov, i, scratch, why);
out:
	kfree(scratch);
	return err;
}

static void overlay_free(struct lf_overlay *ov)
{
	u32 i;

	for (i = 0; ov->node && i < ov->tree.leaves; i++)
		if (ov->node[i].leaf)
			kmem_cache_free(leaf_slab, ov->node[i].leaf);
	if (!IS_ERR_OR_NULL(ov->bufio))
		lf_bufio_destroy(ov->bufio);
	mempool_exit(&ov->pages);
	mempool_exit(&ov->copies);
	kvfree(ov->node);
	kvfree(ov->index_sum);
	bitmap_free(ov->index_slot);
	kvfree(ov->slot);
	kvfree(ov->writing);
	kvfree(ov->changed);
	kfree(ov->root);
	kfree(ov->next);
	mutex_destroy(&ov->commit_lock);
	kfree(ov);
}

static unsigned long *leaf_bits(const struct lf_overlay *ov)
{
	return kvcalloc(BITS_TO_LONGS(ov->tree.leaves), sizeof(long),
			GFP_KERNEL);
}

static struct lf_overlay *overlay_alloc(const struct lf_tree *tree)
{
	struct lf_overlay *ov = kzalloc(sizeof(*ov), GFP_KERNEL);

	if (!ov)
		return NULL;
	ov->tree = *tree;
	ov->mode = LF_MODE_RO;
	ov->claims = RB_ROOT;
	mutex_init(&ov->commit_lock);
	spin_lock_init(&ov->lock);
	seqcount_spinlock_init(&ov->seq, &ov->lock);
	INIT_LIST_HEAD(&ov->link);
	INIT_LIST_HEAD(&ov->blocked);
	bio_list_init(&ov->flushes);
	INIT_DELAYED_WORK(&ov->commit, commit_work);
	INIT_WORK(&ov->unmap, unmap_work);
	INIT_WORK(&ov->event, event_work);
	ov->node = kvcalloc(tree->leaves, sizeof(*ov->node), GFP_KERNEL);
	ov->index_sum = kvcalloc(tree->indexes, 2 * sizeof(u64), GFP_KERNEL);
	ov->index_slot = bitmap_zalloc(tree->indexes, GFP_KERNEL);
	ov->slot = leaf_bits(ov);
	ov->writing = leaf_bits(ov);
	ov->changed = leaf_bits(ov);
	ov->root = kmalloc(sizeof(*ov->root), GFP_KERNEL);
	ov->next = kmalloc(sizeof(*ov->next), GFP_KERNEL);
	if (!ov->node || !ov->index_sum || !ov->index_slot || !ov->slot ||
	    !ov->writing || !ov->changed || !ov->root || !ov->next ||
	    mempool_init_kmalloc_pool(&ov->copies, MIN_COPIES,
				      sizeof(struct copy)) ||
	    mempool_init_page_pool(&ov->pages, MIN_COPIES, 0)) {
		overlay_free(ov);
		return NULL;
	}
	return ov;
}

static struct lf_overlay *overlay_open(struct block_device *meta,
				       struct block_device *cow, u64 start,
				       const struct lf_tree *tree,
				       const char **why)
{
	struct lf_overlay *ov;
	int err;

	*why = "Cannot allocate memory for the overlay";
	ov = overlay_alloc(tree);
	if (!ov)
		return ERR_PTR(-ENOMEM);
	ov->meta_dev = meta->bd_dev;
	ov->cow = cow;
	ov->start = start;
	ov->bufio = lf_bufio_create(meta);
	err = PTR_ERR_OR_ZERO(ov->bufio);
	if (err)
		*why = "Cannot open the meta device through dm-bufio";
	else
		err = load(ov, why);
	if (!err)
		return ov;
	overlay_free(ov);
	return ERR_PTR(err);
}

/*
 * ----------------------------------------------------------------
 * Tables share an overlay; one device at a time is its owner
 * ----------------------------------------------------------------
 */

/*
 * A table may be loaded while another one that names the same overlay is
 * active: what is in memory is true then, what is on disk is of the last
 * commit.
 */
struct lf_overlay *lf_overlay_get(struct block_device *meta,
				  struct block_device *cow,
				  const struct lf_super *super,
				  const char **why)
{
	u64 start = super->region[LF_REGION_OVERLAY].start;
	struct lf_overlay *ov;
	struct lf_tree tree;
	int err;

	*why = "the meta device has no overlay: format it for a COW device";
	if (!super->region[LF_REGION_OVERLAY].bytes)
		return ERR_PTR(-EINVAL);
	err = lf_tree_shape(super->image_bytes, &tree, why);
	if (err)
		return ERR_PTR(err);

	mutex_lock(&lf_overlays_lock);
	list_for_each_entry(ov, &lf_overlays, link) {
		bool same_meta = ov->meta_dev == meta->bd_dev;
		bool same_cow = ov->cow->bd_dev == cow->bd_dev;

		if (!same_meta && !same_cow)
			continue;
		if (same_meta && same_cow && ov->start == start &&
		    ov->tree.blocks == tree.blocks) {
			ov->users++;
			goto out;
		}
		*why = "the meta or the COW device is in use, but not with the other";
		ov = ERR_PTR(-EBUSY);
		goto out;
	}
	ov = overlay_open(meta, cow, start, &tree, why);
	if (!IS_ERR(ov)) {
		ov->users = 1;
		list_add(&ov->link, &lf_overlays);
	}
out:
	mutex_unlock(&lf_overlays_lock);
	return ov;
}

void lf_overlay_put(struct lf_overlay *ov)
{
	mutex_lock(&lf_overlays_lock);
	if (!--ov->users) {
		list_del(&ov->link);
		/* A commit that failed at suspend may have left one behind. */
		cancel_delayed_work_sync(&ov->commit);
		cancel_work_sync(&ov->unmap);
		cancel_work_sync(&ov->event);
		overlay_free(ov);
	}
	mutex_unlock(&lf_overlays_lock);
}

bool lf_overlay_sealed(struct lf_overlay *ov)
{
	bool sealed;

	mutex_lock(&ov->commit_lock);
	sealed = ov->root->flags & cpu_to_le32(LF_ROOT_SEALED);
	mutex_unlock(&ov->commit_lock);
	return sealed;
}

const u8 *lf_overlay_uuid(const struct lf_overlay *ov)
{
	return ov->root->uuid;
}

/* The next epoch; see overlay_disk.h. Context: commit_lock held. */
static int begin_epoch(struct lf_overlay *ov)
{
	u64 epoch = le64_to_cpu(ov->root->epoch) + 1;
	int err;

	/* Interrupted there before: the COW device may have this epoch. */
	if (ov->root->flags & cpu_to_le32(LF_ROOT_ACTIVATING))
		epoch--;
	err = commit_root(ov, LF_ROOT_ACTIVATING, epoch);
	if (!err)
		err = write_identity(ov, epoch);
	if (!err)
		err = commit_root(ov, 0, epoch);
	ov->open = !err;
	return err;
}

static int make_writable(struct lf_overlay *ov)
{
	int err;

	if (ov->root->flags & cpu_to_le32(LF_ROOT_SEALED))
		return -EROFS;
	if (READ_ONCE(ov->mode) == LF_MODE_RW)
		return 0;
	err = ov->open ? commit(ov, false) : begin_epoch(ov);
	if (!err)
		set_mode(ov, LF_MODE_RW, NULL);
	return err;
}

int lf_overlay_activate(struct lf_device *dev)
{
	struct lf_overlay *ov = dev->overlay;
	unsigned int noio = memalloc_noio_save();
	unsigned long flags;
	int err = 0;

	spin_lock_irqsave(&ov->lock, flags);
	if (ov->owner && ov->owner != dev)
		err = -EBUSY;
	else
		ov->owner = dev;
	spin_unlock_irqrestore(&ov->lock, flags);
	if (!err && dev->writable) {
		mutex_lock(&ov->commit_lock);
		err = make_writable(ov);
		mutex_unlock(&ov->commit_lock);
	}
	memalloc_noio_restore(noio);
	return err;
}

void lf_overlay_deactivate(struct lf_device *dev)
{
	struct lf_overlay *ov = dev->overlay;
	unsigned long flags;
	unsigned int noio;

	/* Only this device changes it from or to itself, and not now. */
	if (READ_ONCE(ov->owner) != dev)
		return;
	noio = memalloc_noio_save();
	cancel_delayed_work_sync(&ov->commit);
	mutex_lock(&ov->commit_lock);
	if (dev->writable && READ_ONCE(ov->mode) == LF_MODE_RW)
		commit(ov, ov->sealing);
	mutex_unlock(&ov->commit_lock);
	cancel_delayed_work_sync(&ov->commit);
	/* What is not given back yet may wait, a suspend may not. */
	WRITE_ONCE(ov->leaving, true);
	cancel_work_sync(&ov->unmap);
	WRITE_ONCE(ov->leaving, false);
	flush_work(&ov->event);
	spin_lock_irqsave(&ov->lock, flags);
	ov->owner = NULL;
	spin_unlock_irqrestore(&ov->lock, flags);
	memalloc_noio_restore(noio);
}

int lf_overlay_seal(struct lf_overlay *ov, bool seal)
{
	int err = 0;

	mutex_lock(&ov->commit_lock);
	ov->sealing = seal;
	if (!seal && (ov->root->flags & cpu_to_le32(LF_ROOT_SEALED)))
		err = commit(ov, false);
	mutex_unlock(&ov->commit_lock);
	return err;
}

int lf_overlay_commit(struct lf_overlay *ov)
{
	int err;

	mutex_lock(&ov->commit_lock);
	err = commit_if_writable(ov);
	mutex_unlock(&ov->commit_lock);
	return err;
}

void lf_overlay_info(struct lf_overlay *ov, struct lf_overlay_info *info)
{
	info->mode = READ_ONCE(ov->mode);
	info->dirty = READ_ONCE(ov->dirty);
	info->zero = READ_ONCE(ov->zero);
}

int lf_overlays_init(void)
{
	leaf_slab = kmem_cache_create("lazyframe_leaf", sizeof(struct leaf), 0,
				      0, NULL);
	if (!leaf_slab)
		return -ENOMEM;
	commit_wq = alloc_workqueue("lazyframe-commit",
				    WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!commit_wq) {
		kmem_cache_destroy(leaf_slab);
		return -ENOMEM;
	}
	return 0;
}

void lf_overlays_exit(void)
{
	destroy_workqueue(commit_wq);
	kmem_cache_destroy(leaf_slab);
}

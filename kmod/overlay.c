// SPDX-License-Identifier: GPL-2.0-only
/*
 * The overlay: what a device wrote. Which blocks, in bitmaps in memory; what,
 * on the COW device. commit.c makes both last.
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
 * Context
 * -------
 * Bits change under ov->lock, in any context; map() reads them without it,
 * guarded by ov->seq. Leaves are allocated by workers and stay.
 */
#include <linux/mm.h>
#include <linux/sched/mm.h>

#include "overlay.h"

#define BLOCK_SECTORS	(LF_META_BLOCK >> SECTOR_SHIFT)

enum state {
	STATE_IMAGE,
	STATE_DIRTY,
	STATE_ZERO,
};

/*
 * ----------------------------------------------------------------
 * Bits
 * ----------------------------------------------------------------
 */

static u64 leaf_first(u32 number)
{
	return (u64)number * LF_LEAF_BLOCKS;
}

static struct lf_leaf *leaf_of(const struct lf_overlay *ov, u64 block)
{
	/* Pairs with leaf_make(). */
	return smp_load_acquire(&ov->leaf[block / LF_LEAF_BLOCKS]);
}

/* The state of a block, and of how many of @blocks from there on, in its leaf. */
static enum state run_of(struct lf_overlay *ov, u64 block, u64 blocks,
			 u32 *count)
{
	u32 bit = block % LF_LEAF_BLOCKS;
	u32 limit = min_t(u64, bit + blocks, LF_LEAF_BLOCKS);
	const struct lf_leaf *leaf = leaf_of(ov, block);
	unsigned int seq;
	enum state state;
	u32 end;

	if (!leaf) {
		*count = limit - bit;
		return STATE_IMAGE;
	}
	do {
		seq = read_seqcount_begin(&ov->seq);
		if (test_bit(bit, leaf->dirty)) {
			state = STATE_DIRTY;
			end = find_next_zero_bit(leaf->dirty, limit, bit);
		} else if (test_bit(bit, leaf->zero)) {
			state = STATE_ZERO;
			end = find_next_zero_bit(leaf->zero, limit, bit);
		} else {
			state = STATE_IMAGE;
			end = find_next_bit(leaf->dirty, limit, bit);
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
		if (run_of(ov, first, last - first + 1, &count) != STATE_DIRTY)
			return false;
	return true;
}

/* Before anybody sets a bit in it. */
static int leaf_make(struct lf_overlay *ov, u64 block)
{
	struct lf_leaf **place = &ov->leaf[block / LF_LEAF_BLOCKS];
	struct lf_leaf *leaf;
	unsigned long flags;

	if (leaf_of(ov, block))
		return 0;
	leaf = kmem_cache_zalloc(lf_leaf_slab, GFP_NOIO);
	if (!leaf)
		return -ENOMEM;
	leaf->unmap_first = LF_LEAF_BLOCKS;
	spin_lock_irqsave(&ov->lock, flags);
	if (!*place) {
		/* Empty before it is seen. */
		smp_store_release(place, leaf);
		leaf = NULL;
	}
	spin_unlock_irqrestore(&ov->lock, flags);
	if (leaf)
		kmem_cache_free(lf_leaf_slab, leaf);
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
		queue_delayed_work(lf_commit_wq, &ov->commit, LF_COMMIT_DELAY);
	}
}

/* All in one leaf. Under the lock. */
static void __mark(struct lf_overlay *ov, u64 first, u32 count, bool dirty)
{
	struct lf_leaf *leaf = leaf_of(ov, first);
	u32 bit = first % LF_LEAF_BLOCKS;
	u32 were_dirty, were_zero;

	were_dirty = weight(leaf->dirty, bit, count);
	were_zero = weight(leaf->zero, bit, count);
	if ((dirty ? were_dirty : were_zero) == count)
		return;
	/* Who sees the bits has to see that they are not committed. */
	__changed(ov, first / LF_LEAF_BLOCKS);
	write_seqcount_begin(&ov->seq);
	bitmap_set(dirty ? leaf->dirty : leaf->zero, bit, count);
	bitmap_clear(dirty ? leaf->zero : leaf->dirty, bit, count);
	write_seqcount_end(&ov->seq);
	WRITE_ONCE(ov->dirty, ov->dirty + (dirty ? count : 0) - were_dirty);
	WRITE_ONCE(ov->zero, ov->zero + (dirty ? 0 : count) - were_zero);
	if (!dirty && were_dirty) {
		leaf->unmap_first = min_t(u32, leaf->unmap_first, bit);
		leaf->unmap_last = max_t(u32, leaf->unmap_last,
					 bit + count - 1);
	}
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
 * Giving back the space of blocks that were zeroed
 * ----------------------------------------------------------------
 */

static void give_back(struct lf_overlay *ov, u64 first, u32 count)
{
	sector_t sector = first * BLOCK_SECTORS;
	sector_t sectors = (sector_t)count * BLOCK_SECTORS;
	int err = 0;

	/*
	 * A read that is still in flight sees the old data or zeros; where there
	 * are only discards, what the device makes of those.
	 */
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
 * Claim the first run of blocks of a leaf that may be given back. What a commit
 * has not made durable may not: after a crash those blocks are dirty again.
 */
static bool unmap_claim(struct lf_overlay *ov, u32 number,
			struct lf_claim *claim)
{
	struct lf_leaf *leaf = ov->leaf[number];
	u64 base = leaf_first(number);
	struct lf_claim *other;
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
		if (bit == end)
			break;
		claim->first = base + bit;
		claim->last = base + end - 1;
		other = __claimed(ov, claim->first, claim->last);
		if (other) {
			/* Those of the other will be dirty again. */
			leaf->unmap_first = min_t(u64, end,
						  other->last + 1 - base);
			if (other->first <= claim->first)
				continue;
			claim->last = other->first - 1;
		}
		found = __claim(ov, claim);
		if (!found)
			leaf->unmap_first = bit;
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

void lf_overlay_unmap(struct work_struct *work)
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

void lf_overlay_count_write(struct lf_io *io, blk_status_t status)
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

	io->kind = LF_IO_OTHER;
	if (!status && io->fua) {
		lf_overlay_commit_for(overlay_of(io), bio);
		return;
	}
	lf_overlay_count_write(io, status);
	bio->bi_status = status;
	bio_endio(bio);
}

static void cow_failed(struct lf_overlay *ov, blk_status_t status)
{
	if (status != BLK_STS_DM_REQUEUE)
		lf_overlay_set_mode(ov, LF_MODE_RO,
				    "a write or flush of the COW device failed");
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

int lf_overlay_end_io(struct lf_io *io, struct bio *bio, blk_status_t status)
{
	enum lf_io_kind kind = io->kind;

	/* A bio that waits for a commit comes here twice. */
	io->kind = LF_IO_OTHER;
	switch (kind) {
	case LF_IO_OTHER:
		return DM_ENDIO_DONE;
	case LF_IO_READ:
		lf_count_read(io->dev, status, io->stat, io->bytes);
		return DM_ENDIO_DONE;
	case LF_IO_FRESH:
		claim_end(io, !status);
		break;
	case LF_IO_REWRITE:
	case LF_IO_FLUSH:
		break;
	}
	if (status)
		cow_failed(overlay_of(io), status);
	if (!status && io->fua) {
		lf_overlay_commit_for(overlay_of(io), bio);
		return DM_ENDIO_INCOMPLETE;
	}
	if (kind != LF_IO_FLUSH)
		lf_overlay_count_write(io, status);
	return DM_ENDIO_DONE;
}

/*
 * ----------------------------------------------------------------
 * Copy-up
 * ----------------------------------------------------------------
 */

static void copy_end(struct lf_copy *copy, blk_status_t status)
{
	struct lf_io *io = copy->io;
	struct lf_overlay *ov = overlay_of(io);

	mempool_free(copy->page, &ov->pages);
	mempool_free(copy, &ov->copies);
	/* Who found none left looks again then. */
	claim_end(io, !status);
	write_end(io, status);
}

static void copy_written(struct bio *bio)
{
	struct lf_copy *copy = container_of(bio, struct lf_copy, bio);

	if (bio->bi_status)
		cow_failed(overlay_of(copy->io), bio->bi_status);
	copy_end(copy, bio->bi_status);
}

/*
 * Put the write's bytes over what the page has, and write it: the whole block,
 * but only these bytes where the block is dirty. Rewrites of its other bytes
 * may be in flight.
 */
static void copy_merge(struct lf_copy *copy, bool whole)
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
	struct lf_copy *copy = container_of(bio, struct lf_copy, bio);

	if (status)
		copy_end(copy, status);
	else
		copy_merge(copy, true);
}

static void copy_filled_work(struct work_struct *work)
{
	struct lf_copy *copy = container_of(work, struct lf_copy, work);

	copy_filled(&copy->bio, copy->bio.bi_status);
}

static void copy_read(struct bio *bio)
{
	queue_work(lf_wq, &container_of(bio, struct lf_copy, bio)->work);
}

/* Bytes of a block that the device has: the last one may be cut short. */
static u32 block_bytes(const struct lf_io *io, u64 block)
{
	u64 left = (io->dev->ti->len << SECTOR_SHIFT) - block * LF_META_BLOCK;

	return min_t(u64, left, LF_META_BLOCK);
}

/* NULL: all are in use and there is no memory for more. */
static struct lf_copy *copy_alloc(struct lf_overlay *ov)
{
	struct lf_copy *copy = mempool_alloc(&ov->copies, GFP_NOWAIT);

	if (!copy)
		return NULL;
	copy->page = mempool_alloc(&ov->pages, GFP_NOWAIT);
	if (copy->page)
		return copy;
	mempool_free(copy, &ov->copies);
	return NULL;
}

/*
 * Give up the claim, and go on when another ends. There is one, if only another
 * copy-up's, which has what was not to be had. Must not wait here instead: those
 * may wait for the helper, and the workers are everybody's.
 */
static void copy_later(struct lf_overlay *ov, struct lf_io *io)
{
	unsigned long flags;

	spin_lock_irqsave(&ov->lock, flags);
	__unclaim(ov, &io->claim);
	if (RB_EMPTY_ROOT(&ov->claims))
		queue_work(lf_wq, &io->work);
	else
		list_add_tail(&io->waiter, &ov->blocked);
	spin_unlock_irqrestore(&ov->lock, flags);
}

/* The io has claimed its block. */
static void copy_start(struct lf_io *io)
{
	struct lf_overlay *ov = overlay_of(io);
	struct dm_dev *origin = io->dev->origin;
	u64 block = io->claim.first;
	struct lf_copy *copy;
	u32 count;

	copy = copy_alloc(ov);
	if (!copy) {
		copy_later(ov, io);
		return;
	}
	clear_page(page_address(copy->page));
	copy->io = io;
	switch (run_of(ov, block, 1, &count)) {
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
	bio_init(&copy->bio, origin ? origin->bdev : NULL, &copy->vec, 1,
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
		lf_overlay_commit_for(ov, bio);
		return DM_MAPIO_SUBMITTED;
	}
	io->kind = LF_IO_FLUSH;
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
	u64 end = off + bio->bi_iter.bi_size;
	enum state state;
	u32 count;

	state = run_of(ov, block, (end - 1) / LF_META_BLOCK - block + 1,
		       &count);
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
		lf_overlay_count_write(io, BLK_STS_IOERR);
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


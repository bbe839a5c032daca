// SPDX-License-Identifier: GPL-2.0-only
/*
 * What lasts of an overlay: its bits, from memory to the meta device and back.
 * overlay_disk.h has the layout and the crash argument.
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
 */
#include <linux/dm-bufio.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>

#include "overlay.h"

#define MIN_COPIES	16

static LIST_HEAD(lf_overlays);
static DEFINE_MUTEX(lf_overlays_lock);
struct kmem_cache *lf_leaf_slab;
struct workqueue_struct *lf_commit_wq;

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

void __lf_overlay_set_mode(struct lf_overlay *ov, enum lf_mode mode,
			   const char *why)
{
	if (ov->mode == mode)
		return;
	WRITE_ONCE(ov->mode, mode);
	if (why)
		DMERR_LIMIT("overlay %pUb: no more writes: %s", ov->root->uuid,
			    why);
	if (ov->owner)
		queue_work(lf_commit_wq, &ov->event);
}

void lf_overlay_set_mode(struct lf_overlay *ov, enum lf_mode mode,
			 const char *why)
{
	unsigned long flags;

	spin_lock_irqsave(&ov->lock, flags);
	__lf_overlay_set_mode(ov, mode, why);
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

static u32 free_slot(const struct lf_overlay *ov, u32 number)
{
	return !test_bit(number, ov->slot);
}

static int stage_leaf(struct lf_overlay *ov, u32 number)
{
	struct lf_leaf *leaf = ov->leaf[number];
	u32 slot = free_slot(ov, number);
	struct lf_disk_leaf *disk;
	struct dm_buffer *buffer;
	unsigned long flags;
	u32 i;

	disk = stage(ov, lf_leaf_place(&ov->tree, number, slot), &buffer);
	if (IS_ERR(disk))
		return PTR_ERR(disk);
	spin_lock_irqsave(&ov->lock, flags);
	for (i = 0; i < LF_LEAF_WORDS; i++) {
		disk->dirty[i] = cpu_to_le64(leaf->dirty[i]);
		disk->zero[i] = cpu_to_le64(leaf->zero[i]);
	}
	spin_unlock_irqrestore(&ov->lock, flags);
	leaf->sum[slot] = lf_node_sum(disk, number);
	leaf->dirty_in[slot] = bitmap_weight((void *)disk->dirty,
					     LF_LEAF_BLOCKS);
	leaf->zero_in[slot] = bitmap_weight((void *)disk->zero,
					    LF_LEAF_BLOCKS);
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
	u32 slot = !lf_slot_get(ov->root->slot, index);
	struct lf_disk_index *disk;
	struct dm_buffer *buffer;
	u32 i;

	disk = stage(ov, lf_index_place(index, slot), &buffer);
	if (IS_ERR(disk))
		return PTR_ERR(disk);
	memset(disk, 0, sizeof(*disk));
	for (i = 0; i < count; i++) {
		const struct lf_leaf *leaf = READ_ONCE(ov->leaf[first + i]);
		u32 s = leaf_slot(ov, first + i);

		disk->sum[i] = cpu_to_le64(leaf ? leaf->sum[s] : 0);
		if (s)
			lf_slot_flip(disk->slot, i);
	}
	ov->next->sum[index] = cpu_to_le64(lf_node_sum(disk, index));
	lf_slot_flip(ov->next->slot, index);
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
		struct lf_leaf *leaf = ov->leaf[number];
		u32 slot = free_slot(ov, number);

		dirty += leaf->dirty_in[slot] - leaf->dirty_in[!slot];
		zero += leaf->zero_in[slot] - leaf->zero_in[!slot];
	}
	ov->next->dirty = cpu_to_le64(dirty);
	ov->next->zero = cpu_to_le64(zero);
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
	/* It names the new slots: so does memory. */
	bitmap_xor(ov->slot, ov->slot, ov->writing, ov->tree.leaves);
	swap(ov->root, ov->next);
	return 0;
}

/* Make durable what was written. Context: commit_lock held. */
static int commit_bits(struct lf_overlay *ov, bool seal)
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

	if (!changes && flags == le32_to_cpu(ov->root->flags)) {
		err = blkdev_issue_flush(ov->cow);
		if (err)
			lf_overlay_set_mode(ov, LF_MODE_RO, "a flush failed");
		return err;
	}
	err = commit_root(ov, flags, le64_to_cpu(ov->root->epoch));

	spin_lock_irqsave(&ov->lock, irq);
	if (err)
		bitmap_or(ov->changed, ov->changed, ov->writing,
			  ov->tree.leaves);
	bitmap_zero(ov->writing, ov->tree.leaves);
	WRITE_ONCE(ov->uncommitted,
		   !bitmap_empty(ov->changed, ov->tree.leaves));
	if (!err && ov->owner)
		this_cpu_inc(ov->owner->stats->count[LF_COMMITS]);
	if (err || seal)
		__lf_overlay_set_mode(ov, LF_MODE_RO,
				      err ? "a commit failed" : NULL);
	else if (ov->uncommitted)
		queue_delayed_work(lf_commit_wq, &ov->commit, LF_COMMIT_DELAY);
	spin_unlock_irqrestore(&ov->lock, irq);
	return err;
}

/* With changes, a read-only overlay cannot keep what a flush promises. */
static int commit_if_writable(struct lf_overlay *ov)
{
	if (READ_ONCE(ov->mode) == LF_MODE_RW)
		return commit_bits(ov, false);
	/* What was written before may still be in the COW device's cache. */
	return READ_ONCE(ov->uncommitted) ? -EROFS :
					    blkdev_issue_flush(ov->cow);
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
	mutex_unlock(&ov->commit_lock);
	while ((bio = bio_list_pop(&bios))) {
		struct lf_io *io = dm_per_bio_data(bio, sizeof(*io));

		bio->bi_status = err ? BLK_STS_IOERR : BLK_STS_OK;
		if (io->fua)
			lf_overlay_count_write(io, bio->bi_status);
		bio_endio(bio);
	}
	if (!err)
		queue_work(lf_wq, &ov->unmap);
	memalloc_noio_restore(noio);
}

/* The bio ends when all that was acknowledged before is durable. */
void lf_overlay_commit_for(struct lf_overlay *ov, struct bio *bio)
{
	unsigned long flags;

	spin_lock_irqsave(&ov->lock, flags);
	bio_list_add(&ov->flushes, bio);
	/* Behind the lock the bio may have ended, and the device be gone. */
	mod_delayed_work(lf_commit_wq, &ov->commit, 0);
	spin_unlock_irqrestore(&ov->lock, flags);
}

/*
 * ----------------------------------------------------------------
 * Loading
 * ----------------------------------------------------------------
 */

static int read_node(struct lf_overlay *ov, u64 place, void *to)
{
	return lf_bufio_read(ov->bufio, ov->start + place, to, LF_META_BLOCK);
}

static int load_leaf(struct lf_overlay *ov, u32 number, u32 slot, u64 sum,
		     struct lf_disk_leaf *disk, const char **why)
{
	struct lf_leaf *leaf;
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
	leaf = kmem_cache_zalloc(lf_leaf_slab, GFP_KERNEL);
	if (!leaf)
		return -ENOMEM;
	for (i = 0; i < LF_LEAF_WORDS; i++) {
		leaf->dirty[i] = le64_to_cpu(disk->dirty[i]);
		leaf->zero[i] = le64_to_cpu(disk->zero[i]);
	}
	ov->leaf[number] = leaf;
	leaf->unmap_first = LF_LEAF_BLOCKS;
	leaf->sum[slot] = sum;
	leaf->dirty_in[slot] = bitmap_weight(leaf->dirty, LF_LEAF_BLOCKS);
	leaf->zero_in[slot] = bitmap_weight(leaf->zero, LF_LEAF_BLOCKS);
	ov->dirty += leaf->dirty_in[slot];
	ov->zero += leaf->zero_in[slot];
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
	*why = "the COW device is too small for the image: it was cut short, or is another";
	if (bdev_nr_bytes(ov->cow) < lf_cow_bytes(&ov->tree))
		return -EINVAL;
	*why = "Cannot read the COW device";
	return lf_bufio_read(ov->cow_bufio, ov->tree.blocks, copies,
			     LF_COW_COPIES * LF_META_BLOCK);
}

static int write_identity(struct lf_overlay *ov, u64 epoch)
{
	struct dm_buffer *buffer;
	struct lf_disk_cow *cow;

	cow = dm_bufio_new(ov->cow_bufio,
			   ov->tree.blocks + epoch % LF_COW_COPIES, &buffer);
	if (IS_ERR(cow))
		return PTR_ERR(cow);
	memset(cow, 0, sizeof(*cow));
	memcpy(cow->uuid, ov->root->uuid, sizeof(cow->uuid));
	cow->epoch = cpu_to_le64(epoch);
	cow->blocks = cpu_to_le64(ov->tree.blocks);
	lf_cow_finish(cow);
	staged(buffer);
	return dm_bufio_write_dirty_buffers(ov->cow_bufio);
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
	err = lf_bufio_read(ov->bufio, ov->start, scratch,
			    LF_ROOT_BLOCKS * LF_META_BLOCK);
	if (err)
		goto out;
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
	if (!err && (ov->dirty != le64_to_cpu(ov->root->dirty) ||
		     ov->zero != le64_to_cpu(ov->root->zero))) {
		*why = "the overlay's counts do not fit its leaves";
		err = -EINVAL;
	}
out:
	kfree(scratch);
	return err;
}

static void overlay_free(struct lf_overlay *ov)
{
	u32 i;

	for (i = 0; ov->leaf && i < ov->tree.leaves; i++)
		if (ov->leaf[i])
			kmem_cache_free(lf_leaf_slab, ov->leaf[i]);
	if (!IS_ERR_OR_NULL(ov->cow_bufio))
		lf_bufio_destroy(ov->cow_bufio);
	if (!IS_ERR_OR_NULL(ov->bufio))
		lf_bufio_destroy(ov->bufio);
	mempool_exit(&ov->pages);
	mempool_exit(&ov->copies);
	kvfree(ov->leaf);
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
	INIT_WORK(&ov->unmap, lf_overlay_unmap);
	INIT_WORK(&ov->event, event_work);
	ov->leaf = kvcalloc(tree->leaves, sizeof(*ov->leaf), GFP_KERNEL);
	ov->slot = leaf_bits(ov);
	ov->writing = leaf_bits(ov);
	ov->changed = leaf_bits(ov);
	ov->root = kmalloc(sizeof(*ov->root), GFP_KERNEL);
	ov->next = kmalloc(sizeof(*ov->next), GFP_KERNEL);
	if (!ov->leaf || !ov->slot || !ov->writing || !ov->changed ||
	    !ov->root || !ov->next ||
	    mempool_init_kmalloc_pool(&ov->copies, MIN_COPIES,
				      sizeof(struct lf_copy)) ||
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
	/* Not when it is resumed: to make one takes locks of the allocator. */
	*why = "Cannot open the COW device through dm-bufio";
	ov->cow_bufio = lf_bufio_create(cow);
	err = PTR_ERR_OR_ZERO(ov->cow_bufio);
	if (err)
		goto failed;
	*why = "Cannot open the meta device through dm-bufio";
	ov->bufio = lf_bufio_create(meta);
	err = PTR_ERR_OR_ZERO(ov->bufio);
	if (err)
		goto failed;
	err = load(ov, why);
	if (err)
		goto failed;
	return ov;
failed:
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
	err = ov->open ? commit_bits(ov, false) : begin_epoch(ov);
	if (!err)
		lf_overlay_set_mode(ov, LF_MODE_RW, NULL);
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
		commit_bits(ov, ov->sealing);
	ov->sealing = false;
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
	if (seal && READ_ONCE(ov->mode) != LF_MODE_RW)
		err = -EROFS;
	ov->sealing = seal && !err;
	if (!seal && (ov->root->flags & cpu_to_le32(LF_ROOT_SEALED)))
		err = commit_bits(ov, false);
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

struct lf_overlay_info lf_overlay_info(const struct lf_device *dev)
{
	const struct lf_overlay *ov = dev->overlay;
	struct lf_overlay_info info = { .mode = LF_MODE_RO };

	if (ov) {
		info.mode = READ_ONCE(ov->mode);
		info.dirty = READ_ONCE(ov->dirty);
		info.zero = READ_ONCE(ov->zero);
	}
	return info;
}

int lf_overlays_init(void)
{
	lf_leaf_slab = kmem_cache_create("lazyframe_leaf",
					 sizeof(struct lf_leaf), 0, 0, NULL);
	if (!lf_leaf_slab)
		return -ENOMEM;
	lf_commit_wq = alloc_workqueue("lazyframe-commit",
				       WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!lf_commit_wq) {
		kmem_cache_destroy(lf_leaf_slab);
		return -ENOMEM;
	}
	return 0;
}

void lf_overlays_exit(void)
{
	destroy_workqueue(lf_commit_wq);
	kmem_cache_destroy(lf_leaf_slab);
}

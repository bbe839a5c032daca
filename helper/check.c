// SPDX-License-Identifier: GPL-2.0-only
/*
 * What is repaired is what the rest tells for sure:
 *
 *	a superblock slot that is damaged while the other is good: wiped. Both
 *	describe the same content, see meta_plan_replace()
 *	a copy of the root or of the COW device's identity: from its twin
 *	counts in the root that are not the tree's, bits behind the image's end:
 *	by a commit as the module makes them, so that a crash changes nothing
 *
 * Never the bits of blocks that exist: nothing tells what they were.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "devfile.h"
#include "io.h"
#include "meta.h"
#include "overlay.h"
#include "uuid.h"

/**
 * struct run - one check
 * @fix_root: the root is to be written anew
 */
struct run {
	struct check *check;
	struct devfile meta;
	struct devfile cow;
	bool repair;
	struct overlay overlay;
	bool fix_root;
};

__attribute__((format(printf, 3, 4)))
static struct check_finding *add(struct check *check, const char *place,
				 const char *fmt, ...)
{
	struct check_finding *finding;
	va_list args;

	finding = reallocarray(check->finding, check->count + 1UL,
			       sizeof(*finding));
	if (!finding)
		return NULL;
	check->finding = finding;
	finding += check->count++;
	memset(finding, 0, sizeof(*finding));
	snprintf(finding->place, sizeof(finding->place), "%s", place);
	va_start(args, fmt);
	vsnprintf(finding->what, sizeof(finding->what), fmt, args);
	va_end(args);
	check->damaged++;
	return finding;
}

static void repaired(struct check *check, struct check_finding *finding)
{
	if (!finding || finding->repaired)
		return;
	finding->repaired = true;
	check->damaged--;
}

/* Write a block and wait until it is on disk. */
static int put_block(const struct devfile *file, const void *block, u64 place,
		     struct error *e)
{
	int err;

	err = io_pwrite(file->fd, block, LF_META_BLOCK, place * LF_META_BLOCK);
	if (!err && fsync(file->fd))
		err = -errno;
	return err ? error_set(e, err, "repairing block %llu: %s",
			       (unsigned long long)place, strerror(-err)) : 0;
}

static bool is_zero(const void *block)
{
	const char *p = block;

	return !*p && !memcmp(p, p + 1, LF_META_BLOCK - 1);
}

/* Return: 1: there is a superblock to go on with; 0: there is none */
static int check_super(struct run *run, struct error *e)
{
	u8 slots[LF_SUPER_SLOTS][LF_META_BLOCK] = {};
	static const u8 zeros[LF_META_BLOCK];
	struct check *check = run->check;
	const char *why[LF_SUPER_SLOTS];
	bool good[LF_SUPER_SLOTS];
	struct lf_super super;
	char place[32];
	int err;
	u32 i;

	if (run->meta.bytes < sizeof(slots)) {
		add(check, "meta device", "too small for superblocks");
		return 0;
	}
	err = io_pread(run->meta.fd, slots, sizeof(slots), 0);
	if (err)
		return error_set(e, err, "reading the superblock: %s",
				 strerror(-err));
	for (i = 0; i < LF_SUPER_SLOTS; i++) {
		good[i] = !lf_super_check(slots[i], i, run->meta.bytes, &super,
					  &why[i]);
		if (good[i] && (!check->has_super ||
				super.sequence > check->super.sequence)) {
			check->super = super;
			check->has_super = true;
		}
	}
	for (i = 0; i < LF_SUPER_SLOTS; i++) {
		struct check_finding *finding;

		/* One is empty until another image takes the first one's place. */
		if (good[i] || (check->has_super && is_zero(slots[i])))
			continue;
		snprintf(place, sizeof(place), "superblock slot %u", i);
		finding = add(check, place, "%s", why[i]);
		if (!check->has_super || !run->repair)
			continue;
		err = put_block(&run->meta, zeros, i, e);
		if (err)
			return err;
		repaired(check, finding);
	}
	return check->has_super;
}

static int check_regions(struct run *run, struct error *e)
{
	static const char *const name[] = {
		"LAYERS", "EXTENTS", "RUNS", "FRAMES", "STRINGS",
	};
	void *region[LF_REGIONS] = {};
	struct check *check = run->check;
	struct error why = {};
	bool whole = true;
	int err = 0;
	u32 i;

	for (i = 0; !err && i < LF_REGION_OVERLAY; i++) {
		char place[32];

		err = meta_read_region(run->meta.fd, &check->super, i,
				       &region[i], &why);
		if (err == -ENOMEM) {
			*e = why;
			break;
		}
		if (!err)
			continue;
		snprintf(place, sizeof(place), "region %s", name[i]);
		add(check, place, "%s", err == -EBADMSG ?
		    "its checksum is wrong" : strerror(-err));
		whole = false;
		err = 0;
	}
	if (!err && whole && meta_check_regions(region, &check->super, &why))
		add(check, "image", "%s", why.text);
	for (i = 0; i < LF_REGIONS; i++)
		free(region[i]);
	return err;
}

/* Return: 1: there is a root to go on with; 0: there is none */
static int check_root(struct run *run, struct error *e)
{
	u8 roots[LF_ROOT_BLOCKS][LF_META_BLOCK];
	const struct lf_disk_root *root;
	struct check *check = run->check;
	struct overlay *o = &run->overlay;
	const char *why;
	char place[32];
	u32 first, i;
	int err;

	o->fd = run->meta.fd;
	o->base = check->super.region[LF_REGION_OVERLAY].start * LF_META_BLOCK;
	o->loaded = ~0U;
	err = lf_tree_shape(check->super.image_bytes, &o->tree, &why);
	if (err)
		return error_set(e, err, "%s", why);
	err = io_pread(run->meta.fd, roots, sizeof(roots), o->base);
	if (err)
		return error_set(e, err, "reading the root: %s",
				 strerror(-err));
	if (lf_root_pick(roots, &o->tree, &root, &why)) {
		add(check, "root", "%s", why);
		return 0;
	}
	check->root = *root;
	check->has_overlay = true;
	o->root = *root;

	/* The other slot may hold what an interrupted commit left. */
	first = lf_root_place(le64_to_cpu(root->sequence), 0);
	for (i = first; i < first + LF_ROOT_COPIES; i++) {
		struct check_finding *finding;

		if (!memcmp(roots[i], root, sizeof(*root)))
			continue;
		snprintf(place, sizeof(place), "root slot %u copy %u",
			 first / LF_ROOT_COPIES, i - first);
		if (!lf_root_check((const void *)roots[i], &o->tree, i, &why))
			why = "it is another commit's than its twin";
		finding = add(check, place, "%s", why);
		if (!run->repair)
			continue;
		err = put_block(&run->meta, root,
				o->base / LF_META_BLOCK + i, e);
		if (err)
			return err;
		repaired(check, finding);
	}
	return 1;
}

/* The bits of blocks that do not exist. Return: were there any? */
static bool clear_beyond(struct lf_disk_leaf *leaf, const struct lf_tree *tree,
			 u32 number)
{
	u64 first = (u64)number * LF_LEAF_BLOCKS;
	bool found = false;
	u32 bit;

	for (bit = 0; bit < LF_LEAF_BLOCKS; bit++) {
		if (first + bit < tree->blocks)
			continue;
		if (lf_slot_get(leaf->dirty, bit)) {
			lf_slot_flip(leaf->dirty, bit);
			found = true;
		}
		if (lf_slot_get(leaf->zero, bit)) {
			lf_slot_flip(leaf->zero, bit);
			found = true;
		}
	}
	return found;
}

/* Write a leaf or an index into its free slot; @sum and @slot name it then. */
static int put_node(struct run *run, const void *node, u32 number, u64 place,
		    __le64 *sum, __le64 *slot, u32 entry, struct error *e)
{
	int err;

	err = put_block(&run->meta, node,
			run->overlay.base / LF_META_BLOCK + place, e);
	if (err)
		return err;
	*sum = cpu_to_le64(lf_node_sum(node, number));
	lf_slot_flip(slot, entry);
	return 0;
}

/* One leaf; @index is its index, and changes with it if it is repaired. */
static int check_leaf(struct run *run, u32 number, struct lf_disk_index *index,
		      bool *changed, struct error *e)
{
	struct overlay *o = &run->overlay;
	u32 entry = number % LF_INDEX_LEAVES;
	u32 slot = lf_slot_get(index->slot, entry);
	struct check *check = run->check;
	struct check_finding *finding;
	struct lf_disk_leaf leaf;
	const char *why;
	u64 dirty, zero;
	char place[32];
	int err;

	if (!index->sum[entry])
		return 0;
	snprintf(place, sizeof(place), "leaf %u", number);
	err = io_pread(o->fd, &leaf, sizeof(leaf), o->base +
		       lf_leaf_place(&o->tree, number, slot) * LF_META_BLOCK);
	if (err) {
		add(check, place, "cannot be read: %s", strerror(-err));
		return 0;
	}
	if (lf_node_sum(&leaf, number) != le64_to_cpu(index->sum[entry])) {
		add(check, place,
		    "its checksum is wrong: what blocks %llu to %llu are is not known",
		    (unsigned long long)number * LF_LEAF_BLOCKS,
		    (unsigned long long)(number + 1ULL) * LF_LEAF_BLOCKS - 1);
		return 0;
	}
	if (clear_beyond(&leaf, &o->tree, number)) {
		finding = add(check, place,
			      "the overlay has blocks behind the image");
		if (run->repair) {
			err = put_node(run, &leaf, number,
				       lf_leaf_place(&o->tree, number, !slot),
				       &index->sum[entry], index->slot, entry,
				       e);
			if (err)
				return err;
			repaired(check, finding);
			*changed = true;
		}
	}
	if (lf_leaf_check(&leaf, &o->tree, number, &why))
		add(check, place, "%s", why);
	overlay_leaf_count(&leaf, &dirty, &zero);
	check->dirty += dirty;
	check->zero += zero;
	return 0;
}

static int check_index(struct run *run, u32 number, struct error *e)
{
	struct overlay *o = &run->overlay;
	u32 first = number * LF_INDEX_LEAVES;
	struct check *check = run->check;
	struct lf_disk_index index;
	struct error why = {};
	bool changed = false;
	char place[32];
	int err;
	u32 i;

	if (!o->root.sum[number])
		return 0;
	snprintf(place, sizeof(place), "index %u", number);
	if (overlay_index(o, number, &index, &why)) {
		add(check, place,
		    "%s: what blocks %llu to %llu are is not known", why.text,
		    (unsigned long long)first * LF_LEAF_BLOCKS,
		    ((unsigned long long)first + LF_INDEX_LEAVES) *
		    LF_LEAF_BLOCKS - 1);
		return 0;
	}
	for (i = 0; i < LF_INDEX_LEAVES; i++) {
		if (first + i < o->tree.leaves) {
			err = check_leaf(run, first + i, &index, &changed, e);
			if (err)
				return err;
		} else if (index.sum[i]) {
			add(check, place,
			    "it has more leaves than the image needs");
			break;
		}
	}
	if (!changed)
		return 0;
	run->fix_root = true;
	return put_node(run, &index, number,
			lf_index_place(number, !lf_slot_get(o->root.slot,
							    number)),
			&o->root.sum[number], o->root.slot, number, e);
}

/* The root of a commit that holds what was repaired. */
static int write_root(struct run *run, struct error *e)
{
	struct overlay *o = &run->overlay;
	u64 sequence = le64_to_cpu(o->root.sequence) + 1;
	int err = 0;
	u32 i;

	o->root.sequence = cpu_to_le64(sequence);
	o->root.dirty = cpu_to_le64(run->check->dirty);
	o->root.zero = cpu_to_le64(run->check->zero);
	lf_root_finish(&o->root);
	for (i = 0; !err && i < LF_ROOT_COPIES; i++)
		err = put_block(&run->meta, &o->root,
				o->base / LF_META_BLOCK +
				lf_root_place(sequence, i), e);
	return err;
}

static int check_tree(struct run *run, struct error *e)
{
	struct overlay *o = &run->overlay;
	struct check *check = run->check;
	struct check_finding *finding;
	u32 damaged = check->damaged, first = check->count, i;
	int err;

	for (i = 0; i < o->tree.indexes; i++) {
		err = check_index(run, i, e);
		if (err)
			return err;
	}
	/* Of a tree with holes nobody knows the counts. */
	if (check->damaged == damaged &&
	    (le64_to_cpu(o->root.dirty) != check->dirty ||
	     le64_to_cpu(o->root.zero) != check->zero)) {
		finding = add(check, "root",
			      "it counts %llu dirty and %llu zero blocks, the tree has %llu and %llu",
			      (unsigned long long)le64_to_cpu(o->root.dirty),
			      (unsigned long long)le64_to_cpu(o->root.zero),
			      (unsigned long long)check->dirty,
			      (unsigned long long)check->zero);
		if (run->repair) {
			run->fix_root = true;
			repaired(check, finding);
		}
	}
	if (!run->fix_root)
		return 0;
	if (check->damaged == damaged) {
		err = write_root(run, e);
		if (!err)
			check->root = o->root;
		return err;
	}
	/* Without a new root nothing has changed. */
	for (i = first; i < check->count; i++) {
		check->damaged += check->finding[i].repaired;
		check->finding[i].repaired = false;
	}
	return 0;
}

/* Is there an identity in a copy's place, and of this overlay? */
static bool cow_good(const struct lf_disk_cow *copies, u32 i,
		     const struct lf_tree *tree, const struct lf_disk_root *root,
		     struct lf_disk_cow *good)
{
	struct lf_disk_cow alone[LF_COW_COPIES] = {};
	const struct lf_disk_cow *found;
	const char *why;

	alone[i] = copies[i];
	if (lf_cow_pick(alone, tree, &found, &why) ||
	    memcmp(found->uuid, root->uuid, sizeof(root->uuid)) != 0)
		return false;
	*good = *found;
	return true;
}

/*
 * A copy that is damaged while the other is good. Each holds an epoch of its
 * own, so both can be told from the root; but only if the other is the one
 * that fits: an older COW device is not to be taken for a damaged one.
 */
static int check_copy(struct run *run, const struct lf_disk_cow *copies, u32 i,
		      struct error *e)
{
	struct check *check = run->check;
	const struct lf_disk_root *root = &check->root;
	struct lf_tree *tree = &run->overlay.tree;
	u64 epoch = le64_to_cpu(root->epoch);
	struct check_finding *finding;
	struct lf_disk_cow cow, other;
	char place[32];
	u64 mine;
	int err;

	if (is_zero(&copies[i]) || cow_good(copies, i, tree, root, &cow) ||
	    !cow_good(copies, !i, tree, root, &other))
		return 0;
	mine = epoch % LF_COW_COPIES == i ? epoch : epoch - 1;
	if (le64_to_cpu(other.epoch) != (mine == epoch ? epoch - 1 : epoch))
		return 0;
	/* Activation was interrupted: the next one writes it. */
	if (mine == epoch && le32_to_cpu(root->flags) & LF_ROOT_ACTIVATING)
		return 0;
	snprintf(place, sizeof(place), "COW identity copy %u", i);
	cow = other;
	cow.epoch = cpu_to_le64(mine);
	lf_cow_finish(&cow);
	finding = add(check, place, "its checksum is wrong");
	if (!run->repair)
		return 0;
	err = put_block(&run->cow, &cow, tree->blocks + i, e);
	if (!err)
		repaired(check, finding);
	return err;
}

static int check_cow(struct run *run, struct error *e)
{
	struct lf_tree *tree = &run->overlay.tree;
	struct lf_disk_cow copies[LF_COW_COPIES], cow;
	struct check *check = run->check;
	const char *why;
	int err;
	u32 i;

	if (run->cow.bytes < lf_cow_bytes(tree)) {
		add(check, "COW device",
		    "it has %llu bytes, the image and its identity need %llu",
		    (unsigned long long)run->cow.bytes,
		    (unsigned long long)lf_cow_bytes(tree));
		return 0;
	}
	err = io_pread(run->cow.fd, copies, sizeof(copies),
		       tree->blocks * LF_META_BLOCK);
	if (err)
		return error_set(e, err, "reading the COW device: %s",
				 strerror(-err));
	for (i = 0; i < LF_COW_COPIES; i++) {
		err = check_copy(run, copies, i, e);
		if (err)
			return err;
	}
	err = overlay_cow_read(run->cow.fd, run->cow.bytes, tree, &cow, &why);
	if (err == -ENODATA) {
		err = -EINVAL;
		why = "it belongs to no overlay";
	}
	if (!err)
		err = lf_pair_check(&check->root, &cow, &why);
	if (err == -EINVAL) {
		add(check, "COW device", "%s", why);
		return 0;
	}
	return err ? error_set(e, err, "reading the COW device: %s",
			       strerror(-err)) : 0;
}

static int check_all(struct run *run, struct error *e)
{
	int ret;

	ret = check_super(run, e);
	if (ret <= 0)
		return ret;
	ret = check_regions(run, e);
	if (ret)
		return ret;
	if (!run->check->super.region[LF_REGION_OVERLAY].bytes) {
		if (run->cow.fd >= 0)
			add(run->check, "meta device",
			    "it has no overlay, so no COW device belongs to it");
		return 0;
	}
	ret = check_root(run, e);
	if (ret <= 0)
		return ret;
	ret = check_tree(run, e);
	if (!ret && run->cow.fd >= 0)
		ret = check_cow(run, e);
	return ret;
}

int check_run(const char *meta, const char *cow, bool repair,
	      struct check *check, struct error *e)
{
	enum devfile_how how = repair ? DEVFILE_WRITE : DEVFILE_READ;
	struct run run = { .check = check, .repair = repair };
	int err;

	memset(check, 0, sizeof(*check));
	run.cow.fd = -1;
	err = devfile_open(meta, how, &run.meta, e);
	if (!err && cow)
		err = devfile_open(cow, how, &run.cow, e);
	if (!err)
		err = check_all(&run, e);
	devfile_close(&run.meta);
	devfile_close(&run.cow);
	return err;
}

void check_drop(struct check *check)
{
	free(check->finding);
	check->finding = NULL;
	check->count = 0;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * The meta device: read through dm-bufio, checked by the pure code in disk.c,
 * and turned into extents and references to layers.
 *
 * Nothing of it is trusted: the superblock and every region carry checksums
 * against accidents, and every number is checked as if they did not.
 */
#include <linux/blkdev.h>
#include <linux/dm-bufio.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "lazyframe.h"

/* Read ahead in steps of a MiB, so that one region does not fill the cache. */
#define PREFETCH_BLOCKS	256

int lf_bufio_read(struct dm_bufio_client *bufio, u64 start, void *to, u64 bytes)
{
	struct dm_buffer *buffer;
	u64 block, n;
	void *from;

	for (block = 0; bytes; block++, bytes -= n, to += n) {
		if (!(block % PREFETCH_BLOCKS))
			dm_bufio_prefetch(bufio, start + block,
					  min_t(u64, PREFETCH_BLOCKS,
						DIV_ROUND_UP_ULL(bytes, LF_META_BLOCK)));
		from = dm_bufio_read(bufio, start + block, &buffer);
		if (IS_ERR(from))
			return PTR_ERR(from);
		n = min_t(u64, bytes, LF_META_BLOCK);
		memcpy(to, from, n);
		dm_bufio_release(buffer);
		cond_resched();
	}
	return 0;
}

static int read_super(struct dm_bufio_client *bufio, u64 dev_bytes,
		      struct lf_super *super, const char **why)
{
	u64 bytes = LF_SUPER_SLOTS * LF_META_BLOCK;
	void *slots;
	int err;

	*why = "not a lazyframe meta device: it is too small";
	if (dev_bytes < bytes)
		return -EINVAL;
	*why = "Cannot allocate memory for the superblock";
	slots = kmalloc(bytes, GFP_KERNEL);
	if (!slots)
		return -ENOMEM;
	*why = "Cannot read the meta device";
	err = lf_bufio_read(bufio, 0, slots, bytes);
	if (!err)
		err = lf_super_pick(slots, dev_bytes, super, why);
	kfree(slots);
	return err;
}

static void *read_region(struct dm_bufio_client *bufio,
			 const struct lf_super *super, enum lf_region region,
			 const char **why)
{
	u64 bytes = super->region[region].bytes;
	void *data;
	int err;

	*why = "Cannot allocate memory for the metadata";
	/* An image without layers or extents has empty regions. */
	data = kvmalloc(max_t(u64, bytes, 1), GFP_KERNEL);
	if (!data)
		return ERR_PTR(-ENOMEM);
	*why = "Cannot read the meta device";
	err = lf_bufio_read(bufio, super->region[region].start, data, bytes);
	if (err)
		goto bad;
	*why = "Metadata is damaged: a region's checksum is wrong";
	err = -EILSEQ;
	if (xxh64(data, bytes, 0) != super->region[region].sum)
		goto bad;
	return data;
bad:
	kvfree(data);
	return ERR_PTR(err);
}

/* Runs of at most LF_RUN_FRAMES frames share a U size: look at each run only. */
static u32 largest_frame(const struct lf_table *table)
{
	u32 i, most = 0;

	for (i = 0; i < table->runs; i++)
		most = max(most, le32_to_cpu(table->run[i].ubytes));
	return most;
}

/* Entries of RUNS and FRAMES that the layers before have taken. */
struct used {
	u32 runs;
	u32 frames;
};

static int get_layer(struct lf_image *image, u32 i,
		     const struct lf_disk_layer *layer, void *const *region,
		     struct used *used, const char **why)
{
	const struct lf_disk_run *run = region[LF_REGION_RUNS];
	const struct lf_disk_frame *frame = region[LF_REGION_FRAMES];
	const char *strings = region[LF_REGION_STRINGS];
	struct lf_layer_table *table;
	struct lf_layer_spec spec;
	int err;

	err = lf_layer_check(layer, &image->super, why);
	if (err)
		return err;
	/* One layer after another, so that the regions bound all the work. */
	if (le32_to_cpu(layer->first_run) != used->runs ||
	    le32_to_cpu(layer->first_frame) != used->frames) {
		*why = "Metadata is damaged: layers share a frame table";
		return -EINVAL;
	}
	used->runs += le32_to_cpu(layer->runs);
	used->frames += le32_to_cpu(layer->frames);
	spec = (struct lf_layer_spec) {
		.uuid = layer->uuid,
		.codec = le32_to_cpu(layer->codec),
		.ubytes = le64_to_cpu(layer->ubytes),
		.cbytes = le64_to_cpu(layer->cbytes),
		.table = {
			.run = run + le32_to_cpu(layer->first_run),
			.frame = frame + le32_to_cpu(layer->first_frame),
			.runs = le32_to_cpu(layer->runs),
			.frames = le32_to_cpu(layer->frames),
			.sums = le32_to_cpu(layer->flags) & LF_LAYER_SUMS,
		},
		.locator = strings + le32_to_cpu(layer->locator),
		.locator_bytes = le32_to_cpu(layer->locator_bytes),
		.validator = strings + le32_to_cpu(layer->validator),
		.validator_bytes = le32_to_cpu(layer->validator_bytes),
	};
	if (memchr(spec.locator, 0, spec.locator_bytes) ||
	    memchr(spec.validator, 0, spec.validator_bytes)) {
		*why = "Metadata is damaged: a locator or validator holds a NUL";
		return -EINVAL;
	}
	err = lf_table_check(&spec.table, spec.codec, spec.ubytes, spec.cbytes,
			     why);
	if (err)
		return err;
	table = lf_layer_get(&spec, why);
	if (IS_ERR(table))
		return PTR_ERR(table);
	image->table[i] = table;
	image->max_frame = max(image->max_frame, largest_frame(&spec.table));
	return 0;
}

static int load(struct dm_bufio_client *bufio, u64 dev_bytes,
		struct lf_image *image, const char **why)
{
	void *region[LF_REGIONS] = {};
	struct used used = {};
	struct lf_super *super = &image->super;
	int err, i;
	u32 layer;

	err = read_super(bufio, dev_bytes, super, why);
	if (err)
		return err;

	for (i = 0; i < LF_REGION_OVERLAY; i++) {
		region[i] = read_region(bufio, super, i, why);
		if (IS_ERR(region[i])) {
			err = PTR_ERR(region[i]);
			region[i] = NULL;
			goto out;
		}
	}

	*why = "Cannot allocate memory for the layers";
	err = -ENOMEM;
	image->table = kvcalloc(max(super->layers, 1U), sizeof(*image->table),
				GFP_KERNEL);
	if (!image->table)
		goto out;
	for (layer = 0; layer < super->layers; layer++) {
		const struct lf_disk_layer *layers = region[LF_REGION_LAYERS];

		err = get_layer(image, layer, &layers[layer], region, &used,
				why);
		if (err)
			goto out;
		cond_resched();
	}
	err = lf_extents_check(region[LF_REGION_EXTENTS], super->extents,
			       region[LF_REGION_LAYERS], super->layers,
			       super->image_bytes, why);
	if (err)
		goto out;
	image->extent = region[LF_REGION_EXTENTS];
	region[LF_REGION_EXTENTS] = NULL;
out:
	for (i = 0; i < LF_REGIONS; i++)
		kvfree(region[i]);
	return err;
}

/*
 * Clients come and go one at a time: they share a slab cache that the last one
 * destroys, and Linux 6.1 fails with -ENOMEM to make a new one between the
 * cache's end and that of its name in sysfs.
 */
static DEFINE_MUTEX(lf_bufio_lock);

struct dm_bufio_client *lf_bufio_create(struct block_device *bdev)
{
	struct dm_bufio_client *bufio;
	unsigned int noio;

	mutex_lock(&lf_bufio_lock);
	/* A device that is being resumed may wait for the lock. */
	noio = memalloc_noio_save();
	bufio = dm_bufio_client_create(bdev, LF_META_BLOCK, 1, 0, NULL, NULL,
				       0);
	memalloc_noio_restore(noio);
	mutex_unlock(&lf_bufio_lock);
	return bufio;
}

void lf_bufio_destroy(struct dm_bufio_client *bufio)
{
	mutex_lock(&lf_bufio_lock);
	dm_bufio_client_destroy(bufio);
	mutex_unlock(&lf_bufio_lock);
}

int lf_meta_load(struct block_device *bdev, struct lf_image *image,
		 const char **why)
{
	struct dm_bufio_client *bufio;
	int err;

	memset(image, 0, sizeof(*image));
	bufio = lf_bufio_create(bdev);
	if (IS_ERR(bufio)) {
		*why = "Cannot open the meta device through dm-bufio";
		return PTR_ERR(bufio);
	}
	err = load(bufio, bdev_nr_bytes(bdev), image, why);
	lf_bufio_destroy(bufio);
	if (err)
		lf_meta_unload(image);
	return err;
}

void lf_meta_unload(struct lf_image *image)
{
	u32 i;

	for (i = 0; image->table && i < image->super.layers; i++)
		if (image->table[i])
			lf_layer_put(image->table[i]);
	kvfree(image->table);
	kvfree(image->extent);
	memset(image, 0, sizeof(*image));
}

int lf_frame_bits_alloc(struct lf_frame_bits *bits,
			const struct lf_image *image)
{
	u32 layers = image->super.layers, i;

	*bits = (struct lf_frame_bits) {
		.first = kvmalloc_array(max(layers, 1U), sizeof(*bits->first),
					GFP_KERNEL),
	};
	if (!bits->first)
		return -ENOMEM;
	for (i = 0; i < layers; i++) {
		bits->first[i] = bits->count;
		bits->count += image->table[i]->table.frames;
	}
	bits->bit = kvcalloc(max_t(u32, BITS_TO_LONGS(bits->count), 1),
			     sizeof(*bits->bit), GFP_KERNEL);
	if (bits->bit)
		return 0;
	lf_frame_bits_free(bits);
	return -ENOMEM;
}

void lf_frame_bits_free(struct lf_frame_bits *bits)
{
	kvfree(bits->first);
	kvfree(bits->bit);
	*bits = (struct lf_frame_bits) {};
}

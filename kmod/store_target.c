// SPDX-License-Identifier: GPL-2.0-only
/*
 * The target that a store lies on. Its device is there to be named by others;
 * reading it shows the cache device.
 *
 *	0 <sectors> lazyframe-store <cache_dev> [<#features> <feature>...]
 *
 * The store is open while the device is not suspended. While it is suspended,
 * those who name it do without.
 */
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uuid.h>

#include "store.h"

/*
 * struct target - one table; another may be loaded on the same device
 * @opened: it is the active one
 */
struct target {
	struct dm_dev *cache;
	struct lf_store *store;
	bool read_only;
	bool opened;
};

struct lf_store *lf_store_on(struct block_device *bdev)
{
	return lf_store_find(bdev->bd_dev, false);
}

static int parse_features(struct target *target, struct dm_target *ti,
			  struct dm_arg_set *as)
{
	static const struct dm_arg args[] = {
		{ 0, 1, "Invalid number of feature arguments" },
	};
	unsigned int argc;

	if (!as->argc)
		return 0;
	if (dm_read_arg_group(args, as, &argc, &ti->error))
		return -EINVAL;
	if (argc && strcasecmp(dm_shift_arg(as), "read_only")) {
		ti->error = "Unknown feature argument";
		return -EINVAL;
	}
	target->read_only = argc;
	if (!as->argc)
		return 0;
	ti->error = "Too many arguments";
	return -EINVAL;
}

static int store_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct mapped_device *md = dm_table_get_md(ti->table);
	struct dm_arg_set as = { .argc = argc, .argv = argv };
	struct target *target;
	const char *why;
	int err;

	if (!argc) {
		ti->error = "Expected <cache_dev>";
		return -EINVAL;
	}
	target = kzalloc(sizeof(*target), GFP_KERNEL);
	if (!target) {
		ti->error = "Cannot allocate the store";
		return -ENOMEM;
	}
	ti->error = "Cannot open the cache device";
	err = dm_get_device(ti, dm_shift_arg(&as),
			    dm_table_get_mode(ti->table), &target->cache);
	if (err)
		goto out_free;
	err = parse_features(target, ti, &as);
	if (err)
		goto out_device;
	ti->error = "A store that is created read-only needs the feature read_only";
	err = -EINVAL;
	if (!(dm_table_get_mode(ti->table) & LF_OPEN_WRITE) &&
	    !target->read_only)
		goto out_device;
	err = lf_store_probe(target->cache->bdev, &why);
	if (err) {
		ti->error = (char *)why;
		goto out_device;
	}
	ti->error = "Cannot allocate the store";
	err = -ENOMEM;
	target->store = lf_store_find(disk_devt(dm_disk(md)), true);
	if (!target->store)
		goto out_device;
	ti->private = target;
	return 0;

out_device:
	dm_put_device(ti, target->cache);
out_free:
	kfree(target);
	return err;
}

static void close_store(struct target *target)
{
	if (target->opened)
		lf_store_close(target->store);
	target->opened = false;
}

static void store_dtr(struct dm_target *ti)
{
	struct target *target = ti->private;

	/* Resumed halfway: another target of the table refused to. */
	close_store(target);
	lf_store_put(target->store);
	dm_put_device(ti, target->cache);
	kfree(target);
}

static int store_preresume(struct dm_target *ti)
{
	struct target *target = ti->private;
	const char *why;
	int err;

	close_store(target);
	err = lf_store_open(target->store, target->cache->bdev, ti->table,
			    target->read_only, &why);
	if (err)
		DMERR("%s: %s", dm_table_device_name(ti->table), why);
	target->opened = !err;
	return err;
}

static void store_postsuspend(struct dm_target *ti)
{
	close_store(ti->private);
}

static int store_map(struct dm_target *ti, struct bio *bio)
{
	struct target *target = ti->private;

	if (bio_op(bio) != REQ_OP_READ)
		return DM_MAPIO_KILL;
	bio_set_dev(bio, target->cache->bdev);
	bio->bi_iter.bi_sector = dm_target_offset(ti, bio->bi_iter.bi_sector);
	return DM_MAPIO_REMAPPED;
}

static void status_info(struct lf_store *store, char *result,
			unsigned int maxlen)
{
	static const char * const modes[] = { "rw", "ro", "fail" };
	unsigned int sz = 0, i;

	/* Not under write_lock: a disk that hangs shall not hang this. */
	spin_lock(&store->lock);
	if (!store->active) {
		DMEMIT("-");
		goto out;
	}
	DMEMIT("%pUb %s %llu/%llu %u", store->uuid, modes[store->mode],
	       store->used,
	       (u64)store->shape.segments * lf_segment_sectors(store),
	       store->count);
	for (i = 0; i < LF_STORE_STATS; i++)
		DMEMIT(" %llu", store->stat[i]);
	if (store->scrubbing)
		DMEMIT(" scrub %llu%%", div_u64(100ULL * READ_ONCE(store->scrub_next),
						store->shape.segments *
						store->shape.slots));
	else
		DMEMIT(" -");
	DMEMIT(" %zu", lf_store_memory(store));
out:
	spin_unlock(&store->lock);
}

static void store_status(struct dm_target *ti, status_type_t type,
			 unsigned int flags, char *result, unsigned int maxlen)
{
	struct target *target = ti->private;
	unsigned int sz = 0;

	switch (type) {
	case STATUSTYPE_INFO:
		status_info(target->store, result, maxlen);
		break;
	case STATUSTYPE_TABLE:
		DMEMIT("%s%s", target->cache->name,
		       target->read_only ? " 1 read_only" : "");
		break;
	case STATUSTYPE_IMA:
		DMEMIT_TARGET_NAME_VERSION(ti->type);
		DMEMIT(",cache_device_name=%s,read_only=%c;",
		       target->cache->name, target->read_only ? 'y' : 'n');
		break;
	}
}

static int store_message(struct dm_target *ti, unsigned int argc, char **argv,
			 char *result, unsigned int maxlen)
{
	struct target *target = ti->private;
	bool pin = !strcasecmp(argv[0], "pin");
	uuid_t uuid;

	if (argc == 1 && !strcasecmp(argv[0], "scrub"))
		return lf_store_scrub(target->store);
	if (argc == 2 && (pin || !strcasecmp(argv[0], "unpin")) &&
	    !uuid_parse(argv[1], &uuid))
		return lf_store_pin(target->store, uuid.b, pin);
	DMERR("%s: unknown message or no UUID: %s %s",
	      dm_table_device_name(ti->table), argv[0],
	      argc > 1 ? argv[1] : "");
	return -EINVAL;
}

static int store_iterate_devices(struct dm_target *ti,
				 iterate_devices_callout_fn fn, void *data)
{
	struct target *target = ti->private;

	return fn(ti, target->cache, 0, ti->len, data);
}

static struct target_type store_target = {
	.name = "lazyframe-store",
	.version = { 0, 1, 0 },
	.features = DM_TARGET_SINGLETON,
	.module = THIS_MODULE,
	.ctr = store_ctr,
	.dtr = store_dtr,
	.map = store_map,
	.preresume = store_preresume,
	.postsuspend = store_postsuspend,
	.status = store_status,
	.message = store_message,
	.iterate_devices = store_iterate_devices,
};

int lf_store_target_init(void)
{
	return dm_register_target(&store_target);
}

void lf_store_target_exit(void)
{
	dm_unregister_target(&store_target);
}

MODULE_ALIAS("dm-lazyframe-store");

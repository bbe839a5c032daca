// SPDX-License-Identifier: GPL-2.0-only
/*
 * Counters. Those of a device are below its disk, /sys/block/dm-N/lazyframe/;
 * those of the module, whose layers all devices share, are below
 * /sys/class/misc/lazyframe/. Each file holds one number. histogram.c has the
 * folders latency/ in both.
 */
#include <linux/sysfs.h>

#include "lazyframe.h"

atomic64_t lf_module_stat[LF_MODULE_STATS];

void lf_count_read(struct lf_device *dev, blk_status_t status,
		   enum lf_stat stat, u32 bytes)
{
	struct lf_stats __percpu *stats = dev->stats;

	if (status == BLK_STS_DM_REQUEUE)
		return;
	this_cpu_inc(stats->count[LF_READS]);
	this_cpu_inc(stats->count[status ? LF_READS_FAILED : stat]);
	if (!status)
		this_cpu_add(stats->count[LF_READ_BYTES], bytes);
}

u64 lf_stat_read(struct lf_device *dev, enum lf_stat stat)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += per_cpu_ptr(dev->stats, cpu)->count[stat];
	return sum;
}

/*
 * ----------------------------------------------------------------
 * /sys/block/dm-N/lazyframe
 * ----------------------------------------------------------------
 */

#define STAT_SHOW(_name, _stat)						\
static ssize_t _name##_show(struct kobject *kobj,			\
			    struct kobj_attribute *attr, char *buf)	\
{									\
	struct lf_device *dev = container_of(kobj, struct lf_device, kobj); \
									\
	return sysfs_emit(buf, "%llu\n", lf_stat_read(dev, _stat));	\
}									\
static struct kobj_attribute _name##_attr = __ATTR_RO(_name)

STAT_SHOW(reads, LF_READS);
STAT_SHOW(reads_overlay, LF_READS_OVERLAY);
STAT_SHOW(reads_origin, LF_READS_ORIGIN);
STAT_SHOW(reads_zero, LF_READS_ZERO);
STAT_SHOW(reads_memory, LF_READS_MEMORY);
STAT_SHOW(reads_store, LF_READS_STORE);
STAT_SHOW(reads_fetched, LF_READS_FETCHED);
STAT_SHOW(reads_failed, LF_READS_FAILED);
STAT_SHOW(read_bytes, LF_READ_BYTES);
STAT_SHOW(frames_demanded, LF_FRAMES_DEMANDED);
STAT_SHOW(frames_prefetched, LF_FRAMES_PREFETCHED);
STAT_SHOW(frames_bad, LF_FRAMES_BAD);
STAT_SHOW(prefetch_bytes, LF_PREFETCH_BYTES);
STAT_SHOW(prefetch_useful_bytes, LF_PREFETCH_USEFUL);
STAT_SHOW(prefetch_late_bytes, LF_PREFETCH_LATE);
STAT_SHOW(prefetch_wasted_bytes, LF_PREFETCH_WASTED);
STAT_SHOW(prefetch_stored_bytes, LF_PREFETCH_STORED);
STAT_SHOW(writes, LF_WRITES);
STAT_SHOW(writes_failed, LF_WRITES_FAILED);
STAT_SHOW(write_bytes, LF_WRITE_BYTES);
STAT_SHOW(copy_ups, LF_COPY_UPS);
STAT_SHOW(zeroings, LF_ZEROINGS);
STAT_SHOW(commits, LF_COMMITS);

static ssize_t waiting_show(struct kobject *kobj, struct kobj_attribute *attr,
			    char *buf)
{
	struct lf_device *dev = container_of(kobj, struct lf_device, kobj);

	return sysfs_emit(buf, "%u\n", READ_ONCE(dev->waiting));
}

static struct kobj_attribute waiting_attr = __ATTR_RO(waiting);

/* Without an overlay: no blocks, and mode "-". */
#define OVERLAY_SHOW(_name, _field)					\
static ssize_t _name##_show(struct kobject *kobj,			\
			    struct kobj_attribute *attr, char *buf)	\
{									\
	struct lf_device *dev = container_of(kobj, struct lf_device, kobj); \
									\
	return sysfs_emit(buf, "%llu\n", lf_overlay_info(dev)._field);	\
}									\
static struct kobj_attribute _name##_attr = __ATTR_RO(_name)

OVERLAY_SHOW(dirty_blocks, dirty);
OVERLAY_SHOW(zero_blocks, zero);

static ssize_t mode_show(struct kobject *kobj, struct kobj_attribute *attr,
			 char *buf)
{
	struct lf_device *dev = container_of(kobj, struct lf_device, kobj);

	return sysfs_emit(buf, "%s\n", lf_mode_name(dev));
}

static struct kobj_attribute mode_attr = __ATTR_RO(mode);

static struct attribute *device_attrs[] = {
	&reads_attr.attr,
	&reads_overlay_attr.attr,
	&reads_origin_attr.attr,
	&reads_zero_attr.attr,
	&reads_memory_attr.attr,
	&reads_store_attr.attr,
	&reads_fetched_attr.attr,
	&reads_failed_attr.attr,
	&read_bytes_attr.attr,
	&frames_demanded_attr.attr,
	&frames_prefetched_attr.attr,
	&frames_bad_attr.attr,
	&prefetch_bytes_attr.attr,
	&prefetch_useful_bytes_attr.attr,
	&prefetch_late_bytes_attr.attr,
	&prefetch_wasted_bytes_attr.attr,
	&prefetch_stored_bytes_attr.attr,
	&writes_attr.attr,
	&writes_failed_attr.attr,
	&write_bytes_attr.attr,
	&copy_ups_attr.attr,
	&zeroings_attr.attr,
	&commits_attr.attr,
	&dirty_blocks_attr.attr,
	&zero_blocks_attr.attr,
	&mode_attr.attr,
	&waiting_attr.attr,
	NULL
};

static const struct attribute_group device_group = {
	.attrs = device_attrs,
};

static const struct attribute_group *device_groups[] = {
	&device_group,
	&lf_latency_group,
	NULL
};

static void device_kobj_release(struct kobject *kobj)
{
	struct lf_device *dev = container_of(kobj, struct lf_device, kobj);

	complete(&dev->kobj_gone);
}

static const struct kobj_type device_kobj_type = {
	.release = device_kobj_release,
	.sysfs_ops = &kobj_sysfs_ops,
	.default_groups = device_groups,
};

void lf_sysfs_add(struct lf_device *dev)
{
	struct gendisk *disk = dm_disk(dm_table_get_md(dev->ti->table));
	int err;

	memset(&dev->kobj, 0, sizeof(dev->kobj));
	init_completion(&dev->kobj_gone);
	err = kobject_init_and_add(&dev->kobj, &device_kobj_type,
				   &disk_to_dev(disk)->kobj, "lazyframe");
	dev->has_kobj = !err;
	if (err) {
		DMWARN("%s: no counters in sysfs: error %d",
		       dm_table_device_name(dev->ti->table), err);
		kobject_put(&dev->kobj);
		wait_for_completion(&dev->kobj_gone);
	}
}

void lf_sysfs_remove(struct lf_device *dev)
{
	if (!dev->has_kobj)
		return;
	kobject_del(&dev->kobj);
	kobject_put(&dev->kobj);
	wait_for_completion(&dev->kobj_gone);
	dev->has_kobj = false;
}

/*
 * ----------------------------------------------------------------
 * /sys/class/misc/lazyframe
 * ----------------------------------------------------------------
 */

#define MODULE_SHOW(_name, _value)					\
static ssize_t _name##_show(struct device *device,			\
			    struct device_attribute *attr, char *buf)	\
{									\
	return sysfs_emit(buf, "%llu\n", (u64)(_value));		\
}									\
static DEVICE_ATTR_RO(_name)

MODULE_SHOW(requests, atomic64_read(&lf_module_stat[LF_REQUESTS]));
MODULE_SHOW(fill_bytes, atomic64_read(&lf_module_stat[LF_FILL_BYTES]));
MODULE_SHOW(fill_errors, atomic64_read(&lf_module_stat[LF_FILL_ERRORS]));
MODULE_SHOW(sessions, atomic64_read(&lf_module_stat[LF_SESSIONS]));
MODULE_SHOW(evictions, atomic64_read(&lf_module_stat[LF_EVICTIONS]));
MODULE_SHOW(decodes, atomic64_read(&lf_module_stat[LF_DECODES]));
MODULE_SHOW(helper, lf_helper_attached());
MODULE_SHOW(cache_bytes, lf_cache_used());
MODULE_SHOW(cache_frames, lf_cache_frames());
MODULE_SHOW(cache_limit, lf_cache_limit());
MODULE_SHOW(decoded_bytes, lf_decoded_used());

static struct attribute *lf_module_attrs[] = {
	&dev_attr_requests.attr,
	&dev_attr_fill_bytes.attr,
	&dev_attr_fill_errors.attr,
	&dev_attr_sessions.attr,
	&dev_attr_evictions.attr,
	&dev_attr_decodes.attr,
	&dev_attr_helper.attr,
	&dev_attr_cache_bytes.attr,
	&dev_attr_cache_frames.attr,
	&dev_attr_cache_limit.attr,
	&dev_attr_decoded_bytes.attr,
	NULL
};

static const struct attribute_group lf_module_group = {
	.attrs = lf_module_attrs,
};

const struct attribute_group *lf_module_groups[] = {
	&lf_module_group,
	&lf_step_group,
	NULL
};

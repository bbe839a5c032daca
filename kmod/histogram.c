// SPDX-License-Identifier: GPL-2.0-only
/*
 * Latency histograms in sysfs, below the counters: those of a device's reads in
 * /sys/block/dm-N/lazyframe/latency/, those of the steps of a miss in
 * /sys/class/misc/lazyframe/latency/.
 *
 * A file is one histogram: a line "<le> <count>" for each bucket, @le being its
 * upper bound, inclusive, in microseconds, "inf" that of the last one; and a line
 * "sum <ns>", the sum of all that was counted, in nanoseconds. Buckets are not
 * cumulative; files, lines and their order do not change. Counts are read while
 * others add: a sum may be that of a moment later.
 */
#include <linux/sysfs.h>

#include "histogram.h"
#include "lazyframe.h"

/* Allocated: what modules may define per CPU is little, for all of them together. */
struct lf_steps {
	struct lf_histogram step[LF_STEPS];
};

static struct lf_steps __percpu *lf_steps;

int lf_histograms_init(void)
{
	lf_steps = alloc_percpu(struct lf_steps);
	return lf_steps ? 0 : -ENOMEM;
}

void lf_histograms_exit(void)
{
	free_percpu(lf_steps);
}

void lf_step_took(enum lf_step step, u64 since, u64 now)
{
	lf_histogram_add(&lf_steps->step[step], now - since);
}

static void add_up(struct lf_histogram *sum, const struct lf_histogram *part)
{
	unsigned int i;

	sum->sum += part->sum;
	for (i = 0; i < LF_BUCKETS; i++)
		sum->bucket[i] += part->bucket[i];
}

static ssize_t show(const struct lf_histogram *sum, char *buf)
{
	ssize_t n = 0;
	unsigned int i;

	for (i = 0; i < LF_BUCKETS - 1; i++)
		n += sysfs_emit_at(buf, n, "%llu %llu\n", 1ULL << i,
				   sum->bucket[i]);
	n += sysfs_emit_at(buf, n, "inf %llu\n", sum->bucket[i]);
	n += sysfs_emit_at(buf, n, "sum %llu\n", sum->sum);
	return n;
}

/* Of a device */

static ssize_t show_device(struct kobject *kobj, enum lf_latency latency,
			   char *buf)
{
	struct lf_device *dev = container_of(kobj, struct lf_device, kobj);
	struct lf_histogram sum = {};
	int cpu;

	for_each_possible_cpu(cpu)
		add_up(&sum, &per_cpu_ptr(dev->stats, cpu)->latency[latency]);
	return show(&sum, buf);
}

#define DEVICE_SHOW(_name, _latency)					\
static ssize_t _name##_show(struct kobject *kobj,			\
			    struct kobj_attribute *attr, char *buf)	\
{									\
	return show_device(kobj, _latency, buf);			\
}									\
static struct kobj_attribute _name##_attr = __ATTR_RO(_name)

DEVICE_SHOW(hit, LF_LATENCY_HIT);
DEVICE_SHOW(store, LF_LATENCY_STORE);
DEVICE_SHOW(fetch, LF_LATENCY_FETCH);

static struct attribute *device_attrs[] = {
	&hit_attr.attr,
	&store_attr.attr,
	&fetch_attr.attr,
	NULL
};

const struct attribute_group lf_latency_group = {
	.name = "latency",
	.attrs = device_attrs,
};

/* Of the module */

static ssize_t show_step(enum lf_step step, char *buf)
{
	struct lf_histogram sum = {};
	int cpu;

	for_each_possible_cpu(cpu)
		add_up(&sum, &per_cpu_ptr(lf_steps, cpu)->step[step]);
	return show(&sum, buf);
}

#define STEP_SHOW(_name, _step)						\
static ssize_t _name##_show(struct device *device,			\
			    struct device_attribute *attr, char *buf)	\
{									\
	return show_step(_step, buf);					\
}									\
static DEVICE_ATTR_RO(_name)

STEP_SHOW(queue, LF_STEP_QUEUE);
STEP_SHOW(first_byte, LF_STEP_FIRST_BYTE);
STEP_SHOW(transfer, LF_STEP_TRANSFER);
STEP_SHOW(load, LF_STEP_LOAD);
STEP_SHOW(verify, LF_STEP_VERIFY);
STEP_SHOW(decode, LF_STEP_DECODE);

static struct attribute *step_attrs[] = {
	&dev_attr_queue.attr,
	&dev_attr_first_byte.attr,
	&dev_attr_transfer.attr,
	&dev_attr_load.attr,
	&dev_attr_verify.attr,
	&dev_attr_decode.attr,
	NULL
};

const struct attribute_group lf_step_group = {
	.name = "latency",
	.attrs = step_attrs,
};

// SPDX-License-Identifier: GPL-2.0-only
#include <dirent.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "io.h"
#include "meta.h"
#include "report.h"

/* Best effort: the device works even if its meta device cannot be opened. */
static void read_image(struct report *report)
{
	struct lf_super super;
	int fd;

	fd = meta_open(report->meta, O_RDONLY, &super, NULL);
	if (fd < 0)
		return;
	uuid_text(super.uuid, report->image);
	close(fd);
}

static bool read_number(const char *dir, const char *name, u64 *value)
{
	unsigned long long n;
	char path[400], end;
	FILE *file;
	bool ok;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "re");
	if (!file)
		return false;
	ok = fscanf(file, "%llu%c", &n, &end) == 2 && end == '\n';
	fclose(file);
	if (ok)
		*value = n;
	return ok;
}

static int by_name(const void *a, const void *b)
{
	const struct report_counter *x = a, *y = b;

	return strcmp(x->name, y->name);
}

void report_counters_read(const char *path, struct report_counters *counters)
{
	struct report_counter *c = counters->counter;
	struct dirent *d;
	DIR *dir;

	dir = opendir(path);
	if (!dir)
		return;
	while (counters->count < REPORT_COUNTERS && (d = readdir(dir))) {
		if (d->d_name[0] == '.' || strlen(d->d_name) >= sizeof(c->name) ||
		    !read_number(path, d->d_name, &c->value))
			continue;
		memcpy(c->name, d->d_name, strlen(d->d_name) + 1);
		counters->count++;
		c++;
	}
	closedir(dir);
	qsort(counters->counter, counters->count, sizeof(*c), by_name);
}

/* The store's own device may be gone, or another's by now: best effort. */
static void read_store(struct report *report)
{
	dev_t number = device_part(&report->device, DEVICE_STORE);
	struct device store;

	if (!number)
		return;
	if (device_mapped_name(number, report->store)) {
		snprintf(report->store, sizeof(report->store), "%u:%u",
			 major(number), minor(number));
		return;
	}
	if (device_read(report->store, &store, NULL))
		return;
	number = device_part(&store, DEVICE_META);
	if (number)
		device_node(number, report->store_on, sizeof(report->store_on),
			    report->store_backing,
			    sizeof(report->store_backing));
	device_drop(&store);
}

int report_read(const char *name, struct report *report, struct error *e)
{
	char path[64];
	dev_t number;
	int err;

	memset(report, 0, sizeof(*report));
	err = device_read(name, &report->device, e);
	if (err)
		return err;
	if (strcmp(report->device.target, DEVICE_TARGET)) {
		err = error_set(e, -EMEDIUMTYPE,
				"%s is no lazyframe device%s: its target is \"%s\"",
				name, device_is_ours(&report->device) ?
				" since `detach --force`" : "",
				report->device.target);
		goto failed;
	}
	err = device_info_parse(report->device.info, &report->info, e);
	if (err)
		goto failed;
	device_node(device_part(&report->device, DEVICE_META), report->meta,
		    sizeof(report->meta), report->backing,
		    sizeof(report->backing));
	number = device_part(&report->device, DEVICE_COW);
	if (number)
		device_node(number, report->cow, sizeof(report->cow),
			    report->cow_backing, sizeof(report->cow_backing));
	number = device_part(&report->device, DEVICE_ORIGIN);
	if (number && device_mapped_name(number, report->origin))
		snprintf(report->origin, sizeof(report->origin), "%u:%u",
			 major(number), minor(number));
	read_store(report);
	read_image(report);
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/lazyframe",
		 report->device.major, report->device.minor);
	report_counters_read(path, &report->own);
	report_counters_read("/sys/class/misc/lazyframe", &report->module);
	return 0;
failed:
	report_drop(report);
	return err;
}

void report_drop(struct report *report)
{
	device_drop(&report->device);
}

u64 report_counter(const struct report_counters *counters, const char *name)
{
	u32 i;

	for (i = 0; i < counters->count; i++) {
		if (!strcmp(counters->counter[i].name, name))
			return counters->counter[i].value;
	}
	return 0;
}

static struct json_object *string(const char *text)
{
	return text[0] ? json_object_new_string(text) : NULL;
}

static struct json_object *number(u64 value)
{
	return json_object_new_uint64(value);
}

static struct json_object *counters_json(const struct report_counters *c)
{
	struct json_object *o = json_object_new_object();
	u32 i;

	for (i = 0; i < c->count; i++)
		json_object_object_add(o, c->counter[i].name,
				       number(c->counter[i].value));
	return o;
}

struct json_object *report_json(const struct report *r)
{
	struct json_object *o = json_object_new_object();
	struct json_object *sub;
	char dev[32];
	u32 i;

	snprintf(dev, sizeof(dev), "%u:%u", r->device.major, r->device.minor);
	json_object_object_add(o, "name", string(r->device.name));
	json_object_object_add(o, "uuid", string(r->device.uuid));
	json_object_object_add(o, "device", string(dev));
	json_object_object_add(o, "image", string(r->image));
	json_object_object_add(o, "bytes", number(r->device.sectors * 512));
	json_object_object_add(o, "read_only",
			       json_object_new_boolean(r->device.read_only));
	json_object_object_add(o, "suspended",
			       json_object_new_boolean(r->device.suspended));
	json_object_object_add(o, "open", number(r->device.open));
	json_object_object_add(o, "meta", string(r->meta));
	json_object_object_add(o, "meta_file", string(r->backing));
	json_object_object_add(o, "cow", string(r->cow));
	json_object_object_add(o, "cow_file", string(r->cow_backing));
	json_object_object_add(o, "origin", string(r->origin));
	json_object_object_add(o, "store", string(r->store));
	json_object_object_add(o, "store_device", string(r->store_on));
	json_object_object_add(o, "store_file", string(r->store_backing));
	json_object_object_add(o, "mode", string(r->info.mode));
	json_object_object_add(o, "dirty_bytes",
			       number(report_dirty_bytes(r)));
	json_object_object_add(o, "zero_bytes", number(report_zero_bytes(r)));
	json_object_object_add(o, "table", string(r->device.table));
	json_object_object_add(o, "helper",
			       string(r->info.helper ? "attached" : "none"));
	json_object_object_add(o, "policy",
			       string(r->info.error_policy ? "error" :
							     "queue"));
	sub = json_object_new_object();
	for (i = 0; i < DEVICE_FIELDS; i++)
		json_object_object_add(sub, device_field_name[i],
				       number(r->info.field[i]));
	json_object_object_add(o, "status", sub);
	json_object_object_add(o, "counters", counters_json(&r->own));
	json_object_object_add(o, "module", counters_json(&r->module));
	return o;
}

void report_size(u64 bytes, char *text, size_t text_bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	double value = bytes;
	unsigned int i;

	for (i = 0; value >= 1024 && i + 1 < ARRAY_SIZE(units); i++)
		value /= 1024;
	snprintf(text, text_bytes, i ? "%.1f %s" : "%.0f %s", value, units[i]);
}

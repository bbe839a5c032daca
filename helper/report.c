// SPDX-License-Identifier: GPL-2.0-only
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "io.h"
#include "meta.h"
#include "report.h"

/* Best effort: the device works even if its meta device cannot be opened. */
static void read_image(struct report *report)
{
	struct lf_super super;
	const char *why;
	u64 bytes;
	int fd;

	fd = open(report->meta, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (!io_bytes(fd, &bytes) &&
	    !meta_read_super(fd, bytes, &super, &why))
		uuid_text(super.uuid, report->image);
	close(fd);
}

static bool read_number(const char *dir, const char *name, u64 *value)
{
	char path[400];
	FILE *file;
	bool ok;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "re");
	if (!file)
		return false;
	ok = fscanf(file, "%" SCNu64, value) == 1;
	fclose(file);
	return ok;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct report_counter *)a)->name,
		      ((const struct report_counter *)b)->name);
}

static void read_counters(struct report *report)
{
	struct report_counter *c;
	struct dirent *d;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/lazyframe",
		 report->device.major, report->device.minor);
	dir = opendir(path);
	if (!dir)
		return;
	while (report->counters < REPORT_COUNTERS && (d = readdir(dir))) {
		c = &report->counter[report->counters];
		if (d->d_name[0] == '.' ||
		    strlen(d->d_name) >= sizeof(c->name) ||
		    !read_number(path, d->d_name, &c->value))
			continue;
		strcpy(c->name, d->d_name);
		report->counters++;
	}
	closedir(dir);
	qsort(report->counter, report->counters, sizeof(report->counter[0]),
	      by_name);
}

int report_read(const char *name, struct report *report, struct error *e)
{
	int err;

	memset(report, 0, sizeof(*report));
	err = device_read(name, &report->device, e);
	if (err)
		return err;
	if (strcmp(report->device.target, DEVICE_TARGET)) {
		err = error_set(e, -EMEDIUMTYPE,
				device_is_ours(&report->device) ?
				"%s has lost its table (detach --force does that): its target is \"%s\"" :
				"%s is no lazyframe device: its target is \"%s\"",
				name, report->device.target);
		goto failed;
	}
	err = device_info_parse(report->device.info, &report->info, e);
	if (!err)
		err = device_meta(&report->device, report->meta,
				  sizeof(report->meta), report->backing,
				  sizeof(report->backing), e);
	if (err)
		goto failed;
	read_image(report);
	read_counters(report);
	return 0;
failed:
	report_drop(report);
	return err;
}

void report_drop(struct report *report)
{
	device_drop(&report->device);
}

u64 report_counter(const struct report *report, const char *name)
{
	u32 i;

	for (i = 0; i < report->counters; i++) {
		if (!strcmp(report->counter[i].name, name))
			return report->counter[i].value;
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
	sub = json_object_new_object();
	for (i = 0; i < r->counters; i++)
		json_object_object_add(sub, r->counter[i].name,
				       number(r->counter[i].value));
	json_object_object_add(o, "counters", sub);
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

// SPDX-License-Identifier: GPL-2.0-only
/*
 * lazyframe metrics: what the module counts, for Prometheus and its kin.
 *
 * One table of families, each of which prints its samples: those of a family
 * come in one piece, as both formats want it. On stdout it is OpenMetrics 1.0;
 * in a file the older text format, the one that node_exporter reads.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd.h"
#include "dm.h"
#include "histogram.h"
#include "report.h"
#include "store.h"

#define MODULE_SYSFS	"/sys/class/misc/lazyframe"

static const char usage[] =
	"Usage: lazyframe metrics [--textfile PATH]\n"
	"\n"
	"Print counters and latencies of all devices and stores as OpenMetrics text.\n"
	"\n"
	"  --textfile PATH  write them to a file at once, in the format of\n"
	"                   node_exporter's textfile collector\n"
	"  --help           this text\n";

/*
 * struct store_info - STATUSTYPE_INFO of a store, decoded
 * @mode: "rw", "ro", "fail"; "-" while it is suspended
 */
struct store_info {
	char name[DEVICE_NAME_MAX + 1];
	char mode[8];
	u64 used;		/* 512-byte sectors */
	u64 room;
	u64 frames;
	u64 stat[8];		/* as in enum lf_store_stat of kmod/store.h */
	u64 memory;
};

/*
 * struct metrics - all that is printed
 * @module: counters of the module; none without it
 * @open: OpenMetrics, not the older format
 */
struct metrics {
	FILE *out;
	bool open;
	struct report *report;
	size_t reports;
	struct store_info *store;
	size_t stores;
	struct report_counters module;
};

enum type { GAUGE, COUNTER, HISTOGRAM };

/*
 * struct family - samples of one name
 * @name: "lazyframe_" in front, and "_total" behind if it is a COUNTER
 * @print: all its samples
 * @counter: what @print_own and @print_module look up
 * @label: and give their samples, "" for none
 */
struct family {
	const char *name;
	enum type type;
	const char *help;
	void (*print)(const struct metrics *m, const struct family *f);
	const struct {
		const char *counter;
		const char *label;
	} sample[8];
};

/* Bytes of the UTF-8 character that @text begins with; 0: it does not */
static unsigned int utf8(const char *text)
{
	const u8 *p = (const u8 *)text;
	u8 least = 0x80, most = 0xbf;
	unsigned int n, i;

	if (*p < 0x80)
		return 1;
	n = *p >= 0xc2 && *p <= 0xdf ? 2 : *p >= 0xe0 && *p <= 0xef ? 3 :
	    *p >= 0xf0 && *p <= 0xf4 ? 4 : 0;
	/* No longer form than need be, no surrogate, nothing above U+10FFFF */
	if (*p == 0xe0)
		least = 0xa0;
	else if (*p == 0xed)
		most = 0x9f;
	else if (*p == 0xf0)
		least = 0x90;
	else if (*p == 0xf4)
		most = 0x8f;
	for (i = 1; i < n; i++, least = 0x80, most = 0xbf)
		if (p[i] < least || p[i] > most)
			return 0;
	return n;
}

/* A label's value: what must be escaped is, and what is no UTF-8 becomes '?'. */
static void label(const struct metrics *m, const char *name, const char *value)
{
	unsigned int n;

	fprintf(m->out, "%s=\"", name);
	for (; *value; value += n ? n : 1) {
		n = utf8(value);
		if (*value == '\n')
			fputs("\\n", m->out);
		else if (*value == '"' || *value == '\\')
			fprintf(m->out, "\\%c", *value);
		else if (n)
			fwrite(value, 1, n, m->out);
		else
			fputc('?', m->out);
	}
	fputc('"', m->out);
}

/* The start of a sample, up to where more labels, or '}', belong. */
static void begin(const struct metrics *m, const struct family *f,
		  const char *suffix, const char *key, const char *value)
{
	fprintf(m->out, "lazyframe_%s%s{", f->name,
		f->type == COUNTER ? "_total" : suffix);
	label(m, key, value);
}

static void sample(const struct metrics *m, const struct family *f,
		   const char *key, const char *name, const char *more,
		   u64 value)
{
	begin(m, f, "", key, name);
	fprintf(m->out, "%s%s} %lu\n", more[0] ? "," : "", more, value);
}

/* Files of /sys/block/dm-N/lazyframe/ */
static void print_own(const struct metrics *m, const struct family *f)
{
	size_t i, j;

	for (i = 0; i < m->reports; i++)
		for (j = 0; f->sample[j].counter; j++)
			sample(m, f, "device", m->report[i].device.name,
			       f->sample[j].label,
			       report_counter(&m->report[i].own,
					      f->sample[j].counter));
}

/* Files of /sys/class/misc/lazyframe/ */
static void print_module(const struct metrics *m, const struct family *f)
{
	if (m->module.count)
		fprintf(m->out, "lazyframe_%s%s %lu\n", f->name,
			f->type == COUNTER ? "_total" : "",
			report_counter(&m->module, f->sample[0].counter));
}

static void print_device(const struct metrics *m, const struct family *f)
{
	size_t i;

	for (i = 0; i < m->reports; i++) {
		const struct report *r = &m->report[i];

		begin(m, f, "", "device", r->device.name);
		fputc(',', m->out);
		label(m, "image", r->image);
		fputc(',', m->out);
		label(m, "meta", r->backing[0] ? r->backing : r->meta);
		fputc(',', m->out);
		label(m, "store", r->store);
		fputs("} 1\n", m->out);
	}
}

static void print_size(const struct metrics *m, const struct family *f)
{
	size_t i;

	for (i = 0; i < m->reports; i++)
		sample(m, f, "device", m->report[i].device.name, "",
		       m->report[i].device.sectors * 512);
}

static void print_suspended(const struct metrics *m, const struct family *f)
{
	size_t i;

	for (i = 0; i < m->reports; i++)
		sample(m, f, "device", m->report[i].device.name, "",
		       m->report[i].device.suspended);
}

static void print_overlay(const struct metrics *m, const struct family *f)
{
	size_t i;

	for (i = 0; i < m->reports; i++) {
		sample(m, f, "device", m->report[i].device.name,
		       "state=\"dirty\"", report_dirty_bytes(&m->report[i]));
		sample(m, f, "device", m->report[i].device.name,
		       "state=\"zero\"", report_zero_bytes(&m->report[i]));
	}
}

/* 1 for the mode that it is in, 0 for the others */
static void print_modes(const struct metrics *m, const struct family *f,
			const char *key, const char *name, const char *mode,
			const char *none)
{
	const char *const modes[] = { "rw", "ro", "fail", none };
	char more[32];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		snprintf(more, sizeof(more), "mode=\"%s\"", modes[i]);
		sample(m, f, key, name, more,
		       !strcmp(mode, i < 3 ? modes[i] : "-"));
	}
}

static void print_device_mode(const struct metrics *m, const struct family *f)
{
	size_t i;

	for (i = 0; i < m->reports; i++)
		print_modes(m, f, "device", m->report[i].device.name,
			    m->report[i].info.mode, "none");
}

static void print_store_mode(const struct metrics *m, const struct family *f)
{
	size_t i;

	for (i = 0; i < m->stores; i++)
		print_modes(m, f, "store", m->store[i].name, m->store[i].mode,
			    "suspended");
}

/* Numbers of a store by their place in struct store_info */
static u64 store_number(const struct store_info *s, const char *counter)
{
	static const char *const names[] = {
		"hits", "misses", "stored", "skipped", "evicted", "moved",
		"bad", "errors"
	};
	size_t i;

	if (!strcmp(counter, "used"))
		return s->used * 512;
	if (!strcmp(counter, "room"))
		return s->room * 512;
	if (!strcmp(counter, "frames"))
		return s->frames;
	if (!strcmp(counter, "memory"))
		return s->memory;
	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(counter, names[i]))
			return s->stat[i];
	return 0;
}

static void print_store(const struct metrics *m, const struct family *f)
{
	size_t i, j;

	for (i = 0; i < m->stores; i++)
		for (j = 0; f->sample[j].counter; j++)
			sample(m, f, "store", m->store[i].name,
			       f->sample[j].label,
			       store_number(&m->store[i],
					    f->sample[j].counter));
}

/* @device: NULL: it is the module's */
static void print_histogram(const struct metrics *m, const struct family *f,
			    const char *device, const char *folder, size_t i)
{
	const char *more = f->sample[i].label;
	struct histogram h;
	u64 count = 0;
	char le[32];
	u32 j;

	if (!histogram_read(folder, f->sample[i].counter, &h))
		return;
	for (j = 0; j < h.buckets; j++) {
		count += h.count[j];
		snprintf(le, sizeof(le), h.le[j] ? "%.9g" : "+Inf",
			 h.le[j] / 1e6);
		fprintf(m->out, "lazyframe_%s_bucket{", f->name);
		if (device) {
			label(m, "device", device);
			fputc(',', m->out);
		}
		fprintf(m->out, "%s,le=\"%s\"} %lu\n", more, le, count);
	}
	for (j = 0; j < 2; j++) {
		fprintf(m->out, "lazyframe_%s_%s{", f->name,
			j ? "sum" : "count");
		if (device) {
			label(m, "device", device);
			fputc(',', m->out);
		}
		if (j)
			fprintf(m->out, "%s} %.9f\n", more, h.sum / 1e9);
		else
			fprintf(m->out, "%s} %lu\n", more, count);
	}
}

static void print_reads(const struct metrics *m, const struct family *f)
{
	char folder[64];
	size_t i, j;

	for (i = 0; i < m->reports; i++) {
		const struct device *d = &m->report[i].device;

		snprintf(folder, sizeof(folder),
			 "/sys/dev/block/%u:%u/lazyframe", d->major, d->minor);
		for (j = 0; f->sample[j].counter; j++)
			print_histogram(m, f, d->name, folder, j);
	}
}

static void print_steps(const struct metrics *m, const struct family *f)
{
	size_t i;

	for (i = 0; f->sample[i].counter; i++)
		print_histogram(m, f, NULL, MODULE_SYSFS, i);
}

static const struct family families[] = {
	{ "device_info", GAUGE,
	  "Devices: the UUID of their image, their meta device or its file, their store",
	  print_device, {} },
	{ "device_size_bytes", GAUGE,
	  "Size of the device",
	  print_size, {} },
	{ "device_suspended", GAUGE,
	  "1 while the device is suspended",
	  print_suspended, {} },
	{ "overlay_mode", GAUGE,
	  "1 for the mode of the device's overlay",
	  print_device_mode, {} },
	{ "overlay_bytes", GAUGE,
	  "What the overlay has of the image: written (dirty) or known to be zero",
	  print_overlay, {} },
	{ "reads", COUNTER,
	  "Reads that ended, by where their bytes came from; all together are all reads",
	  print_own, {
		{ "reads_overlay", "source=\"overlay\"" },
		{ "reads_origin", "source=\"origin\"" },
		{ "reads_zero", "source=\"zero\"" },
		{ "reads_memory", "source=\"memory\"" },
		{ "reads_store", "source=\"store\"" },
		{ "reads_fetched", "source=\"fetch\"" },
		{ "reads_failed", "source=\"failed\"" } } },
	{ "read_bytes", COUNTER,
	  "Bytes of reads that did not fail",
	  print_own, { { "read_bytes", "" } } },
	{ "read_duration_seconds", HISTOGRAM,
	  "How long reads of the image took, by what they needed",
	  print_reads, {
		{ "hit", "source=\"memory\"" },
		{ "store", "source=\"store\"" },
		{ "fetch", "source=\"fetch\"" } } },
	{ "reads_waiting", GAUGE,
	  "Reads that wait for frames now",
	  print_own, { { "waiting", "" } } },
	{ "frames_wanted", COUNTER,
	  "Frames first asked for by a read that waits (demand) or by read-ahead (prefetch)",
	  print_own, {
		{ "frames_demanded", "by=\"demand\"" },
		{ "frames_prefetched", "by=\"prefetch\"" } } },
	{ "prefetch_bytes", COUNTER,
	  "Compressed bytes fetched before anybody waited for them",
	  print_own, { { "prefetch_bytes", "" } } },
	{ "prefetch_ended_bytes", COUNTER,
	  "What became of them: read later (useful), waited for (late), dropped unread (wasted), likewise but stored (stored)",
	  print_own, {
		{ "prefetch_useful_bytes", "end=\"useful\"" },
		{ "prefetch_late_bytes", "end=\"late\"" },
		{ "prefetch_wasted_bytes", "end=\"wasted\"" },
		{ "prefetch_stored_bytes", "end=\"stored\"" } } },
	{ "frames_bad", COUNTER,
	  "Frames that did not verify",
	  print_own, { { "frames_bad", "" } } },
	{ "writes", COUNTER,
	  "Writes and zeroings that ended, those that failed too",
	  print_own, { { "writes", "" } } },
	{ "writes_failed", COUNTER,
	  "Those of them that failed",
	  print_own, { { "writes_failed", "" } } },
	{ "write_bytes", COUNTER,
	  "Bytes of writes that did not fail",
	  print_own, { { "write_bytes", "" } } },
	{ "copy_ups", COUNTER,
	  "Blocks that were written whole for the sake of a part",
	  print_own, { { "copy_ups", "" } } },
	{ "zeroings", COUNTER,
	  "Discards and write-zeroes",
	  print_own, { { "zeroings", "" } } },
	{ "commits", COUNTER,
	  "Commits of the overlay",
	  print_own, { { "commits", "" } } },
	{ "helper_attached", GAUGE,
	  "1 while a helper is attached",
	  print_module, { { "helper", "" } } },
	{ "helper_sessions", COUNTER,
	  "Helpers that were ever attached",
	  print_module, { { "sessions", "" } } },
	{ "requests", COUNTER,
	  "Frames asked of a helper",
	  print_module, { { "requests", "" } } },
	{ "request_errors", COUNTER,
	  "Requests that a helper answered with an error",
	  print_module, { { "fill_errors", "" } } },
	{ "fetched_bytes", COUNTER,
	  "Bytes that helpers brought",
	  print_module, { { "fill_bytes", "" } } },
	{ "step_duration_seconds", HISTOGRAM,
	  "How long the steps of a miss took, each frame's",
	  print_steps, {
		{ "queue", "step=\"queue\"" },
		{ "first_byte", "step=\"first_byte\"" },
		{ "transfer", "step=\"transfer\"" },
		{ "load", "step=\"load\"" },
		{ "verify", "step=\"verify\"" },
		{ "decode", "step=\"decode\"" } } },
	{ "decodes", COUNTER,
	  "Frames decoded",
	  print_module, { { "decodes", "" } } },
	{ "evictions", COUNTER,
	  "Frames dropped from memory to make room",
	  print_module, { { "evictions", "" } } },
	{ "cache_bytes", GAUGE,
	  "Bytes of compressed frames in memory or on their way",
	  print_module, { { "cache_bytes", "" } } },
	{ "cache_limit_bytes", GAUGE,
	  "Limit of those bytes",
	  print_module, { { "cache_limit", "" } } },
	{ "decoded_bytes", GAUGE,
	  "Bytes of frames that stay decoded",
	  print_module, { { "decoded_bytes", "" } } },
	{ "cache_frames", GAUGE,
	  "Compressed frames in memory or on their way",
	  print_module, { { "cache_frames", "" } } },
	{ "store_mode", GAUGE,
	  "1 for the mode of the store",
	  print_store_mode, {} },
	{ "store_used_bytes", GAUGE,
	  "Bytes of the store that frames take",
	  print_store, { { "used", "" } } },
	{ "store_size_bytes", GAUGE,
	  "Bytes that there are for frames",
	  print_store, { { "room", "" } } },
	{ "store_memory_bytes", GAUGE,
	  "Memory that the store's index takes",
	  print_store, { { "memory", "" } } },
	{ "store_frames", GAUGE,
	  "Frames in the store",
	  print_store, { { "frames", "" } } },
	{ "store_lookups", COUNTER,
	  "Frames read from the store, and looked for in vain",
	  print_store, {
		{ "hits", "result=\"hit\"" },
		{ "misses", "result=\"miss\"" } } },
	{ "store_stored", COUNTER,
	  "Frames that were stored",
	  print_store, { { "stored", "" } } },
	{ "store_skipped", COUNTER,
	  "Frames that were not: too big, or more than could be written in time",
	  print_store, { { "skipped", "" } } },
	{ "store_evicted", COUNTER,
	  "Frames that gave way",
	  print_store, { { "evicted", "" } } },
	{ "store_moved", COUNTER,
	  "Frames that were moved, to stay",
	  print_store, { { "moved", "" } } },
	{ "store_bad", COUNTER,
	  "Frames that did not verify, and were forgotten",
	  print_store, { { "bad", "" } } },
	{ "store_errors", COUNTER,
	  "Reads and writes that the store's device failed",
	  print_store, { { "errors", "" } } },
};

static void print_all(const struct metrics *m)
{
	static const char *const types[] = { "gauge", "counter", "histogram" };
	const struct family *f;
	const char *suffix;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(families); i++) {
		f = &families[i];
		/* OpenMetrics' families are called without it. */
		suffix = f->type == COUNTER && !m->open ? "_total" : "";
		fprintf(m->out, "# HELP lazyframe_%s%s %s.\n", f->name, suffix,
			f->help);
		fprintf(m->out, "# TYPE lazyframe_%s%s %s\n", f->name, suffix,
			types[f->type]);
		f->print(m, f);
	}
	if (m->open)
		fputs("# EOF\n", m->out);
}

static bool parse_store(const char *text, struct store_info *s)
{
	u64 *n = s->stat;

	if (!strcmp(text, "-")) {
		memcpy(s->mode, "-", 2);
		return true;
	}
	/* What follows, a scrub or "-", has one word or two. */
	if (sscanf(text, "%*s %7s %lu/%lu %lu %lu %lu %lu %lu %lu %lu %lu %lu",
		   s->mode, &s->used, &s->room, &s->frames, &n[0], &n[1],
		   &n[2], &n[3], &n[4], &n[5], &n[6], &n[7]) != 12)
		return false;
	text = strrchr(text, ' ');
	s->memory = text ? strtoull(text, NULL, 10) : 0;
	return text;
}

static int add_store(struct metrics *m, const char *name, struct error *e)
{
	struct store_info *s = &m->store[m->stores];
	struct device device;
	int err;

	err = device_read(name, &device, e);
	if (err)	/* removed since its name was read */
		return err == -ENXIO ? 0 : err;
	if (!strcmp(device.target, STORE_TARGET)) {
		memcpy(s->name, device.name, sizeof(s->name));
		if (parse_store(device.info, s))
			m->stores++;
		else
			err = error_set(e, -EPROTO,
					"the status \"%s\" of store %s is not what this version knows: use tools and module of one version",
					device.info, name);
	}
	device_drop(&device);
	return err;
}

static int gather(struct metrics *m, struct error *e)
{
	struct device_names names;
	size_t i;
	int err;

	err = device_names_read(&names, e);
	if (err || !names.count)
		goto out;
	m->report = calloc(names.count, sizeof(*m->report));
	m->store = calloc(names.count, sizeof(*m->store));
	if (!m->report || !m->store) {
		err = no_memory(e);
		goto out;
	}
	for (i = 0; !err && i < names.count; i++) {
		err = report_read(names.name[i], &m->report[m->reports], e);
		if (!err)
			m->reports++;
		else if (err == -EMEDIUMTYPE)
			err = add_store(m, names.name[i], e);
		else if (err == -ENXIO)
			err = 0;
	}
out:
	device_names_drop(&names);
	if (!err)
		report_counters_read(MODULE_SYSFS, &m->module);
	return err;
}

/* A reader finds the old file or the new one, and never a part. */
static int write_file(struct metrics *m, const char *path, struct error *e)
{
	size_t bytes = strlen(path) + 8;
	char *tmp = malloc(bytes);
	int fd, err = 0;

	if (!tmp)
		return no_memory(e);
	snprintf(tmp, bytes, "%s.XXXXXX", path);
	fd = mkstemp(tmp);
	m->out = fd < 0 ? NULL : fdopen(fd, "w");
	if (!m->out) {
		err = error_set(e, -errno, "%s: %s", path, strerror(errno));
		goto out;
	}
	print_all(m);
	errno = EIO;
	if (fflush(m->out) || ferror(m->out) || fchmod(fd, 0644) ||
	    rename(tmp, path))
		err = error_set(e, -errno, "%s: %s", path, strerror(errno));
	fclose(m->out);
out:
	if (err && fd >= 0)
		unlink(tmp);
	free(tmp);
	return err;
}

static int metrics(const char *textfile, struct error *e)
{
	struct metrics m = { .out = stdout, .open = !textfile };
	size_t i;
	int err;

	err = gather(&m, e);
	if (!err && textfile)
		err = write_file(&m, textfile, e);
	else if (!err)
		print_all(&m);
	for (i = 0; i < m.reports; i++)
		report_drop(&m.report[i]);
	free(m.report);
	free(m.store);
	return err;
}

int cmd_metrics(int argc, char **argv)
{
	static const struct option options[] = {
		{ "textfile", required_argument, NULL, 't' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	const char *textfile = NULL;
	struct error e = {};
	int opt;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 't':
			textfile = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (argc != optind) {
		fputs(usage, stderr);
		return 2;
	}
	if (metrics(textfile, &e)) {
		fprintf(stderr, "lazyframe metrics: %s\n", e.text);
		return 1;
	}
	return 0;
}

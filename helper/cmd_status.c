// SPDX-License-Identifier: GPL-2.0-only
#include <getopt.h>
#include <json-c/json.h>
#include <stdio.h>

#include "cmd.h"
#include "dm.h"
#include "report.h"
#include "watch.h"

static const char usage[] =
	"Usage: lazyframe status NAME [--json | --watch]\n"
	"\n"
	"Show table, state, counters and rates of a device.\n"
	"\n"
	"  --json    one object\n"
	"  --watch   what happens, each second anew; q ends it\n"
	"  --help    this text\n";

static void line(const char *key, const char *value)
{
	printf("%-20s  %s\n", key, value);
}

static void count(const char *key, u64 value)
{
	printf("%-20s  %llu\n", key, (unsigned long long)value);
}

/* Of nothing there is no share. */
static void share(const char *key, u64 part, u64 all)
{
	if (all)
		printf("%-20s  %.1f %%\n", key, 100.0 * part / all);
}

static void mean(const char *key, u64 bytes, u64 times)
{
	char size[32];

	report_size(bytes / times, size, sizeof(size));
	line(key, size);
}

static void rates(const struct report *r)
{
	const u64 *field = r->info.field;
	u64 reads = field[DEVICE_READS];
	u64 requests = report_counter(&r->module, "requests");
	u64 fetched = report_counter(&r->module, "fill_bytes");

	share("from the overlay", field[DEVICE_READS_OVERLAY], reads);
	share("from the sealed overlay", field[DEVICE_READS_ORIGIN], reads);
	share("reads of zeros", field[DEVICE_READS_ZERO], reads);
	share("from memory", field[DEVICE_READS_MEMORY], reads);
	share("from the store", field[DEVICE_READS_STORE], reads);
	share("fetched", field[DEVICE_READS_FETCHED], reads);
	share("failed", field[DEVICE_READS_FAILED], reads);
	if (reads)
		mean("average read", report_counter(&r->own, "read_bytes"),
		     reads);
	if (requests)
		mean("average request", fetched, requests);
	share("cache in use", field[DEVICE_CACHE_BYTES],
	      field[DEVICE_CACHE_LIMIT_BYTES]);
}

static void counters(const char *title, const struct report_counters *c)
{
	u32 i;

	printf("\n%s\n", title);
	for (i = 0; i < c->count; i++)
		count(c->counter[i].name, c->counter[i].value);
}

static void print(const struct report *r)
{
	char text[64];
	u32 i;

	line("name", r->device.name);
	snprintf(text, sizeof(text), "/dev/dm-%u (%u:%u)", r->device.minor,
		 r->device.major, r->device.minor);
	line("device", text);
	line("image", r->image[0] ? r->image : "unknown: meta device unreadable");
	report_size(r->device.sectors * 512, text, sizeof(text));
	line("size", text);
	line("state", r->device.suspended ? "suspended" : "active");
	line("access", r->device.read_only ? "read-only" : "read-write");
	snprintf(text, sizeof(text), "%d times", r->device.open);
	line("open", text);
	line("meta", r->meta);
	if (r->backing[0])
		line("meta file", r->backing);
	if (r->cow[0])
		line("COW", r->cow);
	if (r->cow_backing[0])
		line("COW file", r->cow_backing);
	if (r->origin[0])
		line("above", r->origin);
	if (r->store[0])
		line("store", r->store);
	if (r->store_on[0])
		line("store device", r->store_on);
	if (r->store_backing[0])
		line("store file", r->store_backing);
	printf("%-20s  0 %llu %s %s\n", "table",
	       (unsigned long long)r->device.sectors, r->device.target,
	       r->device.table);

	printf("\nstatus\n");
	line("helper", r->info.helper ? "attached" : "none");
	line("without helper", r->info.error_policy ? "reads fail" :
						      "reads wait");
	if (strcmp(r->info.mode, "-") != 0) {
		line("overlay", r->info.mode);
		report_size(report_dirty_bytes(r), text, sizeof(text));
		line("dirty", text);
		report_size(report_zero_bytes(r), text, sizeof(text));
		line("zero", text);
	}
	for (i = 0; i < DEVICE_FIELDS; i++)
		count(device_field_name[i], r->info.field[i]);

	counters("counters", &r->own);
	counters("of all devices", &r->module);

	printf("\nrates\n");
	rates(r);
}

int cmd_status(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "watch", no_argument, NULL, 'w' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct json_object *object;
	struct report report;
	struct error e = {};
	bool json = false, watch = false;
	int opt;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'j':
			json = true;
			break;
		case 'w':
			watch = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (argc - optind != 1 || (json && watch)) {
		fputs(usage, stderr);
		return 2;
	}
	if (device_name_check(argv[optind], &e) ||
	    (watch ? watch_device(argv[optind], &e) :
		     report_read(argv[optind], &report, &e))) {
		fprintf(stderr, "lazyframe status: %s\n", e.text);
		return 1;
	}
	if (watch)
		return 0;
	if (json) {
		object = report_json(&report);
		puts(json_object_to_json_string_ext(object,
						    JSON_C_TO_STRING_PRETTY));
		json_object_put(object);
	} else {
		print(&report);
	}
	report_drop(&report);
	return 0;
}

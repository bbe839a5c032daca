// SPDX-License-Identifier: GPL-2.0-only
#include <getopt.h>
#include <json-c/json.h>
#include <stdio.h>

#include "cmd.h"
#include "dm.h"
#include "report.h"

static const char usage[] =
	"Usage: lazyframe list [--json]\n"
	"\n"
	"Show all lazyframe devices.\n"
	"\n"
	"  --json    an array of objects, one for each device\n"
	"  --help    this text\n";

static void print(const struct report *r)
{
	char size[32], dirty[32], zero[32];

	report_size(r->device.sectors * 512, size, sizeof(size));
	report_size(report_dirty_bytes(r), dirty, sizeof(dirty));
	report_size(report_zero_bytes(r), zero, sizeof(zero));
	printf("%-20s  %-36s  %10s  %6llu  %-8s  %-4s  %10s  %10s  %s\n",
	       r->device.name, r->image[0] ? r->image : "-", size,
	       (unsigned long long)r->info.field[DEVICE_LAYERS],
	       r->info.helper ? "attached" : "none", r->info.mode,
	       r->cow[0] ? dirty : "-", r->cow[0] ? zero : "-",
	       r->backing[0] ? r->backing : r->meta);
}

static int list(bool json, struct error *e)
{
	struct json_object *array = NULL;
	struct device_names names;
	struct report report;
	int err, shown = 0;
	size_t i;

	err = device_names_read(&names, e);
	if (err)
		goto out;
	if (json)
		array = json_object_new_array();

	for (i = 0; i < names.count; i++) {
		err = report_read(names.name[i], &report, e);
		/* Another target's, or removed since its name was read. */
		if (err == -EMEDIUMTYPE || err == -ENXIO) {
			err = 0;
			continue;
		}
		if (err)
			goto out;
		if (json)
			json_object_array_add(array, report_json(&report));
		else if (!shown++)
			printf("%-20s  %-36s  %10s  %6s  %-8s  %-4s  %10s  %10s  %s\n",
			       "NAME", "IMAGE", "SIZE", "LAYERS", "HELPER",
			       "MODE", "DIRTY", "ZERO", "META");
		if (!json)
			print(&report);
		report_drop(&report);
	}
	if (json)
		puts(json_object_to_json_string_ext(array,
						    JSON_C_TO_STRING_PRETTY));
out:
	json_object_put(array);
	device_names_drop(&names);
	return err;
}

int cmd_list(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct error e = {};
	bool json = false;
	int opt;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'j':
			json = true;
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
	if (list(json, &e)) {
		fprintf(stderr, "lazyframe list: %s\n", e.text);
		return 1;
	}
	return 0;
}

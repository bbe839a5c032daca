// SPDX-License-Identifier: GPL-2.0-only
#include <getopt.h>
#include <stdio.h>

#include "cmd.h"
#include "seal.h"
#include "state.h"

static const char usage[] =
	"Usage: lazyframe seal NAME [--cow NEW] [--meta NEW]\n"
	"\n"
	"Set aside what was written to a device: it becomes the read-only device that\n"
	"is printed, and NAME goes on with a fresh overlay above it.\n"
	"\n"
	"  --cow NEW   block device or file for what is written from now on; a new file\n"
	"              takes the old one's name without this option\n"
	"  --meta NEW  the same for the list of it\n"
	"  --help      this text\n";

int cmd_seal(int argc, char **argv)
{
	static const struct option options[] = {
		{ "cow", required_argument, NULL, 'c' },
		{ "meta", required_argument, NULL, 'm' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	const char *cow = NULL, *meta = NULL;
	struct seal_result result = {};
	struct error e = {};
	int opt, err;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'c':
			cow = optarg;
			break;
		case 'm':
			meta = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (argc - optind != 1) {
		fputs(usage, stderr);
		return 2;
	}
	err = device_name_check(argv[optind], &e);
	if (!err)
		err = state_lock(&e);
	if (!err)
		err = state_lock_device(argv[optind], false, &e);
	if (!err)
		err = seal_device(argv[optind], meta, cow, &result, &e);
	if (err) {
		fprintf(stderr, "lazyframe seal: %s\n", e.text);
		return 1;
	}
	fprintf(stderr,
		"meta       %s\n"
		"COW        %s\n"
		"suspended  %.1f ms\n", result.meta, result.cow,
		result.suspended * 1e3);
	printf("/dev/mapper/%s\n", result.sealed);
	return 0;
}

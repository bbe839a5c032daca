// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <string.h>

#include "../kmod/pure.h"
#include "client.h"
#include "cmd.h"
#include "secret.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *what;
} subcommands[] = {
	{ "build", cmd_build, "Store an image: compress it, data first, header last" },
	{ "inspect", cmd_inspect, "Show what an image consists of" },
	{ "verify", cmd_verify, "Decode an image and check all of it" },
	{ "flatten", cmd_flatten, "Store an image of many layers anew, in one or a few" },
	{ "gc", cmd_gc, "Find layers that no header refers to, and delete them" },
	{ "attach", cmd_attach, "Make a block device of an image" },
	{ "detach", cmd_detach, "Remove such a device" },
	{ "list", cmd_list, "List such devices" },
	{ "status", cmd_status, "Show a device's state and counters" },
	{ "why", cmd_why, "Tell what each waiting read waits for" },
	{ "metrics", cmd_metrics, "Print counters and latencies for Prometheus" },
	{ "trace", cmd_trace, "Record what is read first, to fetch it ahead next time" },
	{ "hydrate", cmd_hydrate, "Fetch all of an image into a device's store" },
	{ "seal", cmd_seal, "Set aside what was written to a device, and begin anew" },
	{ "export", cmd_export, "Store what was written to a device as a new layer" },
	{ "check", cmd_check, "Check a device's overlay that is not in use" },
	{ "format", cmd_format, "Write a meta device for a dmsetup line of your own" },
	{ "store-format", cmd_store_format, "Make a block device an empty store" },
};

static void usage(FILE *out)
{
	size_t i;

	fputs("Usage: lazyframe [--cafile FILE] COMMAND [ARGUMENT]...\n\n", out);
	for (i = 0; i < ARRAY_SIZE(subcommands); i++)
		fprintf(out, "  %-12s  %s\n", subcommands[i].name,
			subcommands[i].what);
	fputs("\n  --cafile FILE  certificate authorities for https, PEM\n", out);
	fputs("\nlazyframe COMMAND --help tells more; so does lazyframe(8).\n",
	      out);
}

int main(int argc, char **argv)
{
	const char *cafile = NULL;
	struct error e;
	size_t i;
	int ret;

	/* The environment may have some. */
	secret_hide();
	if (argc > 2 && !strcmp(argv[1], "--cafile")) {
		cafile = argv[2];
		argc -= 2;
		argv += 2;
	}
	if (argc < 2) {
		usage(stderr);
		return 2;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
	    !strcmp(argv[1], "help")) {
		usage(stdout);
		return 0;
	}
	if (!strcmp(argv[1], "--version")) {
		puts("lazyframe " LF_VERSION);
		return 0;
	}
	if (cafile && client_cafile(cafile, &e)) {
		fprintf(stderr, "lazyframe: --cafile: %s\n", e.text);
		return 1;
	}
	for (i = 0; i < ARRAY_SIZE(subcommands); i++) {
		if (strcmp(argv[1], subcommands[i].name))
			continue;
		ret = subcommands[i].run(argc - 1, argv + 1);
		/* A full disk must not look like success to a script. */
		if (fflush(stdout) || ferror(stdout)) {
			perror("lazyframe: writing the output");
			return ret ? ret : 1;
		}
		return ret;
	}
	fprintf(stderr,
		"lazyframe: unknown command %s; lazyframe --help lists them\n",
		argv[1]);
	return 2;
}

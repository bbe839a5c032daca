// SPDX-License-Identifier: GPL-2.0-only
#include <getopt.h>
#include <stdio.h>

#include "cmd.h"
#include "dm.h"
#include "replay.h"
#include "units.h"

static const char usage[] =
	"Usage: lazyframe hydrate NAME [--rate BYTES]\n"
	"       lazyframe hydrate NAME --pause | --resume | --stop | --status\n"
	"\n"
	"Fetch all of a device's image into its store, in the background. What the store\n"
	"has already is left out, so it can be ended and begun again at any time.\n"
	"\n"
	"  --rate BYTES  fetch no more than so many bytes a second, suffixes K to T\n"
	"                (0: no limit); also changes it while it runs\n"
	"  --pause       fetch nothing more, until --resume\n"
	"  --resume      go on\n"
	"  --stop        end it\n"
	"  --status      tell how far it is\n"
	"  --help        this text\n";

static int show(const char *name, struct error *e)
{
	char asked[UNITS_TEXT], left[UNITS_TEXT], rate[UNITS_TEXT];
	struct replay_status s;
	int err;

	err = replay_status(name, &s, e);
	if (err)
		return err;
	printf("what      %s\n"
	       "state     %s\n"
	       "frames    %u of %u\n"
	       "asked     %s\n"
	       "on way    %s\n"
	       "rate      %s\n",
	       s.what, s.state, s.next, s.count, units_text(s.asked, asked),
	       units_text(s.left, left),
	       s.rate ? units_text(s.rate, rate) : "no limit");
	return 0;
}

static int set_rate(const char *name, u64 rate, struct error *e)
{
	char text[40];

	snprintf(text, sizeof(text), "prefetch rate %llu",
		 (unsigned long long)rate);
	return device_message(name, text, e);
}

static int begin(const char *name, bool has_rate, u64 rate, struct error *e)
{
	struct replay_status s;
	int err;

	err = replay_status(name, &s, e);
	if (!err && has_rate)
		err = set_rate(name, rate, e);
	/* It only gets another rate. */
	if (err || (has_rate && !strcmp(s.what, "all") &&
		    strcmp(s.state, "done")))
		return err;
	err = device_message(name, "prefetch all", e);
	if (err == -EOPNOTSUPP)
		return error_set(e, err,
				 "device %s has no store to keep its image: attach it with --store",
				 name);
	if (err == -EBUSY)
		return error_set(e, err,
				 "device %s follows a trace now: try again later, or --stop ends that",
				 name);
	return err;
}

int cmd_hydrate(int argc, char **argv)
{
	static const struct option options[] = {
		{ "rate", required_argument, NULL, 'r' },
		{ "pause", no_argument, NULL, 'p' },
		{ "resume", no_argument, NULL, 'g' },
		{ "stop", no_argument, NULL, 'e' },
		{ "status", no_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	const char *message = NULL, *name;
	bool has_rate = false, status = false;
	struct error e = {};
	int opt, err, words = 0;
	u64 rate = 0;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		words++;
		switch (opt) {
		case 'r':
			has_rate = true;
			if (units_parse(optarg, &rate) && rate <= 1ULL << 40)
				break;
			fprintf(stderr,
				"lazyframe hydrate: --rate \"%s\" is no number of bytes a second up to 1T\n",
				optarg);
			return 2;
		case 'p':
			message = "prefetch pause";
			break;
		case 'g':
			message = "prefetch resume";
			break;
		case 'e':
			message = "prefetch stop";
			break;
		case 's':
			status = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (argc - optind != 1 || words > 1) {
		fputs(usage, stderr);
		return 2;
	}
	name = argv[optind];
	err = device_name_check(name, &e);
	if (!err && status)
		err = show(name, &e);
	else if (!err && message)
		err = device_message(name, message, &e);
	else if (!err)
		err = begin(name, has_rate, rate, &e);
	if (err == -ENODATA)
		error_set(&e, err, "device %s fetches nothing ahead", name);
	if (err)
		fprintf(stderr, "lazyframe hydrate: %s\n", e.text);
	return err ? 1 : 0;
}

// SPDX-License-Identifier: GPL-2.0-only
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "cmd.h"
#include "dm.h"
#include "replay.h"
#include "units.h"
#include "uuid.h"

static const char usage[] =
	"Usage: lazyframe trace NAME [--seconds N | --until-idle N] -o OUT [--force]\n"
	"       lazyframe trace NAME --start\n"
	"       lazyframe trace NAME --stop [-o OUT] [--force]\n"
	"       lazyframe trace --merge TRACE... -o OUT [--share PERCENT] [--force]\n"
	"       lazyframe trace --show TRACE\n"
	"\n"
	"Record in which order the parts of an image are first read, for lazyframe attach\n"
	"--prefetch. TRACE and OUT are paths or URLs; attach looks at the header's URL with\n"
	".trace behind it.\n"
	"\n"
	"  --seconds N      so long; else until SIGINT or SIGTERM\n"
	"  --until-idle N   until for N seconds nothing was read for the first time\n"
	"  --start          begin, and return at once\n"
	"  --stop           end what --start began; without -o, forget it\n"
	"  --merge          one trace of many, in the order of the median\n"
	"  --share PERCENT  of them that must have a frame for it to be kept (50)\n"
	"  --show           print a trace\n"
	"  -o OUT           where the trace goes\n"
	"  --force          in place of what is there\n"
	"  --help           this text\n";

struct request {
	enum { RECORD, START, STOP, MERGE, SHOW } what;
	const char *out;
	unsigned int seconds;
	unsigned int idle;
	unsigned int share;
	bool force;
	char **word;
	int words;
};

static bool parse_count(const char *option, const char *text, unsigned int max,
			unsigned int *value)
{
	u64 n;

	if (units_count(text, 1, max, &n)) {
		*value = n;
		return true;
	}
	fprintf(stderr,
		"lazyframe trace: --%s \"%s\" is no number from 1 to %u\n",
		option, text, max);
	return false;
}

static bool makes_sense(const struct request *r)
{
	switch (r->what) {
	case RECORD:
		return r->words == 1 && r->out && !(r->seconds && r->idle);
	case START:
		return r->words == 1 && !r->out && !r->seconds && !r->idle;
	case STOP:
		return r->words == 1 && !r->seconds && !r->idle;
	case MERGE:
		return r->words && r->out && !r->seconds && !r->idle;
	case SHOW:
		return r->words == 1 && !r->out;
	}
	return false;
}

/* Return: -1 to go on, else the exit status. */
static int parse(int argc, char **argv, struct request *r)
{
	static const struct option options[] = {
		{ "seconds", required_argument, NULL, 's' },
		{ "until-idle", required_argument, NULL, 'i' },
		{ "share", required_argument, NULL, 'S' },
		{ "start", no_argument, NULL, 'b' },
		{ "stop", no_argument, NULL, 'e' },
		{ "merge", no_argument, NULL, 'm' },
		{ "show", no_argument, NULL, 'p' },
		{ "force", no_argument, NULL, 'F' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	bool good = true;
	int opt;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "o:", options, NULL)) != -1) {
		switch (opt) {
		case 'o':
			r->out = optarg;
			break;
		case 's':
			good = parse_count("seconds", optarg, 86400,
					   &r->seconds);
			break;
		case 'i':
			good = parse_count("until-idle", optarg, 86400,
					   &r->idle);
			break;
		case 'S':
			good = parse_count("share", optarg, 100, &r->share);
			break;
		case 'b':
			r->what = START;
			break;
		case 'e':
			r->what = STOP;
			break;
		case 'm':
			r->what = MERGE;
			break;
		case 'p':
			r->what = SHOW;
			break;
		case 'F':
			r->force = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			good = false;
			fputs(usage, stderr);
		}
		if (!good)
			return 2;
	}
	r->word = argv + optind;
	r->words = argc - optind;
	if (makes_sense(r))
		return -1;
	fputs(usage, stderr);
	return 2;
}

static int stored(const struct request *r, const struct trace *trace,
		  u32 lost, struct error *e)
{
	int err = trace_store(r->out, trace, r->force, e);

	if (!err)
		fprintf(stderr, "%s: %u frames of %u layers\n", r->out,
			trace->entries, trace->layers);
	if (!err && lost)
		fprintf(stderr,
			"lazyframe trace: %u frames more were read; a trace holds the first %u\n",
			lost, TRACE_MAX_ENTRIES);
	return err;
}

static int stop(const struct request *r, struct error *e)
{
	const char *name = r->word[0];
	struct trace trace = {};
	u32 lost = 0;
	int err = 0;

	if (r->out) {
		err = record_count(name, &lost, e);
		if (err >= 0)
			err = record_read(name, &trace, e);
		if (!err)
			err = stored(r, &trace, lost, e);
	}
	/* What could not be stored is not lost: another --stop is possible. */
	if (!err)
		err = record_stop(name, e);
	trace_free(&trace);
	return err;
}

/* Until a signal, or what was asked for; the signals are blocked. */
static int wait_for_end(const struct request *r, const sigset_t *signals,
			struct error *e)
{
	const struct timespec second = { .tv_sec = 1 };
	unsigned int passed = 0, still = 0;
	int count = 0, now;

	for (;;) {
		if (sigtimedwait(signals, NULL, &second) > 0)
			return 0;
		if (errno != EAGAIN)
			continue;
		passed++;
		if (r->seconds && passed >= r->seconds)
			return 0;
		if (!r->idle)
			continue;
		now = record_count(r->word[0], NULL, e);
		if (now < 0)
			return now;
		/* Nothing was read at all: it has not begun. */
		still = now == count && now ? still + 1 : 0;
		count = now;
		if (still >= r->idle)
			return 0;
	}
}

static int record(const struct request *r, struct error *e)
{
	const char *name = r->word[0];
	sigset_t signals;
	int err;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	err = record_start(name, e);
	if (err == -EBUSY)
		return error_set(e, err,
				 "device %s: a recording is made already; lazyframe trace %s --stop ends it",
				 name, name);
	if (!err)
		err = wait_for_end(r, &signals, e);
	if (!err)
		err = stop(r, e);
	return err;
}

static int merge(const struct request *r, struct error *e)
{
	struct trace *in = calloc(r->words, sizeof(*in)), out = {};
	int i, err = in ? 0 : no_memory(e);

	for (i = 0; i < r->words && !err; i++)
		err = trace_load(r->word[i], &in[i], e);
	if (!err)
		err = trace_merge(in, r->words, r->share, &out, e);
	if (!err)
		err = stored(r, &out, 0, e);
	for (i = 0; in && i < r->words; i++)
		trace_free(&in[i]);
	trace_free(&out);
	free(in);
	return err;
}

static int show(const struct request *r, struct error *e)
{
	char uuid[UUID_TEXT];
	struct trace trace;
	int err;
	u32 i;

	err = trace_load(r->word[0], &trace, e);
	if (err)
		return err;
	uuid_text(trace.image, uuid);
	printf("image %s\ntraces %u\nlayers %u\nframes %u\n", uuid,
	       trace.merged, trace.layers, trace.entries);
	for (i = 0; i < trace.entries; i++) {
		uuid_text(trace.layer[trace_entry_layer(trace.entry[i])].uuid,
			  uuid);
		printf("%s %llu\n", uuid, (unsigned long long)
		       trace_entry_upos(trace.entry[i]));
	}
	trace_free(&trace);
	return 0;
}

static int start(const struct request *r, struct error *e)
{
	return record_start(r->word[0], e);
}

int cmd_trace(int argc, char **argv)
{
	static int (*const run[])(const struct request *r, struct error *e) = {
		[RECORD] = record,
		[START] = start,
		[STOP] = stop,
		[MERGE] = merge,
		[SHOW] = show,
	};
	struct request r = { .share = 50 };
	struct error e = {};
	int status = parse(argc, argv, &r), err = 0;

	if (status >= 0)
		return status;
	if (r.what != MERGE && r.what != SHOW)
		err = device_name_check(r.word[0], &e);
	if (!err)
		err = run[r.what](&r, &e);
	if (err)
		fprintf(stderr, "lazyframe trace: %s\n", e.text);
	return err ? 1 : 0;
}

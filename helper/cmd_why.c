// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <getopt.h>
#include <json-c/json.h>
#include <linux/lazyframe.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cmd.h"
#include "dm.h"
#include "report.h"

/* So long a request may lie in the ring before that says something, ms. */
#define HELPER_PATIENCE	1000

static const char usage[] =
	"Usage: lazyframe why NAME [--json]\n"
	"\n"
	"Tell what each read of a device waits for, and since when.\n"
	"\n"
	"  --json    one object\n"
	"  --help    this text\n";

enum fault { NOBODY, HELPER, ORIGIN, STORE, MEMORY, FAULTS };

static const char *const fault_name[FAULTS] = {
	"-", "helper", "origin", "store", "memory"
};

/* The states of kmod/why.c: whose fault a wait in them is, and what they mean. */
static const struct state {
	const char *name;
	enum fault fault;
	const char *text;
} states[] = {
	{ "helper", HELPER,
	  "no helper is attached: start lazyframed"
	},
	{ "queue", MEMORY,
	  "cannot be asked for yet: the helper has as much to do as it can be given, or there is no memory"
	},
	{ "posted", NOBODY,
	  "asked for; the helper has not taken the request yet"
	},
	{ "taken", ORIGIN,
	  "the helper has asked, or is about to, and no byte came yet; `systemctl status lazyframed` and its log tell whether the server answers"
	},
	{ "receiving", ORIGIN,
	  "bytes come in"
	},
	{ "store-queue", STORE,
	  "the store has it, and has other reads to do first"
	},
	{ "loading", STORE,
	  "the store's device reads it"
	},
	{ "memory", MEMORY,
	  "the kernel has no memory for it"
	},
	{ "decoding", NOBODY,
	  "all is there, and is decoded"
	},
};

struct read {
	u64 age;	/* ms */
	u64 here;	/* ms, in @state */
	const struct state *state;
	enum fault fault;
	char uuid[UUID_TEXT];
	u64 layer;
	u64 upos;
	u64 cstart;
	u64 have;
	u64 cbytes;
};

struct answer {
	bool helper;
	u64 since;	/* ms */
	u64 silent;	/* ms */
	u64 waiting;
	size_t reads;
	struct read *read;
};

static const struct state *state_of(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(states); i++)
		if (!strcmp(states[i].name, name))
			return &states[i];
	return NULL;
}

static bool parse_head(const char *line, struct answer *a, u64 *listed)
{
	char helper[16];

	if (sscanf(line, "helper %15s %lu %lu waiting %lu listed %lu", helper,
		   &a->since, &a->silent, &a->waiting, listed) != 5)
		return false;
	a->helper = !strcmp(helper, "attached");
	return a->helper || !strcmp(helper, "none");
}

static bool parse_read(const char *line, struct read *r)
{
	char state[16];

	_Static_assert(UUID_TEXT == 37, "as in the format");
	if (sscanf(line, "read %lu %15s %lu %36s %lu %lu %lu %lu %lu", &r->age,
		   state, &r->here, r->uuid, &r->layer, &r->upos, &r->cstart,
		   &r->have, &r->cbytes) != 9)
		return false;
	r->state = state_of(state);
	if (r->state)
		r->fault = r->state->fault;
	return r->state;
}

static int oldest_first(const void *a, const void *b)
{
	const struct read *x = a, *y = b;

	return (x->age < y->age) - (x->age > y->age);
}

/* A helper that leaves requests where they are is at fault for all it has. */
static void judge(struct answer *a)
{
	bool stuck = false;
	size_t i;

	for (i = 0; i < a->reads; i++)
		stuck |= !strcmp(a->read[i].state->name, "posted") &&
			 a->read[i].here >= HELPER_PATIENCE &&
			 a->silent >= HELPER_PATIENCE;
	for (i = 0; stuck && i < a->reads; i++)
		if (!strcmp(a->read[i].state->name, "posted") ||
		    a->read[i].fault == ORIGIN)
			a->read[i].fault = HELPER;
}

static int parse(char *text, struct answer *a, struct error *e)
{
	char *rest = text, *line = strsep(&rest, "\n");
	u64 listed;

	if (!parse_head(line, a, &listed) || listed > 1 << 20)
		goto bad;
	a->read = calloc(listed ? listed : 1, sizeof(*a->read));
	if (!a->read)
		return no_memory(e);
	while (a->reads < listed) {
		line = strsep(&rest, "\n");
		if (!line || !parse_read(line, &a->read[a->reads++]))
			goto bad;
	}
	qsort(a->read, a->reads, sizeof(*a->read), oldest_first);
	judge(a);
	return 0;
bad:
	return error_set(e, -EPROTO,
			 "the module's answer \"%s\" is not what this version knows: use tools and module of one version",
			 line ? line : "");
}

/* "0.3 s" */
static void print_ms(u64 ms, char *text, size_t bytes)
{
	if (ms < 120000)
		snprintf(text, bytes, "%.1f s", ms / 1000.0);
	else if (ms < 7200000)
		snprintf(text, bytes, "%.1f min", ms / 60000.0);
	else
		snprintf(text, bytes, "%.1f h", ms / 3600000.0);
}

/* I/O that is under way on a device, of all who use it. */
static bool inflight(dev_t number, u64 *reads, u64 *writes)
{
	char path[64];
	FILE *file;
	bool ok;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/inflight",
		 major(number), minor(number));
	file = fopen(path, "re");
	if (!file)
		return false;
	ok = fscanf(file, "%lu %lu", reads, writes) == 2;
	fclose(file);
	return ok;
}

static void print_inflight(const struct report *r, const char *what,
			   const char *node, enum device_part part)
{
	dev_t number = device_part(&r->device, part);
	u64 reads, writes;

	if (number && inflight(number, &reads, &writes) && reads + writes)
		printf("%-8s %s: %lu reads and %lu writes under way\n", what,
		       node, reads, writes);
}

static void print_reads(const struct answer *a)
{
	char age[32], here[32];
	size_t i;

	printf("\n%10s  %10s  %-11s  %-6s  %-36s  %14s  %14s  %s\n", "WAITS",
	       "IN STATE", "STATE", "FAULT", "LAYER", "U OFFSET", "C OFFSET",
	       "BYTES");
	for (i = 0; i < a->reads; i++) {
		const struct read *r = &a->read[i];

		print_ms(r->age, age, sizeof(age));
		print_ms(r->here, here, sizeof(here));
		printf("%10s  %10s  %-11s  %-6s  %-36s  %14lu  ", age, here,
		       r->state->name, fault_name[r->fault], r->uuid, r->upos);
		if (r->cbytes)
			printf("%14lu  %lu of %lu\n", r->cstart, r->have,
			       r->cbytes);
		else
			printf("%14s  -\n", "-");
	}
}

/* What the states that occur mean, once each */
static void print_states(const struct answer *a)
{
	size_t i, j;

	puts("");
	for (i = 0; i < ARRAY_SIZE(states); i++) {
		for (j = 0; j < a->reads && a->read[j].state != &states[i]; j++)
			;
		if (j < a->reads)
			printf("%-11s  %s\n", states[i].name, states[i].text);
	}
}

/* Where a layer's object is; false where that is not to be known. */
static bool locate(u64 layer, struct lazyframe_layer_info *info)
{
	int fd = open(LAZYFRAME_DEVICE, O_RDWR | O_CLOEXEC);
	bool ok;

	if (fd < 0)
		return false;
	*info = (struct lazyframe_layer_info) { .layer = layer };
	ok = !ioctl(fd, LAZYFRAME_IOC_LAYER, info);
	close(fd);
	info->locator[sizeof(info->locator) - 1] = 0;
	return ok && info->locator[0];
}

/* The objects of the layers that somebody waits for, once each */
static void print_objects(const struct answer *a)
{
	struct lazyframe_layer_info info;
	size_t i, j;

	for (i = 0; i < a->reads; i++) {
		for (j = 0; j < i && a->read[j].layer != a->read[i].layer; j++)
			;
		if (j == i && locate(a->read[i].layer, &info))
			printf("%-11s  %.8s is %s\n", i ? "" : "layers",
			       a->read[i].uuid, info.locator);
	}
}

static void print(const struct report *r, const struct answer *a)
{
	char since[32], silent[32];

	print_ms(a->since, since, sizeof(since));
	print_ms(a->silent, silent, sizeof(silent));
	if (a->helper)
		printf("helper   attached for %s, last heard of %s ago\n",
		       since, silent);
	else
		printf("helper   none for %s\n", since);
	printf("waiting  %lu reads%s\n", a->waiting,
	       r->device.suspended ? "; others for `dmsetup resume`, as the device is suspended" :
	       "");
	print_inflight(r, "COW", r->cow, DEVICE_COW);
	print_inflight(r, "store", r->store, DEVICE_STORE);
	if (!a->reads)
		return;
	print_reads(a);
	if (a->reads < a->waiting)
		printf("%10s  %lu more\n", "...",
		       (u64)(a->waiting - a->reads));
	print_states(a);
	print_objects(a);
}

static struct json_object *number(u64 value)
{
	return json_object_new_uint64(value);
}

static struct json_object *read_json(const struct read *r)
{
	struct json_object *o = json_object_new_object();
	struct lazyframe_layer_info info;

	json_object_object_add(o, "age_ms", number(r->age));
	json_object_object_add(o, "state",
			       json_object_new_string(r->state->name));
	json_object_object_add(o, "in_state_ms", number(r->here));
	json_object_object_add(o, "fault", r->fault == NOBODY ? NULL :
			       json_object_new_string(fault_name[r->fault]));
	json_object_object_add(o, "layer", json_object_new_string(r->uuid));
	json_object_object_add(o, "object", locate(r->layer, &info) ?
			       json_object_new_string(info.locator) : NULL);
	json_object_object_add(o, "u_offset", number(r->upos));
	json_object_object_add(o, "c_offset",
			       r->cbytes ? number(r->cstart) : NULL);
	json_object_object_add(o, "have", r->cbytes ? number(r->have) : NULL);
	json_object_object_add(o, "length",
			       r->cbytes ? number(r->cbytes) : NULL);
	return o;
}

static void print_json(const struct report *r, const struct answer *a)
{
	struct json_object *o = json_object_new_object();
	struct json_object *reads = json_object_new_array();
	size_t i;

	json_object_object_add(o, "name",
			       json_object_new_string(r->device.name));
	json_object_object_add(o, "suspended",
			       json_object_new_boolean(r->device.suspended));
	json_object_object_add(o, "helper",
			       json_object_new_string(a->helper ? "attached" :
								  "none"));
	json_object_object_add(o, "helper_since_ms", number(a->since));
	json_object_object_add(o, "helper_silent_ms",
			       a->helper ? number(a->silent) : NULL);
	json_object_object_add(o, "waiting", number(a->waiting));
	for (i = 0; i < a->reads; i++)
		json_object_array_add(reads, read_json(&a->read[i]));
	json_object_object_add(o, "reads", reads);
	puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY));
	json_object_put(o);
}

static int why(const char *name, bool json, struct error *e)
{
	struct answer answer = {};
	struct report report;
	char *text;
	int err;

	err = device_name_check(name, e);
	if (!err)
		err = report_read(name, &report, e);
	if (err)
		return err;
	text = device_ask(name, "why", e);
	err = text ? parse(text, &answer, e) : -EIO;
	if (!err && json)
		print_json(&report, &answer);
	else if (!err)
		print(&report, &answer);
	free(answer.read);
	free(text);
	report_drop(&report);
	return err;
}

int cmd_why(int argc, char **argv)
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
	if (argc - optind != 1) {
		fputs(usage, stderr);
		return 2;
	}
	if (why(argv[optind], json, &e)) {
		fprintf(stderr, "lazyframe why: %s\n", e.text);
		return 1;
	}
	return 0;
}

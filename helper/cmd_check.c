// SPDX-License-Identifier: GPL-2.0-only
#include <getopt.h>
#include <json-c/json.h>
#include <stdio.h>

#include "check.h"
#include "cmd.h"
#include "uuid.h"

enum { EXIT_CLEAN, EXIT_DAMAGED, EXIT_USAGE };

static const char usage[] =
	"Usage: lazyframe check META [--cow COW] [--repair] [--json]\n"
	"\n"
	"Check a meta device that is not in use, and that COW belongs to it.\n"
	"\n"
	"  --cow COW  the COW device\n"
	"  --repair   put right what can be told for sure from what else is there\n"
	"  --json     one object\n"
	"  --help     this text\n"
	"\n"
	"Exit status: 0: clean, or all repaired; 1: damaged; 2: cannot be checked.\n";

static const char *state(const struct check *check)
{
	if (check->damaged)
		return "damaged";
	return check->count ? "repaired" : "clean";
}

static bool sealed(const struct check *check)
{
	return le32_to_cpu(check->root.flags) & LF_ROOT_SEALED;
}

static void print(const struct check *check, const char *meta)
{
	char uuid[UUID_TEXT];
	u32 i;

	for (i = 0; i < check->count; i++)
		printf("%s: %s%s\n", check->finding[i].place,
		       check->finding[i].what,
		       check->finding[i].repaired ? " (repaired)" : "");
	if (check->has_super) {
		uuid_text(check->super.uuid, uuid);
		printf("image    %s, %u layers, %u mappings\n", uuid,
		       check->super.layers, check->super.extents);
	}
	if (check->has_overlay) {
		uuid_text(check->root.uuid, uuid);
		printf("overlay  %s, %llu dirty and %llu zero of %llu blocks%s\n",
		       uuid, (unsigned long long)check->dirty,
		       (unsigned long long)check->zero,
		       (unsigned long long)le64_to_cpu(check->root.blocks),
		       sealed(check) ? ", sealed" : "");
	}
	printf("%s: %s\n", meta, state(check));
}

static struct json_object *text(const char *value)
{
	return json_object_new_string(value);
}

static struct json_object *number(u64 value)
{
	return json_object_new_uint64(value);
}

static struct json_object *boolean(bool value)
{
	return json_object_new_boolean(value);
}

static void print_json(const struct check *check, const char *meta)
{
	struct json_object *o = json_object_new_object(), *sub;
	struct json_object *list = json_object_new_array();
	char uuid[UUID_TEXT];
	u32 i;

	json_object_object_add(o, "meta", text(meta));
	json_object_object_add(o, "state", text(state(check)));
	for (i = 0; i < check->count; i++) {
		sub = json_object_new_object();
		json_object_object_add(sub, "place",
				       text(check->finding[i].place));
		json_object_object_add(sub, "what",
				       text(check->finding[i].what));
		json_object_object_add(sub, "repaired",
				       boolean(check->finding[i].repaired));
		json_object_array_add(list, sub);
	}
	json_object_object_add(o, "findings", list);
	if (check->has_super) {
		uuid_text(check->super.uuid, uuid);
		json_object_object_add(o, "image", text(uuid));
	}
	if (check->has_overlay) {
		sub = json_object_new_object();
		uuid_text(check->root.uuid, uuid);
		json_object_object_add(sub, "uuid", text(uuid));
		json_object_object_add(sub, "blocks",
				       number(le64_to_cpu(check->root.blocks)));
		json_object_object_add(sub, "dirty", number(check->dirty));
		json_object_object_add(sub, "zero", number(check->zero));
		json_object_object_add(sub, "sealed", boolean(sealed(check)));
		json_object_object_add(o, "overlay", sub);
	}
	puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY));
	json_object_put(o);
}

int cmd_check(int argc, char **argv)
{
	static const struct option options[] = {
		{ "cow", required_argument, NULL, 'c' },
		{ "repair", no_argument, NULL, 'r' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	bool repair = false, json = false;
	const char *cow = NULL;
	struct check check;
	struct error e = {};
	int opt, status;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'c':
			cow = optarg;
			break;
		case 'r':
			repair = true;
			break;
		case 'j':
			json = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return EXIT_CLEAN;
		default:
			fputs(usage, stderr);
			return EXIT_USAGE;
		}
	}
	if (argc - optind != 1) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	if (check_run(argv[optind], cow, repair, &check, &e)) {
		fprintf(stderr, "lazyframe check: %s\n", e.text);
		status = EXIT_USAGE;
	} else {
		if (json)
			print_json(&check, argv[optind]);
		else
			print(&check, argv[optind]);
		status = check.damaged ? EXIT_DAMAGED : EXIT_CLEAN;
	}
	check_drop(&check);
	return status;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * lazyframe gc: find data objects that no header names, and delete them.
 *
 * Where in doubt an object stays: a name that could be read in two ways is
 * kept if either is in use, what may be no data object at all is left alone, and
 * one header that does not parse ends it all. Headers are listed after the
 * data objects, so that none is missed that was there when those were.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "bucket.h"
#include "cmd.h"
#include "codec.h"
#include "header.h"
#include "object.h"
#include "units.h"
#include "uuid.h"

#define HEADER_SUFFIX	".header"
#define SIDECAR		".uncompressed-size"
#define HOUR		3600U
/* As for any reader of headers: an LZ4 frame may exceed its content. */
#define HEADER_MAX_OBJECT	(HEADER_MAX_BYTES + (HEADER_MAX_BYTES >> 8))

enum { EXIT_USAGE = 2 };

/**
 * struct object - a data object, or a header
 * @dir: name of its directory
 * @name: its own
 */
struct object {
	u8 uuid[16];
	u64 bytes;
	u64 age;
	char *dir;
	char *name;
};

struct objects {
	struct object *object;
	size_t count;
	size_t room;
};

/* @name: index in gc.name: headers name layers and their own name names objects */
struct ref {
	u8 uuid[16];
	u32 name;
};

struct gc {
	const char *url;
	const struct object_ops *ops;
	bool delete;
	bool quiet;
	u64 min_age;

	struct objects data;
	struct objects headers;
	char **name;
	u32 names;
	struct ref *ref;
	size_t refs;
	size_t refs_room;
	u64 young;
	u64 others;
	u64 found;
	u64 found_bytes;
};

/* Length of @name without @suffix; 0: it ends otherwise. */
static size_t stem(const char *name, const char *suffix)
{
	size_t len = strlen(name), n = strlen(suffix);

	return len > n && !strcmp(name + len - n, suffix) ? len - n : 0;
}

static int add_object(struct objects *objects,
		      const struct object_entry *entry, struct error *e)
{
	struct object *object = objects->object;

	if (objects->count == objects->room) {
		size_t room = objects->room ? 2 * objects->room : 64;

		object = reallocarray(object, room, sizeof(*object));
		if (!object)
			return no_memory(e);
		objects->object = object;
		objects->room = room;
	}
	object += objects->count++;
	memset(object, 0, sizeof(*object));
	object->bytes = entry->bytes;
	object->age = entry->age;
	object->dir = strdup(entry->dir);
	object->name = strdup(entry->name);
	return object->dir && object->name ? 0 : no_memory(e);
}

static void free_objects(struct objects *objects)
{
	size_t i;

	for (i = 0; i < objects->count; i++) {
		free(objects->object[i].dir);
		free(objects->object[i].name);
	}
	free(objects->object);
}

static int note_data(void *arg, const struct object_entry *entry,
		     struct error *e)
{
	struct gc *gc = arg;
	u8 uuid[16];
	int err;

	if (stem(entry->name, HEADER_SUFFIX) || stem(entry->name, SIDECAR) ||
	    !uuid_parse(entry->dir, uuid))
		return 0;
	err = add_object(&gc->data, entry, e);
	if (!err)
		memcpy(gc->data.object[gc->data.count - 1].uuid, uuid,
		       sizeof(uuid));
	return err;
}

static int note_header(void *arg, const struct object_entry *entry,
		       struct error *e)
{
	struct gc *gc = arg;

	return stem(entry->name, HEADER_SUFFIX) ?
	       add_object(&gc->headers, entry, e) : 0;
}

/* The index of a name of @len bytes; gc->names: no header has it. */
static u32 find_name(const struct gc *gc, const char *name, size_t len)
{
	u32 i;

	for (i = 0; i < gc->names; i++)
		if (strlen(gc->name[i]) == len &&
		    !memcmp(gc->name[i], name, len))
			break;
	return i;
}

static int add_name(struct gc *gc, const char *name, size_t len, u32 *index,
		    struct error *e)
{
	char **array;

	*index = find_name(gc, name, len);
	if (*index < gc->names)
		return 0;
	array = reallocarray(gc->name, gc->names + 1UL, sizeof(*array));
	if (!array)
		return no_memory(e);
	gc->name = array;
	array[gc->names] = strndup(name, len);
	if (!array[gc->names])
		return no_memory(e);
	gc->names++;
	return 0;
}

static int compare_refs(const void *a, const void *b)
{
	const struct ref *x = a, *y = b;
	int order = memcmp(x->uuid, y->uuid, sizeof(x->uuid));

	if (order)
		return order;
	return x->name < y->name ? -1 : x->name > y->name;
}

/* Each once: many headers name the same layers. */
static void sort_refs(struct gc *gc)
{
	size_t i, n = 0;

	if (!gc->refs)
		return;
	qsort(gc->ref, gc->refs, sizeof(*gc->ref), compare_refs);
	for (i = 1; i < gc->refs; i++)
		if (compare_refs(&gc->ref[n], &gc->ref[i]))
			gc->ref[++n] = gc->ref[i];
	gc->refs = n + 1;
}

static int add_ref(struct gc *gc, const u8 uuid[16], u32 name,
		   struct error *e)
{
	struct ref *ref = gc->ref;

	/* Zeros, or mostly the same layer again */
	if (uuid_is_nil(uuid) ||
	    (gc->refs && ref[gc->refs - 1].name == name &&
	     !memcmp(ref[gc->refs - 1].uuid, uuid, sizeof(ref->uuid))))
		return 0;
	if (gc->refs == gc->refs_room)
		sort_refs(gc);
	if (gc->refs >= gc->refs_room / 2) {
		size_t room = gc->refs_room ? 2 * gc->refs_room : 256;

		ref = reallocarray(ref, room, sizeof(*ref));
		if (!ref)
			return no_memory(e);
		gc->ref = ref;
		gc->refs_room = room;
	}
	memcpy(ref[gc->refs].uuid, uuid, sizeof(ref->uuid));
	ref[gc->refs++].name = name;
	return 0;
}

/* malloc()ed; NULL: no memory */
static char *object_url(const struct gc *gc, const struct object *object)
{
	char *dir = url_escape(object->dir, "");
	char *name = url_escape(object->name, ""), *url = NULL;
	size_t len = strlen(gc->url);

	while (len && gc->url[len - 1] == '/')
		len--;
	if (dir && name &&
	    asprintf(&url, "%.*s/%s/%s", (int)len, gc->url, dir, name) < 0)
		url = NULL;
	free(dir);
	free(name);
	return url;
}

static int read_header(struct gc *gc, const struct object *object,
		       struct error *e)
{
	char *url = object_url(gc, object);
	struct header header = { };
	void *data = NULL;
	size_t bytes;
	u32 name, i;
	int err;

	if (!url)
		return no_memory(e);
	err = object_get(url, HEADER_MAX_OBJECT, &data, &bytes, e);
	if (!err) {
		err = header_parse(data, bytes, &header, e);
		if (err)
			error_prefix(e, "%s", url);
	}
	if (err) {
		error_prefix(e, "what it refers to is not known, so nothing is deleted");
		goto out;
	}
	err = add_name(gc, object->name, stem(object->name, HEADER_SUFFIX),
		       &name, e);
	if (!err)
		err = add_ref(gc, header.uuid, name, e);
	for (i = 0; !err && i < header.layers; i++)
		err = add_ref(gc, header.layer[i].uuid, name, e);
	for (i = 0; !err && i < header.mappings; i++)
		err = add_ref(gc, header.mapping[i].uuid, name, e);
	header_free(&header);
out:
	free(data);
	free(url);
	return err;
}

/* Does a header name the object, if its first @len bytes are the image's name? */
static bool referred(const struct gc *gc, const struct object *object,
		     size_t len)
{
	struct ref key = { .name = find_name(gc, object->name, len) };

	if (!gc->refs || key.name == gc->names)
		return false;
	memcpy(key.uuid, object->uuid, sizeof(key.uuid));
	return bsearch(&key, gc->ref, gc->refs, sizeof(key), compare_refs);
}

static bool is_garbage(struct gc *gc, const struct object *object)
{
	size_t len = strlen(object->name), codec;

	codec = stem(object->name, ".zstd");
	if (!codec)
		codec = stem(object->name, ".lz4");
	if (referred(gc, object, len) ||
	    (codec && referred(gc, object, codec)))
		return false;
	/* Only a name tells a raw data object from any other file. */
	if (!codec && find_name(gc, object->name, len) == gc->names) {
		gc->others++;
		return false;
	}
	if (object->age < gc->min_age) {
		gc->young++;
		return false;
	}
	return true;
}

static int handle(struct gc *gc, const struct object *object, struct error *e)
{
	char text[UNITS_TEXT], *url;
	int err = 0;

	if (gc->delete) {
		url = object_url(gc, object);
		err = url ? gc->ops->delete(url, e) : no_memory(e);
		free(url);
		if (err)
			return err;
	}
	gc->found++;
	gc->found_bytes += object->bytes;
	printf("%s  %12s  %s\n", object->dir,
	       units_text(object->bytes, text), object->name);
	return 0;
}

static int collect(struct gc *gc, struct error *e)
{
	size_t i;
	int err;

	gc->ops = object_ops(gc->url, e);
	if (!gc->ops)
		return -EINVAL;
	if (!gc->ops->list)
		return error_set(e, -EOPNOTSUPP,
				 "%s: %s:// cannot be listed; run gc where the objects are files",
				 gc->url, gc->ops->scheme);
	err = gc->ops->list(gc->url, note_data, gc, e);
	if (!err)
		err = gc->ops->list(gc->url, note_header, gc, e);
	for (i = 0; !err && i < gc->headers.count; i++)
		err = read_header(gc, &gc->headers.object[i], e);
	if (err)
		return err;
	sort_refs(gc);
	for (i = 0; !err && i < gc->data.count; i++)
		if (is_garbage(gc, &gc->data.object[i]))
			err = handle(gc, &gc->data.object[i], e);
	return err;
}

static void summary(const struct gc *gc)
{
	char text[UNITS_TEXT];

	fprintf(stderr, "headers: %zu, data objects: %zu, %s: %llu (%s)\n",
		gc->headers.count, gc->data.count,
		gc->delete ? "deleted" : "in no header",
		(unsigned long long)gc->found,
		units_text(gc->found_bytes, text));
	if (gc->young)
		fprintf(stderr,
			"kept, as they may belong to an upload under way (see --min-age): %llu\n",
			(unsigned long long)gc->young);
	if (gc->others)
		fprintf(stderr, "left alone, as they may be no data objects: %llu\n",
			(unsigned long long)gc->others);
}

static void usage(FILE *out)
{
	fputs("Usage: lazyframe gc [OPTION]... URL\n"
	      "\n"
	      "List the layers below URL (file:///directory) that no header there refers\n"
	      "to: UUID, size, name.\n"
	      "\n"
	      "  -d, --delete               delete them\n"
	      "      --min-age N[s|m|h|d]   leave alone what is younger, default 1h\n"
	      "  -q, --quiet                no summary\n"
	      "  -h, --help\n", out);
}

static bool parse_age(const char *text, u64 *seconds)
{
	static const struct {
		char unit;
		u32 seconds;
	} units[] = { { 's', 1 }, { 'm', 60 }, { 'h', HOUR }, { 'd', 24 * HOUR } };
	u64 n = 0;
	size_t i;

	if (*text < '0' || *text > '9')
		return false;
	for (; *text >= '0' && *text <= '9'; text++) {
		n = 10 * n + (*text - '0');
		if (n > UINT32_MAX)
			return false;
	}
	*seconds = n;
	if (!*text)
		return true;
	for (i = 0; i < ARRAY_SIZE(units); i++) {
		if (*text != units[i].unit || text[1])
			continue;
		*seconds = n * units[i].seconds;
		return true;
	}
	return false;
}

int cmd_gc(int argc, char **argv)
{
	static const struct option options[] = {
		{ "delete", no_argument, NULL, 'd' },
		{ "min-age", required_argument, NULL, 'm' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct gc gc = { .min_age = HOUR };
	struct error e;
	u32 i;
	int c, err;

	while ((c = getopt_long(argc, argv, "dqh", options, NULL)) != -1) {
		switch (c) {
		case 'd':
			gc.delete = true;
			break;
		case 'm':
			if (!parse_age(optarg, &gc.min_age)) {
				fprintf(stderr,
					"lazyframe gc: min-age %s: not a number, or one with s, m, h or d\n",
					optarg);
				return EXIT_USAGE;
			}
			break;
		case 'q':
			gc.quiet = true;
			break;
		case 'h':
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return EXIT_USAGE;
		}
	}
	if (argc - optind != 1) {
		usage(stderr);
		return EXIT_USAGE;
	}
	gc.url = argv[optind];
	err = collect(&gc, &e);
	if (err)
		fprintf(stderr, "lazyframe gc: %s\n", e.text);
	else if (!gc.quiet)
		summary(&gc);
	free_objects(&gc.data);
	free_objects(&gc.headers);
	for (i = 0; i < gc.names; i++)
		free(gc.name[i]);
	free(gc.name);
	free(gc.ref);
	return err ? 1 : 0;
}

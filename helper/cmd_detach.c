// SPDX-License-Identifier: GPL-2.0-only
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cmd.h"
#include "inuse.h"
#include "loopdev.h"
#include "stack.h"
#include "state.h"

static const char usage[] =
	"Usage: lazyframe detach NAME [--force] [--discard]\n"
	"\n"
	"Remove the device and what attaching it made. What was written to it stays,\n"
	"in the files and block devices of its overlay, for the next attach.\n"
	"\n"
	"  --force    let all its I/O fail first, reads that wait included\n"
	"  --discard  what was written to it goes, too: the overlay's files are removed,\n"
	"             its block devices are marked as empty\n"
	"  --help     this text\n";

/*
 * The loop device that attach made goes by itself when the mapped device does.
 * What shows our file now was made by others, or somebody looks at it. Loop
 * devices of files that the user named are left alone: they may be his.
 */
static int drop_loop(const struct stat *file, const char *path,
		     struct error *e)
{
	char loop[LOOPDEV_PATH], users[512];
	struct stat st;
	int err;

	err = loopdev_find(file, loop);
	if (err == -ENOENT)
		return 0;
	if (!err && !stat(loop, &st) &&
	    inuse_tell(major(st.st_rdev), minor(st.st_rdev), users,
		       sizeof(users)))
		return error_set(e, -EBUSY, "%s, which shows %s, is in use: %s",
				 loop, path, users);
	if (!err)
		err = loopdev_clear(loop);
	if (err)
		return error_set(e, err, "the loop device of %s: %s", path,
				 strerror(-err));
	return 0;
}

/*
 * The meta file that attach made goes, unless its overlay is all that tells
 * what was written.
 *
 * @found: set if there was a file to remove
 */
static int drop_files(const char *name, bool discard, bool *found,
		      struct error *e)
{
	char path[STATE_PATH];
	struct stat st;
	unsigned int i;
	int err;

	for (i = 0; !state_each_meta(name, i, path); i++) {
		if (stat(path, &st))
			continue;
		if (!discard && metafile_has_overlay(path))
			continue;
		*found = true;
		err = drop_loop(&st, path, e);
		if (err)
			return err;
		if (unlink(path))
			return error_set(e, -errno, "%s: %s", path,
					 strerror(errno));
	}
	return 0;
}

/**
 * struct parts - where the parts of a device and of those below it are
 */
struct parts {
	u32 count;
	char *path[2 * PAIR_MAX_DEPTH];
};

static int note_parts(const struct device *device, struct parts *parts,
		      struct error *e)
{
	char meta[4096], cow[4096];
	u32 n = parts->count;

	stack_paths(device, meta, cow);
	if (!cow[0])
		return 0;
	if (n == ARRAY_SIZE(parts->path))
		return error_set(e, -ELOOP,
				 "too many sealed devices below one another");
	parts->path[n] = strdup(meta);
	parts->path[n + 1] = strdup(cow);
	parts->count += 2;
	return parts->path[n] && parts->path[n + 1] ? 0 :
	       no_memory(e);
}

/* All overlays from one device downwards. */
static int note_stack(const struct device *top, struct parts *parts,
		      struct error *e)
{
	dev_t origin = device_part(top, DEVICE_ORIGIN);
	char name[DEVICE_NAME_MAX + 1];
	struct device device;
	int err;

	err = note_parts(top, parts, e);
	while (!err && origin && !device_mapped_name(origin, name)) {
		err = device_read(name, &device, e);
		if (err)
			break;
		err = note_parts(&device, parts, e);
		origin = device_part(&device, DEVICE_ORIGIN);
		device_drop(&device);
	}
	return err;
}

static int discard_parts(const struct parts *parts, struct error *e)
{
	int err = 0;
	u32 i;

	for (i = 0; !err && i < parts->count; i += 2)
		err = pair_discard(parts->path[i], parts->path[i + 1], e);
	return err;
}

static int remove_device(const struct device *device, bool force, bool discard,
			 struct error *e)
{
	struct parts parts = {};
	int err = 0;

	if (!device_is_ours(device))
		return error_set(e, -EINVAL,
				 "%s is no lazyframe device: its target is \"%s\"",
				 device->name, device->target);
	if (discard)
		err = note_stack(device, &parts, e);
	if (!err && force)
		err = device_fail(device, e);
	if (!err)
		err = device_remove(device, e);
	if (err == -EBUSY && force)
		error_prefix(e,
			     "all I/O fails from now on; detach it again when nobody uses it");
	if (!err)
		err = stack_remove(device->name, NULL, e);
	if (!err && discard)
		err = discard_parts(&parts, e);
	while (parts.count)
		free(parts.path[--parts.count]);
	return err;
}

static int remove_all(const char *name, bool force, bool discard,
		      struct error *e)
{
	struct device device;
	bool found = false;
	int err;

	err = state_lock(e);
	if (!err)
		err = state_lock_device(name, true, e);
	if (err)
		return err;
	err = device_read(name, &device, e);
	if (err && err != -ENXIO)
		return err;
	/* Removed in another way: what lay below may be left. */
	if (err && stack_has_left(name)) {
		found = true;
		err = stack_remove(name, NULL, e);
		if (err)
			return err;
	} else if (!err) {
		found = true;
		err = remove_device(&device, force, discard, e);
		device_drop(&device);
		if (err)
			return err;
	}
	err = drop_files(name, discard, &found, e);
	if (!err && !found)
		err = error_set(e, -ENXIO, "there is no device %s", name);
	return err;
}

int cmd_detach(int argc, char **argv)
{
	static const struct option options[] = {
		{ "force", no_argument, NULL, 'f' },
		{ "discard", no_argument, NULL, 'd' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct error e = {};
	bool force = false, discard = false;
	int opt;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'f':
			force = true;
			break;
		case 'd':
			discard = true;
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
	if (device_name_check(argv[optind], &e) ||
	    remove_all(argv[optind], force, discard, &e)) {
		fprintf(stderr, "lazyframe detach: %s\n", e.text);
		return 1;
	}
	return 0;
}

// SPDX-License-Identifier: GPL-2.0-only
#include <getopt.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cmd.h"
#include "dm.h"
#include "inuse.h"
#include "loopdev.h"
#include "state.h"

static const char usage[] =
	"Usage: lazyframe detach NAME [--force]\n"
	"\n"
	"Remove the device and what attaching it made.\n"
	"\n"
	"  --force   let all its I/O fail first, reads that wait included\n"
	"  --help    this text\n";

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

/* @found: set if there was a file to remove */
static int drop_files(const char *name, bool *found, struct error *e)
{
	char path[STATE_PATH];
	struct stat st;
	unsigned int i;
	int err;

	for (i = 0; !state_each_meta(name, i, path); i++) {
		if (stat(path, &st))
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

static int remove_all(const char *name, bool force, struct error *e)
{
	struct device device;
	bool found = false;
	int err;

	err = state_lock(e);
	if (err)
		return err;
	err = device_read(name, &device, e);
	if (err && err != -ENXIO)
		return err;
	if (!err) {
		found = true;
		if (!device_is_ours(&device)) {
			err = error_set(e, -EINVAL,
					"%s is no lazyframe device: its target is \"%s\"",
					name, device.target);
			goto out;
		}
		if (force)
			err = device_fail(&device, e);
		if (!err)
			err = device_remove(&device, e);
		if (err == -EBUSY && force)
			error_prefix(e,
				     "all I/O fails from now on; detach it again when nobody uses it");
		if (err)
			goto out;
	}
	err = drop_files(name, &found, e);
	if (!err && !found)
		err = error_set(e, -ENXIO, "there is no device %s", name);
out:
	device_drop(&device);
	return err;
}

int cmd_detach(int argc, char **argv)
{
	static const struct option options[] = {
		{ "force", no_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct error e = {};
	bool force = false;
	int opt;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'f':
			force = true;
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
	    remove_all(argv[optind], force, &e)) {
		fprintf(stderr, "lazyframe detach: %s\n", e.text);
		return 1;
	}
	return 0;
}

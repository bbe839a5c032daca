// SPDX-License-Identifier: GPL-2.0-only
/*
 * lazyframe export: sealed overlays become a layer and a header.
 *
 * Which blocks they have is read from the sealed meta devices, which nobody
 * writes; what these hold, from the sealed device itself, so that of several
 * overlays the newest wins. When the header is stored, the device gets another
 * image: written into its meta device beside the one in use, made the valid one
 * by one block, taken up by a table reload. Then nothing needs the sealed
 * overlays any more.
 *
 * Killed before the header is stored, nothing happened; behind that, but before
 * that one block, a second run stores another header; behind that, it does what
 * is left to do.
 */
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cmd.h"
#include "interrupt.h"
#include "io.h"
#include "loopdev.h"
#include "newlayer.h"
#include "seal.h"
#include "state.h"

#define PIECE	(1U << 20)	/* of reads; they may end anywhere in a frame */

static const char usage[] =
	"Usage: lazyframe export NAME [URL] [OPTION]...\n"
	"\n"
	"Store what was written to a device as a new layer below URL, or where its\n"
	"image is, with a header for both; print that header's URL, and let the device\n"
	"read it from there from now on. It stays in use; what has not been sealed\n"
	"yet is sealed first.\n"
	"\n"
	NEWLAYER_HELP
	"  -n, --name NAME            of the objects, default the image's\n"
	"      --compare-parent       leave out blocks that are equal to the image's\n"
	"      --no-parent-compare    do not look for them, the default\n"
	"      --parent URL           of the image's header, if that is not known\n"
	"      --keep                 leave device and sealed overlays as they are\n"
	"  -h, --help\n";

/**
 * struct export - one run
 * @name: of the device
 * @parent_url: asked for, or NULL
 * @device: as it is; with an origin once it is sealed
 * @stack: of sealed overlays, the newest first
 * @sealed_meta: paths of the newest
 * @sealed_cow: likewise
 * @fd: the newest sealed device
 * @buf: PIECE bytes and two sectors, for direct I/O
 */
struct export {
	const char *name;
	const char *parent_url;
	bool keep;
	struct newlayer layer;

	struct device device;
	struct overlay stack[PAIR_MAX_DEPTH];
	struct lf_super super[PAIR_MAX_DEPTH];
	u32 depth;
	char sealed_meta[4096];
	char sealed_cow[4096];
	char *known_url;
	struct image *parent;
	struct newlayer_change *change;
	size_t changes;
	size_t room;
	int fd;
	char *buf;
};

static int read_device(struct export *x, struct error *e)
{
	int err;

	device_drop(&x->device);
	err = device_read(x->name, &x->device, e);
	if (!err && strcmp(x->device.target, DEVICE_TARGET) != 0)
		err = error_set(e, -EINVAL,
				"%s is no lazyframe device: its target is \"%s\"",
				x->name, x->device.target);
	if (!err && !device_part(&x->device, DEVICE_COW))
		err = error_set(e, -EINVAL,
				"%s has no overlay: nothing can be written to it",
				x->name);
	return err;
}

/* The sealed overlays below the device. */
static int open_stack(struct export *x, struct error *e)
{
	dev_t origin = device_part(&x->device, DEVICE_ORIGIN);
	char name[DEVICE_NAME_MAX + 1], node[64], backing[4096];
	struct device device;
	int err = 0;

	while (!err && origin) {
		u32 i = x->depth;

		if (i == PAIR_MAX_DEPTH)
			return error_set(e, -ELOOP,
					 "more than %u sealed overlays below one another",
					 PAIR_MAX_DEPTH);
		if (device_mapped_name(origin, name))
			return error_set(e, -ENXIO,
					 "%u:%u, which %s lies on, is no mapped device",
					 major(origin), minor(origin), x->name);
		err = device_read(name, &device, e);
		if (err)
			return err;
		origin = device_part(&device, DEVICE_ORIGIN);
		device_node(device_part(&device, DEVICE_META), node,
			    sizeof(node), backing, sizeof(backing));
		if (!i)
			stack_paths(&device, x->sealed_meta, x->sealed_cow);
		device_drop(&device);
		err = meta_open(node, O_RDONLY, &x->super[i], e);
		if (err < 0)
			return err;
		x->stack[i].fd = err;
		x->depth++;
		err = overlay_open(x->stack[i].fd, &x->super[i], &x->stack[i],
				   e);
		if (err)
			error_prefix(e, "%s", backing[0] ? backing : node);
	}
	return err;
}

static void close_stack(struct export *x)
{
	while (x->depth)
		close(x->stack[--x->depth].fd);
}

/* All of them have the image of the lowest. */
static int open_parent(struct export *x, struct error *e)
{
	const struct lf_super *super = &x->super[x->depth - 1];
	const char *url;
	int err;

	err = meta_note(x->stack[x->depth - 1].fd, super, META_NOTE_URL,
			&x->known_url, e);
	if (err)
		return err;
	url = x->parent_url ? x->parent_url : x->known_url;
	if (!url)
		return error_set(e, -EINVAL,
				 "nothing tells where the image of %s is: give --parent URL",
				 x->name);
	err = image_open(url, &x->parent, e);
	if (err)
		return err;
	if (memcmp(x->parent->uuid, super->uuid, sizeof(super->uuid)) != 0)
		return error_set(e, -EINVAL,
				 "%s is not the image that %s shows", url,
				 x->name);
	if (!x->parent->header_version)
		return error_set(e, -EINVAL,
				 "%s is a data object without a header, so no layer can be put on it: make an image of it with lazyframe build",
				 url);
	x->layer.parent = x->parent;
	x->layer.parent_url = url;
	x->layer.bytes = x->parent->bytes;
	return 0;
}

static int add_run(void *arg, u64 block, u64 blocks, enum overlay_kind kind,
		   struct error *e)
{
	struct export *x = arg;
	struct newlayer_change *change;
	u64 start = block * LF_META_BLOCK;
	u64 length = blocks * LF_META_BLOCK;

	if (x->changes == x->room) {
		size_t room = x->room ? 2 * x->room : 1024;

		change = reallocarray(x->change, room, sizeof(*change));
		if (!change)
			return no_memory(e);
		x->change = change;
		x->room = room;
	}
	if (length > x->layer.bytes - start)
		length = x->layer.bytes - start;
	x->change[x->changes++] = (struct newlayer_change) {
		.start = start,
		.length = length,
		.kind = kind == OVERLAY_DIRTY ? NEWLAYER_DATA : NEWLAYER_ZERO,
	};
	return 0;
}

/* Past the page cache: no read-ahead into what would have to be fetched. */
static int read_sealed(void *arg, u64 off, void *out, size_t len,
		       struct error *e)
{
	struct export *x = arg;
	int err = 0;

	while (!err && len) {
		u64 skip = off % LF_META_BLOCK, from = off - skip;
		u64 want = len < PIECE - skip ? len : PIECE - skip;
		u64 room = skip + want, end = x->device.sectors * 512;

		room += -room % LF_META_BLOCK;
		if (room > end - from)
			room = end - from;
		err = io_pread(x->fd, x->buf, room, from);
		if (err == -EINTR) {
			err = interrupt_check(e);
			continue;
		}
		if (err)
			return error_set(e, err,
					 "reading the sealed overlay at byte %llu: %s",
					 (unsigned long long)off,
					 strerror(-err));
		memcpy(out, x->buf + skip, want);
		out = (char *)out + want;
		off += want;
		len -= want;
		err = interrupt_check(e);
	}
	return err;
}

static int open_sealed(struct export *x, struct error *e)
{
	dev_t origin = device_part(&x->device, DEVICE_ORIGIN);
	char name[DEVICE_NAME_MAX + 1], path[DEVICE_NAME_MAX + 16];

	if (device_mapped_name(origin, name))
		return error_set(e, -ENXIO, "the sealed device of %s is gone",
				 x->name);
	snprintf(path, sizeof(path), "/dev/mapper/%s", name);
	x->fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (x->fd < 0)
		return error_set(e, -errno, "%s: %s", path, strerror(errno));
	if (posix_memalign((void **)&x->buf, 4096, PIECE + LF_META_BLOCK))
		return no_memory(e);
	return 0;
}

/* Stores layer and header. */
static int store(struct export *x, struct newlayer_result *result,
		 struct error *e)
{
	int err;

	err = open_parent(x, e);
	if (!err)
		err = overlay_runs(x->stack, x->depth, add_run, x, e);
	if (!err)
		err = open_sealed(x, e);
	if (err)
		return err;
	x->layer.what = "export";
	x->layer.change = x->change;
	x->layer.changes = x->changes;
	x->layer.read = read_sealed;
	x->layer.arg = x;
	err = newlayer_write(&x->layer, result, e);
	close(x->fd);
	x->fd = -1;
	return err;
}

/* Give the meta device of the live overlay the new image. */
static int write_image(struct export *x, const char *url, struct error *e)
{
	char meta[4096], cow[4096], node[64], backing[4096];
	struct meta_plan *plan = NULL;
	struct lf_super super;
	struct image *image;
	int fd, err;
	u64 bytes;

	err = image_open(url, &image, e);
	if (err)
		return err;
	stack_paths(&x->device, meta, cow);
	device_node(device_part(&x->device, DEVICE_META), node, sizeof(node),
		    backing, sizeof(backing));
	/* Through the block device: that is what the module will read. */
	fd = meta_open(node, O_RDWR, &super, e);
	if (fd < 0) {
		image_free(image);
		return fd;
	}
	err = meta_plan_image(&plan, image, e);
	/* For the next attach, if nobody comes to remove them before. */
	if (!err)
		err = meta_plan_note(plan, META_NOTE_ORIGIN_META,
				     x->sealed_meta, e);
	if (!err)
		err = meta_plan_note(plan, META_NOTE_ORIGIN_COW, x->sealed_cow,
				     e);
	if (err)
		goto out;
	meta_plan_beside(plan, &super);
	err = io_bytes(fd, &bytes);
	if (!err && bytes < meta_plan_bytes(plan) && strcmp(meta, node) != 0) {
		err = truncate(meta, meta_plan_bytes(plan)) ? -errno :
							      loopdev_resize(node);
		if (!err)
			err = io_bytes(fd, &bytes);
	}
	if (err)
		error_set(e, err, "cannot grow: %s", strerror(-err));
	else
		err = meta_plan_replace(plan, fd, bytes, e);
	if (err)
		error_prefix(e, "%s", meta);
out:
	meta_plan_free(plan);
	image_free(image);
	close(fd);
	return err;
}

/* The table without the sealed device. */
static int reload(struct export *x, struct error *e)
{
	char feature[128], params[256];
	u32 cookie = 0, words;
	int err, resumed;

	words = device_features(&x->device, feature, sizeof(feature));
	stack_params(params, sizeof(params),
		     device_part(&x->device, DEVICE_META),
		     device_part(&x->device, DEVICE_STORE),
		     device_part(&x->device, DEVICE_COW), 0,
		     x->device.read_only, words, feature);
	err = device_load(x->name, x->device.sectors, params,
			  x->device.read_only, e);
	if (err)
		return err;
	/* It is, if a run before this one was killed here. */
	if (!x->device.suspended)
		err = device_suspend(x->name, false, e);
	if (err)
		device_clear(x->name, NULL);
	resumed = device_resume(x->name, &cookie, err ? NULL : e);
	device_settle(cookie);
	return err ? err : resumed;
}

/*
 * Did a run before this one get as far as to the new superblock? Then @url is
 * that of the image it stored.
 */
static int was_replaced(const struct export *x, char **url, struct error *e)
{
	char node[64], backing[4096];
	struct lf_super super;
	int fd, err = 0;

	*url = NULL;
	device_node(device_part(&x->device, DEVICE_META), node, sizeof(node),
		    backing, sizeof(backing));
	fd = meta_open(node, O_RDONLY, &super, e);
	if (fd < 0)
		return fd;
	if (!lf_super_has_origin(&super))
		err = meta_note(fd, &super, META_NOTE_URL, url, e);
	close(fd);
	return err;
}

static void tell_left(const char *path)
{
	fprintf(stderr, "%s is not needed any more\n", path);
}

/* Reload and remove, under the lock. */
static int take_up(struct export *x, const char *url, struct error *e)
{
	dev_t origin = device_part(&x->device, DEVICE_ORIGIN);
	int err;

	err = state_lock(e);
	if (!err)
		err = read_device(x, e);
	if (!err && device_part(&x->device, DEVICE_ORIGIN) != origin)
		err = error_set(e, -EBUSY,
				"%s was changed while it was exported: it stays as it is",
				x->name);
	if (!err && url)
		err = write_image(x, url, e);
	if (!err && origin)
		err = reload(x, e);
	close_stack(x);
	return err ? err : stack_remove(x->name, tell_left, e);
}

static int seal_first(struct export *x, struct error *e)
{
	struct seal_result sealed = {};
	int err;

	err = state_lock(e);
	if (!err)
		err = seal_device(x->name, NULL, NULL, &sealed, e);
	state_unlock();
	if (!err && !x->layer.quiet)
		fprintf(stderr, "sealed  /dev/mapper/%s, suspended for %.1f ms\n",
			sealed.sealed, sealed.suspended * 1e3);
	return err ? err : read_device(x, e);
}

static int export(struct export *x, struct error *e)
{
	struct newlayer_result result = {};
	char *url = NULL;
	int err;

	err = read_device(x, e);
	if (!err)
		err = was_replaced(x, &url, e);
	if (err)
		return err;
	/* What a run before this one left to do. */
	if (url && (device_part(&x->device, DEVICE_ORIGIN) ||
		    (!x->device.suspended && stack_has_left(x->name)))) {
		err = take_up(x, NULL, e);
		if (!err)
			puts(url);
		free(url);
		return err;
	}
	free(url);
	/* Suspended: a seal was cut short; it says so, or completes. */
	if (!device_part(&x->device, DEVICE_ORIGIN) || x->device.suspended)
		err = seal_first(x, e);
	if (!err)
		err = open_stack(x, e);
	if (err)
		return err;
	err = store(x, &result, e);
	if (!err) {
		newlayer_report(&x->layer, &result);
		/* Whatever follows, the header is there. */
		fflush(stdout);
		if (!x->keep && !x->layer.dry_run)
			err = take_up(x, result.header_url, e);
		if (err)
			error_prefix(e, "stored, but %s does not use it yet: run it again",
				     x->name);
	}
	newlayer_result_free(&result);
	return err;
}

static void tear_down(struct export *x)
{
	close_stack(x);
	if (x->fd >= 0)
		close(x->fd);
	device_drop(&x->device);
	image_free(x->parent);
	free(x->known_url);
	free(x->change);
	free(x->buf);
}

/* Return: -1 to go on, else the exit status. */
static int parse(struct export *x, int argc, char **argv)
{
	enum { COMPARE = 256, NO_COMPARE, PARENT, KEEP };
	static const struct option options[] = {
		NEWLAYER_OPTIONS,
		{ "compare-parent", no_argument, NULL, COMPARE },
		{ "no-parent-compare", no_argument, NULL, NO_COMPARE },
		{ "parent", required_argument, NULL, PARENT },
		{ "keep", no_argument, NULL, KEEP },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	const char *level = NULL;
	struct error e = {};
	int opt, err = 0;

	newlayer_defaults(&x->layer);
	optind = 0;
	while (!err && (opt = getopt_long(argc, argv, NEWLAYER_SHORT_OPTIONS,
					  options, NULL)) != -1) {
		switch (opt) {
		case COMPARE:
			x->layer.dedup = true;
			break;
		case NO_COMPARE:
			x->layer.dedup = false;
			break;
		case PARENT:
			x->parent_url = optarg;
			break;
		case KEEP:
			x->keep = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			err = newlayer_option(&x->layer, opt, optarg, &level,
					      &e);
			if (err > 0) {
				fputs(usage, stderr);
				return 2;
			}
		}
	}
	if (!err && (argc - optind < 1 || argc - optind > 2)) {
		fputs(usage, stderr);
		return 2;
	}
	if (!err) {
		x->name = argv[optind];
		x->layer.url = argv[optind + 1];
		err = newlayer_options_done(&x->layer, codec_by_name("zstd"),
					    level, &e);
	}
	if (!err)
		return -1;
	fprintf(stderr, "lazyframe export: %s\n", e.text);
	return 2;
}

int cmd_export(int argc, char **argv)
{
	struct export *x = calloc(1, sizeof(*x));
	struct error e = {};
	int err, status;

	if (!x) {
		fputs("lazyframe export: out of memory\n", stderr);
		return 1;
	}
	x->fd = -1;
	status = parse(x, argc, argv);
	if (status < 0) {
		err = device_name_check(x->name, &e);
		if (!err)
			err = state_lock_device(x->name, false, &e);
		if (!err)
			err = export(x, &e);
		if (err)
			fprintf(stderr, "lazyframe export: %s\n", e.text);
		status = err ? 1 : 0;
	}
	tear_down(x);
	free(x);
	return status;
}

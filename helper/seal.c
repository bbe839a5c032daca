// SPDX-License-Identifier: GPL-2.0-only
/*
 * The steps, and what a crash leaves behind each:
 *
 *	new files, at the sealed overlay's names to be	files that nobody needs,
 *		and that the next seal uses
 *	the sealed device, the tables		the next seal removes and replaces them
 *	suspend: the last commit, sealed	the device is suspended; after a reboot,
 *		attach shows the new overlay above the sealed one
 *	resume both
 *	swap names				attach and the next seal do it: pair_settle()
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "inuse.h"
#include "io.h"
#include "seal.h"
#include "state.h"
#include "uuid.h"

/**
 * struct seal - one run
 * @device: as it was
 * @old_meta: paths of the overlay that is sealed
 * @new_meta: where the new one is made
 * @swap_meta: are the names to be swapped in the end?
 * @plan: content of the new meta device
 * @sealed_params: table of the sealed device
 */
struct seal {
	struct device device;
	struct device_info info;
	char old_meta[4096];
	char old_cow[4096];
	char *new_meta;
	char *new_cow;
	bool swap_meta;
	bool swap_cow;
	u8 uuid[16];
	struct meta_plan *plan;
	struct pair_made made;
	struct backing meta;
	struct backing cow;
	char sealed[DEVICE_NAME_MAX + 1];
	char sealed_params[192];
	char params[256];
};

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static int check_device(const struct seal *s, struct error *e)
{
	const char *name = s->device.name;

	if (strcmp(s->device.target, DEVICE_TARGET) != 0)
		return error_set(e, -EINVAL,
				 "%s is no lazyframe device: its target is \"%s\"",
				 name, s->device.target);
	if (!device_part(&s->device, DEVICE_COW))
		return error_set(e, -EINVAL,
				 "%s has no overlay: nothing can be written to it",
				 name);
	if (strcmp(s->info.mode, "rw") != 0)
		return error_set(e, -EROFS,
				 "%s cannot be written (its mode is %s), so its overlay cannot be sealed",
				 name, s->info.mode);
	/* They would fail: a suspend waits for all I/O. */
	if (!s->info.helper && s->info.field[DEVICE_WAITING])
		return error_set(e, -EAGAIN,
				 "reads of %s wait for a helper: start lazyframed first",
				 name);
	return 0;
}

static int read_device(struct seal *s, const char *name, struct error *e)
{
	int err;

	device_drop(&s->device);
	err = device_read(name, &s->device, e);
	if (err)
		return err;
	err = device_info_parse(s->device.info, &s->info, e);
	if (!err)
		stack_paths(&s->device, s->old_meta, s->old_cow);
	return err;
}

/* "path.sealed-1234abcd" -> "path", malloc()ed; NULL: it is no such name */
static char *base_path(const char *path)
{
	static const char mark[] = ".sealed-";
	size_t len = strlen(path), tail = strlen(mark) + 8;

	if (len <= tail || strncmp(path + len - tail, mark,
				   strlen(mark)) != 0 ||
	    strspn(path + len - 8, "0123456789abcdef") != 8)
		return NULL;
	return strndup(path, len - tail);
}

/* The last seal did not come to its end: then our files have odd names. */
static int settle(struct seal *s, struct error *e)
{
	char *meta = base_path(s->old_meta), *cow = base_path(s->old_cow);
	int err = 0;

	if (meta || cow) {
		err = pair_settle(meta ? meta : s->old_meta,
				  cow ? cow : s->old_cow, e);
		stack_paths(&s->device, s->old_meta, s->old_cow);
	}
	free(meta);
	free(cow);
	return err;
}

/* The last commit's root of the overlay that is to be sealed. */
static int read_root(const struct seal *s, struct lf_super *super,
		     struct lf_disk_root *root, struct meta_plan **plan,
		     struct error *e)
{
	struct overlay overlay;
	int fd, err;

	fd = meta_open(s->old_meta, O_RDONLY, super, e);
	if (fd < 0)
		return fd;
	err = overlay_open(fd, super, &overlay, e);
	if (!err)
		*root = overlay.root;
	if (!err && plan)
		err = meta_plan_read(plan, fd, super, e);
	if (err)
		error_prefix(e, "%s", s->old_meta);
	close(fd);
	return err;
}

/* A path for a new part: given, or beside the old one. */
static int new_path(const char *given, const char *old, const char *option,
		    const u8 uuid[16], char **path, bool *swap,
		    struct error *e)
{
	struct stat st;

	*swap = !given;
	if (given)
		return path_absolute(given, path, e);
	if (stat(old, &st))
		return error_set(e, -errno, "%s: %s", old, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return error_set(e, -EINVAL,
				 "%s is a block device: %s has to name another for the new overlay",
				 old, option);
	*path = pair_sealed_path(old, uuid);
	return *path ? 0 : no_memory(e);
}

/* New meta and COW devices, with the same image. */
static int make_pair(struct seal *s, const char *meta, const char *cow,
		     struct error *e)
{
	struct meta_overlay overlay = {};
	struct lf_disk_root root;
	struct lf_super super;
	int err;

	err = read_root(s, &super, &root, &s->plan, e);
	if (err)
		return err;
	memcpy(s->uuid, root.uuid, sizeof(s->uuid));
	err = new_path(meta, s->old_meta, "--meta", s->uuid, &s->new_meta,
		       &s->swap_meta, e);
	if (!err)
		err = new_path(cow, s->old_cow, "--cow", s->uuid, &s->new_cow,
			       &s->swap_cow, e);
	if (err)
		return err;

	memcpy(overlay.origin, s->uuid, sizeof(overlay.origin));
	overlay.origin_meta = s->swap_meta ? s->new_meta : s->old_meta;
	overlay.origin_cow = s->swap_cow ? s->new_cow : s->old_cow;
	err = uuid_random(overlay.uuid);
	if (err)
		return error_set(e, err, "no random numbers: %s",
				 strerror(-err));
	err = meta_plan_overlay(s->plan, &overlay, e);
	if (err)
		return err;
	return pair_make(s->new_meta, s->new_cow, s->plan,
			 pair_left_by_seal(s->new_meta, s->uuid), false,
			 &s->made, e);
}

/* One without a table is what an interrupted seal left. */
static int remove_stale(const char *name, struct error *e)
{
	struct device device;
	int err;

	err = device_read(name, &device, NULL);
	if (err)
		return 0;
	if (device.sectors)
		err = error_set(e, -EEXIST, "there is a device %s already",
				name);
	else
		err = device_remove(&device, e);
	device_drop(&device);
	return err;
}

/* All that can be done while the device goes on. */
static int prepare(struct seal *s, struct error *e)
{
	dev_t origin = device_part(&s->device, DEVICE_ORIGIN);
	dev_t store = device_part(&s->device, DEVICE_STORE);
	char uuid[DEVICE_UUID_MAX + 1], feature[128];
	struct device sealed;
	u32 words;
	int err;

	stack_name(s->device.name, s->uuid, s->sealed);
	stack_uuid(s->uuid, uuid);
	err = remove_stale(s->sealed, e);
	if (!err)
		err = backing_open(s->new_meta, true, &s->meta, e);
	if (!err)
		err = backing_open(s->new_cow, true, &s->cow, e);
	if (!err)
		err = device_create(s->sealed, uuid, DEVICE_TARGET, 0, NULL,
				    true, e);
	if (err)
		return err;

	stack_params(s->sealed_params, sizeof(s->sealed_params),
		     device_part(&s->device, DEVICE_META), store,
		     device_part(&s->device, DEVICE_COW), origin, true, 0, "");
	err = device_load(s->sealed, s->device.sectors, s->sealed_params, true,
			  e);
	if (!err)
		err = device_read(s->sealed, &sealed, e);
	if (err)
		goto failed;
	words = device_features(&s->device, feature, sizeof(feature));
	stack_params(s->params, sizeof(s->params), s->meta.number, store,
		     s->cow.number, makedev(sealed.major, sealed.minor), false,
		     words, feature);
	device_drop(&sealed);
	err = device_load(s->device.name, s->device.sectors, s->params, false,
			  e);
	if (!err)
		return 0;
failed:
	remove_stale(s->sealed, NULL);
	return err;
}

static int check_sealed(const struct seal *s, struct error *e)
{
	struct lf_disk_root root;
	struct lf_super super;
	int err;

	err = read_root(s, &super, &root, NULL, e);
	if (!err && !(le32_to_cpu(root.flags) & LF_ROOT_SEALED))
		err = error_set(e, -EIO,
				"the last commit to %s failed; the kernel's log tells why",
				s->old_meta);
	return err;
}

/* Back to the old table. */
static void take_back(const struct seal *s)
{
	struct device sealed;
	u32 cookie = 0;

	if (!device_read(s->sealed, &sealed, NULL)) {
		device_remove(&sealed, NULL);
		device_drop(&sealed);
	}
	device_message(s->device.name, "unseal", NULL);
	device_clear(s->device.name, NULL);
	device_resume(s->device.name, &cookie, NULL);
	device_settle(cookie);
}

static int swap(struct seal *s, double *suspended, struct error *e)
{
	u32 cookie = 0;
	double start;
	int err;

	/* What is left to do while the device is suspended should be little. */
	inuse_sync(s->device.major, s->device.minor);
	err = device_message(s->device.name, "commit", e);
	if (!err)
		err = device_message(s->device.name, "seal", e);
	if (err) {
		device_clear(s->device.name, NULL);
		remove_stale(s->sealed, NULL);
		return err;
	}
	start = now();
	err = device_suspend(s->device.name, true, e);
	if (!err)
		err = check_sealed(s, e);
	if (!err)
		err = device_resume(s->sealed, &cookie, e);
	if (!err)
		err = device_resume(s->device.name, &cookie, e);
	*suspended = now() - start;
	device_settle(cookie);
	if (err)
		take_back(s);
	return err;
}

static int finish(const struct seal *s, struct seal_result *result,
		  struct error *e)
{
	int err = 0;

	snprintf(result->sealed, sizeof(result->sealed), "%s", s->sealed);
	snprintf(result->meta, sizeof(result->meta), "%s",
		 s->swap_meta ? s->old_meta : s->new_meta);
	snprintf(result->cow, sizeof(result->cow), "%s",
		 s->swap_cow ? s->old_cow : s->new_cow);
	if (s->swap_meta)
		err = pair_swap_names(s->old_meta, s->new_meta, e);
	if (!err && s->swap_cow)
		err = pair_swap_names(s->old_cow, s->new_cow, e);
	if (err)
		error_prefix(e, "sealed, but its files keep their names");
	return err;
}

/*
 * Somebody suspended it, or a seal was killed at the worst moment: that one is
 * completed if its commit was, and taken back if not.
 *
 * Return: 1: completed
 */
static int resume_interrupted(struct seal *s, struct seal_result *result,
			      struct error *e)
{
	const char *name = s->device.name;
	struct lf_disk_root root;
	struct lf_super super;
	struct device sealed;
	u32 cookie = 0;
	int err;

	err = read_root(s, &super, &root, NULL, e);
	if (err)
		return err;
	memcpy(s->uuid, root.uuid, sizeof(s->uuid));
	stack_name(name, s->uuid, s->sealed);
	if (device_read(s->sealed, &sealed, NULL))
		return error_set(e, -EBUSY, "%s is suspended: resume it first",
				 name);
	device_drop(&sealed);
	if (!(le32_to_cpu(root.flags) & LF_ROOT_SEALED)) {
		take_back(s);
		return 0;
	}
	err = device_resume(s->sealed, &cookie, e);
	if (!err)
		err = device_resume(name, &cookie, e);
	device_settle(cookie);
	if (!err)
		err = read_device(s, name, e);
	if (!err && device_part(&s->device, DEVICE_ORIGIN)) {
		snprintf(result->sealed, sizeof(result->sealed), "%s",
			 s->sealed);
		err = settle(s, e);
		snprintf(result->meta, sizeof(result->meta), "%s", s->old_meta);
		snprintf(result->cow, sizeof(result->cow), "%s", s->old_cow);
		return err ? err : 1;
	}
	return err ? err : error_set(e, -EIO,
				     "the overlay of %s is sealed, but its successor is not to be found: detach it and attach it again",
				     name);
}

int seal_device(const char *name, const char *meta, const char *cow,
		struct seal_result *result, struct error *e)
{
	struct seal s = { .meta.fd = -1, .cow.fd = -1 };
	int err;

	memset(result, 0, sizeof(*result));
	err = read_device(&s, name, e);
	if (!err && device_part(&s.device, DEVICE_COW) && s.device.suspended) {
		err = resume_interrupted(&s, result, e);
		if (err > 0) {
			err = 0;
			goto out;
		}
		if (!err)
			err = read_device(&s, name, e);
	}
	if (!err)
		err = check_device(&s, e);
	/* An interrupted seal may have loaded a table, which holds its files. */
	if (!err)
		err = device_clear(name, e);
	if (!err)
		err = settle(&s, e);
	if (!err)
		err = make_pair(&s, meta, cow, e);
	if (err)
		goto out;
	err = prepare(&s, e);
	if (!err)
		err = swap(&s, &result->suspended, e);
	backing_close(&s.meta);
	backing_close(&s.cow);
	if (err)
		pair_unmake(s.new_meta, s.new_cow, &s.made);
	else
		err = finish(&s, result, e);
out:
	meta_plan_free(s.plan);
	free(s.new_meta);
	free(s.new_cow);
	device_drop(&s.device);
	return err;
}

// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "devfile.h"
#include "inuse.h"
#include "io.h"
#include "store.h"

int store_read_super(int fd, u64 bytes, u8 uuid[16],
		     struct lf_store_shape *shape, const char **why)
{
	u8 copies[LF_STORE_COPIES * LF_META_BLOCK] = {};
	const struct lf_disk_store *super;
	int err;

	err = io_pread(fd, copies,
		       bytes < sizeof(copies) ? bytes : sizeof(copies), 0);
	if (!err)
		err = lf_store_pick(copies, bytes, &super, shape, why);
	if (!err)
		memcpy(uuid, super->uuid, sizeof(super->uuid));
	return err;
}

/* Is a mapped device one with a store? */
static bool is_store(const char *name)
{
	struct device device;
	bool is;

	if (device_read(name, &device, NULL))
		return false;
	is = !strcmp(device.target, STORE_TARGET);
	device_drop(&device);
	return is;
}

static bool is_store_number(dev_t number)
{
	char name[DEVICE_NAME_MAX + 1];

	return !device_mapped_name(number, name) && is_store(name);
}

/* On which device a store is looked for, and what was found. */
struct search {
	dev_t cache;
	dev_t found;
};

static int look(const char *name, void *arg)
{
	struct search *search = arg;
	struct device device;

	/* Removed since its name was read, perhaps. */
	if (device_read(name, &device, NULL))
		return 0;
	if (!strcmp(device.target, STORE_TARGET) &&
	    device_part(&device, DEVICE_META) == search->cache)
		search->found = makedev(device.major, device.minor);
	device_drop(&device);
	return 0;
}

static int find_path(const char *path, struct stat *st, struct error *e)
{
	if (stat(path, st))
		return error_set(e, -errno, "--store %s: %s", path,
				 errno == ENOENT ? "there is no such device" :
						   strerror(errno));
	if (S_ISREG(st->st_mode))
		return error_set(e, -ENOTBLK,
				 "--store %s is a file: name the loop device that shows it (losetup -f --show)",
				 path);
	if (!S_ISBLK(st->st_mode))
		return error_set(e, -ENOTBLK,
				 "--store %s is no block device", path);
	return 0;
}

static int read_super(int fd, const char *path, u64 bytes, u8 uuid[16],
		      struct error *e)
{
	struct lf_store_shape shape;
	const char *why = NULL;
	int err;

	err = store_read_super(fd, bytes, uuid, &shape, &why);
	if (err == -EINVAL)
		return error_set(e, err,
				 "--store %s: %s: `lazyframe store-format %s` makes an empty store of it",
				 path, why, path);
	return err ? error_set(e, err, "--store %s: %s", path, strerror(-err)) :
		     0;
}

int store_check(const char *path, struct error *e)
{
	struct stat st;
	u8 uuid[16];
	int fd, err;
	u64 bytes;

	err = find_path(path, &st, e);
	if (err || is_store_number(st.st_rdev))
		return err;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_set(e, -errno, "--store %s: %s", path,
				 strerror(errno));
	io_forget(fd);
	err = io_bytes(fd, &bytes);
	if (err)
		error_set(e, err, "--store %s: %s", path, strerror(-err));
	else
		err = read_super(fd, path, bytes, uuid, e);
	close(fd);
	return err;
}

/*
 * A device of ours without a table is what a run left that was killed while it
 * made one.
 */
static int check_name(const char *name, const char *uuid, const char *path,
		      struct error *e)
{
	struct device device;
	int err;

	err = device_read(name, &device, e);
	if (err == -ENXIO)
		return 0;
	if (err)
		return err;
	if (!strcmp(device.uuid, uuid) && !device.sectors)
		err = device_remove(&device, e);
	else
		err = error_set(e, -EEXIST,
				"--store %s: there is a device %s already, on another device: is this a copy of that store?",
				path, name);
	device_drop(&device);
	return err;
}

static int make(const char *path, dev_t cache, struct store *store,
		struct error *e)
{
	char name[DEVICE_NAME_MAX + 1], dm_uuid[DEVICE_UUID_MAX + 1];
	char text[UUID_TEXT], params[64];
	struct device device;
	struct devfile file;
	int read_only = 0;
	u8 uuid[16];
	u64 bytes;
	int err;

	/* Fails if a file system or a table has it, which a table need not. */
	err = devfile_open(path, DEVFILE_READ, &file, e);
	if (err == -EBUSY) {
		char users[512];

		inuse_tell(major(cache), minor(cache), users, sizeof(users));
		error_set(e, err, "--store %s is in use%s%s", path,
			  users[0] ? ": " : " by another", users);
	}
	bytes = file.bytes;
	if (!err)
		err = read_super(file.fd, path, bytes, uuid, e);
	if (!err && ioctl(file.fd, BLKROGET, &read_only))
		err = error_set(e, -errno, "--store %s: %s", path,
				strerror(errno));
	devfile_close(&file);
	if (err)
		return err;

	uuid_text(uuid, text);
	snprintf(name, sizeof(name), "lazyframe-store-%.8s", text);
	snprintf(dm_uuid, sizeof(dm_uuid), "%s%s", STORE_UUID_PREFIX, text);
	snprintf(params, sizeof(params), "%u:%u%s", major(cache), minor(cache),
		 read_only ? " 1 read_only" : "");
	err = check_name(name, dm_uuid, path, e);
	if (!err)
		err = device_create(name, dm_uuid, STORE_TARGET, bytes / 512,
				    params, read_only, e);
	if (err)
		return err;
	memcpy(store->made, name, sizeof(name));
	err = device_read(name, &device, e);
	if (err) {
		store_undo(store);
		return err;
	}
	store->number = makedev(device.major, device.minor);
	device_drop(&device);
	return 0;
}

int store_attach(const char *path, struct store *store, struct error *e)
{
	struct search search = {};
	struct stat st;
	int err;

	*store = (struct store) {};
	err = find_path(path, &st, e);
	if (err)
		return err;
	store->number = st.st_rdev;
	if (is_store_number(st.st_rdev))
		return 0;
	search.cache = st.st_rdev;
	err = device_each(look, &search, e);
	if (err)
		return err;
	store->number = search.found;
	return search.found ? 0 : make(path, st.st_rdev, store, e);
}

void store_undo(struct store *store)
{
	struct device device;

	if (!store->made[0] || device_read(store->made, &device, NULL))
		return;
	device_remove(&device, NULL);
	device_drop(&device);
	*store = (struct store) {};
}

// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "loopdev.h"
#include "stack.h"
#include "uuid.h"

int backing_open(const char *path, bool is_writable, struct backing *backing,
		 struct error *e)
{
	char loop[LOOPDEV_PATH];
	struct stat st;

	*backing = (struct backing) { .fd = -1 };
	if (stat(path, &st))
		return error_set(e, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISBLK(st.st_mode)) {
		backing->fd = loopdev_attach(path, is_writable, loop, e);
		if (backing->fd < 0)
			return backing->fd;
		if (stat(loop, &st))
			return error_set(e, -errno, "%s: %s", loop,
					 strerror(errno));
	}
	backing->number = st.st_rdev;
	return 0;
}

void backing_close(struct backing *backing)
{
	if (backing->fd >= 0)
		close(backing->fd);
	backing->fd = -1;
}

void stack_name(const char *name, const u8 uuid[16],
		char sealed[DEVICE_NAME_MAX + 1])
{
	char text[UUID_TEXT];

	uuid_text(uuid, text);
	snprintf(sealed, DEVICE_NAME_MAX + 1, "%.*s-sealed-%.8s",
		 DEVICE_NAME_MAX - 16, name, text);
}

void stack_uuid(const u8 uuid[16], char text[DEVICE_UUID_MAX + 1])
{
	char own[UUID_TEXT];

	uuid_text(uuid, own);
	snprintf(text, DEVICE_UUID_MAX + 1, "%s%s-sealed", DEVICE_UUID_PREFIX,
		 own);
}

/* A device in a table; 0: none */
static void device_word(dev_t device, char text[32])
{
	if (device)
		snprintf(text, 32, "%u:%u", major(device), minor(device));
	else
		snprintf(text, 32, "-");
}

void stack_params(char *params, size_t bytes, dev_t meta, dev_t store,
		  dev_t cow, dev_t origin, bool read_only, u32 words,
		  const char *features)
{
	char store_text[32], cow_text[32], origin_text[40] = "", count[16] = "";

	words += read_only + 2 * !!origin;
	device_word(store, store_text);
	device_word(cow, cow_text);
	if (origin)
		snprintf(origin_text, sizeof(origin_text), " origin %u:%u",
			 major(origin), minor(origin));
	if (words)
		snprintf(count, sizeof(count), " %u", words);
	snprintf(params, bytes, "%u:%u %s %s%s%s%s%s", major(meta),
		 minor(meta), store_text, cow_text, count, features,
		 read_only ? " read_only" : "", origin_text);
}

/* Make the device of one sealed overlay. */
static int attach_one(const char *name, const struct pair *pair, dev_t store,
		      dev_t below, dev_t *number, struct error *e)
{
	char sealed[DEVICE_NAME_MAX + 1], uuid[DEVICE_UUID_MAX + 1];
	struct backing meta = { .fd = -1 }, cow = { .fd = -1 };
	char path[DEVICE_NAME_MAX + 16], params[192];
	struct stat st;
	int err;

	err = backing_open(pair->meta, false, &meta, e);
	if (!err)
		err = backing_open(pair->cow, false, &cow, e);
	if (err)
		goto out;
	stack_name(name, pair->root.uuid, sealed);
	stack_uuid(pair->root.uuid, uuid);
	stack_params(params, sizeof(params), meta.number, store, cow.number,
		     below, true, 0, "");
	err = device_create(sealed, uuid, DEVICE_TARGET,
			    meta_sectors(pair->super.image_bytes), params,
			    true, e);
	snprintf(path, sizeof(path), "/dev/mapper/%s", sealed);
	if (!err && stat(path, &st))
		err = error_set(e, -errno, "%s: %s", path, strerror(errno));
	else if (!err)
		*number = st.st_rdev;
out:
	backing_close(&meta);
	backing_close(&cow);
	return err;
}

/* The device of a sealed overlay that is there already, or 0. */
static dev_t find_one(const char *name, const u8 uuid[16])
{
	char sealed[DEVICE_NAME_MAX + 1], want[DEVICE_UUID_MAX + 1];
	struct device device;
	dev_t number = 0;

	stack_name(name, uuid, sealed);
	stack_uuid(uuid, want);
	if (device_read(sealed, &device, NULL))
		return 0;
	if (!strcmp(device.uuid, want))
		number = makedev(device.major, device.minor);
	device_drop(&device);
	return number;
}

/* From @top downwards; the deepest is made first. */
static int attach_below(const char *name, const struct pair *top, dev_t store,
			u32 depth, dev_t *origin, struct error *e)
{
	struct pair below;
	dev_t deeper = 0;
	int err;

	*origin = 0;
	if (!lf_super_has_origin(&top->super))
		return 0;
	*origin = find_one(name, top->super.origin);
	if (*origin)
		return 0;
	if (depth == PAIR_MAX_DEPTH)
		return error_set(e, -ELOOP,
				 "%s: more than %u sealed overlays below one another",
				 top->meta, PAIR_MAX_DEPTH);
	err = pair_origin(top, &below, e);
	if (!err)
		err = attach_below(name, &below, store, depth + 1, &deeper, e);
	if (!err) {
		err = attach_one(name, &below, store, deeper, origin, e);
		if (err && deeper)
			stack_detach(deeper, NULL);
	}
	pair_drop(&below);
	return err;
}

int stack_attach(const char *name, const struct pair *top, dev_t store,
		 dev_t *origin, struct error *e)
{
	return attach_below(name, top, store, 0, origin, e);
}

int stack_detach(dev_t origin, struct error *e)
{
	char name[DEVICE_NAME_MAX + 1];
	struct device device;
	int err = 0;

	while (!err && origin && !device_mapped_name(origin, name)) {
		err = device_read(name, &device, e);
		if (err)
			break;
		origin = device_part(&device, DEVICE_ORIGIN);
		err = device_remove(&device, e);
		device_drop(&device);
	}
	return err;
}

/* Names of sealed devices of one device. */
struct names {
	const char *name;
	u32 count;
	char list[2 * PAIR_MAX_DEPTH][DEVICE_NAME_MAX + 1];
};

static int collect(const char *name, void *arg)
{
	static const char mark[] = "-sealed-";
	struct names *names = arg;
	size_t len = strlen(names->name);

	if (!strncmp(name, names->name, len) &&
	    !strncmp(name + len, mark, strlen(mark)) &&
	    strlen(name + len) == strlen(mark) + 8 &&
	    names->count < ARRAY_SIZE(names->list))
		snprintf(names->list[names->count++], DEVICE_NAME_MAX + 1,
			 "%s", name);
	return 0;
}

/* Return: 1: one of ours, and @device is to be dropped */
static int read_sealed(const char *name, struct device *device)
{
	static const char tail[] = "-sealed";
	size_t len;

	if (device_read(name, device, NULL))
		return 0;
	len = strlen(device->uuid);
	if (!strncmp(device->uuid, DEVICE_UUID_PREFIX,
		     strlen(DEVICE_UUID_PREFIX)) && len > strlen(tail) &&
	    !strcmp(device->uuid + len - strlen(tail), tail))
		return 1;
	device_drop(device);
	return 0;
}

/* @suffix: ".sealed-1234abcd", as the device's name ends */
static void drop_file(const char *path, const char *suffix,
		      void (*tell)(const char *left))
{
	size_t len = strlen(path), tail = strlen(suffix);

	if (len > tail && !strcmp(path + len - tail, suffix))
		unlink(path);
	else if (access(path, F_OK) == 0)
		tell(path);
}

static void drop_both(const struct device *device,
		      void (*tell)(const char *left))
{
	char meta[4096], cow[4096], suffix[24];

	snprintf(suffix, sizeof(suffix), ".%s",
		 device->name + strlen(device->name) - strlen("sealed-") - 8);
	stack_paths(device, meta, cow);
	drop_file(meta, suffix, tell);
	drop_file(cow, suffix, tell);
}

static bool is_below(const struct names *names, const struct device *device)
{
	struct device other;
	bool below = false;
	u32 i;

	for (i = 0; !below && i < names->count; i++) {
		if (!read_sealed(names->list[i], &other))
			continue;
		below = device_part(&other, DEVICE_ORIGIN) ==
			makedev(device->major, device->minor);
		device_drop(&other);
	}
	return below;
}

int stack_remove(const char *name, void (*drop_files)(const char *left),
		 struct error *e)
{
	struct names names = { .name = name };
	struct device device;
	bool again = true;
	int err;
	u32 i;

	err = device_each(collect, &names, e);
	/* The files first: a loop device does not need its file's name. */
	for (i = 0; !err && drop_files && i < names.count; i++) {
		if (!read_sealed(names.list[i], &device))
			continue;
		drop_both(&device, drop_files);
		device_drop(&device);
	}
	/* From the top down. */
	while (!err && again) {
		again = false;
		for (i = 0; !err && i < names.count; i++) {
			if (!read_sealed(names.list[i], &device))
				continue;
			if (!is_below(&names, &device)) {
				err = device_remove(&device, e);
				again = true;
			}
			device_drop(&device);
		}
	}
	return err;
}

bool stack_has_left(const char *name)
{
	struct names names = { .name = name };
	struct device device;
	bool left = false;
	u32 i;

	if (device_each(collect, &names, NULL))
		return false;
	for (i = 0; !left && i < names.count; i++) {
		if (!read_sealed(names.list[i], &device))
			continue;
		left = device.sectors && !device.open;
		device_drop(&device);
	}
	return left;
}

/* A loop device that does not go by itself is not of our making: a device. */
static bool is_our_loop(dev_t number)
{
	char path[64];
	FILE *file;
	bool ours;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/loop/autoclear",
		 major(number), minor(number));
	file = fopen(path, "re");
	if (!file)
		return false;
	ours = fgetc(file) == '1';
	fclose(file);
	return ours;
}

static void path_of(dev_t number, char path[4096])
{
	char node[64];

	device_node(number, node, sizeof(node), path, 4096);
	if (!path[0] || !is_our_loop(number))
		snprintf(path, 4096, "%s", node);
}

void stack_paths(const struct device *device, char meta[4096], char cow[4096])
{
	dev_t number = device_part(device, DEVICE_COW);

	path_of(device_part(device, DEVICE_META), meta);
	cow[0] = 0;
	if (number)
		path_of(number, cow);
}

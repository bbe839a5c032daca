// SPDX-License-Identifier: GPL-2.0-only
#include <inttypes.h>
#include <libdevmapper.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "dm.h"
#include "inuse.h"

#define CONTROL		"/dev/mapper/control"
#define NAME_CHARS	"abcdefghijklmnopqrstuvwxyz" \
			"ABCDEFGHIJKLMNOPQRSTUVWXYZ" \
			"0123456789#+-.:=@_"

/*
 * Attaching must cause no reads. Without this flag udev's rules run blkid on
 * the new device: fetches that nobody asked for or, with no helper running, a
 * udev worker, and with it whoever waits for udev, that hangs.
 */
#define UDEV_FLAGS	DM_UDEV_DISABLE_DISK_RULES_FLAG

const char *const device_field_name[DEVICE_FIELDS] = {
	[DEVICE_LAYERS] = "layers",
	[DEVICE_FRAMES_CACHED] = "frames_cached",
	[DEVICE_CACHE_BYTES] = "cache_bytes",
	[DEVICE_CACHE_LIMIT_BYTES] = "cache_limit_bytes",
	[DEVICE_WAITING] = "waiting",
	[DEVICE_READS] = "reads",
	[DEVICE_READS_ZERO] = "reads_zero",
	[DEVICE_READS_MEMORY] = "reads_memory",
	[DEVICE_READS_FETCHED] = "reads_fetched",
	[DEVICE_READS_FAILED] = "reads_failed",
	[DEVICE_FRAMES_BAD] = "frames_bad",
	[DEVICE_DIRTY_BLOCKS] = "dirty_blocks",
	[DEVICE_ZERO_BLOCKS] = "zero_blocks",
	[DEVICE_WRITES] = "writes",
	[DEVICE_COPY_UPS] = "copy_ups",
	[DEVICE_COMMITS] = "commits",
	[DEVICE_READS_OVERLAY] = "reads_overlay",
	[DEVICE_READS_ORIGIN] = "reads_origin",
	[DEVICE_READS_STORE] = "reads_store",
};

/* The first thing that libdevmapper complained about; it prints no more. */
static char complaint[256];

__attribute__((format(printf, 5, 6)))
static void note_complaint(int level, const char *file, int line, int err,
			   const char *fmt, ...)
{
	va_list args;

	(void)file;
	(void)line;
	(void)err;
	if ((level & 0xf) > 3 || complaint[0])	/* 3: error */
		return;
	va_start(args, fmt);
	vsnprintf(complaint, sizeof(complaint), fmt, args);
	va_end(args);
}

static int task_error(struct dm_task *task, struct error *e)
{
	int err = task ? dm_task_get_errno(task) : 0;

	if (!err)
		err = EIO;
	if (geteuid() && (err == EACCES || err == EPERM || err == EIO))
		return error_set(e, -EPERM,
				 "device-mapper is for root: run it as root");
	if (!strncmp(complaint, CONTROL, strlen(CONTROL)))
		return error_set(e, -err, "%s: run `modprobe dm_mod`",
				 complaint);
	return error_set(e, -err, "%s", complaint[0] ? complaint :
			 strerror(err));
}

/* A task for the device of this name, or for none. */
static struct dm_task *task_create(int type, const char *name,
				   struct error *e)
{
	struct dm_task *task;

	complaint[0] = 0;
	dm_log_with_errno_init(note_complaint);
	dm_set_name_mangling_mode(DM_STRING_MANGLING_NONE);
	task = dm_task_create(type);
	if (task && (!name || dm_task_set_name(task, name)))
		return task;
	task_error(task, e);
	if (task)
		dm_task_destroy(task);
	return NULL;
}

/*
 * Run a task that makes or removes nodes, and wait until that is done: by
 * udev where it runs, else by libdevmapper itself.
 */
static int run_and_settle(struct dm_task *task, struct error *e)
{
	u32 cookie = 0;
	int err = 0;

	if (!dm_task_set_cookie(task, &cookie, UDEV_FLAGS))
		return task_error(task, e);
	if (!dm_task_run(task))
		err = task_error(task, e);
	if (!dm_udev_wait(cookie) && !err)
		err = error_set(e, -EIO, "waiting for udev: %s", complaint);
	return err;
}

int device_name_check(const char *name, struct error *e)
{
	size_t len = strlen(name);

	if (!len)
		return error_set(e, -EINVAL, "a device's name cannot be empty");
	if (len > DEVICE_NAME_MAX)
		return error_set(e, -EINVAL,
				 "a device's name of %zu characters is longer than %d",
				 len, DEVICE_NAME_MAX);
	if (strspn(name, NAME_CHARS) != len || !strcmp(name, ".") ||
	    !strcmp(name, "..") || !strcmp(name, "control"))
		return error_set(e, -EINVAL,
				 "\"%s\" cannot be a device's name: use letters, digits and any of #+-.:=@_",
				 name);
	return 0;
}

int device_target_check(struct error *e)
{
	struct dm_versions *versions;
	struct dm_task *task;
	u32 next;
	int err;

	/* Where it is not there yet, the kernel asks modprobe for it. */
	task = task_create(DM_DEVICE_GET_TARGET_VERSION, DEVICE_TARGET, e);
	if (!task)
		return -EIO;
	err = dm_task_run(task) ? 0 : task_error(task, e);
	dm_task_destroy(task);
	if (!err || err == -EPERM)
		return err;

	/* A kernel without that question has a list at least. */
	task = task_create(DM_DEVICE_LIST_VERSIONS, NULL, e);
	if (!task)
		return -EIO;
	if (!dm_task_run(task)) {
		err = task_error(task, e);
		error_prefix(e, "device-mapper does not answer (`modprobe dm_mod`?)");
		goto out;
	}
	err = error_set(e, -ENOENT,
			"the kernel has no target \"" DEVICE_TARGET
			"\": run `modprobe lazyframe`");
	versions = dm_task_get_versions(task);
	do {
		if (!strcmp(versions->name, DEVICE_TARGET))
			err = 0;
		next = versions->next;
		versions = (void *)((char *)versions + next);
	} while (next);
out:
	dm_task_destroy(task);
	return err;
}

/* The only target's type and arguments; "" where there is not just one. */
static int read_target(const char *name, int type, struct device *device,
		       char **args, struct error *e)
{
	char *target = NULL, *params = NULL;
	u64 start, length;
	struct dm_info info;
	struct dm_task *task;
	void *next;
	int err = 0;

	task = task_create(type, name, e);
	if (!task)
		return -EIO;
	if (!dm_task_no_flush(task) || !dm_task_run(task) ||
	    !dm_task_get_info(task, &info)) {
		err = task_error(task, e);
		goto out;
	}
	if (!info.exists) {
		err = error_set(e, -ENXIO, "there is no device %s", name);
		goto out;
	}
	device->major = info.major;
	device->minor = info.minor;
	device->open = info.open_count;
	device->read_only = info.read_only;
	device->suspended = info.suspended;
	snprintf(device->name, sizeof(device->name), "%s",
		 dm_task_get_name(task));
	snprintf(device->uuid, sizeof(device->uuid), "%s",
		 dm_task_get_uuid(task));

	next = dm_get_next_target(task, NULL, &start, &length, &target,
				  &params);
	device->sectors = target ? start + length : 0;
	if (next) {
		do {
			next = dm_get_next_target(task, next, &start, &length,
						  &target, &params);
			device->sectors = start + length;
		} while (next);
		target = NULL;
	}
	snprintf(device->target, sizeof(device->target), "%s",
		 target ? target : "");
	*args = strdup(target && params ? params : "");
	if (!*args)
		err = no_memory(e);
out:
	dm_task_destroy(task);
	return err;
}

int device_read(const char *name, struct device *device, struct error *e)
{
	int err;

	memset(device, 0, sizeof(*device));
	err = read_target(name, DM_DEVICE_TABLE, device, &device->table, e);
	if (!err)
		err = read_target(name, DM_DEVICE_STATUS, device,
				  &device->info, e);
	if (err == -ENXIO)
		error_set(e, err, "there is no device %s", name);
	if (err)
		device_drop(device);
	return err;
}

void device_drop(struct device *device)
{
	free(device->table);
	free(device->info);
	device->table = NULL;
	device->info = NULL;
}

/* One word of @text, cut off; NULL at the end. */
static char *word(char **text)
{
	char *w;

	do {
		w = strsep(text, " ");
	} while (w && !*w);
	return w;
}

static bool parse_u64(const char *text, u64 *value)
{
	char *end;

	if (!text || *text < '0' || *text > '9')
		return false;
	errno = 0;
	*value = strtoull(text, &end, 10);
	return !errno && !*end;
}

static int pick(const char *text, const char *yes, const char *no, bool *value)
{
	*value = text && !strcmp(text, yes);
	return *value || (text && !strcmp(text, no)) ? 0 : -EPROTO;
}

static int parse_mode(const char *text, char mode[8])
{
	static const char *const modes[] = { "rw", "ro", "fail", "-" };
	size_t i;

	for (i = 0; text && i < ARRAY_SIZE(modes); i++) {
		if (!strcmp(text, modes[i])) {
			snprintf(mode, 8, "%s", modes[i]);
			return 0;
		}
	}
	return -EPROTO;
}

int device_info_parse(const char *text, struct device_info *info,
		      struct error *e)
{
	char *copy, *rest;
	int err, i;

	copy = strdup(text);
	rest = copy;
	if (!copy)
		return no_memory(e);
	err = pick(word(&rest), "attached", "none", &info->helper);
	if (!err)
		err = pick(word(&rest), "error", "queue", &info->error_policy);
	for (i = 0; !err && i < DEVICE_FIELDS; i++) {
		if (i == DEVICE_DIRTY_BLOCKS)
			err = parse_mode(word(&rest), info->mode);
		if (!err && !parse_u64(word(&rest), &info->field[i]))
			err = -EPROTO;
	}
	free(copy);
	if (err)
		error_set(e, err,
			  "the module's status \"%s\" is not what this version knows: use tools and module of one version",
			  text);
	return err;
}

/* "7:0" at the start of @text */
static dev_t parse_number(const char *text)
{
	unsigned int major, minor;
	int n = 0;

	if (sscanf(text, "%u:%u%n", &major, &minor, &n) != 2 ||
	    (text[n] && text[n] != ' '))
		return 0;
	return makedev(major, minor);
}

dev_t device_part(const struct device *device, enum device_part part)
{
	static const char origin[] = " origin ";
	const char *text = device->table;
	int i;

	if (part == DEVICE_ORIGIN) {
		text = strstr(text, origin);
		return text ? parse_number(text + strlen(origin)) : 0;
	}
	for (i = 0; text && i < (int)part; i++) {
		text = strchr(text, ' ');
		text += !!text;
	}
	return text ? parse_number(text) : 0;
}

void device_node(dev_t number, char *path, size_t path_bytes, char *backing,
		 size_t backing_bytes)
{
	char link[64], target[256], *base;
	ssize_t n;
	FILE *file;

	snprintf(path, path_bytes, "%u:%u", major(number), minor(number));
	snprintf(link, sizeof(link), "/sys/dev/block/%s", path);
	n = readlink(link, target, sizeof(target) - 1);
	if (n > 0) {
		target[n] = 0;
		base = strrchr(target, '/');
		snprintf(path, path_bytes, "/dev/%s", base ? base + 1 : target);
		/* What sysfs calls cciss!c0d0 is a folder deeper in /dev. */
		for (base = path; (base = strchr(base, '!')); )
			*base = '/';
	}

	backing[0] = 0;
	snprintf(link, sizeof(link), "/sys/dev/block/%u:%u/loop/backing_file",
		 major(number), minor(number));
	file = fopen(link, "re");
	if (file) {
		if (fgets(backing, backing_bytes, file))
			backing[strcspn(backing, "\n")] = 0;
		fclose(file);
	}
}

int device_mapped_name(dev_t number, char name[DEVICE_NAME_MAX + 1])
{
	char path[64];
	FILE *file;
	int err = 0;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/dm/name",
		 major(number), minor(number));
	file = fopen(path, "re");
	if (!file)
		return -ENXIO;
	if (!fgets(name, DEVICE_NAME_MAX + 1, file))
		err = -ENXIO;
	else
		name[strcspn(name, "\n")] = 0;
	fclose(file);
	return err;
}

u32 device_features(const struct device *device, char *text, size_t bytes)
{
	char *copy = strdup(device->table), *rest = copy, *w;
	size_t used = 0;
	u32 words = 0;
	int skip = 4;	/* the devices, and the number of features */

	text[0] = 0;
	while (copy && (w = word(&rest))) {
		if (skip) {
			skip--;
		} else if (!strcmp(w, "origin")) {
			skip = 1;
		} else if (strcmp(w, "read_only") != 0 && used < bytes) {
			used += snprintf(text + used, bytes - used, " %s", w);
			words++;
		}
	}
	free(copy);
	return words;
}

bool device_is_ours(const struct device *device)
{
	return !strcmp(device->target, DEVICE_TARGET) ||
	       !strncmp(device->uuid, DEVICE_UUID_PREFIX,
			strlen(DEVICE_UUID_PREFIX));
}

/* Is the node there, and is it this device's? */
static int check_node(const char *name, struct error *e)
{
	char path[DEVICE_NAME_MAX + 16];
	struct dm_info info;
	struct dm_task *task;
	struct stat st;
	int err = 0;

	task = task_create(DM_DEVICE_INFO, name, e);
	if (!task)
		return -EIO;
	snprintf(path, sizeof(path), "/dev/mapper/%s", name);
	if (!dm_task_run(task) || !dm_task_get_info(task, &info))
		err = task_error(task, e);
	else if (stat(path, &st))
		err = error_set(e, -errno, "%s did not appear: %s", path,
				strerror(errno));
	else if (!S_ISBLK(st.st_mode) ||
		 st.st_rdev != makedev(info.major, info.minor))
		err = error_set(e, -EEXIST,
				"%s is not the new device: remove it", path);
	dm_task_destroy(task);
	return err;
}

static int remove_task(const char *name, struct error *e)
{
	struct dm_task *task;
	int err;

	task = task_create(DM_DEVICE_REMOVE, name, e);
	if (!task)
		return -EIO;
	if (!dm_task_retry_remove(task))
		err = task_error(task, e);
	else
		err = run_and_settle(task, e);
	dm_task_destroy(task);
	return err;
}

/* A task for a table: @type is DM_DEVICE_CREATE or DM_DEVICE_RELOAD. */
static struct dm_task *table_task(int type, const char *name,
				  const char *target, u64 sectors,
				  const char *params, bool read_only,
				  struct error *e)
{
	struct dm_task *task = task_create(type, name, e);

	if (!task)
		return NULL;
	if ((read_only && !dm_task_set_ro(task)) ||
	    (params && !dm_task_add_target(task, 0, sectors, target,
					   params))) {
		task_error(task, e);
		dm_task_destroy(task);
		return NULL;
	}
	return task;
}

int device_create(const char *name, const char *uuid, const char *target,
		  u64 sectors, const char *params, bool read_only,
		  struct error *e)
{
	struct dm_task *task;
	int err;

	task = table_task(DM_DEVICE_CREATE, name, target, sectors, params,
			  read_only, e);
	if (!task)
		return -EIO;
	if (!dm_task_set_uuid(task, uuid))
		err = task_error(task, e);
	else
		err = run_and_settle(task, e);
	dm_task_destroy(task);
	if (err) {
		error_prefix(e, "cannot create device %s (the kernel log may say more)",
			     name);
		return err;
	}

	err = params ? check_node(name, e) : 0;
	if (err)
		remove_task(name, NULL);
	return err;
}

/* Run a task that changes no nodes. */
static int run_simple(struct dm_task *task, struct error *e)
{
	int err = 0;

	if (!task)
		return -EIO;
	if (!dm_task_run(task))
		err = task_error(task, e);
	dm_task_destroy(task);
	return err;
}

int device_load(const char *name, u64 sectors, const char *params,
		bool read_only, struct error *e)
{
	int err;

	err = run_simple(table_task(DM_DEVICE_RELOAD, name, DEVICE_TARGET,
				    sectors, params, read_only, e), e);
	if (err)
		error_prefix(e, "device %s: cannot load \"%s\" (the kernel log may say more)",
			     name, params);
	return err;
}

int device_clear(const char *name, struct error *e)
{
	return run_simple(task_create(DM_DEVICE_CLEAR, name, e), e);
}

static struct dm_task *message_task(const char *name, const char *message,
				    struct error *e)
{
	struct dm_task *task = task_create(DM_DEVICE_TARGET_MSG, name, e);

	if (!task || (dm_task_set_sector(task, 0) &&
		      dm_task_set_message(task, message)))
		return task;
	task_error(task, e);
	dm_task_destroy(task);
	return NULL;
}

char *device_ask(const char *name, const char *message, struct error *e)
{
	struct dm_task *task = message_task(name, message, e);
	const char *answer = NULL;
	char *copy = NULL;

	if (task && !dm_task_run(task))
		task_error(task, e);
	else if (task)
		answer = dm_task_get_message_response(task);
	if (answer)
		copy = strdup(answer);
	else if (task && !e->text[0])
		error_set(e, -EPROTO,
			  "the module does not answer it: use tools and module of one version");
	if (answer && !copy)
		no_memory(e);
	if (task)
		dm_task_destroy(task);
	if (!copy)
		error_prefix(e, "message \"%s\" to device %s", message, name);
	return copy;
}

int device_message(const char *name, const char *message, struct error *e)
{
	int err;

	err = run_simple(message_task(name, message, e), e);
	if (err)
		error_prefix(e, "message \"%.40s\" to device %s", message,
			     name);
	return err;
}

int device_suspend(const char *name, bool flush, struct error *e)
{
	struct dm_task *task = task_create(DM_DEVICE_SUSPEND, name, e);
	int err;

	if (task && !flush &&
	    (!dm_task_no_flush(task) || !dm_task_skip_lockfs(task))) {
		err = task_error(task, e);
		dm_task_destroy(task);
		return err;
	}
	err = run_simple(task, e);
	if (err)
		error_prefix(e, "cannot suspend device %s", name);
	return err;
}

int device_resume(const char *name, u32 *cookie, struct error *e)
{
	struct dm_task *task = task_create(DM_DEVICE_RESUME, name, e);
	int err;

	if (task && !dm_task_set_cookie(task, cookie, UDEV_FLAGS)) {
		err = task_error(task, e);
		dm_task_destroy(task);
		return err;
	}
	err = run_simple(task, e);
	if (err)
		error_prefix(e, "cannot resume device %s (the kernel log may say more)",
			     name);
	return err;
}

void device_settle(u32 cookie)
{
	dm_udev_wait(cookie);
}

int device_fail(const struct device *device, struct error *e)
{
	struct dm_task *task;
	int err = 0;

	if (!device->sectors)	/* no table, no I/O */
		return 0;
	task = task_create(DM_DEVICE_RELOAD, device->name, e);
	if (!task)
		return -EIO;
	if (!dm_task_add_target(task, 0, device->sectors, "error", "") ||
	    (device->read_only && !dm_task_set_ro(task)) ||
	    !dm_task_run(task))
		err = task_error(task, e);
	dm_task_destroy(task);
	if (err)
		return err;

	/* To wait for I/O here would be to wait for the helper. */
	task = task_create(DM_DEVICE_RESUME, device->name, e);
	if (!task)
		return -EIO;
	if (!dm_task_no_flush(task) || !dm_task_skip_lockfs(task))
		err = task_error(task, e);
	else
		err = run_and_settle(task, e);
	dm_task_destroy(task);
	return err;
}

int device_remove(const struct device *device, struct error *e)
{
	char users[512] = "";
	int err;

	/* A process may be a rule of udev's that only looks: worth retries. */
	if (device->open && inuse_tell(device->major, device->minor, users,
				       sizeof(users)))
		return error_set(e, -EBUSY, "%s is in use: %s", device->name,
				 users);
	err = remove_task(device->name, e);
	if (err != -EBUSY)
		return err;
	inuse_tell(device->major, device->minor, users, sizeof(users));
	return error_set(e, -EBUSY, "%s is in use: %s", device->name,
			 users[0] ? users :
			 "by a mount in another namespace or a kernel user");
}

int device_each(int (*fn)(const char *name, void *arg), void *arg,
		struct error *e)
{
	struct dm_names *names;
	struct dm_task *task;
	int err = 0;
	u32 next;

	task = task_create(DM_DEVICE_LIST, NULL, e);
	if (!task)
		return -EIO;
	if (!dm_task_run(task)) {
		err = task_error(task, e);
		goto out;
	}
	names = dm_task_get_names(task);
	if (!names || !names->dev)
		goto out;
	do {
		err = fn(names->name, arg);
		next = names->next;
		names = (void *)((char *)names + next);
	} while (!err && next);
out:
	dm_task_destroy(task);
	return err;
}

static int collect(const char *name, void *arg)
{
	struct device_names *names = arg;
	char **more;

	more = realloc(names->name, (names->count + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	names->name = more;
	more[names->count] = strdup(name);
	if (!more[names->count])
		return -ENOMEM;
	names->count++;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int device_names_read(struct device_names *names, struct error *e)
{
	int err;

	*names = (struct device_names) {};
	err = device_each(collect, names, e);
	if (err == -ENOMEM)
		error_set(e, err, "no memory");
	if (!err && names->count)
		qsort(names->name, names->count, sizeof(*names->name), by_name);
	return err;
}

void device_names_drop(struct device_names *names)
{
	size_t i;

	for (i = 0; i < names->count; i++)
		free(names->name[i]);
	free(names->name);
	*names = (struct device_names) {};
}

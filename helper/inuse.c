// SPDX-License-Identifier: GPL-2.0-only
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "inuse.h"

struct list {
	char *text;
	size_t bytes;
	size_t used;
};

__attribute__((format(printf, 2, 3)))
static void add(struct list *list, const char *fmt, ...)
{
	size_t room = list->bytes - list->used;
	va_list args;
	int n;

	if (room <= 2)
		return;
	if (list->used) {
		memcpy(list->text + list->used, ", ", 3);
		list->used += 2;
		room -= 2;
	}
	va_start(args, fmt);
	n = vsnprintf(list->text + list->used, room, fmt, args);
	va_end(args);
	if (n > 0)
		list->used += (size_t)n < room ? (size_t)n : room - 1;
}

static void add_mounts(u32 major, u32 minor, struct list *list)
{
	char *line = NULL, *where;
	size_t bytes = 0;
	FILE *file;
	u32 a, b;

	file = fopen("/proc/self/mountinfo", "re");
	if (!file)
		return;
	/* id, parent, major:minor, root, mount point; escapes stay escaped */
	while (getline(&line, &bytes, file) > 0) {
		if (sscanf(line, "%*u %*u %u:%u %*s %ms", &a, &b, &where) != 3)
			continue;
		if (a == major && b == minor)
			add(list, "mounted at %s", where);
		free(where);
	}
	free(line);
	fclose(file);
}

/* "a\\040b" -> "a b", in place */
static void unescape(char *path)
{
	char *out = path;
	unsigned int c;

	for (; *path; path++) {
		if (*path == '\\' && sscanf(path + 1, "%3o", &c) == 1 &&
		    strspn(path + 1, "01234567") >= 3) {
			*out++ = c;
			path += 3;
		} else {
			*out++ = *path;
		}
	}
	*out = 0;
}

void inuse_sync(u32 major, u32 minor)
{
	char *line = NULL, *where;
	size_t bytes = 0;
	FILE *file;
	u32 a, b;
	int fd;

	file = fopen("/proc/self/mountinfo", "re");
	if (!file)
		return;
	while (getline(&line, &bytes, file) > 0) {
		if (sscanf(line, "%*u %*u %u:%u %*s %ms", &a, &b, &where) != 3)
			continue;
		if (a == major && b == minor) {
			unescape(where);
			fd = open(where, O_RDONLY | O_CLOEXEC);
			if (fd >= 0) {
				syncfs(fd);
				close(fd);
			}
		}
		free(where);
	}
	free(line);
	fclose(file);
}

static void add_swaps(dev_t dev, struct list *list)
{
	char *line = NULL, *path;
	size_t bytes = 0;
	struct stat st;
	FILE *file;

	file = fopen("/proc/swaps", "re");
	if (!file)
		return;
	while (getline(&line, &bytes, file) > 0) {
		if (sscanf(line, "%ms", &path) != 1)
			continue;
		if (!stat(path, &st) && S_ISBLK(st.st_mode) &&
		    st.st_rdev == dev)
			add(list, "used as swap");
		free(path);
	}
	free(line);
	fclose(file);
}

static void add_holders(u32 major, u32 minor, struct list *list)
{
	char path[64];
	struct dirent *d;
	DIR *dir;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/holders", major,
		 minor);
	dir = opendir(path);
	if (!dir)
		return;
	while ((d = readdir(dir))) {
		if (d->d_name[0] != '.')
			add(list, "below %s", d->d_name);
	}
	closedir(dir);
}

static bool has_open(const char *pid, dev_t dev)
{
	char path[300];
	bool found = false;
	struct dirent *d;
	struct stat st;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (d = readdir(dir)))
		found = !fstatat(dirfd(dir), d->d_name, &st, 0) &&
			S_ISBLK(st.st_mode) && st.st_rdev == dev;
	closedir(dir);
	return found;
}

static void add_processes(dev_t dev, struct list *list)
{
	struct dirent *d;
	DIR *dir;

	dir = opendir("/proc");
	if (!dir)
		return;
	while ((d = readdir(dir))) {
		char path[300], name[32] = "";
		FILE *file;

		if (!isdigit((unsigned char)d->d_name[0]) ||
		    !has_open(d->d_name, dev))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/comm", d->d_name);
		file = fopen(path, "re");
		if (file) {
			if (fscanf(file, "%31[^\n]", name) != 1)
				name[0] = 0;
			fclose(file);
		}
		add(list, "open in process %s (%s)", d->d_name, name);
	}
	closedir(dir);
}

bool inuse_tell(u32 major, u32 minor, char *text, size_t bytes)
{
	struct list list = { .text = text, .bytes = bytes };
	bool stays;

	text[0] = 0;
	add_mounts(major, minor, &list);
	add_swaps(makedev(major, minor), &list);
	add_holders(major, minor, &list);
	stays = list.used;
	add_processes(makedev(major, minor), &list);
	return stays;
}

// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../kmod/pure.h"
#include "state.h"

static const char *const dirs[] = { STATE_DIR, STATE_RUN_DIR };

static int make_dir(const char *dir)
{
	return mkdir(dir, 0700) && errno != EEXIST ? -errno : 0;
}

static int open_lock(const char *path, struct error *e)
{
	int fd, err;

	err = make_dir(STATE_RUN_DIR);
	if (err)
		return error_set(e, err, "%s: %s", STATE_RUN_DIR,
				 strerror(-err));
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_set(e, -errno, "%s: %s", path, strerror(errno));
	return fd;
}

static int lock_fd = -1;

int state_lock(struct error *e)
{
	static const char path[] = STATE_RUN_DIR "/lock";
	int fd, err;

	fd = open_lock(path, e);
	if (fd < 0)
		return fd;
	while (flock(fd, LOCK_EX)) {
		if (errno == EINTR)
			continue;
		err = error_set(e, -errno, "%s: %s", path, strerror(errno));
		close(fd);
		return err;
	}
	lock_fd = fd;
	return 0;
}

void state_unlock(void)
{
	if (lock_fd >= 0)
		close(lock_fd);
	lock_fd = -1;
}

int state_lock_device(const char *name, bool ends, struct error *e)
{
	char path[STATE_PATH];
	int fd, err;

	snprintf(path, sizeof(path), STATE_RUN_DIR "/%s.lock", name);
	if (ends && access(path, F_OK))
		return 0;
	fd = open_lock(path, e);
	if (fd < 0)
		return fd;
	if (!flock(fd, LOCK_EX | LOCK_NB)) {
		/* Whoever opened it before finds no device. */
		if (ends)
			unlink(path);
		return 0;
	}
	err = error_set(e, errno == EWOULDBLOCK ? -EBUSY : -errno,
			"%s is being sealed or exported", name);
	close(fd);
	return err;
}

int state_each_meta(const char *name, unsigned int index,
		    char path[STATE_PATH])
{
	if (index >= ARRAY_SIZE(dirs))
		return -ENOENT;
	snprintf(path, STATE_PATH, "%s/%s.meta", dirs[index], name);
	return 0;
}

int path_absolute(const char *path, char **out, struct error *e)
{
	char *dir;

	*out = NULL;
	if (*path == '/') {
		*out = strdup(path);
	} else {
		dir = getcwd(NULL, 0);
		if (dir && asprintf(out, "%s/%s", dir, path) < 0)
			*out = NULL;
		free(dir);
	}
	return *out ? 0 : error_set(e, -ENOMEM, "%s: no memory for its path",
				    path);
}

int state_meta_path(const char *name, bool keep, char path[STATE_PATH],
		    struct error *e)
{
	unsigned int i;
	int err = 0;

	for (i = 0; !state_each_meta(name, i, path); i++) {
		if (keep && i)
			break;
		err = make_dir(dirs[i]);
		/* A file system that is mounted read-only refuses even root. */
		if (!err && access(dirs[i], W_OK | X_OK))
			err = -errno;
		if (!err)
			return 0;
	}
	if (keep)
		return error_set(e, err,
				 "%s cannot be written: %s; give --meta a place that survives a reboot",
				 STATE_DIR, strerror(-err));
	return error_set(e, err, "neither %s nor %s can be written: %s",
			 STATE_DIR, STATE_RUN_DIR, strerror(-err));
}

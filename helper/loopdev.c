// SPDX-License-Identifier: GPL-2.0-only
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <linux/loop.h>

#include "loopdev.h"

#define CONTROL		"/dev/loop-control"
#define DIRECT_BYTES	4096
#define TRIES		64	/* free devices that others took before us */

/* 1: it shows the file. 0: it does not, or went away meanwhile. */
static int shows(const char *path, const struct stat *file)
{
	struct loop_info64 info;
	int fd, ret;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ENXIO ? 0 : -errno;
	if (ioctl(fd, LOOP_GET_STATUS64, &info))
		ret = errno == ENXIO ? 0 : -errno;
	else
		ret = info.lo_inode == file->st_ino &&
		      info.lo_device == file->st_dev;
	close(fd);
	return ret;
}

int loopdev_find(const struct stat *file, char path[LOOPDEV_PATH])
{
	char backing[64];
	struct dirent *d;
	unsigned int n;
	int err = -ENOENT;
	DIR *dir;
	char end;

	dir = opendir("/sys/block");
	if (!dir)
		return errno == ENOENT ? -ENOENT : -errno;
	while (err == -ENOENT && (d = readdir(dir))) {
		int ret;

		if (sscanf(d->d_name, "loop%u%c", &n, &end) != 1)
			continue;
		/* Opening a device that shows nothing costs; sysfs tells. */
		snprintf(backing, sizeof(backing),
			 "/sys/block/loop%u/loop/backing_file", n);
		if (access(backing, F_OK))
			continue;
		snprintf(path, LOOPDEV_PATH, "/dev/loop%u", n);
		ret = shows(path, file);
		if (ret)
			err = ret < 0 ? ret : 0;
	}
	closedir(dir);
	return err;
}

/*
 * Some stacked file systems say that they have direct I/O, and fail all of it
 * where what lies below has none: only trying tells.
 */
static bool reads_direct(const char *file)
{
	bool works = false;
	void *buf;
	int fd;

	fd = open(file, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (!posix_memalign(&buf, DIRECT_BYTES, DIRECT_BYTES)) {
		works = pread(fd, buf, DIRECT_BYTES, 0) >= 0;
		free(buf);
	}
	close(fd);
	return works;
}

int loopdev_attach(const char *file, bool writable, char path[LOOPDEV_PATH],
		   struct error *e)
{
	int mode = O_CLOEXEC | (writable ? O_RDWR : O_RDONLY);
	struct loop_config config = {
		.info.lo_flags = LO_FLAGS_AUTOCLEAR,
	};
	int control, fd, loop = -1, err = 0;
	unsigned int i;

	control = open(CONTROL, O_RDWR | O_CLOEXEC);
	if (control < 0)
		return error_set(e, -errno, "%s: %s%s", CONTROL,
				 strerror(errno), errno == ENOENT ?
				 ": run `modprobe loop`" : "");
	fd = open(file, mode);
	if (fd < 0) {
		err = error_set(e, -errno, "%s: %s", file, strerror(errno));
		goto out;
	}
	config.fd = fd;
	if (!writable)
		config.info.lo_flags |= LO_FLAGS_READ_ONLY;
	else if (reads_direct(file))
		config.info.lo_flags |= LO_FLAGS_DIRECT_IO;
	snprintf((char *)config.info.lo_file_name,
		 sizeof(config.info.lo_file_name), "%s", file);

	for (i = 0; i < TRIES; i++) {
		int n = ioctl(control, LOOP_CTL_GET_FREE);

		if (n < 0) {
			err = error_set(e, -errno, "no free loop device: %s",
					strerror(errno));
			goto out;
		}
		snprintf(path, LOOPDEV_PATH, "/dev/loop%d", n);
		loop = open(path, mode);
		if (loop < 0) {
			err = error_set(e, -errno, "%s: %s", path,
					strerror(errno));
			goto out;
		}
		if (!ioctl(loop, LOOP_CONFIGURE, &config))
			goto out;
		err = -errno;
		close(loop);
		loop = -1;
		if (err != -EBUSY) {
			error_set(e, err, "%s: cannot show %s: %s", path, file,
				  strerror(-err));
			goto out;
		}
		err = 0;
	}
	err = error_set(e, -EBUSY, "others took %d free loop devices first",
			TRIES);
out:
	if (fd >= 0)
		close(fd);
	close(control);
	return err ? err : loop;
}

int loopdev_resize(const char *path)
{
	int fd, err = 0;

	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (ioctl(fd, LOOP_SET_CAPACITY))
		err = -errno;
	close(fd);
	return err;
}

int loopdev_clear(const char *path)
{
	int fd, err = 0;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (ioctl(fd, LOOP_CLR_FD) && errno != ENXIO)
		err = -errno;
	close(fd);
	return err;
}

// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devfile.h"
#include "io.h"
#include "loopdev.h"

static int check_unused(const struct stat *st, const char *path,
			struct error *e)
{
	char loop[LOOPDEV_PATH];
	int err;

	err = loopdev_find(st, loop);
	if (!err)
		return error_set(e, -EBUSY,
				 "%s is in use: %s shows it, detach it first",
				 path, loop);
	if (err != -ENOENT)
		return error_set(e, err,
				 "%s: cannot tell whether a loop device shows it: %s",
				 path, strerror(-err));
	return 0;
}

/*
 * O_EXCL on a block device fails while it is mounted, a device-mapper table
 * has it, or another tool claims it.
 */
int devfile_open(const char *path, enum devfile_how how, struct devfile *file,
		 struct error *e)
{
	int flags = O_CLOEXEC | (how == DEVFILE_READ ? O_RDONLY : O_RDWR);
	struct stat st;
	int err;

	*file = (struct devfile) { .fd = -1, .is_file = true };
	if (!stat(path, &st)) {
		if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
			return error_set(e, -ENOTBLK,
					 "%s is neither a block device nor a file",
					 path);
		file->is_file = S_ISREG(st.st_mode);
		if (!file->is_file)
			flags |= O_EXCL;
	} else if (errno == ENOENT && how == DEVFILE_CREATE) {
		file->created = true;
		flags |= O_CREAT | O_EXCL;
	}
	file->fd = open(path, flags, 0600);
	if (file->fd < 0) {
		file->created = false;
		if (errno == EBUSY)
			return error_set(e, -EBUSY,
					 "%s is in use: unmount or detach it first",
					 path);
		return error_set(e, -errno, "%s: %s", path, strerror(errno));
	}
	io_forget(file->fd);
	err = io_bytes(file->fd, &file->bytes);
	if (err)
		return error_set(e, err, "%s: %s", path, strerror(-err));
	if (fstat(file->fd, &st))
		return error_set(e, -errno, "%s: %s", path, strerror(errno));
	return file->is_file ? check_unused(&st, path, e) : 0;
}

int devfile_grow(struct devfile *file, const char *path, u64 bytes,
		 struct error *e)
{
	if (file->bytes >= bytes)
		return 0;
	if (!file->is_file)
		return error_set(e, -ENOSPC, "%s has %llu bytes, %llu are needed",
				 path, (unsigned long long)file->bytes,
				 (unsigned long long)bytes);
	if (ftruncate(file->fd, bytes))
		return error_set(e, -errno, "%s: cannot grow to %llu bytes: %s",
				 path, (unsigned long long)bytes,
				 strerror(errno));
	file->bytes = bytes;
	return 0;
}

void devfile_close(struct devfile *file)
{
	if (file->fd >= 0)
		close(file->fd);
	file->fd = -1;
}

// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io.h"
#include "loopdev.h"
#include "meta.h"
#include "metafile.h"
#include "uuid.h"

/*
 * Returns a file descriptor. O_EXCL on a block device fails while it is
 * mounted, a device-mapper table has it, or another tool claims it.
 */
static int open_path(const char *path, struct metafile *made, struct error *e)
{
	struct stat st;
	int fd;

	made->created = false;
	if (!stat(path, &st)) {
		if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
			return error_set(e, -ENOTBLK,
					 "%s is neither a block device nor a file",
					 path);
		made->is_file = S_ISREG(st.st_mode);
		fd = open(path, O_RDWR | O_CLOEXEC |
				(made->is_file ? 0 : O_EXCL));
	} else {
		made->is_file = true;
		made->created = true;
		fd = open(path, O_RDWR | O_CLOEXEC | O_CREAT | O_EXCL, 0600);
	}
	if (fd < 0 && errno == EBUSY)
		return error_set(e, -EBUSY,
				 "%s is in use: unmount or detach it first",
				 path);
	if (fd < 0)
		return error_set(e, -errno, "%s: %s", path, strerror(errno));
	return fd;
}

static int check_unused(int fd, const char *path, struct error *e)
{
	char loop[LOOPDEV_PATH];
	struct stat st;
	int err;

	if (fstat(fd, &st))
		return error_set(e, -errno, "%s: %s", path, strerror(errno));
	err = loopdev_find(&st, loop);
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

static int check_content(int fd, const char *path, u64 bytes,
			 const struct image *image, struct error *e)
{
	char uuid[UUID_TEXT];
	struct lf_super super;
	const char *why;
	int err;

	if (!bytes)
		return 0;
	err = meta_read_super(fd, bytes, &super, &why);
	switch (err) {
	case 0:
		if (!memcmp(super.uuid, image->uuid, sizeof(super.uuid)))
			return 0;
		uuid_text(super.uuid, uuid);
		return error_set(e, -EEXIST,
				 "%s is the meta device of image %s: --force replaces it",
				 path, uuid);
	case -ENODATA:	/* blank, or wiped by a run that was cut short */
	case -EINVAL:	/* damaged: nothing to lose */
		return 0;
	case -EMEDIUMTYPE:
		return error_set(e, -EEXIST,
				 "%s holds data that is no meta device: --force overwrites it",
				 path);
	default:
		return error_set(e, err, "%s: %s", path, strerror(-err));
	}
}

int metafile_format(const char *path, const struct image *image, bool force,
		    struct metafile *made, struct error *e)
{
	u64 old, bytes, needed;
	bool grown = false;
	int fd, err;

	fd = open_path(path, made, e);
	if (fd < 0)
		return fd;

	err = io_bytes(fd, &old);
	if (err) {
		error_set(e, err, "%s: %s", path, strerror(-err));
		goto out;
	}
	if (made->is_file) {
		err = check_unused(fd, path, e);
		if (err)
			goto out;
	}
	if (!force) {
		err = check_content(fd, path, old, image, e);
		if (err)
			goto out;
	}

	bytes = old;
	needed = meta_bytes(image);
	if (made->is_file && bytes < needed) {
		if (ftruncate(fd, needed)) {
			err = error_set(e, -errno, "%s: cannot grow to %llu bytes: %s",
					path, (unsigned long long)needed,
					strerror(errno));
			goto out;
		}
		grown = true;
		bytes = needed;
	}
	err = meta_write(fd, bytes, image, e);
	if (err)
		error_prefix(e, "%s", path);
out:
	if (err && grown && !made->created && ftruncate(fd, old))
		error_prefix(e, "%s keeps its new size", path);
	if (err && made->created)
		unlink(path);
	if (close(fd) && !err)
		err = error_set(e, -errno, "%s: %s", path, strerror(errno));
	return err;
}

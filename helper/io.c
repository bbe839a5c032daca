// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/fs.h>

#include "io.h"

int io_pread(int fd, void *buf, size_t len, u64 off)
{
	char *p = buf;
	ssize_t n;

	while (len) {
		n = pread(fd, p, len, off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -ENODATA;
		p += n;
		off += n;
		len -= n;
	}
	return 0;
}

int io_pwrite(int fd, const void *buf, size_t len, u64 off)
{
	const char *p = buf;
	ssize_t n;

	while (len) {
		n = pwrite(fd, p, len, off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -ENOSPC;
		p += n;
		off += n;
		len -= n;
	}
	return 0;
}

int io_zero(int fd, u64 off, u64 len)
{
	static const int modes[] = {
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
	};
	static const char zeros[1 << 16];
	unsigned int i;
	int err = 0;

	/* Neither does more than the other; not all devices can do both. */
	for (i = 0; len && i < ARRAY_SIZE(modes); i++)
		if (!fallocate(fd, modes[i], off, len))
			return 0;
	for (; !err && len; ) {
		size_t n = len < sizeof(zeros) ? len : sizeof(zeros);

		err = io_pwrite(fd, zeros, n, off);
		off += n;
		len -= n;
	}
	return err;
}

void io_forget(int fd)
{
	struct stat st;

	if (!fstat(fd, &st) && S_ISBLK(st.st_mode))
		ioctl(fd, BLKFLSBUF, 0);
}

int io_open(const char *path, struct stat *st)
{
	int fd, err = 0;

	/* A FIFO must not keep open() waiting for its other end. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	if (fstat(fd, st))
		err = -errno;
	else if (!S_ISREG(st->st_mode))
		err = S_ISDIR(st->st_mode) ? -EISDIR : -EINVAL;
	if (!err)
		return fd;
	close(fd);
	return err;
}

ssize_t io_read_all(int fd, void *buf, size_t room)
{
	size_t have = 0;
	char *p = buf;
	ssize_t n;

	while (have < room) {
		n = read(fd, p + have, room - have);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return have;
		have += n;
	}
	return -E2BIG;
}

int io_bytes(int fd, u64 *bytes)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISREG(st.st_mode)) {
		*bytes = st.st_size;
		return 0;
	}
	if (!S_ISBLK(st.st_mode))
		return -ENOTBLK;
	return ioctl(fd, BLKGETSIZE64, bytes) ? -errno : 0;
}

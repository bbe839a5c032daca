// SPDX-License-Identifier: GPL-2.0-only
/*
 * Nothing is flushed to the disk: what a crash takes from an entry, its checksum
 * tells, and it is fetched again. On NFS close() sends all that was written, for
 * others to see, and says what became of it; so its error counts.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "shared_file.h"

static void path_of(const char *dir, const char *name, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%.*s/%.*s", SHARED_DIR - 1, dir,
		 SHARED_NAME - 1, name);
}

/* -EINVAL is what damaged entries are, not what a file system may say. */
static int failure(void)
{
	return errno == EINVAL ? -EIO : -errno;
}

static int read_whole(int fd, u8 *to, size_t len)
{
	size_t have = 0;

	while (have < len) {
		ssize_t n = read(fd, to + have, len - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return failure();
		if (!n)
			break;
		have += n;
	}
	return have;
}

int shared_file_read(const char *dir, const struct shared_key *key,
		     void *entry, int *fd, const char **why)
{
	char name[SHARED_NAME], path[PATH_MAX];
	struct stat st;
	int n;

	shared_entry_name(key, name);
	path_of(dir, name, path);
	/* O_NONBLOCK: a FIFO must not keep open() waiting. */
	*fd = openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW |
		     O_NONBLOCK | O_NOCTTY);
	if (*fd < 0)
		return errno == ELOOP ? lf_bad(why, "it is a symbolic link") :
		       failure();
	if (fstat(*fd, &st))
		return failure();
	if (!S_ISREG(st.st_mode))
		return lf_bad(why, "it is no regular file");
	if (st.st_size > (off_t)SHARED_ENTRY_MAX)
		return lf_bad(why, "it is too long");
	n = read_whole(*fd, entry, st.st_size);
	return n < 0 ? n : shared_check(entry, n, key, why);
}

void shared_file_used(int fd, bool good)
{
	struct stat st;

	if (fd < 0)
		return;
	/* Where that is not allowed, it looks older than it is. */
	if (good && !fstat(fd, &st) &&
	    llabs((long long)time(NULL) - st.st_mtime) > SHARED_TOUCH)
		(void)futimens(fd, NULL);
	close(fd);
}

static int write_whole(int fd, const void *from, size_t len)
{
	const u8 *p = from;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		p += n;
		len -= n;
	}
	return 0;
}

static u32 piece_bytes(const struct shared_key *key, u32 at)
{
	return key->length - at < SHARED_PIECE ? key->length - at :
						 SHARED_PIECE;
}

static int write_entry(int fd, const struct shared_key *key,
		       u8 *const *piece)
{
	struct shared_head head;
	u64 sum = shared_begin(&head, key);
	u32 at;
	int err;

	for (at = 0; at < key->length; at += SHARED_PIECE)
		sum = shared_sum(sum, piece[at / SHARED_PIECE],
				 piece_bytes(key, at));
	head.sum = cpu_to_le64(sum);
	err = write_whole(fd, &head, sizeof(head));
	for (at = 0; !err && at < key->length; at += SHARED_PIECE)
		err = write_whole(fd, piece[at / SHARED_PIECE],
				  piece_bytes(key, at));
	return err;
}

/* A new file, in a folder that is made for it; never DIR itself. */
static int create(char path[PATH_MAX])
{
	int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
	int fd = openat(AT_FDCWD, path, flags, 0600);
	char *slash = strrchr(path, '/');

	if (fd >= 0 || errno != ENOENT)
		return fd < 0 ? -errno : fd;
	*slash = 0;
	if (mkdir(path, 0700) && errno != EEXIST)
		return -errno;
	*slash = '/';
	fd = openat(AT_FDCWD, path, flags, 0600);
	return fd < 0 ? -errno : fd;
}

int shared_file_write(const char *dir, const struct shared_key *key,
		      const char *owner, u64 number, u8 *const *piece)
{
	char name[SHARED_NAME], part[PATH_MAX], path[PATH_MAX];
	int fd, err;

	shared_part_name(key, owner, number, name);
	path_of(dir, name, part);
	shared_entry_name(key, name);
	path_of(dir, name, path);
	fd = create(part);
	if (fd < 0)
		return fd;
	err = write_entry(fd, key, piece);
	if (close(fd) && !err)
		err = -errno;
	if (!err && renameat(AT_FDCWD, part, AT_FDCWD, path))
		err = -errno;
	if (err)
		(void)unlink(part);
	return err;
}

int shared_file_remove(const char *dir, const struct shared_key *key)
{
	char name[SHARED_NAME], path[PATH_MAX];

	shared_entry_name(key, name);
	path_of(dir, name, path);
	return unlink(path) ? -errno : 0;
}

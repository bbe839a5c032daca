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

/*
 * The folder of @name, open; @base: the name in it. Who else may write DIR must not
 * lead us out of it: neither folder nor entry may be a symbolic link.
 */
static int open_folder(const char *dir, const char *name, bool make,
		       const char **base)
{
	int flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, fd;
	char path[PATH_MAX];

	*base = strchr(name, '/') + 1;
	snprintf(path, PATH_MAX, "%.*s/%.*s", SHARED_DIR - 1, dir,
		 (int)(*base - name - 1), name);
	fd = openat(AT_FDCWD, path, flags);
	if (fd < 0 && errno == ENOENT && make) {
		/* Never DIR itself, which may be a mount that is not there. */
		if (mkdir(path, 0700) && errno != EEXIST)
			return -errno;
		fd = openat(AT_FDCWD, path, flags);
	}
	return fd < 0 ? -errno : fd;
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
	/* O_NONBLOCK: a FIFO must not keep open() waiting. */
	int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
	char name[SHARED_NAME];
	const char *base;
	struct stat st;
	int folder, err, n;

	shared_entry_name(key, name);
	*fd = -1;
	folder = open_folder(dir, name, false, &base);
	if (folder < 0)
		return folder == -EINVAL ? -EIO : folder;
	*fd = openat(folder, base, flags);
	err = errno;
	close(folder);
	errno = err;
	if (*fd < 0)
		return err == ELOOP ? lf_bad(why, "it is a symbolic link") :
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

int shared_file_write(const char *dir, const struct shared_key *key,
		      const char *owner, u64 number, u8 *const *piece)
{
	int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
	char part_name[SHARED_NAME], name[SHARED_NAME];
	const char *part, *base;
	int folder, fd, err;

	shared_part_name(key, owner, number, part_name);
	shared_entry_name(key, name);
	/* Both are in the same folder. */
	folder = open_folder(dir, name, true, &base);
	if (folder < 0)
		return folder;
	part = strchr(part_name, '/') + 1;
	fd = openat(folder, part, flags, 0600);
	if (fd < 0) {
		err = -errno;
		goto out;
	}
	err = write_entry(fd, key, piece);
	if (close(fd) && !err)
		err = -errno;
	if (!err && renameat(folder, part, folder, base))
		err = -errno;
	if (err)
		(void)unlinkat(folder, part, 0);
out:
	close(folder);
	return err;
}

int shared_file_remove(const char *dir, const struct shared_key *key)
{
	char name[SHARED_NAME];
	const char *base;
	int folder, err;

	shared_entry_name(key, name);
	folder = open_folder(dir, name, false, &base);
	if (folder < 0)
		return folder;
	err = unlinkat(folder, base, 0) ? -errno : 0;
	close(folder);
	return err;
}

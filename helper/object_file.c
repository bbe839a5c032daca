// SPDX-License-Identifier: GPL-2.0-only
/*
 * Objects as files: file:///directory/name. A put writes a file without a
 * name (O_TMPFILE) in the nearest directory that exists, and makes directories
 * and name only when all is on the disk: a crash leaves nothing behind. Where the
 * file system has no such files, the temporary one is called
 * .lazyframe-<random>.tmp; such files may be removed at any time when no put
 * is under way.
 *
 * "uncompressed-size" is a file beside the object that holds the decimal
 * number: <name>.uncompressed-size.
 */
#include "bucket.h"
#include "object.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SIDECAR		".uncompressed-size"
#define PREFIX		"file://"

/**
 * struct object_put - a file that has no name yet
 * @url: for errors
 * @path: what it will be called
 * @temp: the name that it has so far; NULL for O_TMPFILE
 */
struct object_put {
	int fd;
	char *url;
	char *path;
	char *temp;
};

/* The path that a URL names, malloc()ed; trailing slashes are dropped. */
static char *path_from(const char *url, struct error *e)
{
	const char *p = url + strlen(PREFIX), *odd = strpbrk(p, "?#");
	char *path;
	size_t len;

	if (*p != '/') {
		error_set(e, -EINVAL,
			  "%s: a file's URL names no host and a full path: file:///directory/name",
			  url);
		return NULL;
	}
	if (odd) {
		error_set(e, -EINVAL,
			  "%s: a file's URL has no query or fragment; write %s for %c",
			  url, *odd == '?' ? "%3F" : "%23", *odd);
		return NULL;
	}
	path = strdup(p);
	if (!path) {
		no_memory(e);
		return NULL;
	}
	if (!url_unescape(path)) {
		error_set(e, -EINVAL,
			  "%s: a %% that two hex digits, not 00, do not follow; write %%25 for %%",
			  url);
		free(path);
		return NULL;
	}
	len = strlen(path);
	while (len > 1 && path[len - 1] == '/')
		path[--len] = 0;
	return path;
}

static char *path_join(const char *path, const char *tail)
{
	char *s;

	return asprintf(&s, "%s%s", path, tail) < 0 ? NULL : s;
}

/* The directory that holds @path, malloc()ed. */
static char *path_parent(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash == path ? strdup("/") : strndup(path, slash - path);
}

/* An existing directory: @path itself or its nearest ancestor. */
static char *path_existing(const char *path)
{
	char *dir = strdup(path), *up;
	struct stat st;

	while (dir && stat(dir, &st) && errno == ENOENT && strcmp(dir, "/")) {
		up = path_parent(dir);
		free(dir);
		dir = up;
	}
	return dir;
}

static int open_object(const char *url, const char *path, struct stat *st,
		       struct error *e)
{
	int fd, err;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return error_set(e, -errno, "%s: %m", url);
	if (fstat(fd, st))
		err = error_set(e, -errno, "%s: %m", url);
	else if (!S_ISREG(st->st_mode))
		err = error_set(e, -EINVAL, "%s: not a regular file", url);
	else
		return fd;
	close(fd);
	return err;
}

static int read_exact(int fd, void *buf, size_t len, u64 off)
{
	ssize_t n;

	while (len) {
		n = pread(fd, buf, len, off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -ENODATA;
		buf = (char *)buf + n;
		off += n;
		len -= n;
	}
	return 0;
}

static int read_sidecar(const char *url, const char *path,
			struct object_info *info, struct error *e)
{
	char *side = path_join(path, SIDECAR), text[24], *end;
	struct stat st;
	int fd, err;

	if (!side)
		return no_memory(e);
	fd = open_object(url, side, &st, e);
	free(side);
	if (fd == -ENOENT)
		return 0;
	if (fd < 0) {
		error_prefix(e, "reading " SIDECAR);
		return fd;
	}
	if (st.st_size < 1 || st.st_size >= (off_t)sizeof(text)) {
		err = -ENODATA;
	} else {
		err = read_exact(fd, text, st.st_size, 0);
		text[st.st_size] = 0;
	}
	close(fd);
	if (err && err != -ENODATA)
		return error_set(e, err, "%s" SIDECAR ": %s", url,
				 strerror(-err));
	if (!err && isdigit((unsigned char)text[0])) {
		errno = 0;
		info->ubytes = strtoull(text, &end, 10);
		if (!errno && (!*end || !strcmp(end, "\n"))) {
			info->has_ubytes = true;
			return 0;
		}
	}
	return error_set(e, -EINVAL,
			 "%s" SIDECAR ": not a decimal number; put the object again",
			 url);
}

static int file_stat(const char *url, struct object_info *info,
		     struct error *e)
{
	char *path = path_from(url, e);
	struct stat st;
	int fd, err;

	if (!path)
		return -EINVAL;
	memset(info, 0, sizeof(*info));
	fd = open_object(url, path, &st, e);
	if (fd < 0) {
		err = fd;
		goto out;
	}
	close(fd);
	info->bytes = st.st_size;
	snprintf(info->validator, sizeof(info->validator),
		 OBJECT_FILE_VALIDATOR, (unsigned long long)st.st_ino,
		 (unsigned long long)st.st_size,
		 st.st_mtim.tv_sec * 1000000000ULL + st.st_mtim.tv_nsec);
	err = read_sidecar(url, path, info, e);
out:
	free(path);
	return err;
}

static int file_get_range(const char *url, u64 off, void *buf, size_t len,
			  struct error *e)
{
	char *path = path_from(url, e);
	struct stat st;
	int fd, err;

	if (!path)
		return -EINVAL;
	fd = open_object(url, path, &st, e);
	free(path);
	if (fd < 0)
		return fd;
	err = read_exact(fd, buf, len, off);
	close(fd);
	if (err)
		error_set(e, err, "%s: bytes %llu to %llu: %s", url,
			  (unsigned long long)off,
			  (unsigned long long)off + len,
			  err == -ENODATA ? "the file is shorter" :
					    strerror(-err));
	return err;
}

static int file_writable(const char *url, struct error *e)
{
	char *path = path_from(url, e);
	struct stat st;
	int err = 0;

	if (!path)
		return -EINVAL;
	if (stat(path, &st))
		err = error_set(e, -errno, "%s: %m%s", url, errno == ENOENT ?
				"; make the directory first" : "");
	else if (!S_ISDIR(st.st_mode))
		err = error_set(e, -ENOTDIR, "%s: not a directory", url);
	else if (faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS))
		err = error_set(e, -errno, "%s: not writable: %m", url);
	free(path);
	return err;
}

/* A name beside others that no object has; malloc()ed. */
static char *temp_name(const char *dir)
{
	u8 r[8];
	char *s;

	if (getrandom(r, sizeof(r), 0) != sizeof(r))
		return NULL;
	if (asprintf(&s, "%s/.lazyframe-%016llx.tmp", dir,
		     (unsigned long long)lf_get_le64(r)) < 0)
		return NULL;
	return s;
}

static void put_free(struct object_put *put)
{
	if (put->fd >= 0)
		close(put->fd);
	if (put->temp)
		unlink(put->temp);
	free(put->temp);
	free(put->path);
	free(put->url);
	free(put);
}

static int file_put_begin(const char *url, u64 ubytes, struct object_put **out,
			  struct error *e)
{
	struct object_put *put = calloc(1, sizeof(*put));
	char *dir = NULL, *parent = NULL;
	int err = -ENOMEM;

	(void)ubytes;
	if (!put)
		return error_set(e, err, "out of memory");
	put->fd = -1;
	put->url = strdup(url);
	put->path = path_from(url, e);
	if (!put->path) {
		err = -EINVAL;
		goto fail;
	}
	parent = path_parent(put->path);
	dir = parent ? path_existing(parent) : NULL;
	if (!dir || !put->url) {
		error_set(e, err, "out of memory");
		goto fail;
	}
	put->fd = open(dir, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0644);
	/* Old kernels say EISDIR or ENOENT for a flag they do not know. */
	if (put->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR ||
			    errno == ENOENT || errno == EINVAL)) {
		put->temp = temp_name(dir);
		if (!put->temp) {
			error_set(e, err, "out of memory");
			goto fail;
		}
		put->fd = open(put->temp,
			       O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
		if (put->fd < 0) {
			err = errno;
			free(put->temp);
			put->temp = NULL;
			errno = err;
		}
	}
	if (put->fd < 0) {
		err = error_set(e, -errno, "%s: cannot write in %s: %m", url,
				dir);
		goto fail;
	}
	free(dir);
	free(parent);
	*out = put;
	return 0;

fail:
	free(dir);
	free(parent);
	put_free(put);
	return err;
}

static int file_put_part(struct object_put *put, u64 off, const void *buf,
			 size_t len, struct error *e)
{
	ssize_t n;

	while (len) {
		n = pwrite(put->fd, buf, len, off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_set(e, -errno, "%s: writing %zu bytes: %m",
					 put->url, len);
		buf = (const char *)buf + n;
		off += n;
		len -= n;
	}
	return 0;
}

static int sync_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;

	if (fd < 0)
		return -errno;
	/* EINVAL: a file system that has nothing to sync. */
	if (fsync(fd) && errno != EINVAL)
		err = -errno;
	close(fd);
	return err;
}

/* Make @path and what is missing above it, durably. */
static int make_dirs(const char *path)
{
	struct stat st;
	char *parent;
	int err;

	if (!stat(path, &st))
		return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
	if (errno != ENOENT)
		return -errno;
	parent = path_parent(path);
	if (!parent)
		return -ENOMEM;
	err = make_dirs(parent);
	if (!err && mkdir(path, 0755) && errno != EEXIST)
		err = -errno;
	if (!err)
		err = sync_dir(parent);
	free(parent);
	return err;
}

/*
 * Give the file its name. A name that is taken already cannot be linked over,
 * only renamed over; that is also for file systems that know no links.
 */
static int put_name(struct object_put *put, const char *dir, bool over)
{
	char proc[40];

	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", put->fd);
	if (!linkat(AT_FDCWD, put->temp ? put->temp : proc, AT_FDCWD, put->path,
		    AT_SYMLINK_FOLLOW))
		return 0;
	if (errno == EEXIST && !over)
		return -EEXIST;
	if (!put->temp) {
		if (errno != EEXIST)
			return -errno;
		put->temp = temp_name(dir);
		if (!put->temp)
			return -ENOMEM;
		if (linkat(AT_FDCWD, proc, AT_FDCWD, put->temp,
			   AT_SYMLINK_FOLLOW))
			return -errno;
	}
	if (rename(put->temp, put->path))
		return -errno;
	free(put->temp);
	put->temp = NULL;
	return 0;
}

static int file_put(const char *url, const void *buf, size_t len, u64 ubytes,
		    bool over, struct error *e);

static int commit(struct object_put *put, u64 bytes, u64 ubytes, bool over,
		  struct error *e)
{
	char *dir = path_parent(put->path), *side = NULL, text[24];
	struct stat st;
	int err;

	if (!dir) {
		err = no_memory(e);
		goto out;
	}
	if (fstat(put->fd, &st) || fsync(put->fd)) {
		err = error_set(e, -errno, "%s: %m", put->url);
		goto out;
	}
	if ((u64)st.st_size != bytes) {
		err = error_set(e, -EIO,
				"%s: %llu bytes were written, %llu were meant",
				put->url, (unsigned long long)st.st_size,
				(unsigned long long)bytes);
		goto out;
	}
	err = make_dirs(dir);
	if (!err)
		err = put_name(put, dir, over);
	if (!err)
		err = sync_dir(dir);
	if (err) {
		error_set(e, err, "%s: %s", put->url, strerror(-err));
		goto out;
	}
	if (ubytes != ~0ULL) {
		side = path_join(put->url, SIDECAR);
		snprintf(text, sizeof(text), "%llu",
			 (unsigned long long)ubytes);
		err = side ? file_put(side, text, strlen(text), ~0ULL, true,
				      e) :
			     no_memory(e);
	}
out:
	free(side);
	free(dir);
	put_free(put);
	return err;
}

static int file_put_commit(struct object_put *put, u64 bytes, u64 ubytes,
			   struct error *e)
{
	return commit(put, bytes, ubytes, false, e);
}

static void file_put_abort(struct object_put *put)
{
	put_free(put);
}

static int file_put(const char *url, const void *buf, size_t len, u64 ubytes,
		    bool over, struct error *e)
{
	struct object_put *put;
	int err;

	err = file_put_begin(url, ubytes, &put, e);
	if (err)
		return err;
	err = file_put_part(put, 0, buf, len, e);
	if (err) {
		file_put_abort(put);
		return err;
	}
	return commit(put, len, ubytes, over, e);
}

static int file_delete(const char *url, struct error *e)
{
	char *path = path_from(url, e), *side, *dir;
	int err = 0;

	if (!path)
		return -EINVAL;
	side = path_join(path, SIDECAR);
	dir = path_parent(path);
	if (!side || !dir)
		err = no_memory(e);
	else if (unlink(side) && errno != ENOENT)
		err = error_set(e, -errno, "%s" SIDECAR ": %m", url);
	else if (unlink(path))
		err = error_set(e, -errno, "%s: %m", url);
	/* Directories are no objects: the last one out takes it along. */
	if (dir)
		rmdir(dir);
	free(dir);
	free(side);
	free(path);
	return err;
}

/* The next name that does not begin with a dot; NULL: the end, or errno. */
static const char *next_name(DIR *dir)
{
	struct dirent *d;

	do {
		errno = 0;
		d = readdir(dir);
	} while (d && d->d_name[0] == '.');
	return d ? d->d_name : NULL;
}

/* Its files, those that symbolic links lead to included */
static int list_dir(int parent, const char *url, const char *name, time_t now,
		    object_each *each, void *arg, struct error *e)
{
	struct object_entry entry = { .dir = name };
	struct stat st;
	int fd, err = 0;
	DIR *dir;

	fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* Files, and what was removed meanwhile, hold no objects. */
	if (fd < 0 && (errno == ENOTDIR || errno == ENOENT))
		return 0;
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		err = error_set(e, -errno, "%s/%s: %m", url, name);
		if (fd >= 0)
			close(fd);
		return err;
	}
	while (!err) {
		entry.name = next_name(dir);
		if (!entry.name) {
			if (errno)
				err = error_set(e, -errno, "%s/%s: %m", url,
						name);
			break;
		}
		if (fstatat(fd, entry.name, &st, 0)) {
			if (errno != ENOENT)
				err = error_set(e, -errno, "%s/%s/%s: %m", url,
						name, entry.name);
			continue;
		}
		if (!S_ISREG(st.st_mode))
			continue;
		entry.bytes = st.st_size;
		entry.age = now > st.st_mtime ? now - st.st_mtime : 0;
		err = each(arg, &entry, e);
	}
	closedir(dir);
	return err;
}

static int file_list(const char *url, object_each *each, void *arg,
		     struct error *e)
{
	char *path = path_from(url, e);
	time_t now = time(NULL);
	const char *name;
	int err = 0;
	DIR *dir;

	if (!path)
		return -EINVAL;
	dir = opendir(path);
	free(path);
	if (!dir)
		return error_set(e, -errno, "%s: %m", url);
	while (!err) {
		name = next_name(dir);
		if (!name) {
			if (errno)
				err = error_set(e, -errno, "%s: %m", url);
			break;
		}
		err = list_dir(dirfd(dir), url, name, now, each, arg, e);
	}
	closedir(dir);
	return err;
}

const struct object_ops object_file_ops = {
	.scheme = "file",
	.writable = file_writable,
	.stat = file_stat,
	.get_range = file_get_range,
	.put = file_put,
	.put_begin = file_put_begin,
	.put_part = file_put_part,
	.put_commit = file_put_commit,
	.put_abort = file_put_abort,
	.delete = file_delete,
	.list = file_list,
};

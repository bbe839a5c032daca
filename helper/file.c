// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads are synchronous, a piece of each running transfer in a turn of the
 * loop, so that a slow disk delays other objects by a few pieces at most.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"

#define PIECE_BYTES	(256 << 10)

struct reader {
	TAILQ_ENTRY(reader) link;
	struct range *range;
	int fd;
};

struct file {
	struct transport transport;
	struct loop *loop;
	int busy;		/* eventfd, readable while anything is to do */
	TAILQ_HEAD(reader_list, reader) idle;
	struct reader_list running;
	struct reader *pool;
	char path[PATH_MAX];
	u8 piece[PIECE_BYTES];
};

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "file:///path" or "file://localhost/path", %XX decoded; no NUL inside. */
static bool url_path(const char *url, char *path, size_t size)
{
	const char *p = url + strlen("file://");
	size_t n = 0;

	if (!strncasecmp(p, "localhost/", 10))
		p += 9;
	if (*p != '/')
		return false;
	while (*p && n < size - 1) {
		int c = (unsigned char)*p++;

		if (c == '%') {
			int high = hex(p[0]);
			int low = high < 0 ? -1 : hex(p[1]);

			c = low < 0 ? 0 : high << 4 | low;
			if (!c)
				return false;
			p += 2;
		}
		path[n++] = c;
	}
	path[n] = 0;
	return !*p;
}

/* The size, and the entity tag that stands for "the same file as before". */
static int identify(int fd, u64 *size, char *etag, size_t etag_size)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	*size = st.st_size;
	if (S_ISBLK(st.st_mode)) {
		if (ioctl(fd, BLKGETSIZE64, size))
			return -errno;
	} else if (!S_ISREG(st.st_mode)) {
		return -EPROTO;
	}
	snprintf(etag, etag_size, "\"%" PRIx64 "-%" PRIx64 "-%" PRIx64 "\"",
		 (u64)st.st_ino, (u64)st.st_size,
		 (u64)(st.st_mtim.tv_sec * NSEC_PER_SEC + st.st_mtim.tv_nsec));
	return 0;
}

static void set_busy(struct file *f, bool busy)
{
	u64 one = 1;
	ssize_t n;

	/* Neither can fail: the counter is 0 or 1 and goes to the other. */
	n = busy ? write(f->busy, &one, sizeof(one)) :
		   read(f->busy, &one, sizeof(one));
	(void)n;
}

static int file_start(struct transport *t, struct range *range)
{
	struct file *f = (struct file *)t;
	struct reader *r = TAILQ_FIRST(&f->idle);

	if (TAILQ_EMPTY(&f->running))
		set_busy(f, true);
	TAILQ_REMOVE(&f->idle, r, link);
	TAILQ_INSERT_TAIL(&f->running, r, link);
	r->range = range;
	r->fd = -1;
	range->transfer = r;
	return 0;
}

static void file_abort(struct transport *t, struct range *range)
{
	struct reader *r = range->transfer;
	struct file *f = (struct file *)t;

	if (r->fd >= 0)
		close(r->fd);
	TAILQ_REMOVE(&f->running, r, link);
	TAILQ_INSERT_HEAD(&f->idle, r, link);
	if (TAILQ_EMPTY(&f->running))
		set_busy(f, false);
}

static int open_object(struct file *f, struct reader *r, char *why, size_t size)
{
	char etag[LAZYFRAME_VALIDATOR_MAX];
	u64 bytes = 0;
	int err;

	if (!url_path(r->range->url, f->path, sizeof(f->path))) {
		snprintf(why, size, "the file URL has no valid absolute path");
		return -EPROTO;
	}
	/* O_NONBLOCK: a FIFO must not keep open() waiting. */
	r->fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (r->fd < 0) {
		err = -errno;
		snprintf(why, size, "open: %s", strerror(-err));
		switch (err) {
		case -ENOENT:
		case -ENOTDIR:
			return -ENOENT;
		case -EACCES:
		case -EPERM:
			return -EACCES;
		case -EMFILE:
		case -ENFILE:
		case -ENOMEM:
		case -EINTR:
			return -EAGAIN;
		default:
			return -EIO;
		}
	}
	err = identify(r->fd, &bytes, etag, sizeof(etag));
	if (err) {
		snprintf(why, size, "%s", err == -EPROTO ?
			 "neither a regular file nor a block device" :
			 "cannot tell its size");
		return err == -EPROTO ? err : -EIO;
	}
	err = fetch_identity(r->range, etag, bytes, why, size);
	if (!err && r->range->last >= bytes) {
		snprintf(why, size, "the file has %" PRIu64 " bytes only",
			 bytes);
		return -EPROTO;
	}
	return err;
}

/* Return: 0 more to do, 1 all bytes were read, or a negative errno. */
static int read_piece(struct file *f, struct reader *r, char *why, size_t size)
{
	struct range *range = r->range;
	u64 len = range->last + 1 - range->pos;
	ssize_t n;
	int err;

	if (r->fd < 0) {
		err = open_object(f, r, why, size);
		if (err)
			return err;
	}
	n = pread(r->fd, f->piece, len < PIECE_BYTES ? len : PIECE_BYTES,
		  range->pos);
	if (n < 0 && errno == EINTR)
		return 0;
	if (n <= 0) {
		/*
		 * The file is as long as it was when the range was cut: a
		 * short read means that it is being changed right now.
		 */
		err = n < 0 ? -errno : 0;
		snprintf(why, size, "read at %" PRIu64 ": %s", range->pos,
			 err ? strerror(-err) : "end of file");
		return err == -EIO ? err : -EAGAIN;
	}
	err = fetch_bytes(range, f->piece, n);
	if (err)
		return err;
	return range->pos > range->last;
}

static void on_busy(void *arg, int fd, u32 events)
{
	struct file *f = arg;
	struct reader *r, *next;

	(void)fd;
	(void)events;
	for (r = TAILQ_FIRST(&f->running); r; r = next) {
		char why[128] = "";
		int ret = read_piece(f, r, why, sizeof(why));

		next = TAILQ_NEXT(r, link);
		if (!ret)
			continue;
		file_abort(&f->transport, r->range);
		fetch_done(r->range, ret < 0 ? ret : 0, why, 0);
	}
}

struct transport *file_new(struct loop *loop, unsigned int connections)
{
	static const char *const schemes[] = { "file", NULL };
	unsigned int i, n = fetch_transfers(connections);
	struct file *f = calloc(1, sizeof(*f));
	int err;

	if (!f)
		return NULL;
	f->transport.schemes = schemes;
	f->transport.start = file_start;
	f->transport.abort = file_abort;
	f->loop = loop;
	TAILQ_INIT(&f->idle);
	TAILQ_INIT(&f->running);
	f->busy = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	f->pool = calloc(n, sizeof(*f->pool));
	if (f->busy < 0 || !f->pool)
		goto fail;
	err = loop_watch(loop, f->busy, EPOLLIN, on_busy, f);
	if (err) {
		errno = -err;
		goto fail;
	}
	for (i = 0; i < n; i++)
		TAILQ_INSERT_TAIL(&f->idle, &f->pool[i], link);
	return &f->transport;
fail:
	file_free(&f->transport);
	return NULL;
}

void file_free(struct transport *t)
{
	struct file *f = (struct file *)t;

	if (f->busy >= 0) {
		loop_unwatch(f->loop, f->busy);
		close(f->busy);
	}
	free(f->pool);
	free(f);
}

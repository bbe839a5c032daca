// SPDX-License-Identifier: GPL-2.0-only
/*
 * lazyframe build: an image file or block device becomes a layer and a
 * header, over nothing or over a parent.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd.h"
#include "interrupt.h"
#include "newlayer.h"

#define BLOCK		LF_META_BLOCK
/* What a file in more pieces has behind them is read, holes and all. */
#define MAX_CHANGES	(256U << 10)

enum { EXIT_USAGE = 2 };

struct build {
	struct newlayer layer;
	const char *image;
	int fd;
	u64 bytes;
	struct image *parent;
	struct newlayer_change *change;
	size_t room;
};

static u64 block_down(u64 n)
{
	return n - n % BLOCK;
}

static u64 block_up(u64 n)
{
	return block_down(n + BLOCK - 1);
}

/*
 * Where the data at or behind @off begins and ends, in whole blocks. Devices
 * and some file systems cannot tell: then all of it is data. @start is the
 * image's size where no more data comes.
 */
static int find_data(const struct build *b, u64 off, u64 *start, u64 *end,
		     struct error *e)
{
	off_t data, hole;

	data = lseek(b->fd, off, SEEK_DATA);
	if (data < 0 && errno == ENXIO) {
		*start = *end = b->bytes;
		return 0;
	}
	if (data < 0 && errno != EINVAL && errno != EOPNOTSUPP)
		return error_set(e, -errno, "%s: looking for holes: %m",
				 b->image);
	if (data < 0) {
		*start = off;
		*end = b->bytes;
		return 0;
	}
	hole = lseek(b->fd, data, SEEK_HOLE);
	if (hole < 0)
		return error_set(e, -errno, "%s: looking for holes: %m",
				 b->image);
	*start = block_down(data);
	if (*start < off)
		*start = off;
	*end = block_up(hole);
	if (*end > b->bytes)
		*end = b->bytes;
	if (*start > *end)
		*start = *end;
	return 0;
}

static int add_change(struct build *b, u64 start, u64 end,
		      enum newlayer_kind kind, struct error *e)
{
	struct newlayer *n = &b->layer;
	struct newlayer_change *change = b->change;

	if (start == end)
		return 0;
	if (n->changes == b->room) {
		size_t room = b->room ? 2 * b->room : 64;

		change = reallocarray(change, room, sizeof(*change));
		if (!change)
			return no_memory(e);
		b->change = change;
		b->room = room;
	}
	change[n->changes++] = (struct newlayer_change){
		.start = start,
		.length = end - start,
		.kind = kind,
	};
	n->change = change;
	return 0;
}

/* Everything may differ from the parent. */
static int find_changes(struct build *b, struct error *e)
{
	u64 start = 0, end = 0, at = 0;
	int err = 0;

	while (!err && at < b->bytes) {
		if (b->layer.changes < MAX_CHANGES) {
			err = find_data(b, at, &start, &end, e);
		} else {
			start = at;
			end = b->bytes;
		}
		if (!err)
			err = add_change(b, at, start, NEWLAYER_ZERO, e);
		if (!err)
			err = add_change(b, start, end, NEWLAYER_DATA, e);
		at = end;
	}
	return err;
}

static int open_image(struct build *b, struct error *e)
{
	struct stat st;

	b->fd = open(b->image, O_RDONLY | O_CLOEXEC);
	if (b->fd < 0 || fstat(b->fd, &st))
		return error_set(e, -errno, "%s: %m", b->image);
	if (S_ISREG(st.st_mode)) {
		b->bytes = st.st_size;
	} else if (S_ISBLK(st.st_mode)) {
		if (ioctl(b->fd, BLKGETSIZE64, &b->bytes))
			return error_set(e, -errno,
					 "%s: asking for the size: %m",
					 b->image);
	} else {
		return error_set(e, -EINVAL,
				 "%s: neither a regular file nor a block device",
				 b->image);
	}
	if (!b->bytes)
		return error_set(e, -EINVAL, "%s: the image is empty",
				 b->image);
	if (b->bytes > LF_MAX_IMAGE)
		return error_set(e, -EFBIG,
				 "%s: the image is larger than %llu TiB",
				 b->image, LF_MAX_IMAGE >> 40);
	b->layer.bytes = b->bytes;
	posix_fadvise(b->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	return find_changes(b, e);
}

static int read_image(void *arg, u64 off, void *buf, size_t bytes,
		      struct error *e)
{
	struct build *b = arg;
	ssize_t n;
	int err;

	while (bytes) {
		n = pread(b->fd, buf, bytes, off);
		if (n < 0 && errno == EINTR) {
			err = interrupt_check(e);
			if (err)
				return err;
			continue;
		}
		if (n < 0)
			return error_set(e, -errno, "%s: reading at %llu: %m",
					 b->image, (unsigned long long)off);
		if (!n)
			return error_set(e, -EIO,
					 "%s: became shorter while it was read",
					 b->image);
		buf = (u8 *)buf + n;
		off += n;
		bytes -= n;
	}
	return 0;
}

/* What was read is an image only if nobody cut or extended it meanwhile. */
static int same_size(void *arg, struct error *e)
{
	struct build *b = arg;
	struct stat st;

	if (fstat(b->fd, &st))
		return error_set(e, -errno, "%s: %m", b->image);
	if (S_ISREG(st.st_mode) && (u64)st.st_size != b->bytes)
		return error_set(e, -EIO,
				 "%s: its size changed from %llu to %llu bytes while it was read; take a copy or stop the writer",
				 b->image, (unsigned long long)b->bytes,
				 (unsigned long long)st.st_size);
	return 0;
}

static void usage(FILE *out)
{
	fputs("Usage: lazyframe build [OPTION]... IMAGE URL\n"
	      "\n"
	      "Store IMAGE, a file or block device, below URL (file:///directory) and\n"
	      "print the URL of its header.\n"
	      "\n"
	      "  -p, --parent URL           store only what differs from this image\n"
	      NEWLAYER_HELP
	      "  -n, --name NAME            of the objects, default the parent's name, or\n"
	      "                             IMAGE's last part\n"
	      "  -h, --help\n", out);
}

/* Return: 0, 1 for --help, or -EINVAL. */
static int parse_options(struct build *b, int argc, char **argv,
			 struct error *e)
{
	static const struct option options[] = {
		NEWLAYER_OPTIONS,
		{ "parent", required_argument, NULL, 'p' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	const char *level = NULL, *slash;
	struct newlayer *n = &b->layer;
	int c, err;

	while ((c = getopt_long(argc, argv, NEWLAYER_SHORT_OPTIONS "p:",
				options, NULL)) != -1) {
		err = newlayer_option(n, c, optarg, &level, e);
		if (err < 0)
			return err;
		if (!err)
			continue;
		if (c == 'h')
			return 1;
		if (c != 'p')
			return error_set(e, -EINVAL,
					 "see lazyframe build --help");
		n->parent_url = optarg;
	}
	if (argc - optind != 2)
		return error_set(e, -EINVAL,
				 "wants IMAGE and URL; see lazyframe build --help");
	b->image = argv[optind];
	n->url = argv[optind + 1];
	if (!n->name && !n->parent_url) {
		slash = strrchr(b->image, '/');
		n->name = slash ? slash + 1 : b->image;
	}
	return newlayer_options_done(n, codec_by_name("zstd"), level, e);
}

int cmd_build(int argc, char **argv)
{
	struct newlayer_result result = { };
	struct build b = { .fd = -1 };
	struct error e;
	int err;

	newlayer_defaults(&b.layer);
	b.layer.what = "build";
	b.layer.dedup = true;
	b.layer.read = read_image;
	b.layer.finish = same_size;
	b.layer.arg = &b;
	err = parse_options(&b, argc, argv, &e);
	if (err == 1) {
		usage(stdout);
		return 0;
	}
	if (err) {
		fprintf(stderr, "lazyframe build: %s\n", e.text);
		return EXIT_USAGE;
	}

	if (b.layer.parent_url)
		err = image_open(b.layer.parent_url, &b.parent, &e);
	b.layer.parent = b.parent;
	if (!err)
		err = open_image(&b, &e);
	if (!err)
		err = newlayer_write(&b.layer, &result, &e);
	if (err)
		fprintf(stderr, "lazyframe build: %s\n", e.text);
	else
		newlayer_report(&b.layer, &result);
	newlayer_result_free(&result);
	image_free(b.parent);
	free(b.change);
	if (b.fd >= 0)
		close(b.fd);
	return err ? 1 : 0;
}

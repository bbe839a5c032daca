// SPDX-License-Identifier: GPL-2.0-only
/*
 * lazyframe build: an image file or block device becomes a layer and a
 * header.
 *
 *	read_batch()	one thread reads the image, skips holes, drops zero blocks
 *			and packs the rest into U space
 *	encode_batch()	some threads cut it into frames and compress them
 *	store_batch()	one thread, in order: SHA-256, table, data object
 *
 * Until the header has its name nothing that readers look for exists. A
 * failure before that takes the data object away again; after a crash an object
 * that no header names may remain under a UUID that is never used again.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/fs.h>
#include <linux/lazyframe.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd.h"
#include "codec.h"
#include "header.h"
#include "object.h"
#include "pipeline.h"
#include "progress.h"
#include "seektable.h"
#include "sha256.h"
#include "units.h"
#include "uuid.h"

#define BLOCK		4096U
#define FRAME_DEFAULT	(128U << 10)
#define BATCH_BYTES	(1024U << 10)	/* of U space, or one frame */
#define MAX_THREADS	256U
#define MAX_NAME	200		/* with suffixes it is a file name */
/*
 * A header with a table of HEADER_MAX_FRAMES holds this many mappings and
 * stays below HEADER_MAX_BYTES. An image in finer pieces keeps its later zero
 * blocks as data.
 */
#ifndef MAX_MAPPINGS
#define MAX_MAPPINGS	(HEADER_MAX_MAPPINGS / 2)
#endif

enum { EXIT_USAGE = 2 };

/**
 * struct batch - some frames on their way through the pipeline
 * @u: stored bytes, @ubytes of them; only the image's last batch ends elsewhere
 *     than at a frame's end
 * @c: encoded frames, back to back, @cbytes
 * @frame: @frames entries, ustart and cstart relative to the batch
 */
struct batch {
	u8 *u;
	u8 *c;
	struct lf_frame_pos *frame;
	size_t ubytes;
	size_t cbytes;
	u32 frames;
};

struct build {
	/* what is asked for */
	const char *image;
	const char *prefix;
	const char *name;
	const struct codec *codec;
	int level;
	u32 frame_bytes;
	unsigned int threads;
	bool dry_run;
	bool quiet;

	/* the image */
	int fd;
	u64 bytes;
	u64 data_bytes;			/* without holes */
	u64 pos;			/* read so far */
	u64 data_end;			/* of the piece without holes at @pos */
	u64 data_read;

	/* what it becomes */
	u8 uuid[16];
	struct header_mapping *mapping;
	size_t mappings;
	size_t mappings_room;
	u64 packed;			/* U bytes in all batches so far */
	struct lf_frame_pos *frame;
	size_t frames;
	size_t frames_room;
	u64 ubytes;			/* U bytes stored */
	u64 cbytes;			/* C bytes stored */
	u64 header_bytes;
	u8 sum[SHA256_BYTES];

	/* what does it */
	const struct object_ops *ops;
	char *data_url;
	char *header_url;
	struct object_put *put;
	struct sha256 *sha;
	struct codec_encoder **encoder;	/* one a thread */
	struct batch *batch;
	void **job;
	unsigned int jobs;
	u32 batch_bytes;
	struct progress progress;
};

static atomic_int interrupted;

static void on_signal(int sig)
{
	interrupted = sig;
}

static void catch_signals(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	/* No SA_RESTART: a read of a slow disk ends early. */
	struct sigaction sa = { .sa_handler = on_signal }, old;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(signals); i++) {
		/* nohup and a shell's background jobs want it to be so. */
		if (!sigaction(signals[i], NULL, &old) &&
		    old.sa_handler == SIG_IGN)
			continue;
		sigaction(signals[i], &sa, NULL);
	}
}

static u64 block_down(u64 n)
{
	return n - n % BLOCK;
}

static u64 block_up(u64 n)
{
	return block_down(n + BLOCK - 1);
}

static bool all_zero(const u8 *p, size_t bytes)
{
	return !*p && !memcmp(p, p + 1, bytes - 1);
}

/* Room for one more; growth by doubling. NULL: no memory, @array stays. */
static void *grow(void *array, size_t *room, size_t used, size_t entry)
{
	size_t n = *room ? 2 * *room : 256;
	void *p;

	if (array && used < *room)
		return array;
	p = reallocarray(array, n, entry);
	if (p)
		*room = n;
	return p;
}

/*
 * The next @length bytes of the image are zero, or are the bytes at the end
 * of what is packed. Counts whole blocks: what overhangs the image at its end
 * is allowed for.
 */
static int map(struct build *b, u64 start, u64 length, bool zero,
	       struct error *e)
{
	struct header_mapping *m;

	length = block_up(length);
	m = b->mappings ? &b->mapping[b->mappings - 1] : NULL;
	if (m && uuid_is_nil(m->uuid) == zero) {
		m->length += length;
		return 0;
	}
	m = grow(b->mapping, &b->mappings_room, b->mappings, sizeof(*m));
	if (!m)
		return error_set(e, -ENOMEM, "no memory for mappings");
	b->mapping = m;
	m += b->mappings++;
	memset(m, 0, sizeof(*m));
	m->start = start;
	m->length = length;
	if (!zero) {
		memcpy(m->uuid, b->uuid, sizeof(m->uuid));
		m->storage = b->packed;
	}
	return 0;
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

static int count_data(struct build *b, struct error *e)
{
	u64 start = 0, end = 0;
	int err;

	while (end < b->bytes) {
		err = find_data(b, end, &start, &end, e);
		if (err)
			return err;
		b->data_bytes += end - start;
	}
	return 0;
}

/* The image is at least @bytes longer than @b->pos, unless it shrank. */
static int read_image(struct build *b, u8 *buf, size_t bytes, struct error *e)
{
	u64 off = b->pos;
	ssize_t n;

	while (bytes) {
		if (interrupted)
			return error_set(e, -EINTR,
					 "stopped by signal %d, nothing was stored",
					 interrupted);
		n = pread(b->fd, buf, bytes, off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_set(e, -errno, "%s: reading at %llu: %m",
					 b->image, (unsigned long long)off);
		if (!n)
			return error_set(e, -EIO,
					 "%s: became shorter while it was read",
					 b->image);
		buf += n;
		off += n;
		bytes -= n;
	}
	return 0;
}

/* Drop the zero blocks of what was just read to the end of the batch. */
static int pack(struct build *b, struct batch *batch, size_t bytes,
		struct error *e)
{
	u8 *from = batch->u + batch->ubytes;
	int err;

	while (bytes) {
		size_t n = bytes < BLOCK ? bytes : BLOCK;
		bool zero = b->mappings < MAX_MAPPINGS && all_zero(from, n);

		err = map(b, b->pos, n, zero, e);
		if (err)
			return err;
		if (!zero) {
			u8 *to = batch->u + batch->ubytes;

			if (to != from)
				memmove(to, from, n);
			batch->ubytes += n;
			b->packed += n;
		}
		from += n;
		b->pos += n;
		b->data_read += n;
		bytes -= n;
	}
	return 0;
}

static int read_batch(void *ctx, void *job, struct error *e)
{
	struct batch *batch = job;
	struct build *b = ctx;
	int err;

	batch->ubytes = 0;
	while (batch->ubytes < b->batch_bytes && b->pos < b->bytes) {
		u64 start = 0, left;

		if (b->pos >= b->data_end) {
			start = b->pos;
			b->data_end = b->bytes;
			err = 0;
			if (b->mappings < MAX_MAPPINGS)
				err = find_data(b, b->pos, &start,
						&b->data_end, e);
			if (!err && start > b->pos)
				err = map(b, b->pos, start - b->pos, true, e);
			if (err)
				return err;
			b->pos = start;
			continue;
		}
		left = b->data_end - b->pos;
		if (left > b->batch_bytes - batch->ubytes)
			left = b->batch_bytes - batch->ubytes;
		err = read_image(b, batch->u + batch->ubytes, left, e);
		if (!err)
			err = pack(b, batch, left, e);
		if (err)
			return err;
		progress_update(&b->progress, b->data_read);
	}
	return batch->ubytes > 0;
}

static int encode_batch(void *ctx, unsigned int thread, void *job,
			struct error *e)
{
	struct batch *batch = job;
	struct build *b = ctx;
	size_t off, n, cbytes;
	int err;

	batch->cbytes = 0;
	batch->frames = 0;
	if (b->codec->id == LAZYFRAME_CODEC_NONE)
		return 0;
	for (off = 0; off < batch->ubytes; off += n) {
		n = batch->ubytes - off;
		if (n > b->frame_bytes)
			n = b->frame_bytes;
		err = codec_encode(b->encoder[thread],
				   batch->c + batch->cbytes, batch->u + off, n,
				   &cbytes, e);
		if (err)
			return err;
		batch->frame[batch->frames++] = (struct lf_frame_pos){
			.ustart = off,
			.cstart = batch->cbytes,
			.ubytes = n,
			.cbytes = cbytes,
			.sum = XXH64(batch->u + off, n, 0),
			.has_sum = true,
		};
		batch->cbytes += cbytes;
	}
	return 0;
}

static int store_batch(void *ctx, void *job, struct error *e)
{
	struct batch *batch = job;
	struct build *b = ctx;
	bool raw = b->codec->id == LAZYFRAME_CODEC_NONE;
	size_t bytes = raw ? batch->ubytes : batch->cbytes;
	u32 i;
	int err;

	if (!raw)
		sha256_add(b->sha, batch->u, batch->ubytes);
	for (i = 0; i < batch->frames; i++) {
		struct lf_frame_pos *pos;

		/* Only where holes became data, see MAX_MAPPINGS. */
		if (b->frames == LF_MAX_FRAMES)
			return error_set(e, -EFBIG,
					 "%s: more than %u frames; use a larger --frame-size",
					 b->image, LF_MAX_FRAMES);
		pos = grow(b->frame, &b->frames_room, b->frames, sizeof(*pos));
		if (!pos)
			return error_set(e, -ENOMEM, "no memory for frames");
		b->frame = pos;
		pos += b->frames;
		*pos = batch->frame[i];
		pos->ustart += b->ubytes;
		pos->cstart += b->cbytes;
		pos->index = b->frames++;
	}
	if (b->put) {
		err = b->ops->put_part(b->put, b->cbytes,
				       raw ? batch->u : batch->c, bytes, e);
		if (err)
			return err;
	}
	b->ubytes += batch->ubytes;
	b->cbytes += bytes;
	return 0;
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
	posix_fadvise(b->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	return count_data(b, e);
}

/* What was read is an image only if nobody cut or extended it meanwhile. */
static int same_size(const struct build *b, struct error *e)
{
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

/* A layer has a limited number of frames; no image needs more of 16 MiB. */
static void fit_frame_bytes(struct build *b)
{
	u64 blocks = block_up(b->data_bytes) / BLOCK;
	u32 asked = b->frame_bytes;
	char was[UNITS_TEXT], is[UNITS_TEXT];

	if (b->codec->id == LAZYFRAME_CODEC_NONE)
		return;
	while (blocks > (u64)LF_MAX_FRAMES * (b->frame_bytes / BLOCK)) {
		b->frame_bytes *= 2;
		if (b->frame_bytes > LAZYFRAME_MAX_FRAME)
			b->frame_bytes = LAZYFRAME_MAX_FRAME;
	}
	if (b->frame_bytes != asked && !b->quiet)
		fprintf(stderr,
			"lazyframe build: frames of %s instead of %s, as a layer has at most %u\n",
			units_text(b->frame_bytes, is),
			units_text(asked, was), LF_MAX_FRAMES);
}

static int make_urls(struct build *b, struct error *e)
{
	size_t prefix = strlen(b->prefix);
	char uuid[UUID_TEXT], *name;
	int err;

	err = uuid_random(b->uuid);
	if (err)
		return error_set(e, err, "no random numbers: %s",
				 strerror(-err));
	uuid_text(b->uuid, uuid);
	/* "file:///" is a directory too. */
	while (prefix && b->prefix[prefix - 1] == '/')
		prefix--;
	name = object_url_escape(b->name);
	if (!name ||
	    asprintf(&b->data_url, "%.*s/%s/%s%s", (int)prefix, b->prefix,
		     uuid, name, b->codec->suffix) < 0 ||
	    asprintf(&b->header_url, "%.*s/%s/%s.header", (int)prefix,
		     b->prefix, uuid, name) < 0)
		err = error_set(e, -ENOMEM, "out of memory");
	else if (strlen(b->data_url) >= LAZYFRAME_LOCATOR_MAX)
		err = error_set(e, -ENAMETOOLONG, "%s: longer than %u bytes",
				b->data_url, LAZYFRAME_LOCATOR_MAX - 1);
	free(name);
	return err;
}

static int set_up(struct build *b, struct error *e)
{
	bool raw = b->codec->id == LAZYFRAME_CODEC_NONE;
	u32 frames, i;
	size_t room;
	int err;

	b->batch_bytes = b->frame_bytes;
	if (b->frame_bytes < BATCH_BYTES)
		b->batch_bytes = BATCH_BYTES - BATCH_BYTES % b->frame_bytes;
	frames = b->batch_bytes / b->frame_bytes;

	err = sha256_new(&b->sha, e);
	if (err)
		return err;
	b->encoder = calloc(b->threads, sizeof(*b->encoder));
	b->jobs = 2 * b->threads + 1;
	b->batch = calloc(b->jobs, sizeof(*b->batch));
	b->job = calloc(b->jobs, sizeof(*b->job));
	if (!b->encoder || !b->batch || !b->job)
		return error_set(e, -ENOMEM, "out of memory");
	for (i = 0; !raw && i < b->threads; i++) {
		err = codec_encoder_new(b->codec, b->level, b->frame_bytes,
					&b->encoder[i], e);
		if (err)
			return err;
	}
	room = raw ? 0 : frames * codec_bound(b->encoder[0], b->frame_bytes);
	for (i = 0; i < b->jobs; i++) {
		struct batch *batch = &b->batch[i];

		b->job[i] = batch;
		batch->u = malloc(b->batch_bytes);
		batch->c = raw ? NULL : malloc(room);
		batch->frame = calloc(frames, sizeof(*batch->frame));
		if (!batch->u || (!raw && !batch->c) || !batch->frame)
			return error_set(e, -ENOMEM,
					 "no memory for frames of %u bytes in %u threads",
					 b->frame_bytes, b->threads);
	}
	return 0;
}

static void tear_down(struct build *b)
{
	unsigned int i;

	if (b->put)
		b->ops->put_abort(b->put);
	for (i = 0; b->batch && i < b->jobs; i++) {
		free(b->batch[i].u);
		free(b->batch[i].c);
		free(b->batch[i].frame);
	}
	for (i = 0; b->encoder && i < b->threads; i++)
		codec_encoder_free(b->encoder[i]);
	free(b->batch);
	free(b->job);
	free(b->encoder);
	sha256_free(b->sha);
	free(b->frame);
	free(b->mapping);
	free(b->data_url);
	free(b->header_url);
	if (b->fd >= 0)
		close(b->fd);
}

/* The table goes behind the frames; then the data object is complete. */
static int finish_data(struct build *b, struct error *e)
{
	struct object_put *put = b->put;
	u64 bytes = 0;
	void *table;
	int err = 0;

	sha256_get(b->sha, b->sum);
	if (b->codec->id != LAZYFRAME_CODEC_NONE) {
		bytes = seektable_bytes(b->frames);
		table = malloc(bytes);
		if (!table)
			return error_set(e, -ENOMEM, "out of memory");
		seektable_write(b->frame, b->frames, table);
		if (put)
			err = b->ops->put_part(put, b->cbytes, table, bytes,
					       e);
		free(table);
		if (err)
			return err;
	}
	b->cbytes += bytes;
	if (!put)
		return 0;
	/* Whatever comes of it, it is not ours to abort any more. */
	b->put = NULL;
	return b->ops->put_commit(put, b->cbytes,
				  bytes ? b->ubytes : ~0ULL, e);
}

static int store_header(struct build *b, struct error *e)
{
	bool raw = b->codec->id == LAZYFRAME_CODEC_NONE;
	struct header_layer layer = {
		.ubytes = b->ubytes,
		.codec = b->codec->id,
		.frames = b->frames,
		.frame = b->frame,
	};
	struct header header = {
		.version = raw ? 3 : 4,
		.block_size = BLOCK,
		.size = b->bytes,
		.layers = raw || !b->frames ? 0 : 1,
		.layer = &layer,
		.mappings = b->mappings,
		.mapping = b->mapping,
	};
	size_t bytes;
	void *data;
	int err;

	memcpy(header.uuid, b->uuid, sizeof(header.uuid));
	memcpy(header.base_uuid, b->uuid, sizeof(header.base_uuid));
	memcpy(layer.uuid, b->uuid, sizeof(layer.uuid));
	memcpy(layer.sha256, b->sum, sizeof(layer.sha256));
	err = header_write(&header, &data, &bytes, e);
	if (err)
		return err;
	b->header_bytes = bytes;
	if (!b->dry_run)
		err = b->ops->put(b->header_url, data, bytes, ~0ULL, e);
	free(data);
	return err;
}

static int build(struct build *b, struct error *e)
{
	static const struct pipeline stages = {
		.produce = read_batch,
		.work = encode_batch,
		.consume = store_batch,
	};
	int err;

	if (!b->dry_run) {
		err = b->ops->put_begin(b->data_url, ~0ULL, &b->put, e);
		if (err)
			return err;
	}
	progress_start(&b->progress, "build", b->data_bytes, b->quiet);
	err = pipeline_run(&stages, b, b->job, b->jobs, b->threads, e);
	progress_end(&b->progress);
	if (!err)
		err = same_size(b, e);
	if (err)
		return err;
	err = finish_data(b, e);
	if (!err && interrupted)
		err = error_set(e, -EINTR,
				"stopped by signal %d, nothing was stored",
				interrupted);
	if (!err)
		err = store_header(b, e);
	/* The first error is the one to tell; what remains is harmless. */
	if (err && !b->dry_run)
		b->ops->delete(b->data_url, NULL);
	return err;
}

static void summary(const struct build *b)
{
	char total[UNITS_TEXT], zero[UNITS_TEXT], stored[UNITS_TEXT];
	char data[UNITS_TEXT], frame[UNITS_TEXT], rate[UNITS_TEXT];
	double seconds = progress_seconds(&b->progress);

	fprintf(stderr, "image   %s, %s of it zero\n",
		units_text(b->bytes, total),
		units_text(b->bytes - b->ubytes, zero));
	fprintf(stderr, "stored  %s as %s (%.2fx)",
		units_text(b->ubytes, data), units_text(b->cbytes, stored),
		b->cbytes ? (double)b->ubytes / b->cbytes : 1.0);
	if (b->codec->level_max)
		fprintf(stderr, ", %s level %d, %zu frames of %s",
			b->codec->name, b->level, b->frames,
			units_text(b->frame_bytes, frame));
	else
		fputs(", raw", stderr);
	fprintf(stderr, "\nheader  %zu mappings in %llu bytes\n", b->mappings,
		(unsigned long long)b->header_bytes);
	fprintf(stderr, "time    %.2f s, %s/s\n", seconds,
		units_text(seconds > 0 ? b->bytes / seconds : 0, rate));
}

static void result(const struct build *b)
{
	if (!b->dry_run) {
		puts(b->header_url);
		return;
	}
	printf("would store %s: %llu bytes\n", b->data_url,
	       (unsigned long long)b->cbytes);
	printf("would store %s: %llu bytes\n", b->header_url,
	       (unsigned long long)b->header_bytes);
}

static void usage(FILE *out)
{
	fputs("Usage: lazyframe build [OPTION]... IMAGE URL\n"
	      "\n"
	      "Store IMAGE, a file or block device, below URL (file:///directory) and\n"
	      "print the URL of its header.\n"
	      "\n"
	      "  -c, --codec zstd|lz4|none  default zstd\n"
	      "  -l, --level N              zstd 1 to 19, default 1; lz4 1 to 12, default 1\n"
	      "  -f, --frame-size N[K|M]    a multiple of 4K, up to 16M, default 128K\n"
	      "  -n, --name NAME            of the objects, default IMAGE's last part\n"
	      "  -t, --threads N            default: one a CPU\n"
	      "      --dry-run              compress, but store nothing\n"
	      "  -q, --quiet                no progress, no summary\n"
	      "  -h, --help\n", out);
}

static bool number(const char *text, long min, long max, long *n)
{
	char *end;

	errno = 0;
	*n = strtol(text, &end, 10);
	return !errno && end != text && !*end && *n >= min && *n <= max;
}

static bool name_ok(const char *name)
{
	const unsigned char *p = (const unsigned char *)name;

	if (!*p || strlen(name) > MAX_NAME || !strcmp(name, ".") ||
	    !strcmp(name, ".."))
		return false;
	for (; *p; p++)
		if (*p < 0x20 || *p == 0x7f || *p == '/')
			return false;
	return true;
}

/* Return: 0, 1 for --help, or -EINVAL. */
static int parse_options(struct build *b, int argc, char **argv,
			 struct error *e)
{
	static const struct option options[] = {
		{ "codec", required_argument, NULL, 'c' },
		{ "level", required_argument, NULL, 'l' },
		{ "frame-size", required_argument, NULL, 'f' },
		{ "name", required_argument, NULL, 'n' },
		{ "threads", required_argument, NULL, 't' },
		{ "dry-run", no_argument, NULL, 'd' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	const char *codec = "zstd", *level = NULL, *slash;
	long n;
	u64 size;
	int c;

	while ((c = getopt_long(argc, argv, "c:l:f:n:t:qh", options,
				NULL)) != -1) {
		switch (c) {
		case 'c':
			codec = optarg;
			break;
		case 'l':
			level = optarg;
			break;
		case 'f':
			if (!units_parse(optarg, &size) || size < BLOCK ||
			    size > LAZYFRAME_MAX_FRAME || size % BLOCK)
				return error_set(e, -EINVAL,
						 "frame size %s: not a multiple of 4K between 4K and 16M",
						 optarg);
			b->frame_bytes = size;
			break;
		case 'n':
			b->name = optarg;
			break;
		case 't':
			if (!number(optarg, 1, MAX_THREADS, &n))
				return error_set(e, -EINVAL,
						 "threads %s: not a number from 1 to %u",
						 optarg, MAX_THREADS);
			b->threads = n;
			break;
		case 'd':
			b->dry_run = true;
			break;
		case 'q':
			b->quiet = true;
			break;
		case 'h':
			return 1;
		default:
			return error_set(e, -EINVAL,
					 "see lazyframe build --help");
		}
	}
	if (argc - optind != 2)
		return error_set(e, -EINVAL,
				 "wants IMAGE and URL; see lazyframe build --help");
	b->image = argv[optind];
	b->prefix = argv[optind + 1];

	b->codec = codec_by_name(codec);
	if (!b->codec)
		return error_set(e, -EINVAL,
				 "codec %s: unknown; known are zstd, lz4 and none",
				 codec);
	b->level = b->codec->level;
	if (level && !b->codec->level_max)
		return error_set(e, -EINVAL, "codec none has no levels");
	if (level) {
		if (!number(level, b->codec->level_min, b->codec->level_max,
			    &n))
			return error_set(e, -EINVAL,
					 "level %s: %s has levels %d to %d",
					 level, b->codec->name,
					 b->codec->level_min,
					 b->codec->level_max);
		b->level = n;
	}
	if (!b->name) {
		slash = strrchr(b->image, '/');
		b->name = slash ? slash + 1 : b->image;
	}
	if (!name_ok(b->name))
		return error_set(e, -EINVAL,
				 "name \"%s\": 1 to %d bytes without slashes and control characters; see --name",
				 b->name, MAX_NAME);
	return 0;
}

static int find_destination(struct build *b, struct error *e)
{
	b->ops = object_ops(b->prefix, e);
	if (!b->ops)
		return -EINVAL;
	if (!b->ops->put)
		return error_set(e, -EROFS,
				 "%s: %s:// can only be read; build into file:/// and copy the objects",
				 b->prefix, b->ops->scheme);
	return b->ops->writable(b->prefix, e);
}

int cmd_build(int argc, char **argv)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct build b = {
		.fd = -1,
		.frame_bytes = FRAME_DEFAULT,
		.threads = cpus < 1 ? 1 : cpus > 64 ? 64 : cpus,
	};
	struct error e;
	int err;

	err = parse_options(&b, argc, argv, &e);
	if (err == 1) {
		usage(stdout);
		return 0;
	}
	if (err) {
		fprintf(stderr, "lazyframe build: %s\n", e.text);
		return EXIT_USAGE;
	}

	err = find_destination(&b, &e);
	if (!err)
		err = open_image(&b, &e);
	if (!err)
		err = make_urls(&b, &e);
	if (!err) {
		fit_frame_bytes(&b);
		err = set_up(&b, &e);
	}
	if (!err) {
		catch_signals();
		err = build(&b, &e);
	}
	if (err) {
		fprintf(stderr, "lazyframe build: %s\n", e.text);
	} else {
		if (!b.quiet)
			summary(&b);
		result(&b);
	}
	tear_down(&b);
	return err ? 1 : 0;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * callers [-s] [-w WORKERS] [-b BLOCK] [-n READS] [-r ROUNDS] [-c COMMAND]
 *	[-m MESSAGE] device NAME TABLE
 * callers [-s] [-w WORKERS] [-b BLOCK] [-n READS] [-r ROUNDS] fetch|decode URL SIZE
 *
 * How long cold reads take. Each round makes everything cold, then WORKERS threads
 * read READS blocks (0: all there are) of a shuffled list at once, worker W those
 * at W, W + WORKERS ... The list is another one in each round, and the same ones
 * in each run. -s: all workers read the blocks of worker 0.
 *
 * device: the mapped device NAME, which is made anew from the line TABLE before
 * each round, behind COMMAND of a shell; direct reads. With the first of them it gets
 * MESSAGE. fetch is what no such device can beat, on the same
 * machine and in the same words: each thread has a connection of its own, which is
 * warm, and asks for just the frame that holds the block (of SIZE bytes of content;
 * URL names a data object with a seek table, or one of raw bytes, whose "frames"
 * have 128 KiB). decode decodes and verifies it as well.
 *
 * Prints a line for each round: milliseconds from the first read's start to the
 * last one's end, average and longest of the reads.
 */
#include <curl/curl.h>
#include <fcntl.h>
#include <libdevmapper.h>
#include <lz4frame.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <linux/fs.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#define NSEC		1000000000ULL
#define RAW_FRAME	(128 << 10)
#define FOOTER_BYTES	9
#define FOOTER_MAGIC	0x8F92EAB1
#define ZSTD_FRAME_MAGIC 0xFD2FB528

struct frame {
	uint64_t u, c;		/* where it begins */
};

struct buffer {
	char *bytes;
	size_t len, size;
};

struct worker {
	pthread_t thread;
	unsigned int number;
	int fd;
	CURL *easy;
	struct buffer got;
	char *decoded;
	char *aligned;
};

static unsigned int workers = 1, rounds = 1;
static uint64_t block = 4096, reads, size;
static bool decodes, same;
static const char *name, *table, *url, *command, *message;
static struct frame *frames;
static uint64_t frame_count;
static uint64_t *list, *took;
static pthread_barrier_t start, end;

static void die(const char *what)
{
	fprintf(stderr, "callers: %s\n", what);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NSEC + t.tv_nsec;
}

/* xorshift64*, so that a run's reads are those of each other run */
static uint64_t draw(uint64_t below)
{
	static uint64_t x = 42;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	return (x * 0x2545F4914F6CDD1DULL >> 16) % below;
}

/* The first @reads of a shuffled list of all blocks */
static void shuffle(uint64_t *blocks)
{
	uint64_t all = size / block, i, j, t;

	for (i = 0; i < all; i++)
		blocks[i] = i;
	for (i = 0; i < reads; i++) {
		j = i + draw(all - i);
		t = blocks[i];
		blocks[i] = blocks[j];
		blocks[j] = t;
		list[i] = blocks[same ? i - i % workers : i] * block;
	}
}

/* The device */

static void dm_run(int type)
{
	struct dm_task *task = dm_task_create(type);
	bool waits = type != DM_DEVICE_TARGET_MSG;
	uint32_t cookie = 0;
	char *params;
	int at = 0;
	unsigned long long first, sectors;
	char target[32];

	if (!task || !dm_task_set_name(task, name))
		die("no device-mapper");
	if (type == DM_DEVICE_CREATE) {
		if (sscanf(table, "%llu %llu %31s %n", &first, &sectors, target,
			   &at) != 3)
			die("the table is no table");
		params = strdup(table + at);
		if (!dm_task_add_target(task, first, sectors, target, params) ||
		    !dm_task_set_ro(task) ||
		    !dm_task_set_add_node(task, DM_ADD_NODE_ON_CREATE))
			die("the table is no table");
		free(params);
		size = sectors << 9;
	}
	if (!waits && (!dm_task_set_sector(task, 0) ||
		       !dm_task_set_message(task, message)))
		die("the message is no message");
	if ((waits && !dm_task_set_cookie(task, &cookie,
					  DM_UDEV_DISABLE_LIBRARY_FALLBACK)) ||
	    !dm_task_run(task))
		die(type == DM_DEVICE_CREATE ? "cannot create the device" :
		    waits ? "cannot remove the device" :
			    "the device does not take the message");
	if (waits)
		dm_udev_wait(cookie);
	dm_task_destroy(task);
}

static void device_new(struct worker *w)
{
	static bool there;
	char path[256];
	unsigned int i;

	for (i = 0; there && i < workers; i++)
		close(w[i].fd);
	if (there)
		dm_run(DM_DEVICE_REMOVE);
	if (command && system(command))
		die("the command fails");
	dm_run(DM_DEVICE_CREATE);
	there = true;
	snprintf(path, sizeof(path), "/dev/mapper/%s", name);
	for (i = 0; i < workers; i++) {
		w[i].fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
		if (w[i].fd < 0)
			die("cannot open the device");
	}
}

/* A client alone */

static size_t keep(char *bytes, size_t one, size_t len, void *arg)
{
	struct buffer *b = arg;

	(void)one;
	if (b->len + len > b->size)
		return 0;
	memcpy(b->bytes + b->len, bytes, len);
	b->len += len;
	return len;
}

static void get(struct worker *w, const char *range)
{
	long status = 0;

	w->got.len = 0;
	if (curl_easy_setopt(w->easy, CURLOPT_RANGE, range) ||
	    curl_easy_perform(w->easy) ||
	    curl_easy_getinfo(w->easy, CURLINFO_RESPONSE_CODE, &status) ||
	    status != 206)
		die("cannot fetch");
}

static void client_new(struct worker *w, size_t most)
{
	w->got.size = most;
	w->got.bytes = malloc(most);
	w->decoded = malloc(16 << 20);
	w->easy = curl_easy_init();
	if (!w->got.bytes || !w->decoded || !w->easy ||
	    curl_easy_setopt(w->easy, CURLOPT_URL, url) ||
	    curl_easy_setopt(w->easy, CURLOPT_BUFFERSIZE, 256L << 10) ||
	    curl_easy_setopt(w->easy, CURLOPT_WRITEFUNCTION, keep) ||
	    curl_easy_setopt(w->easy, CURLOPT_WRITEDATA, &w->got))
		die("no libcurl");
	get(w, "0-0");		/* the connection is warm from here on */
}

static uint32_t le32(const char *at)
{
	const unsigned char *p = (const unsigned char *)at;

	return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
}

/* The seek table at the end of the object */
static void frames_read(struct worker *w)
{
	uint64_t i, u = 0, c = 0, entry;
	const char *at;

	get(w, "0-");
	at = w->got.bytes + w->got.len - FOOTER_BYTES;
	if (w->got.len < FOOTER_BYTES || le32(at + 5) != FOOTER_MAGIC) {
		frame_count = (size + RAW_FRAME - 1) / RAW_FRAME;
		frames = calloc(frame_count + 1, sizeof(*frames));
		for (i = 0; i <= frame_count; i++) {
			frames[i].u = i < frame_count ? i * RAW_FRAME : size;
			frames[i].c = frames[i].u;
		}
		return;
	}
	frame_count = le32(at);
	entry = at[4] & 0x80 ? 12 : 8;
	frames = calloc(frame_count + 1, sizeof(*frames));
	at -= frame_count * entry;
	for (i = 0; i <= frame_count; i++, at += entry) {
		frames[i].u = u;
		frames[i].c = c;
		if (i < frame_count) {
			c += le32(at);
			u += le32(at + 4);
		}
	}
}

static void decode(struct worker *w, size_t len)
{
	static __thread ZSTD_DCtx *zstd;
	static __thread LZ4F_dctx *lz4;
	size_t from = w->got.len, to = len;

	if (w->got.len == len)
		return;
	if (le32(w->got.bytes) == ZSTD_FRAME_MAGIC) {
		if (!zstd)
			zstd = ZSTD_createDCtx();
		if (ZSTD_decompressDCtx(zstd, w->decoded, len, w->got.bytes,
					w->got.len) != len)
			die("a frame does not decode");
		return;
	}
	if (!lz4)
		LZ4F_createDecompressionContext(&lz4, LZ4F_VERSION);
	if (LZ4F_decompress(lz4, w->decoded, &to, w->got.bytes, &from, NULL) ||
	    to != len)
		die("a frame does not decode");
}

static void client_read(struct worker *w, uint64_t at)
{
	uint64_t i = 0, j = frame_count;
	char range[64];

	while (i + 1 < j) {
		uint64_t mid = (i + j) / 2;

		if (frames[mid].u <= at)
			i = mid;
		else
			j = mid;
	}
	snprintf(range, sizeof(range), "%llu-%llu",
		 (unsigned long long)frames[i].c,
		 (unsigned long long)frames[i + 1].c - 1);
	get(w, range);
	if (decodes)
		decode(w, frames[i + 1].u - frames[i].u);
}

/* Both */

static void *work(void *arg)
{
	struct worker *w = arg;
	unsigned int round;
	uint64_t i;

	for (round = 0; round <= rounds; round++) {
		pthread_barrier_wait(&start);
		for (i = w->number; i < reads; i += workers) {
			uint64_t t = now_ns();

			if (url)
				client_read(w, list[i]);
			else if (pread(w->fd, w->aligned, block, list[i]) !=
				 (ssize_t)block)
				die("a read fails");
			took[i] = now_ns() - t;
		}
		pthread_barrier_wait(&end);
	}
	return NULL;
}

static void report(uint64_t all)
{
	uint64_t i, sum = 0, most = 0;

	for (i = 0; i < reads; i++) {
		sum += took[i];
		most = took[i] > most ? took[i] : most;
	}
	printf("%.3f %.3f %.3f\n", all / 1e6, (double)sum / reads / 1e6,
	       most / 1e6);
	fflush(stdout);
}

static void parse(int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "+sw:b:n:r:c:m:")) >= 0) {
		uint64_t n = optarg ? strtoull(optarg, NULL, 10) : 0;

		switch (option) {
		case 's':
			same = true;
			break;
		case 'w':
			workers = n;
			break;
		case 'b':
			block = n;
			break;
		case 'n':
			reads = n;
			break;
		case 'r':
			rounds = n;
			break;
		case 'c':
			command = optarg;
			break;
		case 'm':
			message = optarg;
			break;
		default:
			exit(2);
		}
	}
	argv += optind;
	if (argc - optind != 3 || !workers || !block || !rounds)
		die("usage: callers [-s] [-w WORKERS] [-b BLOCK] [-n READS] [-r ROUNDS] "
		    "[-c COMMAND] [-m MESSAGE] device NAME TABLE | "
		    "fetch URL SIZE | decode URL SIZE");
	if (!strcmp(argv[0], "device")) {
		name = argv[1];
		table = argv[2];
	} else {
		decodes = !strcmp(argv[0], "decode");
		url = argv[1];
		size = strtoull(argv[2], NULL, 10);
	}
}

int main(int argc, char **argv)
{
	struct worker *w;
	unsigned int i, round;
	uint64_t *blocks, t;

	parse(argc, argv);
	w = calloc(workers, sizeof(*w));
	if (!w)
		die("no memory");
	if (!url)
		device_new(w);
	if (!reads || reads > size / block)
		reads = size / block;
	blocks = calloc(size / block, sizeof(*blocks));
	list = calloc(reads, sizeof(*list));
	took = calloc(reads, sizeof(*took));
	if (!blocks || !list || !took)
		die("no memory");
	pthread_barrier_init(&start, NULL, workers + 1);
	pthread_barrier_init(&end, NULL, workers + 1);
	for (i = 0; i < workers; i++) {
		w[i].number = i;
		if (url)
			client_new(&w[i], size + (1 << 20));
		if (posix_memalign((void **)&w[i].aligned, 4096, block))
			die("no memory");
	}
	if (url)
		frames_read(&w[0]);
	for (i = 0; i < workers; i++)
		if (pthread_create(&w[i].thread, NULL, work, &w[i]))
			die("no thread");
	for (round = 0; round <= rounds; round++) {
		shuffle(blocks);
		if (!url)
			device_new(w);
		pthread_barrier_wait(&start);
		t = now_ns();
		if (message)
			dm_run(DM_DEVICE_TARGET_MSG);
		pthread_barrier_wait(&end);
		/* in the first one, programs see their memory for the first time */
		if (round)
			report(now_ns() - t);
	}
	if (!url) {
		for (i = 0; i < workers; i++)
			close(w[i].fd);
		dm_run(DM_DEVICE_REMOVE);
	}
	return 0;
}

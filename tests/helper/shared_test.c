// SPDX-License-Identifier: GPL-2.0-only
/*
 * A directory that daemons share: what it saves, what damage does, and that
 * nothing that happens to it costs a reader more than a moment.
 *
 * openat() is this program's own: it can make the directory hang, or fail.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"

#include "../../helper/breaker.h"
#include "../../helper/shared_file.h"
#include "../../helper/shared_room.h"
#include "rig.h"

#define LINES		512
#define FRAMES		(OBJECT_BYTES / FRAME)
#define MSEC		NSEC_PER_MSEC
#define PATIENT		(30 * NSEC_PER_SEC)

/* What openat() does to files of the directory */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	char dir[64];
	bool hangs;
	u64 delay;		/* ns */
	int err;		/* a positive errno */
	unsigned int hanging;
} fault = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.changed = PTHREAD_COND_INITIALIZER,
};

int openat(int at, const char *path, int flags, ...)
{
	u64 delay = 0;
	int err = 0;
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = va_arg(ap, mode_t);
	va_end(ap);
	if (*fault.dir && !strncmp(path, fault.dir, strlen(fault.dir))) {
		pthread_mutex_lock(&fault.lock);
		fault.hanging++;
		while (fault.hangs)
			pthread_cond_wait(&fault.changed, &fault.lock);
		fault.hanging--;
		delay = fault.delay;
		err = fault.err;
		pthread_mutex_unlock(&fault.lock);
	}
	if (delay)
		usleep(delay / 1000);
	if (err) {
		errno = err;
		return -1;
	}
	return syscall(SYS_openat, at, path, flags, mode);
}

static void set_fault(bool hangs, u64 delay, int err)
{
	pthread_mutex_lock(&fault.lock);
	fault.hangs = hangs;
	fault.delay = delay;
	fault.err = err;
	pthread_cond_broadcast(&fault.changed);
	pthread_mutex_unlock(&fault.lock);
}

FIXTURE(shared) {
	struct rig *rig;
	struct rig_line *log;
	char dir[64];
};

static void up(struct rig *rig, const char *dir)
{
	rig_up(rig);
	rig->shared_options = (struct shared_options){
		.dir = dir,
		.cap = 64 << 20,
		.patience_ns = PATIENT,
	};
}

/* As another host, or after a restart: nothing but the directory is the same. */
static void again(struct rig *rig, const char *dir)
{
	rig_down(rig);
	up(rig, dir);
	rig_go(rig);
}

FIXTURE_SETUP(shared)
{
	self->rig = malloc(sizeof(*self->rig));
	self->log = malloc(LINES * sizeof(*self->log));
	strcpy(self->dir, "/tmp/lazyframe-shared.XXXXXX");
	if (!mkdtemp(self->dir))
		abort();
	strcpy(fault.dir, self->dir);
	up(self->rig, self->dir);
}

FIXTURE_TEARDOWN(shared)
{
	char command[128];

	EXPECT_EQ(0, self->rig->wrong);
	rig_down(self->rig);
	free(self->rig);
	free(self->log);
	snprintf(command, sizeof(command), "rm -rf %s", self->dir);
	if (system(command))
		abort();
}

static struct shared_stats stats_of(struct rig *rig)
{
	struct shared_stats stats;

	shared_stats(rig->shared, &stats);
	return stats;
}

/* Turns until what is to be stored is, or will not be */
static int settle(struct rig *rig, u64 n)
{
	u64 end = now_ns() + 60 * NSEC_PER_SEC;
	struct shared_stats stats;

	do {
		stats = stats_of(rig);
		if (stats.stored + stats.skipped >= n)
			return 0;
		usleep(2000);
	} while (now_ns() < end);
	return -1;
}

static int fetch_frames(struct rig *rig, u64 layer, u32 first, u32 n)
{
	u32 i;

	for (i = 0; i < n; i++)
		rig_post(rig, i, layer, (u64)(first + i) * FRAME, FRAME, 0, 0,
			 20000);
	if (rig_run(rig))
		return -1;
	for (i = 0; i < n; i++)
		if (rig->tag[i].status)
			return -1;
	return 0;
}

static struct shared_key key_of(u64 layer, u32 frame)
{
	struct shared_key key = {
		.offset = (u64)frame * FRAME,
		.length = FRAME,
	};

	key.layer[15] = layer;
	return key;
}

static void path_of(const char *dir, const struct shared_key *key, char path[160])
{
	char name[SHARED_NAME];

	shared_entry_name(key, name);
	snprintf(path, 160, "%s/%s", dir, name);
}

static int served(FIXTURE_DATA(shared) *self)
{
	return rig_log(self->rig, self->log, LINES);
}

/* Calls @each for all files in the folders; returns how many end in @suffix. */
static int each_file(const char *dir, const char *suffix,
		     void (*each)(const char *path, void *arg), void *arg)
{
	char path[320];
	int n = 0, i;

	for (i = 0; i < SHARED_FOLDERS; i++) {
		struct dirent *entry;
		DIR *d;

		snprintf(path, sizeof(path), "%s/%02x", dir, i);
		d = opendir(path);
		while (d && (entry = readdir(d))) {
			const char *dot = strrchr(entry->d_name, '.');

			if (*entry->d_name == '.' || !dot ||
			    (suffix && strcmp(dot, suffix)))
				continue;
			n++;
			snprintf(path, sizeof(path), "%s/%02x/%s", dir, i,
				 entry->d_name);
			if (each)
				each(path, arg);
		}
		if (d)
			closedir(d);
	}
	return n;
}

/* What one has fetched, the next one finds; neighbours stay one range. */
TEST_F(shared, the_second_asks_no_server)
{
	struct shared_stats stats;
	int without, with;

	self->rig->shared_options.dir = NULL;
	rig_go(self->rig);
	ASSERT_EQ(0, fetch_frames(self->rig, 1, 0, FRAMES));
	without = served(self);

	again(self->rig, self->dir);
	/* The readers' answers come one by one. */
	set_fault(false, 3 * MSEC, 0);
	ASSERT_EQ(0, fetch_frames(self->rig, 1, 0, FRAMES));
	set_fault(false, 0, 0);
	with = served(self);
	EXPECT_EQ(without, with);
	EXPECT_LE(with, 3);
	ASSERT_EQ(0, settle(self->rig, FRAMES));
	stats = stats_of(self->rig);
	EXPECT_EQ(FRAMES, stats.misses);
	EXPECT_EQ(FRAMES, stats.stored);
	EXPECT_EQ(0, stats.hits + stats.late + stats.passed + stats.skipped +
		  stats.healed + stats.evicted);
	EXPECT_EQ(FRAMES, each_file(self->dir, NULL, NULL, NULL));

	again(self->rig, self->dir);
	ASSERT_EQ(0, fetch_frames(self->rig, 1, 0, FRAMES));
	EXPECT_EQ(0, served(self));
	stats = stats_of(self->rig);
	EXPECT_EQ(FRAMES, stats.hits);
	EXPECT_EQ(0, stats.misses + stats.late + stats.stored);
	EXPECT_EQ(0, fetch_stats(self->rig->fetch)->ranges);
	EXPECT_EQ(FRAMES, fetch_stats(self->rig->fetch)->completed);
	dprintf(1, "# result: %d frames: %d requests without, %d with it empty, 0 full\n",
		FRAMES, without, with);
}

/* A part of a frame came by another helper: the rest is found, nothing stored. */
TEST_F(shared, the_rest_of_a_frame)
{
	struct rig *rig = self->rig;

	rig_go(rig);
	rig_post(rig, 0, 1, 0, FRAME, 1000, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(0, stats_of(rig).stored + stats_of(rig).skipped);
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, 1));
	ASSERT_EQ(0, settle(rig, 1));
	rig_post(rig, 0, 1, 0, FRAME, FRAME - 1, LAZYFRAME_REQ_PREFETCH, 0);
	rig_post(rig, 0, 1, 0, FRAME, 0, LAZYFRAME_REQ_PROMOTE, 1000);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(0, rig->tag[0].status);
	EXPECT_EQ(1, stats_of(rig).hits);
	EXPECT_EQ(2, served(self));
}

/* A transfer that breaks off and goes on elsewhere is one frame all the same. */
TEST_F(shared, what_came_in_parts_is_stored_whole)
{
	struct rig *rig = self->rig;

	rig_go(rig);
	rig_tell(rig, "fault short count=3 at=50000\n");
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, 1));
	ASSERT_EQ(0, settle(rig, 1));
	EXPECT_EQ(1, stats_of(rig).stored);
	EXPECT_LT(1, served(self));
	again(rig, self->dir);
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, 1));
	EXPECT_EQ(0, served(self));
}

/* Objects that a name does not tell from others, and files, are not kept. */
TEST_F(shared, what_is_not_kept)
{
	struct rig *rig = self->rig;
	char url[200], etag[64];

	rig_go(rig);
	rig_etag(rig, etag, sizeof(etag));
	snprintf(url, sizeof(url), "file://%s/object", rig->dir);
	rig_layer(rig, 2, url, OBJECT_BYTES, "");
	snprintf(url, sizeof(url), "%s/object", rig->url);
	rig_layer(rig, 3, url, OBJECT_BYTES, "");
	rig->layer[3].uuid[6] = 0x80;		/* made of its URL, no tag */
	rig_layer(rig, 4, url, OBJECT_BYTES, etag);
	rig->layer[4].uuid[6] = 0x80;		/* made of URL and tag */
	rig_layer(rig, 5, url, OBJECT_BYTES, "");
	rig->layer[5].uuid[15] = 0;		/* none */
	ASSERT_EQ(0, fetch_frames(rig, 2, 0, 1));
	ASSERT_EQ(0, fetch_frames(rig, 3, 0, 1));
	ASSERT_EQ(0, fetch_frames(rig, 3, 0, 1));
	ASSERT_EQ(0, fetch_frames(rig, 5, 0, 1));
	rig_post(rig, 0, 1, 0, SHARED_MAX + 1, 0, 0, 0);
	ASSERT_EQ(0, rig_run(rig));
	ASSERT_EQ(0, fetch_frames(rig, 4, 0, 1));
	ASSERT_EQ(0, settle(rig, 1));
	EXPECT_EQ(1, stats_of(rig).stored);
	EXPECT_EQ(1, stats_of(rig).misses);
	EXPECT_EQ(1, each_file(self->dir, NULL, NULL, NULL));
}

enum damage { FLIP, CUT, GROW, EMPTY, OTHER, LINK, FIFO, ZEROS };

static void damage(const char *dir, u32 frame, enum damage how, long at)
{
	struct shared_key key = key_of(1, frame), other = key_of(1, 90);
	char path[160], from[160];
	u8 byte = 0;
	int fd;

	path_of(dir, &key, path);
	path_of(dir, &other, from);
	fd = open(path, O_RDWR | O_CLOEXEC);
	switch (how) {
	case FLIP:
		if (pread(fd, &byte, 1, at) != 1)
			abort();
		byte ^= 1 << frame % 8;
		if (pwrite(fd, &byte, 1, at) != 1)
			abort();
		break;
	case CUT:
	case GROW:
	case EMPTY:
		if (ftruncate(fd, at))
			abort();
		break;
	case ZEROS:
		if (ftruncate(fd, 0) ||
		    ftruncate(fd, sizeof(struct shared_head) + FRAME))
			abort();
		break;
	case OTHER:
	case LINK:
	case FIFO:
		if (unlink(path) ||
		    (how == OTHER ? link(from, path) : how == LINK ?
		     symlink(from, path) : mkfifo(path, 0600)))
			abort();
	}
	close(fd);
}

/* Whatever is wrong with an entry: right bytes, counted, and right again. */
TEST_F(shared, damage_heals)
{
	const long head = sizeof(struct shared_head), end = head + FRAME;
	const struct {
		enum damage how;
		long at;
	} cases[] = {
		{ FLIP, 0 }, { FLIP, 7 }, { FLIP, 8 }, { FLIP, 12 }, { FLIP, 16 },
		{ FLIP, 23 }, { FLIP, 24 }, { FLIP, 39 }, { FLIP, 40 },
		{ FLIP, 47 }, { FLIP, head }, { FLIP, head + SHARED_PIECE - 1 },
		{ FLIP, head + SHARED_PIECE }, { FLIP, end - 1 },
		{ CUT, 1 }, { CUT, head - 1 }, { CUT, head }, { CUT, head + 1 },
		{ CUT, head + SHARED_PIECE }, { CUT, end - 1 },
		{ GROW, end + 1 }, { GROW, 100 << 20 }, { EMPTY, 0 },
		{ OTHER, 0 }, { LINK, 0 }, { FIFO, 0 }, { ZEROS, 0 },
	};
	struct rig *rig = self->rig;
	unsigned int i, n = ARRAY_SIZE(cases);

	rig_go(rig);
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, FRAMES));
	ASSERT_EQ(0, settle(rig, FRAMES));
	for (i = 0; i < n; i++)
		damage(self->dir, i, cases[i].how, cases[i].at);
	again(rig, self->dir);
	for (i = 0; i < n; i++) {
		ASSERT_EQ(0, fetch_frames(rig, 1, i, 1));
		ASSERT_EQ(0, settle(rig, i + 1));
		EXPECT_EQ(i + 1, stats_of(rig).misses)
			TH_LOG("case %u was taken for good", i);
		EXPECT_EQ(i + 1, stats_of(rig).healed)
			TH_LOG("case %u was not counted", i);
	}
	EXPECT_EQ(n, served(self));
	EXPECT_EQ(n, stats_of(rig).stored);
	again(rig, self->dir);
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, FRAMES));
	EXPECT_EQ(0, served(self));
	EXPECT_EQ(FRAMES, stats_of(rig).hits);
}

static int forge(const char *dir, u32 frame)
{
	u8 *piece[FRAME / SHARED_PIECE];
	struct shared_key key = key_of(1, frame);
	unsigned int i;
	int err;

	for (i = 0; i < ARRAY_SIZE(piece); i++)
		piece[i] = calloc(1, SHARED_PIECE);
	err = shared_file_write(dir, &key, "0123456789abcdef-1", 1, piece);
	for (i = 0; i < ARRAY_SIZE(piece); i++)
		free(piece[i]);
	return err;
}

/* Right by its checksum, and yet not the frame: once, and never again. */
TEST_F(shared, what_the_module_refuses_does_not_come_twice)
{
	struct rig *rig = self->rig;

	rig_go(rig);
	ASSERT_EQ(0, forge(self->dir, 0));
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, 1));
	EXPECT_EQ(1, stats_of(rig).hits);
	EXPECT_EQ(1, rig->wrong);
	rig->wrong = 0;
	EXPECT_EQ(0, served(self));

	rig_post(rig, 0, 1, 0, FRAME, 0, LAZYFRAME_REQ_AGAIN, 0);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(0, rig->wrong);
	EXPECT_EQ(1, served(self));
	EXPECT_EQ(1, stats_of(rig).hits);
	ASSERT_EQ(0, settle(rig, 1));

	again(rig, self->dir);
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, 1));
	EXPECT_EQ(0, served(self));
	EXPECT_EQ(1, stats_of(rig).hits);
}

/* Refused, and the server has nothing better: then nobody gets it any more. */
TEST_F(shared, what_the_module_refuses_is_removed)
{
	struct rig *rig = self->rig;
	u64 end = now_ns() + 20 * NSEC_PER_SEC;

	rig_go(rig);
	ASSERT_EQ(0, forge(self->dir, 0));
	rig_tell(rig, "fault status code=404 count=0\n");
	rig_post(rig, 0, 1, 0, FRAME, 0, LAZYFRAME_REQ_AGAIN, 0);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(ENOENT, rig->tag[0].status);
	while (!stats_of(rig).healed && now_ns() < end)
		usleep(2000);
	EXPECT_EQ(1, stats_of(rig).healed);
	EXPECT_EQ(0, each_file(self->dir, NULL, NULL, NULL));
}

/* One frame after the other, each in a turn of its own; returns the longest */
static u64 one_by_one(struct rig *rig, u32 first, u32 n, u64 *total)
{
	u64 worst = 0, begin, took;
	u32 i;

	*total = 0;
	for (i = 0; i < n; i++) {
		begin = now_ns();
		if (fetch_frames(rig, 1, (first + i) % FRAMES, 1))
			return NEVER;
		took = now_ns() - begin;
		*total += took;
		if (took > worst)
			worst = took;
	}
	return worst;
}

/*
 * A file server that is dead: some readers wait for the patience, once; then it
 * is as if there were no directory, until it answers again. And the daemon ends.
 */
TEST_F(shared, a_directory_that_hangs)
{
	const u64 patience = 300 * MSEC;
	struct rig *rig = self->rig;
	u64 without, first, later, worst, begin, end;
	struct shared_stats stats;

	rig->shared_options.dir = NULL;
	rig_go(rig);
	one_by_one(rig, 0, 40, &without);
	rig_down(rig);

	up(rig, self->dir);
	rig->shared_options.patience_ns = patience;
	set_fault(true, 0, 0);
	rig_go(rig);
	/* One after the other, so that each is a lookup that is late. */
	worst = one_by_one(rig, 0, BREAKER_FAILURES, &first);
	EXPECT_GE(first, BREAKER_FAILURES * patience);
	EXPECT_LT(worst, 10 * patience);
	EXPECT_TRUE(shared_down(rig->shared));
	one_by_one(rig, 10, 40, &later);
	/* None of them waited: else it would be 40 times the patience. */
	EXPECT_LT(later, without + 5 * patience);
	stats = stats_of(rig);
	EXPECT_EQ(BREAKER_FAILURES, stats.late);
	EXPECT_EQ(40, stats.passed);
	EXPECT_EQ(0, stats.hits + stats.misses + stats.stored);
	dprintf(1, "# result: a frame: %.2f ms without, %.2f ms with one that hangs;"
		" the first %d: %.0f ms, patience %.0f ms\n", without / 40e6, later / 40e6,
		BREAKER_FAILURES, first / 1e6 / BREAKER_FAILURES, patience / 1e6);

	/* All at once: the frames of a turn wait for the patience together. */
	set_fault(false, 0, 0);
	end = now_ns() + 40 * NSEC_PER_SEC;
	while (shared_down(rig->shared) && now_ns() < end)
		ASSERT_EQ(0, fetch_frames(rig, 1, 60, 1));
	EXPECT_FALSE(shared_down(rig->shared));
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, 20));
	set_fault(true, 0, 0);
	begin = now_ns();
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, FRAMES));
	EXPECT_LT(now_ns() - begin, 10 * patience);

	/* It ends, though all its threads hang; they come back to nothing bad. */
	begin = now_ns();
	fetch_free(rig->fetch);
	shared_free(rig->shared);
	EXPECT_LT(now_ns() - begin, 5 * NSEC_PER_SEC);
	rig->shared = NULL;
	rig->options.shared = NULL;
	rig->fetch = fetch_new(&rig->loop, &rig->sink, TAGS, &rig->options);
	set_fault(false, 0, 0);
	usleep(100000);
}

/* As slow as that, it is left alone; a directory that answers is used again. */
TEST_F(shared, a_directory_that_is_slow)
{
	struct rig *rig = self->rig;
	u64 total, end;

	rig->shared_options.patience_ns = 100 * MSEC;
	set_fault(false, 400 * MSEC, 0);
	rig_go(rig);
	EXPECT_GT(10 * NSEC_PER_SEC,
		  one_by_one(rig, 0, BREAKER_FAILURES, &total));
	EXPECT_TRUE(shared_down(rig->shared));
	/* Late answers are none. */
	end = now_ns() + 2 * NSEC_PER_SEC;
	while (now_ns() < end) {
		ASSERT_EQ(0, fetch_frames(rig, 1, 50, 1));
		ASSERT_TRUE(shared_down(rig->shared));
	}
	set_fault(false, 0, 0);
	end = now_ns() + 30 * NSEC_PER_SEC;
	while (shared_down(rig->shared) && now_ns() < end)
		ASSERT_EQ(0, fetch_frames(rig, 1, 50, 1));
	EXPECT_FALSE(shared_down(rig->shared));
	EXPECT_EQ(0, stats_of(rig).hits + stats_of(rig).misses);
}

TEST_F(shared, a_directory_that_fails)
{
	struct rig *rig = self->rig;
	struct shared_stats stats;

	set_fault(false, 0, EIO);
	rig_go(rig);
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, FRAMES));
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, FRAMES));
	ASSERT_EQ(0, settle(rig, 2 * FRAMES));
	stats = stats_of(rig);
	EXPECT_TRUE(shared_down(rig->shared));
	EXPECT_EQ(2 * FRAMES, stats.misses + stats.passed);
	EXPECT_LE(FRAMES, stats.passed);
	EXPECT_EQ(2 * FRAMES, stats.skipped);
	EXPECT_EQ(0, stats.healed + stats.stored + stats.hits);
}

/* Somebody unmounts it, or removes it: it is not made anew in another place. */
TEST_F(shared, a_directory_that_goes_away)
{
	struct rig *rig = self->rig;
	char away[80];
	struct stat st;

	rig_go(rig);
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, 10));
	ASSERT_EQ(0, settle(rig, 10));
	snprintf(away, sizeof(away), "%s.away", self->dir);
	ASSERT_EQ(0, rename(self->dir, away));
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, 50));
	ASSERT_EQ(0, settle(rig, 60));
	EXPECT_EQ(0, stats_of(rig).hits);
	EXPECT_EQ(10, stats_of(rig).stored);
	EXPECT_EQ(50, stats_of(rig).skipped);
	EXPECT_NE(0, stat(self->dir, &st));
	ASSERT_EQ(0, rename(away, self->dir));
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, 10));
	EXPECT_EQ(10, stats_of(rig).hits);
}

/* A file system of its own for this process; false: that is not allowed. */
static bool mount_small(const char *dir, const char *options)
{
	if (unshare(CLONE_NEWNS) && unshare(CLONE_NEWUSER | CLONE_NEWNS))
		return false;
	(void)mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
	return !mount("shared", dir, "tmpfs", 0, options);
}

TEST_F(shared, a_file_system_that_is_full)
{
	struct rig *rig = self->rig;
	u64 stored;

	if (!mount_small(self->dir, "size=2m"))
		SKIP(return, "mount is not allowed");
	rig_go(rig);
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, FRAMES));
	ASSERT_EQ(0, settle(rig, FRAMES));
	stored = stats_of(rig).stored;
	EXPECT_LT(5, stored);
	EXPECT_GT(16, stored);
	EXPECT_EQ(FRAMES - stored, stats_of(rig).skipped);
	EXPECT_EQ(stored, each_file(self->dir, NULL, NULL, NULL));
	rig_tell(rig, "forget\n");
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, FRAMES));
	EXPECT_EQ(stored, stats_of(rig).hits);
	EXPECT_EQ(0, stats_of(rig).healed);
	umount2(self->dir, MNT_DETACH);
}

TEST_F(shared, a_directory_that_is_read_only)
{
	struct shared_key key = key_of(1, 3);
	struct rig *rig = self->rig;
	char path[160];

	if (!mount_small(self->dir, "size=8m"))
		SKIP(return, "mount is not allowed");
	rig_go(rig);
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, 10));
	ASSERT_EQ(0, settle(rig, 10));
	path_of(self->dir, &key, path);
	ASSERT_EQ(0, truncate(path, 1000));
	ASSERT_EQ(0, mount(NULL, self->dir, NULL, MS_REMOUNT | MS_RDONLY, NULL));
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, 20));
	ASSERT_EQ(0, settle(rig, 21));
	EXPECT_EQ(9, stats_of(rig).hits);
	EXPECT_EQ(10 + 11, stats_of(rig).misses);
	EXPECT_EQ(11, stats_of(rig).skipped);
	EXPECT_EQ(0, stats_of(rig).healed);
	umount2(self->dir, MNT_DETACH);
}

/* Whoever else writes there must not lead us out of it. */
TEST_F(shared, folders_that_lead_elsewhere)
{
	char path[160], outside[] = "/tmp/outside.XXXXXX";
	struct rig *rig = self->rig;
	int i;

	ASSERT_NE(NULL, mkdtemp(outside));
	for (i = 0; i < SHARED_FOLDERS; i++) {
		snprintf(path, sizeof(path), "%s/%02x", self->dir, i);
		ASSERT_EQ(0, symlink(outside, path));
	}
	rig_go(rig);
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, 10));
	ASSERT_EQ(0, settle(rig, 10));
	EXPECT_EQ(0, stats_of(rig).stored);
	EXPECT_EQ(0, stats_of(rig).hits);
	for (i = 0; i < SHARED_FOLDERS; i++) {
		snprintf(path, sizeof(path), "%s/%02x", self->dir, i);
		ASSERT_EQ(0, unlink(path));
	}
	/* Nothing is in it. */
	EXPECT_EQ(0, rmdir(outside));
}

/* Other processes */

static void layers(struct rig *rig, u64 n)
{
	char url[160];
	u64 id;

	snprintf(url, sizeof(url), "%s/object", rig->url);
	for (id = 1; id <= n; id++)
		rig_layer(rig, id, url, OBJECT_BYTES, "");
}

/* A daemon of its own, which fetches all of @n layers, in an order of its own */
static pid_t daemon_of(const char *dir, u64 cap, u64 n, u64 first)
{
	struct rig *rig;
	pid_t pid = fork();
	u64 i;

	if (pid)
		return pid;
	rig = malloc(sizeof(*rig));
	up(rig, dir);
	rig->shared_options.cap = cap;
	rig_go(rig);
	layers(rig, n);
	for (i = 0; i < n; i++) {
		if (fetch_frames(rig, 1 + (first + i) % n, 0, FRAMES))
			_exit(1);
		if (settle(rig, FRAMES * (i + 1) - stats_of(rig).hits))
			_exit(2);
	}
	i = rig->wrong;
	rig_down(rig);
	_exit(i ? 3 : 0);
}

static int ends_well(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ?
	       WEXITSTATUS(status) : -1;
}

static void check_entry(const char *path, void *arg)
{
	const char *name = strrchr(path, '/') + 1, *why;
	struct shared_key key;
	u8 *entry = malloc(SHARED_ENTRY_MAX);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, entry, SHARED_ENTRY_MAX);

	if (shared_parse(name, strtoul(name - 3, NULL, 16), &key) != SHARED_ENTRY ||
	    n < 0 || shared_check(entry, n, &key, &why))
		(*(int *)arg)++;
	close(fd);
	free(entry);
}

TEST_F_TIMEOUT(shared, two_at_once, 120)
{
	struct rig *rig = self->rig;
	pid_t a, b, c;
	int bad = 0;

	a = daemon_of(self->dir, 64 << 20, 1, 0);
	b = daemon_of(self->dir, 64 << 20, 1, 0);
	c = daemon_of(self->dir, 64 << 20, 1, 0);
	EXPECT_EQ(0, ends_well(a));
	EXPECT_EQ(0, ends_well(b));
	EXPECT_EQ(0, ends_well(c));
	EXPECT_EQ(FRAMES, each_file(self->dir, NULL, check_entry, &bad));
	EXPECT_EQ(0, bad);
	rig_go(rig);
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, FRAMES));
	EXPECT_EQ(0, served(self));
}

/* Whenever it is killed, what is there is whole; the rest goes when it may. */
TEST_F_TIMEOUT(shared, killed_while_it_writes, 120)
{
	const char *more = getenv("LONG");
	int rounds = more && *more == '1' ? 100 : 4, round, bad = 0, parts = 0;
	struct rig *rig = self->rig;
	u64 wait = 1000;

	for (round = 0; round < rounds; round++) {
		pid_t pid = daemon_of(self->dir, 64 << 20, 3, round);
		u64 end = now_ns() + 20 * NSEC_PER_SEC;
		int before = each_file(self->dir, NULL, NULL, NULL);

		while (each_file(self->dir, NULL, NULL, NULL) == before &&
		       before < 3 * FRAMES && now_ns() < end)
			usleep(500);
		usleep(wait);
		wait = wait * 7919 % 30011;
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		each_file(self->dir, ".frame", check_entry, &bad);
		ASSERT_EQ(0, bad);
		parts += each_file(self->dir, ".part", NULL, NULL);
	}
	rig_go(rig);
	layers(rig, 4);
	ASSERT_EQ(0, fetch_frames(rig, 4, 0, FRAMES));
	ASSERT_EQ(0, settle(rig, FRAMES));
	EXPECT_EQ(0, each_file(self->dir, ".part", NULL, NULL));
	dprintf(1, "# result: %d kills left %d files half written, all removed later\n",
		rounds, parts);
}

static void add_room(const char *path, void *arg)
{
	struct stat st;

	/* What is being written may grow to what its name says. */
	if (!stat(path, &st))
		*(u64 *)arg += (st.st_size + 4095) / 4096 * 4096;
}

/* Two fill it at the same time with far more than may be there. */
TEST_F_TIMEOUT(shared, the_cap_holds, 300)
{
	const u64 cap = 32 << 20;
	u64 most = 0, held;
	pid_t pid[2];
	int i, done = 0;

	pid[0] = daemon_of(self->dir, cap, 5, 0);
	pid[1] = daemon_of(self->dir, cap, 5, 2);
	while (done < 2) {
		held = 0;
		each_file(self->dir, NULL, add_room, &held);
		most = held > most ? held : most;
		for (i = 0; i < 2; i++) {
			int status;

			if (!pid[i] || !waitpid(pid[i], &status, WNOHANG))
				continue;
			EXPECT_EQ(0, status);
			pid[i] = 0;
			done++;
		}
	}
	EXPECT_LE(most, cap);
	EXPECT_GT(most, cap / 2);
	dprintf(1, "# result: cap %llu MiB, at most %.1f there, two fetched 60 MiB each\n",
		(unsigned long long)cap >> 20, most / 1048576.0);
}

/* What was used goes last, whoever used it and whenever it was written. */
TEST_F(shared, the_oldest_give_way)
{
	struct rig *rig = self->rig;
	struct shared_stats stats;
	u32 i;

	rig->shared_options.cap = ROOM_CAP_MIN;
	rig_go(rig);
	layers(rig, 3);
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, 60));
	ASSERT_EQ(0, settle(rig, 60));
	/* All of it is an hour old, then ten frames of it are used. */
	for (i = 0; i < 60; i++) {
		struct timespec hour[2] = { { .tv_sec = time(NULL) - 3600 },
					    { .tv_sec = time(NULL) - 3600 } };
		struct shared_key key = key_of(1, i);
		char path[160];

		path_of(self->dir, &key, path);
		ASSERT_EQ(0, utimensat(AT_FDCWD, path, hour, 0));
	}
	ASSERT_EQ(0, fetch_frames(rig, 1, 20, 10));
	EXPECT_EQ(10, stats_of(rig).hits);
	/* 130 entries of 132 KiB: six more than the cap, at least, have to go. */
	ASSERT_EQ(0, fetch_frames(rig, 2, 0, 70));
	ASSERT_EQ(0, settle(rig, 130));
	stats = stats_of(rig);
	EXPECT_LE(6, stats.evicted);
	EXPECT_GE(50, stats.evicted);
	EXPECT_EQ(130, stats.stored);
	rig_tell(rig, "forget\n");
	ASSERT_EQ(0, fetch_frames(rig, 1, 20, 10));
	EXPECT_EQ(20, stats_of(rig).hits);
	ASSERT_EQ(0, fetch_frames(rig, 2, 0, 70));
	EXPECT_EQ(90, stats_of(rig).hits);
	EXPECT_EQ(0, served(self));
}

/* Leftovers of hosts that are gone, too, and nothing of anybody else. */
TEST_F(shared, what_the_dead_left_is_removed)
{
	static const char *const dead[] = {
		"%s/00/0123456789abcdef-1-1-1000.part",
		"%s/0123456789abcdef-1.room",
	}, *const alive[] = {
		"%s/00/0123456789abcdef-2-2-1000.part",
		"%s/0123456789abcdef-2.room",
	}, *const foreign[] = { "%s/00/notes", "%s/README.room.txt", "%s/00/a.frame" };
	struct timespec old[2] = { { .tv_sec = time(NULL) - ROOM_DEAD - 100 },
				   { .tv_sec = time(NULL) - ROOM_DEAD - 100 } };
	struct rig *rig = self->rig;
	char path[160];
	unsigned int i;

	snprintf(path, sizeof(path), "%s/00", self->dir);
	ASSERT_EQ(0, mkdir(path, 0700));
	for (i = 0; i < 7; i++) {
		const char *const *name = i < 2 ? &dead[i] : i < 4 ?
					  &alive[i - 2] : &foreign[i - 4];

		snprintf(path, sizeof(path), *name, self->dir);
		close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
		if (i < 2 || i >= 4)
			ASSERT_EQ(0, utimensat(AT_FDCWD, path, old, 0));
	}
	rig_go(rig);
	ASSERT_EQ(0, fetch_frames(rig, 1, 0, 1));
	ASSERT_EQ(0, settle(rig, 1));
	for (i = 0; i < 7; i++) {
		const char *const *name = i < 2 ? &dead[i] : i < 4 ?
					  &alive[i - 2] : &foreign[i - 4];
		struct stat st;

		snprintf(path, sizeof(path), *name, self->dir);
		EXPECT_EQ(i < 2 ? -1 : 0, stat(path, &st)) TH_LOG("%s", path);
	}
}

/* More was reserved than there is: nothing is added, nothing is thrown out. */
TEST_F(shared, reservations_of_others_count)
{
	struct rig *rig = self->rig;
	char path[160];
	int fd;

	rig->shared_options.cap = ROOM_CAP_MIN;
	snprintf(path, sizeof(path), "%s/0123456789abcdef-1.room", self->dir);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ASSERT_EQ(0, ftruncate(fd, ROOM_CAP_MIN));
	close(fd);
	ASSERT_EQ(0, forge(self->dir, 0));
	rig_go(rig);
	ASSERT_EQ(0, fetch_frames(rig, 1, 1, 3));
	ASSERT_EQ(0, settle(rig, 3));
	EXPECT_EQ(3, stats_of(rig).skipped);
	EXPECT_EQ(1, each_file(self->dir, NULL, NULL, NULL));
	ASSERT_EQ(0, unlink(path));
	ASSERT_EQ(0, fetch_frames(rig, 1, 1, 3));
	ASSERT_EQ(0, settle(rig, 6));
	EXPECT_EQ(3, stats_of(rig).stored);
}

TEST_HARNESS_MAIN

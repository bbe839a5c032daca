// SPDX-License-Identifier: GPL-2.0-only
/*
 * What was listed grows old as this process itself adds to it. From the moment
 * before a listing on, all that is being written or is begun is held against the
 * reservation: the listing may have seen it or not. What remains may be added;
 * when half of that is gone, it is time for the next listing.
 *
 * No stat() of all that is there: lengths are in the names. Ages are asked for
 * only where something has to go, of a sample: whole folders, chosen by hash, so
 * that the oldest of them are as old as the oldest of all.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "shared_file.h"
#include "shared_room.h"

#define ROOM_SUFFIX	".room"
#define SHARE		64		/* of the cap, to be reserved at once */
#define SHARE_MIN	(4ULL << 20)
#define SHARE_MAX	(256ULL << 20)
#define SLACK		32		/* of the cap, to be made room beyond need */
#define RENEW		(ROOM_DEAD / 6)	/* seconds */
#define SAMPLE		16384		/* entries whose ages are compared */
#define ROUNDS		8
#define LIST_BYTES	(64 << 10)

struct aged {
	struct shared_key key;
	u64 used;			/* ns, by the file system's clock */
};

/* What one listing found */
struct census {
	u64 held;			/* bytes of entries, and of what is written */
	u64 reserved;			/* by all, this process included */
	s64 now;			/* seconds, by the file system's clock */
};

struct room {
	const char *dir;
	u64 cap;
	u64 share;
	char owner[SHARED_OWNER];
	/* The thread's own */
	struct aged *aged;
	u32 ages;
	u8 *list;
	bool crowded;
	bool reserved;
	/* Under the lock */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stop;
	bool wanted;			/* a listing, that is */
	int verdict;			/* of the last one */
	u64 left;			/* bytes that may be added */
	u64 writing;
	u64 since;			/* bytes taken since the listing began */
	time_t used;			/* when something was last taken */
	u64 evicted;
};

static int path_of(const struct room *room, const char *name,
		   char path[PATH_MAX])
{
	int n = snprintf(path, PATH_MAX, "%s/%s", room->dir, name);

	return n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static time_t seconds(void)
{
	struct timespec ts;

	/* A machine that slept is not to write what it reserved before. */
	clock_gettime(CLOCK_BOOTTIME, &ts);
	return ts.tv_sec;
}

static bool stopped(struct room *room)
{
	bool stop;

	pthread_mutex_lock(&room->lock);
	stop = room->stop;
	pthread_mutex_unlock(&room->lock);
	return stop;
}

/* Listing */

/*
 * Calls @visit for each name in @path until it returns an error, which is
 * returned. -ENOENT: there is no such folder.
 */
static int each_name(struct room *room, const char *path,
		     int (*visit)(struct room *room, int dir, const char *name,
				  unsigned int folder, struct census *census),
		     unsigned int folder, struct census *census)
{
	int fd = openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC |
			O_NOFOLLOW), err = 0;
	ssize_t n, at;

	if (fd < 0)
		return -errno;
	while (!err && (n = getdents64(fd, room->list, LIST_BYTES)) > 0) {
		for (at = 0; !err && at < n;) {
			struct dirent64 *entry = (void *)(room->list + at);

			if (entry->d_name[0] != '.')
				err = visit(room, fd, entry->d_name, folder,
					    census);
			at += entry->d_reclen;
		}
		if (stopped(room))
			err = -ECANCELED;
	}
	if (!err && n < 0)
		err = -errno;
	close(fd);
	return err;
}

/*
 * Is the process @owner of this host known to be gone? Its name begins with what
 * tells hosts, and systems of processes on them, apart.
 */
static bool is_gone(const struct room *room, const char *owner)
{
	unsigned long pid;
	char *end;

	if (strncmp(owner, room->owner, 17))
		return false;
	pid = strtoul(owner + 17, &end, 16);
	return end != owner + 17 && pid && pid <= INT_MAX &&
	       kill(pid, 0) && errno == ESRCH;
}

static bool is_old(const struct stat *st, const struct census *census)
{
	return census->now - st->st_mtim.tv_sec > ROOM_DEAD;
}

static int visit_top(struct room *room, int dir, const char *name,
		     unsigned int folder, struct census *census)
{
	size_t len = strlen(name);
	struct stat st;

	(void)folder;
	if (len <= strlen(ROOM_SUFFIX) ||
	    strcmp(name + len - strlen(ROOM_SUFFIX), ROOM_SUFFIX))
		return 0;
	if (!strncmp(name, room->owner, strlen(room->owner)) &&
	    name[strlen(room->owner)] == '.')
		return 0;
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
		return 0;
	if (is_gone(room, name) || is_old(&st, census)) {
		(void)unlinkat(dir, name, 0);
		return 0;
	}
	census->reserved += (u64)st.st_size < room->cap ? (u64)st.st_size :
							  room->cap;
	return 0;
}

static int visit_entry(struct room *room, int dir, const char *name,
		       unsigned int folder, struct census *census)
{
	struct shared_key key;
	struct stat st;

	switch (shared_parse(name, folder, &key)) {
	case SHARED_FOREIGN:
		return 0;
	case SHARED_PART:
		if (!fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) &&
		    (is_gone(room, name) || is_old(&st, census)) &&
		    !unlinkat(dir, name, 0))
			return 0;
		break;
	case SHARED_ENTRY:
		break;
	}
	census->held += shared_room(key.length);
	return 0;
}

static int visit_age(struct room *room, int dir, const char *name,
		     unsigned int folder, struct census *census)
{
	struct aged *aged = &room->aged[room->ages];
	struct stat st;

	(void)census;
	if (room->ages == SAMPLE ||
	    shared_parse(name, folder, &aged->key) != SHARED_ENTRY ||
	    fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
		return 0;
	aged->used = st.st_mtim.tv_sec * NSEC_PER_SEC + st.st_mtim.tv_nsec;
	room->ages++;
	return 0;
}

static int each_in(struct room *room, unsigned int folder,
		   int (*visit)(struct room *room, int dir, const char *name,
				unsigned int folder, struct census *census),
		   struct census *census)
{
	char path[PATH_MAX], name[3];
	int err;

	snprintf(name, sizeof(name), "%02x", folder % SHARED_FOLDERS);
	err = path_of(room, name, path);
	if (!err)
		err = each_name(room, path, visit, folder, census);
	/* Not made yet, or somebody else's */
	return err == -ENOENT || err == -ENOTDIR || err == -ELOOP ? 0 : err;
}

static int count(struct room *room, struct census *census)
{
	unsigned int i;
	int err;

	err = each_name(room, room->dir, visit_top, 0, census);
	for (i = 0; !err && i < SHARED_FOLDERS; i++)
		err = each_in(room, i, visit_entry, census);
	return err;
}

/* Removing */

static int by_use(const void *a, const void *b)
{
	const struct aged *x = a, *y = b;

	return x->used < y->used ? -1 : x->used > y->used;
}

/* Of the sample, the oldest, up to @bytes. Return: bytes that are gone. */
static u64 remove_oldest(struct room *room, u64 bytes)
{
	u64 freed = 0, n = 0;
	u32 i;

	qsort(room->aged, room->ages, sizeof(*room->aged), by_use);
	for (i = 0; i < room->ages && freed < bytes; i++) {
		int err = shared_file_remove(room->dir, &room->aged[i].key);

		if (err && err != -ENOENT)
			continue;
		freed += shared_room(room->aged[i].key.length);
		n += !err;
	}
	pthread_mutex_lock(&room->lock);
	room->evicted += n;
	pthread_mutex_unlock(&room->lock);
	return freed;
}

static u64 sample_bytes(const struct room *room)
{
	u64 bytes = 0;
	u32 i;

	for (i = 0; i < room->ages; i++)
		bytes += shared_room(room->aged[i].key.length);
	return bytes;
}

/*
 * Once through all folders, from anywhere on. If the sample is all there is, the
 * oldest go; else a quarter of each sample, for the oldest may be in the next.
 */
static int evict_round(struct room *room, u64 need, u64 *freed)
{
	bool whole = true;
	unsigned int first, i;
	int err = 0;

	if (getrandom(&first, sizeof(first), GRND_NONBLOCK) < 0)
		first = seconds();
	room->ages = 0;
	for (i = 0; !err && i < SHARED_FOLDERS && *freed < need; i++) {
		u32 before = room->ages, grown;

		err = each_in(room, (first + i) % SHARED_FOLDERS, visit_age,
			      NULL);
		grown = room->ages - before;
		/* Folders are alike: would the next one still fit? */
		if (i < SHARED_FOLDERS - 1 &&
		    room->ages + grown + grown / 4 < SAMPLE)
			continue;
		whole &= i == SHARED_FOLDERS - 1;
		*freed += remove_oldest(room, whole ? need - *freed :
					sample_bytes(room) / 4 < need - *freed ?
					sample_bytes(room) / 4 : need - *freed);
		room->ages = 0;
	}
	return err;
}

static int evict(struct room *room, u64 need, u64 *freed)
{
	int round, err = 0;

	for (round = 0; !err && round < ROUNDS && *freed < need; round++) {
		u64 before = *freed;

		err = evict_round(room, need, freed);
		if (*freed == before)
			break;
	}
	return err;
}

/* Reserving */

static int reserve(struct room *room, s64 *now)
{
	char name[SHARED_OWNER + sizeof(ROOM_SUFFIX)], path[PATH_MAX];
	struct stat st;
	int fd, err;

	snprintf(name, sizeof(name), "%s" ROOM_SUFFIX, room->owner);
	err = path_of(room, name, path);
	if (err)
		return err;
	fd = openat(AT_FDCWD, path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC |
		    O_NONBLOCK, 0600);
	if (fd < 0)
		return -errno;
	room->reserved = true;
	if (ftruncate(fd, room->share) || futimens(fd, NULL) || fstat(fd, &st))
		err = -errno;
	else
		*now = st.st_mtim.tv_sec;
	if (close(fd) && !err)
		err = -errno;
	return err;
}

static void unreserve(struct room *room)
{
	char name[SHARED_OWNER + sizeof(ROOM_SUFFIX)], path[PATH_MAX];

	if (!room->reserved)
		return;
	snprintf(name, sizeof(name), "%s" ROOM_SUFFIX, room->owner);
	if (!path_of(room, name, path))
		(void)unlink(path);
	room->reserved = false;
}

/* Too many daemons for so small a cap: nobody is to be left without entries. */
static bool is_crowded(struct room *room, const struct census *census)
{
	bool crowded = census->reserved > room->cap / 2;

	if (crowded && !room->crowded)
		log_warn("shared directory %s: daemons have reserved %llu of its %llu MiB, nothing is added; give it more, see --shared-size",
			 room->dir, (unsigned long long)census->reserved >> 20,
			 (unsigned long long)room->cap >> 20);
	room->crowded = crowded;
	return crowded;
}

static int take_census(struct room *room)
{
	struct census census = { .reserved = room->share };
	u64 freed = 0, used;
	int err;

	err = reserve(room, &census.now);
	pthread_mutex_lock(&room->lock);
	room->since = room->writing;
	pthread_mutex_unlock(&room->lock);
	if (!err)
		err = count(room, &census);
	if (err)
		return err;
	if (is_crowded(room, &census))
		return -ENOSPC;
	used = census.held + census.reserved;
	if (used > room->cap)
		err = evict(room, used - room->cap + room->cap / SLACK,
			    &freed);
	log_debug("shared directory %s: %llu bytes held, %llu reserved, %llu removed",
		  room->dir, (unsigned long long)census.held,
		  (unsigned long long)census.reserved,
		  (unsigned long long)freed);
	if (err)
		return err;
	return used - (freed < used ? freed : used) > room->cap ? -ENOSPC : 0;
}

/* The thread */

static void list(struct room *room)
{
	int err = take_census(room);

	pthread_mutex_lock(&room->lock);
	room->left = 0;
	if (!err && room->since < room->share)
		room->left = room->share - room->since;
	room->verdict = err;
	room->wanted = false;
	pthread_cond_broadcast(&room->changed);
	pthread_mutex_unlock(&room->lock);
}

/* Is still in use: say so. Nothing was written for long: let others have it. */
static void renew(struct room *room)
{
	time_t used;
	s64 now;

	pthread_mutex_lock(&room->lock);
	used = room->used;
	if (seconds() - used > RENEW)
		room->left = 0;
	pthread_mutex_unlock(&room->lock);
	if (seconds() - used > RENEW)
		unreserve(room);
	else if (room->reserved)
		(void)reserve(room, &now);
}

void room_main(struct room *room)
{
	struct timespec until;
	bool wanted, stop;

	do {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += RENEW;
		pthread_mutex_lock(&room->lock);
		while (!room->stop && !room->wanted)
			if (pthread_cond_timedwait(&room->changed, &room->lock,
						   &until))
				break;
		stop = room->stop;
		wanted = room->wanted;
		pthread_mutex_unlock(&room->lock);
		if (stop)
			unreserve(room);
		else if (wanted)
			list(room);
		else
			renew(room);
	} while (!stop);
}

void room_stop(struct room *room)
{
	pthread_mutex_lock(&room->lock);
	room->stop = true;
	pthread_cond_broadcast(&room->changed);
	pthread_mutex_unlock(&room->lock);
}

int room_take(struct room *room, u64 bytes)
{
	int err = 0;

	pthread_mutex_lock(&room->lock);
	/* Asleep for too long, others may think that we are gone. */
	if (room->left && seconds() - room->used > ROOM_DEAD / 2)
		room->left = 0;
	if (room->left < bytes || room->left - bytes < room->share / 2) {
		room->wanted = true;
		pthread_cond_broadcast(&room->changed);
	}
	while (room->left < bytes && room->wanted && !room->stop)
		pthread_cond_wait(&room->changed, &room->lock);
	if (room->stop)
		err = -ECANCELED;
	else if (room->left < bytes)
		err = room->verdict ? room->verdict : -ENOSPC;
	if (!err) {
		room->left -= bytes;
		room->writing += bytes;
		room->since += bytes;
		room->used = seconds();
	}
	pthread_mutex_unlock(&room->lock);
	return err;
}

void room_end(struct room *room, u64 bytes)
{
	pthread_mutex_lock(&room->lock);
	room->writing -= bytes;
	pthread_mutex_unlock(&room->lock);
}

u64 room_evicted(struct room *room)
{
	u64 evicted;

	pthread_mutex_lock(&room->lock);
	evicted = room->evicted;
	pthread_mutex_unlock(&room->lock);
	return evicted;
}

const char *room_owner(const struct room *room)
{
	return room->owner;
}

/* This boot of this host, and which of its systems of processes we are in */
static u64 host_id(void)
{
	char text[64] = "";
	struct stat st;
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));
	u64 ns = 0;

	if (fd >= 0)
		close(fd);
	if (!stat("/proc/self/ns/pid", &st))
		ns = st.st_ino;
	if (n > 0)
		return xxh64(text, sizeof(text), ns);
	/* A name that nobody has: it is never taken for gone but by its age. */
	if (getrandom(text, sizeof(text), GRND_NONBLOCK) < 0)
		return now_ns();
	return xxh64(text, sizeof(text), ns);
}

struct room *room_new(const char *dir, u64 cap)
{
	struct room *room = calloc(1, sizeof(*room));
	pthread_condattr_t attr;

	if (!room)
		return NULL;
	room->dir = dir;
	room->cap = cap;
	room->share = cap / SHARE;
	if (room->share < SHARE_MIN)
		room->share = SHARE_MIN;
	if (room->share > SHARE_MAX)
		room->share = SHARE_MAX;
	snprintf(room->owner, sizeof(room->owner), "%016llx-%x",
		 (unsigned long long)host_id(), getpid());
	pthread_mutex_init(&room->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&room->changed, &attr);
	pthread_condattr_destroy(&attr);
	room->aged = calloc(SAMPLE, sizeof(*room->aged));
	room->list = malloc(LIST_BYTES);
	if (!room->aged || !room->list) {
		room_free(room);
		errno = ENOMEM;
		return NULL;
	}
	return room;
}

void room_free(struct room *room)
{
	free(room->list);
	free(room->aged);
	pthread_cond_destroy(&room->changed);
	pthread_mutex_destroy(&room->lock);
	free(room);
}

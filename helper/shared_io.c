// SPDX-License-Identifier: GPL-2.0-only
/*
 * The lock is held for a few lines at a time, never around a call that touches
 * a file. A job is the loop's (IDLE, DONE), in a queue, or a reader's; its owner
 * is the loop's business alone. A copy is the loop's until it is whole, then in
 * the queue, then a writer's.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/random.h>
#include <unistd.h>

#include "breaker.h"
#include "log.h"
#include "shared_file.h"
#include "shared_io.h"
#include "shared_room.h"

#define STACK_BYTES	(128 << 10)
#define END_PATIENCE	(200 * NSEC_PER_MSEC)	/* for threads, at the end */
#define THREADS		(SHARED_READERS + SHARED_WRITERS + 1)
#define COPY_PIECES	((SHARED_MAX + SHARED_PIECE - 1) / SHARED_PIECE)

enum { URGENT, OTHER, CLASSES };
enum state { IDLE, QUEUED, READING, DONE };

struct shared_job {
	TAILQ_ENTRY(shared_job) link;	/* idle, queue[] or done */
	struct shared_key key;
	enum state state;
	bool urgent;
	bool probe;
	bool left;			/* nobody waits for it */
	void *owner;
	struct reader *reader;
	u64 begun;			/* a reader took it */
	u64 ended;
	int err;
};

TAILQ_HEAD(job_list, shared_job);

struct reader {
	struct shared *shared;
	u8 *entry;			/* SHARED_ENTRY_MAX */
	bool waits;			/* for the loop to have used @entry */
	pthread_cond_t used;
};

struct shared_copy {
	TAILQ_ENTRY(shared_copy) link;	/* idle or queue */
	struct shared_key key;
	u32 have;
	u32 pieces;			/* 0: the entry is to be removed */
	bool probe;
	u8 *piece[COPY_PIECES];
};

TAILQ_HEAD(copy_list, shared_copy);

struct shared {
	struct loop *loop;
	struct shared_options opt;
	struct room *room;
	int event;
	shared_fn fn;
	void *arg;
	struct job_list idle;
	struct shared_job *job;
	struct breaker breaker;		/* of lookups: the loop's */
	struct dice dice;
	u8 *pieces;

	pthread_mutex_t lock;		/* of all below */
	pthread_cond_t to_read;
	pthread_cond_t to_write;
	pthread_cond_t ended;
	bool stop;
	unsigned int threads;
	struct job_list queue[CLASSES];
	struct job_list done;
	struct copy_list copies;	/* idle ones */
	struct copy_list to_store;
	unsigned int removing;		/* writers that remove an entry now */
	struct shared_copy *copy;
	u8 *free_piece[SHARED_PIECES];
	u32 free_pieces;
	u64 number;			/* of the next file that is written */
	struct breaker writing;
	struct dice writing_dice;
	struct shared_stats stats;
	struct reader reader[SHARED_READERS];
};

/* Reading: the threads */

static void wake(struct shared *s)
{
	u64 one = 1;

	/* It cannot be full: the loop takes all at once. */
	if (write(s->event, &one, sizeof(one)) < 0)
		log_err("shared directory: eventfd: %s", strerror(errno));
}

static struct shared_job *next_job(struct shared *s)
{
	struct shared_job *job = TAILQ_FIRST(&s->queue[URGENT]);
	int class = job ? URGENT : OTHER;

	if (!job)
		job = TAILQ_FIRST(&s->queue[OTHER]);
	if (job)
		TAILQ_REMOVE(&s->queue[class], job, link);
	return job;
}

/*
 * A damaged entry is removed before the lookup ends: later, it could be the good
 * one that was written in its place.
 */
static void heal(struct shared *s, const struct shared_key *key,
		 const char *why)
{
	char name[SHARED_NAME];
	int err = shared_file_remove(s->opt.dir, key);

	shared_entry_name(key, name);
	log_warn("%s/%s: %s; %s", s->opt.dir, name, why, !err ? "removed" :
		 err == -ENOENT ? "gone" : strerror(-err));
	if (err)
		return;
	pthread_mutex_lock(&s->lock);
	s->stats.healed++;
	pthread_mutex_unlock(&s->lock);
}

static void read_job(struct reader *r, struct shared_job *job)
{
	struct shared *s = r->shared;
	struct shared_key key = job->key;
	const char *why = NULL;
	int fd, err;

	job->begun = now_ns();
	pthread_mutex_unlock(&s->lock);
	err = shared_file_read(s->opt.dir, &key, r->entry, &fd, &why);
	if (err == -EINVAL)
		heal(s, &key, why);
	pthread_mutex_lock(&s->lock);
	job->err = err;
	job->ended = now_ns();
	job->state = DONE;
	r->waits = true;
	TAILQ_INSERT_TAIL(&s->done, job, link);
	pthread_mutex_unlock(&s->lock);
	wake(s);
	shared_file_used(fd, !err);
	pthread_mutex_lock(&s->lock);
	while (r->waits && !s->stop)
		pthread_cond_wait(&r->used, &s->lock);
}

static void *reader_main(void *arg)
{
	struct reader *r = arg;
	struct shared *s = r->shared;
	struct shared_job *job;

	pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		job = next_job(s);
		if (!job) {
			pthread_cond_wait(&s->to_read, &s->lock);
			continue;
		}
		job->state = READING;
		job->reader = r;
		read_job(r, job);
	}
	s->threads--;
	pthread_cond_signal(&s->ended);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* Reading: the loop */

static void answered(struct shared *s)
{
	if (breaker_answered(&s->breaker))
		log_info("shared directory %s answers again, after %llu ms",
			 s->opt.dir, (unsigned long long)
			 (now_ns() - s->breaker.since) / NSEC_PER_MSEC);
}

static void failed(struct shared *s, bool probe, const char *why)
{
	if (breaker_failed(&s->breaker, probe, now_ns(), 0, &s->dice))
		log_warn("shared directory %s does not answer: %s; without it until it does",
			 s->opt.dir, why);
}

/* What does the end of a lookup tell? One that was left had its say then. */
static void judge(struct shared *s, const struct shared_job *job)
{
	bool said = !job->err || job->err == -ENOENT || job->err == -EINVAL;

	if (job->left && !job->probe)
		return;
	if (said && (!job->probe ||
		     job->ended - job->begun <= s->opt.patience_ns))
		answered(s);
	else
		failed(s, job->probe, said ? "it is slow" :
		       strerror(-job->err));
}

static void release(struct shared *s, struct shared_job *job)
{
	job->state = IDLE;
	TAILQ_INSERT_HEAD(&s->idle, job, link);
}

static void end_job(struct shared *s, struct shared_job *job)
{
	const u8 *bytes = NULL;

	judge(s, job);
	if (!job->left) {
		if (!job->err)
			bytes = job->reader->entry + sizeof(struct shared_head);
		if (bytes)
			s->stats.hits++;
		else
			s->stats.misses++;
		if (s->fn)
			s->fn(s->arg, job->owner, bytes);
	}
}

static void on_event(void *arg, int fd, u32 events)
{
	struct shared *s = arg;
	struct shared_job *job;
	u64 n;

	(void)events;
	if (read(fd, &n, sizeof(n)) < 0)
		return;
	pthread_mutex_lock(&s->lock);
	while ((job = TAILQ_FIRST(&s->done))) {
		TAILQ_REMOVE(&s->done, job, link);
		pthread_mutex_unlock(&s->lock);
		end_job(s, job);
		release(s, job);
		pthread_mutex_lock(&s->lock);
		job->reader->waits = false;
		pthread_cond_signal(&job->reader->used);
	}
	pthread_mutex_unlock(&s->lock);
}

static struct shared_job *queue_job(struct shared *s,
				    const struct shared_key *key, bool urgent)
{
	struct shared_job *job = TAILQ_FIRST(&s->idle);

	if (!job)
		return NULL;
	TAILQ_REMOVE(&s->idle, job, link);
	job->key = *key;
	job->urgent = urgent;
	job->probe = false;
	job->left = false;
	job->state = QUEUED;
	pthread_mutex_lock(&s->lock);
	TAILQ_INSERT_TAIL(&s->queue[urgent ? URGENT : OTHER], job, link);
	pthread_cond_signal(&s->to_read);
	pthread_mutex_unlock(&s->lock);
	return job;
}

/* This frame's lookup will tell whether there are answers; nobody waits. */
static void probe(struct shared *s, const struct shared_key *key)
{
	struct shared_job *job;

	if (!breaker_ready(&s->breaker, now_ns()))
		return;
	job = queue_job(s, key, false);
	if (!job)
		return;
	job->probe = true;
	job->left = true;
	breaker_started(&s->breaker, now_ns());
}

struct shared_job *shared_ask(struct shared *s, const struct shared_key *key,
			      bool urgent, void *owner)
{
	struct shared_job *job = NULL;

	if (!shared_fits(key))
		return NULL;
	if (s->breaker.open)
		probe(s, key);
	else
		job = queue_job(s, key, urgent);
	if (job)
		job->owner = owner;
	else
		s->stats.passed++;
	return job;
}

void shared_promote(struct shared *s, struct shared_job *job)
{
	pthread_mutex_lock(&s->lock);
	if (job->state == QUEUED && !job->urgent) {
		TAILQ_REMOVE(&s->queue[OTHER], job, link);
		TAILQ_INSERT_TAIL(&s->queue[URGENT], job, link);
		job->urgent = true;
	}
	pthread_mutex_unlock(&s->lock);
}

void shared_leave(struct shared *s, struct shared_job *job, bool late)
{
	bool queued;

	job->left = true;
	pthread_mutex_lock(&s->lock);
	queued = job->state == QUEUED;
	if (queued)
		TAILQ_REMOVE(&s->queue[job->urgent ? URGENT : OTHER], job,
			     link);
	pthread_mutex_unlock(&s->lock);
	if (queued)
		release(s, job);
	if (!late)
		return;
	s->stats.late++;
	failed(s, false, "a lookup takes too long");
}

u64 shared_patience(const struct shared *s)
{
	return s->opt.patience_ns;
}

/* Writing: the threads */

static void free_copy(struct shared *s, struct shared_copy *copy)
{
	while (copy->pieces)
		s->free_piece[s->free_pieces++] = copy->piece[--copy->pieces];
	TAILQ_INSERT_HEAD(&s->copies, copy, link);
}

/* Unlocked; returns a negative errno */
static int store(struct shared *s, struct shared_copy *copy, u64 number)
{
	u64 bytes = shared_room(copy->key.length);
	int err;

	err = room_take(s->room, bytes);
	if (err)
		return err;
	err = shared_file_write(s->opt.dir, &copy->key, room_owner(s->room),
				number, copy->piece);
	room_end(s->room, bytes);
	return err;
}

static void stored(struct shared *s, struct shared_copy *copy, int err)
{
	if (!err) {
		s->stats.stored++;
		if (breaker_answered(&s->writing))
			log_info("shared directory %s is written to again",
				 s->opt.dir);
		return;
	}
	s->stats.skipped++;
	if (err == -ECANCELED)
		return;
	if (breaker_failed(&s->writing, copy->probe, now_ns(), 0,
			   &s->writing_dice))
		log_warn("shared directory %s: cannot write: %s; now and then it is tried again",
			 s->opt.dir, strerror(-err));
}

static void write_copy(struct shared *s, struct shared_copy *copy)
{
	u64 number = s->number++;
	bool remove = !copy->pieces;
	int err = 0;

	s->removing += remove;
	pthread_mutex_unlock(&s->lock);
	if (remove)
		heal(s, &copy->key, "the module refused it");
	else
		err = store(s, copy, number);
	pthread_mutex_lock(&s->lock);
	s->removing -= remove;
	if (remove)
		pthread_cond_broadcast(&s->to_write);
	else
		stored(s, copy, err);
	free_copy(s, copy);
}

static void *writer_main(void *arg)
{
	struct shared *s = arg;
	struct shared_copy *copy;

	pthread_mutex_lock(&s->lock);
	while (!s->stop) {
		copy = TAILQ_FIRST(&s->to_store);
		/* What is removed may be what is to be written next. */
		if (!copy || s->removing) {
			pthread_cond_wait(&s->to_write, &s->lock);
			continue;
		}
		TAILQ_REMOVE(&s->to_store, copy, link);
		write_copy(s, copy);
	}
	s->threads--;
	pthread_cond_signal(&s->ended);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static void *room_thread(void *arg)
{
	struct shared *s = arg;

	room_main(s->room);
	pthread_mutex_lock(&s->lock);
	s->threads--;
	pthread_cond_signal(&s->ended);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* Writing: the loop */

static struct shared_copy *take_copy(struct shared *s,
				     const struct shared_key *key, u32 pieces)
{
	struct shared_copy *copy = TAILQ_FIRST(&s->copies);

	if (!copy || s->free_pieces < pieces)
		return NULL;
	TAILQ_REMOVE(&s->copies, copy, link);
	copy->key = *key;
	copy->have = 0;
	copy->probe = false;
	for (copy->pieces = 0; copy->pieces < pieces; copy->pieces++)
		copy->piece[copy->pieces] = s->free_piece[--s->free_pieces];
	return copy;
}

struct shared_copy *shared_copy(struct shared *s, const struct shared_key *key)
{
	struct shared_copy *copy = NULL;
	u64 now = now_ns();

	if (!shared_fits(key))
		return NULL;
	pthread_mutex_lock(&s->lock);
	if (breaker_ready(&s->writing, now))
		copy = take_copy(s, key, (key->length + SHARED_PIECE - 1) /
				 SHARED_PIECE);
	if (copy)
		copy->probe = breaker_started(&s->writing, now);
	else
		s->stats.skipped++;
	pthread_mutex_unlock(&s->lock);
	return copy;
}

void shared_copy_add(struct shared_copy *copy, const void *bytes, size_t len)
{
	const u8 *from = bytes;

	while (len) {
		u32 at = copy->have % SHARED_PIECE;
		size_t n = SHARED_PIECE - at;

		if (n > len)
			n = len;
		memcpy(copy->piece[copy->have / SHARED_PIECE] + at, from, n);
		copy->have += n;
		from += n;
		len -= n;
	}
}

void shared_copy_end(struct shared *s, struct shared_copy *copy, bool whole)
{
	pthread_mutex_lock(&s->lock);
	if (whole) {
		TAILQ_INSERT_TAIL(&s->to_store, copy, link);
		pthread_cond_signal(&s->to_write);
	} else {
		s->stats.skipped++;
		if (copy->probe)
			breaker_void(&s->writing);
		free_copy(s, copy);
	}
	pthread_mutex_unlock(&s->lock);
}

void shared_refuse(struct shared *s, const struct shared_key *key)
{
	struct shared_copy *copy;

	if (!shared_fits(key))
		return;
	pthread_mutex_lock(&s->lock);
	copy = take_copy(s, key, 0);
	if (copy) {
		TAILQ_INSERT_HEAD(&s->to_store, copy, link);
		pthread_cond_signal(&s->to_write);
	}
	pthread_mutex_unlock(&s->lock);
}

/* All of it */

void shared_stats(struct shared *s, struct shared_stats *stats)
{
	pthread_mutex_lock(&s->lock);
	*stats = s->stats;
	pthread_mutex_unlock(&s->lock);
	stats->evicted = room_evicted(s->room);
}

bool shared_down(const struct shared *s)
{
	return s->breaker.open;
}

void shared_listen(struct shared *s, shared_fn fn, void *arg)
{
	s->fn = fn;
	s->arg = arg;
}

static int start_thread(struct shared *s, void *(*fn)(void *arg), void *arg)
{
	pthread_attr_t attr;
	pthread_t thread;
	int err;

	err = pthread_attr_init(&attr);
	if (err)
		return -err;
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	/* Nobody can wait for one that hangs. */
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_mutex_lock(&s->lock);
	err = pthread_create(&thread, &attr, fn, arg);
	s->threads += !err;
	pthread_mutex_unlock(&s->lock);
	pthread_attr_destroy(&attr);
	return -err;
}

int shared_start(struct shared *s)
{
	int i, err = start_thread(s, room_thread, s);

	for (i = 0; !err && i < SHARED_WRITERS; i++)
		err = start_thread(s, writer_main, s);
	for (i = 0; !err && i < SHARED_READERS; i++)
		err = start_thread(s, reader_main, &s->reader[i]);
	return err;
}

static void init_dice(struct dice *dice)
{
	u64 seed;

	if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) < 0)
		seed = now_ns() ^ getpid();
	dice_init(dice, seed);
}

static bool take_memory(struct shared *s, u32 lookups)
{
	u32 i;

	s->room = room_new(s->opt.dir, s->opt.cap);
	/* Those that were left keep a reader each, and then there is the probe. */
	lookups += SHARED_READERS + 1;
	s->job = calloc(lookups, sizeof(*s->job));
	s->copy = calloc(SHARED_PIECES, sizeof(*s->copy));
	s->pieces = malloc((size_t)SHARED_PIECES * SHARED_PIECE);
	if (!s->room || !s->job || !s->copy || !s->pieces)
		return false;
	for (i = 0; i < lookups; i++)
		TAILQ_INSERT_TAIL(&s->idle, &s->job[i], link);
	for (i = 0; i < SHARED_PIECES; i++) {
		s->free_piece[s->free_pieces++] = s->pieces +
						  (size_t)i * SHARED_PIECE;
		TAILQ_INSERT_TAIL(&s->copies, &s->copy[i], link);
	}
	for (i = 0; i < SHARED_READERS; i++) {
		s->reader[i].shared = s;
		pthread_cond_init(&s->reader[i].used, NULL);
		s->reader[i].entry = malloc(SHARED_ENTRY_MAX);
		if (!s->reader[i].entry)
			return false;
	}
	return true;
}

static void free_all(struct shared *s)
{
	int i;

	if (s->room)
		room_free(s->room);
	for (i = 0; i < SHARED_READERS; i++)
		free(s->reader[i].entry);
	free(s->pieces);
	free(s->copy);
	free(s->job);
	if (s->event >= 0)
		close(s->event);
	pthread_cond_destroy(&s->ended);
	pthread_cond_destroy(&s->to_write);
	pthread_cond_destroy(&s->to_read);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

struct shared *shared_new(struct loop *loop, const struct shared_options *opt,
			  u32 lookups)
{
	struct shared *s = calloc(1, sizeof(*s));
	pthread_condattr_t attr;
	int err;

	if (!s)
		return NULL;
	s->loop = loop;
	s->opt = *opt;
	init_dice(&s->dice);
	init_dice(&s->writing_dice);
	s->number = s->dice.state;
	TAILQ_INIT(&s->idle);
	TAILQ_INIT(&s->queue[URGENT]);
	TAILQ_INIT(&s->queue[OTHER]);
	TAILQ_INIT(&s->done);
	TAILQ_INIT(&s->copies);
	TAILQ_INIT(&s->to_store);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->to_read, NULL);
	pthread_cond_init(&s->to_write, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->ended, &attr);
	pthread_condattr_destroy(&attr);
	s->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->event < 0 || !take_memory(s, lookups)) {
		err = errno;
		goto fail;
	}
	err = -loop_watch(loop, s->event, EPOLLIN, on_event, s);
	if (!err)
		return s;
fail:
	free_all(s);
	errno = err;
	return NULL;
}

void shared_free(struct shared *s)
{
	u64 until = now_ns() + END_PATIENCE;
	struct timespec ts = {
		.tv_sec = until / NSEC_PER_SEC,
		.tv_nsec = until % NSEC_PER_SEC,
	};
	unsigned int threads, i;

	loop_unwatch(s->loop, s->event);
	room_stop(s->room);
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_broadcast(&s->to_read);
	pthread_cond_broadcast(&s->to_write);
	for (i = 0; i < SHARED_READERS; i++)
		pthread_cond_signal(&s->reader[i].used);
	while (s->threads)
		if (pthread_cond_timedwait(&s->ended, &s->lock, &ts))
			break;
	threads = s->threads;
	pthread_mutex_unlock(&s->lock);
	if (!threads)
		free_all(s);
	else
		log_warn("shared directory %s: %u threads still wait for it",
			 s->opt.dir, threads);
}

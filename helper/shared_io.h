/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A directory that several hosts' daemons share: frames are looked for in it
 * before their server is asked, and go into it when the server has answered.
 *
 *	loop				threads
 *	shared_ask() ---- queue ----->	read, check
 *	shared_fn()  <--- eventfd ----
 *	shared_copy_add() ...
 *	shared_copy_end() - queue --->	take room, write, rename
 *
 * The loop never touches a file and never waits for a thread; it all goes on
 * without them. A lookup that is not answered within the patience is left, and
 * what comes of it later thrown away; BREAKER_FAILURES in sequence show that the
 * directory does not answer, and then nobody waits for it until a lookup that
 * nobody waits for was answered in time (breaker.h). Writing has a breaker of
 * its own. All memory is taken by shared_new(): what does not fit in is not
 * kept.
 */
#ifndef LF_SHARED_IO_H
#define LF_SHARED_IO_H

#include "loop.h"
#include "shared.h"

#define SHARED_READERS	8
#define SHARED_WRITERS	2
#define SHARED_PIECES	256	/* of SHARED_PIECE bytes: copies under way */

struct shared;
struct shared_job;
struct shared_copy;

/**
 * struct shared_options
 * @dir: absolute; NULL: there is none
 * @cap: bytes, see shared_room.h
 * @patience_ns: for a lookup
 */
struct shared_options {
	const char *dir;
	u64 cap;
	u64 patience_ns;
};

/**
 * struct shared_stats - since the start
 *
 * Frames that were looked for = @hits + @misses + @late.
 * @hits: were there
 * @misses: were not, or could not be read
 * @late: no answer came in time; their server was asked
 * @passed: frames that were not looked for, as the directory does not answer
 * @stored: frames that were written
 * @skipped: that were not: no room, writers behind, an error
 * @healed: entries that were removed as they were damaged, or as the module
 *	    had refused what is in them
 * @evicted: entries that were removed to make room
 */
struct shared_stats {
	u64 hits;
	u64 misses;
	u64 late;
	u64 passed;
	u64 stored;
	u64 skipped;
	u64 healed;
	u64 evicted;
};

/**
 * shared_fn - a lookup's end
 * @owner: as given to shared_ask()
 * @bytes: of the frame, valid until this returns; NULL: it is not there
 */
typedef void (*shared_fn)(void *arg, void *owner, const u8 *bytes);

/**
 * shared_new - memory, and an event of @loop's
 * @lookups: at once
 *
 * Return: NULL with errno set.
 */
struct shared *shared_new(struct loop *loop, const struct shared_options *opt,
			  u32 lookups);

/**
 * shared_start - the threads, which inherit what their creator may do
 *
 * Return: 0 or a negative errno.
 */
int shared_start(struct shared *s);

/* shared_listen - whom lookups' ends are for; NULL: nobody any more */
void shared_listen(struct shared *s, shared_fn fn, void *arg);

/**
 * shared_free - end the threads
 *
 * Those that do not end at once, as the directory hangs, are left behind with
 * all that they may touch: the process is expected to end.
 */
void shared_free(struct shared *s);

/**
 * shared_ask - look for a frame
 * @urgent: somebody waits for it: before those that are not
 *
 * Return: NULL: not now. Else exactly one shared_fn() follows, later, unless
 * shared_leave() comes first.
 */
struct shared_job *shared_ask(struct shared *s, const struct shared_key *key,
			      bool urgent, void *owner);
void shared_promote(struct shared *s, struct shared_job *job);
/* shared_leave - @late: out of patience; else the frame is wanted no longer */
void shared_leave(struct shared *s, struct shared_job *job, bool late);
u64 shared_patience(const struct shared *s);

/* shared_refuse - what the module got for this frame was wrong: remove it */
void shared_refuse(struct shared *s, const struct shared_key *key);

/**
 * shared_copy - begin to take a copy of a frame's bytes
 *
 * Return: NULL: it will not be kept. Else shared_copy_end() has to follow.
 */
struct shared_copy *shared_copy(struct shared *s,
				const struct shared_key *key);
void shared_copy_add(struct shared_copy *copy, const void *bytes, size_t len);
/* shared_copy_end - @whole: all of the frame was added; else it is dropped */
void shared_copy_end(struct shared *s, struct shared_copy *copy, bool whole);

/* shared_stats - the current ones */
void shared_stats(struct shared *s, struct shared_stats *stats);
/* shared_down - does it not answer now? */
bool shared_down(const struct shared *s);

#endif

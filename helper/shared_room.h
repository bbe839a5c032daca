/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How much a daemon may add to a shared directory, and what gives way.
 *
 * Hosts cannot know of each other but by the directory. So each one first says
 * there how much it may be about to add: its reservation, a file whose size is
 * the number. Then it lists the directory. If what is there and what all of them
 * have reserved exceed the cap together, it removes what was not used for the
 * longest time, and only then it adds anything, never more than it has
 * reserved. Of two that do that at the same time, at least one sees the other's
 * reservation.
 *
 *	entries + files being written <= cap
 *
 * holds at all times, then, as far as a listing shows what others did before it
 * began. Where the file system shows it later (NFS: acdirmax), what others
 * reserved within that time may come on top. What was there before, under a
 * larger cap, stays until somebody has something to add.
 *
 * The reservation of a process that is gone counts until somebody on its host
 * sees that it is gone, or ROOM_DEAD has passed; what it left half written, too.
 */
#ifndef LF_SHARED_ROOM_H
#define LF_SHARED_ROOM_H

#include "loop.h"
#include "shared.h"

#define ROOM_CAP_MIN	(16ULL << 20)
#define ROOM_DEAD	3600	/* seconds without a word of it */

struct room;

/**
 * room_new - memory alone; nothing is looked at
 * @dir: stays the caller's
 * @cap: bytes, at least ROOM_CAP_MIN
 *
 * Return: NULL with errno set.
 */
struct room *room_new(const char *dir, u64 cap);
void room_free(struct room *room);

/* room_owner - what the files of this process are called, see shared.h */
const char *room_owner(const struct room *room);

/**
 * room_main - what its thread does, until room_stop(): list, remove, reserve
 */
void room_main(struct room *room);
void room_stop(struct room *room);

/**
 * room_take - @bytes are about to be added
 *
 * Waits for as long as that has to be found out. May be called from several
 * threads. After 0 room_end() must follow, when they were, or were not.
 * Return: 0; -ENOSPC; -ECANCELED after room_stop(); another errno of the listing.
 */
int room_take(struct room *room, u64 bytes);
void room_end(struct room *room, u64 bytes);

/* room_evicted - entries that gave way by this process's doing */
u64 room_evicted(struct room *room);

#endif

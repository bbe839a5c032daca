/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The daemon's event loop: epoll and timers on CLOCK_MONOTONIC. One thread.
 */
#ifndef LF_LOOP_H
#define LF_LOOP_H

#include "../kmod/pure.h"

#define NSEC_PER_MSEC	1000000ULL
#define NSEC_PER_SEC	1000000000ULL
#define NEVER		UINT64_MAX

struct loop_slot;

struct loop {
	int epoll;
	int slots;		/* fds below this can be watched */
	struct loop_slot *slot;	/* by fd, so that a stale event finds nobody */
};

/**
 * loop_fn - what runs when a descriptor is ready
 * @events: EPOLLIN and so on
 */
typedef void (*loop_fn)(void *arg, int fd, u32 events);

/**
 * loop_init - all the memory that the loop will ever need is taken here
 *
 * Return: 0 or a negative errno.
 */
int loop_init(struct loop *loop);
void loop_exit(struct loop *loop);

/**
 * loop_watch - watch @fd, or change what it is watched for
 *
 * Return: 0 or a negative errno; -EMFILE where @fd is beyond the limit on open
 * files that loop_init() found.
 */
int loop_watch(struct loop *loop, int fd, u32 events, loop_fn fn, void *arg);

/* loop_unwatch - to be called before close(@fd); any fd is fine */
void loop_unwatch(struct loop *loop, int fd);

/**
 * loop_turn - wait for events and run what they call for
 *
 * Return: 0 or a negative errno.
 */
int loop_turn(struct loop *loop);

/**
 * loop_timer - a timer descriptor, not set
 *
 * @fn runs after each expiry; the expiry has been consumed by then.
 * Return: the fd or a negative errno.
 */
int loop_timer(struct loop *loop, loop_fn fn, void *arg);

/* timer_set - to go off once at @when (CLOCK_MONOTONIC ns); NEVER: not at all */
void timer_set(int timer, u64 when);

/* now_ns - CLOCK_MONOTONIC */
u64 now_ns(void);

#endif

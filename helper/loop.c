// SPDX-License-Identifier: GPL-2.0-only
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "loop.h"

#define MAX_SLOTS	65536
#define BATCH		64

struct loop_slot {
	loop_fn fn;		/* NULL: not watched */
	void *arg;
	bool timer;
};

u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

int loop_init(struct loop *loop)
{
	struct rlimit limit = { .rlim_cur = 1024 };

	getrlimit(RLIMIT_NOFILE, &limit);
	loop->slots = limit.rlim_cur < MAX_SLOTS ? limit.rlim_cur : MAX_SLOTS;
	loop->slot = calloc(loop->slots, sizeof(*loop->slot));
	if (!loop->slot)
		return -ENOMEM;
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll < 0) {
		int err = -errno;

		free(loop->slot);
		return err;
	}
	return 0;
}

void loop_exit(struct loop *loop)
{
	close(loop->epoll);
	free(loop->slot);
}

int loop_watch(struct loop *loop, int fd, u32 events, loop_fn fn, void *arg)
{
	struct epoll_event ev = { .events = events, .data.fd = fd };

	if (fd < 0 || fd >= loop->slots)
		return -EMFILE;
	/*
	 * Whether the kernel knows fd cannot be told from the slot alone: a
	 * descriptor that was closed without notice leaves its slot behind.
	 */
	if (epoll_ctl(loop->epoll, EPOLL_CTL_MOD, fd, &ev) &&
	    (errno != ENOENT || epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &ev)))
		return -errno;
	loop->slot[fd] = (struct loop_slot){ .fn = fn, .arg = arg };
	return 0;
}

void loop_unwatch(struct loop *loop, int fd)
{
	if (fd < 0 || fd >= loop->slots)
		return;
	epoll_ctl(loop->epoll, EPOLL_CTL_DEL, fd, NULL);
	loop->slot[fd].fn = NULL;
}

int loop_turn(struct loop *loop)
{
	struct epoll_event ev[BATCH];
	int i, n;

	n = epoll_wait(loop->epoll, ev, BATCH, -1);
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	for (i = 0; i < n; i++) {
		struct loop_slot *slot = &loop->slot[ev[i].data.fd];
		u64 expired;

		/* An earlier event of this batch may have ended the watch. */
		if (!slot->fn)
			continue;
		if (slot->timer &&
		    read(ev[i].data.fd, &expired, sizeof(expired)) < 0)
			continue;	/* set anew since */
		slot->fn(slot->arg, ev[i].data.fd, ev[i].events);
	}
	return 0;
}

int loop_timer(struct loop *loop, loop_fn fn, void *arg)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	int err;

	if (fd < 0)
		return -errno;
	err = loop_watch(loop, fd, EPOLLIN, fn, arg);
	if (err) {
		close(fd);
		return err;
	}
	loop->slot[fd].timer = true;
	return fd;
}

void timer_set(int timer, u64 when)
{
	struct itimerspec its = {};

	if (when != NEVER) {
		/* All zero would turn the timer off. */
		if (!when)
			when = 1;
		its.it_value.tv_sec = when / NSEC_PER_SEC;
		its.it_value.tv_nsec = when % NSEC_PER_SEC;
	}
	timerfd_settime(timer, TFD_TIMER_ABSTIME, &its, NULL);
}

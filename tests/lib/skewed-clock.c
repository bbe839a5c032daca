// SPDX-License-Identifier: GPL-2.0-only
/*
 * Preloaded, a program's clock is SKEW seconds ahead (environment).
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static time_t skew(void)
{
	const char *text = getenv("SKEW");

	return text ? atol(text) : 0;
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
	int (*real)(clockid_t id, struct timespec *ts);
	int err;

	*(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
	err = real(id, ts);
	if (!err && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		ts->tv_sec += skew();
	return err;
}

time_t time(time_t *out)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (out)
		*out = ts.tv_sec;
	return ts.tv_sec;
}

int gettimeofday(struct timeval *tv, void *zone)
{
	struct timespec ts;

	(void)zone;
	clock_gettime(CLOCK_REALTIME, &ts);
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = ts.tv_nsec / 1000;
	return 0;
}

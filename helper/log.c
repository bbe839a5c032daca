// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "log.h"
#include "loop.h"

/* A pipe that is ready for writing takes this much without waiting. */
#define LINE_BYTES	1024

/* Held for no longer than a write that does not wait. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct {
	bool verbose;
	bool journal;		/* stderr is the journal: lines get "<N>" */
	u64 second;
	unsigned int lines;	/* in this second */
	unsigned long dropped;
} state;

void log_init(int verbose)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	state.verbose = verbose;
	state.journal = stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
			!fstat(STDERR_FILENO, &st) && st.st_dev == dev &&
			st.st_ino == ino;
}

static bool put_line(const char *line, size_t len)
{
	struct pollfd fd = { .fd = STDERR_FILENO, .events = POLLOUT };
	ssize_t n;

	n = send(STDERR_FILENO, line, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno == ENOTSOCK) {
		/*
		 * O_NONBLOCK would be set for everyone who shares the open
		 * file, a terminal's shell among them: ask first instead.
		 */
		if (poll(&fd, 1, 0) != 1 || !(fd.revents & POLLOUT))
			return false;
		n = write(STDERR_FILENO, line, len);
	}
	return n == (ssize_t)len;
}

static size_t format_line(char *line, int priority, const char *fmt, va_list ap)
{
	size_t len = 0;
	int n;

	if (state.journal)
		len = sprintf(line, "<%d>", priority);
	else
		len = sprintf(line, "lazyframed: ");
	n = vsnprintf(line + len, LINE_BYTES - len, fmt, ap);
	if (n < 0)
		return 0;
	len += n;
	if (len > LINE_BYTES - 1)
		len = LINE_BYTES - 1;
	text_plain(line);
	line[len++] = '\n';
	return len;
}

static void report_dropped(const char *fmt, ...)
{
	char line[LINE_BYTES];
	va_list ap;
	size_t len;

	va_start(ap, fmt);
	len = format_line(line, LOG_WARNING, fmt, ap);
	va_end(ap);
	if (put_line(line, len))
		state.dropped = 0;
}

void log_line(int priority, const char *fmt, ...)
{
	u64 second = now_ns() / NSEC_PER_SEC;
	int saved = errno;
	char line[LINE_BYTES];
	va_list ap;
	size_t len;

	if (priority == LOG_DEBUG && !state.verbose)
		return;
	pthread_mutex_lock(&lock);
	if (second != state.second) {
		state.second = second;
		state.lines = 0;
	}
	if (!state.verbose && ++state.lines > LOG_BURST) {
		state.dropped++;
		goto out;
	}
	if (state.dropped)
		report_dropped("%lu log lines were dropped", state.dropped);
	va_start(ap, fmt);
	len = format_line(line, priority, fmt, ap);
	va_end(ap);
	if (!put_line(line, len))
		state.dropped++;
out:
	pthread_mutex_unlock(&lock);
	errno = saved;
}

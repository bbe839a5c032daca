// SPDX-License-Identifier: GPL-2.0-only
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "histogram.h"
#include "report.h"
#include "watch.h"

#define PERIOD_MS	1000
#define CTRL_C		3

/* On another screen, so that what was there comes back; no cursor. */
#define SCREEN_BEGIN	"\033[?1049h\033[?25l"
#define SCREEN_END	"\033[?25h\033[?1049l"
#define SCREEN_HOME	"\033[H"
#define LINE_END	"\033[K\n"
#define SCREEN_REST	"\033[J"

enum { HIT, STORE, FETCH, KINDS };

static const char *const kind_name[KINDS] = { "hit", "store", "fetch" };

/* What is looked at, once a second */
struct look {
	u64 ns;
	struct report report;
	struct histogram latency[KINDS];
};

/* What happened between two looks */
struct change {
	double seconds;
	double reads;		/* in a second, as all that follow */
	double read_bytes;
	double writes;
	double write_bytes;
	double fetched_bytes;
	double requests;
	double hits;		/* percent of reads; negative if there was none */
};

struct watch {
	const char *name;
	bool terminal;
	struct termios before;
	int signals;
	struct look *now;
	struct look *then;
	u64 lines;
};

static u64 now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int look(const char *name, struct look *l, struct error *e)
{
	char folder[64];
	int err, i;

	l->ns = now_ns();
	err = report_read(name, &l->report, e);
	if (err)
		return err;
	snprintf(folder, sizeof(folder), "/sys/dev/block/%u:%u/lazyframe",
		 l->report.device.major, l->report.device.minor);
	for (i = 0; i < KINDS; i++)
		histogram_read(folder, kind_name[i], &l->latency[i]);
	return 0;
}

/* A device that was made anew counts from 0 again. */
static double rate(const struct report_counters *now,
		   const struct report_counters *then, const char *name,
		   double seconds)
{
	u64 a = report_counter(then, name), b = report_counter(now, name);

	return (b >= a ? b - a : b) / seconds;
}

static struct change change(const struct look *now, const struct look *then)
{
	static const char *const quick[] = {
		"reads_memory", "reads_overlay", "reads_origin", "reads_zero"
	};
	const struct report_counters *own = &now->report.own;
	const struct report_counters *old = &then->report.own;
	const struct report_counters *module = &now->report.module;
	struct change c = { .seconds = (now->ns - then->ns) / 1e9 };
	double hits = 0;
	size_t i;

	c.reads = rate(own, old, "reads", c.seconds);
	c.read_bytes = rate(own, old, "read_bytes", c.seconds);
	c.writes = rate(own, old, "writes", c.seconds);
	c.write_bytes = rate(own, old, "write_bytes", c.seconds);
	c.fetched_bytes = rate(module, &then->report.module, "fill_bytes",
			       c.seconds);
	c.requests = rate(module, &then->report.module, "requests", c.seconds);
	for (i = 0; i < ARRAY_SIZE(quick); i++)
		hits += rate(own, old, quick[i], c.seconds);
	c.hits = c.reads > 0 ? 100 * hits / c.reads : -1;
	return c;
}

static void print_share(double share, char *text, size_t bytes)
{
	if (share < 0)
		snprintf(text, bytes, "-");
	else
		snprintf(text, bytes, "%.1f %%", share);
}

static void print_ns(u64 ns, char *text, size_t bytes)
{
	if (!ns)
		snprintf(text, bytes, "-");
	else if (ns == UINT64_MAX)
		snprintf(text, bytes, "> 67 s");
	else if (ns < 1000000)
		snprintf(text, bytes, "%lu us", ns / 1000);
	else if (ns < 1000000000)
		snprintf(text, bytes, "%.1f ms", ns / 1e6);
	else
		snprintf(text, bytes, "%.1f s", ns / 1e9);
}

static void size_line(const char *what, double times, double bytes)
{
	char size[32];

	report_size(bytes, size, sizeof(size));
	printf("%-10s %10.0f /s  %12s/s" LINE_END, what, times, size);
}

static void latency_line(const struct watch *w, int kind)
{
	struct histogram h = w->now->latency[kind];
	char p50[32], p99[32];

	histogram_minus(&h, &w->then->latency[kind]);
	print_ns(histogram_quantile(&h, 0.5), p50, sizeof(p50));
	print_ns(histogram_quantile(&h, 0.99), p99, sizeof(p99));
	printf("%-10s %10lu     %12s  %12s" LINE_END, kind_name[kind],
	       histogram_count(&h), p50, p99);
}

static void show_screen(const struct watch *w, const struct change *c)
{
	const struct report *r = &w->now->report;
	char share[32], size[32], limit[32];
	int i;

	print_share(c->hits, share, sizeof(share));
	fputs(SCREEN_HOME, stdout);
	printf("%s, %s%s%s" LINE_END LINE_END, r->device.name,
	       r->device.suspended ? "suspended, " : "",
	       r->info.helper ? "helper attached" : "no helper",
	       r->info.error_policy ? ", reads fail without one" : "");
	size_line("reads", c->reads, c->read_bytes);
	size_line("writes", c->writes, c->write_bytes);
	size_line("fetched *", c->requests, c->fetched_bytes);
	printf("%-10s %10s     of reads waited for nothing" LINE_END, "hits", share);
	printf("%-10s %10lu     reads" LINE_END LINE_END, "waiting",
	       r->info.field[DEVICE_WAITING]);
	printf("%-10s %10s     %12s  %12s" LINE_END, "latency", "reads",
	       "50 % below", "99 % below");
	for (i = 0; i < KINDS; i++)
		latency_line(w, i);
	report_size(r->info.field[DEVICE_CACHE_BYTES], size, sizeof(size));
	report_size(r->info.field[DEVICE_CACHE_LIMIT_BYTES], limit,
		    sizeof(limit));
	printf(LINE_END "%-10s %10s     of %s" LINE_END, "memory *", size,
	       limit);
	if (r->cow[0]) {
		report_size(report_dirty_bytes(r), size, sizeof(size));
		printf("%-10s %10s     mode %s" LINE_END, "dirty", size,
		       r->info.mode);
	}
	printf(LINE_END "* of all devices                              q: quit"
	       LINE_END SCREEN_REST);
}

static void show_line(struct watch *w, const struct change *c)
{
	char share[32], size[32], fetched[32];

	if (w->lines++ % 20 == 0)
		printf("%10s  %14s  %10s  %10s  %14s  %7s  %s\n", "READS/S",
		       "READ/S", "HITS", "WRITES/S", "FETCHED/S", "WAITING",
		       "HELPER");
	print_share(c->hits, share, sizeof(share));
	report_size(c->read_bytes, size, sizeof(size));
	report_size(c->fetched_bytes, fetched, sizeof(fetched));
	printf("%10.0f  %14s  %10s  %10.0f  %14s  %7lu  %s\n", c->reads, size,
	       share, c->writes, fetched,
	       w->now->report.info.field[DEVICE_WAITING],
	       w->now->report.info.helper ? "attached" : "none");
}

static int terminal_begin(struct watch *w, struct error *e)
{
	struct termios raw;

	w->terminal = isatty(STDOUT_FILENO) && isatty(STDIN_FILENO);
	if (!w->terminal)
		return 0;
	if (tcgetattr(STDIN_FILENO, &w->before)) {
		w->terminal = false;
		return error_set(e, -errno, "the terminal: %s",
				 strerror(errno));
	}
	raw = w->before;
	/* Its keys come as bytes: none shall stop us in the middle. */
	raw.c_lflag &= ~(ICANON | ECHO | ISIG);
	raw.c_cc[VMIN] = 0;
	raw.c_cc[VTIME] = 0;
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw);
	fputs(SCREEN_BEGIN, stdout);
	return 0;
}

static void terminal_end(struct watch *w)
{
	if (!w->terminal)
		return;
	fputs(SCREEN_END, stdout);
	fflush(stdout);
	tcsetattr(STDIN_FILENO, TCSAFLUSH, &w->before);
}

static bool wants_end(void)
{
	char keys[64];
	ssize_t n = read(STDIN_FILENO, keys, sizeof(keys));

	/* None behind POLLIN: the terminal is gone. */
	if (n <= 0)
		return true;
	while (n--)
		if (keys[n] == 'q' || keys[n] == 'Q' || keys[n] == CTRL_C)
			return true;
	return false;
}

/* Wait for the next second. Returns true if that is not to come. */
static bool pause_or_end(const struct watch *w)
{
	struct pollfd fds[2] = {
		{ .fd = w->signals, .events = POLLIN },
		{ .fd = w->terminal ? STDIN_FILENO : -1, .events = POLLIN },
	};
	u64 end = w->now->ns + PERIOD_MS * 1000000ULL, now;
	struct signalfd_siginfo info;

	while ((now = now_ns()) < end) {
		if (poll(fds, 2, (end - now) / 1000000 + 1) <= 0)
			continue;
		/* Taken: it shall not come once more when it is unblocked. */
		if (read(w->signals, &info, sizeof(info)) == sizeof(info) ||
		    (fds[1].revents && wants_end()))
			return true;
	}
	return false;
}

static int signals_begin(struct watch *w, sigset_t *before, struct error *e)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, before);
	w->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return w->signals < 0 ? error_set(e, -errno, "signals: %s",
					  strerror(errno)) : 0;
}

static int show(struct watch *w, struct error *e)
{
	struct change c = change(w->now, w->then);

	if (w->terminal)
		show_screen(w, &c);
	else
		show_line(w, &c);
	if (fflush(stdout))
		return error_set(e, -errno, "writing the output: %s",
				 strerror(errno));
	return 0;
}

static int turns(struct watch *w, struct look *looks, struct error *e)
{
	u64 turn = 0;
	int err;

	w->now = looks;
	err = look(w->name, w->now, e);
	while (!err && !pause_or_end(w)) {
		w->then = w->now;
		w->now = &looks[++turn % 2];
		report_drop(&w->now->report);
		err = look(w->name, w->now, e);
		if (!err)
			err = show(w, e);
	}
	report_drop(&looks[0].report);
	report_drop(&looks[1].report);
	return err;
}

int watch_device(const char *name, struct error *e)
{
	struct watch w = { .name = name, .signals = -1 };
	struct look *looks = calloc(2, sizeof(*looks));
	sigset_t before;
	int err;

	if (!looks)
		return no_memory(e);
	err = signals_begin(&w, &before, e);
	if (!err)
		err = terminal_begin(&w, e);
	if (!err)
		err = turns(&w, looks, e);
	terminal_end(&w);
	if (w.signals >= 0)
		close(w.signals);
	sigprocmask(SIG_SETMASK, &before, NULL);
	free(looks);
	return err;
}

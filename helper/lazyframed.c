// SPDX-License-Identifier: GPL-2.0-only
/*
 * lazyframed(8): fetches what the lazyframe module asks for.
 *
 * Nothing is kept here that the module could not give to the next instance, so
 * this process may be killed and started again at any moment. It may have to
 * work while the system has no memory left to give, and no disk to read from but
 * the one that it serves: so all its own memory is taken and locked at the
 * start, and no file is opened later but those that layers name, and, by a
 * thread that nobody waits for, those with credentials: all of them as the user
 * that it goes on as, so that nothing can be read at first only.
 */
#include <getopt.h>
#include <linux/prctl.h>
#include <malloc.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "channel.h"
#include "file.h"
#include "http.h"
#include "log.h"
#include "notify.h"
#include "privileges.h"
#include "secret.h"
#include "shared_file.h"
#include "shared_io.h"
#include "shared_room.h"
#include "tls.h"
#include "units.h"

#define CAFILE		"/etc/ssl/certs/ca-certificates.crt"
#define STATUS_EVERY	(5 * NSEC_PER_SEC)
#define BUSY_POLL_MS	200
#define RESOLVER_STACK	(256 << 10)
#define SHARED_TEXT	256

enum { EXIT_USAGE = 2, EXIT_REPLACED, EXIT_SESSION = 75 };	/* 75: EX_TEMPFAIL */

struct options {
	const char *device;
	const char *cafile;
	const char *user;
	struct fetch_options fetch;
	struct shared_options shared;
	bool wait;
	bool replace;
	bool verbose;
};

struct daemon {
	struct options opt;
	struct privileges privileges;
	struct loop loop;
	struct channel channel;
	struct fetch *fetch;
	struct transport *http;
	struct transport *file;
	struct shared *shared;
	int signals;
	int ticker;
	u64 tick;
	bool stop;
	int over;		/* a negative errno: the session has ended */
};

static const char usage_text[] =
"Usage: lazyframed [OPTION]...\n"
"Fetches what devices of the lazyframe module miss. See lazyframed(8).\n"
"\n"
"  --device PATH         the module's device (" LAZYFRAME_DEVICE ")\n"
"  --wait                if another helper is attached, wait for its end\n"
"  --replace             if another helper is attached, take over from it now\n"
"  --connections N       connections to one server (8)\n"
"  --range-max BYTES     longest range to ask for, suffixes K to T (8M)\n"
"  --gap-max BYTES       unwanted bytes to read over within a range (0)\n"
"  --connect-timeout S   seconds to look up a name, connect, start TLS (5)\n"
"  --stall-timeout S     seconds without a byte that end an attempt (10)\n"
"  --hedge PERCENT       ranges that may be asked for twice when late (5)\n"
"  --cafile FILE         certificate authorities for https, PEM\n"
"                        (" CAFILE ")\n"
"  --shared DIR          directory of frames, shared with other hosts\n"
"  --shared-size BYTES   what it may hold (16G)\n"
"  --shared-patience MS  milliseconds that a frame is looked for there (50)\n"
"  --user NAME           run as this user once the device is open\n"
"  --verbose             log each range\n"
"  --version, --help\n";

/* Options */

static bool parse_number(const char *text, u64 min, u64 max, u64 unit, u64 *n)
{
	bool good;
	u64 value;

	/* Only bytes have suffixes. */
	if (unit == 1)
		good = units_parse(text, &value) && value >= min && value <= max;
	else
		good = units_count(text, min, max, &value);
	if (!good)
		return false;
	*n = value * unit;
	return true;
}

static void bad_number(const char *name, const char *text, u64 min, u64 max)
{
	fprintf(stderr, "lazyframed: --%s %s: give a number from %llu to %llu\n",
		name, text, (unsigned long long)min, (unsigned long long)max);
	exit(EXIT_USAGE);
}

static void set_shared(struct options *opt, const char *dir)
{
	if (*dir != '/' || strlen(dir) >= SHARED_DIR) {
		fprintf(stderr, "lazyframed: --shared %s: give an absolute path below %d bytes\n",
			dir, SHARED_DIR);
		exit(EXIT_USAGE);
	}
	opt->shared.dir = dir;
}

static void parse_options(struct options *opt, int argc, char **argv)
{
	enum { DEVICE, WAIT, REPLACE, CONNECTIONS, RANGE_MAX, GAP_MAX, CONNECT, STALL,
	       HEDGE, SHARED_SIZE, SHARED_PATIENCE, SHARED, CAFILE_OPTION, USER,
	       VERBOSE, VERSION, HELP };
	static const struct option options[] = {
		[DEVICE] = { "device", required_argument, NULL, 0 },
		[WAIT] = { "wait", no_argument, NULL, 0 },
		[REPLACE] = { "replace", no_argument, NULL, 0 },
		[CONNECTIONS] = { "connections", required_argument, NULL, 0 },
		[RANGE_MAX] = { "range-max", required_argument, NULL, 0 },
		[GAP_MAX] = { "gap-max", required_argument, NULL, 0 },
		[CONNECT] = { "connect-timeout", required_argument, NULL, 0 },
		[STALL] = { "stall-timeout", required_argument, NULL, 0 },
		[HEDGE] = { "hedge", required_argument, NULL, 0 },
		[SHARED_SIZE] = { "shared-size", required_argument, NULL, 0 },
		[SHARED_PATIENCE] = { "shared-patience", required_argument, NULL, 0 },
		[SHARED] = { "shared", required_argument, NULL, 0 },
		[CAFILE_OPTION] = { "cafile", required_argument, NULL, 0 },
		[USER] = { "user", required_argument, NULL, 0 },
		[VERBOSE] = { "verbose", no_argument, NULL, 0 },
		[VERSION] = { "version", no_argument, NULL, 0 },
		[HELP] = { "help", no_argument, NULL, 0 },
		{ }
	};
	static const struct {
		u64 min, max, unit;
	} limit[] = {
		[CONNECTIONS] = { 1, 64, 1 },
		[RANGE_MAX] = { 4096, 1 << 30, 1 },
		[GAP_MAX] = { 0, 16 << 20, 1 },
		[CONNECT] = { 1, 3600, NSEC_PER_SEC },
		[STALL] = { 1, 3600, NSEC_PER_SEC },
		[HEDGE] = { 0, 100, 1 },
		[SHARED_SIZE] = { ROOM_CAP_MIN, 1ULL << 60, 1 },
		[SHARED_PATIENCE] = { 1, 60000, NSEC_PER_MSEC },
	};
	u64 n = 0;
	int i, c;

	while ((c = getopt_long(argc, argv, "", options, &i)) != -1) {
		if (c)
			exit(EXIT_USAGE);
		if (i < (int)ARRAY_SIZE(limit) && limit[i].unit &&
		    !parse_number(optarg, limit[i].min, limit[i].max,
				  limit[i].unit, &n))
			bad_number(options[i].name, optarg, limit[i].min,
				   limit[i].max);
		switch (i) {
		case DEVICE:
			opt->device = optarg;
			break;
		case WAIT:
			opt->wait = true;
			break;
		case REPLACE:
			opt->replace = true;
			break;
		case CONNECTIONS:
			opt->fetch.connections = n;
			break;
		case RANGE_MAX:
			opt->fetch.range_max = n;
			break;
		case GAP_MAX:
			opt->fetch.gap_max = n;
			break;
		case CONNECT:
			opt->fetch.connect_ns = n;
			break;
		case STALL:
			opt->fetch.stall_ns = n;
			break;
		case HEDGE:
			opt->fetch.hedge = n;
			break;
		case SHARED_SIZE:
			opt->shared.cap = n;
			break;
		case SHARED_PATIENCE:
			opt->shared.patience_ns = n;
			break;
		case SHARED:
			set_shared(opt, optarg);
			break;
		case CAFILE_OPTION:
			opt->cafile = optarg;
			break;
		case USER:
			opt->user = optarg;
			break;
		case VERBOSE:
			opt->verbose = true;
			break;
		case VERSION:
			puts("lazyframed " LF_VERSION);
			exit(0);
		case HELP:
			fputs(usage_text, stdout);
			exit(0);
		}
	}
	if (optind < argc) {
		fprintf(stderr, "lazyframed: unexpected argument \"%s\"; see --help\n",
			argv[optind]);
		exit(EXIT_USAGE);
	}
}

/* Memory */

/* Let libraries load now what they would otherwise load at the first use. */
static void warm_up(void)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *result = NULL;
	char *options;

	/* libcurl resolves names in threads; all of a stack gets locked. */
	pthread_attr_t attr;

	if (!pthread_attr_init(&attr)) {
		pthread_attr_setstacksize(&attr, RESOLVER_STACK);
		pthread_setattr_default_np(&attr);
		pthread_attr_destroy(&attr);
	}
	mallopt(M_ARENA_MAX, 2);
	/*
	 * A name that no hosts file has: down to the last source. Its answer
	 * does not matter, least of all where there is no network yet.
	 */
	options = getenv("RES_OPTIONS");
	options = options ? strdup(options) : NULL;
	setenv("RES_OPTIONS", "timeout:1 attempts:1", 1);
	if (!getaddrinfo("lazyframe.invalid", "80", &hints, &result))
		freeaddrinfo(result);
	if (options)
		setenv("RES_OPTIONS", options, 1);
	else
		unsetenv("RES_OPTIONS");
	free(options);
}

static void lock_memory(void)
{
	struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };

	/* With the limit gone, CAP_IPC_LOCK is not needed for later memory. */
	setrlimit(RLIMIT_MEMLOCK, &all);
	if (mlockall(MCL_CURRENT | MCL_FUTURE))
		log_warn("cannot lock memory: %s; reclaim may wait for this process to read its own pages",
			 strerror(errno));
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0))
		log_warn("PR_SET_IO_FLUSHER: %s; memory reclaim may wait for devices that wait for this process",
			 strerror(errno));
}

/* Events */

static void take(void *arg, const struct lazyframe_request *req)
{
	fetch_request(arg, req);
}

static void on_channel(void *arg, int fd, u32 events)
{
	struct daemon *d = arg;

	(void)fd;
	if (events & (EPOLLERR | EPOLLHUP))
		d->over = -ESTALE;
	else
		d->over = channel_take(&d->channel, take, d->fetch);
}

static void on_signal(void *arg, int fd, u32 events)
{
	struct signalfd_siginfo info;
	struct daemon *d = arg;

	(void)events;
	if (read(fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGHUP) {
		log_info("reading credentials again");
		http_reload(d->http);
		return;
	}
	log_info("stopping: %s", strsignal(info.ssi_signo));
	d->stop = true;
}

/* "", or what there is to say of the shared directory */
static const char *shared_text(struct daemon *d, char *text, size_t size)
{
	struct shared_stats s;

	*text = 0;
	if (!d->shared)
		return text;
	shared_stats(d->shared, &s);
	snprintf(text, size,
		 "; shared directory%s: %llu hits, %llu misses, %llu late, %llu not asked, %llu stored, %llu skipped, %llu healed, %llu evicted",
		 shared_down(d->shared) ? " (does not answer)" : "",
		 (unsigned long long)s.hits, (unsigned long long)s.misses,
		 (unsigned long long)s.late, (unsigned long long)s.passed,
		 (unsigned long long)s.stored, (unsigned long long)s.skipped,
		 (unsigned long long)s.healed, (unsigned long long)s.evicted);
	return text;
}

static void on_tick(void *arg, int fd, u32 events)
{
	struct daemon *d = arg;
	const struct fetch_stats *s = fetch_stats(d->fetch);
	char text[SHARED_TEXT];

	(void)events;
	notify("WATCHDOG=1\n"
	       "STATUS=%u requests open, %u ranges in flight, %u servers do not answer; %llu requests, %llu ranges (%llu second ones), %llu MiB, %llu retries, %llu failures so far%s",
	       s->open, s->running, fetch_down(d->fetch), (unsigned long long)s->requests,
	       (unsigned long long)s->ranges, (unsigned long long)s->hedges,
	       (unsigned long long)s->bytes >> 20,
	       (unsigned long long)s->retries, (unsigned long long)s->failed,
	       shared_text(d, text, sizeof(text)));
	timer_set(fd, now_ns() + d->tick);
}

/* Start */

static int attach(struct daemon *d)
{
	bool told = false;
	int err;

	while ((err = channel_attach(&d->channel, d->opt.device,
				     d->opt.replace)) == -EBUSY) {
		struct signalfd_siginfo info;

		if (!d->opt.wait) {
			log_err("%s: another helper is attached; give --replace to take over from it, or --wait to do so when it ends",
				d->opt.device);
			return err;
		}
		if (!told)
			log_info("%s: another helper is attached, waiting for its end",
				 d->opt.device);
		told = true;
		/* The module has no event for this. A signal ends it at once. */
		usleep(BUSY_POLL_MS * 1000);
		if (read(d->signals, &info, sizeof(info)) == sizeof(info) &&
		    info.ssi_signo != SIGHUP)
			return err;
	}
	return err;
}

static int block_signals(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static bool make_transports(struct daemon *d)
{
	struct http_options http = {
		.connections = d->opt.fetch.connections,
		.cafile = tls_cafile(d->opt.cafile),
		.verbose = d->opt.verbose,
	};

	if (!http.cafile && access(CAFILE, R_OK))
		log_warn("%s: %s; https will not work, see --cafile", CAFILE,
			 strerror(errno));
	else if (!http.cafile)
		http.cafile = CAFILE;
	d->http = http_new(&d->loop, &http);
	d->file = file_new(&d->loop, d->opt.fetch.connections);
	d->opt.fetch.transport[0] = d->http;
	d->opt.fetch.transport[1] = d->file;
	if (d->http && !d->file)
		log_err("cannot start: %s", strerror(errno));
	return d->http && d->file;
}

/* Once the number of tags is known; the threads when privileges are dropped. */
static bool make_fetcher(struct daemon *d)
{
	int err = 0;

	if (d->opt.shared.dir) {
		d->shared = shared_new(&d->loop, &d->opt.shared,
				       d->channel.tags);
		if (!d->shared)
			goto fail;
		err = shared_start(d->shared);
		if (err) {
			log_err("cannot start a thread: %s", strerror(-err));
			return false;
		}
		d->opt.fetch.shared = d->shared;
	}
	d->fetch = fetch_new(&d->loop, &d->channel.sink, d->channel.tags,
			     &d->opt.fetch);
	if (d->fetch)
		return true;
fail:
	log_err("cannot start: %s", strerror(errno));
	return false;
}

static bool watch_all(struct daemon *d)
{
	u64 watchdog = notify_watchdog();
	int err;

	err = loop_watch(&d->loop, d->channel.fd, EPOLLIN, on_channel, d);
	if (!err)
		err = loop_watch(&d->loop, d->signals, EPOLLIN, on_signal, d);
	if (!err) {
		d->ticker = loop_timer(&d->loop, on_tick, d);
		err = d->ticker < 0 ? d->ticker : 0;
	}
	if (err) {
		log_err("cannot start: %s", strerror(-err));
		return false;
	}
	d->tick = watchdog / 2 < STATUS_EVERY ? watchdog / 2 : STATUS_EVERY;
	if (notify_wanted())
		timer_set(d->ticker, now_ns() + d->tick);
	return true;
}

static int run(struct daemon *d)
{
	int err;

	/* Requests that an earlier helper left may be in the ring already. */
	err = channel_take(&d->channel, take, d->fetch);
	while (!d->stop && !err) {
		err = fetch_run(d->fetch);
		if (!err)
			err = loop_turn(&d->loop);
		if (!err)
			err = d->over;
	}
	if (err == -ESTALE) {
		log_info("another helper has replaced this one");
		return EXIT_REPLACED;
	}
	if (err)
		log_err("the session is over: %s; start again to begin another",
			strerror(-err));
	return err ? EXIT_SESSION : 0;
}

int main(int argc, char **argv)
{
	struct daemon d = {
		.opt = {
			.device = LAZYFRAME_DEVICE,
			.fetch = {
				.connections = 8,
				.range_max = 8 << 20,
				.stall_ns = 10 * NSEC_PER_SEC,
				.connect_ns = 5 * NSEC_PER_SEC,
				.hedge = 5,
			},
			.shared = {
				.cap = 16ULL << 30,
				.patience_ns = 50 * NSEC_PER_MSEC,
			},
		},
		.channel.fd = -1,
	};
	int status = EXIT_FAILURE, err;

	secret_hide();
	parse_options(&d.opt, argc, argv);
	log_init(d.opt.verbose);
	notify_init();
	d.signals = block_signals();
	err = loop_init(&d.loop);
	if (d.signals < 0 || err) {
		log_err("cannot start: %s", strerror(err ? -err : errno));
		return EXIT_FAILURE;
	}
	if (d.opt.user && privileges_find(&d.privileges, d.opt.user))
		goto out;
	if (channel_open(&d.channel, d.opt.device))
		goto out;
	lock_memory();
	if (privileges_drop(&d.privileges))
		goto out;
	/* Before the attach, all that takes time: from then on readers wait. */
	warm_up();
	if (!make_transports(&d))
		goto out;
	if (chdir("/"))
		log_warn("cannot change to /: %s", strerror(errno));
	if (attach(&d))
		goto out;
	if (!make_fetcher(&d) || !watch_all(&d))
		goto out;
	err = http_credentials(d.http);
	if (err) {
		log_err("cannot start a thread: %s", strerror(-err));
		goto out;
	}
	log_info("attached to %s, session %llu", d.opt.device,
		 (unsigned long long)d.channel.generation);
	notify("READY=1\nSTATUS=attached");
	status = run(&d);
	notify("STOPPING=1");
out:
	if (d.fetch)
		fetch_free(d.fetch);
	/* The module's session ends before there is anything to wait for. */
	channel_close(&d.channel);
	if (d.shared) {
		char text[SHARED_TEXT];

		log_info("frames%s", shared_text(&d, text, sizeof(text)));
		shared_free(d.shared);
	}
	/*
	 * All else ends with the process; so do threads that wait for a disk that
	 * does not answer, with credentials or an object on it.
	 */
	_exit(status);
}

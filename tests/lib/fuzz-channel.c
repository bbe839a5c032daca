// SPDX-License-Identifier: GPL-2.0-only
/*
 * fuzz-channel SEED SECONDS
 *
 * Does to /dev/lazyframe whatever can be done to it, in several threads and
 * processes on the same files: answers, right ones and all kinds of wrong ones,
 * sessions that begin, are replaced, shared by fork and die, ioctls, reads,
 * mappings, polls and addresses that come and go. A layer's locator is the path
 * of its object. Prints how often each call took what end.
 *
 * What it does not check is for others: readers, who compare every byte, the
 * kernel's log, and memory that must be free in the end.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/lazyframe.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define IDLE		EAGAIN	/* there was nothing to do it with */
#define THREADS		5
#define FILES		4
#define KNOWN		64
#define LAYERS		16
#define PAGE		4096
#define PLAYGROUND	(32 * PAGE)

enum op { OPEN, ATTACH, REPLACE, ODD_ATTACH, TAKE, ANSWER, SPOIL, LIE, RAW,
	  READ, POLL, LAYER, IOCTL, MAP, PROTECT, CHILD, OPS };

static const struct {
	const char *name;
	unsigned int weight;
} ops[OPS] = {
	[OPEN] = { "open", 1 },
	[ATTACH] = { "attach", 4 },
	[REPLACE] = { "replace", 1 },
	[ODD_ATTACH] = { "odd attach", 2 },
	[TAKE] = { "take", 250 },
	[ANSWER] = { "answer", 400 },
	[SPOIL] = { "wrong bytes", 10 },
	[LIE] = { "wrong answer", 80 },
	[RAW] = { "raw write", 20 },
	[READ] = { "read", 20 },
	[POLL] = { "poll", 20 },
	[LAYER] = { "layer", 20 },
	[IOCTL] = { "ioctl", 20 },
	[MAP] = { "mmap", 20 },
	[PROTECT] = { "mprotect", 20 },
	[CHILD] = { "child", 1 },
};

/* A file, and what its ring has shown. The lock is for the struct only. */
static struct file {
	pthread_mutex_t lock;
	int fd;
	__u64 generation;
	__u32 ring_bytes;
	const struct lazyframe_ring *ring;
	__u64 tail;
} files[FILES];

/* Requests that somebody took, to be answered by anybody on any file. */
static struct known {
	struct lazyframe_request req;
	int file;
} known[KNOWN], last;
static pthread_mutex_t known_lock = PTHREAD_MUTEX_INITIALIZER;

static struct layer {
	__u64 id;
	const char *bytes;
	size_t size;
} layers[LAYERS];
static unsigned int layer_count;
static pthread_mutex_t layer_lock = PTHREAD_MUTEX_INITIALIZER;

static unsigned long counts[OPS][134];	/* by errno; 0 is success */
static char *playground;		/* pages that come and go */
static volatile sig_atomic_t stop;

/* xorshift64* */
static __thread __u64 state;

static __u64 number(void)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * 0x2545f4914f6cdd1dULL;
}

static __u64 below(__u64 n)
{
	return number() % n;
}

static bool chance(unsigned int percent)
{
	return below(100) < percent;
}

/* Where mistakes in arithmetic show. */
static __u64 odd(void)
{
	switch (below(8)) {
	case 0:
		return 0;
	case 1:
		return below(3);
	case 2:
		return ~below(3);
	case 3:
		return 1ULL << below(64);
	case 4:
		return (1ULL << below(64)) - 1;
	case 5:
		return below(100000);
	default:
		return number();
	}
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static const struct layer *layer_of(int fd, __u64 id)
{
	struct lazyframe_layer_info info = { .layer = id };
	const struct layer *found = NULL;
	unsigned int i;
	off_t size;
	int object;

	pthread_mutex_lock(&layer_lock);
	for (i = 0; i < layer_count && !found; i++)
		if (layers[i].id == id)
			found = &layers[i];
	if (found || layer_count == LAYERS ||
	    ioctl(fd, LAZYFRAME_IOC_LAYER, &info))
		goto out;
	object = open(info.locator, O_RDONLY | O_CLOEXEC);
	if (object < 0)
		die(info.locator);
	size = lseek(object, 0, SEEK_END);
	layers[layer_count].id = id;
	layers[layer_count].size = size;
	layers[layer_count].bytes = mmap(NULL, size, PROT_READ, MAP_SHARED,
					 object, 0);
	if (layers[layer_count].bytes == MAP_FAILED)
		die("mmap of an object");
	close(object);
	found = &layers[layer_count++];
out:
	pthread_mutex_unlock(&layer_lock);
	return found;
}

/*
 * Operations. Each returns 0, an errno, or IDLE.
 */

static int result(long ret)
{
	return ret < 0 ? errno : 0;
}

static int reopen(struct file *f)
{
	int fd = open(LAZYFRAME_DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	int old;

	if (fd < 0)
		return errno;
	pthread_mutex_lock(&f->lock);
	if (f->ring)
		munmap((void *)f->ring, f->ring_bytes);
	f->ring = NULL;
	f->tail = 0;
	/* As dup2() does it: under the feet of who uses it just now. */
	old = dup2(fd, f->fd);
	pthread_mutex_unlock(&f->lock);
	close(fd);
	return result(old);
}

static int attach(struct file *f, __u32 flags)
{
	struct lazyframe_attach arg = { .abi = LAZYFRAME_ABI, .flags = flags };
	void *ring;
	int err = 0;

	pthread_mutex_lock(&f->lock);
	if (ioctl(f->fd, LAZYFRAME_IOC_ATTACH, &arg)) {
		err = errno;
		goto out;
	}
	f->generation = arg.generation;
	f->ring_bytes = arg.ring_bytes;
	ring = mmap(NULL, arg.ring_bytes, PROT_READ, MAP_SHARED, f->fd, 0);
	if (ring == MAP_FAILED)
		die("mmap of a ring");
	f->ring = ring;
	f->tail = 0;
out:
	pthread_mutex_unlock(&f->lock);
	return err;
}

static int odd_attach(struct file *f)
{
	struct lazyframe_attach arg = {
		.abi = chance(50) ? LAZYFRAME_ABI : odd(),
		.flags = odd(),
	};
	int fd, err;

	if (arg.flags <= LAZYFRAME_ATTACH_REPLACE)
		arg.abi = odd() & ~1;
	if (chance(50))
		return result(ioctl(f->fd, LAZYFRAME_IOC_ATTACH, &arg));
	/* on a file that is closed as soon as it has its session */
	fd = open(LAZYFRAME_DEVICE, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return errno;
	arg.abi = LAZYFRAME_ABI;
	arg.flags = chance(20) ? LAZYFRAME_ATTACH_REPLACE : 0;
	err = result(ioctl(fd, LAZYFRAME_IOC_ATTACH, &arg));
	close(fd);
	return err;
}

static int take(struct file *f)
{
	const struct lazyframe_request *req;
	__u64 head;
	int err = IDLE;

	pthread_mutex_lock(&f->lock);
	if (!f->ring)
		goto out;
	if (chance(50) && read(f->fd, &head, sizeof(head)) < 0 &&
	    errno != EAGAIN) {
		err = errno;
		goto out;
	}
	head = __atomic_load_n(&f->ring->head, __ATOMIC_ACQUIRE);
	if (head - f->tail > f->ring->entries) {
		fprintf(stderr, "head %llu, tail %llu\n", head, f->tail);
		exit(1);
	}
	for (; f->tail != head; f->tail++) {
		req = &f->ring->request[f->tail & (f->ring->entries - 1)];
		if (req->seq != f->tail || req->generation != f->generation) {
			fprintf(stderr, "entry %llu is %llu of %llu\n",
				f->tail, req->seq, req->generation);
			exit(1);
		}
		if (req->flags & LAZYFRAME_REQ_PROMOTE || chance(5))
			continue;
		pthread_mutex_lock(&known_lock);
		last = (struct known){ .req = *req, .file = f - files };
		known[number() % KNOWN] = last;
		pthread_mutex_unlock(&known_lock);
		err = 0;
	}
out:
	pthread_mutex_unlock(&f->lock);
	return err;
}

static bool pick(struct known *k)
{
	unsigned int i, n = number() % KNOWN;
	bool found = false;

	pthread_mutex_lock(&known_lock);
	for (i = 0; i < KNOWN && !found; i++) {
		*k = known[(n + i) % KNOWN];
		found = k->req.generation;
	}
	pthread_mutex_unlock(&known_lock);
	return found;
}

/* Some bytes of @req came, or it is over (@bytes 0). */
static void progress(const struct lazyframe_request *req, __u32 bytes)
{
	unsigned int i;

	pthread_mutex_lock(&known_lock);
	for (i = 0; i < KNOWN; i++) {
		struct lazyframe_request *r = &known[i].req;

		if (r->generation != req->generation || r->tag != req->tag)
			continue;
		r->have = req->have + bytes;
		if (!bytes || r->have >= r->length)
			memset(r, 0, sizeof(*r));
	}
	pthread_mutex_unlock(&known_lock);
}

static int send_fill(int fd, const struct lazyframe_fill *fill,
		     const void *bytes, size_t len)
{
	size_t cut = len ? below(len + 1) : 0;
	struct iovec iov[3] = {
		{ (void *)fill, sizeof(*fill) },
		{ (void *)bytes, cut },
		{ (char *)bytes + cut, len - cut },
	};

	return result(writev(fd, iov, 3));
}

static int answer(bool right)
{
	struct lazyframe_fill fill;
	const struct layer *layer;
	struct known k;
	char *bytes;
	__u32 left;
	int err;

	if (!pick(&k))
		return IDLE;
	layer = layer_of(files[k.file].fd, k.req.layer);
	if (!layer || k.req.offset + k.req.length > layer->size)
		return IDLE;
	left = k.req.length - k.req.have;
	fill = (struct lazyframe_fill){
		.generation = k.req.generation,
		.tag = k.req.tag,
		.offset = k.req.have,
		.length = chance(70) ? left : 1 + below(left),
	};
	bytes = (char *)layer->bytes + k.req.offset + k.req.have;
	if (right && chance(20)) {
		/* from pages that may not be there, or change */
		if (fill.length > PLAYGROUND / 2)
			fill.length = PLAYGROUND / 2;
		bytes = playground + below(PLAYGROUND / 2);
	} else if (!right) {
		bytes = malloc(fill.length);
		if (!bytes)
			die("malloc");
		memcpy(bytes, layer->bytes + k.req.offset + k.req.have,
		       fill.length);
		bytes[below(fill.length)] ^= 1 << below(8);
	}
	err = send_fill(files[k.file].fd, &fill, bytes, fill.length);
	if (!right)
		free(bytes);
	if (!err)
		progress(&k.req, fill.length);
	else if (err != EFAULT)
		progress(&k.req, 0);
	return err;
}

static int lie(void)
{
	static const char junk[70000];
	struct lazyframe_fill fill;
	struct known k;
	size_t len;

	if (!pick(&k) || chance(10)) {
		/* one that may be over */
		pthread_mutex_lock(&known_lock);
		k = last;
		pthread_mutex_unlock(&known_lock);
	}
	fill = (struct lazyframe_fill){
		.generation = chance(80) ? k.req.generation : odd(),
		.tag = chance(80) ? k.req.tag : odd(),
		.status = chance(60) ? 0 : chance(50) ? below(200) : odd(),
		.offset = chance(60) ? k.req.have : odd(),
		.length = chance(30) ? 0 : chance(50) ? below(70000) : odd(),
	};
	len = chance(80) && fill.length < sizeof(junk) ? fill.length :
	      below(sizeof(junk));
	return send_fill(files[chance(90) ? k.file : (int)below(FILES)].fd,
			 &fill, junk, len);
}

static int raw_write(int fd)
{
	struct iovec iov[4];
	unsigned int i;

	if (chance(50))
		return result(write(fd, playground + below(PLAYGROUND),
				    below(100)));
	for (i = 0; i < ARRAY_SIZE(iov); i++)
		iov[i] = (struct iovec){
			chance(70) ? playground + below(PLAYGROUND) :
				     (void *)odd(),
			chance(90) ? below(PLAYGROUND) : odd(),
		};
	return result(writev(fd, iov, below(ARRAY_SIZE(iov) + 1)));
}

static int do_read(int fd)
{
	char bytes[64];

	/* Now and then one that waits: signals end it. */
	fcntl(fd, F_SETFL, chance(97) ? O_NONBLOCK : 0);
	return result(read(fd, chance(90) ? bytes :
			   playground + below(PLAYGROUND), below(64)));
}

static int do_poll(int fd)
{
	struct pollfd p = { .fd = fd, .events = odd() };

	return result(poll(&p, 1, below(3)));
}

static int layer_info(int fd)
{
	struct lazyframe_layer_info info = {
		.layer = chance(70) ? below(30) : odd(),
	};

	return result(ioctl(fd, LAZYFRAME_IOC_LAYER, chance(90) ? (void *)&info :
			    playground + below(PLAYGROUND)));
}

static int do_ioctl(int fd)
{
	unsigned int nr = chance(50) ? odd() : _IOC(below(4), 'z', below(256),
						    below(1 << 14));

	/* A replacement is not what this one is for: it would be most of it. */
	if (_IOC_TYPE(nr) == 'z' && _IOC_NR(nr) == 0x40)
		nr ^= 1;
	return result(ioctl(fd, nr, playground + below(PLAYGROUND)));
}

static int do_map(struct file *f)
{
	size_t len = chance(50) ? f->ring_bytes : 1 + below(1 << 20);
	char *at;

	if (!len)
		return IDLE;
	at = mmap(NULL, len, chance(50) ? PROT_READ : below(8),
		  chance(70) ? MAP_SHARED : below(4), f->fd,
		  chance(80) ? 0 : (off_t)(odd() & ~(PAGE - 1ULL)));
	if (at == MAP_FAILED)
		return errno;
	if (mprotect(at, PAGE, PROT_READ | PROT_WRITE) == 0) {
		fprintf(stderr, "a ring that can be written\n");
		exit(1);
	}
	munmap(at, len);
	return 0;
}

static int protect(void)
{
	char *page = playground + below(PLAYGROUND / PAGE) * PAGE;

	if (chance(30))
		return result(madvise(page, PAGE, MADV_DONTNEED));
	return result(mprotect(page, PAGE, below(4)));
}

/* A process that shares a file, takes over from it or not, and is killed. */
static int child(struct file *f)
{
	struct lazyframe_attach arg = {
		.abi = LAZYFRAME_ABI,
		.flags = chance(50) ? LAZYFRAME_ATTACH_REPLACE : 0,
	};
	struct timespec nap = { .tv_nsec = below(5000000) };
	bool fresh = chance(70);
	pid_t pid = fork();
	char bytes[8];
	int fd = f->fd;

	if (pid < 0)
		return errno;
	if (!pid) {
		if (fresh) {
			fd = open(LAZYFRAME_DEVICE, O_RDWR);
			ioctl(fd, LAZYFRAME_IOC_ATTACH, &arg);
		}
		for (;;)
			if (read(fd, bytes, sizeof(bytes)) < 0)
				pause();
	}
	nanosleep(&nap, NULL);
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return 0;
}

static int run(enum op op)
{
	struct file *f = &files[below(FILES)];

	switch (op) {
	case OPEN:
		return reopen(f);
	case ATTACH:
		return attach(f, 0);
	case REPLACE:
		return attach(f, LAZYFRAME_ATTACH_REPLACE);
	case ODD_ATTACH:
		return odd_attach(f);
	case TAKE:
		return take(f);
	case ANSWER:
		return answer(true);
	case SPOIL:
		return answer(false);
	case LIE:
		return lie();
	case RAW:
		return raw_write(f->fd);
	case READ:
		return do_read(f->fd);
	case POLL:
		return do_poll(f->fd);
	case LAYER:
		return layer_info(f->fd);
	case IOCTL:
		return do_ioctl(f->fd);
	case MAP:
		return do_map(f);
	case PROTECT:
		return protect();
	default:
		return child(f);
	}
}

static void *thread(void *arg)
{
	unsigned int op, n, total = 0;
	int err;

	state = (__u64)arg;
	for (op = 0; op < OPS; op++)
		total += ops[op].weight;
	while (!stop) {
		n = below(total);
		for (op = 0; n >= ops[op].weight; op++)
			n -= ops[op].weight;
		err = run(op);
		if (err < 0 || err >= (int)ARRAY_SIZE(counts[0])) {
			fprintf(stderr, "%s: errno %d\n", ops[op].name, err);
			exit(1);
		}
		__atomic_add_fetch(&counts[op][err], 1, __ATOMIC_RELAXED);
		if (err == IDLE)
			sched_yield();
	}
	return NULL;
}

static void nothing(int sig)
{
	(void)sig;
}

static void print_counts(void)
{
	unsigned long all = 0;
	unsigned int op, err;

	for (op = 0; op < OPS; op++) {
		printf("%s:", ops[op].name);
		for (err = 0; err < ARRAY_SIZE(counts[0]); err++) {
			if (counts[op][err])
				printf(" %s %lu", err ? strerrorname_np(err) :
				       "done", counts[op][err]);
			all += counts[op][err];
		}
		printf("\n");
	}
	printf("%lu calls\n", all);
}

int main(int argc, char **argv)
{
	struct sigaction ignore = { .sa_handler = nothing };
	struct timespec tick = { .tv_nsec = 20000000 };
	pthread_t threads[THREADS];
	struct timespec now, end;
	unsigned int i;

	if (argc != 3) {
		fprintf(stderr, "usage: fuzz-channel SEED SECONDS\n");
		return 2;
	}
	playground = mmap(NULL, PLAYGROUND, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (playground == MAP_FAILED)
		die("mmap");
	state = strtoull(argv[1], NULL, 0) * 1000 + THREADS + 1;
	sigaction(SIGUSR1, &ignore, NULL);
	for (i = 0; i < FILES; i++) {
		pthread_mutex_init(&files[i].lock, NULL);
		files[i].fd = open(LAZYFRAME_DEVICE,
				   O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (files[i].fd < 0)
			die(LAZYFRAME_DEVICE);
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += atol(argv[2]);
	for (i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, thread,
				   (void *)(strtoull(argv[1], NULL, 0) * 1000 +
					    i + 1)))
			die("pthread_create");
	do {
		nanosleep(&tick, NULL);
		pthread_kill(threads[number() % THREADS], SIGUSR1);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec < end.tv_sec);
	stop = 1;
	for (i = 0; i < THREADS; i++)
		while (1) {
			struct timespec soon;

			clock_gettime(CLOCK_REALTIME, &soon);
			soon.tv_sec++;
			if (!pthread_timedjoin_np(threads[i], NULL, &soon))
				break;
			pthread_kill(threads[i], SIGUSR1);
		}
	print_counts();
	return 0;
}

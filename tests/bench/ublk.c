// SPDX-License-Identifier: GPL-2.0-only
/*
 * ublk FILE: serves FILE as a read-only ublk device, whose node it prints once it is
 * there, until SIGTERM: what a server of its kind can do at best. One thread, one
 * ring for everything, no copy of its own: the kernel is told where in the mapped
 * FILE the bytes lie, and copies them from there to the reader. FILE is a multiple
 * of 512 bytes and should lie in memory.
 *
 * It speaks to io_uring itself: a library would be one more thing to install.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/ioctl.h>
#include <linux/ublk_cmd.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DEPTH	128
#define IO_MAX	(1 << 20)
#define CONTROL	DEPTH	/* user_data of what is no request of the device's */

/* Of 6.12's header; that of Debian 12 has the bare numbers only. */
#define CONTROL_CMD(cmd) _IOWR('u', UBLK_CMD_##cmd, struct ublksrv_ctrl_cmd)
#define IO_CMD(cmd)	_IOWR('u', UBLK_IO_##cmd, struct ublksrv_io_cmd)

static struct {
	int fd;
	atomic_uint *sq_tail, *cq_head, *cq_tail;
	uint32_t *sq_array, sq_mask, cq_mask, to_submit;
	uint8_t *sqes;
	struct io_uring_cqe *cqes;
} ring;

static int control, queue = -1;
static uint32_t device = UINT32_MAX, served;
static uint64_t size;
static uint8_t *image;
static const struct ublksrv_io_desc *requests;
static volatile sig_atomic_t stopped;

static void die(const char *what, int error)
{
	fprintf(stderr, "ublk: %s: %s\n", what, strerror(error));
	exit(1);
}

static void stop(int sig)
{
	(void)sig;
	stopped = 1;
}

static void ring_open(void)
{
	struct io_uring_params p = {
		.flags = IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER |
			 IORING_SETUP_DEFER_TASKRUN,
	};
	size_t sq_size, cq_size;
	uint8_t *at;

	ring.fd = syscall(SYS_io_uring_setup, 2 * DEPTH, &p);
	if (ring.fd < 0)
		die("io_uring_setup", errno);
	sq_size = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
	cq_size = p.cq_off.cqes + p.cq_entries * sizeof(*ring.cqes);
	at = mmap(NULL, sq_size > cq_size ? sq_size : cq_size,
		  PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd,
		  IORING_OFF_SQ_RING);
	ring.sqes = mmap(NULL, p.sq_entries * 2 * sizeof(struct io_uring_sqe),
			 PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			 ring.fd, IORING_OFF_SQES);
	if (at == MAP_FAILED || ring.sqes == MAP_FAILED)
		die("mmap of the ring", errno);
	ring.sq_tail = (void *)(at + p.sq_off.tail);
	ring.sq_array = (void *)(at + p.sq_off.array);
	ring.sq_mask = p.sq_entries - 1;
	ring.cq_head = (void *)(at + p.cq_off.head);
	ring.cq_tail = (void *)(at + p.cq_off.tail);
	ring.cqes = (void *)(at + p.cq_off.cqes);
	ring.cq_mask = p.cq_entries - 1;
}

/*
 * Puts a command into the ring; the kernel takes it at the next ring_wait(). There
 * is room: each tag has one under way at most, and so has control.
 */
static void ring_put(int fd, uint32_t op, uint64_t user_data, const void *cmd,
		     size_t cmd_size)
{
	uint32_t tail = atomic_load_explicit(ring.sq_tail, memory_order_relaxed);
	uint32_t slot = tail & ring.sq_mask;
	struct io_uring_sqe *sqe;

	sqe = (void *)(ring.sqes + slot * 2 * sizeof(*sqe));
	memset(sqe, 0, 2 * sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = fd;
	sqe->cmd_op = op;
	sqe->user_data = user_data;
	memcpy(sqe->cmd, cmd, cmd_size);
	ring.sq_array[slot] = slot;
	atomic_store_explicit(ring.sq_tail, tail + 1, memory_order_release);
	ring.to_submit++;
}

/*
 * Submits what was put, and waits until something is done or a signal came, which
 * comes here only.
 */
static void ring_wait(void)
{
	const uint64_t none = 0;
	int n = syscall(SYS_io_uring_enter, ring.fd, ring.to_submit, 1,
			IORING_ENTER_GETEVENTS, &none, sizeof(none));

	if (n < 0 && errno != EINTR)
		die("io_uring_enter", errno);
	if (n > 0)
		ring.to_submit -= n;
}

static void put_request(uint32_t op, uint16_t tag, const void *at, int result)
{
	const struct ublksrv_io_cmd cmd = {
		.tag = tag, .result = result, .addr = (uintptr_t)at,
	};

	ring_put(queue, op, tag, &cmd, sizeof(cmd));
	served++;
}

/* A request of the device's is to be answered, or there will be no more. */
static void request(uint16_t tag, int res)
{
	const struct ublksrv_io_desc *io = &requests[tag];
	uint64_t at = io->start_sector << 9, bytes = (uint64_t)io->nr_sectors << 9;

	served--;
	if (res == UBLK_IO_RES_ABORT)
		return;
	if (res != UBLK_IO_RES_OK)
		die("fetch", -res);
	if (ublksrv_get_op(io) != UBLK_IO_OP_READ || bytes > IO_MAX ||
	    at > size || bytes > size - at)
		put_request(IO_CMD(COMMIT_AND_FETCH_REQ), tag, image, -EIO);
	else
		put_request(IO_CMD(COMMIT_AND_FETCH_REQ), tag, image + at,
			    (int)bytes);
}

/*
 * What is done is taken care of. Returns whether control's command is, whose result
 * is in *result then.
 */
static bool turn(int *result)
{
	uint32_t head = atomic_load_explicit(ring.cq_head, memory_order_relaxed);
	uint32_t tail;
	bool done = false;

	ring_wait();
	tail = atomic_load_explicit(ring.cq_tail, memory_order_acquire);
	for (; head != tail; head++) {
		const struct io_uring_cqe *cqe = &ring.cqes[head & ring.cq_mask];

		if (cqe->user_data == CONTROL) {
			*result = cqe->res;
			done = true;
		} else {
			request((uint16_t)cqe->user_data, cqe->res);
		}
	}
	atomic_store_explicit(ring.cq_head, head, memory_order_release);
	return done;
}

static void ask(const char *what, uint32_t op, const void *buf, uint16_t len,
		uint64_t data)
{
	const struct ublksrv_ctrl_cmd cmd = {
		.dev_id = device, .queue_id = UINT16_MAX, .len = len,
		.addr = (uintptr_t)buf, .data[0] = data,
	};
	int result = 0;

	ring_put(control, op, CONTROL, &cmd, sizeof(cmd));
	while (!turn(&result))
		;
	if (result < 0)
		die(what, -result);
}

#define ask_control(cmd, ...) ask(#cmd, CONTROL_CMD(cmd), __VA_ARGS__)

int main(int argc, char **argv)
{
	const size_t requests_size = DEPTH * sizeof(*requests);
	struct ublksrv_ctrl_dev_info info = {
		.nr_hw_queues = 1, .queue_depth = DEPTH,
		.max_io_buf_bytes = IO_MAX, .dev_id = UINT32_MAX,
		.ublksrv_pid = getpid(),
	};
	struct ublk_params params = {
		.len = sizeof(params), .types = UBLK_PARAM_TYPE_BASIC,
		.basic = {
			.attrs = UBLK_ATTR_READ_ONLY, .logical_bs_shift = 9,
			.physical_bs_shift = 12, .io_opt_shift = 12,
			.io_min_shift = 12, .max_sectors = IO_MAX >> 9,
		},
	};
	struct sigaction action = { .sa_handler = stop };
	sigset_t block;
	struct stat st;
	char path[32];
	int result = 0;
	int fd;

	if (argc != 2) {
		fprintf(stderr, "usage: ublk FILE\n");
		return 2;
	}
	fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		die(argv[1], errno);
	size = st.st_size;
	params.basic.dev_sectors = size >> 9;
	image = mmap(NULL, size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (image == MAP_FAILED)
		die(argv[1], errno);
	sigemptyset(&block);
	sigaddset(&block, SIGTERM);
	sigprocmask(SIG_BLOCK, &block, NULL);
	sigaction(SIGTERM, &action, NULL);
	ring_open();
	control = open("/dev/ublk-control", O_RDWR | O_CLOEXEC);
	if (control < 0)
		die("/dev/ublk-control: is the module ublk_drv there?", errno);

	ask_control(ADD_DEV, &info, sizeof(info), 0);
	device = info.dev_id;
	ask_control(SET_PARAMS, &params, sizeof(params), 0);
	snprintf(path, sizeof(path), "/dev/ublkc%u", device);
	queue = open(path, O_RDWR | O_CLOEXEC);
	if (queue < 0)
		die(path, errno);
	requests = mmap(NULL, requests_size, PROT_READ, MAP_SHARED | MAP_POPULATE,
			queue, UBLKSRV_CMD_BUF_OFFSET);
	if (requests == MAP_FAILED)
		die("mmap of the queue", errno);
	for (uint16_t tag = 0; tag < DEPTH; tag++)
		put_request(IO_CMD(FETCH_REQ), tag, image, 0);
	/* who looks for partitions is served meanwhile */
	ask_control(START_DEV, NULL, 0, getpid());
	printf("/dev/ublkb%u\n", device);
	fflush(stdout);

	while (!stopped)
		turn(&result);
	ask_control(STOP_DEV, NULL, 0, 0);
	while (served)
		turn(&result);
	munmap((void *)requests, requests_size);
	close(queue);
	ask_control(DEL_DEV, NULL, 0, 0);
	return 0;
}

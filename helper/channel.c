// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "channel.h"
#include "log.h"

static int channel_fill(struct sink *sink, struct lazyframe_fill *fill,
			const void *bytes)
{
	struct channel *c = (struct channel *)sink;
	struct iovec iov[2] = {
		{ .iov_base = fill, .iov_len = sizeof(*fill) },
		{ .iov_base = (void *)bytes, .iov_len = fill->length },
	};
	ssize_t n;

	fill->generation = c->generation;
	do {
		n = writev(c->fd, iov, fill->length ? 2 : 1);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		/* Our mistakes all, and the request stands as it was. */
		return errno == EFAULT || errno == EMSGSIZE ? -EINVAL : -errno;
	return n == (ssize_t)(sizeof(*fill) + fill->length) ? 0 : -EIO;
}

static int channel_layer(struct sink *sink, struct lazyframe_layer_info *info)
{
	struct channel *c = (struct channel *)sink;
	u64 layer = info->layer;

	if (ioctl(c->fd, LAZYFRAME_IOC_LAYER, info))
		return -errno;
	return info->layer == layer ? 0 : -EIO;
}

static void explain_open(const char *path, int err)
{
	switch (err) {
	case -ENOENT:
	case -ENODEV:
	case -ENXIO:
		log_err("%s: %s; load the module: modprobe lazyframe", path,
			strerror(-err));
		break;
	case -EACCES:
	case -EPERM:
		log_err("%s: %s; run as root, with CAP_SYS_ADMIN", path,
			strerror(-err));
		break;
	default:
		log_err("%s: %s", path, strerror(-err));
	}
}

static int begin_session(struct channel *c, const char *path, bool replace)
{
	struct lazyframe_attach arg = {
		.abi = LAZYFRAME_ABI,
		.flags = replace ? LAZYFRAME_ATTACH_REPLACE : 0,
	};

	if (ioctl(c->fd, LAZYFRAME_IOC_ATTACH, &arg)) {
		int err = -errno;

		if (err == -EPROTONOSUPPORT)
			log_err("%s: the module does not speak version %d of the protocol; install module and daemon of one release",
				path, LAZYFRAME_ABI);
		else if (err == -EINVAL && replace)
			log_err("%s: the module is older than --replace; stop the other helper, or give --wait",
				path);
		else if (err == -ENOTTY || err == -EINVAL)
			log_err("%s is not a device of the lazyframe module",
				path);
		else if (err != -EBUSY)
			log_err("%s: cannot attach: %s", path, strerror(-err));
		return err;
	}
	c->generation = arg.generation;
	c->ring_bytes = arg.ring_bytes;
	c->tags = arg.tags;
	return 0;
}

static int map_ring(struct channel *c, const char *path)
{
	const struct lazyframe_ring *ring;
	int err;

	ring = mmap(NULL, c->ring_bytes, PROT_READ, MAP_SHARED, c->fd, 0);
	if (ring == MAP_FAILED) {
		err = -errno;
		log_err("%s: cannot map the ring: %s", path, strerror(-err));
		return err;
	}
	c->ring = ring;
	if (!c->tags || c->ring_bytes < sizeof(*ring) ||
	    ring->entry_bytes != sizeof(ring->request[0]) || !ring->entries ||
	    ring->entries & (ring->entries - 1) ||
	    ring->entries > (c->ring_bytes - sizeof(*ring)) /
			    sizeof(ring->request[0])) {
		log_err("%s: the module describes its ring wrongly: %u tags, %u entries of %u bytes in %zu",
			path, c->tags, ring->entries, ring->entry_bytes,
			c->ring_bytes);
		return -EPROTO;
	}
	return 0;
}

int channel_open(struct channel *c, const char *path)
{
	int err;

	*c = (struct channel){
		.sink = { .fill = channel_fill, .layer = channel_layer },
	};
	c->fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (c->fd >= 0)
		return 0;
	err = -errno;
	explain_open(path, err);
	return err;
}

int channel_attach(struct channel *c, const char *path, bool replace)
{
	int err = begin_session(c, path, replace);

	return err ? err : map_ring(c, path);
}

void channel_close(struct channel *c)
{
	if (c->ring)
		munmap((void *)c->ring, c->ring_bytes);
	if (c->fd >= 0)
		close(c->fd);
	c->ring = NULL;
	c->fd = -1;
}

int channel_take(struct channel *c,
		 void (*take)(void *arg, const struct lazyframe_request *req),
		 void *arg)
{
	const struct lazyframe_ring *ring = c->ring;
	struct lazyframe_request req;
	u64 head;

	/*
	 * First clear EPOLLIN, then look: what is posted in between is taken
	 * now and announced once more, rather than never.
	 */
	if (read(c->fd, &head, sizeof(head)) < 0 && errno != EAGAIN &&
	    errno != EINTR) {
		if (errno == ESTALE)
			return -ESTALE;
		log_err("the module does not tell its requests: %s",
			strerror(errno));
		return -EPROTO;
	}
	head = __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE);
	if (head - c->tail > ring->entries) {
		log_err("the ring has gone from %llu to %llu requests at once, it has room for %u",
			(unsigned long long)c->tail, (unsigned long long)head,
			ring->entries);
		return -EPROTO;
	}
	for (; c->tail != head; c->tail++) {
		req = ring->request[c->tail & (ring->entries - 1)];
		if (req.seq != c->tail || req.generation != c->generation) {
			log_err("entry %llu of the ring is number %llu of session %llu, this is session %llu",
				(unsigned long long)c->tail,
				(unsigned long long)req.seq,
				(unsigned long long)req.generation,
				(unsigned long long)c->generation);
			return -EPROTO;
		}
		take(arg, &req);
	}
	return 0;
}

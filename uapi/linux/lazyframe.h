/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * lazyframe: the protocol between the module and its helper.
 *
 * The helper opens /dev/lazyframe (CAP_SYS_ADMIN), attaches, maps the request
 * ring read-only and polls. Each request names a run of bytes of one layer's
 * data object: one frame, in C space. The helper answers with writev() of one
 * struct lazyframe_fill and the bytes that it announces, as they arrive, in
 * order. The kernel copies the bytes once into pages of its own and checks
 * everything, so no memory is shared that both sides write.
 *
 *	helper				kernel
 *	open, ATTACH			new generation
 *	mmap				ring
 *	poll -> EPOLLIN			a request was posted
 *	read(fd, &head, 8)		clears EPOLLIN until the next post
 *	entries [tail, head)
 *	writev(fill, payload) ...	"have" grows; complete: readers go
 *	munmap and close, or death	generation + 1; requests that readers
 *					still wait for go to the next helper,
 *					from "have" on
 *
 * The next helper can also end the session itself, by ATTACH with
 * LAZYFRAME_ATTACH_REPLACE: then all its requests go on to the next one, and no
 * reader finds the module without a helper. For the one that was replaced poll
 * says EPOLLHUP, read and write fail with ESTALE.
 */
#ifndef _UAPI_LINUX_LAZYFRAME_H
#define _UAPI_LINUX_LAZYFRAME_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define LAZYFRAME_DEVICE	"/dev/lazyframe"
#define LAZYFRAME_ABI		1

/* Codec ids are those of the header format (0 none, 1 zstd, 2 LZ4). */
#define LAZYFRAME_CODEC_NONE	0
#define LAZYFRAME_CODEC_ZSTD	1
#define LAZYFRAME_CODEC_LZ4	2

/* Bytes. A compressed frame may exceed its content by the codec's bound. */
#define LAZYFRAME_MIN_FRAME	4096
#define LAZYFRAME_MAX_FRAME	(16 << 20)
#define LAZYFRAME_MAX_CFRAME	(LAZYFRAME_MAX_FRAME + (1 << 20))

#define LAZYFRAME_LOCATOR_MAX	2048	/* bytes, terminating NUL included */
#define LAZYFRAME_VALIDATOR_MAX	256	/* bytes, terminating NUL included */

/* Nobody waits for this frame yet; demand requests go first. */
#define LAZYFRAME_REQ_PREFETCH	(1U << 0)
/*
 * A reader now waits for a request that was posted as prefetch. Not a new
 * request: same tag, same frame; the deadline is the reader's. It may arrive
 * after the request's last answer was sent; then it is to be ignored.
 */
#define LAZYFRAME_REQ_PROMOTE	(1U << 1)
/*
 * The last answer for this frame came whole, but was not what it should be, and
 * was thrown away. It should come from where the object is, not from a cache that
 * may give the same bytes again. Helpers that do not know this ignore it.
 */
#define LAZYFRAME_REQ_AGAIN	(1U << 2)

/**
 * struct lazyframe_request - one entry of the ring
 * @seq: position in the ring's history; entry i of the ring holds the request
 *	 whose @seq modulo the number of entries is i
 * @generation: the session's, to be repeated in each answer
 * @layer: identity for LAZYFRAME_IOC_LAYER; never used again for another layer
 * @offset: C offset of the frame in the layer's object, bytes
 * @deadline: CLOCK_MONOTONIC nanoseconds by which the last attempt must have
 *	      ended, 0 for none; a little later its readers give up by themselves
 * @length: C length of the frame, bytes
 * @have: bytes of it that the kernel holds already; answers start here
 * @tag: names the request in answers; modulo the number of tags it is the
 *	 number of a slot that no other open request has
 * @flags: LAZYFRAME_REQ_*
 * @reserved: zero
 */
struct lazyframe_request {
	__u64 seq;
	__u64 generation;
	__u64 layer;
	__u64 offset;
	__u64 deadline;
	__u32 length;
	__u32 have;
	__u32 tag;
	__u32 flags;
	__u64 reserved;
};

/**
 * struct lazyframe_ring - what mmap() shows, read-only
 * @head: number of requests ever posted in this session; written by the kernel
 *	  with release, read by the helper with acquire semantics
 * @entries: size of @request, a power of two
 * @entry_bytes: sizeof(struct lazyframe_request)
 * @reserved: zero
 * @request: the entries. A request that was not read yet cannot have been
 *	     answered, so its slot is not used again; unread there can be, for
 *	     each tag, the promotion of the last request, the next request and
 *	     its promotion. @entries is at least three times the number of
 *	     tags, so none is overwritten before it was read.
 */
struct lazyframe_ring {
	__u64 head;
	__u32 entries;
	__u32 entry_bytes;
	__u64 reserved[6];
	struct lazyframe_request request[];
};

/**
 * struct lazyframe_fill - what each writev() starts with
 * @generation: of the request
 * @tag: of the request
 * @status: 0: @length bytes follow. Else a positive errno, no bytes follow, and
 *	    this is the last answer: ENOENT no such object, EACCES not allowed,
 *	    ESTALE the object is not the one that was attached, ETIMEDOUT the
 *	    deadline passed, EPROTO or EIO anything else.
 * @offset: position in the frame of the bytes, must be what the kernel has
 * @length: bytes that follow; @offset + @length must not exceed the request's
 *
 * The write's errors: ESTALE the generation is not the current one (another
 * helper took over), EINVAL the answer fits no open request, EFAULT a bad
 * address, EMSGSIZE the write is shorter or longer than @length says. After
 * EINVAL, EFAULT and EMSGSIZE the request stands as it was.
 */
struct lazyframe_fill {
	__u64 generation;
	__u32 tag;
	__u32 status;
	__u32 offset;
	__u32 length;
};

/*
 * End the session of the helper that is attached, if there is one. A module of
 * LAZYFRAME_ABI 1 that does not know this yet says EINVAL.
 */
#define LAZYFRAME_ATTACH_REPLACE	(1U << 0)

/**
 * struct lazyframe_attach - argument of LAZYFRAME_IOC_ATTACH
 * @abi: in: LAZYFRAME_ABI
 * @flags: in: LAZYFRAME_ATTACH_*
 * @generation: out: of the new session
 * @ring_bytes: out: length for mmap() at offset 0
 * @tags: out: the number of requests that can be open at once
 *
 * EBUSY: another helper is attached, or this file had its session already.
 * EPROTONOSUPPORT: @abi is not known. EINVAL: @flags are not.
 */
struct lazyframe_attach {
	__u32 abi;
	__u32 flags;
	__u64 generation;
	__u32 ring_bytes;
	__u32 tags;
};

/**
 * struct lazyframe_layer_info - argument of LAZYFRAME_IOC_LAYER
 * @layer: in: from a request
 * @csize: out: size of the data object, bytes; 0 where it is not known
 * @codec: out: LAZYFRAME_CODEC_*
 * @reserved: zero
 * @uuid: out: the layer's name
 * @locator: out: where its data object is, as given to the format command
 * @validator: out: entity tag seen then, empty where there was none
 *
 * ENOENT: no such layer (any more).
 */
struct lazyframe_layer_info {
	__u64 layer;
	__u64 csize;
	__u32 codec;
	__u32 reserved;
	__u8 uuid[16];
	char locator[LAZYFRAME_LOCATOR_MAX];
	char validator[LAZYFRAME_VALIDATOR_MAX];
};

#define LAZYFRAME_IOC_ATTACH	_IOWR('z', 0x40, struct lazyframe_attach)
#define LAZYFRAME_IOC_LAYER	_IOWR('z', 0x41, struct lazyframe_layer_info)

#endif /* _UAPI_LINUX_LAZYFRAME_H */

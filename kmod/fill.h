/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Does an answer of the helper fit the request that it names? Pure code.
 */
#ifndef LF_FILL_H
#define LF_FILL_H

#include <linux/lazyframe.h>

#include "pure.h"

#define LF_FILL_MAX_STATUS	4095	/* as MAX_ERRNO */

/**
 * lf_fill_check - check one answer before anything of it is used
 * @fill: the answer's head; a private copy, the helper cannot change it
 * @payload: bytes that were written behind the head
 * @generation: the session's
 * @tag: of the open request that @fill->tag led to
 * @have: bytes of its frame that the kernel holds
 * @cbytes: C length of its frame
 *
 * For an answer that leads to no open request, the caller returns -EINVAL by
 * itself, but after the checks of generation and payload: so it calls this
 * with @tag = ~@fill->tag. Any context.
 *
 * Return: 0 if @payload bytes are to be copied to @have or, with a status,
 * the request has failed; -ESTALE, -EMSGSIZE, -EINVAL as struct lazyframe_fill
 * describes them.
 */
static inline int lf_fill_check(const struct lazyframe_fill *fill,
				size_t payload, u64 generation, u32 tag,
				u32 have, u32 cbytes)
{
	if (fill->generation != generation)
		return -ESTALE;
	if (payload != fill->length)
		return -EMSGSIZE;
	if (fill->tag != tag)
		return -EINVAL;
	if (fill->status) {
		/* @offset is the position of bytes, and there are none. */
		if (fill->length || fill->status > LF_FILL_MAX_STATUS)
			return -EINVAL;
		return 0;
	}
	if (!fill->length || fill->offset != have || have > cbytes ||
	    fill->length > cbytes - have)
		return -EINVAL;
	return 0;
}

#endif /* LF_FILL_H */

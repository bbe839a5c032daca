/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The LZ4 frame format (version 1.6.x of its description) around the LZ4
 * block decoder, which is all that the kernel has. Pure code.
 */
#ifndef LF_LZ4FRAME_H
#define LF_LZ4FRAME_H

#include "pure.h"

/**
 * lf_lz4_frame_decode - decode one complete LZ4 frame
 * @src: the frame, nothing before it and nothing behind it
 * @slen: its size, bytes
 * @dst: where the content goes
 * @dlen: the content's exact size, bytes; never written past
 * @check: compare the sums of blocks and of the content, where there are any; not needed
 *	   for what was decoded with it before
 * @why: out, static sentence for errors
 *
 * Accepts independent blocks of 64 KiB to 4 MiB, stored (uncompressed) blocks, block
 * checksums, content size, content checksum. The header checksum is always compared.
 * Refuses linked blocks and dictionaries.
 * Any context that may spend milliseconds; neither sleeps nor allocates.
 *
 * Return: 0, or -EBADMSG where the frame is not what @dlen and its own
 * checksums say, -EOPNOTSUPP for a feature that is refused.
 */
int lf_lz4_frame_decode(const void *src, size_t slen, void *dst, size_t dlen,
			bool check, const char **why);

#endif /* LF_LZ4FRAME_H */

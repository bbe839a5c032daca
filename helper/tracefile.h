/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A trace: the frames of an image in the order in which they were first read.
 *
 * Layers are named by their UUIDs and frames by their U offsets, so that a trace
 * also serves another image for the layers that both have. As bytes, all numbers
 * little-endian:
 *
 *	8	"LZYTRACE"
 *	4	version, 1
 *	4	number of layers, at most 65535
 *	4	number of entries, at most 1048576
 *	4	traces that were merged into it, 1 for a recorded one
 *	16	UUID of the image that was read
 *	24 each	layers: UUID (16), size in U space (8)
 *	8 each	entries: the layer's number in the upper 16 bits, the U offset of
 *		the frame in the lower 48
 *	8	XXH64 of all before it, seed 0
 */
#ifndef LF_TRACEFILE_H
#define LF_TRACEFILE_H

#include "../kmod/pure.h"
#include "error.h"

#define TRACE_SUFFIX		".trace"
#define TRACE_MAX_LAYERS	65535U
#define TRACE_MAX_ENTRIES	(1U << 20)
#define TRACE_MAX_BYTES		(16ULL << 20)
#define TRACE_SHIFT		48
#define TRACE_OFFSETS		(1ULL << TRACE_SHIFT)

struct trace_layer {
	u8 uuid[16];
	u64 ubytes;
};

/**
 * struct trace - as above; all zero: empty
 * @layer: @layers of them, malloc()ed
 * @entry: @entries of them, malloc()ed
 */
struct trace {
	u8 image[16];
	u32 layers;
	u32 entries;
	u32 merged;
	struct trace_layer *layer;
	u64 *entry;
};

static inline u64 trace_entry(u32 layer, u64 upos)
{
	return (u64)layer << TRACE_SHIFT | upos;
}

static inline u32 trace_entry_layer(u64 entry)
{
	return entry >> TRACE_SHIFT;
}

static inline u64 trace_entry_upos(u64 entry)
{
	return entry & (TRACE_OFFSETS - 1);
}

void trace_free(struct trace *trace);

/**
 * trace_parse - check bytes that claim to be a trace, and read them
 * @trace: out; empty after an error
 */
int trace_parse(const void *data, size_t bytes, struct trace *trace,
		struct error *e);

/**
 * trace_bytes - a trace as bytes
 * @data: out, malloc()ed
 */
int trace_bytes(const struct trace *trace, void **data, size_t *bytes,
		struct error *e);

/**
 * trace_merge - one order out of several
 * @share: percent of the traces that must have a frame for it to be kept
 * @out: empty
 *
 * Frames are sorted by the median of their positions in those traces that have
 * them, the lower one of two in the middle; ties by layer, as the layers first come
 * in @in, and U offset. So the order of the traces does not matter, but for ties.
 * The image is that of the first.
 */
int trace_merge(const struct trace *in, unsigned int count,
		unsigned int share, struct trace *out, struct error *e);

/**
 * trace_map - the entries in terms of other layers
 * @layer: what there is, @layers of them
 * @entry: out, malloc()ed: entries of layers that are there, with their
 *	   numbers in @layer
 *
 * Return: how many entries, or a negative errno.
 */
int trace_map(const struct trace *trace, const struct trace_layer *layer,
	      u32 layers, u64 **entry, struct error *e);

#endif

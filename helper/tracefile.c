// SPDX-License-Identifier: GPL-2.0-only
#include <stdlib.h>

#include "tracefile.h"

#define MAGIC		"LZYTRACE"
#define VERSION		1
#define HEAD_BYTES	40
#define LAYER_BYTES	24
#define SUM_BYTES	8

void trace_free(struct trace *trace)
{
	free(trace->layer);
	free(trace->entry);
	*trace = (struct trace){};
}

static int trace_alloc(struct trace *trace, u32 layers, u32 entries,
		       struct error *e)
{
	trace->layers = layers;
	trace->entries = entries;
	trace->layer = calloc(layers + 1, sizeof(*trace->layer));
	trace->entry = calloc(entries + 1, sizeof(*trace->entry));
	if (trace->layer && trace->entry)
		return 0;
	trace_free(trace);
	return error_set(e, -ENOMEM, "no memory for a trace of %u frames",
			 entries);
}

static size_t size_of(u32 layers, u32 entries)
{
	return HEAD_BYTES + (size_t)layers * LAYER_BYTES +
	       (size_t)entries * sizeof(u64) + SUM_BYTES;
}

static int parse(const u8 *p, struct trace *trace, struct error *e)
{
	u32 i;

	for (i = 0; i < trace->layers; i++, p += LAYER_BYTES) {
		memcpy(trace->layer[i].uuid, p, sizeof(trace->layer[i].uuid));
		trace->layer[i].ubytes = lf_get_le64(p + 16);
		if (trace->layer[i].ubytes > TRACE_OFFSETS)
			return error_set(e, -EINVAL,
					 "layer %u is larger than can be", i);
	}
	for (i = 0; i < trace->entries; i++, p += sizeof(u64)) {
		u64 entry = lf_get_le64(p);
		u32 layer = trace_entry_layer(entry);

		if (layer >= trace->layers ||
		    trace_entry_upos(entry) >= trace->layer[layer].ubytes)
			return error_set(e, -EINVAL,
					 "entry %u lies in no layer", i);
		trace->entry[i] = entry;
	}
	return 0;
}

int trace_parse(const void *data, size_t bytes, struct trace *trace,
		struct error *e)
{
	const u8 *p = data;
	u32 layers, entries;
	int err;

	*trace = (struct trace){};
	if (bytes < HEAD_BYTES + SUM_BYTES || memcmp(p, MAGIC, 8))
		return error_set(e, -EINVAL, "this is no trace");
	if (lf_get_le32(p + 8) != VERSION)
		return error_set(e, -EINVAL,
				 "version %u of the format is not known here",
				 lf_get_le32(p + 8));
	layers = lf_get_le32(p + 12);
	entries = lf_get_le32(p + 16);
	if (layers > TRACE_MAX_LAYERS || entries > TRACE_MAX_ENTRIES)
		return error_set(e, -EFBIG,
				 "%u layers and %u frames, more than %u and %u",
				 layers, entries, TRACE_MAX_LAYERS,
				 TRACE_MAX_ENTRIES);
	if (bytes != size_of(layers, entries))
		return error_set(e, -EINVAL,
				 "%zu bytes where %zu should be: it was cut off, or is damaged",
				 bytes, size_of(layers, entries));
	if (lf_get_le64(p + bytes - SUM_BYTES) !=
	    xxh64(p, bytes - SUM_BYTES, 0))
		return error_set(e, -EBADMSG,
				 "the checksum is wrong: it is damaged");
	err = trace_alloc(trace, layers, entries, e);
	if (err)
		return err;
	trace->merged = lf_get_le32(p + 20);
	memcpy(trace->image, p + 24, sizeof(trace->image));
	err = parse(p + HEAD_BYTES, trace, e);
	if (err)
		trace_free(trace);
	return err;
}

int trace_bytes(const struct trace *trace, void **data, size_t *bytes,
		struct error *e)
{
	u8 *start, *p;
	u32 i;

	*bytes = size_of(trace->layers, trace->entries);
	start = malloc(*bytes);
	if (!start)
		return error_set(e, -ENOMEM, "no memory for %zu bytes", *bytes);
	memcpy(start, MAGIC, 8);
	p = lf_put_le32(start + 8, VERSION);
	p = lf_put_le32(p, trace->layers);
	p = lf_put_le32(p, trace->entries);
	p = lf_put_le32(p, trace->merged);
	memcpy(p, trace->image, sizeof(trace->image));
	p += sizeof(trace->image);
	for (i = 0; i < trace->layers; i++) {
		memcpy(p, trace->layer[i].uuid, 16);
		p = lf_put_le64(p + 16, trace->layer[i].ubytes);
	}
	for (i = 0; i < trace->entries; i++)
		p = lf_put_le64(p, trace->entry[i]);
	lf_put_le64(p, xxh64(start, p - start, 0));
	*data = start;
	return 0;
}

/* Merging */

struct seen {
	u64 entry;
	u32 position;
	u32 trace;
};

struct ranked {
	u64 entry;
	u32 position;
};

static int by_entry(const void *left, const void *right)
{
	const struct seen *a = left, *b = right;

	if (a->entry != b->entry)
		return a->entry < b->entry ? -1 : 1;
	if (a->trace != b->trace)
		return a->trace < b->trace ? -1 : 1;
	return (a->position > b->position) - (a->position < b->position);
}

static int by_position(const void *left, const void *right)
{
	const struct seen *a = left, *b = right;

	return (a->position > b->position) - (a->position < b->position);
}

static int by_rank(const void *left, const void *right)
{
	const struct ranked *a = left, *b = right;

	if (a->position != b->position)
		return a->position < b->position ? -1 : 1;
	return (a->entry > b->entry) - (a->entry < b->entry);
}

/* The number of a layer in @out, which has room for one more */
static int layer_in(struct trace *out, const struct trace_layer *layer,
		    u32 *number, struct error *e)
{
	u32 i;

	for (i = 0; i < out->layers; i++)
		if (!memcmp(out->layer[i].uuid, layer->uuid, 16))
			break;
	*number = i;
	if (i == TRACE_MAX_LAYERS)
		return error_set(e, -EFBIG, "more than %u layers together",
				 TRACE_MAX_LAYERS);
	if (i == out->layers)
		out->layer[out->layers++] = *layer;
	else if (out->layer[i].ubytes != layer->ubytes)
		return error_set(e, -EINVAL,
				 "a layer of one UUID has two sizes");
	return 0;
}

/* All entries of @in in terms of @out's layers */
static int collect(const struct trace *in, u32 trace, struct trace *out,
		   struct seen *seen, struct error *e)
{
	u32 *number = calloc(in->layers + 1, sizeof(*number));
	int err = number ? 0 : no_memory(e);
	u32 i;

	for (i = 0; i < in->layers && !err; i++)
		err = layer_in(out, &in->layer[i], &number[i], e);
	for (i = 0; i < in->entries && !err; i++)
		seen[i] = (struct seen) {
			.entry = trace_entry(number[trace_entry_layer(in->entry[i])],
					     trace_entry_upos(in->entry[i])),
			.position = i,
			.trace = trace,
		};
	free(number);
	return err;
}

/*
 * @seen: sorted, all of one entry; a trace may have it more than once, and then
 * the first one counts. Return: traces that have it
 */
static u32 median(struct seen *seen, size_t n, u32 *position)
{
	u32 kept = 0;
	size_t i;

	for (i = 0; i < n; i++)
		if (!i || seen[i].trace != seen[i - 1].trace)
			seen[kept++] = seen[i];
	qsort(seen, kept, sizeof(*seen), by_position);
	*position = seen[(kept - 1) / 2].position;
	return kept;
}

static u32 rank(struct seen *seen, size_t n, unsigned int count,
		unsigned int share, struct ranked *ranked)
{
	size_t from, to;
	u32 kept = 0, have;

	qsort(seen, n, sizeof(*seen), by_entry);
	for (from = 0; from < n; from = to) {
		u64 entry = seen[from].entry;

		for (to = from + 1; to < n && seen[to].entry == entry; to++)
			;
		have = median(seen + from, to - from, &ranked[kept].position);
		ranked[kept].entry = entry;
		kept += (u64)have * 100 >= (u64)count * share;
	}
	qsort(ranked, kept, sizeof(*ranked), by_rank);
	return kept;
}

int trace_merge(const struct trace *in, unsigned int count,
		unsigned int share, struct trace *out, struct error *e)
{
	struct ranked *ranked = NULL;
	struct seen *seen = NULL;
	size_t n = 0, layers = 0;
	unsigned int i;
	u32 kept;
	int err;

	for (i = 0; i < count; i++) {
		n += in[i].entries;
		layers += in[i].layers;
	}
	if (layers > TRACE_MAX_LAYERS)
		layers = TRACE_MAX_LAYERS;
	*out = (struct trace){};
	seen = calloc(n + 1, sizeof(*seen));
	ranked = calloc(n + 1, sizeof(*ranked));
	out->layer = calloc(layers + 1, sizeof(*out->layer));
	err = seen && ranked && out->layer ? 0 :
	      error_set(e, -ENOMEM, "no memory for %zu frames", n);
	for (i = 0, n = 0; i < count && !err; n += in[i++].entries)
		err = collect(&in[i], i, out, seen + n, e);
	if (err)
		goto out;
	kept = rank(seen, n, count, share, ranked);
	if (kept > TRACE_MAX_ENTRIES)
		kept = TRACE_MAX_ENTRIES;
	out->entry = calloc(kept + 1, sizeof(*out->entry));
	if (!out->entry) {
		err = error_set(e, -ENOMEM, "no memory for %u frames", kept);
		goto out;
	}
	for (i = 0; i < kept; i++)
		out->entry[i] = ranked[i].entry;
	out->entries = kept;
	for (i = 0; i < count; i++)
		out->merged += in[i].merged;
	if (count)
		memcpy(out->image, in[0].image, sizeof(out->image));
out:
	if (err)
		trace_free(out);
	free(seen);
	free(ranked);
	return err;
}

int trace_map(const struct trace *trace, const struct trace_layer *layer,
	      u32 layers, u64 **entry, struct error *e)
{
	u32 *number = calloc(trace->layers + 1, sizeof(*number));
	u64 *out = calloc(trace->entries + 1, sizeof(*out));
	u32 i, j, n = 0;

	if (!number || !out) {
		free(number);
		free(out);
		return error_set(e, -ENOMEM, "no memory for %u frames",
				 trace->entries);
	}
	for (i = 0; i < trace->layers; i++) {
		for (j = 0; j < layers; j++)
			if (!memcmp(layer[j].uuid, trace->layer[i].uuid, 16) &&
			    layer[j].ubytes == trace->layer[i].ubytes)
				break;
		number[i] = j;
	}
	for (i = 0; i < trace->entries; i++) {
		j = number[trace_entry_layer(trace->entry[i])];
		if (j < layers)
			out[n++] = trace_entry(j, trace_entry_upos(trace->entry[i]));
	}
	free(number);
	*entry = out;
	return n;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Input: whether the sum is to be made right (1 byte), two traces, of which the
 * first has as many bytes as the next two say.
 */
#include "../../helper/tracefile.h"
#include "fuzz.h"

static int read_trace(const u8 *data, size_t bytes, bool fix,
		      struct trace *trace)
{
	u8 *copy = exact(data, bytes);
	struct error e = {};
	size_t size;
	void *again;
	int err;
	u32 i;

	if (fix && bytes >= 8) {
		__le64 sum = cpu_to_le64(xxh64(copy, bytes - 8, 0));

		memcpy(copy + bytes - 8, &sum, 8);
	}
	err = trace_parse(copy, bytes, trace, &e);
	if (err) {
		MUST(e.text[0] && !trace->entry && !trace->layer);
	} else {
		for (i = 0; i < trace->entries; i++) {
			u32 layer = trace_entry_layer(trace->entry[i]);

			MUST(layer < trace->layers);
			MUST(trace_entry_upos(trace->entry[i]) <
			     trace->layer[layer].ubytes);
		}
		MUST(!trace_bytes(trace, &again, &size, &e));
		MUST(size == bytes && !memcmp(again, copy, bytes));
		free(again);
	}
	free(copy);
	return err;
}

static void merge(const struct trace in[2])
{
	struct trace out;
	struct error e = {};
	u64 *entry;
	int n;

	if (trace_merge(in, 2, 50, &out, &e))
		return;
	MUST(out.entries <= in[0].entries + in[1].entries);
	n = trace_map(&out, in[0].layer, in[0].layers, &entry, &e);
	MUST(n >= 0 && (u32)n <= out.entries);
	free(entry);
	trace_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct input in = { data, bytes };
	struct trace trace[2] = {};
	u16 first = 0;
	u8 fix = 0;

	next(&in, &fix, sizeof(fix));
	next(&in, &first, sizeof(first));
	if (first > in.left)
		first = in.left;
	if (!read_trace(in.p, first, fix, &trace[0]) &&
	    !read_trace(in.p + first, in.left - first, fix, &trace[1]))
		merge(trace);
	trace_free(&trace[0]);
	trace_free(&trace[1]);
	return 0;
}

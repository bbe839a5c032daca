// SPDX-License-Identifier: GPL-2.0-only
/*
 * Input: a byte that says what follows, then the header:
 *	0	as it is
 *	1	metadata and content, to be put into an LZ4 frame
 *	2	the draft before compression
 * What was read can be written, and reads as the same.
 */
#include <linux/lazyframe.h>

#include "../../helper/header.h"
#include "../unit/wire.h"
#include "fuzz.h"

#define METADATA_BYTES	64

static void *write_one(struct header *header, u64 version, size_t *bytes)
{
	struct error e = {""};
	struct header copy = *header;
	void *data = NULL;

	copy.version = version;
	copy.in_flight = false;
	if (header_write(&copy, &data, bytes, &e)) {
		MUST(strlen(e.text));
		MUST(version == 3);	/* and compressed layers */
		return NULL;
	}
	return data;
}

static void check(struct header *header)
{
	struct header back;
	struct error e = {""};
	size_t bytes, again;
	void *data, *data2;
	u64 version;
	u32 i;

	MUST(!header_check(header, &e));
	for (i = 0; i < header->mappings; i++)
		MUST(header_find(header, header->mapping[i].start) ==
		     &header->mapping[i]);
	for (i = 0; i < header->layers; i++)
		MUST(header_layer(header, header->layer[i].uuid) ==
		     &header->layer[i]);

	for (version = 3; version <= 4; version++) {
		data = write_one(header, version, &bytes);
		if (!data)
			continue;
		MUST(!header_parse(data, bytes, &back, &e));
		MUST(back.mappings == header->mappings);
		for (i = 0; i < back.mappings; i++)
			MUST(back.mapping[i].start == header->mapping[i].start);
		if (version == 4)
			MUST(back.layers == header->layers);
		data2 = write_one(&back, version, &again);
		MUST(data2 && bytes == again && !memcmp(data, data2, bytes));
		header_free(&back);
		free(data);
		free(data2);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct wire w = {0}, content = {0};
	struct header header;
	struct error e = {""};
	u8 *copy;

	if (!bytes)
		return 0;
	wire_put(&w, data + 1, bytes - 1);
	if (data[0] % 3 == 1 && w.len > METADATA_BYTES) {
		wire_put(&content, w.data + METADATA_BYTES,
			 w.len - METADATA_BYTES);
		w.len = METADATA_BYTES;
		wire_content(&w, &content, 0, content.len);
		wire_free(&content);
	} else if (data[0] % 3 == 2 && w.len) {
		wire_draft(&w);
	}

	copy = exact(w.data, w.len);
	if (header_parse(copy, w.len, &header, &e)) {
		MUST(strlen(e.text));
		MUST(!header.layer && !header.mapping);
	} else {
		check(&header);
		header_free(&header);
	}
	free(copy);
	wire_free(&w);
	return 0;
}

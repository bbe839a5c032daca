// SPDX-License-Identifier: GPL-2.0-only
/*
 * Input: content size (3 bytes), a byte whose lowest bit says that the header
 * checksum is to be put right, then the frame. What is accepted, liblz4 has to
 * accept too, with the same content.
 */
#include <lz4frame.h>

#include "../../kmod/lz4frame.h"
#include "fuzz.h"

#define MAX_CONTENT	(1 << 20)

static void fix_header(u8 *frame, size_t bytes)
{
	size_t length = 2;

	if (bytes < 7)
		return;
	length += frame[4] & 0x08 ? 8 : 0;
	length += frame[4] & 0x01 ? 4 : 0;
	if (bytes > 4 + length)
		frame[4 + length] = XXH32(frame + 4, length, 0) >> 8;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	size_t dlen, got, used;
	const char *why = NULL;
	LZ4F_dctx *ctx;
	u8 *frame, *ours;
	int ret, unchecked;

	if (bytes < 4)
		return 0;
	dlen = (data[0] | data[1] << 8 | data[2] << 16) % (MAX_CONTENT + 1);
	frame = exact(data + 4, bytes - 4);
	bytes -= 4;
	if (data[3] & 1)
		fix_header(frame, bytes);
	ours = malloc(dlen + !dlen);

	unchecked = lf_lz4_frame_decode(frame, bytes, ours, dlen, false, &why);
	memset(ours, 0x55, dlen);
	ret = lf_lz4_frame_decode(frame, bytes, ours, dlen, true, &why);
	MUST(ret || !unchecked);
	MUST(ret == 0 || ret == -EBADMSG || ret == -EOPNOTSUPP);
	if (ret) {
		MUST(why && strlen(why));
	} else {
		u8 *theirs = malloc(dlen + 1);
		u8 *again = malloc(dlen + !dlen);

		/* Whatever was in memory before: it may be somebody else's. */
		memset(again, 0xaa, dlen);
		MUST(!lf_lz4_frame_decode(frame, bytes, again, dlen, true,
					  &why));
		MUST(!memcmp(ours, again, dlen));
		free(again);
		MUST(!LZ4F_isError(LZ4F_createDecompressionContext(&ctx,
							LZ4F_VERSION)));
		/* One to spare, or it stops before an empty last block. */
		got = dlen + 1;
		used = bytes;
		MUST(LZ4F_decompress(ctx, theirs, &got, frame, &used,
				     NULL) == 0);
		MUST(got == dlen && used == bytes);
		MUST(!memcmp(ours, theirs, dlen));
		LZ4F_freeDecompressionContext(ctx);
		free(theirs);
	}
	free(frame);
	free(ours);
	return 0;
}

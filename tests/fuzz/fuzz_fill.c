// SPDX-License-Identifier: GPL-2.0-only
/*
 * Input: an answer and the request it meets. What is accepted as bytes stays
 * inside the frame.
 */
#include "../../kmod/fill.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct input in = { data, bytes };
	struct lazyframe_fill fill;
	u64 generation, payload;
	u32 tag, have, cbytes;
	int ret;

	next(&in, &fill, sizeof(fill));
	next(&in, &generation, sizeof(generation));
	next(&in, &payload, sizeof(payload));
	next(&in, &tag, sizeof(tag));
	next(&in, &have, sizeof(have));
	next(&in, &cbytes, sizeof(cbytes));

	ret = lf_fill_check(&fill, payload, generation, tag, have, cbytes);
	switch (ret) {
	case 0:
		MUST(fill.generation == generation && fill.tag == tag);
		MUST(payload == fill.length);
		if (fill.status) {
			MUST(!payload && fill.status <= 4095);
		} else {
			MUST(payload && fill.offset == have);
			MUST((u64)have + payload <= cbytes);
		}
		break;
	case -ESTALE:
		MUST(fill.generation != generation);
		break;
	case -EMSGSIZE:
		MUST(payload != fill.length);
		break;
	default:
		MUST(ret == -EINVAL);
	}
	return 0;
}

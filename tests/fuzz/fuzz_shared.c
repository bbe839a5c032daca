// SPDX-License-Identifier: GPL-2.0-only
/*
 * Input: the key that is looked for, whether to put the checksum right, an entry's
 * size and bytes; a folder, and a file's name in it.
 */
#include "../../helper/shared.h"
#include "fuzz.h"

#define LENGTHS	(3 * SHARED_PIECE)

static u64 sum_of(u64 sum, const u8 *bytes, size_t left)
{
	while (left) {
		size_t n = left < SHARED_PIECE ? left : SHARED_PIECE;

		sum = shared_sum(sum, bytes, n);
		bytes += n;
		left -= n;
	}
	return sum;
}

static void check_entry(struct input *in)
{
	struct shared_head head, want;
	struct shared_key key = {};
	const char *why = NULL;
	u32 flags, bytes;
	u8 *entry;
	u64 sum;

	next(in, key.layer, sizeof(key.layer));
	next(in, &key.offset, sizeof(key.offset));
	key.length = 1 + next_below(in, LENGTHS);
	flags = next_below(in, 4);
	/* Of the right size, or of any; with a head as it should be, or any. */
	bytes = next_below(in, LENGTHS);
	if (flags & 1)
		bytes = sizeof(head) + key.length;
	entry = next_exact(in, bytes);
	sum = shared_begin(&want, &key);
	if (flags & 2 && bytes >= sizeof(head)) {
		sum = sum_of(sum, entry + sizeof(head), bytes - sizeof(head));
		want.sum = cpu_to_le64(sum);
		memcpy(entry, &want, sizeof(want));
	}
	if (shared_check(entry, bytes, &key, &why)) {
		MUST(why && *why);
		/* With the right head, sum and size nothing is wrong. */
		MUST(!(flags & 2) || bytes != sizeof(head) + key.length);
	} else {
		MUST(bytes == sizeof(head) + key.length);
		memcpy(&head, entry, sizeof(head));
		MUST(!memcmp(&head, &want, offsetof(struct shared_head, sum)));
		sum = sum_of(shared_begin(&want, &key), entry + sizeof(head),
			     key.length);
		MUST(le64_to_cpu(head.sum) == sum);
	}
	free(entry);
}

static void check_name(struct input *in)
{
	unsigned int folder = next_below(in, SHARED_FOLDERS);
	char *name = malloc(in->left + 1), again[SHARED_NAME], two[3];
	struct shared_key key = {};

	name[in->left] = 0;
	next(in, name, in->left);
	switch (shared_parse(name, folder, &key)) {
	case SHARED_ENTRY:
		MUST(shared_fits(&key));
		shared_entry_name(&key, again);
		snprintf(two, sizeof(two), "%02x", folder);
		MUST(!strncmp(again, two, 2) && !strcmp(again + 3, name));
		break;
	case SHARED_PART:
		MUST(shared_fits(&key));
		MUST(strlen(name) > 16 && name[16] == '-');
		break;
	case SHARED_FOREIGN:
		break;
	}
	free(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct input in = { data, bytes };

	check_entry(&in);
	in = (struct input){ data, bytes };
	check_name(&in);
	return 0;
}

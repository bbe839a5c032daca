// SPDX-License-Identifier: GPL-2.0-only
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "shared.h"

#define ENTRY_SUFFIX	".frame"
#define PART_SUFFIX	".part"
#define ROOM_UNIT	4096U

bool shared_fits(const struct shared_key *key)
{
	return key->length && key->length <= SHARED_MAX;
}

u64 shared_room(u32 length)
{
	u64 bytes = sizeof(struct shared_head) + (u64)length;

	return (bytes + ROOM_UNIT - 1) / ROOM_UNIT * ROOM_UNIT;
}

static unsigned int folder(const struct shared_key *key)
{
	__le64 packed[4];

	memcpy(packed, key->layer, sizeof(key->layer));
	packed[2] = cpu_to_le64(key->offset);
	packed[3] = cpu_to_le64(key->length);
	return xxh64(packed, sizeof(packed), 0) % SHARED_FOLDERS;
}

void shared_entry_name(const struct shared_key *key, char name[SHARED_NAME])
{
	char layer[33];
	int i;

	for (i = 0; i < 16; i++)
		snprintf(layer + 2 * i, 3, "%02x", key->layer[i]);
	snprintf(name, SHARED_NAME, "%02x/%s-%" PRIx64 "-%" PRIx32 ENTRY_SUFFIX,
		 folder(key), layer, key->offset, key->length);
}

void shared_part_name(const struct shared_key *key, const char *owner,
		      u64 number, char name[SHARED_NAME])
{
	snprintf(name, SHARED_NAME, "%02x/%s-%" PRIx64 "-%" PRIx32 PART_SUFFIX,
		 folder(key), owner, number, key->length);
}

/* The hexadecimal number before @end; NULL: there is none of up to @digits. */
static const char *number_before(const char *name, const char *end,
				 int digits, u64 *n)
{
	const char *p = end;
	int shift = 0;

	*n = 0;
	for (; p > name && p[-1] != '-'; p--, shift += 4) {
		char c = p[-1];
		u64 digit;

		if (c >= '0' && c <= '9')
			digit = c - '0';
		else if (c >= 'a' && c <= 'f')
			digit = c - 'a' + 10;
		else
			return NULL;
		if (end - p >= digits)
			return NULL;
		*n |= digit << shift;
	}
	return p > name && p < end ? p - 1 : NULL;
}

static bool hex_before(const char *name, const char *end, int digits)
{
	return end - name == digits &&
	       (int)strspn(name, "0123456789abcdef") == digits;
}

enum shared_kind shared_parse(const char *name, unsigned int in,
			      struct shared_key *key)
{
	const char *dot = strrchr(name, '.'), *p;
	char canonical[SHARED_NAME], folded[3];
	u64 length, n;
	int i;

	if (!dot)
		return SHARED_FOREIGN;
	p = number_before(name, dot, 8, &length);
	if (!p || !length || length > SHARED_MAX)
		return SHARED_FOREIGN;
	key->length = length;
	p = number_before(name, p, 16, &n);
	if (!p)
		return SHARED_FOREIGN;
	if (!strcmp(dot, PART_SUFFIX)) {
		p = number_before(name, p, 8, &n);
		return p && hex_before(name, p, 16) ? SHARED_PART :
						      SHARED_FOREIGN;
	}
	if (strcmp(dot, ENTRY_SUFFIX) || !hex_before(name, p, 32))
		return SHARED_FOREIGN;
	key->offset = n;
	for (i = 0; i < 16; i++) {
		memcpy(folded, name + 2 * i, 2);
		folded[2] = 0;
		key->layer[i] = strtoul(folded, NULL, 16);
	}
	/* One that lies elsewhere, or with other zeros, is never looked for. */
	shared_entry_name(key, canonical);
	return folder(key) == in && !strcmp(canonical + 3, name) ?
	       SHARED_ENTRY : SHARED_FOREIGN;
}

u64 shared_begin(struct shared_head *head, const struct shared_key *key)
{
	memcpy(head->magic, SHARED_MAGIC, sizeof(head->magic));
	head->version = cpu_to_le32(SHARED_VERSION);
	head->length = cpu_to_le32(key->length);
	head->offset = cpu_to_le64(key->offset);
	memcpy(head->layer, key->layer, sizeof(head->layer));
	return xxh64(head, offsetof(struct shared_head, sum), 0);
}

u64 shared_sum(u64 sum, const void *bytes, size_t len)
{
	return xxh64(bytes, len, sum);
}

int shared_check(const void *entry, size_t bytes, const struct shared_key *key,
		 const char **why)
{
	const u8 *p = (const u8 *)entry + sizeof(struct shared_head);
	struct shared_head head, want;
	u32 left = key->length;
	u64 sum;

	if (bytes < sizeof(head))
		return lf_bad(why, "it is cut off in its head");
	memcpy(&head, entry, sizeof(head));
	sum = shared_begin(&want, key);
	if (memcmp(head.magic, want.magic, sizeof(head.magic)))
		return lf_bad(why, "it is no frame's entry");
	if (head.version != want.version)
		return lf_bad(why, "its format is another version's");
	if (memcmp(&head, &want, offsetof(struct shared_head, sum)))
		return lf_bad(why, "it is another frame's");
	if (bytes != sizeof(head) + (u64)key->length)
		return lf_bad(why, bytes - sizeof(head) < key->length ?
			      "it is cut off" : "it is too long");
	while (left) {
		u32 n = left < SHARED_PIECE ? left : SHARED_PIECE;

		sum = shared_sum(sum, p, n);
		p += n;
		left -= n;
	}
	if (sum != le64_to_cpu(head.sum))
		return lf_bad(why, "its checksum is wrong");
	return 0;
}

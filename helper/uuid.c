// SPDX-License-Identifier: GPL-2.0-only
/*
 * UUIDs as RFC 9562 has them: 16 bytes, printed in the order of memory.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

#include "uuid.h"

#define VERSION_RANDOM	4
#define VERSION_CUSTOM	8

void uuid_text(const uint8_t uuid[16], char text[UUID_TEXT])
{
	static const char digit[] = "0123456789abcdef";
	unsigned int i;

	for (i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*text++ = '-';
		*text++ = digit[uuid[i] >> 4];
		*text++ = digit[uuid[i] & 15];
	}
	*text = '\0';
}

static int nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool uuid_parse(const char *text, uint8_t uuid[16])
{
	unsigned int i;

	for (i = 0; i < 16; i++) {
		int high, low;

		if ((i == 4 || i == 6 || i == 8 || i == 10) && *text++ != '-')
			return false;
		high = nibble(text[0]);
		low = high < 0 ? -1 : nibble(text[1]);
		if (low < 0)
			return false;
		uuid[i] = high << 4 | low;
		text += 2;
	}
	return !*text;
}

static void set_version(uint8_t uuid[16], unsigned int version)
{
	uuid[6] = (uuid[6] & 0x0f) | version << 4;
	uuid[8] = (uuid[8] & 0x3f) | 0x80;
}

int uuid_random(uint8_t uuid[16])
{
	ssize_t got;

	/* Up to 256 bytes come whole, or not at all if a signal came first. */
	do {
		got = getrandom(uuid, 16, 0);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	if (got != 16)
		return -EIO;

	set_version(uuid, VERSION_RANDOM);
	return 0;
}

void uuid_from(const void *data, unsigned long bytes, uint8_t uuid[16])
{
	XXH128_canonical_t hash;

	XXH128_canonicalFromHash(&hash, XXH3_128bits(data, bytes));
	memcpy(uuid, hash.digest, 16);
	set_version(uuid, VERSION_CUSTOM);
}

bool uuid_is_nil(const uint8_t uuid[16])
{
	static const uint8_t nil[16];

	return !memcmp(uuid, nil, sizeof(nil));
}

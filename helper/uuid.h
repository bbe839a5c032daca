/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LF_UUID_H
#define LF_UUID_H

#include <stdbool.h>
#include <stdint.h>

#define UUID_TEXT	37	/* bytes with the terminating NUL */

/* 16 raw bytes in RFC order <-> 8-4-4-4-12 lower-case hex */
void uuid_text(const uint8_t uuid[16], char text[UUID_TEXT]);
bool uuid_parse(const char *text, uint8_t uuid[16]);
/* random, version 4 */
int uuid_random(uint8_t uuid[16]);
/* version 8, the same for the same bytes, for objects that have no name of their own */
void uuid_from(const void *data, unsigned long bytes, uint8_t uuid[16]);
bool uuid_is_nil(const uint8_t uuid[16]);

#endif

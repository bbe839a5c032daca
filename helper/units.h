/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Sizes as people write and read them.
 */
#ifndef LF_UNITS_H
#define LF_UNITS_H

#include "../kmod/pure.h"

#define UNITS_TEXT	24	/* bytes with the terminating NUL */

/**
 * units_parse - a number of bytes: digits, then nothing, K, M, G or T
 * @text: "131072", "128K"; the units are powers of 1024
 * @bytes: out
 *
 * Return: false for anything else, or where it does not fit.
 */
bool units_parse(const char *text, u64 *bytes);

/**
 * units_count - a number from @min to @max: digits and nothing else
 * @n: out, untouched where it is none
 */
bool units_count(const char *text, u64 min, u64 max, u64 *n);

/**
 * units_text - "512 B", "40.0 MiB"
 *
 * Return: @text
 */
const char *units_text(u64 bytes, char text[UNITS_TEXT]);

#endif

// SPDX-License-Identifier: GPL-2.0-only
#include "units.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

bool units_parse(const char *text, u64 *bytes)
{
	static const char units[] = "KMGT";
	const char *unit;
	char *end;
	u64 n;

	/* strtoull() would take a sign and leading spaces. */
	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (errno)
		return false;
	if (*end) {
		unit = strchr(units, toupper((unsigned char)*end));
		if (!unit || end[1])
			return false;
		if (check_mul_overflow(n, 1ULL << (10 * (unit - units + 1)),
				       &n))
			return false;
	}
	*bytes = n;
	return true;
}

bool units_count(const char *text, u64 min, u64 max, u64 *n)
{
	u64 value;

	if (!units_parse(text, &value) || value < min || value > max ||
	    !isdigit((unsigned char)text[strlen(text) - 1]))
		return false;
	*n = value;
	return true;
}

const char *units_text(u64 bytes, char text[UNITS_TEXT])
{
	static const char *const unit[] = { "KiB", "MiB", "GiB", "TiB", "PiB",
					    "EiB" };
	double n = bytes / 1024.0;
	unsigned int i = 0;

	if (bytes < 1024) {
		snprintf(text, UNITS_TEXT, "%u B", (unsigned int)bytes);
		return text;
	}
	/* 1023.95 would be printed as 1024.0. */
	while (n >= 1023.95 && i < ARRAY_SIZE(unit) - 1) {
		n /= 1024;
		i++;
	}
	snprintf(text, UNITS_TEXT, "%.1f %s", n, unit[i]);
	return text;
}

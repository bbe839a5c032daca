// SPDX-License-Identifier: GPL-2.0-only
/*
 * Errors with words. Texts that are too long lose their end.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "error.h"

int error_set(struct error *e, int err, const char *fmt, ...)
{
	va_list args;

	if (e) {
		va_start(args, fmt);
		vsnprintf(e->text, sizeof(e->text), fmt, args);
		va_end(args);
	}
	return err;
}

void error_prefix(struct error *e, const char *fmt, ...)
{
	char old[sizeof(e->text)];
	va_list args;
	int used;

	if (!e)
		return;
	memcpy(old, e->text, sizeof(old));

	va_start(args, fmt);
	used = vsnprintf(e->text, sizeof(e->text), fmt, args);
	va_end(args);

	if (used >= 0 && (size_t)used < sizeof(e->text))
		snprintf(e->text + used, sizeof(e->text) - used, ": %s", old);
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * Errors with words. Texts that are too long lose their end.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "error.h"

void text_plain(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = '?';
}

void error_text(struct error *e, const char *fmt, ...)
{
	va_list args;

	if (!e)
		return;
	va_start(args, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, args);
	va_end(args);
	text_plain(e->text);
}

void error_prefix(struct error *e, const char *fmt, ...)
{
	char prefix[sizeof(e->text)];
	size_t room = sizeof(e->text) - sizeof(": ");
	size_t before, after;
	va_list args;

	if (!e)
		return;
	va_start(args, fmt);
	vsnprintf(prefix, sizeof(prefix), fmt, args);
	va_end(args);
	text_plain(prefix);

	before = strnlen(prefix, room);
	after = strnlen(e->text, room - before);
	memmove(e->text + before + 2, e->text, after);
	memcpy(e->text, prefix, before);
	memcpy(e->text + before, ": ", 2);
	e->text[before + 2 + after] = '\0';
}

// SPDX-License-Identifier: GPL-2.0-only
#include "xml.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The start of "<name" or "</name", with its end behind it */
static const char *find_tag(const char *text, const char *name, bool end)
{
	size_t len = strlen(name);

	for (; (text = strchr(text, '<')); text++) {
		const char *p = text + 1 + end;

		if (end && text[1] != '/')
			continue;
		if (!strncmp(p, name, len) && p[len] &&
		    strchr(" \t\r\n>", p[len]))
			return text;
	}
	return NULL;
}

/* One character of UTF-8 at @to; returns the place behind it. */
static char *put_char(char *to, unsigned long c)
{
	if (c < 0x80) {
		*to++ = c;
	} else if (c < 0x800) {
		*to++ = 0xc0 | c >> 6;
		*to++ = 0x80 | (c & 0x3f);
	} else if (c < 0x10000) {
		*to++ = 0xe0 | c >> 12;
		*to++ = 0x80 | (c >> 6 & 0x3f);
		*to++ = 0x80 | (c & 0x3f);
	} else {
		*to++ = 0xf0 | c >> 18;
		*to++ = 0x80 | (c >> 12 & 0x3f);
		*to++ = 0x80 | (c >> 6 & 0x3f);
		*to++ = 0x80 | (c & 0x3f);
	}
	return to;
}

/* In place; what is no entity stays. No entity is shorter than its character. */
static void replace_entities(char *text)
{
	static const struct {
		const char *name;
		char c;
	} known[] = {
		{ "&lt;", '<' }, { "&gt;", '>' }, { "&amp;", '&' },
		{ "&quot;", '"' }, { "&apos;", '\'' },
	};
	char *to = text, *end;
	unsigned long c;
	size_t i;

	while (*text) {
		if (*text != '&') {
			*to++ = *text++;
			continue;
		}
		for (i = 0; i < sizeof(known) / sizeof(known[0]); i++)
			if (!strncmp(text, known[i].name,
				     strlen(known[i].name)))
				break;
		if (i < sizeof(known) / sizeof(known[0])) {
			*to++ = known[i].c;
			text += strlen(known[i].name);
			continue;
		}
		c = 0;
		end = text;
		if (text[1] == '#')
			c = text[2] == 'x' ? strtoul(text + 3, &end, 16) :
					     strtoul(text + 2, &end, 10);
		if (c && c <= 0x10ffff && *end == ';') {
			to = put_char(to, c);
			text = end + 1;
		} else {
			*to++ = *text++;
		}
	}
	*to = 0;
}

char *xml_get(const char *text, const char *name, const char **at)
{
	const char *start = find_tag(at ? *at : text, name, false), *end;
	char *value;

	start = start ? strchr(start, '>') : NULL;
	if (!start || start[-1] == '/')
		return NULL;
	end = find_tag(++start, name, true);
	if (!end)
		return NULL;
	value = strndup(start, end - start);
	if (value)
		replace_entities(value);
	if (at)
		*at = end + 1;
	return value;
}

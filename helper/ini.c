// SPDX-License-Identifier: GPL-2.0-only
#include "ini.h"

#include <ctype.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* A part of the text, without spaces at its ends. */
struct span {
	const char *start;
	size_t len;
};

static struct span span(const char *start, const char *end)
{
	while (start < end && isspace((unsigned char)*start))
		start++;
	while (end > start && isspace((unsigned char)end[-1]))
		end--;
	return (struct span){ start, end - start };
}

static bool is(struct span s, const char *text, size_t len)
{
	return s.len == len && !memcmp(s.start, text, len);
}

static bool starts_section(struct span line, const char *section)
{
	struct span name = span(line.start + 1, line.start + line.len - 1);

	return is(name, section, strlen(section));
}

/*
 * All lines of a section. @name NULL: only whether it is there. The value is a
 * span of the text, with start NULL where there is none.
 */
static bool find(const char *text, const char *section, const char *name,
		 struct span *value)
{
	const char *dot = name ? strchr(name, '.') : NULL, *end;
	bool inside = false, seen = false;
	struct span parent = { "", 0 };

	value->start = NULL;
	for (; text && *text; text = *end ? end + 1 : end) {
		struct span line, key;
		const char *equals;

		end = strchrnul(text, '\n');
		line = span(text, end);
		if (!line.len || *line.start == '#' || *line.start == ';')
			continue;
		if (*line.start == '[') {
			inside = line.start[line.len - 1] == ']' &&
				 starts_section(line, section);
			seen |= inside;
			parent.len = 0;
			continue;
		}
		equals = memchr(line.start, '=', line.len);
		if (!inside || !name || !equals)
			continue;
		key = span(line.start, equals);
		if (line.start == text) {
			parent = key;
			if (dot || !is(key, name, strlen(name)))
				continue;
		} else if (parent.len) {
			/* Indented: belongs to the value above. */
			if (!dot || !is(parent, name, dot - name) ||
			    !is(key, dot + 1, strlen(dot + 1)))
				continue;
		} else if (dot || !is(key, name, strlen(name))) {
			continue;
		}
		*value = span(equals + 1, line.start + line.len);
	}
	return seen;
}

char *ini_get(const char *text, const char *section, const char *name)
{
	struct span value;

	find(text, section, name, &value);
	return value.start && value.len ? strndup(value.start, value.len) :
					  NULL;
}

bool ini_has(const char *text, const char *section)
{
	struct span value;

	return find(text, section, NULL, &value);
}

char *ini_section(const char **at)
{
	const char *text = *at, *end;
	struct span line, name;

	for (; text && *text; text = *end ? end + 1 : end) {
		end = strchrnul(text, '\n');
		line = span(text, end);
		if (line.len < 2 || *line.start != '[' ||
		    line.start[line.len - 1] != ']')
			continue;
		name = span(line.start + 1, line.start + line.len - 1);
		*at = *end ? end + 1 : end;
		return strndup(name.start, name.len);
	}
	*at = text;
	return NULL;
}

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Files of the form of ~/.aws/config: sections in brackets, "name = value",
 * comments behind # or ; at a line's start, and nested values:
 *
 *	[profile build]
 *	region = eu-west-1
 *	s3 =
 *	    addressing_style = path
 */
#ifndef LF_INI_H
#define LF_INI_H

#include <stdbool.h>

/**
 * ini_get - one value
 * @text: of the file, NULL is an empty one
 * @section: what stands in the brackets; of several of one name the last that
 *	     has the value counts
 * @name: of a nested value: "s3.addressing_style"
 *
 * Return: malloc()ed; NULL where there is none, it is empty, or memory is out
 */
char *ini_get(const char *text, const char *section, const char *name);

bool ini_has(const char *text, const char *section);

/**
 * ini_section - the next one's name
 * @at: where to begin; moved on. At first the text.
 *
 * Return: malloc()ed; NULL where there is no other, or memory is out
 */
char *ini_section(const char **at);

#endif

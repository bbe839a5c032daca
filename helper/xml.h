/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The little of XML that answers of S3 and STS need: the text between a tag and
 * its end. No attributes, no nesting of one name, no validation.
 */
#ifndef LF_XML_H
#define LF_XML_H

/**
 * xml_get - the first element of this name
 * @at: where to begin; moved behind the element. May be NULL.
 *
 * Return: its text, entities replaced, malloc()ed; NULL: none, or no memory
 */
char *xml_get(const char *text, const char *name, const char **at);

#endif

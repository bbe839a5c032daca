/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What json-c lacks.
 */
#ifndef LF_JSONTEXT_H
#define LF_JSONTEXT_H

#include <json-c/json.h>

/* json_text - a string of an object; NULL: no such string, or no object */
const char *json_text(struct json_object *json, const char *name);

#endif

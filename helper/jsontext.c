// SPDX-License-Identifier: GPL-2.0-only
#include "jsontext.h"

const char *json_text(struct json_object *json, const char *name)
{
	struct json_object *value;

	if (!json_object_is_type(json, json_type_object) ||
	    !json_object_object_get_ex(json, name, &value) ||
	    !json_object_is_type(value, json_type_string))
		return NULL;
	return json_object_get_string(value);
}

// SPDX-License-Identifier: GPL-2.0-only
#include "head.h"

#include <ctype.h>
#include <time.h>

const char *head_get(CURL *curl, const char *name)
{
	struct curl_header *h;

	if (curl_easy_header(curl, name, 0, CURLH_HEADER, -1, &h) ||
	    h->amount != 1)
		return NULL;
	return h->value;
}

bool head_u64(const char **p, u64 *value)
{
	if (!isdigit((unsigned char)**p))
		return false;
	*value = 0;
	for (; isdigit((unsigned char)**p); (*p)++)
		if (check_mul_overflow(*value, (u64)10, value) ||
		    check_add_overflow(*value, (u64)(**p - '0'), value))
			return false;
	return true;
}

time_t head_date(CURL *curl)
{
	const char *date = head_get(curl, "Date");
	time_t when = date ? curl_getdate(date, NULL) : 0;

	return when < 0 ? 0 : when;
}

/* "bytes 0-99/1234", or an asterisk in the place of "0-99" or of "1234" */
bool head_range(CURL *curl, struct head_range *range)
{
	const char *p = head_get(curl, "Content-Range");

	memset(range, 0, sizeof(*range));
	if (!p || strncasecmp(p, "bytes ", 6))
		return false;
	p += 6;
	if (*p == '*') {
		range->empty = true;
		p++;
	} else if (!head_u64(&p, &range->first) || *p++ != '-' ||
		   !head_u64(&p, &range->last) || range->first > range->last) {
		return false;
	}
	if (*p++ != '/')
		return false;
	if (*p == '*' && !p[1]) {
		range->size = HEAD_UNKNOWN;
		return true;
	}
	return head_u64(&p, &range->size) && !*p &&
	       (range->empty || range->size > range->last);
}

bool head_strong(const char *etag, size_t size)
{
	size_t len = strlen(etag), i;

	if (len < 2 || len >= size || etag[0] != '"' || etag[len - 1] != '"')
		return false;
	for (i = 1; i < len - 1; i++)
		if ((unsigned char)etag[i] <= ' ' || etag[i] == '"' ||
		    etag[i] == 0x7f)
			return false;
	return true;
}

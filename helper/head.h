/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The head of an answer: what its lines say, for all who ask by libcurl.
 */
#ifndef LF_HEAD_H
#define LF_HEAD_H

#include <curl/curl.h>

#include "../kmod/pure.h"

/* head_date - the Date header; 0: there is none, or it is no date */
time_t head_date(CURL *curl);

/**
 * head_get - the value of the only header of this name, of the last answer
 *
 * Return: NULL where there is none; two of them are as bad. Lives as long as
 * libcurl's handle does, or its next transfer's start.
 */
const char *head_get(CURL *curl, const char *name);

/* head_u64 - decimal digits; moves the pointer behind them */
bool head_u64(const char **p, u64 *value);

/**
 * struct head_range - what Content-Range says
 * @empty: "bytes *" and a size: @first and @last are not set
 * @size: of the object; HEAD_UNKNOWN where an asterisk stands for it
 */
struct head_range {
	bool empty;
	u64 first;
	u64 last;
	u64 size;
};

#define HEAD_UNKNOWN	UINT64_MAX

/* head_range - false: no Content-Range, or one that makes no sense */
bool head_range(CURL *curl, struct head_range *range);

/**
 * head_strong - is this a strong entity tag of less than @size bytes?
 *
 * Quoted, with no quote, space or control character inside. Only a strong one
 * says that bytes are the same.
 */
bool head_strong(const char *etag, size_t size);

#endif

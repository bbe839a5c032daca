/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Errors with words. A function that can fail for reasons a user must read
 * takes a struct error and returns 0 or a negative errno; on failure the text
 * names the thing, what is wrong with it and, where there is one, the remedy.
 */
#ifndef LF_ERROR_H
#define LF_ERROR_H

#include <errno.h>

struct error {
	char text[1024];
};

/**
 * error_set - note why an operation failed
 * @e: may be NULL
 * @err: negative errno
 * @fmt: one line, no newline, no full stop
 *
 * Return: @err, so that a caller can `return error_set(...)`.
 */
#define error_set(e, err, ...) ({					\
	int __err = (err);						\
									\
	error_text(e, __VA_ARGS__);					\
	__err < 0 ? __err : -EIO;					\
})

/* text_plain - control characters, which a server may have sent, become '?' */
void text_plain(char *text);

/**
 * error_text - set only the text
 */
void error_text(struct error *e, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* no_memory - error_set() where an allocation failed */
static inline int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, "out of memory");
}

/**
 * error_prefix - put what was being done in front of the text
 */
void error_prefix(struct error *e, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif

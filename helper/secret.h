/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Texts that nobody else may see.
 */
#ifndef LF_SECRET_H
#define LF_SECRET_H

#include "../kmod/pure.h"
#include "error.h"

/* secret_free - wiped first; NULL is fine */
void secret_free(char *text);

/* secret_hide - no core file, no ptrace of this process from now on */
void secret_hide(void);

/**
 * secret_read - a small text file with secrets in it, malloc()ed
 * @shared: out, may be NULL: users other than its owner may read it
 *
 * Spaces at its end are cut. NULL with errno set; E2BIG from 256 KiB on.
 */
char *secret_read(const char *path, bool *shared);

typedef void secret_warn(const char *text);

/**
 * secret_file - secret_read() with an error that names the file
 * @warn: is told if users other than its owner may read it; may be NULL
 * @text: out, secret_free(); never empty
 */
int secret_file(const char *path, secret_warn *warn, char **text,
		struct error *e);

/* secret_tell - @warn, if it is not NULL, that others may read @path */
void secret_tell(secret_warn *warn, const char *path);

/* secret_printable - can it stand in a header's line, with no space in it? */
bool secret_printable(const char *text);

#endif

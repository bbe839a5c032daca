/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Texts that nobody else may see.
 */
#ifndef LF_SECRET_H
#define LF_SECRET_H

#include "../kmod/pure.h"

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

#endif

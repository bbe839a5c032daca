/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Ranges of file:// objects, by pread().
 */
#ifndef LF_FILE_H
#define LF_FILE_H

#include "fetch.h"

/* file_new - Return: NULL with errno set. file_free(): after fetch_free(). */
struct transport *file_new(struct loop *loop, unsigned int connections);
void file_free(struct transport *t);

#endif

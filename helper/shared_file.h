/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The files of a shared directory. All of this waits for the file system, for
 * ever if that hangs: for threads that nobody waits for.
 */
#ifndef LF_SHARED_FILE_H
#define LF_SHARED_FILE_H

#include <limits.h>
#include <sys/uio.h>

#include "shared.h"

#define SHARED_DIR	(PATH_MAX - SHARED_NAME)

/* An entry is touched when it was not for so long: its age of use, roughly. */
#define SHARED_TOUCH	600	/* seconds */

/**
 * shared_file_read - read and check the entry of @key
 * @dir: at most SHARED_DIR bytes, NUL included
 * @entry: out; SHARED_ENTRY_MAX bytes
 * @fd: out; for shared_file_used() in any case
 * @why: out, for -EINVAL
 *
 * Return: 0; -ENOENT there is none; -EINVAL what is there is not what it
 * should be; another errno the file system does not say.
 */
int shared_file_read(const char *dir, const struct shared_key *key,
		     void *entry, int *fd, const char **why);

/* shared_file_used - touch and close what was read, if it was */
void shared_file_used(int fd, bool good);

/**
 * shared_file_write - make the entry of @key, in place of one that is there
 * @owner: of the file that is renamed when it is whole; with @number it is one
 *	   that nobody else has
 * @piece: of SHARED_PIECE bytes each, but for the last
 *
 * Return: 0 or a negative errno.
 */
int shared_file_write(const char *dir, const struct shared_key *key,
		      const char *owner, u64 number, u8 *const *piece);

/* shared_file_remove - Return: 0 or a negative errno */
int shared_file_remove(const char *dir, const struct shared_key *key);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LF_INUSE_H
#define LF_INUSE_H

#include "../kmod/pure.h"

/**
 * inuse_tell - who uses a block device: mounts, swap, devices above it,
 * processes that have it open
 * @text: out: one line, "" where nobody is found
 *
 * Mounts in other mount namespaces are not seen.
 *
 * Return: is there a user other than a process, one that stays?
 */
bool inuse_tell(u32 major, u32 minor, char *text, size_t bytes);

/**
 * inuse_sync - write out what file systems on a block device have in memory
 *
 * Best effort: so that freezing them, a moment later, takes no time.
 */
void inuse_sync(u32 major, u32 minor);

#endif

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

#endif

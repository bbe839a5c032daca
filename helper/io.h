/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whole reads and writes at an offset, and sizes, of files and block devices.
 */
#ifndef LF_IO_H
#define LF_IO_H

#include "../kmod/pure.h"

/**
 * io_pread - read exactly @len bytes; -ENODATA at an early end
 */
int io_pread(int fd, void *buf, size_t len, u64 off);

/**
 * io_pwrite - write exactly @len bytes
 */
int io_pwrite(int fd, const void *buf, size_t len, u64 off);

/**
 * io_bytes - size of a regular file or block device
 * @bytes: out
 *
 * -ENOTBLK: it is neither.
 */
int io_bytes(int fd, u64 *bytes);

#endif

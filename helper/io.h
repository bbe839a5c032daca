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
 * io_zero - let a part read as zeros, without room on disk where that is possible
 * @off: with @len: multiples of 4096
 */
int io_zero(int fd, u64 off, u64 len);

/**
 * io_forget - drop what is cached of a block device, which somebody below the
 * cache may have written
 */
void io_forget(int fd);

/**
 * io_bytes - size of a regular file or block device
 * @bytes: out
 *
 * -ENOTBLK: it is neither.
 */
int io_bytes(int fd, u64 *bytes);

#endif

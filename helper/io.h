/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whole reads and writes, and sizes, of files and block devices.
 */
#ifndef LF_IO_H
#define LF_IO_H

#include <sys/stat.h>

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
 * io_open - a regular file, for reading, without waiting
 * @st: out
 *
 * Return: a file descriptor; -EISDIR or -EINVAL: it is no regular file
 */
int io_open(const char *path, struct stat *st);

/**
 * io_read_all - read a file to its end, whatever its size is said to be: files of
 * /proc and /sys have none
 *
 * Return: bytes, fewer than @room; -E2BIG: it has more
 */
ssize_t io_read_all(int fd, void *buf, size_t room);

/**
 * io_bytes - size of a regular file or block device
 * @bytes: out
 *
 * -ENOTBLK: it is neither.
 */
int io_bytes(int fd, u64 *bytes);

#endif

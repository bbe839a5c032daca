/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What pure code (no I/O, no locks, no allocation) needs from its
 * surroundings, so that the same source is compiled into the module, the
 * tools, the unit tests and the fuzzers.
 */
#ifndef LF_PURE_H
#define LF_PURE_H

#ifdef __KERNEL__

#include <asm/byteorder.h>
#include <linux/build_bug.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/lz4.h>
#include <linux/math64.h>
#include <linux/overflow.h>
#include <linux/string.h>
#include <linux/types.h>
#include <linux/xxhash.h>

#else /* user space */

#include <asm/types.h>
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <linux/types.h>
#include <lz4.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <xxhash.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;

#define le16_to_cpu(x)	le16toh((uint16_t)(x))
#define le32_to_cpu(x)	le32toh((uint32_t)(x))
#define le64_to_cpu(x)	le64toh((uint64_t)(x))
#define cpu_to_le16(x)	htole16(x)
#define cpu_to_le32(x)	htole32(x)
#define cpu_to_le64(x)	htole64(x)

#define check_add_overflow(a, b, d)	__builtin_add_overflow(a, b, d)
#define check_mul_overflow(a, b, d)	__builtin_mul_overflow(a, b, d)

#define xxh64(data, len, seed)	XXH64(data, len, seed)
#define xxh32(data, len, seed)	XXH32(data, len, seed)

#ifndef ARRAY_SIZE
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#endif

static inline u64 div_u64(u64 n, u32 d)
{
	return n / d;
}

#endif /* __KERNEL__ */

/* For "return lf_bad(why, ...)": @why is a caller's, for a static sentence */
static inline int lf_bad(const char **why, const char *text)
{
	*why = text;
	return -EINVAL;
}

/* Unaligned little-endian loads, for formats that come packed. */
static inline u32 lf_get_le32(const void *p)
{
	__le32 v;

	memcpy(&v, p, sizeof(v));
	return le32_to_cpu(v);
}

static inline u64 lf_get_le64(const void *p)
{
	__le64 v;

	memcpy(&v, p, sizeof(v));
	return le64_to_cpu(v);
}

/* Return: behind what was written */
static inline u8 *lf_put_le32(u8 *p, u32 value)
{
	__le32 v = cpu_to_le32(value);

	memcpy(p, &v, sizeof(v));
	return p + sizeof(v);
}

static inline u8 *lf_put_le64(u8 *p, u64 value)
{
	__le64 v = cpu_to_le64(value);

	memcpy(p, &v, sizeof(v));
	return p + sizeof(v);
}

#endif /* LF_PURE_H */

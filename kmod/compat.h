/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What changed between the oldest supported kernel and the newest. Everything
 * else uses interfaces that did not.
 */
#ifndef LF_COMPAT_H
#define LF_COMPAT_H

#include <linux/blkdev.h>
#include <linux/mm.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error "lazyframe needs Linux 6.1 or newer"
#endif

#ifndef CONFIG_64BIT
#error "lazyframe needs a 64-bit kernel"
#endif

/* 6.3: vm_flags became read-only, changed by helpers. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void vm_flags_clear(struct vm_area_struct *vma,
				  unsigned long flags)
{
	vma->vm_flags &= ~flags;
}
#endif

/* 6.5: a table's mode became blk_mode_t. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
#define LF_OPEN_WRITE	FMODE_WRITE
#else
#define LF_OPEN_WRITE	BLK_OPEN_WRITE
#endif

#endif /* LF_COMPAT_H */

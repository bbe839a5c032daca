/* SPDX-License-Identifier: GPL-2.0-only */
/* What changed between the oldest supported kernel and the newest */
#ifndef LF_COMPAT_H
#define LF_COMPAT_H

#include <linux/blkdev.h>
#include <linux/mm.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error "lazyframe needs Linux 6.1 or newer"
#endif

/* 6.3: vm_flags became read-only, changed by helpers. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
#define vm_flags_clear(vma, flags)	((vma)->vm_flags &= ~(flags))
#endif

/* 6.5: a table's mode became blk_mode_t. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
#define LF_OPEN_WRITE	FMODE_WRITE
#else
#define LF_OPEN_WRITE	BLK_OPEN_WRITE
#endif

/* 6.7: shrinkers are allocated, and registering one does not fail. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
#define shrinker_alloc(...)		kzalloc(sizeof(struct shrinker), GFP_KERNEL)
#define shrinker_register(s)		WARN_ON(register_shrinker(s, "lazyframe-decoded"))
static inline void shrinker_free(struct shrinker *shrinker)
{
	unregister_shrinker(shrinker);
	kfree(shrinker);
}
#endif

#endif /* LF_COMPAT_H */

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Stores, by the path of their device: is there one, which mapped device shows
 * it. kmod/store_disk.h has the layout.
 */
#ifndef LF_STORE_H
#define LF_STORE_H

#include "../kmod/store_disk.h"
#include "dm.h"
#include "uuid.h"

#define STORE_TARGET		"lazyframe-store"
/* Of device-mapper's UUIDs of the mapped devices that are made here. */
#define STORE_UUID_PREFIX	"LAZYFRAME_STORE-"

/**
 * struct store - a store's mapped device, for a table
 * @number: of the mapped device; 0: no store
 * @made: name of the mapped device if it was made by store_attach(), or ""
 */
struct store {
	dev_t number;
	char made[DEVICE_NAME_MAX + 1];
};

/**
 * store_read_super - is there a store on a device?
 * @fd: open device or file
 * @bytes: its size
 * @uuid: out
 * @why: out for -EINVAL: static sentence
 *
 * Return: 0, -EINVAL where there is none to be used, or why that cannot be known.
 */
int store_read_super(int fd, u64 bytes, u8 uuid[16],
		     struct lf_store_shape *shape, const char **why);

/**
 * store_check - can a path be given to store_attach()?
 *
 * What can be told without a lock. In use is no matter here.
 */
int store_check(const char *path, struct error *e);

/**
 * store_attach - the mapped device of a store
 * @path: that mapped device; or the block device that the store lies on: then
 *	  its mapped device is looked for, and made where there is none
 * @store: out
 *
 * Context: under state_lock(), so that all who come at once get the same.
 */
int store_attach(const char *path, struct store *store, struct error *e);

/* Remove what store_attach() made, if nobody uses it by now. */
void store_undo(struct store *store);

#endif

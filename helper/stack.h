/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Devices with overlays, and the sealed ones that lie below them. The sealed
 * overlay with the UUID 1234abcd-... of device NAME is shown, read-only, by
 * device NAME-sealed-1234abcd.
 */
#ifndef LF_STACK_H
#define LF_STACK_H

#include "dm.h"
#include "pair.h"

/**
 * struct backing - a device for a table
 * @fd: keeps the loop device of a file until a table has it; -1: none
 */
struct backing {
	int fd;
	dev_t number;
};

/**
 * backing_open - a path as a device
 * @is_writable: of the loop device, where the path is a file
 */
int backing_open(const char *path, bool is_writable, struct backing *backing,
		 struct error *e);
void backing_close(struct backing *backing);

/* The name of a sealed device, and device-mapper's UUID for it. */
void stack_name(const char *name, const u8 uuid[16],
		char sealed[DEVICE_NAME_MAX + 1]);
void stack_uuid(const u8 uuid[16], char text[DEVICE_UUID_MAX + 1]);

/**
 * stack_params - arguments of the lazyframe target
 * @store: 0: none
 * @cow: 0: none
 * @origin: 0: none
 * @words: how many words @features has, each with a blank before it
 */
void stack_params(char *params, size_t bytes, dev_t meta, dev_t store,
		  dev_t cow, dev_t origin, bool read_only, u32 words,
		  const char *features);

/**
 * stack_attach - make the sealed devices below a device
 * @top: the overlay that lies on them
 * @store: for their tables; 0: none
 * @origin: out: the uppermost
 *
 * Those that are there already are used as they are. After a failure none is
 * left that was made here.
 */
int stack_attach(const char *name, const struct pair *top, dev_t store,
		 dev_t *origin, struct error *e);

/**
 * stack_detach - remove the sealed devices from one on downwards
 */
int stack_detach(dev_t origin, struct error *e);

/**
 * stack_remove - remove all sealed devices of a device, in use or left over
 * @drop_files: remove the files, too, that got a name of pair_sealed_path() when
 *		they were sealed; called with those that did not, if it is not NULL
 *
 * Nothing may lie on them any more. Cut short, it can be called again.
 */
int stack_remove(const char *name, void (*drop_files)(const char *left),
		 struct error *e);

/* Is there one that nothing lies on? */
bool stack_has_left(const char *name);

/**
 * stack_paths - where the parts of a device are
 * @meta: out: path of the file, or of the block device
 * @cow: the same; "" where there is none
 */
void stack_paths(const struct device *device, char meta[4096], char cow[4096]);

#endif

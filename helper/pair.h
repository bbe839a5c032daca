/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A meta device and a COW device that make an overlay, by their paths: what
 * they hold, new ones, and those of sealed overlays below.
 */
#ifndef LF_PAIR_H
#define LF_PAIR_H

#include "metafile.h"
#include "overlay.h"

#define PAIR_MAX_DEPTH	64	/* sealed overlays below one another */

/**
 * struct pair - an overlay on its two devices
 * @meta: path of the meta device
 * @cow: path of the COW device
 * @url: of the image, NULL: not known
 * @sha256: of its header, in hex, NULL: not known
 * @origin_meta: of the sealed overlay below, or, without one, that was below until
 *		 it was exported; NULL: not known
 * @origin_cow: and its COW device's
 */
struct pair {
	char *meta;
	char *cow;
	struct lf_super super;
	struct lf_disk_root root;
	char *url;
	char *sha256;
	char *origin_meta;
	char *origin_cow;
};

/**
 * pair_probe - do two paths hold an overlay?
 * @pair: out; pair_drop() it, whatever is returned
 *
 * Return: 1 if they do and belong together. 0: there is nothing yet, or an
 * overlay that was never written to. Else an error; -EEXIST: there is something
 * that a new overlay must not take the place of.
 */
int pair_probe(const char *meta, const char *cow, struct pair *pair,
	       struct error *e);
void pair_drop(struct pair *pair);

/**
 * pair_origin - the sealed overlay below another
 * @top: has one
 * @below: out; pair_drop() it, whatever is returned
 */
int pair_origin(const struct pair *top, struct pair *below, struct error *e);

/**
 * struct pair_made - what pair_make() made, for pair_unmake()
 */
struct pair_made {
	struct metafile meta;
	struct devfile cow;
};

/**
 * pair_make - make a new overlay
 * @plan: the meta device's content, with an overlay
 * @force_meta: as metafile_write() has it
 * @force_cow: as cowfile_open() has it
 *
 * A crash leaves a pair that is refused.
 */
int pair_make(const char *meta, const char *cow, const struct meta_plan *plan,
	      bool force_meta, bool force_cow, struct pair_made *made,
	      struct error *e);

/* Remove the files that pair_make() made. */
void pair_unmake(const char *meta, const char *cow,
		 const struct pair_made *made);

/**
 * pair_discard - let an overlay that nobody uses be gone
 *
 * Files are removed; of block devices, superblock and identity are wiped.
 */
int pair_discard(const char *meta, const char *cow, struct error *e);

/**
 * pair_sealed_path - where a sealed overlay's file goes when a new one takes
 * its name
 * @path: its own
 * @uuid: the overlay's
 *
 * Return: malloc()ed, or NULL
 */
char *pair_sealed_path(const char *path, const u8 uuid[16]);

/**
 * pair_drop_sealed - remove a sealed overlay that was exported, and those below
 *
 * Only files with names that pair_sealed_path() gave, and that nobody uses.
 */
void pair_drop_sealed(const char *meta, const char *cow);

/* Is it what a seal of the overlay @uuid made and never used? */
bool pair_left_by_seal(const char *meta, const u8 uuid[16]);

/* Let two files swap their names, in one step. */
int pair_swap_names(const char *a, const char *b, struct error *e);

/**
 * pair_settle - finish a seal that was cut short when it was to swap names
 *
 * Where the overlay of @meta is sealed and its successor lies at the sealed
 * overlay's new name, they change places.
 */
int pair_settle(const char *meta, const char *cow, struct error *e);

#endif

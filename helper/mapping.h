/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The algebra of mappings: what an image becomes when changes are laid over
 * it. No I/O. Lookup is header_find().
 *
 * Lists are ascending, without overlap, in whole blocks of 4 KiB. Neighbours
 * are joined where that says the same: both zeros, or of one layer and back to
 * back in its storage, too. So the same content gives the same list.
 */
#ifndef LF_MAPPING_H
#define LF_MAPPING_H

#include "header.h"

struct image;

/**
 * struct mapping_list - mappings that grow at the end
 * @mapping: @count entries, malloc()ed; the owner frees
 * @room: entries that fit
 *
 * All zero: empty.
 */
struct mapping_list {
	struct header_mapping *mapping;
	u32 count;
	size_t room;
};

/* Where the last one ends; 0 for an empty list. */
u64 mapping_end(const struct mapping_list *list);

/**
 * mapping_add - append one, joined to the last one where possible
 * @list: of at most HEADER_MAX_MAPPINGS
 * @m: begins where @list ends, or behind that; zeros where its layer is nil
 *
 * -EINVAL: not whole blocks, out of range, or before the list's end; -EFBIG: too
 * many; -ENOMEM.
 */
int mapping_add(struct mapping_list *list, const struct header_mapping *m,
		struct error *e);

/* Zeros up to @end, which is not below the list's end. */
int mapping_add_zeros(struct mapping_list *list, u64 end, struct error *e);

/**
 * mapping_cut - forget what is at and behind @end, a multiple of 4 KiB
 */
void mapping_cut(struct mapping_list *list, u64 end);

/**
 * mapping_overlay - changes over what was there
 * @parent: covers [0, its end) without gap
 * @diff: gaps show @parent, all else hides it, zeros too; not behind
 *	  @parent's end
 * @out: empty; covers what @parent does. After an error it may hold anything.
 *
 * O(@parent + @diff), whatever they look like.
 */
int mapping_overlay(const struct mapping_list *parent,
		    const struct mapping_list *diff, struct mapping_list *out,
		    struct error *e);

/**
 * mapping_of_image - an image's extents, and zeros between
 * @list: empty; covers the image up to the end of its last block
 */
int mapping_of_image(const struct image *image, struct mapping_list *list,
		     struct error *e);

void mapping_free(struct mapping_list *list);

#endif

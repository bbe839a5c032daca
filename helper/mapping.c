// SPDX-License-Identifier: GPL-2.0-only
#include "mapping.h"

#include <stdlib.h>

#include "image.h"
#include "uuid.h"

#define BLOCK	LF_META_BLOCK

u64 mapping_end(const struct mapping_list *list)
{
	const struct header_mapping *last;

	if (!list->count)
		return 0;
	last = &list->mapping[list->count - 1];
	return last->start + last->length;
}

static bool joins(const struct header_mapping *a,
		  const struct header_mapping *b)
{
	if (a->start + a->length != b->start ||
	    memcmp(a->uuid, b->uuid, sizeof(a->uuid)))
		return false;
	return uuid_is_nil(a->uuid) || a->storage + a->length == b->storage;
}

/* Also keeps all sums of offsets and lengths far from 2^64. */
static bool in_range(const struct header_mapping *m)
{
	return m->length && m->start % BLOCK == 0 && m->length % BLOCK == 0 &&
	       m->start < LF_MAX_IMAGE && m->length <= LF_MAX_IMAGE - m->start &&
	       (uuid_is_nil(m->uuid) ||
		(m->storage % BLOCK == 0 && m->storage < LF_MAX_IMAGE));
}

int mapping_add(struct mapping_list *list, const struct header_mapping *m,
		struct error *e)
{
	struct header_mapping *to = NULL;

	if (!in_range(m) || m->start < mapping_end(list))
		return error_set(e, -EINVAL,
				 "the mapping of image offset %llu, %llu bytes, is not in order, out of range, or not in whole blocks of %u",
				 (unsigned long long)m->start,
				 (unsigned long long)m->length, BLOCK);
	if (list->count)
		to = &list->mapping[list->count - 1];
	if (to && joins(to, m)) {
		to->length += m->length;
		return 0;
	}
	if (list->count == HEADER_MAX_MAPPINGS)
		return error_set(e, -EFBIG,
				 "the image is in more than %u pieces; flatten it",
				 HEADER_MAX_MAPPINGS);
	if (list->count == list->room) {
		size_t room = list->room ? 2 * list->room : 64;

		to = reallocarray(list->mapping, room, sizeof(*to));
		if (!to)
			return error_set(e, -ENOMEM, "no memory for mappings");
		list->mapping = to;
		list->room = room;
	}
	to = &list->mapping[list->count++];
	*to = *m;
	/* What zeros say there means nothing, so let it be always the same. */
	if (uuid_is_nil(to->uuid))
		to->storage = 0;
	return 0;
}

int mapping_add_zeros(struct mapping_list *list, u64 end, struct error *e)
{
	struct header_mapping zeros = { .start = mapping_end(list) };

	if (end == zeros.start)
		return 0;
	zeros.length = end - zeros.start;
	return mapping_add(list, &zeros, e);
}

void mapping_cut(struct mapping_list *list, u64 end)
{
	struct header_mapping *last;

	while (list->count && list->mapping[list->count - 1].start >= end)
		list->count--;
	if (!list->count)
		return;
	last = &list->mapping[list->count - 1];
	if (end - last->start < last->length)
		last->length = end - last->start;
}

/**
 * add_part - the part of the parent in [@start, @end)
 * @next: the parent's first mapping that ends behind @start; moves on
 */
static int add_part(const struct mapping_list *parent, u32 *next, u64 start,
		    u64 end, struct mapping_list *out, struct error *e)
{
	int err;

	while (start < end) {
		struct header_mapping part;
		u64 skip, stop;

		if (*next == parent->count)
			return error_set(e, -EINVAL,
					 "a change ends behind the image's %llu bytes",
					 (unsigned long long)
					 mapping_end(parent));
		part = parent->mapping[*next];
		if (part.start > start)
			return error_set(e, -EINVAL,
					 "nothing maps image offset %llu",
					 (unsigned long long)start);
		stop = part.start + part.length;
		if (stop <= start) {
			++*next;
			continue;
		}
		if (stop > end)
			stop = end;
		skip = start - part.start;
		part.start += skip;
		part.storage += skip;
		part.length = stop - start;
		if (out) {
			err = mapping_add(out, &part, e);
			if (err)
				return err;
		}
		start = stop;
	}
	return 0;
}

int mapping_overlay(const struct mapping_list *parent,
		    const struct mapping_list *diff, struct mapping_list *out,
		    struct error *e)
{
	u32 next = 0, i;
	u64 at = 0, end;
	int err;

	for (i = 0; i < diff->count; i++) {
		const struct header_mapping *d = &diff->mapping[i];

		err = add_part(parent, &next, at, d->start, out, e);
		if (!err)
			err = mapping_add(out, d, e);
		at = d->start + d->length;
		/* Hidden, but it has to be there. */
		if (!err)
			err = add_part(parent, &next, d->start, at, NULL, e);
		if (err)
			return err;
	}
	end = mapping_end(parent);
	return at < end ? add_part(parent, &next, at, end, out, e) : 0;
}

int mapping_of_image(const struct image *image, struct mapping_list *list,
		     struct error *e)
{
	u32 i;
	int err;

	for (i = 0; i < image->extents; i++) {
		const struct image_extent *x = &image->extent[i];
		struct header_mapping m = {
			.start = x->start,
			.length = (x->length + BLOCK - 1) / BLOCK * BLOCK,
			.storage = x->storage,
		};

		memcpy(m.uuid, image->layer[x->layer].uuid, sizeof(m.uuid));
		err = mapping_add_zeros(list, m.start, e);
		if (!err)
			err = mapping_add(list, &m, e);
		if (err)
			return err;
	}
	return mapping_add_zeros(list,
				 (image->bytes + BLOCK - 1) / BLOCK * BLOCK, e);
}

void mapping_free(struct mapping_list *list)
{
	free(list->mapping);
	memset(list, 0, sizeof(*list));
}

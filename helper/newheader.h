/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LF_NEWHEADER_H
#define LF_NEWHEADER_H

#include "mapping.h"
#include "newlayer.h"

struct object_ops;

/**
 * struct newheader - what a new header is made of
 * @n: what was asked for; its parent's layers may be mapped
 * @result: URL of the header is there; what becomes known is filled in
 * @ops: of that URL
 * @base: what stands before <layer>/<name>, with its slash
 * @list: covers the image
 * @own: the new layer; with no bytes there is none, and only its UUID counts
 */
struct newheader {
	const struct newlayer *n;
	struct newlayer_result *result;
	const struct object_ops *ops;
	const char *base;
	const struct mapping_list *list;
	struct header_layer own;
};

/**
 * newheader_store - make it visible, or with dry_run only see what it would be
 *
 * -ENOENT, -EEXIST: a layer of the parent is not where the header needs it.
 * After an error there is no header.
 */
int newheader_store(const struct newheader *h, struct error *e);

#endif

// SPDX-License-Identifier: GPL-2.0-only
/*
 * The header that belongs to a new layer: its mappings are known, the layers
 * that they name are listed with what is needed of each.
 */
#include "newheader.h"

#include <linux/lazyframe.h>
#include <stdio.h>
#include <stdlib.h>

#include "object.h"
#include "uuid.h"

static bool is_own(const struct newheader *h, const u8 uuid[16])
{
	return !memcmp(uuid, h->own.uuid, sizeof(h->own.uuid));
}

/*
 * A layer of the parent that stays mapped has to lie where the new header will
 * look for it, that is, below the same URL and under the same name.
 */
static int find_layer(const struct newheader *h, const struct image_layer *layer,
		      struct error *e)
{
	const char *slash = strrchr(h->result->header_url, '/');
	int len = strlen(slash) - strlen(".header");
	const struct codec *codec = codec_by_id(layer->codec);
	char uuid[UUID_TEXT], *url;
	struct object_info info;
	int err;

	uuid_text(layer->uuid, uuid);
	if (asprintf(&url, "%s%s%.*s%s", h->base, uuid, len, slash,
		     codec->suffix) < 0)
		return no_memory(e);
	if (!strcmp(url, layer->locator)) {
		free(url);
		return 0;
	}
	err = h->ops->stat(url, &info, e);
	if (!err && info.bytes != layer->cbytes)
		err = error_set(e, -EEXIST, "%s: not the same object as %s",
				url, layer->locator);
	if (err)
		error_prefix(e,
			     "the parent's layers have to be below %s, under the same name: store there, or flatten the parent first",
			     h->base);
	free(url);
	return err;
}

/* The frames that mappings touch, of one layer of the parent. */
static int trim_table(const struct image_layer *from, const u8 *used,
		      struct header_layer *to, struct error *e)
{
	u32 i, n = 0;

	for (i = 0; i < from->frames; i++)
		n += used[i];
	to->frame = calloc(n + 1UL, sizeof(*to->frame));
	if (!to->frame)
		return no_memory(e);
	for (i = 0; i < from->frames; i++)
		if (used[i])
			to->frame[to->frames++] = from->frame[i];
	return 0;
}

static void mark_frames(const struct image_layer *layer,
			const struct header_mapping *m, u8 *used)
{
	u64 end = m->storage + m->length;
	u32 low = 0, high = layer->frames;

	/* The first frame that ends behind the mapping's start */
	while (low < high) {
		const struct lf_frame_pos *pos;
		u32 mid = low + (high - low) / 2;

		pos = &layer->frame[mid];
		if (pos->ustart + pos->ubytes <= m->storage)
			low = mid + 1;
		else
			high = mid;
	}
	for (; low < layer->frames && layer->frame[low].ustart < end; low++)
		used[low] = 1;
}

static int compare_uuids(const void *a, const void *b)
{
	const struct image_layer *x = a, *y = b;

	return memcmp(x->uuid, y->uuid, sizeof(x->uuid));
}

static int compare_entries(const void *a, const void *b)
{
	const struct header_layer *x = a, *y = b;

	return memcmp(x->uuid, y->uuid, sizeof(x->uuid));
}

static int add_parent_layer(const struct newheader *h,
			    const struct image_layer *layer, const u8 *used,
			    struct header *header, struct error *e)
{
	struct header_layer *entry = &header->layer[header->layers];
	int err;

	if (!h->n->parent->header_version)
		return error_set(e, -EINVAL,
				 "%s: a data object without a header is no parent: lazyframe flatten makes one with a header",
				 h->n->parent_url);
	err = find_layer(h, layer, e);
	if (err)
		return err;
	memcpy(entry->uuid, layer->uuid, sizeof(entry->uuid));
	entry->ubytes = layer->ubytes;
	entry->codec = layer->codec;
	if (layer->has_sha256)
		memcpy(entry->sha256, layer->sha256, sizeof(entry->sha256));
	header->layers++;
	/* The runs of raw layers are made up. */
	if (layer->codec == LAZYFRAME_CODEC_NONE)
		return 0;
	return trim_table(layer, used, entry, e);
}

static int add_own_layer(const struct newheader *h, struct header *header,
			 struct error *e)
{
	struct header_layer *entry = &header->layer[header->layers++];

	*entry = h->own;
	entry->frames = 0;
	entry->frame = calloc(h->own.frames + 1UL, sizeof(*entry->frame));
	if (!entry->frame)
		return no_memory(e);
	if (h->own.frames)
		memcpy(entry->frame, h->own.frame,
		       h->own.frames * sizeof(*entry->frame));
	entry->frames = h->own.frames;
	return 0;
}

/* List the layers that mappings name, each with what they need of it. */
static int list_layers(const struct newheader *h, struct header *header,
		       struct error *e)
{
	const struct image *parent = h->n->parent;
	u32 layers = parent ? parent->layers : 0, i;
	u8 **used = calloc(layers + 1UL, sizeof(*used));
	int err = 0;

	header->layer = calloc(layers + 1UL, sizeof(*header->layer));
	if (!used || !header->layer) {
		err = no_memory(e);
		goto out;
	}
	for (i = 0; i < header->mappings; i++) {
		const struct header_mapping *m = &header->mapping[i];
		struct image_layer key = { }, *layer;

		if (uuid_is_nil(m->uuid) || is_own(h, m->uuid))
			continue;
		memcpy(key.uuid, m->uuid, sizeof(key.uuid));
		layer = bsearch(&key, parent->layer, layers, sizeof(*layer),
				compare_uuids);
		if (!used[layer - parent->layer])
			used[layer - parent->layer] =
				calloc(layer->frames + 1UL, 1);
		if (!used[layer - parent->layer]) {
			err = no_memory(e);
			goto out;
		}
		mark_frames(layer, m, used[layer - parent->layer]);
	}
	for (i = 0; !err && i < layers; i++)
		if (used[i])
			err = add_parent_layer(h, &parent->layer[i], used[i],
					       header, e);
	if (!err && h->own.ubytes)
		err = add_own_layer(h, header, e);
	qsort(header->layer, header->layers, sizeof(*header->layer),
	      compare_entries);
out:
	for (i = 0; used && i < layers; i++)
		free(used[i]);
	free(used);
	return err;
}

/* Version 3 cannot say that a layer is compressed, and need not say more. */
static u64 choose_version(const struct newheader *h, const struct header *header)
{
	const struct image *parent = h->n->parent;
	u32 i;

	for (i = 0; i < header->layers; i++)
		if (header->layer[i].codec != LAZYFRAME_CODEC_NONE)
			return 4;
	if (header->layers)
		return 3;
	if (parent && parent->header_version)
		return parent->header_version < 4 ? 3 : 4;
	return h->own.codec == LAZYFRAME_CODEC_NONE ? 3 : 4;
}

static int name_header(const struct newheader *h, struct header *header,
		       struct error *e)
{
	const struct image *parent = h->n->parent;

	memcpy(header->uuid, h->own.uuid, sizeof(header->uuid));
	memcpy(header->base_uuid, h->own.uuid, sizeof(header->base_uuid));
	header->block_size = LF_META_BLOCK;
	header->size = h->n->bytes;
	if (!parent || !parent->header_version)
		return 0;
	if (parent->generation == UINT64_MAX)
		return error_set(e, -EOVERFLOW,
				 "%s: there is no generation after its %llu",
				 h->n->parent_url,
				 (unsigned long long)parent->generation);
	header->generation = parent->generation + 1;
	header->block_size = parent->block_size;
	memcpy(header->base_uuid, uuid_is_nil(parent->base_uuid) ?
	       parent->uuid : parent->base_uuid, sizeof(header->base_uuid));
	return 0;
}

static void count_kept(const struct newheader *h, const struct header *header)
{
	u32 i;

	for (i = 0; i < header->mappings; i++) {
		const struct header_mapping *m = &header->mapping[i];
		u64 end = m->start + m->length;

		if (end > header->size)
			end = header->size;
		if (!uuid_is_nil(m->uuid) && !is_own(h, m->uuid))
			h->result->kept_bytes += end - m->start;
	}
}

int newheader_store(const struct newheader *h, struct error *e)
{
	struct newlayer_result *result = h->result;
	struct header header = { };
	void *data = NULL;
	size_t bytes;
	int err;

	header.mapping = h->list->mapping;
	header.mappings = h->list->count;
	err = name_header(h, &header, e);
	if (!err)
		err = list_layers(h, &header, e);
	if (err)
		goto out;
	header.version = choose_version(h, &header);
	count_kept(h, &header);
	result->generation = header.generation;
	result->layers = header.layers;
	result->mappings = header.mappings;
	err = header_write(&header, &data, &bytes, e);
	if (err)
		goto out;
	result->header_bytes = bytes;
	if (!h->n->dry_run)
		err = h->ops->put(result->header_url, data, bytes, ~0ULL,
				  false, e);
	/*
	 * It may be there all the same: nothing that it names will be. What was
	 * there before is somebody else's.
	 */
	if (err && err != -EEXIST)
		h->ops->delete(result->header_url, NULL);
out:
	free(data);
	/* The mappings are not the header's own. */
	header.mapping = NULL;
	header_free(&header);
	return err;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * From a URL to everything that attaching needs: what the header says, what
 * the store says about each layer, and what the layers say about themselves.
 * Where two of these tell the same thing, they must agree.
 */
#include "image.h"

#include <assert.h>
#include <linux/lazyframe.h>
#include <stdio.h>
#include <stdlib.h>

#include "codec.h"
#include "header.h"
#include "object.h"
#include "pipeline.h"
#include "seektable.h"
#include "uuid.h"

#define HEADER_SUFFIX	".header"
#define RAW_RUN		(128U << 10)	/* doubled until the table fits */
#define OPENERS		16		/* layers that are opened at once */
#define TAIL_BYTES	(64U << 10)	/* with them comes a table, most likely */
/* An LZ4 frame may be larger than its content, by very little. */
#define HEADER_MAX_OBJECT	(HEADER_MAX_BYTES + (HEADER_MAX_BYTES >> 8))

static const char *layer_name(const struct image_layer *layer,
			      char text[UUID_TEXT])
{
	uuid_text(layer->uuid, text);
	return text;
}

/* Runs of equal size for bytes that have no table. */
static int make_runs(struct image_layer *layer, struct error *e)
{
	u32 run = RAW_RUN, i;
	u64 frames, off = 0;

	while (layer->ubytes / run >= LF_MAX_FRAMES)
		run *= 2;
	frames = layer->ubytes / run + !!(layer->ubytes % run);
	layer->frame = calloc(frames + 1, sizeof(*layer->frame));
	if (!layer->frame)
		return no_memory(e);
	for (i = 0; i < frames; i++, off += run) {
		u64 left = layer->ubytes - off;

		layer->frame[i] = (struct lf_frame_pos){
			.ustart = off,
			.cstart = off,
			.ubytes = left < run ? left : run,
			.cbytes = left < run ? left : run,
			.index = i,
		};
	}
	layer->frames = frames;
	return 0;
}

/* The last bytes of a layer's data object */
struct tail {
	void *data;
	size_t bytes;
};

/*
 * The whole seek table, a part of @tail if it is in there, else fetched into
 * @table, which is the caller's to free.
 *
 * Return: as read_table()
 */
static int find_table(const struct image_layer *layer,
		      const struct tail *tail, void **table, const void **found,
		      u64 *bytes, struct error *e)
{
	const struct object_ops *ops = object_ops(layer->locator, e);
	const void *end = (const u8 *)tail->data + tail->bytes;
	const char *why = "";
	int err;

	if (!ops)
		return -EINVAL;
	if (tail->bytes < SEEKTABLE_FOOTER_BYTES)
		return -ENOENT;
	err = seektable_size((const u8 *)end - SEEKTABLE_FOOTER_BYTES,
			     layer->cbytes, bytes, &why);
	if (err == -ENOENT)
		return err;
	if (err)
		return error_set(e, err, "%s: %s", layer->locator, why);
	if (*bytes <= tail->bytes) {
		*found = (const u8 *)end - *bytes;
		return 0;
	}
	*table = malloc(*bytes);
	if (!*table)
		return no_memory(e);
	*found = *table;
	err = ops->get_range(layer->locator, layer->cbytes - *bytes, *table,
			     *bytes, e);
	/* Only "there is no table" may be reported so. */
	return err == -ENOENT ? -ESTALE : err;
}

/*
 * Read the object's own seek table into @frame, @frames and @ubytes.
 *
 * Return: 0; -ENOENT without an error text: it has none
 */
static int read_table(struct image_layer *layer, const struct tail *tail,
		      struct lf_frame_pos **frame, u32 *frames, u64 *ubytes,
		      struct error *e)
{
	struct lf_frame_pos *pos = NULL;
	const char *why = "";
	const void *table = NULL;
	void *own = NULL;
	u64 bytes;
	u32 room;
	int err;

	err = find_table(layer, tail, &own, &table, &bytes, e);
	if (err)
		goto out;
	err = seektable_frames(table, bytes, &room, &why);
	if (err)
		goto bad;
	pos = calloc(room + 1UL, sizeof(*pos));
	if (!pos) {
		err = no_memory(e);
		goto out;
	}
	err = seektable_read(table, bytes, layer->cbytes, pos, frames, ubytes,
			     &why);
	if (err)
		goto bad;
	layer->data_end = layer->cbytes - bytes;
	*frame = pos;
	pos = NULL;
	goto out;

bad:
	err = error_set(e, -EINVAL, "%s: %s", layer->locator, why);
out:
	free(pos);
	free(own);
	return err;
}

static bool table_has_sums(const struct image_layer *layer)
{
	return layer->frames && layer->frame[0].has_sum;
}

/*
 * The store's word on the layer's data object, and with it as many of its last
 * bytes as @tail says; 0: none. @tail: its data is the caller's to free.
 */
static int look_at(struct image_layer *layer, struct tail *tail,
		   struct error *e)
{
	const struct object_ops *ops = object_ops(layer->locator, e);
	struct object_info info;
	int err;

	if (!ops)
		return -EINVAL;
	if (strlen(layer->locator) >= LAZYFRAME_LOCATOR_MAX)
		return error_set(e, -ENAMETOOLONG, "%s: longer than %u bytes",
				 layer->locator, LAZYFRAME_LOCATOR_MAX - 1);
	if (tail->bytes)
		err = object_tail(layer->locator, tail->bytes, &tail->data,
				  &info, e);
	else
		err = ops->stat(layer->locator, &info, e);
	if (err)
		return err;
	if (tail->bytes > info.bytes)
		tail->bytes = info.bytes;
	if (info.bytes > LF_MAX_IMAGE)
		return error_set(e, -EFBIG, "%s: larger than %llu TiB",
				 layer->locator, LF_MAX_IMAGE >> 40);
	layer->cbytes = info.bytes;
	layer->data_end = info.bytes;
	layer->validator = strdup(info.validator);
	return layer->validator ? 0 : no_memory(e);
}

/*
 * How long a layer's seek table is by what the header says: it lists all frames,
 * or only those that are mapped. A guess that is too low costs a request.
 */
static size_t table_bytes(const struct header_layer *entry)
{
	u64 bytes, all;
	u32 biggest = 1, i;

	assert(entry);	/* as for open_compressed() */
	for (i = 0; i < entry->frames; i++)
		if (entry->frame[i].ubytes > biggest)
			biggest = entry->frame[i].ubytes;
	bytes = seektable_bytes(entry->frames);
	all = entry->ubytes / biggest + 1;
	if (all > entry->frames && bytes < TAIL_BYTES)
		bytes = all > LF_MAX_FRAMES ||
			seektable_bytes(all) > TAIL_BYTES ?
			TAIL_BYTES : seektable_bytes(all);
	return bytes;
}

/* Each frame of the header's table must be one of the object's own. */
static int tables_agree(const struct image_layer *layer,
			const struct header_layer *entry, u64 ubytes,
			struct error *e)
{
	u32 i, at = 0;

	if (entry->ubytes != ubytes)
		return error_set(e, -EINVAL,
				 "%s: holds %llu bytes by its seek table and %llu by the header",
				 layer->locator, (unsigned long long)ubytes,
				 (unsigned long long)entry->ubytes);
	for (i = 0; i < entry->frames; i++) {
		const struct lf_frame_pos *a = &entry->frame[i], *b;

		while (at < layer->frames &&
		       layer->frame[at].ustart < a->ustart)
			at++;
		b = &layer->frame[at];
		if (at == layer->frames || a->ustart != b->ustart ||
		    a->cstart != b->cstart || a->ubytes != b->ubytes ||
		    a->cbytes != b->cbytes)
			return error_set(e, -EINVAL,
					 "%s: the header's frame %u, at U offset %llu, is not in the object's seek table",
					 layer->locator, i,
					 (unsigned long long)a->ustart);
	}
	return 0;
}

static int open_compressed(struct image_layer *layer,
			   const struct header_layer *entry,
			   const struct tail *tail, struct error *e)
{
	u64 ubytes = 0, end;
	u32 i;
	int err;

	/* Only an entry with a table makes a layer a compressed one. */
	assert(entry && entry->frames);
	err = read_table(layer, tail, &layer->frame, &layer->frames, &ubytes,
			 e);
	if (!err) {
		layer->sums = table_has_sums(layer);
		return tables_agree(layer, entry, ubytes, e);
	}
	if (err != -ENOENT)
		return err;

	layer->frame = calloc(entry->frames, sizeof(*layer->frame));
	if (!layer->frame)
		return no_memory(e);
	for (i = 0; i < entry->frames; i++) {
		layer->frame[i] = entry->frame[i];
		layer->frame[i].index = i;
		layer->frame[i].has_sum = false;
	}
	layer->frames = entry->frames;
	end = entry->frame[i - 1].cstart + entry->frame[i - 1].cbytes;
	if (end > layer->cbytes)
		return error_set(e, -EINVAL,
				 "%s: %llu bytes long, but the header has frames up to %llu",
				 layer->locator,
				 (unsigned long long)layer->cbytes,
				 (unsigned long long)end);
	return 0;
}

/**
 * open_layer - a layer that mappings name
 * @base: what stands before <layer>/<name>, with its slash
 * @name: of the data object, without suffix
 */
static int open_layer(struct image_layer *layer, const struct header *header,
		      const char *base, const char *name, struct error *e)
{
	const struct header_layer *entry = header_layer(header, layer->uuid);
	static const u8 unknown[sizeof(entry->sha256)];
	const struct codec *codec;
	struct tail tail = { };
	char text[UUID_TEXT];
	int err;

	assert(layer);
	/* A table is what tells a compressed layer from a raw one. */
	layer->codec = entry && entry->frames ? entry->codec :
						LAZYFRAME_CODEC_NONE;
	codec = codec_by_id(layer->codec);
	if (!codec)
		return error_set(e, -EINVAL, "layer %s: unknown codec %u",
				 layer_name(layer, text), layer->codec);
	if (asprintf(&layer->locator, "%s%s/%s%s", base,
		     layer_name(layer, text), name, codec->suffix) < 0) {
		layer->locator = NULL;
		return no_memory(e);
	}
	if (layer->codec != LAZYFRAME_CODEC_NONE)
		tail.bytes = table_bytes(entry);
	err = look_at(layer, &tail, e);
	if (err)
		goto out;
	if (entry && memcmp(entry->sha256, unknown, sizeof(unknown))) {
		memcpy(layer->sha256, entry->sha256, sizeof(layer->sha256));
		layer->has_sha256 = true;
	}
	/* 0 for a raw layer: its size was not known when it was written. */
	layer->ubytes = entry && entry->ubytes ? entry->ubytes :
						 layer->cbytes;
	if (layer->codec != LAZYFRAME_CODEC_NONE)
		err = open_compressed(layer, entry, &tail, e);
	else if (layer->ubytes != layer->cbytes)
		err = error_set(e, -EINVAL,
				"%s: %llu bytes long, but the header says %llu",
				layer->locator,
				(unsigned long long)layer->cbytes,
				(unsigned long long)layer->ubytes);
	else
		err = make_runs(layer, e);
out:
	free(tail.data);
	return err;
}

/* Layers are opened several at a time: all that it takes is waiting. */
struct opening {
	const struct header *header;
	const char *base;
	const char *name;
	struct image_layer *next;
	struct image_layer *end;
};

static int next_layer(void *ctx, void *job, struct error *e)
{
	struct opening *opening = ctx;
	struct image_layer **layer = job;

	(void)e;
	if (opening->next == opening->end)
		return 0;
	*layer = opening->next++;
	return 1;
}

static int open_one(void *ctx, unsigned int thread, void *job, struct error *e)
{
	const struct opening *opening = ctx;
	struct image_layer **layer = job;

	(void)thread;
	return open_layer(*layer, opening->header, opening->base,
			  opening->name, e);
}

static int opened(void *ctx, void *job, struct error *e)
{
	(void)ctx;
	(void)job;
	(void)e;
	return 0;
}

static int open_layers(struct image *image, const struct header *header,
		       const char *base, const char *name, struct error *e)
{
	static const struct pipeline stages = {
		.produce = next_layer,
		.work = open_one,
		.consume = opened,
	};
	struct opening opening = {
		.header = header,
		.base = base,
		.name = name,
		.next = image->layer,
		.end = image->layer + image->layers,
	};
	struct image_layer *layer[OPENERS];
	unsigned int n = ARRAY_SIZE(layer), i;
	void *job[ARRAY_SIZE(layer)];

	for (i = 0; i < n; i++)
		job[i] = &layer[i];
	if (image->layers < n)
		n = image->layers;
	return n ? pipeline_run(&stages, &opening, job, n, n, e) : 0;
}

static int compare_layers(const void *a, const void *b)
{
	const struct image_layer *x = a, *y = b;

	return memcmp(x->uuid, y->uuid, sizeof(x->uuid));
}

/* The layers that mappings name, ascending, each once. */
static int collect_layers(struct image *image, const struct header *header,
			  struct error *e)
{
	struct image_layer *layer = NULL;
	size_t n = 0, room = 0, used, i;
	const u8 *last = NULL;

	for (i = 0; i < header->mappings; i++) {
		const struct header_mapping *m = &header->mapping[i];

		if (uuid_is_nil(m->uuid))
			continue;
		image->extents++;
		/* Mostly the same one again: keep the array short. */
		if (last && !memcmp(last, m->uuid, sizeof(m->uuid)))
			continue;
		last = m->uuid;
		if (n == room) {
			void *p;

			room = room ? 2 * room : 16;
			p = reallocarray(layer, room, sizeof(*layer));
			if (!p) {
				free(layer);
				return no_memory(e);
			}
			layer = p;
		}
		memset(&layer[n], 0, sizeof(*layer));
		memcpy(layer[n++].uuid, m->uuid, sizeof(m->uuid));
	}
	image->layer = layer;
	if (!layer)
		return 0;

	qsort(layer, n, sizeof(*layer), compare_layers);
	for (used = 1, i = 1; i < n; i++)
		if (compare_layers(&layer[i], &layer[used - 1]))
			layer[used++] = layer[i];
	if (used > LF_MAX_LAYERS)
		return error_set(e, -EINVAL, "more than %u layers",
				 LF_MAX_LAYERS);
	image->layers = used;
	return 0;
}

/*
 * Tables that the header holds were checked against its mappings with it, and
 * all others have no gaps: what remains to be seen is where layers end.
 */
static int make_extents(struct image *image, const struct header *header,
			struct error *e)
{
	char text[UUID_TEXT];
	u32 i, n = 0;

	image->extent = calloc(image->extents + 1UL, sizeof(*image->extent));
	if (!image->extent)
		return no_memory(e);
	for (i = 0; i < header->mappings; i++) {
		const struct header_mapping *m = &header->mapping[i];
		struct image_extent *extent = &image->extent[n];
		struct image_layer key = { }, *layer;
		u64 held;

		if (uuid_is_nil(m->uuid))
			continue;
		assert(image->layer);	/* collected from these mappings */
		memcpy(key.uuid, m->uuid, sizeof(key.uuid));
		layer = bsearch(&key, image->layer, image->layers,
				sizeof(*layer), compare_layers);
		extent->start = m->start;
		extent->length = m->length;
		if (extent->length > image->bytes - extent->start)
			extent->length = image->bytes - extent->start;
		extent->storage = m->storage;
		extent->layer = layer - image->layer;
		n++;

		held = 0;
		if (extent->storage < layer->ubytes)
			held = layer->ubytes - extent->storage;
		if (!held || (extent->length > held &&
			      extent->length - held >= header->block_size))
			return error_set(e, -EINVAL,
					 "the mapping of image offset %llu, %llu bytes, ends behind its layer %s",
					 (unsigned long long)extent->start,
					 (unsigned long long)extent->length,
					 layer_name(layer, text));
		/*
		 * An image's last block is stored without its padding. Whole
		 * blocks of 4 KiB behind that are zero: not to be mapped.
		 */
		held = (held + LF_META_BLOCK - 1) / LF_META_BLOCK *
		       LF_META_BLOCK;
		if (extent->length > held)
			extent->length = held;
	}
	return 0;
}

int image_split_url(const char *url, char **base, char **name,
		    struct error *e)
{
	const char *slash = strrchr(url, '/'), *up = slash;

	if (strpbrk(url, "?#"))
		return error_set(e, -EINVAL,
				 "%s: a header's URL has no query, as the layers' URLs are made from it",
				 url);
	while (up && up > url && up[-1] != '/')
		up--;
	/* "scheme://" is no directory. */
	if (!up || up == url || (up > url + 1 && up[-2] == '/'))
		return error_set(e, -EINVAL,
				 "%s: a header's URL ends in <uuid>/<name>" HEADER_SUFFIX,
				 url);
	*base = strndup(url, up - url);
	*name = strndup(slash + 1, strlen(slash + 1) - strlen(HEADER_SUFFIX));
	return *base && *name ? 0 : no_memory(e);
}

/*
 * What a layer's own header says about it. A layer without one is from before
 * there were versions that list layers, and so is raw; its size is not known.
 */
static int own_entry(const u8 uuid[16], const char *base, const char *name,
		     struct header_layer *entry, struct error *e)
{
	const struct header_layer *found;
	struct header own = { };
	char text[UUID_TEXT];
	void *data = NULL;
	char *url = NULL;
	size_t bytes;
	int err;

	memset(entry, 0, sizeof(*entry));
	memcpy(entry->uuid, uuid, sizeof(entry->uuid));
	uuid_text(uuid, text);
	if (asprintf(&url, "%s%s/%s" HEADER_SUFFIX, base, text, name) < 0)
		return no_memory(e);
	err = object_get(url, HEADER_MAX_OBJECT, &data, &bytes, e);
	if (err == -ENOENT) {
		err = 0;
		goto out;
	}
	if (!err)
		err = header_parse(data, bytes, &own, e);
	if (err)
		goto out;
	found = header_layer(&own, uuid);
	if (memcmp(own.uuid, uuid, sizeof(own.uuid))) {
		err = error_set(e, -EINVAL, "%s: is not the header of layer %s",
				url, text);
	} else if (own.in_flight) {
		err = error_set(e, -EBUSY, "%s: its upload is not finished",
				url);
	} else if (found) {
		*entry = *found;
		own.layer[found - own.layer].frame = NULL;
	} else if (own.version >= 4) {
		err = error_set(e, -EINVAL,
				"%s: does not list its own layer, so nothing tells how it is stored",
				url);
	}
out:
	header_free(&own);
	free(data);
	free(url);
	return err;
}

static int insert_layer(struct header *header, const struct header_layer *entry,
			struct error *e)
{
	struct header_layer *layer;
	u32 at = 0;

	if (header->layers >= HEADER_MAX_BUILDS)
		return error_set(e, -EINVAL, "more than %u layers",
				 HEADER_MAX_BUILDS);
	layer = reallocarray(header->layer, header->layers + 1UL,
			     sizeof(*layer));
	if (!layer)
		return no_memory(e);
	header->layer = layer;
	while (at < header->layers &&
	       memcmp(layer[at].uuid, entry->uuid, sizeof(entry->uuid)) < 0)
		at++;
	memmove(layer + at + 1, layer + at,
		(header->layers - at) * sizeof(*layer));
	layer[at] = *entry;
	header->layers++;
	return 0;
}

/*
 * From version 4 on, a layer that mappings name and the header does not list
 * may be stored in any way: taking it for a raw one could map compressed bytes
 * as content. Its own header is asked, once for each such layer.
 */
static int list_missing_layers(struct header *header, const char *base,
			       const char *name, struct error *e)
{
	struct header_layer entry;
	bool changed = false;
	u32 i;
	int err;

	if (header->version < 4)
		return 0;
	for (i = 0; i < header->mappings; i++) {
		const u8 *uuid = header->mapping[i].uuid;

		if (uuid_is_nil(uuid) || header_layer(header, uuid))
			continue;
		err = own_entry(uuid, base, name, &entry, e);
		if (err)
			return err;
		err = insert_layer(header, &entry, e);
		if (err) {
			free(entry.frame);
			return err;
		}
		changed = true;
	}
	/* Do the mappings lie inside what was found? */
	return changed ? header_check(header, e) : 0;
}

static int hash_header(struct image *image, const void *data, size_t bytes,
		       struct error *e)
{
	u8 sum[SHA256_BYTES];
	int err = sha256_of(data, bytes, sum);

	if (err)
		return error_set(e, err, "out of memory");
	sha256_text(sum, image->sha256);
	return 0;
}

static int open_header(const char *url, struct image *image, struct error *e)
{
	char *base = NULL, *name = NULL;
	struct header header = { };
	void *data = NULL;
	size_t bytes;
	int err;

	err = image_split_url(url, &base, &name, e);
	if (!err)
		err = object_get(url, HEADER_MAX_OBJECT, &data, &bytes, e);
	if (!err)
		err = hash_header(image, data, bytes, e);
	if (err)
		goto out;
	err = header_parse(data, bytes, &header, e);
	if (err) {
		error_prefix(e, "%s", url);
		goto out;
	}
	if (header.in_flight) {
		err = error_set(e, -EBUSY, "%s: its upload is not finished",
				url);
		goto out_header;
	}
	if (header.size > LF_MAX_IMAGE) {
		err = error_set(e, -EFBIG,
				"%s: the image is larger than %llu TiB",
				url, LF_MAX_IMAGE >> 40);
		goto out_header;
	}
	memcpy(image->uuid, header.uuid, sizeof(image->uuid));
	memcpy(image->base_uuid, header.base_uuid, sizeof(image->base_uuid));
	image->bytes = header.size;
	image->block_size = header.block_size;
	image->generation = header.generation;
	image->header_version = header.version;

	err = list_missing_layers(&header, base, name, e);
	if (!err)
		err = collect_layers(image, &header, e);
	if (!err)
		err = open_layers(image, &header, base, name, e);
	if (!err)
		err = make_extents(image, &header, e);
	if (err)
		error_prefix(e, "%s", url);
out_header:
	header_free(&header);
out:
	free(data);
	free(base);
	free(name);
	return err;
}

/* What a table says about frames, their first bytes say about the codec. */
static int detect_codec(struct image_layer *layer, const struct tail *tail,
			struct error *e)
{
	const struct object_ops *ops = object_ops(layer->locator, e);
	u64 at = layer->frames ? layer->frame[0].cstart : 0;
	u8 head[4];
	int err = 0;

	if (!ops)
		return -EINVAL;
	if (layer->cbytes < sizeof(head)) {
		layer->codec = LAZYFRAME_CODEC_NONE;
		return 0;
	}
	if (tail->bytes == layer->cbytes)
		memcpy(head, (const u8 *)tail->data + at, sizeof(head));
	else
		err = ops->get_range(layer->locator, at, head, sizeof(head), e);
	if (!err)
		layer->codec = codec_detect(head);
	return err;
}

static int uuid_of_object(const struct image_layer *layer, u8 uuid[16],
			  struct error *e)
{
	char *text;
	int n;

	n = asprintf(&text, "%s\n%s\n%llu", layer->locator, layer->validator,
		     (unsigned long long)layer->cbytes);
	if (n < 0)
		return no_memory(e);
	uuid_from(text, n, uuid);
	free(text);
	return 0;
}

/* @table: has it a seek table? */
static int read_object(struct image_layer *layer, bool *table, struct error *e)
{
	struct tail tail = { .bytes = TAIL_BYTES };
	int err;

	err = look_at(layer, &tail, e);
	if (err)
		goto out;
	err = read_table(layer, &tail, &layer->frame, &layer->frames,
			 &layer->ubytes, e);
	*table = !err;
	if (err && err != -ENOENT)
		goto out;
	layer->sums = *table && table_has_sums(layer);
	err = detect_codec(layer, &tail, e);
out:
	free(tail.data);
	return err;
}

static int open_object(const char *url, struct image *image, struct error *e)
{
	struct image_layer *layer;
	bool table;
	int err;

	layer = calloc(1, sizeof(*layer));
	image->layer = layer;
	image->extent = calloc(1, sizeof(*image->extent));
	if (!layer || !image->extent)
		return no_memory(e);
	image->layers = 1;
	layer->locator = strdup(url);
	if (!layer->locator)
		return no_memory(e);

	err = read_object(layer, &table, e);
	if (err)
		return err;
	if (table && layer->frames && layer->codec == LAZYFRAME_CODEC_NONE)
		return error_set(e, -EINVAL,
				 "%s: has a seek table, but its frames are neither zstd's nor LZ4's",
				 url);
	if (!table && layer->codec != LAZYFRAME_CODEC_NONE)
		return error_set(e, -EINVAL,
				 "%s: compressed, but without a seek table, so no part of it can be read alone; decompress it and store it with lazyframe build",
				 url);
	if (!table) {
		layer->ubytes = layer->cbytes;
		err = make_runs(layer, e);
		if (err)
			return err;
	}
	if (!layer->ubytes)
		return error_set(e, -EINVAL, "%s: the image is empty", url);

	err = uuid_of_object(layer, layer->uuid, e);
	if (err)
		return err;
	memcpy(image->uuid, layer->uuid, sizeof(image->uuid));
	memcpy(image->base_uuid, layer->uuid, sizeof(image->base_uuid));
	image->bytes = layer->ubytes;
	image->block_size = LF_META_BLOCK;
	image->extents = 1;
	image->extent[0].length = layer->ubytes;
	return 0;
}

int image_open(const char *url, struct image **out, struct error *e)
{
	size_t len = strlen(url), suffix = strlen(HEADER_SUFFIX);
	struct image *image = calloc(1, sizeof(*image));
	int err;

	if (!image)
		return no_memory(e);
	image->url = strdup(url);
	if (!image->url)
		err = no_memory(e);
	else if (len > suffix && !strcmp(url + len - suffix, HEADER_SUFFIX))
		err = open_header(url, image, e);
	else
		err = open_object(url, image, e);
	if (err) {
		image_free(image);
		return err;
	}
	*out = image;
	return 0;
}

void image_free(struct image *image)
{
	u32 i;

	if (!image)
		return;
	for (i = 0; i < image->layers; i++) {
		free(image->layer[i].locator);
		free(image->layer[i].validator);
		free(image->layer[i].frame);
	}
	free(image->layer);
	free(image->extent);
	free(image->url);
	free(image);
}

int image_decode_frame(const struct image_layer *layer, u32 index,
		       const void *data, void *out, struct error *e)
{
	const struct lf_frame_pos *pos = &layer->frame[index];
	const char *why = "";
	int err;

	err = codec_decode(layer->codec, data, pos->cbytes, out, pos->ubytes,
			   &why);
	if (!err && pos->has_sum &&
	    (u32)XXH64(out, pos->ubytes, 0) != pos->sum) {
		why = "the content has not the checksum of the seek table";
		err = -EBADMSG;
	}
	if (err)
		error_set(e, err,
			  "%s: frame %u (U offset %llu, C offset %llu, %u bytes): %s",
			  layer->locator, index,
			  (unsigned long long)pos->ustart,
			  (unsigned long long)pos->cstart, pos->cbytes, why);
	return err;
}

int image_read_frame(const struct image_layer *layer, u32 index, void *out,
		     struct error *e)
{
	const struct lf_frame_pos *pos = &layer->frame[index];
	const struct object_ops *ops = object_ops(layer->locator, e);
	void *data;
	int err;

	if (!ops)
		return -EINVAL;
	data = malloc(pos->cbytes);
	if (!data)
		return no_memory(e);
	err = ops->get_range(layer->locator, pos->cstart, data, pos->cbytes,
			     e);
	if (!err)
		err = image_decode_frame(layer, index, data, out, e);
	free(data);
	return err;
}

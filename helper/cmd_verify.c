// SPDX-License-Identifier: GPL-2.0-only
/*
 * lazyframe verify: read all of an image and check all that can be checked.
 * Layer by layer, each as a pipeline: one thread cuts the table into batches,
 * some threads fetch and decode them, one hashes the content in order.
 */
#include <getopt.h>
#include <linux/lazyframe.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cmd.h"
#include "codec.h"
#include "image.h"
#include "object.h"
#include "pipeline.h"
#include "progress.h"
#include "sha256.h"
#include "units.h"
#include "uuid.h"

#define BATCH_CBYTES	(4U << 20)	/* or one frame */
#define BATCH_UBYTES	LAZYFRAME_MAX_FRAME
#define MAX_THREADS	256U

enum { EXIT_USAGE = 2 };

/**
 * struct batch - frames that lie back to back in both spaces
 * @first: index of the first, @frames of them
 * @c: as they are in the object; LAZYFRAME_MAX_CFRAME bytes of room
 * @u: decoded; BATCH_UBYTES of room
 */
struct batch {
	u32 first;
	u32 frames;
	size_t cbytes;
	size_t ubytes;
	u8 *c;
	u8 *u;
};

struct verify {
	const struct image *image;
	unsigned int threads;
	bool quiet;

	struct batch *batch;
	void **job;
	unsigned int jobs;
	struct progress progress;
	u64 done;			/* U bytes of all layers */

	/* the layer at hand */
	const struct image_layer *layer;
	const struct object_ops *ops;
	u32 next;			/* frame */
	struct sha256 *sha;		/* NULL: unknown, or frames are missing */
};

static int cut_batch(void *ctx, void *job, struct error *e)
{
	struct verify *v = ctx;
	const struct image_layer *layer = v->layer;
	struct batch *batch = job;

	(void)e;
	batch->first = v->next;
	batch->frames = 0;
	batch->cbytes = 0;
	batch->ubytes = 0;
	for (; v->next < layer->frames; v->next++) {
		const struct lf_frame_pos *f = &layer->frame[v->next];
		const struct lf_frame_pos *prev = f - 1;

		if (batch->frames &&
		    (f->cstart != prev->cstart + prev->cbytes ||
		     f->ustart != prev->ustart + prev->ubytes ||
		     batch->cbytes + f->cbytes > BATCH_CBYTES ||
		     batch->ubytes + f->ubytes > BATCH_UBYTES))
			break;
		batch->frames++;
		batch->cbytes += f->cbytes;
		batch->ubytes += f->ubytes;
	}
	return batch->frames > 0;
}

static int decode_batch(void *ctx, unsigned int thread, void *job,
			struct error *e)
{
	struct verify *v = ctx;
	const struct image_layer *layer = v->layer;
	struct batch *batch = job;
	size_t c = 0, u = 0;
	u32 i;
	int err;

	(void)thread;
	err = v->ops->get_range(layer->locator,
				layer->frame[batch->first].cstart, batch->c,
				batch->cbytes, e);
	for (i = batch->first; !err && i < batch->first + batch->frames; i++) {
		err = image_decode_frame(layer, i, batch->c + c, batch->u + u,
					 e);
		c += layer->frame[i].cbytes;
		u += layer->frame[i].ubytes;
	}
	return err;
}

static int hash_batch(void *ctx, void *job, struct error *e)
{
	struct batch *batch = job;
	struct verify *v = ctx;

	(void)e;
	if (v->sha)
		sha256_add(v->sha, batch->u, batch->ubytes);
	v->done += batch->ubytes;
	progress_update(&v->progress, v->done);
	return 0;
}

static bool table_complete(const struct image_layer *layer)
{
	u64 end = 0;
	u32 i;

	for (i = 0; i < layer->frames; i++) {
		if (layer->frame[i].ustart != end)
			return false;
		end += layer->frame[i].ubytes;
	}
	return end == layer->ubytes;
}

static bool is_own(const struct image *image, const struct image_layer *layer)
{
	return !memcmp(image->uuid, layer->uuid, sizeof(layer->uuid));
}

/* What the store says, and that the object has no bytes that nobody knows. */
static int check_object(struct verify *v, struct error *e)
{
	const struct image_layer *layer = v->layer;
	const struct lf_frame_pos *last;
	struct object_info info;
	u64 end;
	int err;

	err = v->ops->stat(layer->locator, &info, e);
	if (err)
		return err;
	if (info.bytes != layer->cbytes ||
	    strcmp(info.validator, layer->validator))
		return error_set(e, -ESTALE,
				 "%s: changed while it was verified",
				 layer->locator);
	if (info.has_ubytes && info.ubytes != layer->ubytes)
		return error_set(e, -EBADMSG,
				 "%s: uncompressed-size is %llu, but it holds %llu bytes",
				 layer->locator,
				 (unsigned long long)info.ubytes,
				 (unsigned long long)layer->ubytes);
	/*
	 * A seek table was checked to account for all bytes. Without one, a
	 * header that builds on the layer may leave out frames, its own may not.
	 */
	if (layer->data_end != layer->cbytes || !layer->frames ||
	    !is_own(v->image, layer))
		return 0;
	last = &layer->frame[layer->frames - 1];
	end = last->cstart + last->cbytes;
	if (end != layer->cbytes)
		return error_set(e, -EBADMSG,
				 "%s: frames end at C offset %llu, and what follows up to %llu is no seek table",
				 layer->locator, (unsigned long long)end,
				 (unsigned long long)layer->cbytes);
	return 0;
}

static int verify_layer(struct verify *v, u32 index, struct error *e)
{
	static const struct pipeline stages = {
		.produce = cut_batch,
		.work = decode_batch,
		.consume = hash_batch,
	};
	const struct image_layer *layer = &v->image->layer[index];
	char want[SHA256_TEXT], got[SHA256_TEXT];
	u8 sum[SHA256_BYTES];
	int err;

	v->layer = layer;
	v->next = 0;
	v->sha = NULL;
	v->ops = object_ops(layer->locator, e);
	if (!v->ops)
		return -EINVAL;
	err = check_object(v, e);
	if (err)
		return err;
	if (layer->has_sha256 && table_complete(layer)) {
		err = sha256_new(&v->sha, e);
		if (err)
			return err;
	}
	err = pipeline_run(&stages, v, v->job, v->jobs, v->threads, e);
	if (!err && v->sha) {
		sha256_get(v->sha, sum);
		if (memcmp(sum, layer->sha256, sizeof(sum))) {
			sha256_text(layer->sha256, want);
			sha256_text(sum, got);
			err = error_set(e, -EBADMSG,
					"%s: SHA-256 of the content is %s, the header says %s",
					layer->locator, got, want);
		}
	}
	return err;
}

static const struct image *sort_image;

/* By layer, then by place in it. */
static int compare_extents(const void *a, const void *b)
{
	const struct image_extent *x = &sort_image->extent[*(const u32 *)a];
	const struct image_extent *y = &sort_image->extent[*(const u32 *)b];

	if (x->layer != y->layer)
		return x->layer < y->layer ? -1 : 1;
	if (x->storage != y->storage)
		return x->storage < y->storage ? -1 : 1;
	return 0;
}

/**
 * struct unused - what of a layer no mapping refers to
 * @first: U offset of the first such byte
 */
struct unused {
	u64 bytes;
	u64 first;
	u32 frames;
};

/* [@start, @end) of the layer is not mapped; @frame: walks its table. */
static void note_unused(const struct image_layer *layer, u64 start, u64 end,
			u32 *frame, struct unused *unused)
{
	if (start >= end)
		return;
	if (!unused->bytes)
		unused->first = start;
	unused->bytes += end - start;
	for (; *frame < layer->frames; ++*frame) {
		const struct lf_frame_pos *f = &layer->frame[*frame];

		if (f->ustart + f->ubytes > end)
			break;
		if (f->ustart >= start)
			unused->frames++;
	}
}

/*
 * Walk a layer's extents in the order of the layer. @extent: indices, @n of
 * them. Every mapped byte must be in a frame.
 */
static int cover_layer(const struct image *image, u32 index,
		       const u32 *extent, u32 n, struct unused *unused,
		       struct error *e)
{
	const struct image_layer *layer = &image->layer[index];
	u64 end = 0, held;
	u32 i, in = 0, out = 0;

	memset(unused, 0, sizeof(*unused));
	for (i = 0; i < n; i++) {
		const struct image_extent *x = &image->extent[extent[i]];
		u64 stop = x->storage + x->length;

		/* The padding of an image's last block is not stored. */
		if (stop > layer->ubytes)
			stop = layer->ubytes;
		while (in < layer->frames &&
		       layer->frame[in].ustart + layer->frame[in].ubytes <=
		       x->storage)
			in++;
		held = x->storage;
		/* Stays at the last frame: the next extent may need it too. */
		for (; in < layer->frames && layer->frame[in].ustart <= held;
		     in++) {
			held = layer->frame[in].ustart +
			       layer->frame[in].ubytes;
			if (held >= stop)
				break;
		}
		if (held < stop)
			return error_set(e, -EBADMSG,
					 "%s: U offset %llu is mapped, to image offset %llu, but in no frame",
					 layer->locator,
					 (unsigned long long)held,
					 (unsigned long long)(x->start + held -
							      x->storage));
		note_unused(layer, end, x->storage, &out, unused);
		if (stop > end)
			end = stop;
	}
	/* Images of other tools are padded to whole blocks in their layers. */
	if (layer->ubytes % image->block_size ||
	    layer->ubytes - end >= image->block_size)
		note_unused(layer, end, layer->ubytes, &out, unused);
	return 0;
}

/*
 * The image's last byte and its layer's last byte are the same, where the
 * layer ends in the middle of a block.
 */
static int check_end(const struct image *image, struct error *e)
{
	const struct image_extent *x;
	const struct image_layer *layer;

	if (!image->extents)
		return 0;
	x = &image->extent[image->extents - 1];
	layer = &image->layer[x->layer];
	if (x->start + x->length != image->bytes ||
	    x->storage + x->length <= layer->ubytes)
		return 0;
	return error_set(e, -EBADMSG,
			 "%s: has %llu bytes less than the image's end needs",
			 layer->locator,
			 (unsigned long long)(x->storage + x->length -
					      layer->ubytes));
}

static int verify_cover(const struct verify *v, struct error *e)
{
	const struct image *image = v->image;
	u32 *order = calloc(image->extents + 1UL, sizeof(*order));
	u32 layer, i, at = 0, n;
	int err = 0;

	if (!order)
		return no_memory(e);
	for (i = 0; i < image->extents; i++)
		order[i] = i;
	sort_image = image;
	qsort(order, image->extents, sizeof(*order), compare_extents);

	for (layer = 0; !err && layer < image->layers; layer++, at += n) {
		const struct image_layer *l = &image->layer[layer];
		struct unused unused;

		for (n = 0; at + n < image->extents &&
		     image->extent[order[at + n]].layer == layer; n++)
			;
		err = cover_layer(image, layer, order + at, n, &unused, e);
		if (err || !unused.bytes)
			continue;
		/* What an image stored for itself it must use. */
		if (is_own(image, l))
			err = error_set(e, -EBADMSG,
					"%s: %llu bytes, first at U offset %llu, with %u whole frames, are mapped by nothing",
					l->locator,
					(unsigned long long)unused.bytes,
					(unsigned long long)unused.first,
					unused.frames);
		else if (!v->quiet)
			printf("%s: %llu bytes with %u whole frames are mapped by nothing here\n",
			       l->locator, (unsigned long long)unused.bytes,
			       unused.frames);
	}
	free(order);
	return err ? err : check_end(image, e);
}

/* The header has no checksum of its own: compare what it says twice. */
static int verify_names(const char *url, const struct image *image,
			struct error *e)
{
	bool own_base = !memcmp(image->uuid, image->base_uuid, 16);
	const char *slash = strrchr(url, '/');
	char text[UUID_TEXT];
	u8 uuid[16];

	if (!image->header_version)
		return 0;
	uuid_text(image->uuid, text);
	/* Only a folder that is named like a layer says anything. */
	if (slash && slash - url >= UUID_TEXT) {
		char name[UUID_TEXT];

		memcpy(name, slash - (UUID_TEXT - 1), UUID_TEXT - 1);
		name[UUID_TEXT - 1] = 0;
		if (uuid_parse(name, uuid) &&
		    memcmp(uuid, image->uuid, sizeof(uuid)))
			return error_set(e, -EBADMSG,
					 "%s: the header is of image %s",
					 url, text);
	}
	if (image->generation ? own_base :
	    !own_base && !uuid_is_nil(image->base_uuid))
		return error_set(e, -EBADMSG,
				 "%s: generation %llu and base layer contradict each other",
				 url, (unsigned long long)image->generation);
	return 0;
}

static int set_up(struct verify *v, struct error *e)
{
	unsigned int i;

	v->jobs = 2 * v->threads + 1;
	v->batch = calloc(v->jobs, sizeof(*v->batch));
	v->job = calloc(v->jobs, sizeof(*v->job));
	if (!v->batch || !v->job)
		return no_memory(e);
	for (i = 0; i < v->jobs; i++) {
		v->job[i] = &v->batch[i];
		v->batch[i].c = malloc(LAZYFRAME_MAX_CFRAME);
		v->batch[i].u = malloc(BATCH_UBYTES);
		if (!v->batch[i].c || !v->batch[i].u)
			return error_set(e, -ENOMEM, "no memory for %u threads",
					 v->threads);
	}
	return 0;
}

static void tear_down(struct verify *v)
{
	unsigned int i;

	for (i = 0; v->batch && i < v->jobs; i++) {
		free(v->batch[i].c);
		free(v->batch[i].u);
	}
	free(v->batch);
	free(v->job);
}

static void report(const struct verify *v)
{
	char a[UNITS_TEXT], b[UNITS_TEXT], uuid[UUID_TEXT];
	const struct image *image = v->image;
	u32 i;

	for (i = 0; i < image->layers; i++) {
		const struct image_layer *layer = &image->layer[i];
		bool hashed = layer->has_sha256 && table_complete(layer);

		uuid_text(layer->uuid, uuid);
		printf("layer %s: %u frames, %s stored as %s, %s%s\n", uuid,
		       layer->frames, units_text(layer->ubytes, a),
		       units_text(layer->cbytes, b),
		       codec_by_id(layer->codec)->name,
		       hashed ? ", SHA-256 right" :
		       layer->codec ? "" : ", no checksum that could be wrong");
	}
	printf("good: %s in %u layers, %u mappings, %.2f s\n",
	       units_text(image->bytes, a), image->layers, image->extents,
	       progress_seconds(&v->progress));
}

static int verify(struct verify *v, const char *url, struct error *e)
{
	const struct image *image = v->image;
	u64 bytes = 0;
	u32 i;
	int err;

	for (i = 0; i < image->layers; i++)
		bytes += image->layer[i].ubytes;
	err = verify_names(url, image, e);
	if (!err)
		err = verify_cover(v, e);
	if (err)
		return err;
	progress_start(&v->progress, "verify", bytes, v->quiet);
	for (i = 0; !err && i < image->layers; i++) {
		err = verify_layer(v, i, e);
		sha256_free(v->sha);
		v->sha = NULL;
	}
	progress_end(&v->progress);
	return err;
}

static void usage(FILE *out)
{
	fputs("Usage: lazyframe verify [OPTION]... URL\n"
	      "\n"
	      "Read and decode all of the image at URL and check it. Exit status 1 at the\n"
	      "first thing that is wrong.\n"
	      "\n"
	      "  -t, --threads N  default: one a CPU\n"
	      "  -q, --quiet      no progress, no report\n"
	      "  -h, --help\n", out);
}

int cmd_verify(int argc, char **argv)
{
	static const struct option options[] = {
		{ "threads", required_argument, NULL, 't' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct verify v = {
		.threads = cpus < 1 ? 1 : cpus > 64 ? 64 : cpus,
	};
	struct image *image = NULL;
	struct error e;
	u64 n;
	int c, err;

	while ((c = getopt_long(argc, argv, "t:qh", options, NULL)) != -1) {
		switch (c) {
		case 't':
			if (!units_parse(optarg, &n) || !n || n > MAX_THREADS) {
				fprintf(stderr,
					"lazyframe verify: threads %s: not a number from 1 to %u\n",
					optarg, MAX_THREADS);
				return EXIT_USAGE;
			}
			v.threads = n;
			break;
		case 'q':
			v.quiet = true;
			break;
		case 'h':
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return EXIT_USAGE;
		}
	}
	if (argc - optind != 1) {
		usage(stderr);
		return EXIT_USAGE;
	}

	err = image_open(argv[optind], &image, &e);
	v.image = image;
	if (!err)
		err = set_up(&v, &e);
	if (!err)
		err = verify(&v, argv[optind], &e);
	if (err)
		fprintf(stderr, "lazyframe verify: %s\n", e.text);
	else if (!v.quiet)
		report(&v);
	tear_down(&v);
	image_free(image);
	return err ? 1 : 0;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * The layer writer.
 *
 *	next_batch()	one thread goes through the changes, reads data, drops what
 *			need not be stored, packs the rest into U space and notes
 *			where it went
 *	encode_batch()	some threads cut it into frames and compress them, or fetch
 *			frames that are to be copied
 *	store_batch()	one thread, in order: SHA-256, table, data object
 *
 * Then the notes are laid over the parent's mappings, and the header is written.
 *
 * Until the header has its name nothing that readers look for exists. A
 * failure before that takes the data object away again; after a crash an object
 * that no header names may remain under a UUID that is never used again.
 */
#include "newlayer.h"

#include <linux/lazyframe.h>
#include <stdio.h>
#include <stdlib.h>

#include "bucket.h"
#include "interrupt.h"
#include "mapping.h"
#include "newheader.h"
#include "object.h"
#include "pipeline.h"
#include "progress.h"
#include "reader.h"
#include "seektable.h"
#include "sha256.h"
#include "units.h"
#include "uuid.h"

#define BLOCK		LF_META_BLOCK
#define BATCH_BYTES	(1024U << 10)	/* of U space, or one frame */
#define COPY_FRAMES	64U		/* in one batch */
/*
 * A header with a table of HEADER_MAX_FRAMES holds this many mappings and
 * stays below HEADER_MAX_BYTES. An image in finer pieces keeps its later zero
 * blocks as data.
 */
#define MAX_PIECES	(HEADER_MAX_MAPPINGS / 2)

/**
 * struct batch - some frames on their way through the pipeline
 * @layer: NULL, or whose frames are copied: @frames from @first on, back to back
 * @u: stored bytes, @ubytes of them
 * @c: encoded frames, back to back, @cbytes
 * @frame: @frames entries, ustart and cstart relative to the batch
 */
struct batch {
	const struct image_layer *layer;
	u32 first;
	u8 *u;
	u8 *c;
	struct lf_frame_pos *frame;
	size_t ubytes;
	size_t cbytes;
	u32 frames;
};

/**
 * struct writer - one run
 * @run_start: image offset of the stored bytes that are not yet in @diff
 * @run_bytes: how many; 0: all are there
 * @run_storage: their U offset
 * @packed: U bytes in all batches so far
 * @at: the change that next_batch() is at, and @done bytes of it
 * @same_end: blocks that end behind it have nothing to be equal to
 */
struct writer {
	const struct newlayer *n;
	struct newlayer_result *result;
	bool raw;

	struct mapping_list below;
	struct mapping_list diff;
	struct mapping_list merged;
	u64 run_start;
	u64 run_bytes;
	u64 run_storage;
	u64 packed;

	size_t at;
	u64 done;
	u64 same_end;
	u64 progressed;
	struct image_reader *reader;

	struct lf_frame_pos *frame;
	u32 frames;
	size_t frames_room;
	u64 ubytes;
	u64 cbytes;
	u8 sum[SHA256_BYTES];

	char *base;
	const struct object_ops *ops;
	char *data_url;
	struct object_put *put;
	bool committed;
	struct sha256 *sha;
	struct codec_encoder **encoder;	/* one a thread */
	struct batch *batch;
	void **job;
	unsigned int jobs;
	u32 batch_bytes;
	u32 batch_frames;
	struct progress progress;
};

static u64 block_down(u64 n)
{
	return n - n % BLOCK;
}

static u64 block_up(u64 n)
{
	return block_down(n + BLOCK - 1);
}

static bool all_zero(const u8 *p, size_t bytes)
{
	return !*p && !memcmp(p, p + 1, bytes - 1);
}

/* What was stored since the last gap becomes a mapping. */
static int end_run(struct writer *w, struct error *e)
{
	struct header_mapping m = {
		.start = w->run_start,
		.length = block_up(w->run_bytes),
		.storage = w->run_storage,
	};

	if (!w->run_bytes)
		return 0;
	w->run_bytes = 0;
	memcpy(m.uuid, w->result->uuid, sizeof(m.uuid));
	return mapping_add(&w->diff, &m, e);
}

/* The next bytes that are packed are those of image offset @start. */
static int note_stored(struct writer *w, u64 start, u64 bytes,
		       struct error *e)
{
	int err = 0;

	if (w->run_start + w->run_bytes != start)
		err = end_run(w, e);
	if (err)
		return err;
	if (!w->run_bytes) {
		w->run_start = start;
		w->run_storage = w->packed;
	}
	w->run_bytes += bytes;
	w->packed += bytes;
	return 0;
}

static int note_zeros(struct writer *w, u64 start, u64 bytes, struct error *e)
{
	struct header_mapping m = {
		.start = start,
		.length = block_up(bytes),
	};
	int err = end_run(w, e);

	return err ? err : mapping_add(&w->diff, &m, e);
}

/* Are @bytes at @start what the parent has there? */
static int equals_parent(struct writer *w, u64 start, const u8 *p, u64 bytes,
			 bool *same, struct error *e)
{
	const u8 *data;
	u64 n;
	int err;

	*same = false;
	while (bytes) {
		err = image_peek(w->reader, start, &data, &n, e);
		if (err)
			return err;
		if (n > bytes)
			n = bytes;
		if (data ? memcmp(data, p, n) : !all_zero(p, n))
			return 0;
		start += n;
		p += n;
		bytes -= n;
	}
	*same = true;
	return 0;
}

/* Whether one block has to be stored; if not, that is noted. */
static int judge_block(struct writer *w, u64 start, const u8 *p, u64 bytes,
		       bool *stored, struct error *e)
{
	struct newlayer_result *result = w->result;
	bool same;
	int err;

	*stored = true;
	if (w->diff.count >= MAX_PIECES)
		return 0;
	if (all_zero(p, bytes)) {
		*stored = false;
		result->zero_bytes += bytes;
		return note_zeros(w, start, bytes, e);
	}
	if (!w->reader || start + bytes > w->same_end)
		return 0;
	err = equals_parent(w, start, p, bytes, &same, e);
	if (!err && same) {
		*stored = false;
		result->same_bytes += bytes;
	}
	return err;
}

/*
 * Pack what was just read, @bytes from image offset @start, to the end of the
 * batch. Parts of blocks are stored whatever they hold: the rest of the block is
 * in the change beside.
 */
static int pack(struct writer *w, struct batch *batch, u64 start, size_t bytes,
		struct error *e)
{
	u8 *from = batch->u + batch->ubytes;
	int err;

	w->result->read_bytes += bytes;
	while (bytes) {
		size_t n = BLOCK - start % BLOCK;
		bool stored = true;

		if (n > bytes)
			n = bytes;
		err = 0;
		if (n == BLOCK ||
		    (start % BLOCK == 0 && start + n == w->n->bytes))
			err = judge_block(w, start, from, n, &stored, e);
		if (!err && stored) {
			u8 *to = batch->u + batch->ubytes;

			if (to != from)
				memmove(to, from, n);
			batch->ubytes += n;
			err = note_stored(w, start, n, e);
		}
		if (err)
			return err;
		from += n;
		start += n;
		bytes -= n;
	}
	return 0;
}

static void progressed(struct writer *w, u64 bytes)
{
	w->progressed += bytes;
	progress_update(&w->progress, w->progressed);
}

/* As many frames as one request can fetch. */
static int copy_batch(struct writer *w, struct batch *batch, struct error *e)
{
	const struct newlayer *n = w->n;
	int err;

	batch->layer = n->change[w->at].layer;
	batch->first = n->change[w->at].frame;
	for (; w->at < n->changes; w->at++) {
		const struct newlayer_change *c = &n->change[w->at];
		const struct lf_frame_pos *pos;

		if (c->kind != NEWLAYER_FRAME || c->layer != batch->layer ||
		    c->frame != batch->first + batch->frames ||
		    batch->frames == w->batch_frames)
			break;
		pos = &c->layer->frame[c->frame];
		if (batch->frames &&
		    (pos->cstart != pos[-1].cstart + pos[-1].cbytes ||
		     batch->ubytes + pos->ubytes > w->batch_bytes ||
		     batch->cbytes + pos->cbytes > w->batch_bytes))
			break;
		err = note_stored(w, c->start, c->length, e);
		if (err)
			return err;
		batch->frame[batch->frames++] = (struct lf_frame_pos){
			.ustart = batch->ubytes,
			.cstart = batch->cbytes,
			.ubytes = pos->ubytes,
			.cbytes = pos->cbytes,
			.has_sum = true,
		};
		batch->ubytes += pos->ubytes;
		batch->cbytes += pos->cbytes;
		progressed(w, c->length);
	}
	return 1;
}

static int next_batch(void *ctx, void *job, struct error *e)
{
	struct batch *batch = job;
	struct writer *w = ctx;
	const struct newlayer *n = w->n;
	int err;

	batch->layer = NULL;
	batch->ubytes = 0;
	batch->cbytes = 0;
	batch->frames = 0;
	while (w->at < n->changes && batch->ubytes < w->batch_bytes) {
		const struct newlayer_change *c = &n->change[w->at];
		u64 start = c->start + w->done, left = c->length - w->done;
		u64 room = w->batch_bytes - batch->ubytes;

		err = interrupt_check(e);
		if (err)
			return err;
		if (c->kind == NEWLAYER_ZERO) {
			err = note_zeros(w, c->start, c->length, e);
			if (err)
				return err;
			w->result->hole_bytes += c->length;
			w->at++;
			continue;
		}
		if (c->kind == NEWLAYER_FRAME) {
			if (batch->ubytes)
				break;
			return copy_batch(w, batch, e);
		}
		/* Whole blocks, but for the ends of the change */
		if (left > room)
			left = block_down(start + room) - start;
		if (!left)
			break;
		err = n->read(n->arg, start, batch->u + batch->ubytes, left,
			      e);
		if (!err)
			err = pack(w, batch, start, left, e);
		if (err)
			return err;
		progressed(w, left);
		w->done += left;
		if (w->done == c->length) {
			w->at++;
			w->done = 0;
		}
	}
	if (batch->ubytes)
		return 1;
	err = end_run(w, e);
	return err;
}

static int encode(struct writer *w, unsigned int thread, struct batch *batch,
		  struct error *e)
{
	size_t off, n, cbytes;
	int err;

	for (off = 0; off < batch->ubytes; off += n) {
		n = batch->ubytes - off;
		if (n > w->result->frame_bytes)
			n = w->result->frame_bytes;
		err = codec_encode(w->encoder[thread],
				   batch->c + batch->cbytes, batch->u + off, n,
				   &cbytes, e);
		if (err)
			return err;
		batch->frame[batch->frames++] = (struct lf_frame_pos){
			.ustart = off,
			.cstart = batch->cbytes,
			.ubytes = n,
			.cbytes = cbytes,
			.sum = XXH64(batch->u + off, n, 0),
			.has_sum = true,
		};
		batch->cbytes += cbytes;
	}
	return 0;
}

/* What is copied is decoded, too: for the sums, and to copy no damage. */
static int fetch(struct batch *batch, struct error *e)
{
	const struct image_layer *layer = batch->layer;
	const struct object_ops *ops = object_ops(layer->locator, e);
	u32 i;
	int err;

	if (!ops)
		return -EINVAL;
	err = ops->get_range(layer->locator,
			     layer->frame[batch->first].cstart, batch->c,
			     batch->cbytes, e);
	for (i = 0; !err && i < batch->frames; i++) {
		struct lf_frame_pos *pos = &batch->frame[i];

		err = image_decode_frame(layer, batch->first + i,
					 batch->c + pos->cstart,
					 batch->u + pos->ustart, e);
		if (!err)
			pos->sum = XXH64(batch->u + pos->ustart, pos->ubytes,
					 0);
	}
	return err;
}

static int encode_batch(void *ctx, unsigned int thread, void *job,
			struct error *e)
{
	struct batch *batch = job;
	struct writer *w = ctx;

	if (batch->layer)
		return fetch(batch, e);
	return w->raw ? 0 : encode(w, thread, batch, e);
}

static int store_batch(void *ctx, void *job, struct error *e)
{
	struct batch *batch = job;
	struct writer *w = ctx;
	size_t bytes = w->raw ? batch->ubytes : batch->cbytes;
	u32 i;
	int err;

	if (w->sha)
		sha256_add(w->sha, batch->u, batch->ubytes);
	for (i = 0; i < batch->frames; i++) {
		struct lf_frame_pos *pos;

		/* Only where there are more pieces than MAX_PIECES. */
		if (w->frames == LF_MAX_FRAMES)
			return error_set(e, -EFBIG,
					 "more than %u frames; use a larger --frame-size",
					 LF_MAX_FRAMES);
		if (w->frames == w->frames_room) {
			size_t room = w->frames ? 2 * w->frames_room : 256;

			pos = reallocarray(w->frame, room, sizeof(*pos));
			if (!pos)
				return no_memory(e);
			w->frame = pos;
			w->frames_room = room;
		}
		pos = &w->frame[w->frames];
		*pos = batch->frame[i];
		pos->ustart += w->ubytes;
		pos->cstart += w->cbytes;
		pos->index = w->frames++;
	}
	if (batch->layer)
		w->result->copied += batch->frames;
	if (!w->n->dry_run && !w->put) {
		err = w->ops->put_begin(w->data_url, ~0ULL, &w->put, e);
		if (err)
			return err;
	}
	if (w->put) {
		err = w->ops->put_part(w->put, w->cbytes,
				       w->raw ? batch->u : batch->c, bytes, e);
		if (err)
			return err;
	}
	w->ubytes += batch->ubytes;
	w->cbytes += bytes;
	return 0;
}

static int bad_change(size_t i, const struct newlayer_change *c,
		      struct error *e)
{
	return error_set(e, -EINVAL,
			 "change %zu, of image offset %llu, %llu bytes, is out of order, out of range, or not in whole blocks",
			 i, (unsigned long long)c->start,
			 (unsigned long long)c->length);
}

static bool frame_fits(const struct newlayer *n,
		       const struct newlayer_change *c)
{
	return c->layer && c->layer->codec == n->codec->id &&
	       c->layer->codec != LAZYFRAME_CODEC_NONE &&
	       c->frame < c->layer->frames &&
	       c->length == c->layer->frame[c->frame].ubytes;
}

/* Where a parent ends in a block, more of that block makes it a new one. */
static u64 kept_bytes(const struct newlayer *n)
{
	if (!n->parent)
		return 0;
	if (n->bytes > n->parent->bytes)
		return block_down(n->parent->bytes);
	return n->bytes;
}

static int check_request(const struct newlayer *n, struct error *e)
{
	u64 end = 0, covered = kept_bytes(n);
	bool open = false;	/* the last one ends in a block, not in a hole */
	size_t i;

	if (!n->threads || !n->frame_bytes || n->frame_bytes % BLOCK ||
	    n->frame_bytes > LAZYFRAME_MAX_FRAME)
		return error_set(e, -EINVAL,
				 "frames of %u bytes from %u threads are not possible",
				 n->frame_bytes, n->threads);
	if (!n->bytes || n->bytes > LF_MAX_IMAGE)
		return error_set(e, -EINVAL,
				 "an image of %llu bytes is not possible",
				 (unsigned long long)n->bytes);
	for (i = 0; i < n->changes; i++) {
		const struct newlayer_change *c = &n->change[i];
		bool zero = c->kind == NEWLAYER_ZERO;

		if (c->start < end || c->start >= n->bytes || !c->length ||
		    c->length > n->bytes - c->start)
			return bad_change(i, c, e);
		/* A block that two changes share is stored as a whole. */
		if (c->start % BLOCK && (zero || !open || c->start != end))
			return bad_change(i, c, e);
		if (open && end % BLOCK && (zero || c->start != end))
			return bad_change(i, c, e);
		if (c->kind == NEWLAYER_FRAME && !frame_fits(n, c))
			return error_set(e, -EINVAL,
					 "change %zu is no frame that can be copied",
					 i);
		if (c->start <= covered && covered < c->start + c->length)
			covered = c->start + c->length;
		end = c->start + c->length;
		open = !zero;
		if (zero && end % BLOCK && end != n->bytes)
			return bad_change(i, c, e);
	}
	if (open && end % BLOCK && end != n->bytes)
		return bad_change(i - 1, &n->change[i - 1], e);
	if (n->parent && covered < n->bytes)
		return error_set(e, -EINVAL,
				 "the image grows, and nothing says what is at offset %llu",
				 (unsigned long long)covered);
	return 0;
}

u64 newlayer_frames(const struct newlayer *n, u32 frame_bytes)
{
	u64 copied = 0, blocks = 0, runs = 0;
	enum newlayer_kind last = NEWLAYER_FRAME;
	size_t i;

	for (i = 0; i < n->changes; i++) {
		const struct newlayer_change *c = &n->change[i];

		if (c->kind == NEWLAYER_FRAME)
			copied++;
		if (c->kind == NEWLAYER_DATA) {
			blocks += block_up(c->length) / BLOCK;
			/* What lies before a copied frame ends in a short one. */
			runs += last == NEWLAYER_FRAME;
		}
		if (c->kind != NEWLAYER_ZERO)
			last = c->kind;
	}
	/* So may a batch, where frames end inside blocks. */
	if (copied)
		runs += blocks / (BATCH_BYTES / BLOCK);
	else
		runs = 0;
	frame_bytes /= BLOCK;
	return copied + runs + (blocks + frame_bytes - 1) / frame_bytes;
}

/* A layer has a limited number of frames; no image needs more of 16 MiB. */
static void fit_frame_bytes(struct writer *w)
{
	const struct newlayer *n = w->n;
	char was[UNITS_TEXT], is[UNITS_TEXT];
	u32 bytes = n->frame_bytes;

	while (!w->raw && newlayer_frames(n, bytes) > LF_MAX_FRAMES &&
	       bytes < LAZYFRAME_MAX_FRAME) {
		bytes *= 2;
		if (bytes > LAZYFRAME_MAX_FRAME)
			bytes = LAZYFRAME_MAX_FRAME;
	}
	if (bytes != n->frame_bytes && !n->quiet)
		fprintf(stderr,
			"lazyframe %s: frames of %s instead of %s, as a layer has at most %u\n",
			n->what, units_text(bytes, is),
			units_text(n->frame_bytes, was), LF_MAX_FRAMES);
	w->result->frame_bytes = bytes;
}

static int find_destination(struct writer *w, struct error *e)
{
	const struct newlayer *n = w->n;
	char uuid[UUID_TEXT], *base = NULL, *name = NULL;
	const char *url = n->url;
	size_t len;
	int err;

	if (!url || !n->name) {
		if (!n->parent || !n->parent->header_version)
			return error_set(e, -EINVAL,
					 "neither URL nor parent to take the place or the name from");
		err = image_split_url(n->parent_url, &base, &name, e);
		if (err)
			goto out;
	}
	if (!url)
		url = base;
	if (n->name) {
		free(name);
		name = url_escape(n->name, "");
		if (!name) {
			err = no_memory(e);
			goto out;
		}
	}
	len = strlen(url);
	/* "file:///" is a directory too. */
	while (len && url[len - 1] == '/')
		len--;
	err = uuid_random(w->result->uuid);
	if (err) {
		error_set(e, err, "no random numbers: %s", strerror(-err));
		goto out;
	}
	uuid_text(w->result->uuid, uuid);
	if (asprintf(&w->base, "%.*s/", (int)len, url) < 0) {
		w->base = NULL;
		err = no_memory(e);
		goto out;
	}
	if (asprintf(&w->data_url, "%s%s/%s%s", w->base, uuid, name,
		     n->codec->suffix) < 0) {
		w->data_url = NULL;
		err = no_memory(e);
		goto out;
	}
	if (asprintf(&w->result->header_url, "%s%s/%s.header", w->base, uuid,
		     name) < 0) {
		w->result->header_url = NULL;
		err = no_memory(e);
		goto out;
	}
	if (strlen(w->data_url) >= LAZYFRAME_LOCATOR_MAX) {
		err = error_set(e, -ENAMETOOLONG, "%s: longer than %u bytes",
				w->data_url, LAZYFRAME_LOCATOR_MAX - 1);
		goto out;
	}
	w->ops = object_ops(url, e);
	if (!w->ops)
		err = -EINVAL;
	else if (!w->ops->put)
		err = error_set(e, -EROFS,
				"%s: %s:// can only be read; store below file:///, s3:// or gs://",
				url, w->ops->scheme);
	else
		err = w->ops->writable(url, e);
out:
	free(base);
	free(name);
	return err;
}

/* The parent's mappings, made as long as the new image. */
static int find_below(struct writer *w, struct error *e)
{
	const struct newlayer *n = w->n;
	int err;

	w->same_end = kept_bytes(n);
	if (n->parent) {
		err = mapping_of_image(n->parent, &w->below, e);
		if (!err && n->dedup)
			err = image_reader_new(n->parent, &w->reader, e);
		if (err)
			return err;
		mapping_cut(&w->below, block_up(w->same_end));
	}
	return mapping_add_zeros(&w->below, block_up(n->bytes), e);
}

static void copied_sizes(const struct newlayer *n, u32 *ubytes, u32 *cbytes)
{
	size_t i;

	for (i = 0; i < n->changes; i++) {
		const struct newlayer_change *c = &n->change[i];

		if (c->kind != NEWLAYER_FRAME)
			continue;
		if (*ubytes < c->layer->frame[c->frame].ubytes)
			*ubytes = c->layer->frame[c->frame].ubytes;
		if (*cbytes < c->layer->frame[c->frame].cbytes)
			*cbytes = c->layer->frame[c->frame].cbytes;
	}
}

static int set_up(struct writer *w, struct error *e)
{
	const struct newlayer *n = w->n;
	u32 frame = w->result->frame_bytes, frames, i;
	u32 uroom, croom = 0, copied = 0;
	int err;

	frames = frame < BATCH_BYTES ? BATCH_BYTES / frame : 1;
	w->batch_bytes = frames * frame;
	w->batch_frames = frames < COPY_FRAMES ? COPY_FRAMES : frames;

	/* Without a parent, raw layers get a header that has no room for it. */
	if (!w->raw || n->parent) {
		err = sha256_new(&w->sha, e);
		if (err)
			return err;
	}
	w->encoder = calloc(n->threads, sizeof(*w->encoder));
	w->jobs = 2 * n->threads + 1;
	w->batch = calloc(w->jobs, sizeof(*w->batch));
	w->job = calloc(w->jobs, sizeof(*w->job));
	if (!w->encoder || !w->batch || !w->job)
		return no_memory(e);
	for (i = 0; !w->raw && i < n->threads; i++) {
		err = codec_encoder_new(n->codec, n->level, frame,
					&w->encoder[i], e);
		if (err)
			return err;
	}
	uroom = w->batch_bytes;
	copied_sizes(n, &uroom, &copied);
	if (!w->raw)
		croom = frames * codec_bound(w->encoder[0], frame);
	if (copied && croom < w->batch_bytes)
		croom = w->batch_bytes;
	if (croom < copied)
		croom = copied;
	for (i = 0; i < w->jobs; i++) {
		struct batch *batch = &w->batch[i];

		w->job[i] = batch;
		batch->u = malloc(uroom + 1UL);
		batch->c = croom ? malloc(croom) : NULL;
		batch->frame = calloc(w->batch_frames, sizeof(*batch->frame));
		if (!batch->u || (croom && !batch->c) || !batch->frame)
			return error_set(e, -ENOMEM,
					 "no memory for frames of %u bytes in %u threads",
					 frame, n->threads);
	}
	return 0;
}

static void tear_down(struct writer *w)
{
	unsigned int i;

	if (w->put)
		w->ops->put_abort(w->put);
	for (i = 0; w->batch && i < w->jobs; i++) {
		free(w->batch[i].u);
		free(w->batch[i].c);
		free(w->batch[i].frame);
	}
	for (i = 0; w->encoder && i < w->n->threads; i++)
		codec_encoder_free(w->encoder[i]);
	free(w->batch);
	free(w->job);
	free(w->encoder);
	sha256_free(w->sha);
	image_reader_free(w->reader);
	mapping_free(&w->below);
	mapping_free(&w->diff);
	mapping_free(&w->merged);
	free(w->frame);
	free(w->data_url);
	free(w->base);
}

/* The table goes behind the frames; then the data object is complete. */
static int finish_data(struct writer *w, struct error *e)
{
	struct object_put *put = w->put;
	u64 bytes = 0;
	void *table;
	int err = 0;

	if (w->sha)
		sha256_get(w->sha, w->sum);
	if (!w->ubytes)
		return 0;
	if (!w->raw) {
		bytes = seektable_bytes(w->frames);
		table = malloc(bytes);
		if (!table)
			return no_memory(e);
		seektable_write(w->frame, w->frames, table);
		if (put)
			err = w->ops->put_part(put, w->cbytes, table, bytes,
					       e);
		free(table);
		if (err)
			return err;
	}
	w->cbytes += bytes;
	if (!put)
		return 0;
	/* Whatever comes of it, it is not ours to abort any more. */
	w->put = NULL;
	err = w->ops->put_commit(put, w->cbytes, w->raw ? ~0ULL : w->ubytes,
				 e);
	/* What was there before is not ours to delete. */
	w->committed = err != -EEXIST;
	return err;
}

static int store_header(struct writer *w, struct error *e)
{
	struct newheader header = {
		.n = w->n,
		.result = w->result,
		.ops = w->ops,
		.base = w->base,
		.list = &w->merged,
		.own = {
			.ubytes = w->ubytes,
			.codec = w->n->codec->id,
			.frames = w->frames,
			.frame = w->frame,
		},
	};
	int err;

	memcpy(header.own.uuid, w->result->uuid, sizeof(header.own.uuid));
	memcpy(header.own.sha256, w->sum, sizeof(header.own.sha256));
	err = mapping_overlay(&w->below, &w->diff, &w->merged, e);
	return err ? err : newheader_store(&header, e);
}

static u64 work_bytes(const struct newlayer *n)
{
	u64 bytes = 0;
	size_t i;

	for (i = 0; i < n->changes; i++)
		if (n->change[i].kind != NEWLAYER_ZERO)
			bytes += n->change[i].length;
	return bytes;
}

static int write_all(struct writer *w, struct error *e)
{
	static const struct pipeline stages = {
		.produce = next_batch,
		.work = encode_batch,
		.consume = store_batch,
	};
	const struct newlayer *n = w->n;
	int err;

	progress_start(&w->progress, n->what, work_bytes(n), n->quiet);
	err = pipeline_run(&stages, w, w->job, w->jobs, n->threads, e);
	progress_end(&w->progress);
	if (!err && n->finish)
		err = n->finish(n->arg, e);
	if (!err)
		err = finish_data(w, e);
	if (!err)
		err = interrupt_check(e);
	if (!err)
		err = store_header(w, e);
	/* The first error is the one to tell; what remains is harmless. */
	if (err && w->committed)
		w->ops->delete(w->data_url, NULL);
	return err;
}

int newlayer_write(const struct newlayer *n, struct newlayer_result *result,
		   struct error *e)
{
	struct writer w = {
		.n = n,
		.result = result,
		.raw = n->codec->id == LAZYFRAME_CODEC_NONE,
	};
	int err;

	memset(result, 0, sizeof(*result));
	result->bytes = n->bytes;
	err = check_request(n, e);
	if (!err)
		err = find_destination(&w, e);
	if (!err)
		err = find_below(&w, e);
	if (!err) {
		fit_frame_bytes(&w);
		err = set_up(&w, e);
	}
	if (!err) {
		interrupt_catch();
		err = write_all(&w, e);
		result->seconds = progress_seconds(&w.progress);
	}
	result->ubytes = w.ubytes;
	result->cbytes = w.cbytes;
	result->frames = w.frames;
	if (!err && w.ubytes) {
		result->data_url = w.data_url;
		w.data_url = NULL;
	}
	tear_down(&w);
	return err;
}

void newlayer_result_free(struct newlayer_result *result)
{
	free(result->header_url);
	free(result->data_url);
	result->header_url = NULL;
	result->data_url = NULL;
}

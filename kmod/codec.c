// SPDX-License-Identifier: GPL-2.0-only
/*
 * Decoding: a pool of contexts, each with room for one decoded frame.
 *
 * There is a context per CPU (up to a limit), allocated before any read needs
 * one, so decoding never has to allocate. Who finds none free waits for a decode
 * to end, never for the helper. What is read in parts is kept (decoded.c), where
 * there is room; and a context remembers what it decoded last. Of those who read
 * parts of one frame at once, one decodes it, and the others wait for that. What is
 * read as a whole is decoded in the reader's memory.
 *
 * Frames are decoded to their end, whatever is wanted. LZ4's decoder of a part of a
 * block takes a match of offset 0, which only a forged frame has, for what lay in
 * its memory before: another image's bytes, where the whole block's has zeros.
 */
#include <linux/cacheflush.h>
#include <linux/cpumask.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <linux/zstd.h>

#include "lazyframe.h"
#include "lz4frame.h"
#include "trace.h"

#define MAX_CONTEXTS	16
/* As many as vm_map_ram() maps without a lock that all CPUs share. */
#define MAX_PAGES	BITS_PER_LONG

/**
 * struct context - what one decode needs
 * @node: in pool.idle; most recently used first
 * @serial: of the frame whose content is in @out; 0: none
 * @parts: of the frame that is decoded for all who read parts of it; 0: none
 * @out_bytes: size of @out
 * @out: one frame's content; NULL before any layer was mapped
 * @workspace: zstd's
 * @mapped: number of pages of a reader that are mapped
 * @page: these
 */
struct context {
	struct list_head node;
	u64 serial;
	u64 parts;
	u32 out_bytes;
	void *out;
	void *workspace;
	unsigned int mapped;
	struct page *page[MAX_PAGES];
};

static struct {
	spinlock_t lock;		/* of @idle, and of all @parts */
	struct list_head idle;
	wait_queue_head_t wait;
	unsigned int contexts;
	size_t workspace_bytes;
	struct mutex grow_lock;		/* one lf_codec_reserve() at a time */
	struct context context[MAX_CONTEXTS];
} pool;

static bool __is_in_parts(u64 serial)
{
	unsigned int i;

	lockdep_assert_held(&pool.lock);
	for (i = 0; i < pool.contexts; i++)
		if (pool.context[i].parts == serial)
			return true;
	return false;
}

/* Prefer the one that holds @serial already; else the longest unused. */
static struct context *context_try(u64 serial, bool part)
{
	struct context *ctx, *found = NULL;

	spin_lock(&pool.lock);
	if (part && __is_in_parts(serial))
		goto out;
	list_for_each_entry(ctx, &pool.idle, node) {
		found = ctx;
		if (ctx->serial == serial)
			break;
	}
	if (!found)
		goto out;
	list_del(&found->node);
	if (part)
		found->parts = serial;
out:
	spin_unlock(&pool.lock);
	return found;
}

/* @part: nobody else gets one for parts of that frame meanwhile */
static struct context *context_get(u64 serial, bool part)
{
	struct context *ctx;

	wait_event(pool.wait, (ctx = context_try(serial, part)));
	return ctx;
}

static void context_put(struct context *ctx)
{
	spin_lock(&pool.lock);
	ctx->parts = 0;
	list_add(&ctx->node, &pool.idle);
	spin_unlock(&pool.lock);
	wake_up(&pool.wait);
}

static int decode_zstd(struct context *ctx, const struct lf_frame *frame,
		       void *out, const char **why)
{
	zstd_dctx *dctx;
	size_t n;

	dctx = zstd_init_dctx(ctx->workspace, pool.workspace_bytes);
	if (!dctx) {
		*why = "no zstd context";
		return -EBADMSG;
	}
	n = zstd_decompress_dctx(dctx, out, frame->pos.ubytes, frame->data,
				 frame->pos.cbytes);
	if (zstd_is_error(n)) {
		*why = "zstd refuses it";
		return -EBADMSG;
	}
	if (n != frame->pos.ubytes) {
		*why = "its content is too short";
		return -EBADMSG;
	}
	return 0;
}

static int decode_lz4(struct context *ctx, const struct lf_frame *frame,
		      void *out, const char **why)
{
	/* Its own sums are for whom no table tells one: one is enough. */
	return lf_lz4_frame_decode(frame->data, frame->pos.cbytes, out,
				   frame->pos.ubytes,
				   !READ_ONCE(frame->verified) &&
				   !frame->pos.has_sum, why);
}

/* A raw frame is its content. */
static const struct codec {
	int (*decode)(struct context *ctx, const struct lf_frame *frame,
		      void *out, const char **why);
} codecs[] = {
	[LAZYFRAME_CODEC_NONE] = { NULL },
	[LAZYFRAME_CODEC_ZSTD] = { decode_zstd },
	[LAZYFRAME_CODEC_LZ4] = { decode_lz4 },
};

/*
 * Did the decoder compare the content with the table's checksum? zstd ends a frame
 * with the same one (RFC 8878, 3.1.1), if a flag says so, and always compares it.
 */
static bool decoder_verified(const struct lf_frame *frame)
{
	const u8 *data = frame->data;
	u32 bytes = frame->pos.cbytes;

	return frame->codec == LAZYFRAME_CODEC_ZSTD && bytes > 8 &&
	       (data[4] & 4) &&
	       lf_get_le32(data + bytes - 4) == frame->pos.sum &&
	       zstd_find_frame_compressed_size(data, bytes) == bytes;
}

/* Checked once: @data is constant, and so is what it decodes to. */
static int verify(struct lf_frame *frame, const void *content, const char **why)
{
	u64 start;

	if (READ_ONCE(frame->verified))
		return 0;
	start = ktime_get_ns();
	if (frame->pos.has_sum && !decoder_verified(frame) &&
	    (u32)xxh64(content, frame->pos.ubytes, 0) != frame->pos.sum) {
		*why = "its content does not match the frame table's checksum";
		return -EBADMSG;
	}
	WRITE_ONCE(frame->verified, true);
	if (frame->pos.has_sum)
		lf_step_took(LF_STEP_VERIFY, start, ktime_get_ns());
	trace_lazyframe_verified(frame);
	return 0;
}

static int decode(struct context *ctx, struct lf_frame *frame, void *out,
		  const char **why)
{
	u64 start = ktime_get_ns();
	int err;

	atomic64_inc(&lf_module_stat[LF_DECODES]);
	err = codecs[frame->codec].decode(ctx, frame, out, why);
	if (err)
		return err;
	lf_step_took(LF_STEP_DECODE, start, ktime_get_ns());
	trace_lazyframe_decoded(frame);
	return verify(frame, out, why);
}

void lf_copy_to_bio(struct bio *bio, struct bvec_iter *iter, const void *from,
		    u32 len)
{
	while (len) {
		struct bio_vec bv = bio_iter_iovec(bio, *iter);

		bv.bv_len = min(bv.bv_len, len);
		memcpy_to_bvec(&bv, from);
		bio_advance_iter_single(bio, iter, bv.bv_len);
		from += bv.bv_len;
		len -= bv.bv_len;
	}
}

static int read_raw(struct lf_frame *frame, u32 off, u32 len, struct bio *bio,
		    struct bvec_iter *iter, const char **why)
{
	int err = verify(frame, frame->data, why);

	if (!err)
		lf_copy_to_bio(bio, iter, frame->data + off, len);
	return err;
}

/*
 * Where @bytes from @iter lie in memory, one after the other: mapped if they do
 * not, which must be taken back. NULL: they cannot.
 */
static void *bio_map(struct context *ctx, struct bio *bio,
		     struct bvec_iter iter, u32 bytes)
{
	struct bio_vec bv = mp_bvec_iter_bvec(bio->bi_io_vec, iter);
	struct page *page;
	u32 n = 0, i;

	ctx->mapped = 0;
	if (bv.bv_len >= bytes && !PageHighMem(bv.bv_page))
		return page_address(bv.bv_page) + bv.bv_offset;
	if (bytes > MAX_PAGES << PAGE_SHIFT)
		return NULL;
	for (; bytes; bytes -= bv.bv_len) {
		bv = mp_bvec_iter_bvec(bio->bi_io_vec, iter);
		bv.bv_len = min(bv.bv_len, bytes);
		if (!PAGE_ALIGNED(bv.bv_offset | bv.bv_len))
			return NULL;
		bio_advance_iter_single(bio, &iter, bv.bv_len);
		page = bv.bv_page + (bv.bv_offset >> PAGE_SHIFT);
		for (i = 0; i < bv.bv_len >> PAGE_SHIFT; i++)
			ctx->page[n++] = page + i;
	}
	ctx->mapped = n;
	return vm_map_ram(ctx->page, n, NUMA_NO_NODE);
}

/* Written through @area, which other addresses of the pages do not know yet. */
static void bio_unmap(struct context *ctx, void *area, struct bio *bio,
		      struct bvec_iter iter, u32 bytes)
{
	if (ctx->mapped) {
		flush_kernel_vmap_range(area, bytes);
		vm_unmap_ram(area, ctx->mapped);
	}
	while (ARCH_IMPLEMENTS_FLUSH_DCACHE_PAGE && bytes) {
		struct bio_vec bv = bio_iter_iovec(bio, iter);

		bv.bv_len = min(bv.bv_len, bytes);
		flush_dcache_page(bv.bv_page);
		bio_advance_iter_single(bio, &iter, bv.bv_len);
		bytes -= bv.bv_len;
	}
}

/*
 * Decode all of @frame straight into the reader's memory. Only what verified
 * before: who reads must not see what does not, and may change what is there while
 * it is decoded. That harms nobody else, and if it makes the decoder fail, there is
 * still the other way.
 */
static bool read_in_place(struct context *ctx, struct lf_frame *frame,
			  struct bio *bio, struct bvec_iter *iter)
{
	const char *why;
	void *out;
	int err;

	if (!READ_ONCE(frame->verified) || ctx->serial == frame->serial)
		return false;
	out = bio_map(ctx, bio, *iter, frame->pos.ubytes);
	if (!out)
		return false;
	err = decode(ctx, frame, out, &why);
	bio_unmap(ctx, out, bio, *iter, frame->pos.ubytes);
	if (!err)
		bio_advance_iter(bio, iter, frame->pos.ubytes);
	return !err;
}

static int fill_context(struct context *ctx, struct lf_frame *frame,
			const char **why)
{
	int err;

	if (ctx->serial == frame->serial)
		return 0;
	ctx->serial = 0;
	err = decode(ctx, frame, ctx->out, why);
	if (!err)
		ctx->serial = frame->serial;
	return err;
}

/* The same for @out, which is to be kept. */
static int fill_kept(struct context *ctx, struct lf_frame *frame, void *out,
		     const char **why)
{
	if (ctx->serial != frame->serial)
		return decode(ctx, frame, out, why);
	memcpy(out, ctx->out, frame->pos.ubytes);
	return 0;
}

static int read_coded(struct lf_frame *frame, u32 off, u32 len, struct bio *bio,
		      struct bvec_iter *iter, const char **why)
{
	bool whole = len == frame->pos.ubytes;
	struct lf_decoded *kept = NULL;
	struct context *ctx;
	void *out;
	int err = 0;

	if (lf_decoded_read(frame, off, len, bio, iter))
		return 0;
	ctx = context_get(frame->serial, !whole);
	if (whole && read_in_place(ctx, frame, bio, iter))
		goto out;
	/* Somebody may have done it, while this one waited. */
	if (!whole && lf_decoded_read(frame, off, len, bio, iter))
		goto out;
	/* Who reads all of a frame at once does not come back for the rest. */
	if (!whole)
		kept = lf_decoded_new(frame);
	out = kept ? lf_decoded_content(kept) : ctx->out;
	err = kept ? fill_kept(ctx, frame, out, why) :
		     fill_context(ctx, frame, why);
	if (!err)
		lf_copy_to_bio(bio, iter, out + off, len);
	if (kept && err)
		lf_decoded_cancel(kept);
	else if (kept)
		lf_decoded_publish(frame, kept);
out:
	context_put(ctx);
	return err;
}

bool lf_codec_try(struct lf_frame *frame, u32 off, u32 len, struct bio *bio,
		  struct bvec_iter *iter)
{
	if (codecs[frame->codec].decode)
		return lf_decoded_read(frame, off, len, bio, iter);
	if (!READ_ONCE(frame->verified))
		return false;
	lf_copy_to_bio(bio, iter, frame->data + off, len);
	return true;
}

int lf_codec_read(struct lf_frame *frame, u32 off, u32 len, struct bio *bio,
		  struct bvec_iter *iter)
{
	const char *why = "";
	int err;

	if (codecs[frame->codec].decode)
		err = read_coded(frame, off, len, bio, iter, &why);
	else
		err = read_raw(frame, off, len, bio, iter, &why);
	if (err)
		DMERR_LIMIT("layer %pUb, frame at C offset %llu: %s",
			    frame->layer->uuid, frame->pos.cstart, why);
	return err ? -EBADMSG : 0;
}

/*
 * ----------------------------------------------------------------
 * The pool's size
 * ----------------------------------------------------------------
 */

/* An idle context with less room than @ubytes, taken; else NULL. */
static struct context *context_try_small(u32 ubytes)
{
	struct context *ctx;

	spin_lock(&pool.lock);
	list_for_each_entry(ctx, &pool.idle, node) {
		if (ctx->out_bytes < ubytes) {
			list_del(&ctx->node);
			goto out;
		}
	}
	ctx = NULL;
out:
	spin_unlock(&pool.lock);
	return ctx;
}

static bool all_large(u32 ubytes)
{
	unsigned int i;

	for (i = 0; i < pool.contexts; i++)
		if (READ_ONCE(pool.context[i].out_bytes) < ubytes)
			return false;
	return true;
}

int lf_codec_reserve(u32 ubytes)
{
	struct context *ctx;
	void *out;

	/* Allocate first: no context may be away from readers meanwhile. */
	mutex_lock(&pool.grow_lock);
	while (!all_large(ubytes)) {
		out = kvmalloc(ubytes, GFP_KERNEL);
		if (!out) {
			mutex_unlock(&pool.grow_lock);
			return -ENOMEM;
		}
		wait_event(pool.wait, (ctx = context_try_small(ubytes)));
		swap(ctx->out, out);
		ctx->serial = 0;
		WRITE_ONCE(ctx->out_bytes, ubytes);
		context_put(ctx);
		kvfree(out);
	}
	mutex_unlock(&pool.grow_lock);
	return 0;
}

int lf_codec_init(void)
{
	unsigned int i;

	spin_lock_init(&pool.lock);
	mutex_init(&pool.grow_lock);
	INIT_LIST_HEAD(&pool.idle);
	init_waitqueue_head(&pool.wait);
	pool.contexts = min_t(unsigned int, num_online_cpus(), MAX_CONTEXTS);
	pool.workspace_bytes = zstd_dctx_workspace_bound();
	for (i = 0; i < pool.contexts; i++) {
		struct context *ctx = &pool.context[i];

		ctx->workspace = kvmalloc(pool.workspace_bytes, GFP_KERNEL);
		if (!ctx->workspace) {
			lf_codec_exit();
			return -ENOMEM;
		}
		list_add(&ctx->node, &pool.idle);
	}
	return 0;
}

void lf_codec_exit(void)
{
	unsigned int i;

	for (i = 0; i < pool.contexts; i++) {
		kvfree(pool.context[i].workspace);
		kvfree(pool.context[i].out);
	}
}

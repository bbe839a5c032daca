// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads and writes of what lies in a store's segments. With bios of our own:
 * the arguments of dm_io() change even between stable releases.
 */
#include <linux/bio.h>
#include <linux/completion.h>
#include <linux/highmem.h>
#include <linux/mm.h>

#include "store.h"

#define MIN_BIOS	16

/* The last bio of a transfer, which ends when all have ended. */
struct lf_store_bio {
	lf_store_done done;
	void *context;
	void *data;
	u32 bytes;
	struct bio bio;
};

static struct bio_set bios;

static void transfer_end(struct bio *bio)
{
	struct lf_store_bio *last = container_of(bio, struct lf_store_bio, bio);
	lf_store_done done = last->done;
	void *context = last->context;
	int err = blk_status_to_errno(bio->bi_status);

	if (bio_op(bio) == REQ_OP_READ && is_vmalloc_addr(last->data))
		invalidate_kernel_vmap_range(last->data, last->bytes);
	bio_put(bio);
	done(err, context);
}

/* As much as one bio takes. Returns the bytes. */
static u32 fill(struct bio *bio, void *data, u32 bytes)
{
	u32 added = 0;

	while (added < bytes) {
		void *at = data + added;
		u32 offset = offset_in_page(at);
		u32 length = min_t(u32, bytes - added, PAGE_SIZE - offset);
		struct page *page = is_vmalloc_addr(at) ? vmalloc_to_page(at) :
							  virt_to_page(at);

		if (bio_add_page(bio, page, length, offset) != length)
			break;
		added += length;
	}
	return added;
}

void lf_store_submit(struct lf_store *store, blk_opf_t opf, sector_t sector,
		     u32 sectors, void *data, lf_store_done done, void *context)
{
	u32 bytes = sectors << SECTOR_SHIFT, at = 0;
	struct bio *bio = NULL, *next;
	struct lf_store_bio *last;
	u32 pages;

	if (op_is_write(opf) && is_vmalloc_addr(data))
		flush_kernel_vmap_range(data, bytes);
	while (at < bytes) {
		/* It may begin and end within a page. */
		pages = (bytes - at) / PAGE_SIZE + 2;
		next = bio_alloc_bioset(store->bdev, bio_max_segs(pages), opf,
					GFP_NOIO, &bios);
		next->bi_iter.bi_sector = sector + (at >> SECTOR_SHIFT);
		at += fill(next, data + at, bytes - at);
		if (bio) {
			bio_chain(bio, next);
			submit_bio(bio);
		}
		bio = next;
	}
	last = container_of(bio, struct lf_store_bio, bio);
	last->done = done;
	last->context = context;
	last->data = data;
	last->bytes = bytes;
	bio->bi_end_io = transfer_end;
	submit_bio(bio);
}

struct waiter {
	struct completion done;
	int err;
};

static void wake(int err, void *context)
{
	struct waiter *waiter = context;

	waiter->err = err;
	complete(&waiter->done);
}

int lf_store_io(struct lf_store *store, blk_opf_t opf, sector_t sector,
		u32 sectors, void *data)
{
	struct waiter waiter;

	init_completion(&waiter.done);
	lf_store_submit(store, opf, sector, sectors, data, wake, &waiter);
	wait_for_completion_io(&waiter.done);
	return waiter.err;
}

int lf_store_io_init(void)
{
	return bioset_init(&bios, MIN_BIOS, offsetof(struct lf_store_bio, bio),
			   BIOSET_NEED_BVECS);
}

void lf_store_io_exit(void)
{
	bioset_exit(&bios);
}

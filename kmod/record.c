// SPDX-License-Identifier: GPL-2.0-only
/*
 * The order of first accesses: which frames of an image are read, and in what
 * order, once each. It is taken by messages:
 *
 *	record start		begin; nothing was read yet
 *	record stop		end, and forget
 *	record read <n>		the answer's first line is
 *					entries <entries> lost <frames>
 *				then a line for each entry from the n-th on, as
 *				many as fit:
 *					<layer> <U offset of the frame>
 *	layers <n>		a line for each layer from the n-th on:
 *					<UUID> <bytes in U space>
 *
 * Entries are only ever added, so who reads on behind the last line that it got
 * has all of them; an answer without entries is the end, for now. A message fits
 * what it has to say into the room that the caller gives, needs no file and no
 * object of its own, and cannot outlive the device.
 *
 * Cost: with no recording, a NULL check on a read's way. With one, a bit for each
 * frame, and an array that grows under an atomic index.
 */
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>

#include "lazyframe.h"

/* What a message may take up: the rest is for the next one. */
#define LINE_MAX_BYTES	64
/* Marks what was written; U offsets end far below. */
#define WRITTEN		BIT_ULL(47)

/**
 * struct lf_record - a recording
 * @room: entries that fit
 * @count: frames that were read first, those that did not fit included
 * @seen: frames that were read
 * @order: 0 where @count was raised and the entry is not written yet
 */
struct lf_record {
	u32 room;
	atomic_t count;
	struct lf_frame_bits seen;
	u64 order[];
};

/* One start, stop or readout at a time, of all devices */
static DEFINE_MUTEX(lf_record_lock);

void lf_record_io(const struct lf_io *io, u32 layer)
{
	struct lf_frame_pos pos;
	struct lf_record *record;
	u64 upos, n;

	rcu_read_lock();
	record = rcu_dereference(io->dev->record);
	for (upos = io->upos; record && upos < io->uend;
	     upos = pos.ustart + pos.ubytes) {
		if (lf_table_find(&io->table->table, upos, &pos))
			break;
		n = record->seen.first[layer] + pos.index;
		if (test_bit(n, record->seen.bit) ||
		    test_and_set_bit(n, record->seen.bit))
			continue;
		n = atomic_inc_return(&record->count) - 1;
		if (n >= record->room)
			continue;
		/* Pairs with the acquire in record_read(). */
		smp_store_release(&record->order[n], WRITTEN |
				  lf_order_entry(layer, pos.ustart));
	}
	rcu_read_unlock();
}

static void record_free(struct lf_record *record)
{
	if (!record)
		return;
	lf_frame_bits_free(&record->seen);
	kvfree(record);
}

static struct lf_record *record_new(const struct lf_image *image)
{
	struct lf_record *record;
	struct lf_frame_bits seen;
	u32 room;

	if (lf_frame_bits_alloc(&seen, image))
		return NULL;
	room = min_t(u32, seen.count, LF_ORDER_MAX);
	record = kvzalloc(struct_size(record, order, room), GFP_KERNEL);
	if (!record) {
		lf_frame_bits_free(&seen);
		return NULL;
	}
	record->room = room;
	record->seen = seen;
	return record;
}

static int record_start(struct lf_device *dev)
{
	struct lf_record *record;

	if (rcu_access_pointer(dev->record))
		return -EBUSY;
	record = record_new(&dev->image);
	if (!record)
		return -ENOMEM;
	rcu_assign_pointer(dev->record, record);
	return 0;
}

static int record_stop(struct lf_device *dev)
{
	struct lf_record *record;

	record = rcu_replace_pointer(dev->record, NULL,
				     lockdep_is_held(&lf_record_lock));
	if (!record)
		return -ENODATA;
	synchronize_rcu();
	record_free(record);
	return 0;
}

static int record_read(struct lf_device *dev, u32 from, char *result,
		       unsigned int maxlen)
{
	const struct lf_record *record;
	unsigned int sz = 0;
	u32 count;
	u64 entry;

	record = rcu_dereference_protected(dev->record,
					   lockdep_is_held(&lf_record_lock));
	if (!record)
		return -ENODATA;
	count = atomic_read(&record->count);
	DMEMIT("entries %u lost %u\n", min(count, record->room),
	       count - min(count, record->room));
	for (; from < min(count, record->room); from++) {
		/* Pairs with the release in lf_record_io(). */
		entry = smp_load_acquire(&record->order[from]);
		if (!entry || sz + LINE_MAX_BYTES > maxlen)
			break;
		entry &= ~WRITTEN;
		DMEMIT("%u %llu\n", lf_order_layer(entry),
		       lf_order_upos(entry));
	}
	return 1;
}

int lf_record_message(struct lf_device *dev, unsigned int argc, char **argv,
		      char *result, unsigned int maxlen)
{
	int err = -EINVAL;
	u32 from;

	mutex_lock(&lf_record_lock);
	if (argc == 2 && !strcasecmp(argv[1], "start"))
		err = record_start(dev);
	else if (argc == 2 && !strcasecmp(argv[1], "stop"))
		err = record_stop(dev);
	else if (argc == 3 && !strcasecmp(argv[1], "read") &&
		 !kstrtou32(argv[2], 10, &from))
		err = record_read(dev, from, result, maxlen);
	mutex_unlock(&lf_record_lock);
	return err;
}

int lf_layers_message(struct lf_device *dev, const char *arg, char *result,
		      unsigned int maxlen)
{
	const struct lf_layer *layer;
	unsigned int sz = 0;
	u32 i;

	if (kstrtou32(arg, 10, &i))
		return -EINVAL;
	for (; i < dev->image.super.layers && sz + LINE_MAX_BYTES <= maxlen;
	     i++) {
		layer = dev->image.table[i]->layer;
		DMEMIT("%pUb %llu\n", layer->uuid, layer->ubytes);
	}
	/* An answer, if an empty one */
	if (!sz)
		DMEMIT("\n");
	return 1;
}

void lf_record_drop(struct lf_device *dev)
{
	/* No read is left, and no message. */
	record_free(rcu_dereference_protected(dev->record, true));
	RCU_INIT_POINTER(dev->record, NULL);
}

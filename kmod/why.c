// SPDX-License-Identifier: GPL-2.0-only
/*
 * The answer to the message "why". Its first line:
 *
 *	helper attached|none <since> <silent> waiting <reads> listed <lines>
 *
 * with milliseconds since that is so, and since the helper was heard of: it took
 * a request or answered one. Then a line for each read, at most 128 of them,
 * those that wait longest, more or less, first:
 *
 *	read <age> <state> <here> <UUID> <layer> <U offset> <C offset> <have> <length>
 *
 * with milliseconds since the read first waited, and since it is in this state;
 * the layer by its name and by its number for LAZYFRAME_IOC_LAYER; the next byte
 * that the read needs; the frame that it waits for, and how many of its bytes
 * are there. In the states "memory" and "decoding" no frame is known, and the
 * last three are 0. More words may follow on each line some day.
 */
#include <linux/slab.h>

#include "lazyframe.h"

static const char * const state[LF_WAITS] = {
	[LF_WAIT_HELPER] = "helper",
	[LF_WAIT_QUEUE] = "queue",
	[LF_WAIT_POSTED] = "posted",
	[LF_WAIT_TAKEN] = "taken",
	[LF_WAIT_RECEIVING] = "receiving",
	[LF_WAIT_STORE_QUEUE] = "store-queue",
	[LF_WAIT_LOADING] = "loading",
	[LF_WAIT_MEMORY] = "memory",
	[LF_WAIT_DECODING] = "decoding",
};

int lf_device_why(struct lf_device *dev, char *result, unsigned int maxlen)
{
	const struct lf_waiter *waiter;
	struct lf_waiting *waiting;
	unsigned int sz = 0, i;

	/* Nobody who asks why reads wait shall wait for them. */
	waiting = kvmalloc(sizeof(*waiting), GFP_NOIO | __GFP_NOWARN);
	if (!waiting)
		return -ENOMEM;
	lf_device_waiting(dev, waiting);
	DMEMIT("helper %s %llu %llu waiting %u listed %u\n",
	       waiting->helper ? "attached" : "none", waiting->since,
	       waiting->silent, waiting->waiting, waiting->count);
	for (i = 0; i < waiting->count; i++) {
		waiter = &waiting->waiter[i];
		DMEMIT("read %llu %s %llu %pUb %llu %llu %llu %u %u\n",
		       waiter->age, state[waiter->wait], waiter->here,
		       waiter->uuid, waiter->layer, waiter->upos,
		       waiter->cstart, waiter->have, waiter->cbytes);
	}
	kvfree(waiting);
	return 1;
}

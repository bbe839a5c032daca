/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints: /sys/kernel/tracing/events/lazyframe/. The way of a miss:
 *
 *	lazyframe_wanted	a frame that is not here was asked for
 *	lazyframe_read_waits	a read was parked on it
 *	lazyframe_posted	a request for it is in the helper's ring
 *	lazyframe_taken		the helper has read that it is
 *	lazyframe_first_bytes	the helper's first answer
 *	lazyframe_filled	its last one: all bytes are here
 *	lazyframe_decoded	the codec was content
 *	lazyframe_verified	and so was the frame table's checksum
 *	lazyframe_read_done	a read of the image ended, waited or not
 *
 * From the store it is lazyframe_loading and lazyframe_loaded in the place of the
 * four of the helper. What else becomes of it: lazyframe_requeued, as its helper
 * went; lazyframe_failed, with an error, -ECANCELED where nobody needs it any
 * more; lazyframe_read_gave_up, a read that its device's policy ended.
 *
 * A frame is named by its layer and its C offset; U offset and size tell which
 * reads it is for. A raw frame is never decoded, one without a sum in its table
 * is verified by its own.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM lazyframe

#if !defined(LF_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define LF_TRACE_H

#include <linux/tracepoint.h>

#include "lazyframe.h"

DECLARE_EVENT_CLASS(lazyframe_frame,
	TP_PROTO(const struct lf_frame *frame),
	TP_ARGS(frame),
	TP_STRUCT__entry(
		__array(u8, uuid, 16)
		__field(u64, cstart)
		__field(u64, ustart)
		__field(u32, cbytes)
		__field(u32, ubytes)
		__field(u32, have)
		__field(bool, prefetch)
	),
	TP_fast_assign(
		memcpy(__entry->uuid, frame->layer->uuid, 16);
		__entry->cstart = frame->pos.cstart;
		__entry->ustart = frame->pos.ustart;
		__entry->cbytes = frame->pos.cbytes;
		__entry->ubytes = frame->pos.ubytes;
		__entry->have = frame->have;
		__entry->prefetch = frame->prefetch;
	),
	TP_printk("layer=%pUb C=%llu+%u U=%llu+%u have=%u%s", __entry->uuid,
		  __entry->cstart, __entry->cbytes, __entry->ustart,
		  __entry->ubytes, __entry->have,
		  __entry->prefetch ? " prefetch" : "")
);

#define LF_FRAME_EVENT(name)						\
DEFINE_EVENT(lazyframe_frame, name,					\
	TP_PROTO(const struct lf_frame *frame),				\
	TP_ARGS(frame))

LF_FRAME_EVENT(lazyframe_wanted);
LF_FRAME_EVENT(lazyframe_posted);
LF_FRAME_EVENT(lazyframe_taken);
LF_FRAME_EVENT(lazyframe_first_bytes);
LF_FRAME_EVENT(lazyframe_filled);
LF_FRAME_EVENT(lazyframe_loading);
LF_FRAME_EVENT(lazyframe_loaded);
LF_FRAME_EVENT(lazyframe_decoded);
LF_FRAME_EVENT(lazyframe_verified);
LF_FRAME_EVENT(lazyframe_requeued);

TRACE_EVENT(lazyframe_failed,
	TP_PROTO(const struct lf_frame *frame),
	TP_ARGS(frame),
	TP_STRUCT__entry(
		__array(u8, uuid, 16)
		__field(u64, cstart)
		__field(u32, cbytes)
		__field(int, error)
	),
	TP_fast_assign(
		memcpy(__entry->uuid, frame->layer->uuid, 16);
		__entry->cstart = frame->pos.cstart;
		__entry->cbytes = frame->pos.cbytes;
		__entry->error = frame->error;
	),
	TP_printk("layer=%pUb C=%llu+%u error=%d", __entry->uuid,
		  __entry->cstart, __entry->cbytes, __entry->error)
);

DECLARE_EVENT_CLASS(lazyframe_read,
	TP_PROTO(const struct lf_io *io, blk_status_t status),
	TP_ARGS(io, status),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__array(u8, uuid, 16)
		__field(u64, upos)
		__field(u32, left)
		__field(int, error)
		__field(bool, waited)
		__field(bool, fetched)
	),
	TP_fast_assign(
		__entry->dev = disk_devt(dm_disk(dm_table_get_md(io->dev->ti->table)));
		memcpy(__entry->uuid, io->table->layer->uuid, 16);
		__entry->upos = io->upos;
		__entry->left = io->uend - io->upos;
		__entry->error = blk_status_to_errno(status);
		__entry->waited = io->waited;
		__entry->fetched = io->fetched;
	),
	TP_printk("%d:%d layer=%pUb U=%llu+%u %s error=%d", MAJOR(__entry->dev),
		  MINOR(__entry->dev), __entry->uuid, __entry->upos,
		  __entry->left, __entry->fetched ? "fetch" :
				 __entry->waited ? "store" : "hit",
		  __entry->error)
);

#define LF_READ_EVENT(name)						\
DEFINE_EVENT(lazyframe_read, name,					\
	TP_PROTO(const struct lf_io *io, blk_status_t status),		\
	TP_ARGS(io, status))

/* What the read still lacks is U=<offset>+<bytes>: nothing, when it ends well. */
LF_READ_EVENT(lazyframe_read_waits);
LF_READ_EVENT(lazyframe_read_gave_up);
LF_READ_EVENT(lazyframe_read_done);

#endif /* LF_TRACE_H */

/* Found by Kbuild's -I of this folder. */
#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>

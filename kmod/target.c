// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device-mapper target: table lines, the way of a read, suspend and
 * resume, status and messages. lazyframe.h has the whole picture.
 *
 *	0 <sectors> lazyframe <meta_dev> <store_dev|-> <cow_dev|->
 *		[<#features> <feature>...]
 *
 * Suspending
 * ----------
 * A noflush suspend (table reload, remove --force) gives every parked read
 * back to the core, which sends it again to the new table. A flush suspend
 * waits until all reads have ended; with a helper they do, by their bytes or
 * by fetch_timeout. Without one nothing would end them, so they fail then, as
 * dm-multipath's do. Reads that come between presuspend and the core's barrier
 * meet the same policy when they try to park.
 */
#include <linux/device-mapper.h>
#include <linux/errno.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "lazyframe.h"
#include "trace.h"

struct workqueue_struct *lf_wq;

static LIST_HEAD(lf_devices);
static DEFINE_MUTEX(lf_devices_lock);

/* Seconds. The default policy is patience: a helper that is gone delays reads. */
#define DEFAULT_FETCH_TIMEOUT	60
#define MAX_TIMEOUT		(24 * 60 * 60)

/* Bytes that one bio may ask for, however small the frames are. */
#define MIN_IO_LEN		(64 << 10)
/* So that a write lies in two leaves of an overlay at most. */
#define MAX_IO_LEN		(4 << 20)
/* So much is copied in map(); more would keep the submitter, and RCU, too long. */
#define INLINE_MAX		(256 << 10)
#define MAX_ZEROING		(1U << 30 >> SECTOR_SHIFT)
#define MAX_AROUND		(16U << 20)

/*
 * ----------------------------------------------------------------
 * Read-ahead: once a reader was sequential for a while, ask for windows of
 * frames before it needs them. Each window is posted at once and so travels
 * as one range. A reader that jumps sets off nothing. One that has to wait all the
 * same has more windows under way, so that more connections work for it: twice as
 * many, or, where from one to the next it takes longer than prefetch_ms, half, as
 * either the way is full then, and others need it, too, or the reader takes its time.
 * ----------------------------------------------------------------
 */

#define STREAM_MIN_RUN		(256 << 10)
#define STREAM_FIRST_WINDOW	(512 << 10)
#define STREAM_MAX_WINDOW	(8 << 20)
/* Of its frames: three windows fit in the tags that are not for readers alone */
#define STREAM_MAX_FRAMES	(LF_TAGS / 4)
#define STREAM_MAX_WINDOWS	8

static struct lf_stream *__stream_find(struct lf_device *dev,
				       struct lf_layer_table *table, u64 upos)
{
	struct lf_stream *stream = dev->stream;
	struct lf_stream found;
	int i;

	for (i = 0; i < LF_STREAMS; i++)
		if (stream[i].table == table && stream[i].next == upos)
			break;
	if (i < LF_STREAMS)
		found = stream[i];
	else
		found = (struct lf_stream) {
			.table = table,
			.next = upos,
			.windows = 1,
		};
	/* Most recent first; a new one takes the place of the oldest. */
	memmove(stream + 1, stream,
		min(i, LF_STREAMS - 1) * sizeof(*stream));
	stream[0] = found;
	return stream;
}

/* What a stream's windows may take of the cache */
static u64 windows_limit(void)
{
	return lf_cache_limit() / 4;
}

static u64 window_limit(const struct lf_layer_table *table)
{
	u64 frame = div_u64(table->layer->ubytes, max(table->table.frames, 1U));

	return min3((u64)STREAM_MAX_WINDOW, windows_limit(),
		    max(frame, 1ULL) * STREAM_MAX_FRAMES);
}

/* As many as fit, compressed as the layer is on average */
static u32 max_windows(const struct lf_stream *stream)
{
	const struct lf_layer *layer = stream->table->layer;
	u64 cbytes = mul_u64_u64_div_u64(stream->window, layer->cbytes,
					 max(layer->ubytes, 1ULL));

	return clamp_t(u64, div64_u64(windows_limit(), max(cbytes, 1ULL)), 1,
		       STREAM_MAX_WINDOWS);
}

/* Is it time for the next window of a reader who is at @upos? */
static bool __stream_wants(const struct lf_stream *stream, u64 upos)
{
	u64 left = stream->ahead - upos;

	if (left <= stream->window / 2)
		return true;
	return left <= stream->window * (stream->windows - 1) &&
	       lf_frames_ahead() + stream->window <= windows_limit();
}

static void __stream_grow(const struct lf_device *dev, struct lf_stream *stream)
{
	u64 limit = window_limit(stream->table);
	u32 late = READ_ONCE(dev->ahead_late);
	bool slow = time_after_eq(jiffies, stream->asked +
					   msecs_to_jiffies(lf_prefetch_ms()));

	if (stream->window < limit)
		stream->window = stream->window ? stream->window * 4 :
						  STREAM_FIRST_WINDOW;
	else if (slow)
		stream->windows = max(stream->windows / 2, 1U);
	else if (late != stream->late)
		stream->windows = min(stream->windows * 2,
				      max_windows(stream));
	stream->window = min(stream->window, limit);
	stream->late = late;
	stream->asked = jiffies;
}

static void stream_read(struct lf_device *dev, struct lf_io *io)
{
	struct lf_stream *stream;

	spin_lock(&dev->stream_lock);
	stream = __stream_find(dev, io->table, io->upos);
	stream->next = io->uend;
	stream->run += io->uend - io->upos;
	stream->ahead = max(stream->ahead, io->uend);
	if (stream->run >= STREAM_MIN_RUN && !READ_ONCE(dev->prefetch.replays) &&
	    __stream_wants(stream, io->uend)) {
		__stream_grow(dev, stream);
		io->ahead_from = stream->ahead;
		io->ahead_to = min(stream->ahead + stream->window,
				   io->table->layer->ubytes);
		stream->ahead += stream->window;
	}
	spin_unlock(&dev->stream_lock);
}

/*
 * ----------------------------------------------------------------
 * The way of a read
 * ----------------------------------------------------------------
 */

static void io_end(struct lf_io *io, blk_status_t status, enum lf_stat stat)
{
	struct bio *bio = io->to;

	if (io->done) {
		io->done(io->to, status);
		return;
	}
	lf_count_read(io->dev, status, stat, bio->bi_iter.bi_size);
	bio->bi_status = status;
	/* Behind this line the device may be gone. */
	bio_endio(bio);
}

/* A read of the image */
static void read_end(struct lf_io *io, blk_status_t status, enum lf_stat stat)
{
	trace_lazyframe_read_done(io, status);
	if (io->waited)
		lf_read_over(io);
	io_end(io, status, stat);
}

static const char *io_why(const struct lf_io *io, int err)
{
	if (io->status == BLK_STS_TRANSPORT)
		return "no helper is attached";
	if (io->status == BLK_STS_TIMEOUT)
		return "fetch_timeout is over";
	switch (err) {
	case -ENOENT:
		return "its object does not exist";
	case -EACCES:
		return "access to its object is denied";
	case -ESTALE:
		return "its object is not the one that was attached";
	case -EBADMSG:
		return "the frame did not verify, twice";
	case -EUCLEAN:
		return "the frame tables of its layer have a hole or disagree";
	default:
		return "the frame could not be fetched";
	}
}

static void io_fail(struct lf_io *io, int err)
{
	/* -ECANCELED: the device's policy ended it, and said how. */
	if (err != -ECANCELED)
		io->status = errno_to_blk_status(err);
	if (WARN_ON_ONCE(!io->status))
		io->status = BLK_STS_IOERR;
	/* The suspend was interrupted meanwhile: the core would make it EIO. */
	if (io->status == BLK_STS_DM_REQUEUE &&
	    !dm_noflush_suspending(io->dev->ti)) {
		io->status = BLK_STS_OK;
		queue_work(lf_wq, &io->work);
		return;
	}
	if (io->status != BLK_STS_DM_REQUEUE)
		DMERR_LIMIT("%s: layer %pUb: read at U offset %llu fails: %s",
			    dm_table_device_name(io->dev->ti->table),
			    io->table->layer->uuid, io->upos, io_why(io, err));
	read_end(io, io->status, LF_READS_FAILED);
}

static void count_latency(const struct lf_io *io)
{
	enum lf_latency latency = io->fetched ? LF_LATENCY_FETCH :
				  io->waited ? LF_LATENCY_STORE :
					       LF_LATENCY_HIT;

	lf_histogram_add(&io->dev->stats->latency[latency],
			 ktime_get_ns() - io->start);
}

static void io_finish(struct lf_io *io)
{
	/* The image's last block is stored without its padding. */
	while (io->iter.bi_size) {
		struct bio_vec bv = bio_iter_iovec(io->to, io->iter);

		memzero_bvec(&bv);
		bio_advance_iter_single(io->to, &io->iter, bv.bv_len);
	}
	if (!io->done)
		count_latency(io);
	read_end(io, BLK_STS_OK, io->fetched ? LF_READS_FETCHED :
				 io->waited ? LF_READS_STORE : LF_READS_MEMORY);
}

/* How much of this frame the read wants next; *@off: from where */
static u32 io_part(const struct lf_io *io, const struct lf_frame *frame, u32 *off)
{
	*off = io->upos - frame->pos.ustart;
	return min_t(u64, frame->pos.ubytes - *off, io->uend - io->upos);
}

/*
 * Copy what @frame has of this read. A frame that does not verify is forgotten
 * and fetched once more; the second time it is the read's error.
 */
static int io_copy(struct lf_io *io, struct lf_frame *frame)
{
	u32 off, len;
	int err;

	len = io_part(io, frame, &off);
	err = lf_codec_read(frame, off, len, io->to, &io->iter);
	if (!err) {
		io->upos += len;
		io->refetched = false;
		return 0;
	}
	if (lf_frame_drop(frame))
		this_cpu_inc(io->dev->stats->count[LF_FRAMES_BAD]);
	if (io->refetched)
		return err;
	/* What was bad in the store was not fetched yet. */
	io->refetched = !READ_ONCE(frame->stored);
	return 0;
}

/*
 * In map(): copy as long as nothing is to be decoded, which costs less than a
 * worker would. Returns false if something is left for that.
 */
static bool io_try(struct lf_io *io)
{
	struct lf_frame_pos pos;
	struct lf_frame *frame;
	bool done = true;
	u32 off, len;

	while (done && io->upos < io->uend) {
		if (lf_table_find(&io->table->table, io->upos, &pos))
			return false;
		frame = lf_frame_try(io->table->layer, &pos);
		if (!frame)
			return false;
		len = io_part(io, frame, &off);
		done = lf_codec_try(frame, off, len, io->to, &io->iter);
		lf_frame_put(frame);
		if (done)
			io->upos += len;
	}
	return done;
}

static void io_work(struct work_struct *work)
{
	struct lf_io *io = container_of(work, struct lf_io, work);
	unsigned int noio = memalloc_noio_save();
	bool ahead = io->ahead_from < io->ahead_to;
	struct lf_frame_pos pos;
	struct lf_frame *frame;
	int err = 0;

	if (ahead) {
		lf_frames_want(io->dev, io->table, io->ahead_from, io->ahead_to,
			       true);
		io->ahead_from = io->ahead_to;
	}
	while (!err && io->upos < io->uend) {
		if (lf_table_find(&io->table->table, io->upos, &pos)) {
			err = -EUCLEAN;
			break;
		}
		frame = lf_frame_get(io, &pos);
		if (!frame)
			goto out;	/* no longer ours */
		if (IS_ERR(frame)) {
			err = PTR_ERR(frame);
			break;
		}
		err = io_copy(io, frame);
		lf_frame_put(frame);
	}
	if (err)
		io_fail(io, err);
	else
		io_finish(io);
out:
	if (ahead)
		lf_frames_post();
	memalloc_noio_restore(noio);
}

void lf_cut(struct bio *bio, u64 bytes)
{
	u64 sectors = bytes >> SECTOR_SHIFT;

	if (sectors < bio_sectors(bio))
		dm_accept_partial_bio(bio, sectors);
}

/*
 * The extent that holds @off, or the next one: then *@start is behind @off. NULL
 * and U64_MAX: there is none.
 */
static const struct lf_disk_extent *extent_at(const struct lf_device *dev,
					      u64 off, u64 *start)
{
	const struct lf_disk_extent *extent = dev->image.extent;
	u32 extents = dev->image.super.extents;
	u32 i = lf_extents_find(extent, extents, off);

	if (i == extents) {
		*start = U64_MAX;
		return NULL;
	}
	*start = le64_to_cpu(extent[i].start);
	return &extent[i];
}

bool lf_image_maps(const struct lf_device *dev, u64 off, u64 bytes)
{
	u64 start;

	extent_at(dev, off, &start);
	return start < off + bytes;
}

/* @skip: bytes from the extent's start to the first byte of io->to */
static void io_place(struct lf_io *io, const struct lf_disk_extent *extent,
		     u64 skip)
{
	u64 left = le64_to_cpu(extent->length) - skip;

	io->iter = io->to->bi_iter;
	io->extent = extent;
	io->table = io->dev->image.table[le32_to_cpu(extent->layer)];
	io->upos = le64_to_cpu(extent->storage) + skip;
	io->uend = io->upos + min_t(u64, left, io->iter.bi_size);
	/* Only in the layer's last block can either be cut short. */
	io->uend = min(io->uend, io->table->layer->ubytes);
	io->upos = min(io->upos, io->uend);
	io->ahead_from = 0;
	io->ahead_to = 0;
	io->frame = NULL;
	io->status = BLK_STS_OK;
	io->waited = false;
	io->fetched = false;
	io->refetched = false;
	INIT_WORK(&io->work, io_work);
	if (unlikely(rcu_access_pointer(io->dev->record)))
		lf_record_io(io, le32_to_cpu(extent->layer));
}

int lf_zero_read(struct lf_io *io, struct bio *bio)
{
	io->to = bio;
	zero_fill_bio(bio);
	io_end(io, BLK_STS_OK, LF_READS_ZERO);
	return DM_MAPIO_SUBMITTED;
}

int lf_image_map(struct lf_io *io, struct bio *bio, u64 off)
{
	const struct lf_disk_extent *extent;
	u64 start, left;

	extent = extent_at(io->dev, off, &start);
	if (off < start) {
		lf_cut(bio, start - off);
		return lf_zero_read(io, bio);
	}
	left = start + le64_to_cpu(extent->length) - off;
	lf_cut(bio, min_t(u64, round_up(left, SECTOR_SIZE),
			  io->dev->io_bytes - off % io->dev->io_bytes));
	io->to = bio;
	io->start = ktime_get_ns();
	io_place(io, extent, off - start);
	stream_read(io->dev, io);
	if (io->ahead_from >= io->ahead_to && bio->bi_iter.bi_size <= INLINE_MAX &&
	    io_try(io))
		io_finish(io);
	else
		queue_work(lf_wq, &io->work);
	return DM_MAPIO_SUBMITTED;
}

void lf_image_read(struct lf_io *io, struct bio *to, u64 off,
		   void (*done)(struct bio *to, blk_status_t status))
{
	const struct lf_disk_extent *extent;
	u64 start;

	extent = extent_at(io->dev, off, &start);
	if (off < start) {
		zero_fill_bio(to);
		done(to, BLK_STS_OK);
		return;
	}
	io->to = to;
	io->done = done;
	io_place(io, extent, off - start);
	io_work(&io->work);
}

static int lf_map(struct dm_target *ti, struct bio *bio)
{
	struct lf_io *io = dm_per_bio_data(bio, sizeof(*io));
	struct lf_device *dev = ti->private;
	u64 off = dm_target_offset(ti, bio->bi_iter.bi_sector) << SECTOR_SHIFT;

	/* What else it has, who needs it sets: this is every bio's way. */
	io->dev = dev;
	io->done = NULL;
	io->kind = LF_IO_OTHER;
	io->fua = false;
	if (dev->failed)
		return DM_MAPIO_KILL;
	if (dev->overlay)
		return lf_overlay_map(io, bio, off);
	if (bio_op(bio) != REQ_OP_READ)
		return DM_MAPIO_KILL;
	return lf_image_map(io, bio, off);
}

static int lf_end_io(struct dm_target *ti, struct bio *bio,
		     blk_status_t *status)
{
	struct lf_io *io = dm_per_bio_data(bio, sizeof(*io));

	return lf_overlay_end_io(io, bio, *status);
}

/*
 * ----------------------------------------------------------------
 * Helpers come and go
 * ----------------------------------------------------------------
 */

static void kick_work(struct work_struct *work)
{
	struct lf_device *dev;

	mutex_lock(&lf_devices_lock);
	list_for_each_entry(dev, &lf_devices, node) {
		lf_device_review(dev);
		lf_prefetch_kick(dev);
		dm_table_event(dev->ti->table);
	}
	mutex_unlock(&lf_devices_lock);
}

static DECLARE_WORK(lf_kick_work, kick_work);

void lf_devices_kick(void)
{
	queue_work(lf_wq, &lf_kick_work);
}

static void expire_work(struct work_struct *work)
{
	lf_device_review(container_of(to_delayed_work(work), struct lf_device,
				      expire));
}

/*
 * ----------------------------------------------------------------
 * Constructor
 * ----------------------------------------------------------------
 */

/* Of windows: none, or whole blocks and not more than a frame may have */
static int parse_around(const char *text, u32 *bytes)
{
	u32 n;

	if (kstrtou32(text, 10, &n) || (n && !is_power_of_2(n)) ||
	    (n && n < LF_META_BLOCK) || n > MAX_AROUND)
		return -EINVAL;
	WRITE_ONCE(*bytes, n);
	return 0;
}

static int parse_seconds(const char *arg, unsigned int *seconds)
{
	unsigned int value;

	if (kstrtouint(arg, 10, &value) || value > MAX_TIMEOUT)
		return -EINVAL;
	WRITE_ONCE(*seconds, value);
	return 0;
}

static int parse_origin(struct lf_device *dev, const char *path)
{
	struct dm_target *ti = dev->ti;
	int err;

	ti->error = "There can be one origin";
	if (dev->origin)
		return -EINVAL;
	ti->error = "Cannot open the origin";
	err = dm_get_device(ti, path, dm_table_get_mode(ti->table) &
				      ~LF_OPEN_WRITE, &dev->origin);
	if (!err)
		ti->error = NULL;
	return err;
}

static int parse_features(struct lf_device *dev, struct dm_arg_set *as)
{
	static const struct dm_arg args[] = {
		{ 0, 10, "Invalid number of feature arguments" },
	};
	struct dm_target *ti = dev->ti;
	unsigned int *seconds;
	const char *name;
	unsigned int argc;

	if (!as->argc)
		return 0;
	if (dm_read_arg_group(args, as, &argc, &ti->error))
		return -EINVAL;
	while (argc) {
		name = dm_shift_arg(as);
		argc--;
		if (!strcasecmp(name, "error_if_no_helper")) {
			dev->error_if_no_helper = true;
			continue;
		}
		if (!strcasecmp(name, "read_only")) {
			dev->read_only = true;
			continue;
		}
		if (!strcasecmp(name, "origin")) {
			if (!argc || parse_origin(dev, dm_shift_arg(as)))
				return -EINVAL;
			argc--;
			continue;
		}
		if (!strcasecmp(name, "read_around")) {
			if (!argc || parse_around(dm_shift_arg(as),
						  &dev->read_around)) {
				ti->error = "read_around needs a power of two, 4096 to 16777216";
				return -EINVAL;
			}
			argc--;
			continue;
		}
		if (!strcasecmp(name, "no_helper_timeout")) {
			seconds = &dev->no_helper_timeout;
		} else if (!strcasecmp(name, "fetch_timeout")) {
			seconds = &dev->fetch_timeout;
		} else {
			ti->error = "Unknown feature argument";
			return -EINVAL;
		}
		if (!argc || parse_seconds(dm_shift_arg(as), seconds)) {
			ti->error = "A timeout needs a number of seconds, at most 86400";
			return -EINVAL;
		}
		argc--;
	}
	return 0;
}

static void put_devices(struct lf_device *dev)
{
	lf_store_put(dev->store);
	if (dev->store_dev)
		dm_put_device(dev->ti, dev->store_dev);
	if (dev->origin)
		dm_put_device(dev->ti, dev->origin);
	if (dev->cow)
		dm_put_device(dev->ti, dev->cow);
	dm_put_device(dev->ti, dev->meta);
}

static int open_store(struct lf_device *dev, const char *path)
{
	struct dm_target *ti = dev->ti;
	int err;

	ti->error = "Cannot open the store";
	err = dm_get_device(ti, path, dm_table_get_mode(ti->table) &
				      ~LF_OPEN_WRITE, &dev->store_dev);
	if (err)
		return err;
	ti->error = "The store's device has no lazyframe-store table";
	dev->store = lf_store_on(dev->store_dev->bdev);
	return dev->store ? 0 : -EINVAL;
}

static int parse_devices(struct lf_device *dev, struct dm_arg_set *as)
{
	struct dm_target *ti = dev->ti;
	const char *meta, *store, *cow;
	int err;

	if (as->argc < 3) {
		ti->error = "Expected <meta_dev> <store_dev|-> <cow_dev|->";
		return -EINVAL;
	}
	meta = dm_shift_arg(as);
	store = dm_shift_arg(as);
	cow = dm_shift_arg(as);
	if (!strcmp(cow, "-")) {
		if (dm_table_get_mode(ti->table) & LF_OPEN_WRITE) {
			ti->error = "A device without <cow_dev> must be created read-only";
			return -EINVAL;
		}
		cow = NULL;
	}
	ti->error = "Cannot open the meta device";
	err = dm_get_device(ti, meta, dm_table_get_mode(ti->table), &dev->meta);
	if (err)
		return err;
	if (cow) {
		ti->error = "Cannot open the COW device";
		err = dm_get_device(ti, cow, dm_table_get_mode(ti->table),
				    &dev->cow);
	}
	if (!err && strcmp(store, "-"))
		err = open_store(dev, store);
	if (err)
		put_devices(dev);
	return err;
}

static int load_image(struct lf_device *dev)
{
	struct dm_target *ti = dev->ti;
	const char *why;
	u64 sectors;
	int err;

	err = lf_meta_load(dev->meta->bdev, &dev->image, &why);
	if (err) {
		ti->error = (char *)why;
		return err;
	}
	sectors = DIV_ROUND_UP_ULL(dev->image.super.image_bytes, SECTOR_SIZE);
	if (ti->begin || ti->len != sectors) {
		DMERR("%s: the table line must map sectors 0 to %llu, all of the image",
		      dm_table_device_name(ti->table), sectors);
		ti->error = "Size does not match the image's";
		return -EINVAL;
	}
	/* So that a read seldom needs more than two frames: it asks for one by one. */
	dev->io_bytes = max_t(u32, MIN_IO_LEN,
			      round_up(dev->image.max_frame, SECTOR_SIZE));
	if (!dev->image.max_frame)
		return 0;
	ti->error = "Cannot allocate memory for decoding";
	return lf_codec_reserve(dev->image.max_frame);
}

/* A copy-up reads a block from one place. */
static bool extents_have_whole_blocks(const struct lf_image *image)
{
	u32 i;

	for (i = 0; i < image->super.extents; i++) {
		u64 start = le64_to_cpu(image->extent[i].start);
		u64 end = start + le64_to_cpu(image->extent[i].length);

		if (start % LF_META_BLOCK || (end % LF_META_BLOCK &&
					      end != image->super.image_bytes))
			return false;
	}
	return true;
}

static int load_overlay(struct lf_device *dev)
{
	struct dm_target *ti = dev->ti;
	const char *why;
	int err;

	ti->error = "The meta device and the table do not agree: is there an origin?";
	if (lf_super_has_origin(&dev->image.super) != !!dev->origin)
		return -EINVAL;
	if (!dev->cow) {
		ti->error = "An origin needs a COW device";
		return dev->origin ? -EINVAL : 0;
	}
	ti->error = "An overlay needs extents of whole blocks";
	if (!extents_have_whole_blocks(&dev->image))
		return -EINVAL;
	dev->overlay = lf_overlay_get(dev->meta->bdev, dev->cow->bdev,
				      &dev->image.super, &why);
	err = PTR_ERR_OR_ZERO(dev->overlay);
	if (err) {
		dev->overlay = NULL;
		ti->error = (char *)why;
		return err;
	}
	dev->writable = !dev->read_only &&
			(dm_table_get_mode(ti->table) & LF_OPEN_WRITE);
	ti->error = "The overlay is sealed: it needs the feature read_only";
	if (dev->writable && lf_overlay_sealed(dev->overlay))
		return -EROFS;
	ti->num_flush_bios = 1;
	ti->flush_supported = true;
	ti->num_discard_bios = 1;
	ti->discards_supported = true;
	ti->num_write_zeroes_bios = 1;
	return dm_set_target_max_io_len(ti, MAX_IO_LEN >> SECTOR_SHIFT);
}

static void unload(struct lf_device *dev)
{
	if (dev->overlay)
		lf_overlay_put(dev->overlay);
	lf_meta_unload(&dev->image);
}

static int lf_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct dm_arg_set as = { .argc = argc, .argv = argv };
	struct lf_device *dev;
	int err;

	dev = kzalloc(sizeof(*dev), GFP_KERNEL);
	if (!dev) {
		ti->error = "Cannot allocate the device";
		return -ENOMEM;
	}
	dev->ti = ti;
	dev->fetch_timeout = DEFAULT_FETCH_TIMEOUT;
	INIT_LIST_HEAD(&dev->parked);
	INIT_LIST_HEAD(&dev->woken);
	INIT_LIST_HEAD(&dev->node);
	INIT_DELAYED_WORK(&dev->expire, expire_work);
	spin_lock_init(&dev->stream_lock);
	lf_prefetch_init(dev);
	ti->private = dev;

	dev->stats = alloc_percpu(struct lf_stats);
	if (!dev->stats) {
		ti->error = "Cannot allocate counters";
		err = -ENOMEM;
		goto out_free;
	}
	err = parse_devices(dev, &as);
	if (err)
		goto out_stats;
	err = parse_features(dev, &as);
	if (err)
		goto out_devices;
	if (as.argc) {
		ti->error = "Too many arguments";
		err = -EINVAL;
		goto out_devices;
	}
	err = load_image(dev);
	if (!err)
		err = load_overlay(dev);
	if (err)
		goto out_image;

	ti->per_io_data_size = sizeof(struct lf_io);
	return 0;

out_image:
	unload(dev);
out_devices:
	put_devices(dev);
out_stats:
	free_percpu(dev->stats);
out_free:
	kfree(dev);
	return err;
}

/* What was created for the active device goes; there may be nothing. */
static void deactivate(struct lf_device *dev)
{
	mutex_lock(&lf_devices_lock);
	list_del_init(&dev->node);
	mutex_unlock(&lf_devices_lock);
	cancel_delayed_work_sync(&dev->expire);
	lf_prefetch_suspend(dev);
	lf_sysfs_remove(dev);
	if (dev->overlay)
		lf_overlay_deactivate(dev);
}

static void lf_dtr(struct dm_target *ti)
{
	struct lf_device *dev = ti->private;

	/* Resumed halfway: another target of the table refused to. */
	deactivate(dev);
	lf_prefetch_drop(dev);
	lf_record_drop(dev);
	unload(dev);
	put_devices(dev);
	free_percpu(dev->stats);
	kfree(dev);
}

/*
 * ----------------------------------------------------------------
 * Suspend and resume
 * ----------------------------------------------------------------
 */

static void lf_presuspend(struct dm_target *ti)
{
	bool noflush = dm_noflush_suspending(ti);

	lf_device_set_suspend(ti->private, noflush, !noflush);
}

static void lf_presuspend_undo(struct dm_target *ti)
{
	lf_device_set_suspend(ti->private, false, false);
}

/* No read is left. */
static void lf_postsuspend(struct dm_target *ti)
{
	deactivate(ti->private);
}

/*
 * The origin is an active device of ours that shows the sealed overlay that the
 * meta device names, and cannot change it.
 */
static bool origin_fits(const struct lf_device *dev)
{
	struct lf_device *other;
	bool fits = false;

	mutex_lock(&lf_devices_lock);
	list_for_each_entry(other, &lf_devices, node) {
		struct mapped_device *md = dm_table_get_md(other->ti->table);

		if (dm_disk(md)->part0 != dev->origin->bdev)
			continue;
		fits = other->overlay && !other->writable &&
		       lf_overlay_sealed(other->overlay) &&
		       other->ti->len == dev->ti->len &&
		       !memcmp(lf_overlay_uuid(other->overlay),
			       dev->image.super.origin, 16);
	}
	mutex_unlock(&lf_devices_lock);
	return fits;
}

/* A device that cannot have its overlay comes up all the same, and says so. */
static void activate_overlay(struct lf_device *dev)
{
	struct dm_target *ti = dev->ti;
	int err;

	dev->failed = dev->origin && !origin_fits(dev);
	if (dev->failed) {
		DMERR("%s: the origin does not show the sealed overlay %pUb: all I/O fails",
		      dm_table_device_name(ti->table), dev->image.super.origin);
		return;
	}
	err = lf_overlay_activate(dev);
	if (err == -EBUSY) {
		DMERR("%s: the overlay is active in another device: all I/O fails",
		      dm_table_device_name(ti->table));
		dev->failed = true;
	} else if (err) {
		DMERR("%s: the overlay is read-only: error %d",
		      dm_table_device_name(ti->table), err);
	}
}

static int lf_preresume(struct dm_target *ti)
{
	struct lf_device *dev = ti->private;
	unsigned int noio;

	deactivate(dev);
	if (dev->overlay)
		activate_overlay(dev);
	/* Our own allocations must not wait for the device to be resumed. */
	noio = memalloc_noio_save();
	lf_sysfs_add(dev);
	memalloc_noio_restore(noio);
	mutex_lock(&lf_devices_lock);
	list_add_tail(&dev->node, &lf_devices);
	mutex_unlock(&lf_devices_lock);
	lf_device_set_suspend(dev, false, false);
	lf_prefetch_resume(dev);
	return 0;
}

/*
 * ----------------------------------------------------------------
 * Status and messages
 * ----------------------------------------------------------------
 */

const char *lf_mode_name(struct lf_device *dev)
{
	struct lf_overlay_info info = lf_overlay_info(dev);

	if (dev->failed)
		return "fail";
	if (!dev->overlay)
		return "-";
	return dev->writable && info.mode == LF_MODE_RW ? "rw" : "ro";
}

static void status_info(struct lf_device *dev, char *result,
			unsigned int maxlen)
{
	struct lf_overlay_info info = lf_overlay_info(dev);
	static const enum lf_stat shown[] = {
		LF_READS, LF_READS_ZERO, LF_READS_MEMORY, LF_READS_FETCHED,
		LF_READS_FAILED, LF_FRAMES_BAD,
	};
	static const enum lf_stat written[] = {
		LF_WRITES, LF_COPY_UPS, LF_COMMITS, LF_READS_OVERLAY,
		LF_READS_ORIGIN, LF_READS_STORE,
	};
	unsigned int sz = 0, i;

	DMEMIT("%s %s %u %u %llu %lu %u",
	       lf_helper_attached() ? "attached" : "none",
	       dev->error_if_no_helper ? "error" : "queue",
	       dev->image.super.layers, lf_cache_frames(), lf_cache_used(),
	       lf_cache_limit(), READ_ONCE(dev->waiting));
	for (i = 0; i < ARRAY_SIZE(shown); i++)
		DMEMIT(" %llu", lf_stat_read(dev, shown[i]));
	DMEMIT(" %s %llu %llu", lf_mode_name(dev), info.dirty, info.zero);
	for (i = 0; i < ARRAY_SIZE(written); i++)
		DMEMIT(" %llu", lf_stat_read(dev, written[i]));
}

/* Only what differs from the defaults, in the order in which ctr takes it. */
static void status_table(struct lf_device *dev, char *result,
			 unsigned int maxlen)
{
	unsigned int no_helper = READ_ONCE(dev->no_helper_timeout);
	unsigned int fetch = READ_ONCE(dev->fetch_timeout);
	bool fetch_set = fetch != DEFAULT_FETCH_TIMEOUT;
	bool error = READ_ONCE(dev->error_if_no_helper);
	u32 around = READ_ONCE(dev->read_around);
	unsigned int features = error + dev->read_only + 2 * !!no_helper +
				2 * fetch_set + 2 * !!around +
				2 * !!dev->origin;
	unsigned int sz = 0;

	DMEMIT("%s %s %s", dev->meta->name,
	       dev->store_dev ? dev->store_dev->name : "-",
	       dev->cow ? dev->cow->name : "-");
	if (features)
		DMEMIT(" %u", features);
	if (error)
		DMEMIT(" error_if_no_helper");
	if (no_helper)
		DMEMIT(" no_helper_timeout %u", no_helper);
	if (fetch_set)
		DMEMIT(" fetch_timeout %u", fetch);
	if (around)
		DMEMIT(" read_around %u", around);
	if (dev->read_only)
		DMEMIT(" read_only");
	if (dev->origin)
		DMEMIT(" origin %s", dev->origin->name);
}

static void status_ima(struct lf_device *dev, char *result, unsigned int maxlen)
{
	const struct lf_super *super = &dev->image.super;
	unsigned int sz = 0;

	DMEMIT_TARGET_NAME_VERSION(dev->ti->type);
	DMEMIT(",meta_device_name=%s,image_uuid=%pUb,image_bytes=%llu",
	       dev->meta->name, super->uuid, super->image_bytes);
	DMEMIT(",generation=%llu,layers=%u", super->generation, super->layers);
	if (dev->cow)
		DMEMIT(",cow_device_name=%s,overlay_uuid=%pUb", dev->cow->name,
		       lf_overlay_uuid(dev->overlay));
	if (dev->origin)
		DMEMIT(",origin_device_name=%s", dev->origin->name);
	DMEMIT(",read_only=%c;", dev->writable ? 'n' : 'y');
}

static void lf_status(struct dm_target *ti, status_type_t type,
		      unsigned int flags, char *result, unsigned int maxlen)
{
	struct lf_device *dev = ti->private;

	switch (type) {
	case STATUSTYPE_INFO:
		status_info(dev, result, maxlen);
		break;
	case STATUSTYPE_TABLE:
		status_table(dev, result, maxlen);
		break;
	case STATUSTYPE_IMA:
		status_ima(dev, result, maxlen);
		break;
	}
}

static int lf_message(struct dm_target *ti, unsigned int argc, char **argv,
		      char *result, unsigned int maxlen)
{
	struct lf_device *dev = ti->private;
	int err = -EINVAL;

	if (argc == 1 && !strcasecmp(argv[0], "why"))
		return lf_device_why(dev, result, maxlen);
	if (argc == 2 && !strcasecmp(argv[0], "layers"))
		return lf_layers_message(dev, argv[1], result, maxlen);
	if (argc > 1 && !strcasecmp(argv[0], "record"))
		return lf_record_message(dev, argc, argv, result, maxlen);
	if (argc > 1 && !strcasecmp(argv[0], "prefetch"))
		return lf_prefetch_message(dev, argc, argv, result, maxlen);
	if (argc == 1 && !strcasecmp(argv[0], "error_if_no_helper")) {
		WRITE_ONCE(dev->error_if_no_helper, true);
		err = 0;
	} else if (argc == 1 && !strcasecmp(argv[0], "queue_if_no_helper")) {
		WRITE_ONCE(dev->error_if_no_helper, false);
		err = 0;
	} else if (argc == 2 && !strcasecmp(argv[0], "no_helper_timeout")) {
		err = parse_seconds(argv[1], &dev->no_helper_timeout);
	} else if (argc == 2 && !strcasecmp(argv[0], "fetch_timeout")) {
		err = parse_seconds(argv[1], &dev->fetch_timeout);
	} else if (argc == 2 && !strcasecmp(argv[0], "read_around")) {
		err = parse_around(argv[1], &dev->read_around);
	} else if (argc == 1 && dev->overlay && !strcasecmp(argv[0], "seal")) {
		return lf_overlay_seal(dev->overlay, true);
	} else if (argc == 1 && dev->overlay && !strcasecmp(argv[0], "unseal")) {
		return lf_overlay_seal(dev->overlay, false);
	} else if (argc == 1 && dev->overlay && !strcasecmp(argv[0], "commit")) {
		return lf_overlay_commit(dev->overlay);
	}
	if (err)
		DMERR("%s: unknown message or value: %s %s",
		      dm_table_device_name(ti->table), argv[0],
		      argc > 1 ? argv[1] : "");
	else
		lf_device_review(dev);
	return err;
}

/*
 * 512-byte sectors, so that partitioned images work; but a block is the
 * unit that layers map.
 */
static void lf_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	limits->physical_block_size = max_t(unsigned int, LF_META_BLOCK,
					    limits->physical_block_size);
	limits->io_min = max_t(unsigned int, LF_META_BLOCK, limits->io_min);
	if (!ti->num_discard_bios)
		return;
	/* The core takes write-zeroes back where a device below has none. */
	limits->discard_granularity = LF_META_BLOCK;
	limits->max_discard_sectors = MAX_ZEROING;
	limits->max_hw_discard_sectors = MAX_ZEROING;
	limits->max_write_zeroes_sectors = MAX_ZEROING;
}

static int lf_iterate_devices(struct dm_target *ti,
			      iterate_devices_callout_fn fn, void *data)
{
	struct lf_device *dev = ti->private;
	int ret = 0;

	if (dev->cow)
		ret = fn(ti, dev->cow, 0, ti->len, data);
	if (!ret && dev->origin)
		ret = fn(ti, dev->origin, 0, ti->len, data);
	return ret;
}

static struct target_type lf_target = {
	.name = "lazyframe",
	.version = { 0, 1, 0 },
	.module = THIS_MODULE,
	.ctr = lf_ctr,
	.dtr = lf_dtr,
	.map = lf_map,
	.end_io = lf_end_io,
	.presuspend = lf_presuspend,
	.presuspend_undo = lf_presuspend_undo,
	.postsuspend = lf_postsuspend,
	.preresume = lf_preresume,
	.status = lf_status,
	.message = lf_message,
	.io_hints = lf_io_hints,
	.iterate_devices = lf_iterate_devices,
};

static int __init lf_init(void)
{
	int err;

	lf_wq = alloc_workqueue("lazyframe", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!lf_wq)
		return -ENOMEM;
	err = lf_frames_init();
	if (err)
		goto out_wq;
	err = lf_stores_init();
	if (err)
		goto out_frames;
	err = lf_overlays_init();
	if (err)
		goto out_stores;
	err = lf_codec_init();
	if (err)
		goto out_overlays;
	err = lf_decoded_init();
	if (err)
		goto out_codec;
	err = lf_histograms_init();
	if (err)
		goto out_decoded;
	err = lf_channel_init();
	if (err)
		goto out_histograms;
	err = lf_store_target_init();
	if (err)
		goto out_channel;
	err = dm_register_target(&lf_target);
	if (err)
		goto out_store_target;
	return 0;

out_store_target:
	lf_store_target_exit();
out_channel:
	lf_channel_exit();
out_histograms:
	lf_histograms_exit();
out_decoded:
	lf_decoded_exit();
out_codec:
	lf_codec_exit();
out_overlays:
	lf_overlays_exit();
out_stores:
	lf_stores_exit();
out_frames:
	lf_frames_exit();
out_wq:
	destroy_workqueue(lf_wq);
	return err;
}

/* Devices and open files hold the module, so none is left. */
static void __exit lf_exit(void)
{
	dm_unregister_target(&lf_target);
	lf_store_target_exit();
	lf_channel_exit();
	/* Works that ended the last read may still be on their way out. */
	flush_workqueue(lf_wq);
	/* Frames hold stores. */
	lf_frames_exit();
	lf_histograms_exit();
	lf_decoded_exit();
	lf_stores_exit();
	lf_overlays_exit();
	lf_codec_exit();
	destroy_workqueue(lf_wq);
}

module_init(lf_init);
module_exit(lf_exit);

MODULE_DESCRIPTION("device-mapper lazily fetched, compressed images");
MODULE_VERSION("0.1.0");
MODULE_LICENSE("GPL");
MODULE_ALIAS("dm-lazyframe");

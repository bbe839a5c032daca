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

struct workqueue_struct *lf_wq;

static LIST_HEAD(lf_devices);
static DEFINE_MUTEX(lf_devices_lock);

/* Seconds. The default policy is patience: a helper that is gone delays reads. */
#define DEFAULT_FETCH_TIMEOUT	60
#define MAX_TIMEOUT		(24 * 60 * 60)

/* Bytes that one bio may ask for, however small the frames are. */
#define MIN_IO_LEN		(64 << 10)

/*
 * ----------------------------------------------------------------
 * Read-ahead: once a reader was sequential for a while, ask for windows of
 * frames before it needs them. Each window is posted at once and so travels
 * as one range. A reader that jumps sets off nothing.
 * ----------------------------------------------------------------
 */

#define STREAM_MIN_RUN		(256 << 10)
#define STREAM_FIRST_WINDOW	(512 << 10)
#define STREAM_MAX_WINDOW	(8 << 20)

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
		found = (struct lf_stream) { .table = table, .next = upos };
	/* Most recent first; a new one takes the place of the oldest. */
	memmove(stream + 1, stream,
		min(i, LF_STREAMS - 1) * sizeof(*stream));
	stream[0] = found;
	return stream;
}

/* A window may not drive out of the cache what the last one brought. */
static u64 window_limit(void)
{
	return min_t(u64, STREAM_MAX_WINDOW, lf_cache_limit() / 4);
}

static void stream_read(struct lf_device *dev, struct lf_io *io)
{
	struct lf_stream *stream;

	io->ahead_from = 0;
	io->ahead_to = 0;
	spin_lock(&dev->stream_lock);
	stream = __stream_find(dev, io->table, io->upos);
	stream->next = io->uend;
	stream->run += io->uend - io->upos;
	stream->ahead = max(stream->ahead, io->uend);
	if (stream->run >= STREAM_MIN_RUN &&
	    stream->ahead - io->uend <= stream->window / 2) {
		stream->window = stream->window ? stream->window * 4 :
						  STREAM_FIRST_WINDOW;
		stream->window = min(stream->window, window_limit());
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

static void io_end(struct lf_io *io, blk_status_t status, enum lf_stat kind)
{
	struct bio *bio = dm_bio_from_per_bio_data(io, sizeof(*io));
	struct lf_device *dev = io->dev;

	if (status != BLK_STS_DM_REQUEUE) {
		this_cpu_inc(dev->stats->count[LF_READS]);
		this_cpu_inc(dev->stats->count[kind]);
		if (!status)
			this_cpu_add(dev->stats->count[LF_READ_BYTES],
				     bio->bi_iter.bi_size);
	}
	bio->bi_status = status;
	/* Behind this line the device may be gone. */
	bio_endio(bio);
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
	io_end(io, io->status, LF_READS_FAILED);
}

static void io_finish(struct lf_io *io)
{
	struct bio *bio = dm_bio_from_per_bio_data(io, sizeof(*io));

	/* The image's last block is stored without its padding. */
	while (io->iter.bi_size) {
		struct bio_vec bv = bio_iter_iovec(bio, io->iter);

		memzero_bvec(&bv);
		bio_advance_iter_single(bio, &io->iter, bv.bv_len);
	}
	io_end(io, BLK_STS_OK, io->waited ? LF_READS_FETCHED : LF_READS_MEMORY);
}

/*
 * Copy what @frame has of this read. A frame that does not verify is forgotten
 * and fetched once more; the second time it is the read's error.
 */
static int io_copy(struct lf_io *io, struct lf_frame *frame)
{
	struct bio *bio = dm_bio_from_per_bio_data(io, sizeof(*io));
	u32 off = io->upos - frame->pos.ustart;
	u32 len = min_t(u64, frame->pos.ubytes - off, io->uend - io->upos);
	int err;

	err = lf_codec_read(frame, off, len, bio, &io->iter);
	if (!err) {
		io->upos += len;
		io->refetched = false;
		return 0;
	}
	if (lf_frame_drop(frame))
		this_cpu_inc(io->dev->stats->count[LF_FRAMES_BAD]);
	if (io->refetched)
		return err;
	io->refetched = true;
	return 0;
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

/* Shorten the bio so that it ends where what it asks for changes. */
static void cut(struct bio *bio, u64 bytes)
{
	u64 sectors = bytes >> SECTOR_SHIFT;

	if (sectors < bio_sectors(bio))
		dm_accept_partial_bio(bio, sectors);
}

/* @skip: bytes from the extent's start to the bio's */
static void io_start(struct lf_io *io, struct bio *bio,
		     const struct lf_disk_extent *extent, u64 skip)
{
	u64 left = le64_to_cpu(extent->length) - skip;

	cut(bio, round_up(left, SECTOR_SIZE));
	io->table = io->dev->image.table[le32_to_cpu(extent->layer)];
	io->upos = le64_to_cpu(extent->storage) + skip;
	io->uend = io->upos + min_t(u64, left, bio->bi_iter.bi_size);
	/* Only in the layer's last block can either be cut short. */
	io->uend = min(io->uend, io->table->layer->ubytes);
	io->upos = min(io->upos, io->uend);
	io->iter = bio->bi_iter;
	INIT_WORK(&io->work, io_work);
	stream_read(io->dev, io);
	queue_work(lf_wq, &io->work);
}

static int lf_map(struct dm_target *ti, struct bio *bio)
{
	struct lf_io *io = dm_per_bio_data(bio, sizeof(*io));
	struct lf_device *dev = ti->private;
	const struct lf_disk_extent *extent = dev->image.extent;
	u64 off = dm_target_offset(ti, bio->bi_iter.bi_sector) << SECTOR_SHIFT;
	u64 start = U64_MAX;
	u32 i;

	if (bio_op(bio) != REQ_OP_READ)
		return DM_MAPIO_KILL;

	memset(io, 0, sizeof(*io));
	io->dev = dev;
	i = lf_extents_find(extent, dev->image.super.extents, off);
	if (i < dev->image.super.extents)
		start = le64_to_cpu(extent[i].start);
	if (off < start) {
		cut(bio, start - off);
		zero_fill_bio(bio);
		io_end(io, BLK_STS_OK, LF_READS_ZERO);
		return DM_MAPIO_SUBMITTED;
	}
	io_start(io, bio, &extent[i], off - start);
	return DM_MAPIO_SUBMITTED;
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

static int parse_seconds(const char *arg, unsigned int *seconds)
{
	unsigned int value;

	if (kstrtouint(arg, 10, &value) || value > MAX_TIMEOUT)
		return -EINVAL;
	WRITE_ONCE(*seconds, value);
	return 0;
}

static int parse_features(struct lf_device *dev, struct dm_arg_set *as)
{
	static const struct dm_arg args[] = {
		{ 0, 6, "Invalid number of feature arguments" },
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
	if (strcmp(store, "-")) {
		ti->error = "This version has no store: give - as <store_dev>";
		return -EINVAL;
	}
	if (strcmp(cow, "-")) {
		ti->error = "This version has no overlay: give - as <cow_dev>";
		return -EINVAL;
	}
	if (dm_table_get_mode(ti->table) & LF_MODE_WRITE) {
		ti->error = "A device without <cow_dev> must be created read-only";
		return -EINVAL;
	}
	err = dm_get_device(ti, meta, dm_table_get_mode(ti->table), &dev->meta);
	if (err)
		ti->error = "Cannot open the meta device";
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
	if (!dev->image.max_frame)
		return 0;
	ti->error = "Cannot allocate memory for decoding";
	err = lf_codec_reserve(dev->image.max_frame);
	if (err)
		return err;
	ti->error = NULL;
	/* So that a bio seldom needs more than two frames. */
	return dm_set_target_max_io_len(ti, max_t(u32, MIN_IO_LEN,
						  dev->image.max_frame) >>
					SECTOR_SHIFT);
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
	INIT_LIST_HEAD(&dev->node);
	INIT_DELAYED_WORK(&dev->expire, expire_work);
	spin_lock_init(&dev->stream_lock);
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
		goto out_meta;
	if (as.argc) {
		ti->error = "Too many arguments";
		err = -EINVAL;
		goto out_meta;
	}
	err = load_image(dev);
	if (err)
		goto out_image;

	ti->num_flush_bios = 0;
	ti->num_discard_bios = 0;
	ti->per_io_data_size = sizeof(struct lf_io);
	return 0;

out_image:
	lf_meta_unload(&dev->image);
out_meta:
	dm_put_device(ti, dev->meta);
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
	lf_sysfs_remove(dev);
}

static void lf_dtr(struct dm_target *ti)
{
	struct lf_device *dev = ti->private;

	/* Resumed halfway: another target of the table refused to. */
	deactivate(dev);
	lf_meta_unload(&dev->image);
	dm_put_device(ti, dev->meta);
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

static int lf_preresume(struct dm_target *ti)
{
	struct lf_device *dev = ti->private;
	unsigned int noio;

	deactivate(dev);
	/* Our own allocations must not wait for the device to be resumed. */
	noio = memalloc_noio_save();
	lf_sysfs_add(dev);
	memalloc_noio_restore(noio);
	mutex_lock(&lf_devices_lock);
	list_add_tail(&dev->node, &lf_devices);
	mutex_unlock(&lf_devices_lock);
	lf_device_set_suspend(dev, false, false);
	return 0;
}

/*
 * ----------------------------------------------------------------
 * Status and messages
 * ----------------------------------------------------------------
 */

static void status_info(struct lf_device *dev, char *result,
			unsigned int maxlen)
{
	static const enum lf_stat shown[] = {
		LF_READS, LF_READS_ZERO, LF_READS_MEMORY, LF_READS_FETCHED,
		LF_READS_FAILED, LF_FRAMES_BAD,
	};
	unsigned int sz = 0, i;

	DMEMIT("%s %s %u %u %llu %lu %u",
	       lf_helper_attached() ? "attached" : "none",
	       dev->error_if_no_helper ? "error" : "queue",
	       dev->image.super.layers, lf_cache_frames(), lf_cache_used(),
	       lf_cache_limit(), READ_ONCE(dev->waiting));
	for (i = 0; i < ARRAY_SIZE(shown); i++)
		DMEMIT(" %llu", lf_stat_read(dev, shown[i]));
}

/* Only what differs from the defaults, in the order in which ctr takes it. */
static void status_table(struct lf_device *dev, char *result,
			 unsigned int maxlen)
{
	unsigned int no_helper = READ_ONCE(dev->no_helper_timeout);
	unsigned int fetch = READ_ONCE(dev->fetch_timeout);
	bool fetch_set = fetch != DEFAULT_FETCH_TIMEOUT;
	bool error = READ_ONCE(dev->error_if_no_helper);
	unsigned int features = error + dev->read_only + 2 * !!no_helper +
				2 * fetch_set;
	unsigned int sz = 0;

	DMEMIT("%s - -", dev->meta->name);
	if (features)
		DMEMIT(" %u", features);
	if (error)
		DMEMIT(" error_if_no_helper");
	if (no_helper)
		DMEMIT(" no_helper_timeout %u", no_helper);
	if (fetch_set)
		DMEMIT(" fetch_timeout %u", fetch);
	if (dev->read_only)
		DMEMIT(" read_only");
}

static void status_ima(struct lf_device *dev, char *result, unsigned int maxlen)
{
	const struct lf_super *super = &dev->image.super;
	unsigned int sz = 0;

	DMEMIT_TARGET_NAME_VERSION(dev->ti->type);
	DMEMIT(",meta_device_name=%s,image_uuid=%pUb,image_bytes=%llu",
	       dev->meta->name, super->uuid, super->image_bytes);
	DMEMIT(",generation=%llu,layers=%u,read_only=y;", super->generation,
	       super->layers);
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
	limits->physical_block_size = LF_META_BLOCK;
	limits->io_min = LF_META_BLOCK;
}

static struct target_type lf_target = {
	.name = "lazyframe",
	.version = { 0, 1, 0 },
	.module = THIS_MODULE,
	.ctr = lf_ctr,
	.dtr = lf_dtr,
	.map = lf_map,
	.presuspend = lf_presuspend,
	.presuspend_undo = lf_presuspend_undo,
	.postsuspend = lf_postsuspend,
	.preresume = lf_preresume,
	.status = lf_status,
	.message = lf_message,
	.io_hints = lf_io_hints,
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
	err = lf_codec_init();
	if (err)
		goto out_frames;
	err = lf_channel_init();
	if (err)
		goto out_codec;
	err = dm_register_target(&lf_target);
	if (err)
		goto out_channel;
	return 0;

out_channel:
	lf_channel_exit();
out_codec:
	lf_codec_exit();
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
	lf_channel_exit();
	/* Works that ended the last read may still be on their way out. */
	flush_workqueue(lf_wq);
	lf_frames_exit();
	lf_codec_exit();
	destroy_workqueue(lf_wq);
}

module_init(lf_init);
module_exit(lf_exit);

MODULE_DESCRIPTION("device-mapper lazily fetched, compressed images");
MODULE_VERSION("0.1.0");
MODULE_LICENSE("GPL");
MODULE_ALIAS("dm-lazyframe");

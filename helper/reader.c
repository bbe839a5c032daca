// SPDX-License-Identifier: GPL-2.0-only
#include "reader.h"

#include <stdlib.h>

#define KEPT		32U
#define KEPT_BYTES	(64U << 20)

/* @data: NULL in an empty slot; @used: when it was, as the reader counts */
struct kept {
	const struct image_layer *layer;
	u32 frame;
	u8 *data;
	u64 used;
};

struct image_reader {
	const struct image *image;
	struct kept kept[KEPT];
	u64 bytes;
	u64 clock;
};

int image_reader_new(const struct image *image, struct image_reader **reader,
		     struct error *e)
{
	*reader = calloc(1, sizeof(**reader));
	if (!*reader)
		return no_memory(e);
	(*reader)->image = image;
	return 0;
}

void image_reader_free(struct image_reader *reader)
{
	u32 i;

	if (!reader)
		return;
	for (i = 0; i < KEPT; i++)
		free(reader->kept[i].data);
	free(reader);
}

static u32 frame_bytes(const struct kept *kept)
{
	return kept->layer->frame[kept->frame].ubytes;
}

static void drop(struct image_reader *r, struct kept *kept)
{
	r->bytes -= frame_bytes(kept);
	free(kept->data);
	kept->data = NULL;
}

/* An empty slot, for a frame of @bytes. */
static struct kept *make_room(struct image_reader *r, u32 bytes)
{
	struct kept *oldest, *empty;
	u32 i;

	for (;;) {
		oldest = NULL;
		empty = NULL;
		for (i = 0; i < KEPT; i++) {
			struct kept *kept = &r->kept[i];

			if (!kept->data)
				empty = kept;
			else if (!oldest || kept->used < oldest->used)
				oldest = kept;
		}
		if (!oldest || (empty && r->bytes + bytes <= KEPT_BYTES))
			return empty;
		drop(r, oldest);
	}
}

static int get_frame(struct image_reader *r, const struct image_layer *layer,
		     u32 frame, const u8 **data, struct error *e)
{
	u32 bytes = layer->frame[frame].ubytes, i;
	struct kept *kept;
	u8 *buf;
	int err;

	for (i = 0; i < KEPT; i++) {
		kept = &r->kept[i];
		if (!kept->data || kept->layer != layer ||
		    kept->frame != frame)
			continue;
		kept->used = ++r->clock;
		*data = kept->data;
		return 0;
	}
	kept = make_room(r, bytes);
	buf = malloc(bytes);
	if (!buf)
		return error_set(e, -ENOMEM, "no memory for a frame");
	err = image_read_frame(layer, frame, buf, e);
	if (err) {
		free(buf);
		return err;
	}
	kept->layer = layer;
	kept->frame = frame;
	kept->data = buf;
	kept->used = ++r->clock;
	r->bytes += bytes;
	*data = buf;
	return 0;
}

/* The last extent that begins at or before @off, NULL: none does. */
static const struct image_extent *find_extent(const struct image *image,
					      u64 off)
{
	u32 low = 0, high = image->extents;

	while (low < high) {
		u32 mid = low + (high - low) / 2;

		if (image->extent[mid].start <= off)
			low = mid + 1;
		else
			high = mid;
	}
	return high ? &image->extent[high - 1] : NULL;
}

static int find_frame(const struct image_layer *layer, u64 off, u32 *frame,
		      struct error *e)
{
	u32 low = 0, high = layer->frames;

	while (low < high) {
		u32 mid = low + (high - low) / 2;

		if (layer->frame[mid].ustart <= off)
			low = mid + 1;
		else
			high = mid;
	}
	if (!high || off - layer->frame[high - 1].ustart >=
		     layer->frame[high - 1].ubytes)
		return error_set(e, -EBADMSG,
				 "%s: U offset %llu is mapped, but in no frame",
				 layer->locator, (unsigned long long)off);
	*frame = high - 1;
	return 0;
}

int image_peek(struct image_reader *r, u64 off, const u8 **data, u64 *bytes,
	       struct error *e)
{
	const struct image *image = r->image;
	const struct image_extent *x = find_extent(image, off);
	const struct image_layer *layer;
	const struct lf_frame_pos *pos;
	u64 end, at;
	u32 frame;
	int err;

	*data = NULL;
	if (off >= image->bytes)
		return error_set(e, -EINVAL,
				 "image offset %llu is behind the image's end",
				 (unsigned long long)off);
	if (!x || off - x->start >= x->length) {
		const struct image_extent *next = x ? x + 1 : image->extent;

		end = next < image->extent + image->extents ? next->start :
							       image->bytes;
		*bytes = end - off;
		return 0;
	}
	layer = &image->layer[x->layer];
	at = x->storage + (off - x->start);
	*bytes = x->start + x->length - off;
	if (at >= layer->ubytes)
		return 0;
	err = find_frame(layer, at, &frame, e);
	if (!err)
		err = get_frame(r, layer, frame, data, e);
	if (err)
		return err;
	pos = &layer->frame[frame];
	*data += at - pos->ustart;
	end = pos->ustart + pos->ubytes;
	if (*bytes > end - at)
		*bytes = end - at;
	return 0;
}

int image_read(struct image_reader *r, u64 off, void *buf, size_t len,
	       struct error *e)
{
	const u8 *data;
	u8 *to = buf;
	u64 n;
	int err;

	while (len) {
		err = image_peek(r, off, &data, &n, e);
		if (err)
			return err;
		if (n > len)
			n = len;
		if (data)
			memcpy(to, data, n);
		else
			memset(to, 0, n);
		to += n;
		off += n;
		len -= n;
	}
	return 0;
}

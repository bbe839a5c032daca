// SPDX-License-Identifier: GPL-2.0-only
/*
 * lazyframe flatten: an image of many layers becomes one of few. Frames that
 * the image maps whole are copied as they are, what lies between them is
 * encoded anew.
 */
#include <getopt.h>
#include <linux/lazyframe.h>
#include <stdio.h>
#include <stdlib.h>

#include "cmd.h"
#include "mapping.h"
#include "newlayer.h"
#include "reader.h"
#include "units.h"
#include "uuid.h"

#define BLOCK	LF_META_BLOCK
/* What shrank more than this may be zeros: worth a look. */
#define ZEROS_RATIO	64

enum { EXIT_USAGE = 2 };

/**
 * struct flatten - one run
 * @list: the image's mappings
 * @mapped: bytes that are mapped, of each of its layers
 * @keep: layers that stay as they are
 * @copy_min: U size of the smallest frame to be copied
 */
struct flatten {
	struct newlayer layer;
	const char *url;
	u64 layers;
	struct image *image;
	struct image_reader *reader;
	struct mapping_list list;
	u64 *mapped;
	bool *keep;
	char *name;

	u32 copy_min;
	struct newlayer_change *change;
	size_t room;
};

static int compare_uuids(const void *a, const void *b)
{
	const struct image_layer *x = a, *y = b;

	return memcmp(x->uuid, y->uuid, sizeof(x->uuid));
}

static u32 layer_index(const struct image *image, const u8 uuid[16])
{
	struct image_layer key = { }, *layer;

	memcpy(key.uuid, uuid, sizeof(key.uuid));
	layer = bsearch(&key, image->layer, image->layers, sizeof(*layer),
			compare_uuids);
	return layer - image->layer;
}

static u64 min_u64(u64 a, u64 b)
{
	return a < b ? a : b;
}

static int count_mapped(struct flatten *f, struct error *e)
{
	struct image *image = f->image;
	u32 i;
	int err;

	f->mapped = calloc(image->layers + 1UL, sizeof(*f->mapped));
	f->keep = calloc(image->layers + 1UL, sizeof(*f->keep));
	if (!f->mapped || !f->keep)
		return no_memory(e);
	err = mapping_of_image(image, &f->list, e);
	for (i = 0; !err && i < f->list.count; i++) {
		const struct header_mapping *m = &f->list.mapping[i];

		if (!uuid_is_nil(m->uuid))
			f->mapped[layer_index(image, m->uuid)] += m->length;
	}
	return err;
}

/* Of those that do not stay already; the count of layers if there is none. */
static u32 most_mapped(const struct flatten *f)
{
	u32 i, best = f->image->layers;

	for (i = 0; i < f->image->layers; i++)
		if (!f->keep[i] && (best == f->image->layers ||
				    f->mapped[i] > f->mapped[best]))
			best = i;
	return best;
}

static void choose_kept(struct flatten *f)
{
	u32 i, best, left = f->image->layers;
	u64 keep = f->layers - 1;

	/* One layer instead of one layer would be work for nothing. */
	if (keep && left <= f->layers)
		keep = left;
	for (; keep && left; keep--, left--) {
		best = most_mapped(f);
		f->keep[best] = true;
	}
	best = most_mapped(f);
	if (f->layer.codec)
		return;
	f->layer.codec = codec_by_name("zstd");
	for (i = 0; i < f->image->layers; i++)
		if (i == best)
			f->layer.codec = codec_by_id(f->image->layer[i].codec);
}

static int add_change(struct flatten *f, const struct newlayer_change *c,
		      struct error *e)
{
	struct newlayer *n = &f->layer;
	struct newlayer_change *change = f->change;

	if (!c->length)
		return 0;
	if (n->changes == f->room) {
		size_t room = f->room ? 2 * f->room : 64;

		change = reallocarray(change, room, sizeof(*change));
		if (!change)
			return no_memory(e);
		f->change = change;
		f->room = room;
	}
	change[n->changes++] = *c;
	n->change = change;
	return 0;
}

static bool all_zero(const u8 *p, size_t bytes)
{
	return !*p && !memcmp(p, p + 1, bytes - 1);
}

/* A whole frame of zeros need not be stored, if it has its blocks alone. */
static int judge_frame(const struct flatten *f, struct newlayer_change *c,
		       struct error *e)
{
	const struct lf_frame_pos *pos = &c->layer->frame[c->frame];
	u64 end = c->start + c->length;
	u8 *data;
	int err;

	if (pos->ubytes / ZEROS_RATIO < pos->cbytes || c->start % BLOCK ||
	    (end % BLOCK && end != f->image->bytes))
		return 0;
	data = malloc(pos->ubytes);
	if (!data)
		return error_set(e, -ENOMEM, "no memory for a frame");
	err = image_read_frame(c->layer, c->frame, data, e);
	if (!err && all_zero(data, pos->ubytes))
		c->kind = NEWLAYER_ZERO;
	free(data);
	return err;
}

/* One mapping of a layer that does not stay: frames, and what is between. */
static int plan_mapping(struct flatten *f, const struct header_mapping *m,
			const struct image_layer *layer, struct error *e)
{
	u64 end = min_u64(m->start + m->length, f->image->bytes);
	u64 at = m->start, held = m->storage + (end - m->start);
	struct newlayer_change c;
	u32 low = 0, high = layer->frames;
	int err = 0;

	/* The first frame that begins in the mapping */
	while (low < high) {
		u32 mid = low + (high - low) / 2;

		if (layer->frame[mid].ustart < m->storage)
			low = mid + 1;
		else
			high = mid;
	}
	if (layer->codec == LAZYFRAME_CODEC_NONE ||
	    layer->codec != f->layer.codec->id)
		low = layer->frames;
	for (; !err && low < layer->frames; low++) {
		const struct lf_frame_pos *pos = &layer->frame[low];

		if (pos->ustart + pos->ubytes > held)
			break;
		if (pos->ubytes < f->copy_min)
			continue;
		c = (struct newlayer_change){
			.start = m->start + (pos->ustart - m->storage),
			.length = pos->ubytes,
			.kind = NEWLAYER_FRAME,
			.frame = low,
			.layer = layer,
		};
		err = judge_frame(f, &c, e);
		if (!err && at < c.start)
			err = add_change(f, &(struct newlayer_change){
				.start = at,
				.length = c.start - at,
				.kind = NEWLAYER_DATA }, e);
		if (!err)
			err = add_change(f, &c, e);
		at = c.start + c.length;
	}
	return err ? err : add_change(f, &(struct newlayer_change){
		.start = at,
		.length = end - at,
		.kind = NEWLAYER_DATA }, e);
}

static int plan(struct flatten *f, struct error *e)
{
	u32 i;
	int err = 0;

	f->layer.changes = 0;
	for (i = 0; !err && i < f->list.count; i++) {
		const struct header_mapping *m = &f->list.mapping[i];
		u32 layer;

		if (uuid_is_nil(m->uuid))
			continue;
		layer = layer_index(f->image, m->uuid);
		if (!f->keep[layer])
			err = plan_mapping(f, m, &f->image->layer[layer], e);
	}
	return err;
}

/* Small frames of many layers may be too many for one: encode those anew. */
static int plan_frames(struct flatten *f, struct error *e)
{
	int err;

	for (f->copy_min = 0;; f->copy_min = f->copy_min ? 2 * f->copy_min :
							 f->layer.frame_bytes) {
		err = plan(f, e);
		if (err || f->copy_min > LAZYFRAME_MAX_FRAME ||
		    newlayer_frames(&f->layer, f->layer.frame_bytes) <=
		    LF_MAX_FRAMES)
			return err;
	}
}

/* Of a data object: the last part of its URL, without the codec's suffix. */
static int name_object(struct flatten *f, struct error *e)
{
	const char *slash = strrchr(f->url, '/');
	const struct codec *codec;
	size_t len, suffix;

	if (f->layer.name || f->image->header_version)
		return 0;
	if (!slash || !slash[1] || strpbrk(slash, "%?#"))
		return error_set(e, -EINVAL,
				 "%s: give the new objects a --name", f->url);
	codec = codec_by_id(f->image->layer[0].codec);
	len = strlen(++slash);
	suffix = strlen(codec->suffix);
	if (len > suffix && !strcmp(slash + len - suffix, codec->suffix))
		len -= suffix;
	f->name = strndup(slash, len);
	f->layer.name = f->name;
	return f->name ? 0 : no_memory(e);
}

static int read_image(void *arg, u64 off, void *buf, size_t len,
		      struct error *e)
{
	struct flatten *f = arg;

	return image_read(f->reader, off, buf, len, e);
}

static void usage(FILE *out)
{
	fputs("Usage: lazyframe flatten [OPTION]... URL DIRECTORY-URL\n"
	      "\n"
	      "Store the image at URL anew, in one layer, below DIRECTORY-URL\n"
	      "(file:///directory), and print the URL of the new header.\n"
	      "\n"
	      "  -L, --layers N             in up to N layers: the N-1 that hold most of the\n"
	      "                             image stay as they are\n"
	      NEWLAYER_HELP
	      "  -n, --name NAME            of the objects, default as they are\n"
	      "  -h, --help\n"
	      "\n"
	      "The default codec is that of most of the image. Frames of that codec are\n"
	      "copied as they are where the image maps all of them.\n", out);
}

/* Return: 0, 1 for --help, or -EINVAL. */
static int parse_options(struct flatten *f, int argc, char **argv,
			 const char **level, struct error *e)
{
	static const struct option options[] = {
		NEWLAYER_OPTIONS,
		{ "layers", required_argument, NULL, 'L' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	int c, err;

	while ((c = getopt_long(argc, argv, NEWLAYER_SHORT_OPTIONS "L:",
				options, NULL)) != -1) {
		err = newlayer_option(&f->layer, c, optarg, level, e);
		if (err < 0)
			return err;
		if (!err)
			continue;
		if (c == 'h')
			return 1;
		if (c != 'L')
			return error_set(e, -EINVAL,
					 "see lazyframe flatten --help");
		if (!units_parse(optarg, &f->layers) || !f->layers ||
		    f->layers > LF_MAX_LAYERS)
			return error_set(e, -EINVAL,
					 "layers %s: not a number from 1 to %u",
					 optarg, LF_MAX_LAYERS);
	}
	if (argc - optind != 2)
		return error_set(e, -EINVAL,
				 "wants two URLs; see lazyframe flatten --help");
	f->url = argv[optind];
	f->layer.url = argv[optind + 1];
	/* Now, so that wrong use costs nothing; again when the codec is known. */
	if (f->layer.codec || f->layer.name) {
		struct newlayer copy = f->layer;

		return newlayer_options_done(&copy, codec_by_name("zstd"),
					     copy.codec ? *level : NULL, e);
	}
	return 0;
}

static int flatten(struct flatten *f, const char *level,
		   struct newlayer_result *result, struct error *e)
{
	struct newlayer *n = &f->layer;
	int err;

	err = image_open(f->url, &f->image, e);
	if (err)
		return err;
	n->what = "flatten";
	n->parent = f->image;
	n->parent_url = f->url;
	n->bytes = f->image->bytes;
	n->read = read_image;
	n->arg = f;
	err = image_reader_new(f->image, &f->reader, e);
	if (!err)
		err = name_object(f, e);
	if (!err)
		err = count_mapped(f, e);
	if (err)
		return err;
	choose_kept(f);
	err = newlayer_options_done(n, n->codec, level, e);
	if (!err)
		err = plan_frames(f, e);
	return err ? err : newlayer_write(n, result, e);
}

int cmd_flatten(int argc, char **argv)
{
	struct newlayer_result result = { };
	struct flatten f = { .layers = 1 };
	const char *level = NULL;
	struct error e;
	int err;

	newlayer_defaults(&f.layer);
	err = parse_options(&f, argc, argv, &level, &e);
	if (err == 1) {
		usage(stdout);
		return 0;
	}
	if (err) {
		fprintf(stderr, "lazyframe flatten: %s\n", e.text);
		return EXIT_USAGE;
	}

	err = flatten(&f, level, &result, &e);
	if (err) {
		fprintf(stderr, "lazyframe flatten: %s\n", e.text);
	} else {
		if (!f.layer.quiet)
			fprintf(stderr, "frames  %u copied as they are, %u encoded anew\n",
				result.copied, result.frames - result.copied);
		newlayer_report(&f.layer, &result);
	}
	newlayer_result_free(&result);
	image_reader_free(f.reader);
	image_free(f.image);
	mapping_free(&f.list);
	free(f.mapped);
	free(f.keep);
	free(f.name);
	free(f.change);
	return err ? 1 : 0;
}

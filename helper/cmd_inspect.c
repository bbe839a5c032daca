// SPDX-License-Identifier: GPL-2.0-only
/*
 * lazyframe inspect: what an image consists of, for people and as JSON.
 */
#include <getopt.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cmd.h"
#include "codec.h"
#include "image.h"
#include "sha256.h"
#include "units.h"
#include "uuid.h"

#define COLUMNS	64U
#define ROWS	16U

enum { EXIT_USAGE = 2 };

struct options {
	bool json;
	bool mappings;
	bool frames;
};

/* Sizes of a layer's frames; all 0 where there are none. */
struct stats {
	u64 ubytes;
	u64 cbytes;
	u32 usmallest;
	u32 ulargest;
	u32 csmallest;
	u32 clargest;
};

/**
 * struct piece - a mapping, or what lies between two: zeros
 * @layer: NULL for zeros
 */
struct piece {
	u64 start;
	u64 length;
	u64 storage;
	const struct image_layer *layer;
};

/* A cell of the matrix with a ratio below @below looks like this. */
static const struct {
	double below;
	char letter;
	const char *colour;
} shades[] = {
	{ 1.5, '1', "\033[31m" },
	{ 2.5, '2', "\033[33m" },
	{ 4, '3', "" },
	{ 8, '4', "\033[32m" },
	{ 50, '5', "\033[36m" },
	{ 1e300, '6', "\033[34m" },
};

static void get_stats(const struct image_layer *layer, struct stats *s)
{
	u32 i;

	memset(s, 0, sizeof(*s));
	for (i = 0; i < layer->frames; i++) {
		const struct lf_frame_pos *f = &layer->frame[i];

		s->ubytes += f->ubytes;
		s->cbytes += f->cbytes;
		if (!i || f->ubytes < s->usmallest)
			s->usmallest = f->ubytes;
		if (!i || f->cbytes < s->csmallest)
			s->csmallest = f->cbytes;
		if (f->ubytes > s->ulargest)
			s->ulargest = f->ubytes;
		if (f->cbytes > s->clargest)
			s->clargest = f->cbytes;
	}
}

static double ratio(u64 ubytes, u64 cbytes)
{
	return cbytes ? (double)ubytes / cbytes : 1;
}

/*
 * The image piece by piece. @index: 0 at first, then what the last call left;
 * @off: likewise.
 */
static bool next_piece(const struct image *image, u32 *index, u64 *off,
		       struct piece *piece)
{
	const struct image_extent *x = &image->extent[*index];
	bool more = *index < image->extents;

	if (*off >= image->bytes)
		return false;
	piece->start = *off;
	if (more && x->start == *off) {
		piece->length = x->length;
		piece->storage = x->storage;
		piece->layer = &image->layer[x->layer];
		++*index;
	} else {
		piece->length = (more ? x->start : image->bytes) - *off;
		piece->storage = 0;
		piece->layer = NULL;
	}
	*off += piece->length;
	return true;
}

static u64 mapped_bytes(const struct image *image, u32 layer)
{
	u64 bytes = 0;
	u32 i;

	for (i = 0; i < image->extents; i++)
		if (image->extent[i].layer == layer)
			bytes += image->extent[i].length;
	return bytes;
}

static void count_pieces(const struct image *image, u64 *pieces, u64 *zeros,
			 u64 *zero_bytes)
{
	struct piece piece;
	u32 index = 0;
	u64 off = 0;

	*pieces = *zeros = *zero_bytes = 0;
	while (next_piece(image, &index, &off, &piece)) {
		++*pieces;
		if (piece.layer)
			continue;
		++*zeros;
		*zero_bytes += piece.length;
	}
}

static void print_matrix(const struct image_layer *layer)
{
	const char *no = getenv("NO_COLOR");
	bool colour = isatty(STDOUT_FILENO) && !(no && *no);
	u32 cells = COLUMNS * ROWS, group, i, cell = 0;
	const char *last = "";
	size_t s;

	group = layer->frames / cells + !!(layer->frames % cells);
	if (group == 1)
		puts("  ratio of each frame:");
	else
		printf("  ratio of each %u frames:\n", group);
	for (i = 0; i < layer->frames; cell++) {
		u64 ubytes = 0, cbytes = 0;
		u32 n;

		for (n = 0; n < group && i < layer->frames; n++, i++) {
			ubytes += layer->frame[i].ubytes;
			cbytes += layer->frame[i].cbytes;
		}
		for (s = 0; ratio(ubytes, cbytes) >= shades[s].below; s++)
			;
		if (cell % COLUMNS == 0) {
			if (cell)
				puts(*last ? "\033[0m" : "");
			fputs("    ", stdout);
			last = "";
		}
		if (colour && shades[s].colour != last) {
			if (*last)
				fputs("\033[0m", stdout);
			last = shades[s].colour;
			fputs(last, stdout);
		}
		putchar(shades[s].letter);
	}
	puts(*last ? "\033[0m" : "");
	puts("    1: < 1.5, 2: < 2.5, 3: < 4, 4: < 8, 5: < 50, 6: more");
}

static void print_layer(const struct image *image, u32 index,
			const struct options *opt)
{
	const struct image_layer *layer = &image->layer[index];
	char uuid[UUID_TEXT], hex[SHA256_TEXT];
	char a[UNITS_TEXT], b[UNITS_TEXT], c[UNITS_TEXT];
	struct stats s;
	u32 i;

	get_stats(layer, &s);
	uuid_text(layer->uuid, uuid);
	printf("\nlayer %u: %s\n", index, uuid);
	printf("  object      %s\n", layer->locator);
	printf("  validator   %s\n", *layer->validator ? layer->validator :
						       "none");
	printf("  codec       %s\n", codec_by_id(layer->codec)->name);
	printf("  size        %s (%llu bytes) stored as %s (%llu bytes)\n",
	       units_text(layer->ubytes, a), (unsigned long long)layer->ubytes,
	       units_text(layer->cbytes, b),
	       (unsigned long long)layer->cbytes);
	printf("  mapped      %s\n", units_text(mapped_bytes(image, index), a));
	if (layer->has_sha256)
		sha256_text(layer->sha256, hex);
	printf("  SHA-256     %s\n", layer->has_sha256 ? hex : "unknown");
	printf("  checksums   %s\n",
	       layer->sums ? "in the seek table and in the frames" :
	       layer->codec ? "in the frames, if at all" : "none");
	printf("  frames      %u, ratio %.2f\n", layer->frames,
	       ratio(s.ubytes, s.cbytes));
	if (!layer->frames)
		return;
	printf("    content   average %s, smallest %s, largest %s\n",
	       units_text(s.ubytes / layer->frames, a),
	       units_text(s.usmallest, b), units_text(s.ulargest, c));
	printf("    stored    average %s, smallest %s, largest %s\n",
	       units_text(s.cbytes / layer->frames, a),
	       units_text(s.csmallest, b), units_text(s.clargest, c));
	if (layer->codec)
		print_matrix(layer);
	if (!opt->frames)
		return;
	printf("  %8s  %14s  %10s  %14s  %10s  %6s  %s\n", "frame", "U offset",
	       "U bytes", "C offset", "C bytes", "ratio", "checksum");
	for (i = 0; i < layer->frames; i++) {
		const struct lf_frame_pos *f = &layer->frame[i];

		printf("  %8u  %14llu  %10u  %14llu  %10u  %6.2f  ", i,
		       (unsigned long long)f->ustart, f->ubytes,
		       (unsigned long long)f->cstart, f->cbytes,
		       ratio(f->ubytes, f->cbytes));
		if (f->has_sum)
			printf("%08x\n", f->sum);
		else
			puts("-");
	}
}

static void print_image(const char *url, const struct image *image,
			const struct options *opt)
{
	char uuid[UUID_TEXT], base[UUID_TEXT], text[UNITS_TEXT];
	u64 pieces, zeros, zero_bytes, off = 0;
	struct piece piece;
	u32 i, index = 0;

	uuid_text(image->uuid, uuid);
	uuid_text(image->base_uuid, base);
	printf("image         %s\n", url);
	if (image->header_version)
		printf("header        version %llu, SHA-256 %s\n",
		       (unsigned long long)image->header_version,
		       image->sha256);
	else
		puts("header        none: a single data object");
	printf("UUID          %s\n", uuid);
	printf("base          %s, generation %llu\n", base,
	       (unsigned long long)image->generation);
	printf("size          %s (%llu bytes)\n",
	       units_text(image->bytes, text),
	       (unsigned long long)image->bytes);
	printf("block size    %s\n", units_text(image->block_size, text));
	count_pieces(image, &pieces, &zeros, &zero_bytes);
	printf("mappings      %llu, %llu of them zero with %s (%llu bytes)\n",
	       (unsigned long long)pieces, (unsigned long long)zeros,
	       units_text(zero_bytes, text), (unsigned long long)zero_bytes);
	printf("layers        %u\n", image->layers);

	for (i = 0; i < image->layers; i++)
		print_layer(image, i, opt);
	if (!opt->mappings)
		return;

	printf("\n  %14s  %14s  %14s  %s\n", "start", "bytes", "U offset",
	       "layer");
	while (next_piece(image, &index, &off, &piece)) {
		printf("  %14llu  %14llu  ", (unsigned long long)piece.start,
		       (unsigned long long)piece.length);
		if (piece.layer)
			printf("%14llu  %u\n",
			       (unsigned long long)piece.storage,
			       (unsigned int)(piece.layer - image->layer));
		else
			printf("%14s  zero\n", "-");
	}
}

static void add_number(struct json_object *o, const char *key, u64 n)
{
	json_object_object_add(o, key, json_object_new_uint64(n));
}

static void add_text(struct json_object *o, const char *key, const char *text)
{
	json_object_object_add(o, key, json_object_new_string(text));
}

/* json-c would print a double with all its 17 digits. */
static void add_ratio(struct json_object *o, const char *key, double value)
{
	char text[32];

	snprintf(text, sizeof(text), "%.4f", value);
	json_object_object_add(o, key, json_object_new_double_s(value, text));
}

static struct json_object *json_spread(u64 total, u32 n, u32 smallest,
				       u32 largest)
{
	struct json_object *o = json_object_new_object();

	add_number(o, "total", total);
	add_number(o, "average", n ? total / n : 0);
	add_number(o, "smallest", smallest);
	add_number(o, "largest", largest);
	return o;
}

static struct json_object *json_frames(const struct image_layer *layer)
{
	struct json_object *list = json_object_new_array();
	u32 i;

	for (i = 0; i < layer->frames; i++) {
		const struct lf_frame_pos *f = &layer->frame[i];
		struct json_object *o = json_object_new_object();
		char sum[9];

		add_number(o, "uncompressed_offset", f->ustart);
		add_number(o, "uncompressed_size", f->ubytes);
		add_number(o, "offset", f->cstart);
		add_number(o, "size", f->cbytes);
		snprintf(sum, sizeof(sum), "%08x", f->sum);
		json_object_object_add(o, "checksum", f->has_sum ?
				       json_object_new_string(sum) : NULL);
		json_object_array_add(list, o);
	}
	return list;
}

static struct json_object *json_layer(const struct image *image, u32 index,
				      const struct options *opt)
{
	const struct image_layer *layer = &image->layer[index];
	struct json_object *o = json_object_new_object();
	struct json_object *frames = json_object_new_object();
	char uuid[UUID_TEXT], hex[SHA256_TEXT];
	struct stats s;

	get_stats(layer, &s);
	uuid_text(layer->uuid, uuid);
	sha256_text(layer->sha256, hex);
	add_text(o, "uuid", uuid);
	add_text(o, "url", layer->locator);
	json_object_object_add(o, "validator", *layer->validator ?
			       json_object_new_string(layer->validator) :
			       NULL);
	add_text(o, "codec", codec_by_id(layer->codec)->name);
	add_number(o, "uncompressed_size", layer->ubytes);
	add_number(o, "size", layer->cbytes);
	add_number(o, "mapped_bytes", mapped_bytes(image, index));
	json_object_object_add(o, "sha256", layer->has_sha256 ?
			       json_object_new_string(hex) : NULL);
	json_object_object_add(o, "table_checksums",
			       json_object_new_boolean(layer->sums));

	add_number(frames, "count", layer->frames);
	json_object_object_add(frames, "uncompressed",
			       json_spread(s.ubytes, layer->frames,
					   s.usmallest, s.ulargest));
	json_object_object_add(frames, "stored",
			       json_spread(s.cbytes, layer->frames,
					   s.csmallest, s.clargest));
	add_ratio(frames, "ratio", ratio(s.ubytes, s.cbytes));
	if (opt->frames)
		json_object_object_add(frames, "list", json_frames(layer));
	json_object_object_add(o, "frames", frames);
	return o;
}

static struct json_object *json_mappings(const struct image *image)
{
	struct json_object *list = json_object_new_array();
	struct piece piece;
	u32 index = 0;
	u64 off = 0;

	while (next_piece(image, &index, &off, &piece)) {
		struct json_object *o = json_object_new_object();

		add_number(o, "start", piece.start);
		add_number(o, "length", piece.length);
		if (piece.layer) {
			add_number(o, "layer", piece.layer - image->layer);
			add_number(o, "uncompressed_offset", piece.storage);
		} else {
			json_object_object_add(o, "layer", NULL);
		}
		json_object_array_add(list, o);
	}
	return list;
}

static int print_json(const char *url, const struct image *image,
		      const struct options *opt)
{
	struct json_object *o = json_object_new_object();
	struct json_object *layers = json_object_new_array();
	struct json_object *mappings = json_object_new_object();
	char uuid[UUID_TEXT], base[UUID_TEXT];
	u64 pieces, zeros, zero_bytes;
	const char *text;
	u32 i;

	uuid_text(image->uuid, uuid);
	uuid_text(image->base_uuid, base);
	add_text(o, "url", url);
	add_number(o, "header_version", image->header_version);
	if (image->sha256[0])
		add_text(o, "sha256", image->sha256);
	add_text(o, "uuid", uuid);
	add_text(o, "base_uuid", base);
	add_number(o, "generation", image->generation);
	add_number(o, "size", image->bytes);
	add_number(o, "block_size", image->block_size);

	count_pieces(image, &pieces, &zeros, &zero_bytes);
	add_number(mappings, "count", pieces);
	add_number(mappings, "zero_count", zeros);
	add_number(mappings, "zero_bytes", zero_bytes);
	if (opt->mappings)
		json_object_object_add(mappings, "list",
				       json_mappings(image));
	json_object_object_add(o, "mappings", mappings);

	for (i = 0; i < image->layers; i++)
		json_object_array_add(layers, json_layer(image, i, opt));
	json_object_object_add(o, "layers", layers);

	text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY |
					      JSON_C_TO_STRING_SPACED |
					      JSON_C_TO_STRING_NOSLASHESCAPE);
	if (text)
		puts(text);
	else
		fputs("lazyframe inspect: out of memory\n", stderr);
	json_object_put(o);
	return text ? 0 : 1;
}

static void usage(FILE *out)
{
	fputs("Usage: lazyframe inspect [OPTION]... URL\n"
	      "\n"
	      "Show what the image at URL (a header or a single data object) consists of.\n"
	      "\n"
	      "  -j, --json      as JSON\n"
	      "  -m, --mappings  list all mappings\n"
	      "  -f, --frames    list all frames\n"
	      "  -h, --help\n", out);
}

int cmd_inspect(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "mappings", no_argument, NULL, 'm' },
		{ "frames", no_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct options opt = { };
	struct image *image;
	const char *url;
	struct error e;
	int c, ret = 0;

	while ((c = getopt_long(argc, argv, "jmfh", options, NULL)) != -1) {
		switch (c) {
		case 'j':
			opt.json = true;
			break;
		case 'm':
			opt.mappings = true;
			break;
		case 'f':
			opt.frames = true;
			break;
		case 'h':
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return EXIT_USAGE;
		}
	}
	if (argc - optind != 1) {
		usage(stderr);
		return EXIT_USAGE;
	}
	url = argv[optind];

	if (image_open(url, &image, &e)) {
		fprintf(stderr, "lazyframe inspect: %s\n", e.text);
		return 1;
	}
	if (opt.json)
		ret = print_json(url, image, &opt);
	else
		print_image(url, image, &opt);
	image_free(image);
	return ret;
}

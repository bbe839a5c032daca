// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the commands that write layers have in common on their command line.
 */
#include <errno.h>
#include <linux/lazyframe.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "newlayer.h"
#include "units.h"

#define FRAME_DEFAULT	(128U << 10)
#define MAX_THREADS	256U
#define MAX_NAME	200		/* with suffixes it is a file name */

void newlayer_defaults(struct newlayer *n)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	memset(n, 0, sizeof(*n));
	n->frame_bytes = FRAME_DEFAULT;
	n->threads = cpus < 1 ? 1 : cpus > 64 ? 64 : cpus;
}

static bool number(const char *text, long min, long max, long *n)
{
	char *end;

	errno = 0;
	*n = strtol(text, &end, 10);
	return !errno && end != text && !*end && *n >= min && *n <= max;
}

int newlayer_option(struct newlayer *n, int c, const char *text,
		    const char **level, struct error *e)
{
	long count;
	u64 size;

	switch (c) {
	case 'c':
		n->codec = codec_by_name(text);
		if (!n->codec)
			return error_set(e, -EINVAL,
					 "codec %s: unknown; known are zstd, lz4 and none",
					 text);
		break;
	case 'l':
		*level = text;
		break;
	case 'f':
		if (!units_parse(text, &size) || size < LF_META_BLOCK ||
		    size > LAZYFRAME_MAX_FRAME || size % LF_META_BLOCK)
			return error_set(e, -EINVAL,
					 "frame size %s: not a multiple of 4K between 4K and 16M",
					 text);
		n->frame_bytes = size;
		break;
	case 'n':
		n->name = text;
		break;
	case 't':
		if (!number(text, 1, MAX_THREADS, &count))
			return error_set(e, -EINVAL,
					 "threads %s: not a number from 1 to %u",
					 text, MAX_THREADS);
		n->threads = count;
		break;
	case 'd':
		n->dry_run = true;
		break;
	case 'q':
		n->quiet = true;
		break;
	default:
		return 1;
	}
	return 0;
}

static bool name_ok(const char *name)
{
	const unsigned char *p = (const unsigned char *)name;

	if (!*p || strlen(name) > MAX_NAME || !strcmp(name, ".") ||
	    !strcmp(name, ".."))
		return false;
	for (; *p; p++)
		if (*p < 0x20 || *p == 0x7f || *p == '/')
			return false;
	return true;
}

int newlayer_options_done(struct newlayer *n, const struct codec *codec,
			  const char *level, struct error *e)
{
	long value;

	if (!n->codec)
		n->codec = codec;
	n->level = n->codec->level;
	if (level && !n->codec->level_max)
		return error_set(e, -EINVAL, "codec none has no levels");
	if (level) {
		if (!number(level, n->codec->level_min, n->codec->level_max,
			    &value))
			return error_set(e, -EINVAL,
					 "level %s: %s has levels %d to %d",
					 level, n->codec->name,
					 n->codec->level_min,
					 n->codec->level_max);
		n->level = value;
	}
	if (n->name && !name_ok(n->name))
		return error_set(e, -EINVAL,
				 "name \"%s\": 1 to %d bytes without slashes and control characters; see --name",
				 n->name, MAX_NAME);
	return 0;
}

static void summary(const struct newlayer *n, const struct newlayer_result *r)
{
	char total[UNITS_TEXT], zero[UNITS_TEXT], stored[UNITS_TEXT];
	char data[UNITS_TEXT], frame[UNITS_TEXT], rate[UNITS_TEXT];

	fprintf(stderr, "image   %s, %s of it zero",
		units_text(r->bytes, total),
		units_text(r->bytes - r->ubytes - r->kept_bytes, zero));
	if (r->kept_bytes)
		fprintf(stderr, ", %s in the parent's layers",
			units_text(r->kept_bytes, data));
	if (!r->ubytes)
		fputs("\nstored  nothing", stderr);
	else
		fprintf(stderr, "\nstored  %s as %s (%.2fx), ",
			units_text(r->ubytes, data),
			units_text(r->cbytes, stored),
			(double)r->ubytes / r->cbytes);
	if (r->ubytes && n->codec->level_max)
		fprintf(stderr, "%s level %d, %u frames of %s",
			n->codec->name, n->level, r->frames,
			units_text(r->frame_bytes, frame));
	else if (r->ubytes)
		fputs("raw", stderr);
	if (n->parent)
		fprintf(stderr,
			"\nheader  generation %llu, %u mappings of %u layers in %llu bytes",
			(unsigned long long)r->generation, r->mappings,
			r->layers, (unsigned long long)r->header_bytes);
	else
		fprintf(stderr, "\nheader  %u mappings in %llu bytes",
			r->mappings, (unsigned long long)r->header_bytes);
	fprintf(stderr, "\ntime    %.2f s, %s/s\n", r->seconds,
		units_text(r->seconds > 0 ? r->bytes / r->seconds : 0, rate));
}

void newlayer_report(const struct newlayer *n, const struct newlayer_result *r)
{
	if (!n->quiet)
		summary(n, r);
	if (!n->dry_run) {
		puts(r->header_url);
		return;
	}
	if (r->data_url)
		printf("would store %s: %llu bytes\n", r->data_url,
		       (unsigned long long)r->cbytes);
	printf("would store %s: %llu bytes\n", r->header_url,
	       (unsigned long long)r->header_bytes);
}

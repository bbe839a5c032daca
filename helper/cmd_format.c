// SPDX-License-Identifier: GPL-2.0-only
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cmd.h"
#include "pair.h"
#include "uuid.h"

static const char usage[] =
	"Usage: lazyframe format META URL [--cow COW] [--force]\n"
	"\n"
	"Write what a device needs to show the image at URL to META, a block device or\n"
	"a file, and print the table line for `dmsetup create --readonly NAME`.\n"
	"\n"
	"  --cow COW  with an overlay, whose data COW will hold, a block device or a file\n"
	"  --force    overwrite another image's meta device, an overlay, or foreign data\n"
	"  --help     this text\n";

static void summary(const char *path, const struct image *image, u64 bytes)
{
	char uuid[UUID_TEXT];
	u64 frames = 0, stored = 0;
	u32 i;

	for (i = 0; i < image->layers; i++)
		frames += image->layer[i].frames;
	for (i = 0; i < image->extents; i++)
		stored += image->extent[i].length;
	uuid_text(image->uuid, uuid);
	fprintf(stderr,
		"image     %s, generation %llu\n"
		"size      %llu bytes, %llu of them stored\n"
		"layers    %u\n"
		"mappings  %u\n"
		"frames    %llu\n"
		"meta      %s, %llu bytes in use\n",
		uuid, (unsigned long long)image->generation,
		(unsigned long long)image->bytes, (unsigned long long)stored,
		image->layers, image->extents, (unsigned long long)frames,
		path, (unsigned long long)bytes);
}

static void note_file(const char *path, bool is_file)
{
	if (is_file)
		fprintf(stderr,
			"%s is a file: put the loop device that shows it in its place in the table\n",
			path);
}

static int write_all(const char *path, const char *cow, struct meta_plan *plan,
		     bool force, struct pair_made *made, struct error *e)
{
	struct meta_overlay overlay = {};
	int err;

	if (!cow)
		return metafile_write(path, plan, -1, force, &made->meta, e);
	err = uuid_random(overlay.uuid);
	if (err)
		return error_set(e, err, "no random numbers: %s",
				 strerror(-err));
	err = meta_plan_overlay(plan, &overlay, e);
	return err ? err : pair_make(path, cow, plan, force, force, made, e);
}

int cmd_format(int argc, char **argv)
{
	static const struct option options[] = {
		{ "cow", required_argument, NULL, 'c' },
		{ "force", no_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	const char *path, *cow = NULL;
	struct pair_made made = {};
	struct meta_plan *plan;
	struct image *image;
	struct error e = {};
	bool force = false;
	int opt, err;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'f':
			force = true;
			break;
		case 'c':
			cow = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (argc - optind != 2) {
		fputs(usage, stderr);
		return 2;
	}
	path = argv[optind];

	err = image_open(argv[optind + 1], &image, &e);
	if (err)
		goto failed;
	err = meta_plan_image(&plan, image, &e);
	if (err) {
		image_free(image);
		goto failed;
	}
	err = write_all(path, cow, plan, force, &made, &e);
	if (!err) {
		summary(path, image, meta_plan_bytes(plan));
		note_file(path, made.meta.is_file);
		if (cow)
			note_file(cow, made.cow.is_file);
		printf("0 %llu lazyframe %s - %s\n",
		       (unsigned long long)meta_sectors(image->bytes), path,
		       cow ? cow : "-");
	}
	meta_plan_free(plan);
	image_free(image);
	if (!err)
		return 0;
failed:
	fprintf(stderr, "lazyframe format: %s\n", e.text);
	return 1;
}

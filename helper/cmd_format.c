// SPDX-License-Identifier: GPL-2.0-only
#include <getopt.h>
#include <stdio.h>

#include "cmd.h"
#include "meta.h"
#include "metafile.h"
#include "uuid.h"

static const char usage[] =
	"Usage: lazyframe format META URL [--force]\n"
	"\n"
	"Write what a device needs to show the image at URL to META, a block device or\n"
	"a file, and print the table line for `dmsetup create --readonly NAME`.\n"
	"\n"
	"  --force   overwrite another image's meta device, or foreign data\n"
	"  --help    this text\n";

static void summary(const char *path, const struct image *image)
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
		path, (unsigned long long)meta_bytes(image));
}

int cmd_format(int argc, char **argv)
{
	static const struct option options[] = {
		{ "force", no_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct metafile made;
	struct image *image;
	struct error e = {};
	bool force = false;
	const char *path;
	int opt, err;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'f':
			force = true;
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
	err = metafile_format(path, image, force, &made, &e);
	if (!err) {
		summary(path, image);
		if (made.is_file)
			fprintf(stderr,
				"%s is a file: put the loop device that shows it in its place in the table\n",
				path);
		printf("0 %llu lazyframe %s - -\n",
		       (unsigned long long)meta_sectors(image->bytes), path);
	}
	image_free(image);
	if (!err)
		return 0;
failed:
	fprintf(stderr, "lazyframe format: %s\n", e.text);
	return 1;
}

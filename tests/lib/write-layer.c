// SPDX-License-Identifier: GPL-2.0-only
/*
 * The layer writer as export uses it, without a device: changes from stdin, one
 * a line: d|z <image offset> <length>. Data comes from IMAGE, whose size is
 * the new image's.
 *
 *	write-layer IMAGE PARENT URL CODEC FRAME-BYTES [dedup] < changes
 *
 * With a command's name in place of IMAGE it is that command, with the
 * sanitizers that this program is built with.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../helper/cmd.h"
#include "../../helper/image.h"
#include "../../helper/newlayer.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "build", cmd_build },
	{ "flatten", cmd_flatten },
	{ "gc", cmd_gc },
	{ "inspect", cmd_inspect },
	{ "verify", cmd_verify },
};

static int read_file(void *arg, u64 off, void *buf, size_t len,
		     struct error *e)
{
	int *fd = arg;

	if (pread(*fd, buf, len, off) == (ssize_t)len)
		return 0;
	return error_set(e, -EIO, "reading at %llu", (unsigned long long)off);
}

static size_t read_changes(struct newlayer_change **change)
{
	unsigned long long start, length;
	size_t n = 0;
	char kind;

	while (scanf(" %c %llu %llu", &kind, &start, &length) == 3) {
		*change = reallocarray(*change, n + 1, sizeof(**change));
		if (!*change)
			abort();
		(*change)[n++] = (struct newlayer_change){
			.start = start,
			.length = length,
			.kind = kind == 'z' ? NEWLAYER_ZERO : NEWLAYER_DATA,
		};
	}
	return n;
}

int main(int argc, char **argv)
{
	struct newlayer_result result = {0};
	struct newlayer_change *change = NULL;
	struct image *parent = NULL;
	struct error e = {""};
	struct newlayer n;
	struct stat st;
	int fd, err;
	size_t i;

	for (i = 0; argc > 1 && i < ARRAY_SIZE(commands); i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	if (argc < 6) {
		fprintf(stderr, "write-layer: see its source\n");
		return 2;
	}
	fd = open(argv[1], O_RDONLY);
	if (fd < 0 || fstat(fd, &st)) {
		perror(argv[1]);
		return 1;
	}
	newlayer_defaults(&n);
	n.what = "write-layer";
	n.quiet = true;
	n.parent_url = argv[2];
	n.url = argv[3];
	n.codec = codec_by_name(argv[4]);
	n.level = n.codec->level;
	n.frame_bytes = atoi(argv[5]);
	n.dedup = argc > 6;
	n.bytes = st.st_size;
	n.read = read_file;
	n.arg = &fd;
	n.changes = read_changes(&change);
	n.change = change;
	err = image_open(n.parent_url, &parent, &e);
	n.parent = parent;
	if (!err)
		err = newlayer_write(&n, &result, &e);
	if (err)
		fprintf(stderr, "write-layer: %s\n", e.text);
	else
		newlayer_report(&n, &result);
	newlayer_result_free(&result);
	image_free(parent);
	free(change);
	close(fd);
	return err ? 1 : 0;
}

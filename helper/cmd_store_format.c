// SPDX-License-Identifier: GPL-2.0-only
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cmd.h"
#include "devfile.h"
#include "io.h"
#include "meta.h"
#include "store.h"

/*
 * What is looked at, and wiped, at a device's begin and end: where file systems,
 * RAIDs and partition tables say what they are.
 */
#define HEAD_BYTES	(1U << 20)
#define TAIL_BYTES	(1U << 17)

static const char usage[] =
	"Usage: lazyframe store-format DEV [--force]\n"
	"\n"
	"Make a block device, or a file, an empty store, for lazyframe attach --store,\n"
	"and print the table line for `dmsetup create NAME`.\n"
	"\n"
	"  --force    overwrite another store, a meta device, or foreign data\n"
	"  --help     this text\n";

/* -EEXIST: a part of the device is not all zeros, or all of another byte. */
static int check_blank(int fd, u64 off, u64 len)
{
	char *buf = calloc(1, len + 1);
	int err;

	if (!buf)
		return -ENOMEM;
	err = io_pread(fd, buf, len, off);
	if (!err && memcmp(buf, buf + 1, len - 1) != 0)
		err = -EEXIST;
	free(buf);
	return err;
}

/* It is big enough for HEAD_BYTES and TAIL_BYTES. */
static int check_content(const struct devfile *file, const char *path,
			 struct error *e)
{
	struct lf_store_shape shape;
	char text[UUID_TEXT];
	struct lf_super super;
	const char *why;
	u8 uuid[16];
	int err;

	err = store_read_super(file->fd, file->bytes, uuid, &shape, &why);
	if (!err) {
		uuid_text(uuid, text);
		return error_set(e, -EEXIST,
				 "%s is the store %s already: --force empties it",
				 path, text);
	}
	err = meta_read_super(file->fd, file->bytes, &super, &why);
	if (!err || err == -EINVAL)
		return error_set(e, -EEXIST,
				 "%s is a meta device: --force overwrites it",
				 path);
	if (err == -ENODATA || err == -EMEDIUMTYPE)
		err = check_blank(file->fd, 0, HEAD_BYTES);
	if (!err)
		err = check_blank(file->fd, file->bytes - TAIL_BYTES,
				  TAIL_BYTES);
	if (err == -EEXIST)
		return error_set(e, err,
				 "%s holds data that is no store: --force overwrites it",
				 path);
	return err ? error_set(e, err, "%s: %s", path, strerror(-err)) : 0;
}

static int sync_fd(int fd)
{
	return fsync(fd) ? -errno : 0;
}

/*
 * Whatever it was before, it is not after the first sync; before the last, it
 * is no store.
 */
static int write_all(const struct devfile *file,
		     const struct lf_store_shape *shape, const u8 uuid[16])
{
	struct lf_disk_store super = {
		.segment_bytes = cpu_to_le32(shape->segment_bytes),
		.segments = cpu_to_le32(shape->segments),
		.layers = cpu_to_le32(shape->layers),
		.bytes = cpu_to_le64(file->bytes),
	};
	static const u8 zeros[LF_META_BLOCK];
	u64 table = LF_STORE_COPIES * LF_META_BLOCK;
	int fd = file->fd, err;
	u32 i;

	memcpy(super.uuid, uuid, sizeof(super.uuid));
	lf_store_finish(&super);

	err = io_zero(fd, 0, table);
	if (!err)
		err = sync_fd(fd);
	if (!err)
		err = io_zero(fd, table, HEAD_BYTES - table);
	if (!err)
		err = io_zero(fd, file->bytes - TAIL_BYTES, TAIL_BYTES);
	if (!err)
		err = io_zero(fd, table,
			      shape->summary_start * LF_META_BLOCK - table);
	for (i = 0; !err && i < shape->segments; i++)
		err = io_pwrite(fd, zeros, sizeof(zeros),
				lf_summary_place(shape, i) * LF_META_BLOCK);
	if (!err)
		err = sync_fd(fd);
	for (i = 0; !err && i < LF_STORE_COPIES; i++)
		err = io_pwrite(fd, &super, sizeof(super),
				(u64)i * LF_META_BLOCK);
	return err ? err : sync_fd(fd);
}

static void summary(const char *path, const struct devfile *file,
		    const struct lf_store_shape *shape, const u8 uuid[16])
{
	char text[UUID_TEXT];

	uuid_text(uuid, text);
	fprintf(stderr,
		"store     %s\n"
		"size      %llu bytes, %llu of them for frames\n"
		"segments  %u of %u bytes\n"
		"layers    %u at most\n",
		text, (unsigned long long)file->bytes,
		(unsigned long long)shape->segments * shape->segment_bytes,
		shape->segments, shape->segment_bytes, shape->layers);
	if (file->is_file)
		fprintf(stderr,
			"%s is a file: put the loop device that shows it in its place\n",
			path);
}

static int format(const char *path, bool force, struct error *e)
{
	struct lf_store_shape shape;
	struct devfile file;
	const char *why;
	u8 uuid[16];
	int err;

	err = devfile_open(path, DEVFILE_WRITE, &file, e);
	/* Loop devices show whole sectors only. */
	file.bytes -= file.bytes % LF_META_BLOCK;
	if (!err) {
		err = lf_store_plan(file.bytes, &shape, &why);
		if (err)
			error_set(e, err, "%s has %llu bytes: %s", path,
				  (unsigned long long)file.bytes, why);
	}
	if (!err && !force)
		err = check_content(&file, path, e);
	if (!err) {
		err = uuid_random(uuid);
		if (err)
			error_set(e, err, "no random numbers: %s",
				  strerror(-err));
	}
	if (!err) {
		err = write_all(&file, &shape, uuid);
		if (err)
			error_set(e, err, "%s: %s; format it again", path,
				  strerror(-err));
	}
	if (!err) {
		summary(path, &file, &shape, uuid);
		printf("0 %llu %s %s\n",
		       (unsigned long long)file.bytes / 512, STORE_TARGET,
		       path);
	}
	devfile_close(&file);
	return err;
}

int cmd_store_format(int argc, char **argv)
{
	static const struct option options[] = {
		{ "force", no_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct error e = {};
	bool force = false;
	int opt;

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
	if (argc - optind != 1) {
		fputs(usage, stderr);
		return 2;
	}
	if (!format(argv[optind], force, &e))
		return 0;
	fprintf(stderr, "lazyframe store-format: %s\n", e.text);
	return 1;
}

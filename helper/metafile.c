// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "io.h"
#include "metafile.h"
#include "overlay.h"
#include "uuid.h"

/* How much of a block device is looked at before it is taken for blank. */
#define LOOK_BYTES	(1U << 20)

static bool was_written(int fd, const struct lf_super *super)
{
	struct overlay overlay;

	if (!super->region[LF_REGION_OVERLAY].bytes)
		return false;
	/* One above a sealed overlay is the way to what was written there. */
	return lf_super_has_origin(super) ||
	       overlay_open(fd, super, &overlay, NULL) ||
	       !overlay_fresh(&overlay.root);
}

bool metafile_has_overlay(const char *path)
{
	struct lf_super super;
	bool found;
	int fd;

	fd = meta_open(path, O_RDONLY, &super, NULL);
	if (fd < 0)
		return false;
	found = was_written(fd, &super);
	close(fd);
	return found;
}

static int check_content(const struct devfile *file, const char *path,
			 const struct meta_plan *plan, struct error *e)
{
	struct lf_super super;
	char uuid[UUID_TEXT];
	const char *why;
	int err;

	if (!file->bytes)
		return 0;
	err = meta_read_super(file->fd, file->bytes, &super, &why);
	switch (err) {
	case 0:
		if (was_written(file->fd, &super))
			return error_set(e, -EEXIST,
					 "%s has an overlay, with what was written to its device: --force discards it",
					 path);
		if (!memcmp(super.uuid, meta_plan_uuid(plan),
			    sizeof(super.uuid)))
			return 0;
		uuid_text(super.uuid, uuid);
		return error_set(e, -EEXIST,
				 "%s is the meta device of image %s: --force replaces it",
				 path, uuid);
	case -ENODATA:	/* blank, or wiped by a run that was cut short */
	case -EINVAL:	/* damaged: nothing to lose */
		return 0;
	case -EMEDIUMTYPE:
		return error_set(e, -EEXIST,
				 "%s holds data that is no meta device: --force overwrites it",
				 path);
	default:
		return error_set(e, err, "%s: %s", path, strerror(-err));
	}
}

int metafile_write(const char *path, const struct meta_plan *plan, int cow,
		   bool force, struct metafile *made, struct error *e)
{
	struct devfile file;
	u64 old;
	int err;

	made->created = false;
	err = devfile_open(path, DEVFILE_CREATE, &file, e);
	made->is_file = file.is_file;
	made->created = file.created;
	old = file.bytes;
	if (!err && !force)
		err = check_content(&file, path, plan, e);
	if (!err && file.is_file)
		err = devfile_grow(&file, path, meta_plan_bytes(plan), e);
	if (!err) {
		err = meta_plan_write(plan, file.fd, file.bytes, cow, e);
		if (err)
			error_prefix(e, "%s", path);
	}
	if (err && file.bytes != old && !file.created &&
	    ftruncate(file.fd, old))
		error_prefix(e, "%s keeps its new size", path);
	if (err && file.created)
		unlink(path);
	devfile_close(&file);
	return err;
}

/*
 * Is there the identity of an overlay at @off? *@fresh: of one that was never
 * written to. Damaged ones count, too: data may belong to it.
 */
static bool has_identity(const struct devfile *file, u64 off, bool *fresh)
{
	struct lf_disk_cow copies[LF_COW_COPIES];
	bool found = false;
	u32 i;

	if (io_pread(file->fd, copies, sizeof(copies), off))
		return false;
	*fresh = true;
	for (i = 0; i < LF_COW_COPIES; i++) {
		if (memcmp(copies[i].magic, LF_COW_MAGIC,
			   sizeof(copies[i].magic)) != 0)
			continue;
		found = true;
		if (le64_to_cpu(copies[i].epoch) > 1)
			*fresh = false;
	}
	return found;
}

static int check_cow(const struct devfile *file, const char *path,
		     const struct lf_tree *tree, struct error *e)
{
	u64 place[] = {
		tree->blocks * LF_META_BLOCK,
		file->bytes - LF_COW_COPIES * LF_META_BLOCK,
	};
	u64 look = file->bytes < LOOK_BYTES ? file->bytes : LOOK_BYTES;
	bool fresh, data = false;
	unsigned int i;
	off_t first;
	char *head;
	int err;

	for (i = 0; i < ARRAY_SIZE(place); i++) {
		if (file->bytes < LF_COW_COPIES * LF_META_BLOCK ||
		    place[i] % LF_META_BLOCK ||
		    !has_identity(file, place[i], &fresh))
			continue;
		if (fresh)
			return 0;
		return error_set(e, -EEXIST,
				 "%s is the COW device of an overlay, with what was written to its device: --force discards it",
				 path);
	}
	first = file->is_file ? lseek(file->fd, 0, SEEK_DATA) : 0;
	if (first < 0)	/* ENXIO: a hole from begin to end */
		return 0;
	head = calloc(1, look + 1);
	if (!head)
		return no_memory(e);
	/* Files are sparse, so any data in one was written by somebody. */
	err = file->is_file ? 0 : io_pread(file->fd, head, look, 0);
	data = file->is_file || (look && (*head || memcmp(head, head + 1,
							  look - 1)));
	free(head);
	if (err)
		return error_set(e, err, "%s: %s", path, strerror(-err));
	return data && look ? error_set(e, -EEXIST,
				"%s holds data: --force overwrites it", path) :
		       0;
}

int cowfile_open(const char *path, const struct lf_tree *tree, bool force,
		 struct devfile *file, struct error *e)
{
	int err;

	err = devfile_open(path, DEVFILE_CREATE, file, e);
	if (!err && !force && file->bytes)
		err = check_cow(file, path, tree, e);
	/* What an older overlay left would be read by nobody, but takes room. */
	if (!err && file->is_file && file->bytes && ftruncate(file->fd, 0))
		err = error_set(e, -errno, "%s: %s", path, strerror(errno));
	if (!err && file->is_file)
		file->bytes = 0;
	if (!err)
		err = devfile_grow(file, path, lf_cow_bytes(tree), e);
	if (err) {
		if (file->created)
			unlink(path);
		devfile_close(file);
	}
	return err;
}

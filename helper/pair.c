// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io.h"
#include "pair.h"
#include "uuid.h"

void pair_drop(struct pair *pair)
{
	free(pair->meta);
	free(pair->cow);
	free(pair->url);
	free(pair->sha256);
	free(pair->origin_meta);
	free(pair->origin_cow);
	memset(pair, 0, sizeof(*pair));
}

static int read_notes(int fd, struct pair *pair, struct error *e)
{
	int err;

	err = meta_note(fd, &pair->super, META_NOTE_URL, &pair->url, e);
	if (!err)
		err = meta_note(fd, &pair->super, META_NOTE_SHA256,
				&pair->sha256, e);
	if (!err)
		err = meta_note(fd, &pair->super, META_NOTE_ORIGIN_META,
				&pair->origin_meta, e);
	if (!err)
		err = meta_note(fd, &pair->super, META_NOTE_ORIGIN_COW,
				&pair->origin_cow, e);
	return err;
}

/* Return: 1: there is an overlay; 0: nothing that matters; or an error */
static int probe_meta(const struct devfile *file, struct pair *pair,
		      struct error *e)
{
	struct overlay overlay;
	const char *why;
	int err;

	if (!file->bytes)
		return 0;
	err = meta_read_super(file->fd, file->bytes, &pair->super, &why);
	if (err == -ENODATA)
		return 0;
	if (err == -EINVAL)
		return error_set(e, -EEXIST,
				 "%s: %s; lazyframe check tells more, --force writes a new overlay",
				 pair->meta, why);
	/* What else is there metafile_write() knows about. */
	if (err == -EMEDIUMTYPE ||
	    (!err && !pair->super.region[LF_REGION_OVERLAY].bytes))
		return 0;
	if (err)
		return error_set(e, err, "%s: %s", pair->meta, strerror(-err));

	err = overlay_open(file->fd, &pair->super, &overlay, e);
	if (!err) {
		pair->root = overlay.root;
		err = read_notes(file->fd, pair, e);
	}
	if (err) {
		error_prefix(e, "%s", pair->meta);
		return err == -EINVAL || err == -EBADMSG ? -EEXIST : err;
	}
	return 1;
}

/* With an overlay that was never written to, and that no other lies below? */
static bool nothing_lost(const struct pair *pair)
{
	return overlay_fresh(&pair->root) && !lf_super_has_origin(&pair->super);
}

/* As probe_meta(): does the COW device belong to the overlay that was found? */
static int probe_cow(const struct devfile *file, const struct pair *pair,
		     struct error *e)
{
	struct lf_disk_cow cow;
	struct lf_tree tree;
	const char *why;
	int err;

	err = lf_tree_shape(pair->super.image_bytes, &tree, &why);
	if (!err)
		err = overlay_cow_read(file->fd, file->bytes, &tree, &cow,
				       &why);
	if (!err)
		err = lf_pair_check(&pair->root, &cow, &why);
	if (!err)
		return 1;
	if (nothing_lost(pair))
		return 0;
	if (err == -ENODATA)
		why = "the COW device belongs to no overlay";
	else if (err != -EINVAL)
		why = strerror(-err);
	return error_set(e, -EEXIST,
			 "%s has an overlay, %s is not its COW device: %s",
			 pair->meta, pair->cow, why);
}

int pair_probe(const char *meta, const char *cow, struct pair *pair,
	       struct error *e)
{
	struct devfile m = { .fd = -1 }, c = { .fd = -1 };
	int ret;

	memset(pair, 0, sizeof(*pair));
	pair->meta = strdup(meta);
	pair->cow = strdup(cow);
	if (!pair->meta || !pair->cow)
		return no_memory(e);
	ret = devfile_open(meta, DEVFILE_READ, &m, e);
	if (ret == -ENOENT) {
		ret = 0;
		goto out;
	}
	if (ret)
		goto out;
	ret = probe_meta(&m, pair, e);
	if (ret <= 0)
		goto out;
	ret = devfile_open(cow, DEVFILE_READ, &c, e);
	if (!ret)
		ret = probe_cow(&c, pair, e);
	else if (ret == -ENOENT && nothing_lost(pair))
		ret = 0;
	else if (ret == -ENOENT)
		ret = error_set(e, -EEXIST,
				"%s has an overlay, but there is no %s", meta,
				cow);
out:
	devfile_close(&m);
	devfile_close(&c);
	return ret;
}

int pair_origin(const struct pair *top, struct pair *below, struct error *e)
{
	char text[UUID_TEXT];
	int ret;

	memset(below, 0, sizeof(*below));
	uuid_text(top->super.origin, text);
	if (!top->origin_meta || !top->origin_cow)
		return error_set(e, -ENOENT,
				 "%s lies on the sealed overlay %s, and nothing tells where that is",
				 top->meta, text);
	ret = pair_probe(top->origin_meta, top->origin_cow, below, e);
	if (!ret)
		ret = error_set(e, -ENOENT,
				"there is no overlay on %s and %s",
				top->origin_meta, top->origin_cow);
	else if (ret > 0 && memcmp(below->root.uuid, top->super.origin,
				   sizeof(below->root.uuid)) != 0)
		ret = error_set(e, -EINVAL, "%s and %s are another overlay",
				top->origin_meta, top->origin_cow);
	if (ret < 0)
		error_prefix(e, "%s lies on the sealed overlay %s", top->meta,
			     text);
	return ret < 0 ? ret : 0;
}

int pair_make(const char *meta, const char *cow, const struct meta_plan *plan,
	      bool force_meta, bool force_cow, struct pair_made *made,
	      struct error *e)
{
	int err;

	memset(made, 0, sizeof(*made));
	err = cowfile_open(cow, meta_plan_tree(plan), force_cow, &made->cow,
			   e);
	if (err)
		return err;
	err = metafile_write(meta, plan, made->cow.fd, force_meta, &made->meta,
			     e);
	devfile_close(&made->cow);
	if (err && made->cow.created)
		unlink(cow);
	return err;
}

void pair_unmake(const char *meta, const char *cow,
		 const struct pair_made *made)
{
	if (made->meta.created)
		unlink(meta);
	if (made->cow.created)
		unlink(cow);
}

/* @off: of the blocks that say what it is */
static int discard_one(const char *path, u64 off, u64 len, struct error *e)
{
	struct devfile file;
	int err;

	err = devfile_open(path, DEVFILE_WRITE, &file, e);
	if (!err && file.is_file && unlink(path))
		err = error_set(e, -errno, "%s: %s", path, strerror(errno));
	if (!err && !file.is_file) {
		err = io_zero(file.fd, off, len);
		if (!err && fsync(file.fd))
			err = -errno;
		if (err)
			error_set(e, err, "%s: %s", path, strerror(-err));
	}
	devfile_close(&file);
	return err;
}

int pair_discard(const char *meta, const char *cow, struct error *e)
{
	struct devfile file;
	struct lf_super super = {};
	struct lf_tree tree = {};
	const char *why;
	int err;

	err = devfile_open(meta, DEVFILE_READ, &file, e);
	if (!err) {
		err = meta_read_super(file.fd, file.bytes, &super, &why);
		if (!err)
			err = lf_tree_shape(super.image_bytes, &tree, &why);
		if (err)
			error_set(e, err, "%s: %s", meta,
				  err == -EINVAL ? why : strerror(-err));
	}
	devfile_close(&file);
	if (!err)
		err = discard_one(cow, tree.blocks * LF_META_BLOCK,
				  LF_COW_COPIES * LF_META_BLOCK, e);
	if (!err)
		err = discard_one(meta, 0, LF_SUPER_SLOTS * LF_META_BLOCK, e);
	return err;
}

char *pair_sealed_path(const char *path, const u8 uuid[16])
{
	char text[UUID_TEXT], *sealed;

	uuid_text(uuid, text);
	return asprintf(&sealed, "%s.sealed-%.8s", path, text) < 0 ? NULL :
								    sealed;
}

/* What a path holds, if it is a meta device with an overlay. */
static bool look_meta(const char *path, struct lf_super *super,
		      struct lf_disk_root *root)
{
	struct overlay overlay;
	bool found;
	int fd;

	fd = meta_open(path, O_RDONLY, super, NULL);
	if (fd < 0)
		return false;
	found = !overlay_open(fd, super, &overlay, NULL);
	if (found)
		*root = overlay.root;
	close(fd);
	return found;
}

static bool is_sealed_path(const char *path, const u8 uuid[16])
{
	char *suffix = pair_sealed_path("", uuid);
	size_t len = strlen(path), tail = suffix ? strlen(suffix) : 0;
	bool is = suffix && len > tail && !strcmp(path + len - tail, suffix);

	free(suffix);
	return is;
}

void pair_drop_sealed(const char *meta, const char *cow)
{
	struct pair pair;

	if (pair_probe(meta, cow, &pair, NULL) > 0 &&
	    le32_to_cpu(pair.root.flags) & LF_ROOT_SEALED &&
	    is_sealed_path(meta, pair.root.uuid) &&
	    is_sealed_path(cow, pair.root.uuid)) {
		if (pair.origin_meta && pair.origin_cow)
			pair_drop_sealed(pair.origin_meta, pair.origin_cow);
		unlink(cow);
		unlink(meta);
	}
	pair_drop(&pair);
}

bool pair_left_by_seal(const char *meta, const u8 uuid[16])
{
	struct lf_disk_root root;
	struct lf_super super;

	return look_meta(meta, &super, &root) && overlay_fresh(&root) &&
	       !memcmp(super.origin, uuid, sizeof(super.origin));
}

static bool is_cow_of(const char *path, const struct lf_super *super,
		      const u8 uuid[16])
{
	struct lf_disk_cow cow;
	struct lf_tree tree;
	const char *why;
	bool found;
	u64 bytes;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	found = !io_bytes(fd, &bytes) &&
		!lf_tree_shape(super->image_bytes, &tree, &why) &&
		!overlay_cow_read(fd, bytes, &tree, &cow, &why) &&
		!memcmp(cow.uuid, uuid, sizeof(cow.uuid));
	close(fd);
	return found;
}

int pair_swap_names(const char *a, const char *b, struct error *e)
{
	if (!renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE))
		return 0;
	return error_set(e, -errno, "%s and %s cannot swap names: %s", a, b,
			 strerror(errno));
}

int pair_settle(const char *meta, const char *cow, struct error *e)
{
	char *new_meta = NULL, *new_cow = NULL;
	struct lf_disk_root root, other_root;
	struct lf_super super, other;
	int err = 0;

	if (!look_meta(meta, &super, &root))
		return 0;
	if (le32_to_cpu(root.flags) & LF_ROOT_SEALED) {
		new_meta = pair_sealed_path(meta, root.uuid);
		if (new_meta && look_meta(new_meta, &other, &other_root) &&
		    !memcmp(other.origin, root.uuid, sizeof(root.uuid))) {
			err = pair_swap_names(meta, new_meta, e);
			super = other;
			root = other_root;
		}
	}
	/* The names of the COW devices follow those of the meta devices. */
	if (!err && lf_super_has_origin(&super) &&
	    is_cow_of(cow, &super, super.origin)) {
		new_cow = pair_sealed_path(cow, super.origin);
		if (new_cow && is_cow_of(new_cow, &super, root.uuid))
			err = pair_swap_names(cow, new_cow, e);
	}
	free(new_meta);
	free(new_cow);
	return err;
}

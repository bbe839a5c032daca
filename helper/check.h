/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Offline check of a meta device and its COW device.
 */
#ifndef LF_CHECK_H
#define LF_CHECK_H

#include "../kmod/overlay_disk.h"
#include "error.h"

/**
 * struct check_finding - something that is wrong
 * @place: "superblock slot 1", "leaf 7"
 * @what: one line
 * @repaired: it was, by this run
 */
struct check_finding {
	char place[48];
	char what[256];
	bool repaired;
};

/**
 * struct check - what was found
 * @super: valid if @has_super
 * @root: valid if @has_overlay: of the last commit
 * @dirty: blocks that the tree has
 * @zero: likewise
 * @damaged: findings that were not repaired
 */
struct check {
	struct lf_super super;
	struct lf_disk_root root;
	bool has_super;
	bool has_overlay;
	u64 dirty;
	u64 zero;
	u32 damaged;
	u32 count;
	struct check_finding *finding;
};

/**
 * check_run - check a meta device, and that a COW device belongs to it
 * @meta: path
 * @cow: path or NULL
 * @repair: put right what can be told for sure from what else is there
 * @check: out; check_drop() it, whatever is returned
 *
 * What is damaged is not an error. -EBUSY: one of them is in use.
 */
int check_run(const char *meta, const char *cow, bool repair,
	      struct check *check, struct error *e);
void check_drop(struct check *check);

#endif

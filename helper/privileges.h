/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who the daemon is once the module's device is open.
 */
#ifndef LF_PRIVILEGES_H
#define LF_PRIVILEGES_H

#include <sys/types.h>

#include "../kmod/pure.h"

#define PRIVILEGES_GROUPS	64

/**
 * struct privileges - what is left of them
 * @given: become @uid; otherwise whoever this process is already
 * @groups, @count: all groups of that user, its own among them
 */
struct privileges {
	bool given;
	uid_t uid;
	gid_t gid;
	gid_t groups[PRIVILEGES_GROUPS];
	int count;
};

/**
 * privileges_find - look up the user that privileges_drop() will become
 *
 * Return: 0, or a negative errno that was logged.
 */
int privileges_find(struct privileges *p, const char *user);

/**
 * privileges_drop - for good, in this thread and those that it starts
 *
 * Root that no other user was named to keeps one capability: reading the files
 * that layers name, whoever owns them. Everybody else keeps none.
 * Return: 0, or a negative errno that was logged: then nothing is to go on.
 */
int privileges_drop(const struct privileges *p);

#endif

// SPDX-License-Identifier: GPL-2.0-only
#include "secret.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io.h"

#define MAX_BYTES	(256 << 10)

void secret_free(char *text)
{
	if (text)
		explicit_bzero(text, strlen(text));
	free(text);
}

void secret_hide(void)
{
	/* Cannot fail with this argument. */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/*
 * What another user owns is read here because its group, or an access list whose
 * mask shows as the group's mode, was meant to let that happen.
 */
static bool others_read(const struct stat *st)
{
	bool mine = !geteuid() || st->st_uid == geteuid();

	return st->st_mode & (mine ? 0044 : 0004);
}

char *secret_read(const char *path, bool *shared)
{
	char *text, *small;
	struct stat st;
	ssize_t len;
	int fd;

	fd = io_open(path, &st);
	if (fd < 0) {
		errno = -fd;
		return NULL;
	}
	text = malloc(MAX_BYTES);
	len = text ? io_read_all(fd, text, MAX_BYTES) : -ENOMEM;
	close(fd);
	if (len < 0) {
		free(text);
		errno = -len;
		return NULL;
	}
	while (len && isspace((unsigned char)text[len - 1]))
		len--;
	text[len] = 0;
	if (shared)
		*shared = others_read(&st);
	small = realloc(text, len + 1);
	return small ? small : text;
}

void secret_tell(secret_warn *warn, const char *path)
{
	char text[512];

	if (!warn)
		return;
	snprintf(text, sizeof(text),
		 "%s: holds secrets, and others than its owner may read it; chmod 600 it",
		 path);
	warn(text);
}

int secret_file(const char *path, secret_warn *warn, char **text,
		struct error *e)
{
	bool shared;

	*text = secret_read(path, &shared);
	if (!*text)
		return error_set(e, -errno, "%s: %m", path);
	if (!**text) {
		secret_free(*text);
		*text = NULL;
		return error_set(e, -ENODATA, "%s: it is empty", path);
	}
	if (shared)
		secret_tell(warn, path);
	return 0;
}

bool secret_printable(const char *text)
{
	for (; *text; text++)
		if (*text <= ' ' || *text == 0x7f)
			return false;
	return true;
}

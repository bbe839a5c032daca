// SPDX-License-Identifier: GPL-2.0-only
#include "secret.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* Read by its end, not by its size: files of /proc and /sys have none. */
static ssize_t read_all(int fd, char *text, size_t room)
{
	size_t have = 0;
	ssize_t n;

	while (have < room) {
		n = read(fd, text + have, room - have);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (!n)
			return have;
		have += n;
	}
	errno = E2BIG;
	return -1;
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
	char *text = NULL, *small;
	struct stat st;
	ssize_t len;
	int fd, err;

	/* O_NONBLOCK: a FIFO must not keep open() waiting. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return NULL;
	if (fstat(fd, &st))
		goto fail;
	errno = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
	if (!S_ISREG(st.st_mode))
		goto fail;
	text = malloc(MAX_BYTES);
	len = text ? read_all(fd, text, MAX_BYTES) : -1;
	if (len < 0)
		goto fail;
	close(fd);
	while (len && isspace((unsigned char)text[len - 1]))
		len--;
	text[len] = 0;
	if (shared)
		*shared = others_read(&st);
	small = realloc(text, len + 1);
	return small ? small : text;
fail:
	err = errno;
	free(text);
	close(fd);
	errno = err;
	return NULL;
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

// SPDX-License-Identifier: GPL-2.0-only
/* Logging never waits, whatever is at the other end of stderr. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../helper/log.h"
#include "kselftest_harness.h"

FIXTURE(log) {
	int fd;		/* the other end */
	int saved;	/* stderr */
};

FIXTURE_VARIANT(log) {
	bool journal;	/* a socket, as journald's; else a pipe */
};

FIXTURE_VARIANT_ADD(log, pipe) { .journal = false };
FIXTURE_VARIANT_ADD(log, journal) { .journal = true };

FIXTURE_SETUP(log)
{
	char stream[64];
	struct stat st;
	int fd[2];

	ASSERT_EQ(0, variant->journal ?
		     socketpair(AF_UNIX, SOCK_STREAM, 0, fd) : pipe(fd));
	self->fd = fd[0];
	self->saved = dup(STDERR_FILENO);
	dup2(fd[1], STDERR_FILENO);
	close(fd[1]);
	fcntl(self->fd, F_SETFL, O_NONBLOCK);
	ASSERT_EQ(0, fstat(STDERR_FILENO, &st));
	snprintf(stream, sizeof(stream), "%llu:%llu",
		 (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
	if (variant->journal)
		setenv("JOURNAL_STREAM", stream, 1);
}

FIXTURE_TEARDOWN(log)
{
	dup2(self->saved, STDERR_FILENO);
	close(self->saved);
	close(self->fd);
}

/* All that arrived, in @text; returns its length. */
static size_t drain(int fd, char *text, size_t size)
{
	size_t len = 0;
	ssize_t n;

	while ((n = read(fd, text + len, size - 1 - len)) > 0)
		len += n;
	text[len] = 0;
	return len;
}

TEST_F(log, a_full_reader_loses_lines_and_learns_how_many)
{
	size_t size = 1 << 20, i, lines = 0, len;
	char *text = malloc(size), *p;
	unsigned long lost = 0;

	log_init(1);	/* verbose: no limit on lines a second */
	for (i = 0; i < 20000; i++)
		log_warn("line %zu", i);	/* would hang here */
	len = drain(self->fd, text, size);
	for (p = text; p < text + len; p++)
		lines += *p == '\n';
	ASSERT_GT(lines, 100);
	ASSERT_LT(lines, 20000);
	log_warn("the end");
	drain(self->fd, text, size);
	p = strstr(text, variant->journal ? "<4>" : "lazyframed: ");
	ASSERT_NE(NULL, p);
	p += variant->journal ? 3 : 12;
	ASSERT_EQ(1, sscanf(p, "%lu log lines were dropped", &lost));
	EXPECT_EQ(20000, lines + lost);
	EXPECT_NE(NULL, strstr(p, "the end\n"));
	free(text);
}

TEST_F(log, a_flood_is_cut)
{
	size_t size = 1 << 20, i, lines = 0, len;
	char *text = malloc(size), *p;

	log_init(0);
	for (i = 0; i < 1000; i++)
		log_warn("line %zu", i);
	len = drain(self->fd, text, size);
	for (p = text; p < text + len; p++)
		lines += *p == '\n';
	/* The loop may see the beginning of another second, not of a third. */
	EXPECT_GE(lines, LOG_BURST);
	EXPECT_LE(lines, 2 * LOG_BURST + 1);
	log_debug("not without --verbose");
	EXPECT_EQ(0, drain(self->fd, text, size));
	free(text);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0-only
/*
 * origin ROOT DELAY-US BYTES-PER-SECOND: an object store that is as far away as it
 * is told to be.
 *
 * Serves GET, with one byte range or none, and HEAD, of the files below ROOT on 127.0.0.1,
 * and prints its port. Each connection is a link of its own: the head of an answer
 * leaves DELAY-US after its request was there, each byte of the body when a link of
 * that speed would have brought it, never before. What was late is made up for, so
 * that a busy machine does not make the link slower than it is. A rate of 0 is no
 * limit. GET /.counts tells how many requests were answered and with how many
 * bytes.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define HEAD_MAX	8192
#define PIECE_MAX	(64 << 10)
#define PIECE_US	100	/* of a link's time, at most, in one piece */
#define NSEC		1000000000ULL

static uint64_t delay_ns, rate;
static int root;
static atomic_ullong requests, sent_bytes;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NSEC + t.tv_nsec;
}

static void wait_until(uint64_t when)
{
	const struct timespec t = {
		.tv_sec = when / NSEC, .tv_nsec = when % NSEC,
	};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) ==
	       EINTR)
		;
}

static bool send_all(int s, const char *bytes, size_t len, int flags)
{
	while (len) {
		ssize_t n = send(s, bytes, len, flags | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		bytes += n;
		len -= n;
	}
	return true;
}

/* Straight from the page cache: what an origin costs is none of what is measured */
static bool send_part(int s, int fd, off_t at, size_t len)
{
	while (len) {
		ssize_t n = sendfile(s, fd, &at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		len -= n;
	}
	return true;
}

static bool send_paced(int s, int fd, off_t at, size_t len, uint64_t start)
{
	size_t piece = PIECE_MAX, done, n;

	if (rate && rate * PIECE_US / 1000000 < piece)
		piece = rate * PIECE_US / 1000000 + 1;
	for (done = 0; done < len; done += n) {
		n = len - done < piece ? len - done : piece;
		if (rate)
			wait_until(start +
				   (uint64_t)((done + n) * (double)NSEC / rate));
		if (!send_part(s, fd, at + done, n))
			return false;
	}
	atomic_fetch_add(&sent_bytes, len);
	return true;
}

static bool send_text(int s, const char *status, const char *text)
{
	char head[256];
	int n;

	n = snprintf(head, sizeof(head),
		     "HTTP/1.1 %s\r\nContent-Length: %zu\r\n\r\n%s", status,
		     strlen(text), text);
	return send_all(s, head, n, 0);
}

/* The bytes of @st that @head asks for; false: there are none */
static bool find_range(const char *head, const struct stat *st, size_t *first,
		       size_t *last)
{
	const char *range = strcasestr(head, "\r\nRange: bytes=");
	unsigned long long from, to;
	char *end;

	*first = 0;
	*last = st->st_size - 1;
	if (!range)
		return st->st_size;
	/* so many last bytes */
	if (range[15] == '-') {
		to = strtoull(range + 16, NULL, 10);
		if (to < (size_t)st->st_size)
			*first = st->st_size - to;
		return to && st->st_size;
	}
	from = strtoull(range + 15, &end, 10);
	if (end == range + 15 || *end != '-' || from >= (size_t)st->st_size)
		return false;
	*first = from;
	range = end + 1;
	to = strtoull(range, &end, 10);
	if (end != range && to < (size_t)st->st_size)
		*last = to;
	return *first <= *last;
}

static bool answer_file(int s, const char *head, int fd, bool body,
			uint64_t asked)
{
	bool ranged = strcasestr(head, "\r\nRange: ");
	size_t first, last;
	char text[512];
	struct stat st;
	int n;

	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		return send_text(s, "404 Not Found", "");
	if (!find_range(head, &st, &first, &last))
		return send_text(s, "416 Range Not Satisfiable", "");
	n = snprintf(text, sizeof(text),
		     "HTTP/1.1 %s\r\nAccept-Ranges: bytes\r\n"
		     "ETag: \"%llx-%llx\"\r\nContent-Length: %zu\r\n",
		     ranged ? "206 Partial Content" : "200 OK",
		     (unsigned long long)st.st_mtime,
		     (unsigned long long)st.st_size, last + 1 - first);
	if (ranged)
		n += snprintf(text + n, sizeof(text) - n,
			      "Content-Range: bytes %zu-%zu/%llu\r\n", first,
			      last, (unsigned long long)st.st_size);
	n += snprintf(text + n, sizeof(text) - n, "\r\n");
	wait_until(asked + delay_ns);
	if (!body)
		return send_all(s, text, n, 0);
	if (!send_all(s, text, n, MSG_MORE) ||
	    !send_paced(s, fd, first, last + 1 - first, asked + delay_ns))
		return false;
	atomic_fetch_add(&requests, 1);
	return true;
}

static bool answer(int s, const char *head, uint64_t asked)
{
	bool body = !strncmp(head, "GET ", 4), good;
	char path[HEAD_MAX], text[64];
	int fd;

	if (sscanf(head, body ? "GET /%8000[^ ?]" : "HEAD /%8000[^ ?]",
		   path) != 1)
		return send_text(s, "405 Method Not Allowed", "");
	if (!strcmp(path, ".counts")) {
		snprintf(text, sizeof(text), "%llu %llu\n", requests,
			 sent_bytes);
		return send_text(s, "200 OK", text);
	}
	fd = openat(root, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return send_text(s, "404 Not Found", "");
	good = answer_file(s, head, fd, body, asked);
	close(fd);
	return good;
}

static void *serve(void *arg)
{
	int s = (intptr_t)arg, one = 1;
	char head[HEAD_MAX];
	size_t have = 0;
	ssize_t n;
	char *end;

	/* the default lets each sleep be 50 us longer */
	prctl(PR_SET_TIMERSLACK, 1UL);
	setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	while (have < sizeof(head) - 1) {
		uint64_t asked;

		n = recv(s, head + have, sizeof(head) - 1 - have, 0);
		if (n <= 0)
			break;
		asked = now_ns();
		have += n;
		head[have] = 0;
		end = strstr(head, "\r\n\r\n");
		if (!end)
			continue;
		*end = 0;
		/* clients here send a request when they have the last answer */
		have = 0;
		if (!answer(s, head, asked))
			break;
	}
	close(s);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sockaddr_in at = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(at);
	int s, c;

	if (argc != 4) {
		fprintf(stderr, "usage: origin ROOT DELAY-US BYTES-PER-SECOND\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	delay_ns = strtoull(argv[2], NULL, 10) * 1000;
	rate = strtoull(argv[3], NULL, 10);
	root = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
	s = socket(AF_INET, SOCK_STREAM, 0);
	if (root < 0 || s < 0 || bind(s, (struct sockaddr *)&at, len) ||
	    listen(s, 128) || getsockname(s, (struct sockaddr *)&at, &len)) {
		perror("origin");
		return 1;
	}
	printf("%u\n", ntohs(at.sin_port));
	fflush(stdout);
	while ((c = accept(s, NULL, NULL)) >= 0) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)c))
			close(c);
		else
			pthread_detach(thread);
	}
	perror("origin: accept");
	return 1;
}

// SPDX-License-Identifier: GPL-2.0-only
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"
#include "notify.h"

static int notify_fd = -1;

void notify_init(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	size_t len;

	if (!path)
		return;
	len = strlen(path);
	if ((*path != '/' && *path != '@') || len >= sizeof(to.sun_path)) {
		log_warn("NOTIFY_SOCKET is \"%s\", not an address", path);
		return;
	}
	memcpy(to.sun_path, path, len);
	if (*path == '@')
		to.sun_path[0] = 0;	/* the abstract name space */
	notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
			   0);
	if (notify_fd >= 0 &&
	    connect(notify_fd, (struct sockaddr *)&to,
		    offsetof(struct sockaddr_un, sun_path) + len)) {
		log_warn("cannot reach the service manager at %s: %s", path,
			 strerror(errno));
		close(notify_fd);
		notify_fd = -1;
	}
}

bool notify_wanted(void)
{
	return notify_fd >= 0;
}

u64 notify_watchdog(void)
{
	const char *us = getenv("WATCHDOG_USEC");
	const char *pid = getenv("WATCHDOG_PID");
	unsigned long long usec;

	if (!notify_wanted() || !us || (pid && atol(pid) != getpid()))
		return NEVER;
	usec = strtoull(us, NULL, 10);
	return usec && usec < NEVER / 1000 ? usec * 1000 : NEVER;
}

void notify(const char *fmt, ...)
{
	char text[512];
	va_list ap;
	int len;

	if (notify_fd < 0)
		return;
	va_start(ap, fmt);
	len = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (len < 0 || len >= (int)sizeof(text))
		return;
	if (send(notify_fd, text, len, MSG_NOSIGNAL) < 0)
		log_debug("the service manager does not listen: %s",
			  strerror(errno));
}

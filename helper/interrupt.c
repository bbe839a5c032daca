// SPDX-License-Identifier: GPL-2.0-only
#include "interrupt.h"

#include <signal.h>
#include <stdatomic.h>

#include "../kmod/pure.h"

static atomic_int interrupted;

static void on_signal(int sig)
{
	interrupted = sig;
}

void interrupt_catch(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	/* No SA_RESTART: a read of a slow disk ends early. */
	struct sigaction sa = { .sa_handler = on_signal }, old;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(signals); i++) {
		if (!sigaction(signals[i], NULL, &old) &&
		    old.sa_handler == SIG_IGN)
			continue;
		sigaction(signals[i], &sa, NULL);
	}
}

int interrupt_check(struct error *e)
{
	int sig = interrupted;

	return sig ? error_set(e, -EINTR,
			       "stopped by signal %d, nothing was stored",
			       sig) : 0;
}

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Word to the service manager, by the protocol that sd_notify(3) describes.
 * The socket is connected once and never waited for: the manager may itself be
 * waiting for a block that only this process can fetch.
 */
#ifndef LF_NOTIFY_H
#define LF_NOTIFY_H

#include "loop.h"

/* notify_init - without NOTIFY_SOCKET in the environment all others do nothing */
void notify_init(void);

/* notify_wanted - does anybody listen? */
bool notify_wanted(void);

/* notify_watchdog - how often "WATCHDOG=1" is expected, ns; NEVER: not at all */
u64 notify_watchdog(void);

/* notify - lines of VARIABLE=VALUE */
void notify(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif

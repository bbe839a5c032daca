/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Log lines to stderr. Writing one never waits: the journal or whoever reads
 * the other end may itself be waiting for a block that only this process can
 * fetch. Lines that do not fit now, and lines above LOG_BURST a second, are
 * counted and the count is logged later.
 */
#ifndef LF_LOG_H
#define LF_LOG_H

#include <syslog.h>

#define LOG_BURST	50	/* lines a second */

/* log_init - @verbose: LOG_DEBUG lines too */
void log_init(int verbose);

/**
 * log_line - one line, at most 1023 bytes; from any thread
 * @priority: LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_INFO, LOG_DEBUG
 * @fmt: no newline
 */
void log_line(int priority, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#define log_err(...)	log_line(LOG_ERR, __VA_ARGS__)
#define log_warn(...)	log_line(LOG_WARNING, __VA_ARGS__)
#define log_notice(...)	log_line(LOG_NOTICE, __VA_ARGS__)
#define log_info(...)	log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...)	log_line(LOG_DEBUG, __VA_ARGS__)

#endif

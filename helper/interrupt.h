/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * SIGINT, SIGTERM and SIGHUP as errors, so that work that they end cleans up.
 */
#ifndef LF_INTERRUPT_H
#define LF_INTERRUPT_H

#include "error.h"

/**
 * interrupt_catch - from now on these signals do not end the process
 *
 * Those that are ignored stay ignored: nohup and a shell's background jobs want it
 * to be so. System calls that wait end with EINTR.
 */
void interrupt_catch(void);

/**
 * interrupt_check - was there one?
 *
 * Return: 0, or -EINTR with the error set. Any thread.
 */
int interrupt_check(struct error *e);

#endif

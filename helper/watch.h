/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * lazyframe status --watch
 */
#ifndef LF_WATCH_H
#define LF_WATCH_H

#include "error.h"

/**
 * watch_device - show a device's rates, each second anew
 *
 * On a terminal in place, until q or Ctrl-C; otherwise a line each second, until
 * a signal. The terminal is as it was on return.
 *
 * Return: 0, or why it ended: -ENXIO, the device went.
 */
int watch_device(const char *name, struct error *e);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Traces from and to devices, files and stores.
 */
#ifndef LF_REPLAY_H
#define LF_REPLAY_H

#include "tracefile.h"

/**
 * trace_load - read a trace
 * @where: a path, or a URL
 * @trace: out; empty after an error
 *
 * -ENOENT: there is none.
 */
int trace_load(const char *where, struct trace *trace, struct error *e);

/**
 * trace_store - write a trace
 * @where: a path, or the URL of a store that can be written
 * @force: in place of what is there; else -EEXIST
 */
int trace_store(const char *where, const struct trace *trace, bool force,
		struct error *e);

/**
 * record_start - begin a recording on a device. -EBUSY: there is one
 */
int record_start(const char *name, struct error *e);
int record_stop(const char *name, struct error *e);

/**
 * record_count - how many frames were read so far
 * @lost: out: of them, those that did not fit; may be NULL
 *
 * Return: a number, or -ENODATA: nothing is being recorded.
 */
int record_count(const char *name, u32 *lost, struct error *e);

/**
 * record_read - what a device recorded so far
 * @trace: out; empty after an error
 */
int record_read(const char *name, struct trace *trace, struct error *e);

/**
 * replay_start - have a device fetch what a trace has
 *
 * -EXDEV: the device has none of its layers. Return: how many frames are asked for.
 */
int replay_start(const char *name, const struct trace *trace, struct error *e);

/**
 * struct replay_status - what a device fetches ahead of its readers
 * @what: "none", "order", "all"
 * @state: "off", "running", "paused", "full", "helper", "done"
 * @next: with @count: how far it came, in frames
 * @asked, @left, @unread: bytes asked for, on their way, here and not read yet
 * @chunk: bytes asked for at once
 * @rate: bytes a second, 0: no limit
 */
struct replay_status {
	char what[8];
	char state[8];
	u32 next;
	u32 count;
	u64 asked;
	u64 left;
	u64 unread;
	u32 chunk;
	u64 rate;
};

int replay_status(const char *name, struct replay_status *status,
		  struct error *e);

#endif

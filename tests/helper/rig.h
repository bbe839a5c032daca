/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The daemon without the module: a sink that plays the kernel's part (it
 * checks each answer as the kernel would and compares every byte), fetch.c and
 * its transports on a loop, and tests/server beside them.
 */
#ifndef LF_RIG_H
#define LF_RIG_H

#include <sys/types.h>

#include "../../helper/fetch.h"
#include "../../helper/shared_io.h"

#define TAGS		256
#define LAYERS		16
#define OBJECT_BYTES	(12 << 20)
#define FRAME		(128 << 10)
#define KEPT		4096

struct rig_tag {
	u64 offset;
	u32 length;
	u32 have;
	u64 finished;	/* how many requests had finished by then, this one in */
	u64 when;	/* it finished, now_ns() */
	u32 uses;	/* the part of the tag above the slot's number */
	int status;	/* 0 or a positive errno */
	bool open;
	bool refuse;	/* answer -EINVAL to its bytes */
};

struct rig {
	struct sink sink;
	struct loop loop;
	struct fetch *fetch;
	struct transport *http;
	struct transport *file;
	struct fetch_options options;
	struct shared *shared;
	struct shared_options shared_options;	/* dir NULL: there is none */
	const char *cafile;
	struct lazyframe_layer_info layer[LAYERS];
	struct rig_tag tag[TAGS];
	u8 *object;		/* what the file "object" in dir holds */
	u64 finished;
	u64 wrong;		/* bytes, answers out of order, answers to nobody */
	unsigned int open;
	int session_error;	/* fill() returns this from now on */
	char dir[64];
	char url[128];		/* of dir on the server, no slash at the end */
	int port;
	pid_t server;
	int server_in;
	char text[1 << 18];	/* what the server answered last */
};

/* rig_up - directory, object and server; returns 0 or dies with a message */
void rig_up(struct rig *rig);
/* rig_go - loop and fetcher with rig->options; layer 1 is the object by http */
void rig_go(struct rig *rig);
void rig_down(struct rig *rig);

/* rig_layer - describe layer @id; @size and @validator may be 0 and "" */
void rig_layer(struct rig *rig, u64 id, const char *url, u64 size,
	       const char *validator);
/* rig_etag - of the object, as the server and file.c make it */
void rig_etag(struct rig *rig, char *etag, size_t size);

/* rig_server - start it, on rig->port if that is set */
void rig_server(struct rig *rig);
void rig_server_stop(struct rig *rig);

/* rig_tell - commands for the server; its answer is rig->text */
void rig_tell(struct rig *rig, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

struct rig_line {
	long long first, last, sent;
	int status;	/* 0: the client was gone */
	int connection;
	double start;
};

/* rig_log - the server's log, after it has settled; returns the lines */
int rig_log(struct rig *rig, struct rig_line *line, int max);

/* rig_post - @ms: deadline from now, 0 none; bytes before @have count as given */
void rig_post(struct rig *rig, u32 tag, u64 layer, u64 offset, u32 length,
	      u32 have, u32 flags, u64 ms);

/* rig_turn - one turn of the daemon's loop. rig_run - until nothing is open. */
int rig_turn(struct rig *rig);
int rig_run(struct rig *rig);

#endif

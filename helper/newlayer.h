/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The layer writer: changes to an image become a new layer and a new header.
 * What build, flatten and export share.
 */
#ifndef LF_NEWLAYER_H
#define LF_NEWLAYER_H

#include "codec.h"
#include "image.h"

/**
 * enum newlayer_kind - what a change says about its part of the image
 * @NEWLAYER_DATA: its bytes are those that read() gives
 * @NEWLAYER_ZERO: its bytes are zero; nothing is read or stored
 * @NEWLAYER_FRAME: it is one whole frame of some layer, to be copied
 *		    without being encoded again
 */
enum newlayer_kind {
	NEWLAYER_DATA,
	NEWLAYER_ZERO,
	NEWLAYER_FRAME,
};

/**
 * struct newlayer_change - one part of the image that may differ from the parent
 * @start: image offset, bytes. A multiple of 4 KiB, unless it is where a
 *	   change before it ends that is not @NEWLAYER_ZERO.
 * @length: bytes, not 0. A multiple of 4 KiB, unless it ends the image or the
 *	    next change begins there and neither is @NEWLAYER_ZERO.
 * @kind: NEWLAYER_*
 * @frame: NEWLAYER_FRAME: index in @layer's table; @length is its U size
 * @layer: NEWLAYER_FRAME: of the codec that the new layer has
 */
struct newlayer_change {
	u64 start;
	u64 length;
	enum newlayer_kind kind;
	u32 frame;
	const struct image_layer *layer;
};

/**
 * struct newlayer - what is to be written; all pointers stay the caller's
 * @what: one word for the progress bar
 * @url: directory below which objects are put, "file:///dir"; NULL: where the
 *	 parent's are
 * @name: of the objects, not escaped; NULL: the parent's
 * @codec: of the new layer
 * @level: of that codec
 * @frame_bytes: U size of frames, a multiple of 4 KiB
 * @threads: that compress
 * @dry_run: do everything but store
 * @quiet: no progress bar, no notes
 * @dedup: leave out blocks that are equal to the parent's
 * @parent: what lies below, or NULL: then what no change covers is zero
 * @parent_url: of @parent
 * @bytes: size of the new image. Where it is larger than the parent's, changes
 *	   cover all from the block in which the parent ends.
 * @change: ascending, without overlap
 * @changes: how many; 0 is allowed
 * @read: exactly @len bytes of the image from @off on; called by one thread, with
 *	  ascending offsets that lie in a @NEWLAYER_DATA change each; may
 *	  be NULL where there are no such changes
 * @finish: NULL, or called when all was read and before anything becomes
 *	    visible; an error stops it all
 * @arg: for both
 */
struct newlayer {
	const char *what;
	const char *url;
	const char *name;
	const struct codec *codec;
	int level;
	u32 frame_bytes;
	unsigned int threads;
	bool dry_run;
	bool quiet;
	bool dedup;

	const struct image *parent;
	const char *parent_url;
	u64 bytes;
	const struct newlayer_change *change;
	size_t changes;
	int (*read)(void *arg, u64 off, void *buf, size_t len,
		    struct error *e);
	int (*finish)(void *arg, struct error *e);
	void *arg;
};

/**
 * struct newlayer_result - what was written
 * @uuid: of the new image, and of its own layer
 * @header_url: malloc()ed
 * @data_url: malloc()ed; NULL where nothing had to be stored
 * @generation: of the new header
 * @bytes: size of the image
 * @read_bytes: of NEWLAYER_DATA changes
 * @zero_bytes: of these, blocks that were all zero
 * @same_bytes: of these, blocks that were left out as equal to the parent's
 * @hole_bytes: of NEWLAYER_ZERO changes
 * @kept_bytes: of the image that are in the parent's layers
 * @ubytes: U bytes stored
 * @cbytes: size of the data object
 * @header_bytes: size of the header
 * @frame_bytes: U size of new frames; more than asked for, if there were too many
 * @frames: in the new layer
 * @copied: of these, copied and not encoded again
 * @mappings: in the header
 * @layers: that the header maps
 * @seconds: that it took
 */
struct newlayer_result {
	u8 uuid[16];
	char *header_url;
	char *data_url;
	u64 generation;
	u64 bytes;
	u64 read_bytes;
	u64 zero_bytes;
	u64 same_bytes;
	u64 hole_bytes;
	u64 kept_bytes;
	u64 ubytes;
	u64 cbytes;
	u64 header_bytes;
	u32 frame_bytes;
	u32 frames;
	u32 copied;
	u32 mappings;
	u32 layers;
	double seconds;
};

/**
 * newlayer_write - write the new layer, then the header
 * @result: out, after success and failure; newlayer_result_free() it
 *
 * The data object becomes visible when it is complete, the header after it. A
 * failure, or one of SIGINT, SIGTERM and SIGHUP (caught while this runs), takes
 * back what was stored; a crash leaves a data object that no header names, at
 * most. Running it again writes another layer.
 *
 * The new layer holds the blocks that were stored and nothing else, in the
 * order of the image. Blocks of 4 KiB that are all zero are mapped as zeros. If
 * nothing differs from the parent, only a header is written. It is of version 3
 * where all layers that it maps are raw, of version 4 otherwise. Its generation
 * is the parent's + 1 and its base layer the parent's; 0 and its own where
 * there is no parent, or one without a header.
 *
 * -EINVAL: changes that break the rules above; -ENOENT: a layer of the parent
 * that stays mapped is not below @url.
 */
int newlayer_write(const struct newlayer *n, struct newlayer_result *result,
		   struct error *e);
void newlayer_result_free(struct newlayer_result *result);

/**
 * newlayer_frames - how many frames it might take, if nothing turns out to be zero
 *
 * Where that is more than LF_MAX_FRAMES, newlayer_write() takes larger ones.
 */
u64 newlayer_frames(const struct newlayer *n, u32 frame_bytes);

/**
 * newlayer_report - summary on stderr unless quiet, and the result on stdout
 *
 * That is the header's URL alone, or what --dry-run would have stored.
 */
void newlayer_report(const struct newlayer *n,
		     const struct newlayer_result *result);

/*
 * The options that all commands have that write layers, for getopt_long().
 */
#define NEWLAYER_SHORT_OPTIONS	"c:l:f:n:t:qh"
#define NEWLAYER_OPTIONS					\
	{ "codec", required_argument, NULL, 'c' },		\
	{ "level", required_argument, NULL, 'l' },		\
	{ "frame-size", required_argument, NULL, 'f' },		\
	{ "name", required_argument, NULL, 'n' },		\
	{ "threads", required_argument, NULL, 't' },		\
	{ "dry-run", no_argument, NULL, 'd' },			\
	{ "quiet", no_argument, NULL, 'q' }

/* Lines for --help. */
#define NEWLAYER_HELP								\
	"  -c, --codec zstd|lz4|none  default zstd\n"				\
	"  -l, --level N              zstd 1 to 19, default 1; lz4 1 to 12, default 1\n" \
	"  -f, --frame-size N[K|M]    a multiple of 4K, up to 16M, default 128K\n" \
	"  -t, --threads N            default: one a CPU\n"			\
	"      --dry-run              compress, but store nothing\n"		\
	"  -q, --quiet                no progress, no summary\n"

/**
 * newlayer_defaults - codec NULL (see newlayer_options_done()), 128 KiB, a
 *		       thread a CPU
 */
void newlayer_defaults(struct newlayer *n);

/**
 * newlayer_option - take one of NEWLAYER_OPTIONS
 * @c: what getopt_long() returned
 * @text: optarg; must stay valid, as argv does
 * @level: out for 'l': its text, for newlayer_options_done()
 *
 * Return: 1: not one of them (--help is not); 0; -EINVAL
 */
int newlayer_option(struct newlayer *n, int c, const char *text,
		    const char **level, struct error *e);

/**
 * newlayer_options_done - check what depends on each other
 * @codec: where none was asked for
 * @level: text, or NULL: the codec's default
 *
 * Checks the name, too, if there is one.
 */
int newlayer_options_done(struct newlayer *n, const struct codec *codec,
			  const char *level, struct error *e);

#endif

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What lies in a shared directory. Pure code.
 *
 *	DIR/<2 digits>/<layer>-<C offset>-<C length>.frame	entries
 *	DIR/<2 digits>/<owner>-<number>-<C length>.part		being written
 *	DIR/<owner>.room	its size: bytes that a daemon may be about to add
 *
 * Numbers are hexadecimal. The 2 digits are a hash of the rest, so that all of
 * the 256 folders are alike. What has another name is nobody's business here.
 *
 * An entry is a struct shared_head and a frame's compressed bytes. It says what
 * it is, and has one checksum over all of it, so whatever else a file system
 * gives back, a part, zeros, another file's bytes, is told from it.
 */
#ifndef LF_SHARED_H
#define LF_SHARED_H

#include "../kmod/pure.h"

#define SHARED_MAGIC	"lazyfram"
#define SHARED_VERSION	1

/* Larger frames pass the directory by. */
#define SHARED_MAX	((2U << 20) + (64U << 10))

/* The checksum goes on from piece to piece, each the seed of the next. */
#define SHARED_PIECE	(64U << 10)

#define SHARED_FOLDERS	256
#define SHARED_NAME	96	/* bytes of "xx/name", terminating NUL included */
#define SHARED_OWNER	40	/* likewise, of an owner */

/**
 * struct shared_key - which frame
 * @layer: its UUID
 * @offset, @length: its place in the layer's object, C space
 */
struct shared_key {
	u8 layer[16];
	u64 offset;
	u32 length;
};

struct shared_head {
	u8 magic[8];
	__le32 version;
	__le32 length;
	__le64 offset;
	u8 layer[16];
	__le64 sum;
};

#define SHARED_ENTRY_MAX	(sizeof(struct shared_head) + SHARED_MAX)

enum shared_kind { SHARED_FOREIGN, SHARED_ENTRY, SHARED_PART };

/* shared_fits - may this frame be kept? */
bool shared_fits(const struct shared_key *key);

/* shared_room - bytes that an entry takes, by blocks of 4 KiB */
u64 shared_room(u32 length);

/* shared_entry_name - "xx/name" */
void shared_entry_name(const struct shared_key *key, char name[SHARED_NAME]);

/* shared_part_name - of a file that becomes the entry @key, beside it */
void shared_part_name(const struct shared_key *key, const char *owner,
		      u64 number, char name[SHARED_NAME]);

/**
 * shared_parse - what is a file in one of the folders?
 * @name: without the folder
 * @in: number of the folder
 * @key: out, for SHARED_ENTRY; for SHARED_PART its length alone
 */
enum shared_kind shared_parse(const char *name, unsigned int in,
			      struct shared_key *key);

/**
 * shared_begin - the head of @key's entry, but for the checksum
 *
 * Return: the checksum so far; shared_sum() adds each SHARED_PIECE bytes, the
 * last ones being fewer; then it belongs into head->sum, little-endian.
 */
u64 shared_begin(struct shared_head *head, const struct shared_key *key);
u64 shared_sum(u64 sum, const void *bytes, size_t len);

/**
 * shared_check - is this the entry of @key, whole?
 * @entry: what was read, @bytes of it
 * @why: out, if it is not
 *
 * Return: 0; -EINVAL.
 */
int shared_check(const void *entry, size_t bytes, const struct shared_key *key,
		 const char **why);

#endif

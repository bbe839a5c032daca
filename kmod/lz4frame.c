// SPDX-License-Identifier: GPL-2.0-only
/*
 * The walk through an LZ4 frame:
 *
 *	u32 magic | FLG | BD | [u64 content size] | [u32 dictionary] | HC
 *	{ u32 size, top bit: stored | data | [u32 XXH32 of data] }...
 *	u32 0 | [u32 XXH32 of the content]
 *
 * The header checksum is looked at before any flag is believed, so damage is
 * always -EBADMSG, which is worth another fetch, and -EOPNOTSUPP is always
 * what the writer of the frame meant.
 *
 * Blocks are independent, so each is one call of the block decoder, limited to
 * what is left of @dst. There is one pass over @src and, for the content
 * checksum, if it is wanted, a second one over @dst.
 */
#include "lz4frame.h"

#define LZ4F_MAGIC		0x184d2204U
#define LZ4F_BLOCK_STORED	0x80000000U

#define FLG_VERSION_MASK	0xc0
#define FLG_VERSION		0x40
#define FLG_INDEPENDENT		0x20
#define FLG_BLOCK_SUM		0x10
#define FLG_CONTENT_SIZE	0x08
#define FLG_CONTENT_SUM		0x04
#define FLG_RESERVED		0x02
#define FLG_DICTIONARY		0x01

/* The block size is 1 << (8 + 2 * n) bytes, n = 4..7 */
#define BD_SIZE_SHIFT		4
#define BD_RESERVED		0x8f
#define BD_SIZE_MIN		4

struct input {
	const u8 *p;
	size_t left;
};

struct descriptor {
	u8 flags;
	bool check;	/* the sums of blocks and content */
	u32 block_bytes;
};

static int bad(const char **why, const char *text)
{
	*why = text;
	return -EBADMSG;
}

static int refuse(const char **why, const char *text)
{
	*why = text;
	return -EOPNOTSUPP;
}

/* The next @bytes of the input, NULL where there are not so many. */
static const u8 *take(struct input *in, size_t bytes)
{
	const u8 *p = in->p;

	if (bytes > in->left)
		return NULL;
	in->p += bytes;
	in->left -= bytes;
	return p;
}

static int header_read(struct input *in, u64 dlen, struct descriptor *desc,
		       const char **why)
{
	const u8 *magic = take(in, 4);
	const u8 *fixed = take(in, 2);
	const u8 *content = NULL, *sum;
	size_t bytes = 2;
	u8 bd;

	if (!magic || lf_get_le32(magic) != LZ4F_MAGIC)
		return bad(why, "not an LZ4 frame");
	if (!fixed)
		return bad(why, "the LZ4 frame ends in its header");
	desc->flags = fixed[0];
	bd = fixed[1];

	if (desc->flags & FLG_CONTENT_SIZE) {
		content = take(in, 8);
		bytes += 8;
		if (!content)
			return bad(why, "the LZ4 frame ends in its header");
	}
	if (desc->flags & FLG_DICTIONARY) {
		bytes += 4;
		if (!take(in, 4))
			return bad(why, "the LZ4 frame ends in its header");
	}
	sum = take(in, 1);
	if (!sum)
		return bad(why, "the LZ4 frame ends in its header");
	if (*sum != ((xxh32(fixed, bytes, 0) >> 8) & 0xff))
		return bad(why, "the LZ4 frame's header checksum is wrong");

	if ((desc->flags & FLG_VERSION_MASK) != FLG_VERSION ||
	    (desc->flags & FLG_RESERVED) || (bd & BD_RESERVED) ||
	    bd >> BD_SIZE_SHIFT < BD_SIZE_MIN)
		return refuse(why, "the LZ4 frame is of an unknown version");
	if (desc->flags & FLG_DICTIONARY)
		return refuse(why, "the LZ4 frame needs a dictionary");
	if (!(desc->flags & FLG_INDEPENDENT))
		return refuse(why, "the LZ4 frame has linked blocks");
	if (content && lf_get_le64(content) != dlen)
		return bad(why, "the LZ4 frame's content has another size");

	desc->block_bytes = 1U << (8 + 2 * (bd >> BD_SIZE_SHIFT));
	return 0;
}

/* Return: bytes of content, 0 at the end mark or for an empty block (@end) */
static int block_read(struct input *in, const struct descriptor *desc, u8 *dst,
		      size_t room, bool *end, const char **why)
{
	const u8 *head = take(in, 4);
	const u8 *data, *sum;
	u32 size;
	int done;

	if (!head)
		return bad(why, "the LZ4 frame ends without an end mark");
	size = lf_get_le32(head);
	*end = !size;
	if (*end)
		return 0;

	if ((size & ~LZ4F_BLOCK_STORED) > desc->block_bytes)
		return bad(why, "a block of the LZ4 frame is too big");
	data = take(in, size & ~LZ4F_BLOCK_STORED);
	if (!data)
		return bad(why, "the LZ4 frame ends in a block");
	if (desc->flags & FLG_BLOCK_SUM) {
		sum = take(in, 4);
		if (!sum)
			return bad(why, "the LZ4 frame ends in a block");
		if (desc->check && lf_get_le32(sum) !=
		    xxh32(data, size & ~LZ4F_BLOCK_STORED, 0))
			return bad(why, "a block checksum of the LZ4 frame is wrong");
	}

	if (size & LZ4F_BLOCK_STORED) {
		size &= ~LZ4F_BLOCK_STORED;
		if (size > room)
			return bad(why, "the LZ4 frame's content is too long");
		memcpy(dst, data, size);
		return size;
	}

	if (room > desc->block_bytes)
		room = desc->block_bytes;
	done = LZ4_decompress_safe((const char *)data, (char *)dst, size, room);
	if (done < 0)
		return bad(why, "a block of the LZ4 frame does not decode");
	return done;
}

int lf_lz4_frame_decode(const void *src, size_t slen, void *dst, size_t dlen,
			bool check, const char **why)
{
	struct input in = { .p = src, .left = slen };
	struct descriptor desc = { .check = check };
	size_t done = 0;
	const u8 *sum;
	bool end;
	int ret;

	ret = header_read(&in, dlen, &desc, why);
	if (ret)
		return ret;

	do {
		ret = block_read(&in, &desc, (u8 *)dst + done, dlen - done,
				 &end, why);
		if (ret < 0)
			return ret;
		done += ret;
	} while (!end);

	if (done != dlen)
		return bad(why, "the LZ4 frame's content is too short");
	if (desc.flags & FLG_CONTENT_SUM) {
		sum = take(&in, 4);
		if (!sum)
			return bad(why, "the LZ4 frame ends in its checksum");
		if (check && lf_get_le32(sum) != xxh32(dst, dlen, 0))
			return bad(why, "the LZ4 frame's content checksum is wrong");
	}
	if (in.left)
		return bad(why, "bytes follow the LZ4 frame");
	return 0;
}

// SPDX-License-Identifier: GPL-2.0-only
#include "codec.h"

#include <linux/lazyframe.h>
#include <lz4frame.h>
#include <stdlib.h>
#include <zstd.h>

#include "../kmod/lz4frame.h"

#define ZSTD_MAGIC	0xfd2fb528U
#define LZ4_MAGIC	0x184d2204U
#define LZ4_OLD_MAGIC	0x184c2102U	/* "legacy" frames: lz4 -l */

/* Bits of a zstd frame's header descriptor, its fifth byte. */
#define ZSTD_FHD_RESERVED	0x08
#define ZSTD_FHD_UNUSED		0x10

static const struct codec codecs[] = {
	{ LAZYFRAME_CODEC_NONE, "none", "", 0, 0, 0 },
	{ LAZYFRAME_CODEC_ZSTD, "zstd", ".zstd", 1, 19, 1 },
	{ LAZYFRAME_CODEC_LZ4, "lz4", ".lz4", 1, 12, 1 },
};

struct codec_encoder {
	u32 id;
	ZSTD_CCtx *zstd;
	LZ4F_cctx *lz4;
	LZ4F_preferences_t prefs;
};

const struct codec *codec_by_name(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(codecs); i++)
		if (!strcmp(codecs[i].name, name))
			return &codecs[i];
	return NULL;
}

const struct codec *codec_by_id(u32 id)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(codecs); i++)
		if (codecs[i].id == id)
			return &codecs[i];
	return NULL;
}

static LZ4F_blockSizeID_t lz4_block_size(u32 frame_bytes)
{
	if (frame_bytes <= 64 << 10)
		return LZ4F_max64KB;
	if (frame_bytes <= 256 << 10)
		return LZ4F_max256KB;
	if (frame_bytes <= 1 << 20)
		return LZ4F_max1MB;
	return LZ4F_max4MB;
}

int codec_encoder_new(const struct codec *codec, int level, u32 frame_bytes,
		      struct codec_encoder **encoder, struct error *e)
{
	struct codec_encoder *enc = calloc(1, sizeof(*enc));
	size_t err;

	if (!enc)
		return no_memory(e);
	enc->id = codec->id;
	switch (codec->id) {
	case LAZYFRAME_CODEC_ZSTD:
		enc->zstd = ZSTD_createCCtx();
		if (!enc->zstd)
			goto fail;
		err = ZSTD_CCtx_setParameter(enc->zstd,
					     ZSTD_c_compressionLevel, level);
		if (!ZSTD_isError(err))
			err = ZSTD_CCtx_setParameter(enc->zstd,
						     ZSTD_c_checksumFlag, 1);
		if (ZSTD_isError(err))
			goto fail;
		break;
	case LAZYFRAME_CODEC_LZ4:
		err = LZ4F_createCompressionContext(&enc->lz4, LZ4F_VERSION);
		if (LZ4F_isError(err))
			goto fail;
		enc->prefs.compressionLevel = level;
		enc->prefs.autoFlush = 1;
		enc->prefs.frameInfo.blockSizeID = lz4_block_size(frame_bytes);
		enc->prefs.frameInfo.blockMode = LZ4F_blockIndependent;
		enc->prefs.frameInfo.contentChecksumFlag =
			LZ4F_contentChecksumEnabled;
		break;
	default:
		free(enc);
		return error_set(e, -EINVAL, "codec %s encodes nothing",
				 codec->name);
	}
	*encoder = enc;
	return 0;

fail:
	codec_encoder_free(enc);
	return error_set(e, -ENOMEM, "cannot set up %s at level %d",
			 codec->name, level);
}

void codec_encoder_free(struct codec_encoder *enc)
{
	if (!enc)
		return;
	ZSTD_freeCCtx(enc->zstd);
	LZ4F_freeCompressionContext(enc->lz4);
	free(enc);
}

size_t codec_bound(const struct codec_encoder *enc, size_t bytes)
{
	if (enc->id == LAZYFRAME_CODEC_ZSTD)
		return ZSTD_compressBound(bytes);
	return LZ4F_HEADER_SIZE_MAX + LZ4F_compressBound(bytes, &enc->prefs);
}

static size_t lz4_encode(struct codec_encoder *enc, u8 *dst, size_t room,
			 const void *src, size_t bytes)
{
	size_t n, at;

	enc->prefs.frameInfo.contentSize = bytes;
	at = LZ4F_compressBegin(enc->lz4, dst, room, &enc->prefs);
	if (LZ4F_isError(at))
		return at;
	n = LZ4F_compressUpdate(enc->lz4, dst + at, room - at, src, bytes,
				NULL);
	if (LZ4F_isError(n))
		return n;
	at += n;
	n = LZ4F_compressEnd(enc->lz4, dst + at, room - at, NULL);
	return LZ4F_isError(n) ? n : at + n;
}

int codec_encode(struct codec_encoder *enc, void *dst, const void *src,
		 size_t bytes, size_t *cbytes, struct error *e)
{
	size_t room = codec_bound(enc, bytes), n;

	if (enc->id == LAZYFRAME_CODEC_ZSTD) {
		n = ZSTD_compress2(enc->zstd, dst, room, src, bytes);
		if (ZSTD_isError(n))
			return error_set(e, -EIO, "zstd: %s",
					 ZSTD_getErrorName(n));
	} else {
		n = lz4_encode(enc, dst, room, src, bytes);
		if (LZ4F_isError(n))
			return error_set(e, -EIO, "LZ4: %s",
					 LZ4F_getErrorName(n));
	}
	*cbytes = n;
	return 0;
}

static int zstd_decode(const u8 *src, size_t slen, void *dst, size_t dlen,
		       const char **why)
{
	unsigned long long content;
	size_t n;

	if (slen < 5 || lf_get_le32(src) != ZSTD_MAGIC) {
		*why = "not a zstd frame";
		return -EBADMSG;
	}
	/* Decoders may overlook this one; no encoder sets it. */
	if (src[4] & (ZSTD_FHD_RESERVED | ZSTD_FHD_UNUSED)) {
		*why = "reserved bits are set in the zstd frame's header";
		return -EBADMSG;
	}
	n = ZSTD_findFrameCompressedSize(src, slen);
	if (ZSTD_isError(n)) {
		*why = ZSTD_getErrorName(n);
		return -EBADMSG;
	}
	if (n != slen) {
		*why = "the zstd frame ends before its place in the table does";
		return -EBADMSG;
	}
	content = ZSTD_getFrameContentSize(src, slen);
	if (content != ZSTD_CONTENTSIZE_UNKNOWN && content != dlen) {
		*why = "the zstd frame's content size is not the table's";
		return -EBADMSG;
	}
	n = ZSTD_decompress(dst, dlen, src, slen);
	if (ZSTD_isError(n)) {
		*why = ZSTD_getErrorName(n);
		return -EBADMSG;
	}
	if (n != dlen) {
		*why = "the zstd frame's content is shorter than the table says";
		return -EBADMSG;
	}
	return 0;
}

int codec_decode(u32 id, const void *src, size_t slen, void *dst, size_t dlen,
		 const char **why)
{
	switch (id) {
	case LAZYFRAME_CODEC_NONE:
		if (slen != dlen) {
			*why = "a raw run has the wrong size";
			return -EBADMSG;
		}
		memcpy(dst, src, dlen);
		return 0;
	case LAZYFRAME_CODEC_ZSTD:
		return zstd_decode(src, slen, dst, dlen, why);
	case LAZYFRAME_CODEC_LZ4:
		return lf_lz4_frame_decode(src, slen, dst, dlen, true, why);
	default:
		*why = "unknown codec";
		return -EOPNOTSUPP;
	}
}

u32 codec_detect(const void *head)
{
	switch (lf_get_le32(head)) {
	case ZSTD_MAGIC:
		return LAZYFRAME_CODEC_ZSTD;
	case LZ4_MAGIC:
	case LZ4_OLD_MAGIC:
		return LAZYFRAME_CODEC_LZ4;
	default:
		return LAZYFRAME_CODEC_NONE;
	}
}

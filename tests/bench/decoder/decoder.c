// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the kernel's LZ4 decoder takes alone, which is the limit for reads of LZ4
 * frames: decodes each block of a data object into the same memory, and says in
 * the parameter "took" how many nanoseconds 1 MiB of content takes. The object is
 * one that "lazyframe build" made; nothing is checked but that memory is safe.
 */
#include <linux/fs.h>
#include <linux/ktime.h>
#include <linux/lz4.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/sizes.h>
#include <linux/vmalloc.h>

#define MAGIC		0x184d2204
#define STORED		BIT(31)
#define CONTENT_SIZE	0x08
#define CONTENT_SUM	0x04
#define MAX_OBJECT	SZ_64M
#define ROOM		SZ_4M
#define ROUNDS		3

static char *object;
module_param(object, charp, 0);
MODULE_PARM_DESC(object, "path of a data object of LZ4 frames");

static ulong took;
module_param(took, ulong, 0444);
MODULE_PARM_DESC(took, "nanoseconds for 1 MiB");

static u32 word(const u8 *p)
{
	return p[0] | p[1] << 8 | p[2] << 16 | (u32)p[3] << 24;
}

/* The first frame of @p..@end: bytes of its content; *@next: the one behind it. */
static int decode(const u8 *p, const u8 *end, const u8 **next, void *out)
{
	u8 flags = p[4];
	int done = 0;

	p += flags & CONTENT_SIZE ? 15 : 7;
	while (end - p >= 4) {
		u32 bytes = word(p) & ~STORED;
		bool stored = word(p) & STORED;
		int ret = bytes;

		p += 4;
		if (!bytes)
			break;
		if (bytes > end - p || bytes > ROOM - done)
			return -EBADMSG;
		if (stored)
			memcpy(out + done, p, bytes);
		else
			ret = LZ4_decompress_safe(p, out + done, bytes,
						  ROOM - done);
		if (ret < 0)
			return -EBADMSG;
		done += ret;
		p += bytes;
	}
	*next = p + (flags & CONTENT_SUM ? 4 : 0);
	return done;
}

static int measure(const u8 *p, size_t bytes, void *out)
{
	const u8 *end = p + bytes;
	u64 start = ktime_get_ns();
	u64 content = 0;

	while (end - p >= 15 && word(p) == MAGIC) {
		int ret = decode(p, end, &p, out);

		if (ret < 0)
			return ret;
		content += ret;
	}
	if (!content)
		return -EBADMSG;
	took = min_not_zero(took, (ulong)div64_u64((ktime_get_ns() - start) << 20,
						    content));
	return 0;
}

/* Return: bytes read, below MAX_OBJECT */
static ssize_t object_read(void *data)
{
	struct file *file = filp_open(object, O_RDONLY | O_LARGEFILE, 0);
	loff_t pos = 0;
	ssize_t n;

	if (IS_ERR(file))
		return PTR_ERR(file);
	do {
		n = kernel_read(file, data + pos, MAX_OBJECT - pos, &pos);
	} while (n > 0);
	filp_close(file, NULL);
	return n < 0 ? n : pos;
}

static int __init decoder_init(void)
{
	void *data = vmalloc(MAX_OBJECT);
	void *out = vmalloc(ROOM);
	ssize_t bytes = -ENOMEM;
	int i, err = 0;

	if (!object)
		bytes = -EINVAL;
	else if (data && out)
		bytes = object_read(data);
	if (bytes < 0)
		err = bytes;
	for (i = 0; !err && i < ROUNDS; i++)
		err = measure(data, bytes, out);
	vfree(data);
	vfree(out);
	return err;
}
module_init(decoder_init);

static void __exit decoder_exit(void)
{
}
module_exit(decoder_exit);

MODULE_DESCRIPTION("What the LZ4 decoder takes alone");
MODULE_LICENSE("GPL");

/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Objects: what build, inspect, verify and attach read and write. One ops
 * table per URL scheme; the daemon has its own, asynchronous, reader.
 */
#ifndef LF_OBJECT_H
#define LF_OBJECT_H

#include "error.h"
#include "../kmod/pure.h"

/**
 * struct object_info - what a store says about an object
 * @bytes: its size
 * @ubytes: its "uncompressed-size" metadata, if @has_ubytes
 * @validator: strong entity tag as in a HTTP ETag header (quotes included), or ""
 */
struct object_info {
	u64 bytes;
	u64 ubytes;
	bool has_ubytes;
	char validator[256];
};

/**
 * struct object_entry - an object as a listing shows it
 * @dir: the object is <url>/@dir/@name; neither is escaped
 * @bytes: its size
 * @age: seconds since it was written, 0 if that seems to be in the future
 */
struct object_entry {
	const char *dir;
	const char *name;
	u64 bytes;
	u64 age;
};

/* Return: not 0 ends the listing, which returns it */
typedef int object_each(void *arg, const struct object_entry *entry,
			struct error *e);

struct object_put;

/*
 * Files have no entity tag of their own. Whoever reads file:// makes one up
 * by this rule, so that the tag seen at attach can be compared later:
 * quote, inode number, "-", size, "-", mtime in nanoseconds, quote; the numbers in
 * lower-case hex without leading zeros. It is strong as far as the file
 * system's times are.
 */
#define OBJECT_FILE_VALIDATOR	"\"%llx-%llx-%llx\""

/**
 * struct object_ops - one kind of store
 *
 * All take full URLs, return 0 or a negative errno, and set the error's text.
 * -ENOENT: no such object. put() and put_commit() make the whole object visible at
 * once or not at all; nothing half-written is ever visible under its name.
 * -EEXIST: there is an object of this name, which is left as it is.
 *
 * @scheme: "file", "http", "s3"
 * @writable: can objects be put below this URL? Changes nothing; a later put
 *	      may fail all the same.
 * @stat: size, metadata
 * @get_range: exactly @len bytes or an error
 * @peek: both in one request: what stat() tells and a whole object of at most
 *	  @len bytes, or (@tail) the last @len bytes of a longer one. @data:
 *	  malloc()ed, the caller frees. -EFBIG, with @info set: longer, and no
 *	  @tail. -EAGAIN: not to be had in this way.
 * @put: a small object in one go, with "uncompressed-size" unless @ubytes is ~0.
 *	 @over: in one step in place of what is there, which stays if that fails
 * @put_begin: start a big object that arrives in parts, one behind the other, from
 *	       one thread
 * @put_part: @off and @len of one part
 * @put_commit: all parts are in: @bytes in total
 * @put_abort: forget it; allowed at any time between begin and commit
 * @delete: -ENOENT where there is none, or 0 where the store does not tell
 * @list: all objects two levels below @url, in any order, but for those with a
 *	  name or directory that begins with a dot
 * A store that is read-only leaves the put functions NULL; one that cannot be
 * listed leaves @list NULL, one where requests cost nothing @peek.
 */
struct object_ops {
	const char *scheme;
	int (*writable)(const char *url, struct error *e);
	int (*stat)(const char *url, struct object_info *info, struct error *e);
	int (*get_range)(const char *url, u64 off, void *buf, size_t len,
			 struct error *e);
	int (*peek)(const char *url, bool tail, size_t len, void **data,
		    struct object_info *info, struct error *e);
	int (*put)(const char *url, const void *buf, size_t len, u64 ubytes,
		   bool over, struct error *e);
	int (*put_begin)(const char *url, u64 ubytes, struct object_put **put,
			 struct error *e);
	int (*put_part)(struct object_put *put, u64 off, const void *buf,
			size_t len, struct error *e);
	int (*put_commit)(struct object_put *put, u64 bytes, u64 ubytes,
			  struct error *e);
	void (*put_abort)(struct object_put *put);
	int (*delete)(const char *url, struct error *e);
	int (*list)(const char *url, object_each *each, void *arg,
		    struct error *e);
};

extern const struct object_ops object_file_ops;
extern const struct object_ops object_http_ops;
extern const struct object_ops object_s3_ops;

/**
 * object_ops - the ops for a URL; NULL with the error set where there are none
 */
const struct object_ops *object_ops(const char *url, struct error *e);

/**
 * object_get - a whole object of at most @max bytes
 * @data: out, malloc()ed, the caller frees
 */
int object_get(const char *url, u64 max, void **data, size_t *bytes,
	       struct error *e);

/**
 * object_tail - what stat() tells, and an object's last @len bytes
 * @data: out, malloc()ed, the caller frees; all of an object that has fewer
 */
int object_tail(const char *url, size_t len, void **data,
		struct object_info *info, struct error *e);

#endif

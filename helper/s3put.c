// SPDX-License-Identifier: GPL-2.0-only
#include "s3put.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "xml.h"

#define UPLOADS		4	/* parts at a time */
#define FIRST_PART	(16ULL << 20)
#define STEADY		2000	/* parts of that size; then they double ... */
#define STEP		1000	/* ... after each so many */
#define COPY_PART	(1024ULL << 20)

/* @next: the one in front in the queue */
struct part {
	struct part *next;
	unsigned int number;
	size_t len;
	u8 *data;
};

/**
 * struct object_put
 * @name: of the object
 * @url: of the upload in parts: @name, or where the store cannot end that on a
 *	 condition another one
 * @id: of the multipart upload; NULL as long as all fits into one part
 * @off: where the next bytes belong
 * @part: being filled, of @room bytes
 * @etag: of the parts that are there, by number - 1
 * Under @lock:
 * @queue: parts that no thread has begun with
 * @busy: parts queued or on their way
 * @err, @problem: the first failure
 */
struct object_put {
	char *name;
	char *url;
	char *id;
	u64 off;
	u64 ubytes;
	struct part *part;
	size_t room;
	unsigned int parts;
	char **etag;
	pthread_mutex_t lock;
	pthread_cond_t work;
	pthread_cond_t done;
	pthread_t thread[UPLOADS];
	unsigned int threads;
	struct part *queue;
	unsigned int busy;
	bool end;
	atomic_bool stop;
	int err;
	struct error problem;
};

u64 s3_part_bytes(unsigned int number)
{
	u64 bytes = FIRST_PART;

	for (; number > STEADY && bytes < S3_MAX_PART / 2; number -= STEP)
		bytes *= 2;
	return bytes;
}

/* Small requests */

/* -EEXIST if there is an object already, 0 if there is none, or a failure */
static int look(const char *url, u64 *bytes, struct error *e)
{
	struct s3_ask ask = { .call = { .method = "HEAD", .url = url } };
	struct s3_reply reply;
	int err = s3_do(&ask, &reply, e);

	*bytes = reply.length;
	free(reply.body);
	if (!err)
		return error_set(e, -EEXIST, "%s: exists already", url);
	/* Who may write need not be allowed to look: the put will tell. */
	return err == -ENOENT || err == -EACCES ? 0 : err;
}

/*
 * A put was refused because the object exists. If an attempt before may have
 * been carried out, and the size is ours, it is ours: names have a random UUID.
 */
static int resolve(const char *url, const struct s3_reply *reply, u64 bytes,
		   int err, struct error *e)
{
	u64 there = ~0ULL;

	if ((err == -EEXIST || err == -ENOENT) && reply->unsure &&
	    look(url, &there, NULL) == -EEXIST && there == bytes)
		return 0;
	if (err == -EEXIST)
		error_set(e, err, "%s: exists already", url);
	return err;
}

/* The headers of what is put: how much it holds, and that it shall be new */
static size_t meta_headers(const char *url, u64 ubytes, bool only_new,
			   char number[24], struct sigv4_header header[2])
{
	const struct bucket_words *words = bucket_words(url);
	size_t n = 0;

	snprintf(number, 24, "%llu", (unsigned long long)ubytes);
	if (ubytes != ~0ULL)
		header[n++] = (struct sigv4_header){ words->ubytes, number };
	if (only_new)
		header[n++] = (struct sigv4_header){ words->only_new,
						     words->only_new_value };
	return n;
}

static int put_whole(const char *url, const void *buf, size_t len, u64 ubytes,
		     bool only_new, const atomic_bool *stop, struct error *e)
{
	struct sigv4_header header[2];
	char number[24];
	struct s3_ask ask = {
		.call = {
			.method = "PUT",
			.url = url,
			.header = header,
			.headers = meta_headers(url, ubytes, only_new, number,
						header),
		},
		.data = len ? buf : "",
		.bytes = len,
		.stop = stop,
	};
	struct s3_reply reply;
	int err;

	err = s3_ask(&ask, &reply, e);
	if (!err)
		err = resolve(url, &reply, len, s3_expect(&ask, &reply, e), e);
	free(reply.body);
	return err;
}

int s3_put(const char *url, const void *buf, size_t len, u64 ubytes, bool over,
	   struct error *e)
{
	u64 bytes;
	int err = over ? 0 : look(url, &bytes, e);

	return err ? err : put_whole(url, buf, len, ubytes, !over, NULL, e);
}

/* Parts */

static char *upload_query(const char *id, unsigned int number)
{
	char *escaped = url_escape(id, ""), *query = NULL;
	int n = -1;

	if (escaped && number)
		n = asprintf(&query, "partNumber=%u&uploadId=%s", number,
			     escaped);
	else if (escaped)
		n = asprintf(&query, "uploadId=%s", escaped);
	free(escaped);
	return n < 0 ? NULL : query;
}

static int send_part(struct object_put *put, const struct part *part,
		     struct error *e)
{
	struct s3_ask ask = {
		.call = { .method = "PUT", .url = put->url },
		.data = part->data,
		.bytes = part->len,
		.stop = &put->stop,
	};
	char *query = upload_query(put->id, part->number);
	struct s3_reply reply;
	int err;

	if (!query)
		return no_memory(e);
	ask.call.query = query;
	err = s3_do(&ask, &reply, e);
	if (!err && !*reply.etag)
		err = error_set(e, -EPROTO, "%s: a part without an entity tag",
				put->url);
	if (!err) {
		put->etag[part->number - 1] = strdup(reply.etag);
		if (!put->etag[part->number - 1])
			err = no_memory(e);
	}
	if (err)
		error_prefix(e, "part %u", part->number);
	free(reply.body);
	free(query);
	return err;
}

static void part_free(struct part *part)
{
	if (part)
		free(part->data);
	free(part);
}

static void *upload_thread(void *arg)
{
	struct object_put *put = arg;

	pthread_mutex_lock(&put->lock);
	for (;;) {
		struct part *part = put->queue;
		struct error e = { "" };
		int err = put->err;

		if (!part && put->end)
			break;
		if (!part) {
			pthread_cond_wait(&put->work, &put->lock);
			continue;
		}
		put->queue = part->next;
		pthread_mutex_unlock(&put->lock);
		if (!err)
			err = send_part(put, part, &e);
		part_free(part);
		pthread_mutex_lock(&put->lock);
		if (err && !put->err) {
			put->err = err;
			put->problem = e;
		}
		put->busy--;
		pthread_cond_signal(&put->done);
	}
	pthread_mutex_unlock(&put->lock);
	return NULL;
}

/* Until no more than @most parts are queued or on their way */
static int wait_for_parts(struct object_put *put, unsigned int most,
			  struct error *e)
{
	int err;

	pthread_mutex_lock(&put->lock);
	while (put->busy > most)
		pthread_cond_wait(&put->done, &put->lock);
	err = put->err;
	if (err)
		*e = put->problem;
	pthread_mutex_unlock(&put->lock);
	return err;
}

static void end_threads(struct object_put *put)
{
	unsigned int i;

	pthread_mutex_lock(&put->lock);
	put->end = true;
	pthread_cond_broadcast(&put->work);
	pthread_mutex_unlock(&put->lock);
	for (i = 0; i < put->threads; i++)
		pthread_join(put->thread[i], NULL);
	put->threads = 0;
}

/* One request that begins, completes or ends an upload. @reply: to be freed */
static int ask_upload(const char *url, const char *method, const char *query,
		      u64 ubytes, const char *body, bool only_new,
		      struct s3_reply *reply, struct error *e)
{
	struct sigv4_header header[2];
	char number[24];
	struct s3_ask ask = {
		.call = {
			.method = method,
			.url = url,
			.query = query,
			.header = header,
			.headers = meta_headers(url, ubytes, only_new, number,
						header),
		},
		.data = body,
		.bytes = body ? strlen(body) : 0,
	};

	return s3_do(&ask, reply, e);
}

static int begin(const char *url, u64 ubytes, char **id, struct error *e)
{
	struct s3_reply reply;
	int err;

	err = ask_upload(url, "POST", "uploads", ubytes, "", false, &reply, e);
	if (!err) {
		*id = xml_get(reply.body, "UploadId", NULL);
		if (!*id)
			err = error_set(e, -EPROTO,
					"%s: the server names no upload", url);
	}
	free(reply.body);
	return err;
}

/* Whatever happened to it; what fails here, the store's own rules clean up. */
static void forget(const char *url, const char *id)
{
	char *query = upload_query(id, 0);
	struct s3_reply reply = { };

	if (query)
		ask_upload(url, "DELETE", query, ~0ULL, NULL, false, &reply,
			   NULL);
	free(reply.body);
	free(query);
}

static char *parts_list(char *const *etag, unsigned int parts)
{
	char *text = NULL;
	unsigned int i;
	size_t size;
	FILE *f;

	f = open_memstream(&text, &size);
	if (!f)
		return NULL;
	fputs("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">",
	      f);
	for (i = 0; i < parts; i++) {
		const char *p;

		fprintf(f, "<Part><PartNumber>%u</PartNumber><ETag>", i + 1);
		for (p = etag[i]; *p; p++) {
			if (strchr("<>&", *p))
				fprintf(f, "&#%d;", *p);
			else
				putc(*p, f);
		}
		fputs("</ETag></Part>", f);
	}
	fputs("</CompleteMultipartUpload>", f);
	if (ferror(f) | fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}

static int complete(const char *url, const char *id, char *const *etag,
		    unsigned int parts, u64 bytes, bool only_new,
		    struct error *e)
{
	char *query = upload_query(id, 0), *list = parts_list(etag, parts);
	struct s3_reply reply = { };
	int err;

	if (query && list) {
		err = ask_upload(url, "POST", query, ~0ULL, list, only_new,
				 &reply, e);
		if (err != -EIO)
			err = resolve(url, &reply, bytes, err, e);
	} else {
		err = no_memory(e);
	}
	free(reply.body);
	free(list);
	free(query);
	return err;
}

/* Metadata of an object that is there */

/* The value of the header that names an object to copy; malloc()ed */
static char *copy_source(const char *url, struct error *e)
{
	struct bucket_url parsed;
	char *source = NULL;

	if (!bucket_parse(url, &parsed, e) &&
	    asprintf(&source, "/%s/%s", parsed.bucket, parsed.key) < 0) {
		source = NULL;
		no_memory(e);
	}
	bucket_free(&parsed);
	return source;
}

/* A copy of an object, with other metadata: onto itself, or as a new one */
static int copy(const char *from, const char *to, u64 bytes, u64 ubytes,
		struct error *e)
{
	const struct bucket_words *words = bucket_words(to);
	struct sigv4_header header[4];
	char number[24], *source = copy_source(from, e);
	struct s3_ask ask = {
		.call = { .method = "PUT", .url = to, .header = header },
		.data = "",	/* else there would be no Content-Length */
	};
	struct s3_reply reply = { };
	size_t n;
	int err;

	if (!source)
		return -ENOMEM;
	n = meta_headers(to, ubytes, strcmp(from, to), number, header);
	header[n++] = (struct sigv4_header){ words->source, source };
	header[n++] = (struct sigv4_header){ words->replace, "REPLACE" };
	ask.call.headers = n;
	err = s3_ask(&ask, &reply, e);
	if (!err)
		err = s3_expect(&ask, &reply, e);
	if (err && strcmp(from, to))
		err = resolve(to, &reply, bytes, err, e);
	free(reply.body);
	free(source);
	return err;
}

static int copy_part(const char *url, const char *query, const char *range,
		     char **etag, struct error *e)
{
	const struct bucket_words *words = bucket_words(url);
	char *source = copy_source(url, e);
	struct sigv4_header header[] = {
		{ words->source, source },
		{ words->source_range, range },
	};
	struct s3_ask ask = {
		.call = { .method = "PUT", .url = url, .query = query,
			  .header = header, .headers = ARRAY_SIZE(header) },
		.data = "",
	};
	struct s3_reply reply = { };
	int err = source ? s3_do(&ask, &reply, e) : -ENOMEM;

	if (!err) {
		*etag = xml_get(reply.body, "ETag", NULL);
		if (!*etag)
			err = error_set(e, -EPROTO,
					"%s: a part without an entity tag", url);
	}
	free(reply.body);
	free(source);
	return err;
}

static int copy_parts(const char *url, const char *id, u64 bytes, char **etag,
		      unsigned int parts, struct error *e)
{
	unsigned int i;
	int err = 0;

	for (i = 0; i < parts && !err; i++) {
		u64 first = i * COPY_PART, last = first + COPY_PART;
		char range[64], *query = upload_query(id, i + 1);

		snprintf(range, sizeof(range), "bytes=%llu-%llu",
			 (unsigned long long)first,
			 (unsigned long long)(last < bytes ? last : bytes) - 1);
		err = query ? copy_part(url, query, range, &etag[i], e) :
			      no_memory(e);
		free(query);
	}
	return err;
}

int s3_set_ubytes(const char *url, u64 bytes, u64 ubytes, struct error *e)
{
	unsigned int parts = (bytes + COPY_PART - 1) / COPY_PART, i;
	char **etag, *id = NULL;
	int err;

	if (bytes <= COPY_PART)
		return copy(url, url, bytes, ubytes, e);
	etag = calloc(parts, sizeof(*etag));
	if (!etag)
		return no_memory(e);
	err = begin(url, ubytes, &id, e);
	if (!err)
		err = copy_parts(url, id, bytes, etag, parts, e);
	if (!err)
		err = complete(url, id, etag, parts, bytes, false, e);
	if (err && id)
		forget(url, id);
	for (i = 0; i < parts; i++)
		free(etag[i]);
	free(etag);
	free(id);
	return err;
}

/* Objects that come in pieces */

static int begin_upload(struct object_put *put, struct error *e)
{
	int err = begin(put->url, put->ubytes, &put->id, e);

	if (err)
		return err;
	for (; put->threads < UPLOADS; put->threads++)
		if (pthread_create(&put->thread[put->threads], NULL,
				   upload_thread, put))
			break;
	return put->threads ? 0 : error_set(e, -EAGAIN, "cannot start a thread");
}

/* What is being filled is full, or the last. */
static int queue_part(struct object_put *put, struct error *e)
{
	struct part *part = put->part, **last;
	int err = 0;

	if (!put->id)
		err = begin_upload(put, e);
	/* As many wait as are on their way: reading goes on meanwhile. */
	if (!err)
		err = wait_for_parts(put, 2 * put->threads - 1, e);
	if (err)
		return err;
	put->part = NULL;
	part->next = NULL;
	pthread_mutex_lock(&put->lock);
	for (last = &put->queue; *last; last = &(*last)->next)
		;
	*last = part;
	put->busy++;
	pthread_cond_signal(&put->work);
	pthread_mutex_unlock(&put->lock);
	return 0;
}

static int new_part(struct object_put *put, struct error *e)
{
	struct part *part;

	if (put->parts == S3_MAX_PARTS)
		return error_set(e, -EFBIG, "%s: more than %u parts", put->url,
				 S3_MAX_PARTS);
	put->room = s3_part_bytes(put->parts + 1);
	part = calloc(1, sizeof(*part));
	if (part)
		part->data = malloc(put->room);
	if (!part || !part->data) {
		part_free(part);
		return no_memory(e);
	}
	part->number = ++put->parts;
	put->part = part;
	return 0;
}

int s3_put_part(struct object_put *put, u64 off, const void *buf, size_t len,
		struct error *e)
{
	const u8 *p = buf;
	int err;

	if (off != put->off)
		return error_set(e, -EINVAL, "%s: parts out of order", put->name);
	put->off += len;
	if (put->off > S3_MAX_OBJECT)
		return error_set(e, -EFBIG,
				 "%s: more than 5 TiB, which is all that S3 takes",
				 put->url);
	while (len) {
		size_t n = len;

		/* Full, and more comes: so there is more than one part. */
		if (put->part && put->part->len == put->room) {
			err = queue_part(put, e);
			if (err)
				return err;
		}
		if (!put->part) {
			err = new_part(put, e);
			if (err)
				return err;
		}
		if (n > put->room - put->part->len)
			n = put->room - put->part->len;
		memcpy(put->part->data + put->part->len, p, n);
		put->part->len += n;
		p += n;
		len -= n;
	}
	return 0;
}

/* See struct object_put. Listings leave out what begins with a dot. */
static char *upload_url(const char *url)
{
	const char *slash = strrchr(url, '/');
	char *other;

	if (bucket_words(url)->parts_only_new)
		return strdup(url);
	return asprintf(&other, "%.*s.%s.parts", (int)(slash + 1 - url), url,
			slash + 1) < 0 ? NULL : other;
}

int s3_put_begin(const char *url, u64 ubytes, struct object_put **out,
		 struct error *e)
{
	struct object_put *put;
	u64 bytes;
	int err = look(url, &bytes, e);

	if (err)
		return err;
	put = calloc(1, sizeof(*put));
	if (!put)
		return no_memory(e);
	put->ubytes = ubytes;
	put->name = strdup(url);
	put->url = upload_url(url);
	put->etag = calloc(S3_MAX_PARTS, sizeof(*put->etag));
	if (!put->name || !put->url || !put->etag) {
		free(put->url);
		free(put->name);
		free(put->etag);
		free(put);
		return no_memory(e);
	}
	pthread_mutex_init(&put->lock, NULL);
	pthread_cond_init(&put->work, NULL);
	pthread_cond_init(&put->done, NULL);
	*out = put;
	return 0;
}

static void put_free(struct object_put *put)
{
	struct part *part;
	unsigned int i;

	end_threads(put);
	while ((part = put->queue)) {
		put->queue = part->next;
		part_free(part);
	}
	part_free(put->part);
	for (i = 0; i < S3_MAX_PARTS; i++)
		free(put->etag[i]);
	free(put->etag);
	free(put->id);
	free(put->url);
	free(put->name);
	pthread_cond_destroy(&put->done);
	pthread_cond_destroy(&put->work);
	pthread_mutex_destroy(&put->lock);
	free(put);
}

/* Of an upload that has ended, under its other name, if there is any */
static void remove_upload(const struct object_put *put)
{
	struct s3_ask ask = { .call = { .method = "DELETE", .url = put->url } };
	struct s3_reply reply = { };

	s3_do(&ask, &reply, NULL);
	free(reply.body);
}

/* What is at put->url becomes the object, and is left there no longer. */
static int rename_upload(struct object_put *put, u64 bytes, u64 ubytes,
			 struct error *e)
{
	int err = copy(put->url, put->name, bytes, ubytes, e);

	/* What fails here, nobody sees: the object is as it shall be. */
	if (!err)
		remove_upload(put);
	return err;
}

int s3_put_commit(struct object_put *put, u64 bytes, u64 ubytes,
		  struct error *e)
{
	bool only_new = bucket_words(put->name)->parts_only_new;
	struct part *part = put->part;
	int err = 0;

	if (bytes != put->off)
		err = error_set(e, -EINVAL, "%s: parts are missing", put->name);
	else if (!put->id)
		err = put_whole(put->name, part ? part->data : NULL,
				part ? part->len : 0, ubytes, true, &put->stop,
				e);
	else if (part)
		err = queue_part(put, e);
	if (!err && put->id)
		err = wait_for_parts(put, 0, e);
	if (!err && put->id)
		err = complete(put->url, put->id, put->etag, put->parts, bytes,
			       only_new, e);
	if (!err && put->id && !only_new)
		err = rename_upload(put, bytes, ubytes, e);
	if (err) {
		s3_put_abort(put);
		return err;
	}
	if (put->id && only_new && ubytes != put->ubytes)
		err = s3_set_ubytes(put->url, bytes, ubytes, e);
	put_free(put);
	return err;
}

void s3_put_abort(struct object_put *put)
{
	atomic_store(&put->stop, true);
	end_threads(put);
	/* With nothing on its way any more: what comes late would stay. */
	if (put->id) {
		forget(put->url, put->id);
		if (!bucket_words(put->name)->parts_only_new)
			remove_upload(put);
	}
	put_free(put);
}

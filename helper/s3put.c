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
#define UBYTES		"x-amz-meta-uncompressed-size"
#define ONLY_NEW	"If-None-Match: *"

/* @next: the one in front in the queue */
struct part {
	struct part *next;
	unsigned int number;
	size_t len;
	u8 *data;
};

/**
 * struct object_put
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

static int no_memory(struct error *e)
{
	return error_set(e, -ENOMEM, "out of memory");
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

static int put_whole(const char *url, const void *buf, size_t len, u64 ubytes,
		     const atomic_bool *stop, struct error *e)
{
	static const char *const only_new[] = { ONLY_NEW, NULL };
	char number[24];
	struct sigv4_header meta = { UBYTES, number };
	struct s3_ask ask = {
		.call = {
			.method = "PUT",
			.url = url,
			.header = &meta,
			.headers = ubytes != ~0ULL,
		},
		.data = len ? buf : "",
		.bytes = len,
		.line = only_new,
		.stop = stop,
	};
	struct s3_reply reply;
	int err;

	snprintf(number, sizeof(number), "%llu", (unsigned long long)ubytes);
	err = s3_ask(&ask, &reply, e);
	if (!err)
		err = resolve(url, &reply, len, s3_expect(&ask, &reply, e), e);
	free(reply.body);
	return err;
}

int s3_put(const char *url, const void *buf, size_t len, u64 ubytes,
	   struct error *e)
{
	u64 bytes;
	int err = look(url, &bytes, e);

	return err ? err : put_whole(url, buf, len, ubytes, NULL, e);
}

/* Parts */

static char *upload_query(const char *id, unsigned int number)
{
	char *escaped = s3_escape(id, ""), *query = NULL;
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
		      u64 ubytes, const char *body, const char *const *line,
		      struct s3_reply *reply, struct error *e)
{
	char number[24];
	struct sigv4_header meta = { UBYTES, number };
	struct s3_ask ask = {
		.call = {
			.method = method,
			.url = url,
			.query = query,
			.header = &meta,
			.headers = ubytes != ~0ULL,
		},
		.data = body,
		.bytes = body ? strlen(body) : 0,
		.line = line,
	};

	snprintf(number, sizeof(number), "%llu", (unsigned long long)ubytes);
	return s3_do(&ask, reply, e);
}

static int begin(const char *url, u64 ubytes, char **id, struct error *e)
{
	struct s3_reply reply;
	int err;

	err = ask_upload(url, "POST", "uploads", ubytes, "", NULL, &reply, e);
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
		ask_upload(url, "DELETE", query, ~0ULL, NULL, NULL, &reply,
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
		    unsigned int parts, u64 bytes, const char *const *line,
		    struct error *e)
{
	char *query = upload_query(id, 0), *list = parts_list(etag, parts);
	struct s3_reply reply = { };
	int err;

	if (query && list) {
		err = ask_upload(url, "POST", query, ~0ULL, list, line, &reply,
				 e);
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

/* One copy of a part, or without @query of all, of an object onto itself. */
static int copy(const char *url, const char *query, const char *range,
		u64 ubytes, char **etag, struct error *e)
{
	struct sigv4_header header[4] = { };
	char number[24], *source = NULL;
	struct s3_ask ask = {
		.call = { .method = "PUT", .url = url, .query = query,
			  .header = header },
		.data = "",	/* else there would be no Content-Length */
	};
	struct s3_reply reply = { };
	struct s3_url parsed;
	int err;

	snprintf(number, sizeof(number), "%llu", (unsigned long long)ubytes);
	err = s3_url_parse(url, &parsed, e);
	if (!err && asprintf(&source, "/%s/%s", parsed.bucket, parsed.key) < 0) {
		source = NULL;
		err = no_memory(e);
	}
	header[0] = (struct sigv4_header){ "x-amz-copy-source", source };
	if (range) {
		header[1] = (struct sigv4_header){ "x-amz-copy-source-range",
						   range };
		ask.call.headers = 2;
	} else {
		header[1] = (struct sigv4_header){ "x-amz-metadata-directive",
						   "REPLACE" };
		header[2] = (struct sigv4_header){ UBYTES, number };
		ask.call.headers = 3;
	}
	if (!err)
		err = s3_do(&ask, &reply, e);
	if (!err && etag) {
		*etag = xml_get(reply.body, "ETag", NULL);
		if (!*etag)
			err = error_set(e, -EPROTO,
					"%s: a part without an entity tag", url);
	}
	free(reply.body);
	free(source);
	s3_url_free(&parsed);
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
		err = query ? copy(url, query, range, 0, &etag[i], e) :
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
		return copy(url, NULL, NULL, ubytes, NULL, e);
	etag = calloc(parts, sizeof(*etag));
	if (!etag)
		return no_memory(e);
	err = begin(url, ubytes, &id, e);
	if (!err)
		err = copy_parts(url, id, bytes, etag, parts, e);
	if (!err)
		err = complete(url, id, etag, parts, bytes, NULL, e);
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
		return error_set(e, -EINVAL, "%s: parts out of order", put->url);
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
	put->url = strdup(url);
	put->etag = calloc(S3_MAX_PARTS, sizeof(*put->etag));
	if (!put->url || !put->etag) {
		free(put->url);
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
	pthread_cond_destroy(&put->done);
	pthread_cond_destroy(&put->work);
	pthread_mutex_destroy(&put->lock);
	free(put);
}

int s3_put_commit(struct object_put *put, u64 bytes, u64 ubytes,
		  struct error *e)
{
	static const char *const only_new[] = { ONLY_NEW, NULL };
	struct part *part = put->part;
	int err = 0;

	if (bytes != put->off)
		err = error_set(e, -EINVAL, "%s: parts are missing", put->url);
	else if (!put->id)
		err = put_whole(put->url, part ? part->data : NULL,
				part ? part->len : 0, ubytes, &put->stop, e);
	else if (part)
		err = queue_part(put, e);
	if (!err && put->id)
		err = wait_for_parts(put, 0, e);
	if (!err && put->id)
		err = complete(put->url, put->id, put->etag, put->parts, bytes,
			       only_new, e);
	if (err) {
		s3_put_abort(put);
		return err;
	}
	if (put->id && ubytes != put->ubytes)
		err = s3_set_ubytes(put->url, bytes, ubytes, e);
	put_free(put);
	return err;
}

void s3_put_abort(struct object_put *put)
{
	atomic_store(&put->stop, true);
	end_threads(put);
	/* With nothing on its way any more: what comes late would stay. */
	if (put->id)
		forget(put->url, put->id);
	put_free(put);
}

// SPDX-License-Identifier: GPL-2.0-only
#include "sigv4.h"

#include <stdio.h>
#include <stdlib.h>

const struct sigv4_words sigv4_aws = {
	.algorithm = "AWS4-HMAC-SHA256",
	.secret = "AWS4",
	.end = "aws4_request",
	.service = "s3",
	.date = "x-amz-date",
	.payload = "x-amz-content-sha256",
	.token = "x-amz-security-token",
};

/* Not the AWS words, which it knows too: with them go x-amz- headers alone. */
const struct sigv4_words sigv4_google = {
	.algorithm = "GOOG4-HMAC-SHA256",
	.secret = "GOOG4",
	.end = "goog4_request",
	.service = "storage",
	.date = "x-goog-date",
	.payload = "x-goog-content-sha256",
	.token = "x-goog-security-token",
};

void sigv4_date(time_t when, char date[SIGV4_DATE])
{
	struct tm tm;

	gmtime_r(&when, &tm);
	strftime(date, SIGV4_DATE, "%Y%m%dT%H%M%SZ", &tm);
}

int sigv4_payload(const void *data, size_t bytes, char text[SHA256_TEXT])
{
	u8 sum[SHA256_BYTES];
	int err = sha256_of(data, bytes, sum);

	if (!err)
		sha256_text(sum, text);
	return err;
}

/* Ends a memory stream; NULL if a byte of it was lost. */
static char *finish(FILE *f, char **text)
{
	bool lost = ferror(f);

	if (fclose(f) || lost) {
		free(*text);
		*text = NULL;
	}
	return *text;
}

/* Query parameters */

struct part {
	const char *text;
	size_t name;	/* bytes in front of '=' */
	size_t len;
};

static int compare_bytes(const char *a, size_t a_len, const char *b,
			 size_t b_len)
{
	int order = memcmp(a, b, a_len < b_len ? a_len : b_len);

	return order ? order : (a_len > b_len) - (a_len < b_len);
}

/* By name, then by value: '=' must not take part, '-' sorts before it. */
static int compare_parts(const void *one, const void *other)
{
	const struct part *a = one, *b = other;
	int order = compare_bytes(a->text, a->name, b->text, b->name);

	return order ? order : compare_bytes(a->text + a->name,
					     a->len - a->name,
					     b->text + b->name,
					     b->len - b->name);
}

static int put_query(FILE *f, const char *query)
{
	size_t n = 0, i, room = 1;
	struct part *part;
	const char *p;

	for (p = query; *p; p++)
		room += *p == '&';
	part = calloc(room, sizeof(*part));
	if (!part)
		return -ENOMEM;
	for (p = query; *p; p += strspn(p, "&")) {
		part[n].text = p;
		part[n].len = strcspn(p, "&");
		part[n].name = strcspn(p, "=&");
		p += part[n++].len;
	}
	qsort(part, n, sizeof(*part), compare_parts);
	for (i = 0; i < n; i++)
		fprintf(f, "%s%.*s%s", i ? "&" : "", (int)part[i].len,
			part[i].text, part[i].name == part[i].len ? "=" : "");
	free(part);
	return 0;
}

/* Headers */

static int compare_headers(const void *one, const void *other)
{
	const struct sigv4_header *a = *(const struct sigv4_header *const *)one;
	const struct sigv4_header *b =
		*(const struct sigv4_header *const *)other;
	int order = strcmp(a->name, b->name);

	/* Of one name: in the order given; they are of one array. */
	return order ? order : (a > b) - (a < b);
}

/* Without spaces at its ends, and with one where there are several. */
static void put_trimmed(FILE *f, const char *value)
{
	bool space = false, begun = false;

	for (; *value; value++) {
		if (strchr(" \t\r\n", *value)) {
			space = true;
			continue;
		}
		if (space && begun)
			putc(' ', f);
		putc(*value, f);
		space = false;
		begun = true;
	}
}

static int put_headers(FILE *f, const struct sigv4_request *req,
		       char **signed_names)
{
	const struct sigv4_header **sorted;
	size_t i, size;
	FILE *names;

	sorted = calloc(req->headers + 1, sizeof(*sorted));
	if (!sorted)
		return -ENOMEM;
	names = open_memstream(signed_names, &size);
	if (!names) {
		free(sorted);
		return -ENOMEM;
	}
	for (i = 0; i < req->headers; i++)
		sorted[i] = &req->header[i];
	qsort(sorted, req->headers, sizeof(*sorted), compare_headers);
	for (i = 0; i < req->headers; i++) {
		if (i && !strcmp(sorted[i]->name, sorted[i - 1]->name)) {
			putc(',', f);
		} else {
			fprintf(f, "%s%s:", i ? "\n" : "", sorted[i]->name);
			fprintf(names, "%s%s", i ? ";" : "", sorted[i]->name);
		}
		put_trimmed(f, sorted[i]->value);
	}
	free(sorted);
	if (!finish(names, signed_names))
		return -ENOMEM;
	fprintf(f, "\n\n%s", *signed_names);
	return 0;
}

char *sigv4_canonical(const struct sigv4_request *req, char **signed_names)
{
	char *text = NULL;
	size_t size;
	FILE *f;
	int err;

	*signed_names = NULL;
	f = open_memstream(&text, &size);
	if (!f)
		return NULL;
	fprintf(f, "%s\n%s\n", req->method, req->path);
	err = put_query(f, req->query);
	putc('\n', f);
	if (!err)
		err = put_headers(f, req, signed_names);
	fprintf(f, "\n%s", req->payload);
	finish(f, &text);
	if (err || !text) {
		free(text);
		free(*signed_names);
		*signed_names = NULL;
		return NULL;
	}
	return text;
}

/* "20130524/us-east-1/s3/aws4_request", malloc()ed */
static char *scope(const struct sigv4_key *key)
{
	char *text;

	return asprintf(&text, "%.8s/%s/%s/%s", key->date, key->region,
			key->service, key->words->end) < 0 ? NULL : text;
}

char *sigv4_string_to_sign(const struct sigv4_key *key, const char *canonical)
{
	char hash[SHA256_TEXT], *in = scope(key), *text = NULL;

	if (in && !sigv4_payload(canonical, strlen(canonical), hash) &&
	    asprintf(&text, "%s\n%s\n%s\n%s", key->words->algorithm, key->date,
		     in, hash) < 0)
		text = NULL;
	free(in);
	return text;
}

/* Each key signs the next word and becomes the key for the one behind it. */
static int signature(const struct sigv4_key *key, const char *text,
		     char hex[SHA256_TEXT])
{
	const char *const word[] = {
		key->region, key->service, key->words->end, text,
	};
	u8 mac[SHA256_BYTES];
	char *first;
	size_t i;
	int err;

	if (asprintf(&first, "%s%s", key->words->secret, key->secret) < 0)
		return -ENOMEM;
	err = sha256_hmac(first, strlen(first), key->date, 8, mac);
	explicit_bzero(first, strlen(first));
	free(first);
	for (i = 0; i < ARRAY_SIZE(word) && !err; i++)
		err = sha256_hmac(mac, sizeof(mac), word[i], strlen(word[i]),
				  mac);
	if (!err)
		sha256_text(mac, hex);
	explicit_bzero(mac, sizeof(mac));
	return err;
}

int sigv4_sign(const struct sigv4_request *req, const struct sigv4_key *key,
	       char **value)
{
	char hex[SHA256_TEXT], *names, *canonical, *text, *in;
	int err = -ENOMEM;

	canonical = sigv4_canonical(req, &names);
	text = canonical ? sigv4_string_to_sign(key, canonical) : NULL;
	in = scope(key);
	if (!text || !in)
		goto out;
	err = signature(key, text, hex);
	if (!err && asprintf(value,
			     "%s Credential=%s/%s,SignedHeaders=%s,Signature=%s",
			     key->words->algorithm, key->access_key, in, names, hex) < 0)
		err = -ENOMEM;
out:
	free(in);
	free(text);
	free(canonical);
	free(names);
	return err;
}

// SPDX-License-Identifier: GPL-2.0-only
/*
 * What object stores and the services beside them answer, what stands in the
 * files of their tools, and URLs. Input: the text.
 */
#include "../../helper/bucket.h"
#include "../../helper/credentials.h"
#include "../../helper/ini.h"
#include "../../helper/origin.h"
#include "../../helper/xml.h"
#include "fuzz.h"

static bool header_safe(const char *text)
{
	for (; text && *text; text++)
		if (*text <= ' ' || *text == 0x7f)
			return false;
	return true;
}

static void check_oauth(const char *text)
{
	struct credentials c;
	struct error e;

	if (!credentials_oauth(text, &c, &e)) {
		MUST(!strncmp(c.lines, "Authorization: Bearer ", 22));
		MUST(c.lines[22] && header_safe(c.lines + 22));
	}
	credentials_free(&c);
}

/* What goes to an origin, goes to no other. */
static void check_origin(const char *text)
{
	char *origin = origin_of(text), *again;

	if (!origin)
		return;
	MUST(!strchr(origin, '@') && !strpbrk(origin + 8, "?#"));
	MUST(!strncmp(origin, "http://", 7) || !strncmp(origin, "https://", 8));
	again = origin_of(origin);
	MUST(again && (!strcmp(origin, again) || strlen(again) < strlen(origin)));
	free(again);
	free(origin);
}

/* All sections have names, and there is an end of them. */
static void check_sections(const char *text, size_t bytes)
{
	const char *at = text;
	char *name;

	while ((name = ini_section(&at))) {
		MUST(at > text && at <= text + bytes);
		MUST(strlen(name) <= bytes);
		free(name);
	}
}

static void check_credentials(int err, struct credentials *c)
{
	if (!err) {
		MUST(c->access_key && c->secret);
		MUST(header_safe(c->access_key) && header_safe(c->token));
		MUST(!strchr(c->access_key, '/'));
	}
	credentials_free(c);
}

static void check_url(const char *text)
{
	struct bucket_target target = { };
	struct bucket_url url;
	const char *p;
	char *full;

	if (asprintf(&full, "s3://%s", text) < 0)
		abort();
	if (!bucket_parse(full, &url, NULL)) {
		for (p = url.key; *p; p++)
			MUST(*p > ' ' && *p < 0x7f && !strchr("?#\"<>\\", *p));
		MUST(!strpbrk(url.bucket, "/@:?#%"));
		MUST(!bucket_target(&url, "http://host", "region", BUCKET_AUTO,
				&target, NULL));
		MUST(!strncmp(target.url, "http://host/", 12));
		bucket_target_free(&target);
	}
	bucket_free(&url);
	free(full);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static const char *const names[] = {
		"Code", "Region", "UploadId", "K", "ETag",
	};
	char *text = malloc(bytes + 1), *value, why[40];
	struct credentials c;
	const char *at;
	struct error e;
	size_t i;

	memcpy(text, data, bytes);
	text[bytes] = 0;
	for (i = 0; i < 5; i++) {
		at = text;
		while ((value = xml_get(NULL, names[i], &at))) {
			MUST(strlen(value) <= bytes && at <= text + bytes);
			free(value);
		}
		value = ini_get(text, "default", names[i]);
		MUST(!value || strlen(value) <= bytes);
		free(value);
		free(ini_get(text, "profile a", "s3.K"));
	}
	bucket_answer(text, &value, why, sizeof(why));
	MUST(strlen(why) < sizeof(why));
	free(value);
	check_credentials(credentials_json(text, 0, &c, &e), &c);
	check_credentials(credentials_xml(text, 0, &c, &e), &c);
	check_oauth(text);
	check_origin(text);
	check_sections(text, bytes);
	check_url(text);
	free(text);
	return 0;
}

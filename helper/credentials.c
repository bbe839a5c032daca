// SPDX-License-Identifier: GPL-2.0-only
#include "credentials.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "jsontext.h"
#include "secret.h"
#include "xml.h"

const char *credentials_env(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

/* Several threads may ask at once: not getpwuid(). */
char *credentials_home(const char *tail)
{
	const char *home = credentials_env("HOME");
	char text[4096], *path;
	struct passwd pw, *found;

	if (!home)
		home = !getpwuid_r(geteuid(), &pw, text, sizeof(text),
				   &found) && found ? pw.pw_dir : "/";
	return asprintf(&path, "%s/%s", home, tail) < 0 ? NULL : path;
}

int credentials_check(const struct credentials *cred, struct error *e)
{
	if (!cred->access_key || !secret_printable(cred->access_key) ||
	    strchr(cred->access_key, '/'))
		return error_set(e, -EINVAL,
				 "the access key has characters that no access key has");
	if (cred->token && !secret_printable(cred->token))
		return error_set(e, -EINVAL,
				 "the session token has spaces or control characters");
	return 0;
}

/* "2026-11-23T09:45:00Z", perhaps with a fraction of a second */
static int set_end(struct credentials *cred, const char *text, time_t date,
		   struct error *e)
{
	struct tm tm = { };
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
	time_t end;

	if (rest && *rest == '.')
		rest += 1 + strspn(rest + 1, "0123456789");
	if (!rest || (strcmp(rest, "Z") && strcmp(rest, "+00:00")))
		return error_set(e, -EPROTO,
				 "the credentials' Expiration is no time in UTC");
	end = timegm(&tm);
	if (!date)
		date = time(NULL);
	/* What has ended is good for a second: the server shall judge. */
	cred->seconds = end > date ? end - date : 1;
	return 0;
}

int credentials_copy(char **to, const char *text, struct error *e)
{
	*to = text && *text ? strdup(text) : NULL;
	if (text && *text && !*to)
		return no_memory(e);
	return 0;
}

int credentials_keys(const char *access_key, const char *secret,
		     const char *token, const char *from,
		     struct credentials *cred, struct error *e)
{
	int err;

	err = credentials_copy(&cred->access_key, access_key, e);
	if (!err)
		err = credentials_copy(&cred->secret, secret, e);
	if (!err)
		err = credentials_copy(&cred->token, token, e);
	if (!err)
		err = credentials_check(cred, e);
	if (err)
		error_prefix(e, "%s", from);
	return err;
}

int credentials_json(const char *text, time_t date, struct credentials *cred,
		     struct error *e)
{
	struct json_object *json = json_tokener_parse(text);
	const char *code, *end;
	int err;

	memset(cred, 0, sizeof(*cred));
	if (!json || !json_object_is_type(json, json_type_object)) {
		err = error_set(e, -EPROTO, "the answer is not JSON");
		goto out;
	}
	code = json_text(json, "Code");
	if (code && strcmp(code, "Success")) {
		err = error_set(e, -EACCES, "the answer's code is %.64s", code);
		goto out;
	}
	err = credentials_copy(&cred->access_key,
			       json_text(json, "AccessKeyId"), e);
	if (!err)
		err = credentials_copy(&cred->secret,
				       json_text(json, "SecretAccessKey"), e);
	if (!err)
		err = credentials_copy(&cred->token, json_text(json, "Token"),
				       e);
	if (!err && (!cred->access_key || !cred->secret))
		err = error_set(e, -EPROTO,
				"the answer lacks AccessKeyId or SecretAccessKey");
	end = json_text(json, "Expiration");
	if (!err && end)
		err = set_end(cred, end, date, e);
	if (!err)
		err = credentials_check(cred, e);
out:
	json_object_put(json);
	if (err)
		credentials_free(cred);
	return err;
}

int credentials_bearer(const char *token, struct credentials *cred,
		       struct error *e)
{
	if (!*token || !secret_printable(token))
		return error_set(e, -EINVAL,
				 "the token is empty, or has spaces or control characters");
	if (asprintf(&cred->lines, "Authorization: Bearer %s", token) < 0) {
		cred->lines = NULL;
		return no_memory(e);
	}
	return 0;
}

int credentials_bearer_file(const char *path, secret_warn *warn,
			    struct credentials *cred, struct error *e)
{
	char *token;
	int err = secret_file(path, warn, &token, e);

	if (err)
		return err;
	err = credentials_bearer(token, cred, e);
	secret_free(token);
	if (err)
		error_prefix(e, "%s", path);
	return err;
}

int credentials_oauth(const char *text, struct credentials *cred,
		      struct error *e)
{
	struct json_object *json = json_tokener_parse(text), *value;
	const char *token;
	int err;

	memset(cred, 0, sizeof(*cred));
	token = json_text(json, "access_token");
	if (!token) {
		err = error_set(e, -EPROTO, "the answer lacks access_token");
		goto out;
	}
	if (json_object_object_get_ex(json, "expires_in", &value) &&
	    json_object_get_int64(value) > 0)
		cred->seconds = json_object_get_int64(value);
	err = credentials_bearer(token, cred, e);
out:
	json_object_put(json);
	if (err)
		credentials_free(cred);
	return err;
}

int credentials_xml(const char *text, time_t date, struct credentials *cred,
		    struct error *e)
{
	char *end = xml_get(text, "Expiration", NULL);
	int err = 0;

	memset(cred, 0, sizeof(*cred));
	cred->access_key = xml_get(text, "AccessKeyId", NULL);
	cred->secret = xml_get(text, "SecretAccessKey", NULL);
	cred->token = xml_get(text, "SessionToken", NULL);
	if (!cred->access_key || !cred->secret)
		err = error_set(e, -EPROTO,
				"the answer lacks AccessKeyId or SecretAccessKey");
	if (!err && end)
		err = set_end(cred, end, date, e);
	free(end);
	if (!err)
		err = credentials_check(cred, e);
	if (err)
		credentials_free(cred);
	return err;
}

void credentials_free(struct credentials *cred)
{
	free(cred->access_key);
	secret_free(cred->secret);
	secret_free(cred->token);
	secret_free(cred->lines);
	secret_free(cred->key);
	free(cred->cert);
	memset(cred, 0, sizeof(*cred));
}

// SPDX-License-Identifier: GPL-2.0-only
#include "gs.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bucket.h"
#include "ini.h"
#include "jsontext.h"

#define ENDPOINT	"https://storage.googleapis.com"
#define TOKEN_URI	"https://oauth2.googleapis.com/token"
#define METADATA	"metadata.google.internal"

/* Where Cloud Storage is */

static int find_endpoint(struct gs *gs, struct error *e)
{
	const char *host = credentials_env("STORAGE_EMULATOR_HOST");
	int err;

	if (!host)
		return credentials_copy(&gs->endpoint, ENDPOINT, e);
	/* Google's libraries take it with and without a scheme. */
	if (asprintf(&gs->endpoint, "%s%s", strstr(host, "://") ? "" :
		     "http://", host) < 0) {
		gs->endpoint = NULL;
		return no_memory(e);
	}
	err = endpoint_check(gs->endpoint, e);
	if (err)
		error_prefix(e, "STORAGE_EMULATOR_HOST");
	return err;
}

/* Where credentials come from */

static int from_environment(struct gs *gs, struct error *e)
{
	const char *key = credentials_env("GS_ACCESS_KEY_ID");
	const char *secret = credentials_env("GS_SECRET_ACCESS_KEY");
	int err;

	if (!key && !secret)
		return -ENOENT;
	if (!key || !secret)
		return error_set(e, -EINVAL,
				 "GS_ACCESS_KEY_ID and GS_SECRET_ACCESS_KEY belong together; give both");
	gs->source = GS_KEYS;
	err = credentials_copy(&gs->from, "the environment", e);
	if (!err)
		err = credentials_copy(&gs->access_key, key, e);
	return err ? err : credentials_copy(&gs->secret, secret, e);
}

static int from_token_file(struct gs *gs, struct error *e)
{
	const char *path = credentials_env("CLOUDSDK_AUTH_ACCESS_TOKEN_FILE");

	if (!path)
		return -ENOENT;
	gs->source = GS_TOKEN;
	return credentials_copy(&gs->token_file, path, e);
}

static int get(struct json_object *json, const char *name, char **value,
	       struct error *e)
{
	const char *text = json_text(json, name);

	if (!text || !*text)
		return error_set(e, -EINVAL, "there is no %s in it", name);
	return credentials_copy(value, text, e);
}

static int get_account(struct gs *gs, struct json_object *json,
		       struct error *e)
{
	const char *uri = json_text(json, "token_uri");
	int err;

	gs->source = GS_ACCOUNT;
	err = get(json, "client_email", &gs->account, e);
	if (!err)
		err = get(json, "private_key", &gs->key, e);
	if (!err)
		err = credentials_copy(&gs->key_id,
				       json_text(json, "private_key_id"), e);
	if (!err)
		err = credentials_copy(&gs->token_uri, uri ? uri : TOKEN_URI,
				       e);
	return err;
}

static int get_user(struct gs *gs, struct json_object *json, struct error *e)
{
	const char *uri = json_text(json, "token_uri");
	int err;

	gs->source = GS_USER;
	err = get(json, "client_id", &gs->account, e);
	if (!err)
		err = get(json, "client_secret", &gs->key, e);
	if (!err)
		err = get(json, "refresh_token", &gs->refresh, e);
	if (!err)
		err = credentials_copy(&gs->token_uri, uri ? uri : TOKEN_URI,
				       e);
	return err;
}

static int parse(struct gs *gs, const char *text, struct error *e)
{
	struct json_object *json = json_tokener_parse(text);
	const char *type = json_text(json, "type");
	int err;

	if (!type)
		err = error_set(e, -EINVAL,
				"it is no JSON with a \"type\", as Google's keys are");
	else if (!strcmp(type, "service_account"))
		err = get_account(gs, json, e);
	else if (!strcmp(type, "authorized_user"))
		err = get_user(gs, json, e);
	else
		err = error_set(e, -EOPNOTSUPP,
				"type \"%.64s\" is not supported; \"gcloud auth print-access-token\" gives a token for the file that CLOUDSDK_AUTH_ACCESS_TOKEN_FILE names",
				type);
	json_object_put(json);
	if (!err && !web_safe(gs->token_uri))
		err = error_set(e, -EINVAL,
				"token_uri is neither https:// nor on this machine");
	return err;
}

/* @must: somebody has named it */
static int from_file(struct gs *gs, const char *path, bool must,
		     secret_warn *warn, struct error *e)
{
	char *text;
	int err;

	err = secret_file(path, warn, &text, e);
	if (err)
		return !must && (err == -ENOENT || err == -ENOTDIR) ?
			-ENOENT : err == -ENOENT ? -EINVAL : err;
	err = parse(gs, text, e);
	secret_free(text);
	if (err)
		error_prefix(e, "%s", path);
	if (!err)
		err = credentials_copy(&gs->from, path, e);
	return err;
}

/* What gcloud leaves behind after "auth application-default login" */
static int from_known_file(struct gs *gs, secret_warn *warn, struct error *e)
{
	const char *directory = credentials_env("CLOUDSDK_CONFIG");
	char *path;
	int err;

	if (!directory)
		path = credentials_home(".config/gcloud/application_default_credentials.json");
	else if (asprintf(&path, "%s/application_default_credentials.json",
			  directory) < 0)
		path = NULL;
	if (!path)
		return no_memory(e);
	err = from_file(gs, path, false, warn, e);
	free(path);
	return err;
}

/* An HMAC key where gsutil has it */
static int from_boto(struct gs *gs, secret_warn *warn, struct error *e)
{
	char *path = credentials_env("BOTO_CONFIG") ? strdup(credentials_env("BOTO_CONFIG")) :
					  credentials_home(".boto");
	char *text = NULL;
	bool shared;
	int err = 0;

	if (!path)
		return no_memory(e);
	text = secret_read(path, &shared);
	if (!text && errno != ENOENT && errno != ENOTDIR)
		err = error_set(e, -errno, "%s: %m", path);
	gs->access_key = ini_get(text, "Credentials", "gs_access_key_id");
	gs->secret = ini_get(text, "Credentials", "gs_secret_access_key");
	if (!err && gs->access_key && !gs->secret)
		err = error_set(e, -EINVAL,
				"%s: gs_access_key_id without gs_secret_access_key; give both",
				path);
	else if (!err && !gs->access_key)
		err = -ENOENT;
	if (!err) {
		gs->source = GS_KEYS;
		gs->from = path;
		path = NULL;
		if (shared)
			secret_tell(warn, gs->from);
	}
	secret_free(text);
	free(path);
	return err;
}

static int from_instance(struct gs *gs, struct error *e)
{
	const char *host = credentials_env("GCE_METADATA_HOST");

	if (credentials_env("STORAGE_EMULATOR_HOST") && !host) {
		gs->source = GS_NONE;
		return 0;
	}
	gs->source = GS_INSTANCE;
	if (credentials_env("NO_GCE_CHECK") && !strcasecmp(credentials_env("NO_GCE_CHECK"), "true"))
		return 0;
	if (host && strpbrk(host, "/@?#\\ \t\r\n"))
		return error_set(e, -EINVAL,
				 "GCE_METADATA_HOST is no host, nor host:port");
	return credentials_copy(&gs->metadata, host ? host : METADATA, e);
}

int gs_load(struct gs **result, secret_warn *warn, struct error *e)
{
	const char *named = credentials_env("GOOGLE_APPLICATION_CREDENTIALS");
	struct gs *gs = calloc(1, sizeof(*gs));
	int err;

	*result = NULL;
	if (!gs)
		return no_memory(e);
	err = find_endpoint(gs, e);
	if (!err)
		err = from_environment(gs, e);
	if (err == -ENOENT)
		err = from_token_file(gs, e);
	if (err == -ENOENT && named)
		err = from_file(gs, named, true, warn, e);
	if (err == -ENOENT)
		err = from_boto(gs, warn, e);
	if (err == -ENOENT)
		err = from_known_file(gs, warn, e);
	if (err == -ENOENT)
		err = from_instance(gs, e);
	if (err) {
		gs_free(gs);
		return err;
	}
	/* An HMAC key stays here. */
	if (gs->source != GS_KEYS && gs->source != GS_NONE)
		web_tell(warn, gs->endpoint,
			 "the access token that STORAGE_EMULATOR_HOST is sent");
	*result = gs;
	return 0;
}

void gs_free(struct gs *gs)
{
	if (!gs)
		return;
	free(gs->endpoint);
	free(gs->from);
	free(gs->access_key);
	secret_free(gs->secret);
	free(gs->token_file);
	free(gs->account);
	secret_free(gs->key);
	free(gs->key_id);
	secret_free(gs->refresh);
	free(gs->token_uri);
	free(gs->metadata);
	free(gs);
}

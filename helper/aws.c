// SPDX-License-Identifier: GPL-2.0-only
#include "aws.h"
#include "credentials.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ini.h"
#include "web.h"

#define CONTAINER_HOST	"http://169.254.170.2"
#define METADATA	"http://169.254.169.254"

/**
 * struct files - the two files, and where in them the profile is
 * @credentials, @config: text or NULL
 * @section: the profile's in @config; in @credentials it is the bare name
 * @shared, @config_shared: may others read it?
 */
struct files {
	const char *profile;
	char *section;
	char *credentials_path;
	char *config_path;
	char *credentials;
	char *config;
	bool shared;
	bool config_shared;
};

/* The first that is set, or NULL; malloc()ed */
static char *env_copy(const char *name, const char *other)
{
	const char *value = credentials_env(name);

	if (!value && other)
		value = credentials_env(other);
	return value ? strdup(value) : NULL;
}

/* Files */

static char *file_path(const char *name, const char *in_home)
{
	return credentials_env(name) ? strdup(credentials_env(name)) : credentials_home(in_home);
}

static int file_read(const char *path, char **text, bool *shared,
		     struct error *e)
{
	*text = secret_read(path, shared);
	if (!*text && errno != ENOENT && errno != ENOTDIR)
		return error_set(e, -errno, "%s: %m", path);
	return 0;
}

static int files_read(struct files *f, const char *profile, struct error *e)
{
	int err;

	f->profile = profile;
	f->credentials_path = file_path("AWS_SHARED_CREDENTIALS_FILE",
					".aws/credentials");
	f->config_path = file_path("AWS_CONFIG_FILE", ".aws/config");
	if (asprintf(&f->section, "%s%s", strcmp(profile, "default") ?
		     "profile " : "", profile) < 0)
		f->section = NULL;
	if (!f->credentials_path || !f->config_path || !f->section)
		return no_memory(e);
	err = file_read(f->credentials_path, &f->credentials, &f->shared, e);
	if (!err)
		err = file_read(f->config_path, &f->config, &f->config_shared,
				e);
	if (err)
		return err;
	if (strcmp(profile, "default") &&
	    !ini_has(f->credentials, profile) &&
	    !ini_has(f->config, f->section))
		return error_set(e, -ENOENT,
				 "AWS_PROFILE: no profile \"%s\" in %s or %s",
				 profile, f->credentials_path, f->config_path);
	return 0;
}

static void files_free(struct files *f)
{
	free(f->section);
	free(f->credentials_path);
	free(f->config_path);
	secret_free(f->credentials);
	secret_free(f->config);
}

static char *config_get(const struct files *f, const char *name)
{
	return ini_get(f->config, f->section, name);
}

/* Where S3 is */

static bool region_valid(const char *region)
{
	size_t len = strlen(region), i;

	for (i = 0; i < len; i++)
		if (!isascii(region[i]) ||
		    (!isalnum(region[i]) && !strchr("-_", region[i])))
			return false;
	return len <= 64;
}

/* AWS_ENDPOINT_URL_<service>, AWS_ENDPOINT_URL, or the profile's. */
static char *find_endpoint(const struct files *f, const char *variable,
			   const char *nested)
{
	char *endpoint = env_copy(variable, "AWS_ENDPOINT_URL");
	char *services, *section;

	if (endpoint)
		return endpoint;
	services = config_get(f, "services");
	if (services && asprintf(&section, "services %s", services) >= 0) {
		endpoint = ini_get(f->config, section, nested);
		free(section);
	}
	free(services);
	return endpoint ? endpoint : config_get(f, "endpoint_url");
}

static int find_style(struct aws *aws, const struct files *f, struct error *e)
{
	char *style = env_copy("LAZYFRAME_S3_ADDRESSING", NULL);
	int err = 0;

	if (!style)
		style = config_get(f, "s3.addressing_style");
	if (!style || !strcmp(style, "auto"))
		aws->style = BUCKET_AUTO;
	else if (!strcmp(style, "path"))
		aws->style = BUCKET_PATH;
	else if (!strcmp(style, "virtual"))
		aws->style = BUCKET_VIRTUAL;
	else
		err = error_set(e, -EINVAL,
				"LAZYFRAME_S3_ADDRESSING or addressing_style: \"%s\" is none of path, virtual, auto",
				style);
	free(style);
	return err;
}

static int find_place(struct aws *aws, const struct files *f, struct error *e)
{
	int err;

	aws->region = env_copy("AWS_REGION", "AWS_DEFAULT_REGION");
	if (!aws->region)
		aws->region = config_get(f, "region");
	if (!aws->region)
		aws->region = strdup("us-east-1");
	if (!aws->region)
		return no_memory(e);
	if (!region_valid(aws->region))
		return error_set(e, -EINVAL,
				 "AWS_REGION: \"%s\" is no region's name",
				 aws->region);
	aws->endpoint = find_endpoint(f, "AWS_ENDPOINT_URL_S3",
				      "s3.endpoint_url");
	err = aws->endpoint ? endpoint_check(aws->endpoint, e) : 0;
	if (err) {
		error_prefix(e, "AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or endpoint_url");
		return err;
	}
	aws->sts = find_endpoint(f, "AWS_ENDPOINT_URL_STS",
				 "sts.endpoint_url");
	err = aws->sts ? endpoint_check(aws->sts, e) : 0;
	if (err) {
		error_prefix(e, "AWS_ENDPOINT_URL_STS, AWS_ENDPOINT_URL or endpoint_url");
		return err;
	}
	return find_style(aws, f, e);
}

/* Where credentials come from */

static int no_secret(const char *from, struct error *e)
{
	return error_set(e, -EINVAL,
			 "%s: an access key without its secret; give both",
			 from);
}

static int from_environment(struct aws *aws, struct error *e)
{
	aws->access_key = env_copy("AWS_ACCESS_KEY_ID", NULL);
	if (!aws->access_key)
		return -ENOENT;
	aws->source = AWS_KEYS;
	aws->from = strdup("the environment");
	aws->secret = env_copy("AWS_SECRET_ACCESS_KEY", NULL);
	aws->token = env_copy("AWS_SESSION_TOKEN", NULL);
	return aws->secret ? 0 : no_secret("AWS_ACCESS_KEY_ID", e);
}

static int from_web_identity(struct aws *aws, const struct files *f)
{
	aws->token_file = env_copy("AWS_WEB_IDENTITY_TOKEN_FILE", NULL);
	aws->role = env_copy("AWS_ROLE_ARN", NULL);
	aws->session = env_copy("AWS_ROLE_SESSION_NAME", NULL);
	if (!aws->token_file || !aws->role) {
		free(aws->token_file);
		free(aws->role);
		aws->token_file = config_get(f, "web_identity_token_file");
		aws->role = config_get(f, "role_arn");
	}
	if (aws->token_file && aws->role) {
		if (!aws->session)
			aws->session = config_get(f, "role_session_name");
		if (!aws->session)
			aws->session = strdup("lazyframe");
		aws->source = AWS_WEB_IDENTITY;
		return 0;
	}
	free(aws->token_file);
	free(aws->role);
	aws->token_file = NULL;
	aws->role = NULL;
	return -ENOENT;
}

static int from_file(struct aws *aws, const char *text, const char *section,
		     const char *path, bool shared, secret_warn *warn,
		     struct error *e)
{
	aws->access_key = ini_get(text, section, "aws_access_key_id");
	if (!aws->access_key)
		return -ENOENT;
	if (shared)
		secret_tell(warn, path);
	aws->source = AWS_KEYS;
	if (asprintf(&aws->from, "%s, profile %s", path, aws->profile) < 0)
		aws->from = NULL;
	aws->secret = ini_get(text, section, "aws_secret_access_key");
	aws->token = ini_get(text, section, "aws_session_token");
	return aws->secret ? 0 : no_secret(path, e);
}

/* What other tools would follow to other credentials than we do. */
static int from_elsewhere(const struct files *f, struct error *e)
{
	static const char *const names[] = {
		"credential_process", "sso_session", "sso_start_url",
		"source_profile", "credential_source",
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		char *value = config_get(f, names[i]);

		if (!value)
			value = ini_get(f->credentials, f->profile, names[i]);
		if (!value)
			continue;
		free(value);
		return error_set(e, -EOPNOTSUPP,
				 "%s, profile %s: %s is not supported; \"aws configure export-credentials --format env\" gives credentials for the environment",
				 f->config_path, f->profile, names[i]);
	}
	return -ENOENT;
}

static int from_container(struct aws *aws, struct error *e)
{
	const char *relative = credentials_env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
	const char *full = credentials_env("AWS_CONTAINER_CREDENTIALS_FULL_URI");

	if (relative) {
		if (*relative != '/')
			return error_set(e, -EINVAL,
					 "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI does not begin with a slash");
		if (asprintf(&aws->agent, CONTAINER_HOST "%s", relative) < 0)
			aws->agent = NULL;
	} else if (full) {
		if (!web_safe(full))
			return error_set(e, -EINVAL,
					 "AWS_CONTAINER_CREDENTIALS_FULL_URI is neither https:// nor on this machine");
		aws->agent = strdup(full);
	} else {
		return -ENOENT;
	}
	if (!aws->agent)
		return no_memory(e);
	aws->source = AWS_CONTAINER;
	aws->agent_token = env_copy("AWS_CONTAINER_AUTHORIZATION_TOKEN", NULL);
	aws->token_file = env_copy("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
				   NULL);
	return 0;
}

static int from_instance(struct aws *aws, struct error *e)
{
	const char *disabled = credentials_env("AWS_EC2_METADATA_DISABLED");

	aws->source = AWS_INSTANCE;
	if (disabled && !strcasecmp(disabled, "true"))
		return 0;
	aws->metadata = env_copy("AWS_EC2_METADATA_SERVICE_ENDPOINT", NULL);
	if (!aws->metadata)
		aws->metadata = strdup(METADATA);
	if (!aws->metadata)
		return no_memory(e);
	return endpoint_check(aws->metadata, e);
}

static int find_source(struct aws *aws, const struct files *f, secret_warn *warn,
		       struct error *e)
{
	int err;

	err = from_environment(aws, e);
	if (err == -ENOENT)
		err = from_web_identity(aws, f);
	if (err == -ENOENT)
		err = from_file(aws, f->credentials, f->profile,
				f->credentials_path, f->shared, warn, e);
	if (err == -ENOENT)
		err = from_file(aws, f->config, f->section, f->config_path,
				f->config_shared, warn, e);
	if (err == -ENOENT)
		err = from_elsewhere(f, e);
	if (err == -ENOENT)
		err = from_container(aws, e);
	if (err == -ENOENT)
		err = from_instance(aws, e);
	return err;
}

int aws_load(struct aws **result, secret_warn *warn, struct error *e)
{
	const char *profile = credentials_env("AWS_PROFILE");
	struct aws *aws = calloc(1, sizeof(*aws));
	struct files f = { };
	int err;

	if (!profile)
		profile = credentials_env("AWS_DEFAULT_PROFILE");
	if (aws)
		aws->profile = strdup(profile ? profile : "default");
	if (!aws || !aws->profile) {
		free(aws);
		return no_memory(e);
	}
	err = files_read(&f, aws->profile, e);
	if (!err)
		err = find_place(aws, &f, e);
	if (!err)
		err = find_source(aws, &f, warn, e);
	files_free(&f);
	if (err) {
		aws_free(aws);
		return err;
	}
	*result = aws;
	return 0;
}

void aws_free(struct aws *aws)
{
	if (!aws)
		return;
	free(aws->profile);
	free(aws->region);
	free(aws->endpoint);
	free(aws->sts);
	free(aws->from);
	free(aws->access_key);
	secret_free(aws->secret);
	secret_free(aws->token);
	free(aws->role);
	free(aws->session);
	free(aws->token_file);
	free(aws->agent);
	secret_free(aws->agent_token);
	free(aws->metadata);
	free(aws);
}

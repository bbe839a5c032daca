// SPDX-License-Identifier: GPL-2.0-only
#include "origin.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "auth.h"
#include "ini.h"

#define VARIABLE	"LAZYFRAME_HTTP_CONFIG"
#define LINES_MAX	16

/**
 * struct origin - a section
 * @name: of origin_of()
 * @bearer, @header, @cert, @key: paths, or NULL
 */
struct origin {
	char *name;
	char *bearer;
	char *header;
	char *cert;
	char *key;
};

char *origin_of(const char *url)
{
	bool tls = !strncasecmp(url, "https://", 8);
	const char *host = url + (tls ? 8 : 7);
	size_t len, i;
	char *origin;

	if (!tls && strncasecmp(url, "http://", 7))
		return NULL;
	len = url_host(host, tls);
	if (memchr(host, '@', len))
		return NULL;
	if (!len || asprintf(&origin, "http%s://%.*s", tls ? "s" : "",
			     (int)len, host) < 0)
		return NULL;
	for (i = 0; origin[i]; i++)
		origin[i] = tolower((unsigned char)origin[i]);
	return origin;
}

/* The file; 0 with @text NULL: none is named */
static int config_read(char **text, const char **path, struct error *e)
{
	*text = NULL;
	*path = getenv(VARIABLE);
	if (!*path || !**path)
		return 0;
	*text = secret_read(*path, NULL);
	if (!*text)
		return error_set(e, -errno, VARIABLE ": %s: %m", *path);
	return 0;
}

/* As it is to be spelled, with nothing behind it */
static char *section_origin(const char *path, const char *section,
			    struct error *e)
{
	char *origin = origin_of(section);
	const char *host = strstr(section, "://");

	/* The text is not shown: there may be a password in it. */
	if (!origin || strcspn(host + 3, "/?#") != strlen(host + 3)) {
		free(origin);
		error_set(e, -EINVAL,
			  "%s: a section is named http://host, https://host or with :port behind it, and nothing else",
			  path);
		return NULL;
	}
	return origin;
}

int origin_list(char ***result, struct error *e)
{
	char *text, *section, **names = calloc(1, sizeof(*names)), **more;
	const char *path, *at;
	size_t n = 0;
	int err;

	err = config_read(&text, &path, e);
	if (!err && !names)
		err = no_memory(e);
	at = text;
	while (!err && at && (section = ini_section(&at))) {
		more = reallocarray(names, n + 2, sizeof(*names));
		if (more) {
			names = more;
			names[n] = section_origin(path, section, e);
			err = names[n] ? 0 : -EINVAL;
			if (!err)
				names[++n] = NULL;
		} else {
			err = no_memory(e);
		}
		free(section);
	}
	secret_free(text);
	if (err) {
		origin_list_free(names);
		return err;
	}
	*result = names;
	return 0;
}

void origin_list_free(char **names)
{
	size_t i;

	for (i = 0; names && names[i]; i++)
		free(names[i]);
	free(names);
}

/* A kind of struct auth */

static void origin_unload(void *conf)
{
	struct origin *o = conf;

	if (!o)
		return;
	free(o->name);
	free(o->bearer);
	free(o->header);
	free(o->cert);
	free(o->key);
	free(o);
}

/* The section's own spelling of @origin, or NULL */
static char *find_section(const char *text, const char *origin)
{
	char *section, *name;
	bool same;

	while ((section = ini_section(&text))) {
		name = origin_of(section);
		same = name && !strcmp(name, origin);
		free(name);
		if (same)
			return section;
		free(section);
	}
	return NULL;
}

static int fill(struct origin *o, const char *text, const char *section,
		struct error *e)
{
	o->bearer = ini_get(text, section, "bearer_file");
	o->header = ini_get(text, section, "header_file");
	o->cert = ini_get(text, section, "certificate");
	o->key = ini_get(text, section, "key");
	if (o->key && !o->cert)
		return error_set(e, -EINVAL,
				 "%s: a key without its certificate; give both",
				 o->name);
	return 0;
}

static int origin_load(const char *name, void **conf, secret_warn *warn,
		       struct error *e)
{
	struct origin *o = calloc(1, sizeof(*o));
	char *text = NULL, *section = NULL;
	const char *path;
	int err;

	*conf = NULL;
	if (o)
		o->name = strdup(name);
	if (!o || !o->name) {
		free(o);
		return no_memory(e);
	}
	err = config_read(&text, &path, e);
	section = text ? find_section(text, name) : NULL;
	/* It is no longer there: nobody is told who asks. */
	if (!err && section)
		err = fill(o, text, section, e);
	free(section);
	secret_free(text);
	if (err) {
		origin_unload(o);
		return err;
	}
	if (o->bearer || o->header)
		web_tell(warn, name, "what bearer_file or header_file hold");
	*conf = o;
	return 0;
}

static enum auth_source origin_source(const void *conf)
{
	(void)conf;
	return AUTH_AT_HAND;
}

/* "Name: value", of which none is ours to set */
static bool line_valid(const char *line, size_t len)
{
	static const char *const ours[] = {
		"Host", "Range", "If-Match", "Accept-Encoding",
		"Content-Length", "Transfer-Encoding", "Connection",
	};
	size_t name, i;

	for (name = 0; name < len && (isalnum((unsigned char)line[name]) ||
				      strchr("-_!#$%&'*+.^`|~", line[name]));
	     name++)
		;
	if (!name || name == len || line[name] != ':')
		return false;
	for (i = 0; i < len; i++)
		if (((unsigned char)line[i] < ' ' && line[i] != '\t') ||
		    line[i] == 0x7f)
			return false;
	for (i = 0; i < ARRAY_SIZE(ours); i++)
		if (strlen(ours[i]) == name &&
		    !strncasecmp(line, ours[i], name))
			return false;
	return true;
}

static int add_lines(const char *text, const char *path, char **lines,
		     struct error *e)
{
	unsigned int n = 0;
	char *more, *all;
	size_t len;

	for (; *text; text += len + (text[len] != 0)) {
		len = strcspn(text, "\n");
		/* Ended by carriage return and newline, perhaps */
		more = strndup(text, len && text[len - 1] == '\r' ? len - 1 :
								    len);
		if (!more)
			return no_memory(e);
		if (!*more) {
			free(more);
			continue;
		}
		if (!line_valid(more, strlen(more)) || n++ == LINES_MAX) {
			secret_free(more);
			return error_set(e, -EINVAL,
					 "%s: no \"Name: value\", a name that is not to be set here, or more than %d lines",
					 path, LINES_MAX);
		}
		if (asprintf(&all, "%s%s%s", *lines ? *lines : "",
			     *lines ? "\n" : "", more) < 0)
			all = NULL;
		secret_free(more);
		if (!all)
			return no_memory(e);
		secret_free(*lines);
		*lines = all;
	}
	return 0;
}

static int get_lines(const struct origin *o, const struct web *web,
		     struct credentials *cred, struct error *e)
{
	char *text;
	int err = 0;

	if (o->bearer)
		err = credentials_bearer_file(o->bearer, web->warn, cred, e);
	if (o->header && !err) {
		err = secret_file(o->header, web->warn, &text, e);
		if (err)
			return err;
		err = add_lines(text, o->header, &cred->lines, e);
		secret_free(text);
	}
	return err;
}

static int origin_get(const void *conf, const struct web *web,
		      struct credentials *cred, struct error *e)
{
	const struct origin *o = conf;
	int err;

	cred->seconds = CREDENTIALS_FILE_SECONDS;
	err = get_lines(o, web, cred, e);
	/* One file may hold both. */
	if (!err && o->cert)
		err = secret_file(o->cert, o->key ? NULL : web->warn,
				  &cred->cert, e);
	if (!err && o->cert)
		err = secret_file(o->key ? o->key : o->cert, web->warn,
				  &cred->key, e);
	return err;
}

const struct auth_kind auth_origin = {
	.name = "http",
	.load = origin_load,
	.unload = origin_unload,
	.source = origin_source,
	.get = origin_get,
};

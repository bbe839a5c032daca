// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bucket.h"
#include "dm.h"
#include "object.h"
#include "replay.h"
#include "state.h"
#include "uuid.h"

/* Entries that travel in one message */
#define ADD_ENTRIES	512
#define ENTRY_DIGITS	16

/* A path is as good as its URL; malloc()ed. */
static char *url_of(const char *where, struct error *e)
{
	char *path = NULL, *escaped = NULL, *url = NULL;

	if (strstr(where, "://"))
		url = strdup(where);
	else if (!path_absolute(where, &path, NULL))
		escaped = url_escape(path, "/");
	if (escaped && asprintf(&url, "file://%s", escaped) < 0)
		url = NULL;
	if (!url)
		no_memory(e);
	free(escaped);
	free(path);
	return url;
}

int trace_load(const char *where, struct trace *trace, struct error *e)
{
	char *url = url_of(where, e);
	void *data = NULL;
	size_t bytes = 0;
	int err;

	*trace = (struct trace){};
	err = url ? object_get(url, TRACE_MAX_BYTES, &data, &bytes, e) :
		    -ENOMEM;
	if (!err) {
		err = trace_parse(data, bytes, trace, e);
		if (err)
			error_prefix(e, "%s", where);
	}
	free(data);
	free(url);
	return err;
}

int trace_store(const char *where, const struct trace *trace, bool force,
		struct error *e)
{
	const struct object_ops *ops;
	void *data = NULL;
	char *url = NULL;
	size_t bytes;
	int err;

	err = trace_bytes(trace, &data, &bytes, e);
	if (err)
		return err;
	url = url_of(where, e);
	ops = url ? object_ops(url, e) : NULL;
	if (!ops)
		err = -EINVAL;
	else if (!ops->put)
		err = error_set(e, -EROFS,
				"%s: cannot be written; give a file, and put it there by other means",
				url);
	else
		err = ops->put(url, data, bytes, ~0ULL, force, e);
	if (err == -EEXIST)
		error_set(e, err,
			  "%s: there is one already; --force replaces it",
			  where);
	free(url);
	free(data);
	return err;
}

/* Devices */

int record_start(const char *name, struct error *e)
{
	return device_message(name, "record start", e);
}

int record_stop(const char *name, struct error *e)
{
	int err = device_message(name, "record stop", e);

	return err == -ENODATA ? error_set(e, err,
					   "device %s: nothing is recorded",
					   name) : err;
}

static int unexpected(const char *name, const char *answer, struct error *e)
{
	return error_set(e, -EPROTO,
			 "device %s: the answer \"%.40s\" is not understood: use tools and module of one version",
			 name, answer);
}

static const char *next_line(const char *line)
{
	line = strchr(line, '\n');
	return line && line[1] ? line + 1 : NULL;
}

static char *ask_from(const char *name, const char *message, u32 from,
		      struct error *e)
{
	char text[64];

	snprintf(text, sizeof(text), "%s %u", message, from);
	return device_ask(name, text, e);
}

int record_count(const char *name, u32 *lost, struct error *e)
{
	char *answer = ask_from(name, "record read", UINT32_MAX, e);
	u32 count, more;
	int ret;

	if (!answer)
		return error_set(e, -ENODATA, "device %s: nothing is recorded",
				 name);
	if (sscanf(answer, "entries %u lost %u", &count, &more) == 2 &&
	    count <= TRACE_MAX_ENTRIES) {
		ret = count;
		if (lost)
			*lost = more;
	} else {
		ret = unexpected(name, answer, e);
	}
	free(answer);
	return ret;
}

/* Lines of one answer. Return: how many, or a negative errno */
static int take_layers(const char *name, const char *line, struct trace *trace,
		       struct error *e)
{
	unsigned long long ubytes;
	struct trace_layer *grown;
	char uuid[UUID_TEXT];
	int n = 0;

	for (; line && *line && *line != '\n'; line = next_line(line), n++) {
		if (trace->layers == TRACE_MAX_LAYERS)
			return unexpected(name, line, e);
		grown = realloc(trace->layer, (trace->layers + 1) *
				sizeof(*grown));
		if (!grown)
			return no_memory(e);
		trace->layer = grown;
		if (sscanf(line, "%36s %llu", uuid, &ubytes) != 2 ||
		    !uuid_parse(uuid, grown[trace->layers].uuid) ||
		    ubytes > TRACE_OFFSETS)
			return unexpected(name, line, e);
		grown[trace->layers++].ubytes = ubytes;
	}
	return n;
}

static int device_layers(const char *name, struct trace *trace,
			 struct error *e)
{
	char *answer;
	int n;

	do {
		answer = ask_from(name, "layers", trace->layers, e);
		if (!answer)
			return -EIO;
		n = take_layers(name, answer, trace, e);
		free(answer);
	} while (n > 0);
	return n;
}

static int take_entries(const char *name, const char *line,
			struct trace *trace, u32 room, struct error *e)
{
	unsigned long long upos;
	u32 layer;
	int n = 0;

	for (; line && trace->entries < room; line = next_line(line), n++) {
		if (sscanf(line, "%u %llu", &layer, &upos) != 2 ||
		    layer >= trace->layers ||
		    upos >= trace->layer[layer].ubytes)
			return unexpected(name, line, e);
		trace->entry[trace->entries++] = trace_entry(layer, upos);
	}
	return n;
}

static int image_of(const char *name, u8 image[16], struct error *e)
{
	char text[UUID_TEXT];
	struct device device;
	int err;

	err = device_read(name, &device, e);
	if (err)
		return err;
	snprintf(text, sizeof(text), "%.36s",
		 strlen(device.uuid) > strlen(DEVICE_UUID_PREFIX) ?
		 device.uuid + strlen(DEVICE_UUID_PREFIX) : "");
	/* A device of a dmsetup line of one's own has no UUID, or any. */
	if (!uuid_parse(text, image))
		memset(image, 0, 16);
	device_drop(&device);
	return 0;
}

int record_read(const char *name, struct trace *trace, struct error *e)
{
	char *answer;
	int room, n;

	*trace = (struct trace){ .merged = 1 };
	n = image_of(name, trace->image, e);
	if (!n)
		n = device_layers(name, trace, e);
	room = n < 0 ? n : record_count(name, NULL, e);
	if (room < 0) {
		trace_free(trace);
		return room;
	}
	trace->entry = calloc(room + 1, sizeof(*trace->entry));
	n = trace->entry ? 1 : no_memory(e);
	while (n > 0) {
		answer = ask_from(name, "record read", trace->entries, e);
		n = answer ? take_entries(name, next_line(answer), trace, room,
					  e) : -EIO;
		free(answer);
	}
	if (n < 0)
		trace_free(trace);
	return n;
}

static int send_entries(const char *name, const u64 *entry, u32 entries,
			struct error *e)
{
	char text[32 + ADD_ENTRIES * ENTRY_DIGITS];
	u32 i, n;
	int err;

	snprintf(text, sizeof(text), "prefetch begin %u", entries);
	err = device_message(name, text, e);
	for (; entries && !err; entries -= n, entry += n) {
		int used = snprintf(text, sizeof(text), "prefetch add ");

		n = entries < ADD_ENTRIES ? entries : ADD_ENTRIES;
		for (i = 0; i < n; i++)
			used += snprintf(text + used, sizeof(text) - used,
					 "%016llx",
					 (unsigned long long)entry[i]);
		err = device_message(name, text, e);
	}
	return err;
}

int replay_start(const char *name, const struct trace *trace, struct error *e)
{
	struct trace own = {};
	u64 *entry = NULL;
	int n, err;

	n = device_layers(name, &own, e);
	if (n >= 0)
		n = trace_map(trace, own.layer, own.layers, &entry, e);
	if (!n && trace->entries)
		n = error_set(e, -EXDEV,
			      "the trace is of another image: device %s has none of its layers",
			      name);
	if (n >= 0) {
		err = send_entries(name, entry, n, e);
		n = err ? err : n;
	}
	free(entry);
	trace_free(&own);
	return n;
}

int replay_status(const char *name, struct replay_status *status,
		  struct error *e)
{
	char *answer = device_ask(name, "prefetch status", e);
	unsigned long long asked, left, unread, rate;
	int err = 0;

	if (!answer)
		return -EIO;
	if (sscanf(answer, "%7s %7s %u %u %llu %llu %llu %u %llu",
		   status->what, status->state, &status->next, &status->count,
		   &asked, &left, &unread, &status->chunk, &rate) != 9)
		err = unexpected(name, answer, e);
	free(answer);
	if (err)
		return err;
	status->asked = asked;
	status->left = left;
	status->unread = unread;
	status->rate = rate;
	return 0;
}

// SPDX-License-Identifier: GPL-2.0-only
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../helper/file.h"
#include "../../helper/http.h"
#include "../../helper/log.h"
#include "rig.h"

#define LIMIT	(60 * NSEC_PER_SEC)	/* for a test that hangs */

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "# rig: %s: %s\n", what, strerror(errno));
	abort();
}

static int on_fill(struct sink *sink, struct lazyframe_fill *fill,
		   const void *bytes)
{
	struct rig *rig = (struct rig *)sink;
	struct rig_tag *t;

	if (rig->session_error)
		return rig->session_error;
	/* As the module does: the low part is the slot, the rest its history. */
	t = &rig->tag[fill->tag % TAGS];
	if (!t->open || fill->tag / TAGS != t->uses) {
		rig->wrong++;
		return -EINVAL;
	}
	if (t->refuse && !fill->status)
		return -EINVAL;
	if (fill->offset != t->have || fill->length > t->length - t->have ||
	    !fill->status == !fill->length) {
		rig->wrong++;
		return -EINVAL;
	}
	if (memcmp(bytes ? bytes : "", rig->object + t->offset + t->have,
		   fill->length))
		rig->wrong++;
	t->have += fill->length;
	if (fill->status || t->have == t->length) {
		t->status = fill->status;
		t->open = false;
		t->finished = ++rig->finished;
		t->when = now_ns();
		rig->open--;
	}
	return 0;
}

static int on_layer(struct sink *sink, struct lazyframe_layer_info *info)
{
	struct rig *rig = (struct rig *)sink;

	if (info->layer >= LAYERS || !*rig->layer[info->layer].locator)
		return -ENOENT;
	*info = rig->layer[info->layer];
	return 0;
}

void rig_layer(struct rig *rig, u64 id, const char *url, u64 size,
	       const char *validator)
{
	struct lazyframe_layer_info *info = &rig->layer[id];

	memset(info, 0, sizeof(*info));
	info->layer = id;
	info->csize = size;
	info->uuid[15] = id;
	snprintf(info->locator, sizeof(info->locator), "%s", url);
	snprintf(info->validator, sizeof(info->validator), "%s", validator);
}

void rig_etag(struct rig *rig, char *etag, size_t size)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/object", rig->dir);
	must(!stat(path, &st), path);
	snprintf(etag, size, "\"%llx-%llx-%llx\"", (long long)st.st_ino,
		 (long long)st.st_size, st.st_mtim.tv_sec * 1000000000LL +
		 st.st_mtim.tv_nsec);
}

void rig_server(struct rig *rig)
{
	const char *server = getenv("LAZYFRAME_SERVER");
	int in[2], out[2];
	char port[16];
	FILE *f;

	if (!server)
		server = SERVER;
	snprintf(port, sizeof(port), "%d", rig->port);
	must(!pipe2(in, O_CLOEXEC) && !pipe2(out, O_CLOEXEC), "pipe");
	rig->server = fork();
	must(rig->server >= 0, "fork");
	if (!rig->server) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		execl(server, server, "--root", rig->dir, "--port", port, NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	rig->server_in = in[1];
	f = fdopen(out[0], "r");
	must(f && fscanf(f, "%d", &rig->port) == 1, server);
	fclose(f);
	snprintf(rig->url, sizeof(rig->url), "http://127.0.0.1:%d", rig->port);
}

void rig_server_stop(struct rig *rig)
{
	kill(rig->server, SIGTERM);
	waitpid(rig->server, NULL, 0);
	close(rig->server_in);
	rig->server = 0;
}

void rig_up(struct rig *rig)
{
	char path[128];
	u64 x = 88172645463325252ULL;
	size_t i;
	int fd;

	memset(rig, 0, sizeof(*rig));
	log_init(!!getenv("VERBOSE"));
	unsetenv("http_proxy");
	unsetenv("https_proxy");
	unsetenv("all_proxy");
	unsetenv("ALL_PROXY");
	signal(SIGPIPE, SIG_IGN);
	rig->sink.fill = on_fill;
	rig->sink.layer = on_layer;
	rig->options = (struct fetch_options){
		.connections = 8,
		.range_max = 8 << 20,
		.stall_ns = NSEC_PER_SEC,
		.connect_ns = NSEC_PER_SEC,
	};
	rig->object = malloc(OBJECT_BYTES);
	must(rig->object, "malloc");
	for (i = 0; i < OBJECT_BYTES; i += sizeof(x)) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(rig->object + i, &x, sizeof(x));
	}
	strcpy(rig->dir, "/tmp/lazyframe-rig.XXXXXX");
	must(mkdtemp(rig->dir), "mkdtemp");
	setenv("HOME", rig->dir, 1);
	snprintf(path, sizeof(path), "%s/object", rig->dir);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	must(fd >= 0 && write(fd, rig->object, OBJECT_BYTES) == OBJECT_BYTES,
	     path);
	close(fd);
	rig_server(rig);
}

void rig_go(struct rig *rig)
{
	struct http_options http = {
		.connections = rig->options.connections,
		.cafile = rig->cafile,
		.verbose = !!getenv("VERBOSE"),
	};
	char url[160];

	must(!loop_init(&rig->loop), "loop_init");
	rig->http = http_new(&rig->loop, &http);
	rig->file = file_new(&rig->loop, rig->options.connections);
	must(rig->http && rig->file, "transports");
	must(!http_credentials(rig->http), "credentials");
	rig->options.transport[0] = rig->http;
	rig->options.transport[1] = rig->file;
	if (rig->shared_options.dir) {
		rig->shared = shared_new(&rig->loop, &rig->shared_options, TAGS);
		must(rig->shared && !shared_start(rig->shared), "shared");
		rig->options.shared = rig->shared;
	}
	rig->fetch = fetch_new(&rig->loop, &rig->sink, TAGS, &rig->options);
	must(rig->fetch, "fetch_new");
	snprintf(url, sizeof(url), "%s/object", rig->url);
	if (!*rig->layer[1].locator)
		rig_layer(rig, 1, url, OBJECT_BYTES, "");
}

void rig_down(struct rig *rig)
{
	char command[128];

	if (rig->fetch) {
		fetch_free(rig->fetch);
		if (rig->shared)
			shared_free(rig->shared);
		file_free(rig->file);
		http_free(rig->http);
		loop_exit(&rig->loop);
	}
	if (rig->server)
		rig_server_stop(rig);
	free(rig->object);
	snprintf(command, sizeof(command), "rm -rf %s", rig->dir);
	must(!system(command), command);
}

void rig_tell(struct rig *rig, const char *fmt, ...)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET,
		.sin_port = htons(rig->port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	char body[2048], head[256];
	size_t have = 0;
	va_list ap;
	char *end;
	ssize_t n;
	int fd;

	va_start(ap, fmt);
	vsnprintf(body, sizeof(body), fmt, ap);
	va_end(ap);
	snprintf(head, sizeof(head),
		 "POST /.control HTTP/1.1\r\nContent-Length: %zu\r\n\r\n",
		 strlen(body));
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(fd >= 0 && !connect(fd, (void *)&to, sizeof(to)), "connect");
	must(write(fd, head, strlen(head)) > 0 &&
	     write(fd, body, strlen(body)) >= 0, "control");
	shutdown(fd, SHUT_WR);
	while ((n = read(fd, rig->text + have,
			 sizeof(rig->text) - 1 - have)) > 0)
		have += n;
	close(fd);
	rig->text[have] = 0;
	must(!strncmp(rig->text, "HTTP/1.1 200", 12), body);
	end = strstr(rig->text, "\r\n\r\n") + 4;
	memmove(rig->text, end, strlen(end) + 1);
}

int rig_log(struct rig *rig, struct rig_line *line, int max)
{
	char *p, *save;
	int n = 0;

	rig_tell(rig, "settle\nlog\n");
	for (p = strtok_r(rig->text, "\n", &save); p && n < max;
	     p = strtok_r(NULL, "\n", &save)) {
		char where[64], status[16];

		must(sscanf(p, "%*s %*s %63s %15s %lld %d %lf", where, status,
			    &line[n].sent, &line[n].connection,
			    &line[n].start) == 5, p);
		line[n].status = atoi(status);
		line[n].first = -1;
		line[n].last = -1;
		sscanf(where, "%lld-%lld", &line[n].first, &line[n].last);
		n++;
	}
	return n;
}

void rig_post(struct rig *rig, u32 tag, u64 layer, u64 offset, u32 length,
	      u32 have, u32 flags, u64 ms)
{
	struct lazyframe_request req = {
		.layer = layer,
		.offset = offset,
		.length = length,
		.have = have,
		.tag = rig->tag[tag].uses * TAGS + tag,
		.flags = flags,
		.deadline = ms ? now_ns() + ms * NSEC_PER_MSEC : 0,
	};

	if (!(flags & LAZYFRAME_REQ_PROMOTE)) {
		must(!rig->tag[tag].open, "tag in use");
		rig->tag[tag] = (struct rig_tag){
			.offset = offset,
			.length = length,
			.have = have,
			.open = true,
			.uses = rig->tag[tag].uses + 1,
		};
		req.tag += TAGS;
		rig->open++;
	}
	fetch_request(rig->fetch, &req);
}

int rig_turn(struct rig *rig)
{
	int err = fetch_run(rig->fetch);

	if (err)
		return err;
	err = loop_turn(&rig->loop);
	return err ? err : fetch_run(rig->fetch);
}

int rig_run(struct rig *rig)
{
	u64 until = now_ns() + LIMIT;
	int err = 0;

	while (rig->open && !err) {
		must(now_ns() < until, "requests stay open");
		err = rig_turn(rig);
	}
	return err;
}

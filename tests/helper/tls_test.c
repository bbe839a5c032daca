// SPDX-License-Identifier: GPL-2.0-only
/*
 * The daemon's fetcher against nginx: TLS, HTTP/2, and their absence; clients'
 * certificates, and a proxy.
 */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../helper/http.h"
#include "kselftest_harness.h"
#include "rig.h"

static const char setup[] =
"cd %s && umask 077 &&"
"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
" -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1,DNS:localhost -keyout key"
" -out cert 2>/dev/null &&"
"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
" -subj /CN=other -keyout key2 -out other 2>/dev/null &&"
"cat >nginx.conf <<END\n"
"daemon off; master_process off; pid pid; error_log error;\n"
"events { }\n"
"http {\n"
"  log_format one '\\$connection \\$server_protocol \\$status';\n"
"  access_log access one;\n"
"  client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t;\n"
"  uwsgi_temp_path t; scgi_temp_path t;\n"
"  server {\n"
"    listen 127.0.0.1:%d ssl%s;\n"
"    ssl_certificate cert; ssl_certificate_key key;\n"
"    root .;\n"
"  }\n"
"}\n"
"END\n";

FIXTURE(tls) {
	struct rig *rig;
	pid_t nginx;
	int port;
};

FIXTURE_VARIANT(tls) {
	const char *protocol;
};

FIXTURE_VARIANT_ADD(tls, http2) { .protocol = " http2" };
FIXTURE_VARIANT_ADD(tls, http1) { .protocol = "" };

static int free_port(void)
{
	struct sockaddr_in a = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (bind(fd, (void *)&a, len) || getsockname(fd, (void *)&a, &len))
		abort();
	close(fd);
	return ntohs(a.sin_port);
}

static bool answers(int port)
{
	struct sockaddr_in a = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool ok = !connect(fd, (void *)&a, sizeof(a));

	close(fd);
	return ok;
}

static void nginx_start(struct rig *rig, pid_t *nginx, int port)
{
	char path[128];

	*nginx = fork();
	if (!*nginx) {
		snprintf(path, sizeof(path), "%s/", rig->dir);
		execl("/usr/sbin/nginx", "nginx", "-p", path, "-e", "error",
		      "-c", "nginx.conf", NULL);
		_exit(127);
	}
	while (!answers(port)) {
		if (waitpid(*nginx, NULL, WNOHANG))
			abort();
		usleep(10000);
	}
}

static void nginx_stop(pid_t nginx)
{
	kill(nginx, SIGTERM);
	waitpid(nginx, NULL, 0);
}

FIXTURE_SETUP(tls)
{
	char command[4096], url[160];
	int port = self->port = free_port();

	if (access("/usr/sbin/nginx", X_OK))
		SKIP(return, "nginx is missing: run tests/setup");
	self->rig = malloc(sizeof(*self->rig));
	rig_up(self->rig);
	snprintf(command, sizeof(command), setup, self->rig->dir, port,
		 variant->protocol);
	ASSERT_EQ(0, system(command));
	nginx_start(self->rig, &self->nginx, port);
	snprintf(url, sizeof(url), "https://127.0.0.1:%d/object", port);
	rig_layer(self->rig, 1, url, OBJECT_BYTES, "");
}

FIXTURE_TEARDOWN(tls)
{
	if (!self->rig)
		return;
	nginx_stop(self->nginx);
	EXPECT_EQ(0, self->rig->wrong);
	rig_down(self->rig);
	free(self->rig);
}

/* Distinct connections in nginx's log; all lines must be of @protocol. */
static int connections(struct rig *rig, const char *protocol, int *lines)
{
	int connection, status, seen[128], n = 0, i;
	char path[128], word[32];
	FILE *f;

	*lines = 0;
	snprintf(path, sizeof(path), "%s/access", rig->dir);
	f = fopen(path, "r");
	if (!f)
		return -1;
	while (fscanf(f, "%d %31s %d", &connection, word, &status) == 3) {
		if (strcmp(word, protocol) || status != 206)
			continue;
		++*lines;
		for (i = 0; i < n && seen[i] != connection; i++)
			;
		if (i == n && n < (int)ARRAY_SIZE(seen))
			seen[n++] = connection;
	}
	fclose(f);
	return n;
}

/* The server's certificate is trusted; @n ranges come. */
static void fetch_all(struct __test_metadata *_metadata, struct rig *rig, int n)
{
	char cafile[128];
	int i;

	snprintf(cafile, sizeof(cafile), "%s/cert", rig->dir);
	rig->cafile = cafile;
	rig_go(rig);
	for (i = 0; i < n; i++)
		rig_post(rig, i, 1, 2 * i * FRAME, FRAME, 0, 0, 20000);
	ASSERT_EQ(0, rig_run(rig));
	for (i = 0; i < n; i++)
		EXPECT_EQ(0, rig->tag[i].status);
}

TEST_F(tls, ranges_share_connections)
{
	struct rig *rig = self->rig;
	bool two = *variant->protocol;
	int i, lines;

	fetch_all(_metadata, rig, 40);
	i = connections(rig, two ? "HTTP/2.0" : "HTTP/1.1", &lines);
	EXPECT_EQ(40, lines);
	if (two) {
		EXPECT_EQ(1, i);
	} else {
		EXPECT_GT(i, 1);
		EXPECT_LE(i, 8);
	}
}

TEST_F(tls, a_server_that_cannot_prove_its_name_gives_no_byte)
{
	struct rig *rig = self->rig;
	char cafile[128];

	snprintf(cafile, sizeof(cafile), "%s/other", rig->dir);
	rig->cafile = cafile;
	rig_go(rig);
	rig_post(rig, 0, 1, 0, FRAME, 0, 0, 500);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(ETIMEDOUT, rig->tag[0].status);
	EXPECT_EQ(0, rig->tag[0].have);
}

/* A certificate that is wrong now may be right on the next attempt. */
TEST_F(tls, a_server_that_fails_at_tls_is_asked_again)
{
	struct rig *rig = self->rig;
	char command[512], cafile[128];

	snprintf(command, sizeof(command),
		 "cd %s && sed 's/certificate cert; .* key;/certificate other; ssl_certificate_key key2;/' nginx.conf >wrong && mv nginx.conf right && mv wrong nginx.conf",
		 rig->dir);
	ASSERT_EQ(0, system(command));
	nginx_stop(self->nginx);
	nginx_start(rig, &self->nginx, self->port);
	snprintf(cafile, sizeof(cafile), "%s/cert", rig->dir);
	rig->cafile = cafile;
	rig_go(rig);
	rig_post(rig, 0, 1, 0, FRAME, 0, 0, 20000);
	while (fetch_stats(rig->fetch)->retries < 2)
		ASSERT_EQ(0, rig_turn(rig));
	EXPECT_EQ(0, rig->tag[0].have);
	snprintf(command, sizeof(command), "cd %s && mv right nginx.conf",
		 rig->dir);
	ASSERT_EQ(0, system(command));
	nginx_stop(self->nginx);
	nginx_start(rig, &self->nginx, self->port);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(0, rig->tag[0].status);
}

TEST_F(tls, no_authorities_no_trust)
{
	struct rig *rig = self->rig;

	rig_go(rig);
	rig_post(rig, 0, 1, 0, FRAME, 0, 0, 500);
	ASSERT_EQ(0, rig_run(rig));
	EXPECT_EQ(ETIMEDOUT, rig->tag[0].status);
}

/* Only who has the key of the certificate "other" is let in. */
static void want_clients(struct rig *rig, pid_t *nginx, int port)
{
	char command[512];

	snprintf(command, sizeof(command),
		 "cd %s && sed -i 's/root .;/root .; ssl_client_certificate other; ssl_verify_client on;/' nginx.conf",
		 rig->dir);
	if (system(command))
		abort();
	nginx_stop(*nginx);
	nginx_start(rig, nginx, port);
}

static void use_certificate(struct rig *rig, int port, const char *cert,
			    const char *key)
{
	char path[96];
	FILE *f;

	snprintf(path, sizeof(path), "%s/http.conf", rig->dir);
	f = fopen(path, "w");
	if (!f)
		abort();
	fprintf(f, "[https://127.0.0.1:%d]\ncertificate = %s/%s\nkey = %s/%s\n",
		port, rig->dir, cert, rig->dir, key);
	fclose(f);
	setenv("LAZYFRAME_HTTP_CONFIG", path, 1);
}

/* One frame of the server, which is trusted: its status */
static int fetch_one(struct rig *rig)
{
	char cafile[128];

	snprintf(cafile, sizeof(cafile), "%s/cert", rig->dir);
	rig->cafile = cafile;
	rig_go(rig);
	rig_post(rig, 0, 1, 0, FRAME, 0, 0, 20000);
	return rig_run(rig) ? -1 : (int)rig->tag[0].status;
}

TEST_F(tls, a_client_with_a_certificate)
{
	want_clients(self->rig, &self->nginx, self->port);
	use_certificate(self->rig, self->port, "other", "key2");
	fetch_all(_metadata, self->rig, 8);
}

TEST_F(tls, a_client_with_the_wrong_certificate)
{
	struct rig *rig = self->rig;

	want_clients(rig, &self->nginx, self->port);
	use_certificate(rig, self->port, "cert", "key");
	EXPECT_EQ(EACCES, fetch_one(rig));
	/* What was wrong is put right, without a new start. */
	use_certificate(rig, self->port, "other", "key2");
	http_reload(rig->http);
	while (rig->tag[0].status) {
		rig_post(rig, 0, 1, 0, FRAME, 0, 0, 20000);
		ASSERT_EQ(0, rig_run(rig));
	}
}

/* Whoever a redirect leads to shall not see who asks: it is not followed. */
TEST_F(tls, a_redirect_does_not_get_the_certificate)
{
	struct rig *rig = self->rig;
	char command[512];
	int lines;

	snprintf(command, sizeof(command),
		 "cd %s && sed -i 's,root .;,root .; if ($host = 127.0.0.1) { return 302 https://localhost:%d/object; },' nginx.conf",
		 rig->dir, self->port);
	ASSERT_EQ(0, system(command));
	want_clients(rig, &self->nginx, self->port);
	use_certificate(rig, self->port, "other", "key2");
	EXPECT_EQ(EACCES, fetch_one(rig));
	EXPECT_EQ(0, connections(rig, *variant->protocol ? "HTTP/2.0" :
				 "HTTP/1.1", &lines));
}

/* Lines of the proxy's log that begin with this */
static int proxied(const struct rig *rig, const char *what)
{
	char path[96], line[512];
	int n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/proxied", rig->dir);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		n += !strncmp(line, what, strlen(what));
	if (f)
		fclose(f);
	return n;
}

TEST_F(tls, by_way_of_a_proxy)
{
	struct rig *rig = self->rig;
	char command[640], what[64];
	int port = 0;
	FILE *f;

	snprintf(command, sizeof(command),
		 "%.*sproxy %s/proxied </dev/null 2>/dev/null & echo $! >%s/proxy.pid",
		 (int)(strlen(SERVER) - strlen("server")), SERVER, rig->dir,
		 rig->dir);
	f = popen(command, "r");
	ASSERT_NE(NULL, f);
	ASSERT_EQ(1, fscanf(f, "%d", &port));
	snprintf(what, sizeof(what), "http://127.0.0.1:%d", port);
	setenv("https_proxy", what, 1);
	unsetenv("no_proxy");
	unsetenv("NO_PROXY");
	fetch_all(_metadata, rig, 8);
	snprintf(what, sizeof(what), "CONNECT 127.0.0.1:%d ", self->port);
	EXPECT_LE(1, proxied(rig, what));
	EXPECT_EQ(0, proxied(rig, "GET"));
	snprintf(command, sizeof(command), "kill $(cat %s/proxy.pid)", rig->dir);
	EXPECT_EQ(0, system(command));
	pclose(f);
}

TEST_HARNESS_MAIN

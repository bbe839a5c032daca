#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""http_server.py FOLDER LOG: an object store, good and bad.

Prints its port and serves until stdin ends. A path is /<mode>/<file>; modes:
good, nohead (403 to HEAD), norange (always 200 and everything), old (the same
for a number of last bytes), wrong (another range than asked for), short (half a
body), flaky (503 twice for each path, then good), weak (a weak entity tag), moved
(redirect to good), away (redirect to file://), meta (uncompressed-size as S3 has
it), dead (500).
"""
import collections
import http.server
import os
import re
import sys
import threading

folder, log = sys.argv[1], open(sys.argv[2], "a", buffering=1)
seen = collections.Counter()
lock = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", headers=(), length=None):
        self.send_response(status)
        for key, value in headers:
            self.send_header(key, value)
        self.send_header("Content-Length",
                         str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        log.write(f"{self.command} {self.path} {self.headers['Range']}\n")
        mode, _, name = self.path[1:].partition("/")
        with lock:
            seen[self.path] += 1
            times = seen[self.path]
        if mode == "dead" or mode == "flaky" and times <= 2:
            return self.answer(503 if mode == "flaky" else 500, b"sorry")
        if mode == "moved":
            return self.answer(302, b"", [("Location", "/good/" + name)])
        if mode == "away":
            return self.answer(302, b"", [("Location",
                                           "file://" + folder + name)])
        if mode == "nohead" and self.command == "HEAD":
            return self.answer(403)
        try:
            data = open(os.path.join(folder, name), "rb").read()
        except OSError:
            return self.answer(404, b"no")
        tag = f'"{len(data):x}"'
        headers = [("ETag", "W/" + tag if mode == "weak" else tag)]
        if mode == "meta":
            headers.append(("x-amz-meta-uncompressed-size", "1048577"))
        if self.command == "HEAD":
            return self.answer(200, b"", headers, len(data))
        m = re.fullmatch(r"bytes=(\d*)-(\d+)", self.headers["Range"] or "")
        if not m or mode == "norange" or mode == "old" and not m[1]:
            return self.answer(200, data, headers)
        first, last = int(m[1] or max(0, len(data) - int(m[2]))), len(data) - 1
        if m[1]:
            last = min(int(m[2]), last)
        if first > last:
            return self.answer(416, b"", [("Content-Range",
                                           f"bytes */{len(data)}")])
        body = data[first:last + 1]
        if mode == "wrong":
            first, last = first + 1, last + 1
        headers.append(("Content-Range", f"bytes {first}-{last}/{len(data)}"))
        if mode == "short":
            self.answer(206, body[:len(body) // 2], headers, len(body))
            self.close_connection = True
            return None
        return self.answer(206, body, headers)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
# Clients that hang up on a bad answer are no news.
server.handle_error = lambda *args: None
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
sys.stdin.read()

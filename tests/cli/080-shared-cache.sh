#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# nginx as nginx-cache.conf says, between many readers and an object store: each
# slice is fetched once, by whoever is first, and a reader sees what the store has.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
cd "$tap_dir" || exit 1

READERS=8
SLICE=$((4 << 20))
free_port()
{
	python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
port=$(free_port)

# nginx NAME <the http block: run it, in a folder of its own
nginx()
{
	mkdir -p "$1"
	{
		echo "worker_processes 1; pid $PWD/$1/pid; user $(id -un);"
		echo "events { worker_connections 256; }"
		echo "http { log_format ranges '\$request_method \$uri \$http_range \$status';"
		for part in client_body proxy fastcgi uwsgi scgi; do
			echo "${part}_temp_path $PWD/$1/$part;"
		done
		echo "access_log $PWD/$1/access.log ranges;"
		cat
		echo "}"
	} >"$1.conf"
	/usr/sbin/nginx -p "$PWD/$1" -c "$PWD/$1.conf" -e "$PWD/$1/error.log"
}
trap 'kill $(cat origin/pid cache/pid 2>/dev/null); rm -rf "$tap_dir"' EXIT

mkdir store
head -c 30000001 /dev/urandom >image
url=$(lazyframe build -q -c lz4 image "file://$PWD/store")
at=${url#"file://$PWD/store/"}
http=http://127.0.0.1:$port

check "the origin" nginx origin <<END
	server { listen unix:$PWD/origin/socket; root $PWD/store; }
END
check "the cache, as the example has it" nginx cache < <(
	sed -e "s,/var/cache/nginx/lazyframe,$PWD/cache/data," \
		-e "s,server objects.example:80,server unix:$PWD/origin/socket," \
		-e "s,listen 8080,listen 127.0.0.1:$port," \
		"$tests/../helper/nginx-cache.conf")

# all CMD...: READERS of them at once, and all succeed
all()
{
	local i pids=()

	for ((i = 0; i < READERS; i++)); do
		"$@" >"reader.$i" 2>&1 &
		pids+=($!)
	done
	for i in "${pids[@]}"; do
		wait "$i" || { cat reader.*; return 1; }
	done
}
check "$READERS readers at once, none of them has anything" \
	all lazyframe verify "$http/$at"

# what the origin was asked for: ranges of data
asked() { grep -v '\.header ' origin/access.log | grep "^GET" | sort; }
object=$(find store -name 'image.lz4')
slices=$((($(stat -c %s "$object") + SLICE - 1) / SLICE))
once()
{
	asked
	[ "$(asked | wc -l)" = $slices ] &&
		[ -z "$(asked | uniq -d)" ]
}
check "the origin was asked once for each of the $slices slices" once
check "they were asked often" test "$(grep -c '^GET.* 206$' cache/access.log)" -gt $((READERS * 3))

kill "$(cat origin/pid)"
check "with the origin down, all of it is there" \
	lazyframe verify "$http/$at"
check "what is not there is an error that says so" \
	eval '! lazyframe verify "$http/none" 2>err && grep -q "50[24]" err'
check "the cache is as large as what it holds" \
	test "$(du -sb cache/data | cut -f 1)" -lt $(($(stat -c %s "$object") + 200000))
tap_end

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# inspect and verify over HTTP: a good server, and servers that are wrong.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
image_py="$tests/cli/image.py"
cd "$tap_dir" || exit 1

mkdir store
python3 "$image_py" make bytes-1048577 image
url=$(lazyframe build -q -f 64K image "file://$PWD/store")
at=${url#"file://$PWD/store/"}
dir=$(dirname "$at")
# A seekable object of its own, and one that is raw.
cp "store/$dir/image.zstd" store/object
cp image store/raw
: >store/empty

coproc server { exec python3 "$tests/cli/http_server.py" "$PWD/store/" "$PWD/log"; }
read -r port <&"${server[0]}"
http=http://127.0.0.1:$port

for mode in good nohead flaky moved; do
	check "$mode: verify a header" lazyframe verify "$http/$mode/$at"
	check "$mode: verify an object" lazyframe verify "$http/$mode/object"
done
check "good: verify a raw object" lazyframe verify "$http/good/raw"
check "good: an object with a query in its URL" \
	says 1 "the server says 404" lazyframe verify "$http/good/object?x=1"

same()
{
	diff <(lazyframe inspect -jmf "$url" | grep -v -e url -e validator) \
		<(lazyframe inspect -jmf "$http/good/$at" |
			grep -v -e url -e validator)
}
check "good: inspect tells the same as for files" same
tag()
{
	lazyframe inspect -j "$http/$1/object" | grep '"validator"' | tee tag &&
		grep -q "$2" tag
}
check "a strong entity tag is kept" tag good '\\"'
check "a weak entity tag is none" tag weak 'null'

# bad MODE WORDS
bad()
{
	says 1 "$2" lazyframe verify "$http/$1/$at" &&
		says 1 "$2" lazyframe verify "$http/$1/object"
}
check "no ranges" bad norange "must support ranges"
check "another range" bad wrong "other bytes"
check "half a body" bad short "after 4 attempts"
check "it says which bytes" grep -E ": bytes [0-9]+-[0-9]+ after 4 attempts" "$tap_dir/stderr"
check "nothing but errors" bad dead "the server says 500"
check "a redirect to a file" bad away "file"
check "no such object" says 1 "no such object, the server says 404" \
	lazyframe inspect "$http/good/nothing"
check "an empty object" says 1 "the image is empty" \
	lazyframe inspect "$http/good/empty"
check "an empty object, without HEAD" says 1 "the image is empty" \
	lazyframe inspect "$http/nohead/empty"
check "nobody there" says 1 "after 4 attempts" \
	lazyframe inspect http://127.0.0.1:1/x
check "a host that is none" says 1 "no..such..host" \
	lazyframe inspect "http://no..such..host/x"
check "the right uncompressed-size" lazyframe verify "$http/meta/object"

few_requests()
{
	: >log
	lazyframe inspect "$http/good/object" >/dev/null || return 1
	cat log
	# HEAD, footer, table, first bytes
	[ "$(wc -l <log)" = 4 ]
}
check "inspect reads tables, no data" few_requests
ranges()
{
	: >log
	lazyframe verify "$http/good/object" || return 1
	cat log
	[ "$(wc -l <log)" -le 7 ]
}
check "verify asks for many frames in one range" ranges

tap_end

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

for mode in good nohead old flaky moved; do
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
check "it says which bytes" grep -E ": bytes [0-9]*-[0-9]+ after 4 attempts" "$tap_dir/stderr"
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

# requests N CMD...: that many
requests()
{
	local n=$1

	shift
	: >log
	"$@" >stdout || return 1
	cat log
	[ "$(wc -l <log)" = "$n" ]
}
check "an object: its end, and its first bytes" \
	requests 2 lazyframe inspect "$http/good/object"
check "a raw object: the same" requests 2 lazyframe inspect "$http/good/raw"
check "an image: its header, and the layer's table" \
	requests 2 lazyframe inspect "$http/good/$at"
ranges()
{
	: >log
	lazyframe verify "$http/good/object" || return 1
	cat log
	[ "$(wc -l <log)" -le 7 ]
}
check "verify asks for many frames in one range" ranges

# What an attach waits for is the number of requests that are one behind the other.
cp image other
printf '%s' another | dd of=other bs=64K seek=3 conv=notrunc status=none
child=$(lazyframe build -q -f 64K --parent "$url" other "file://$PWD/store")
printf '%s' a third | dd of=other bs=64K seek=9 conv=notrunc status=none
child=$(lazyframe build -q -f 64K --parent "$child" other "file://$PWD/store")
mkfifo alive port
exec 7<>alive
python3 "$tests/server" --root store <alive >port 7>&- &
read -r port <port
scripted=http://127.0.0.1:$port
control() { curl -sS --data-binary "$1" "$scripted/.control"; }

# No answer ends before all three were asked for. What is held for 30 seconds is
# asked for anew.
at_once()
{
	local end=$((SECONDS + 25)) inspect status=0

	control "forget
$(for layer in store/*/image.zstd; do echo "fault hold path=${layer#store}"; done)"
	lazyframe inspect "$scripted/${child#"file://$PWD/store/"}" & inspect=$!
	while [ -n "$(control faults)" ] && [ $SECONDS -lt $end ]; do
		sleep 0.1
	done
	control faults | grep . && status=1
	control release
	wait $inspect || status=1
	control "settle
log"
	[ "$(control log | wc -l)" = 4 ] && [ $status = 0 ]
}
check "an image of three layers: the header, and three tables at once" at_once

# What the first answer lacks, others have: the same is found out all the same.
at=${url#"file://$PWD/store"}
lazyframe inspect -jmf "$scripted$at" >whole
# right_after FAULT PATH
right_after()
{
	control "fault $1 path=$2" &&
		lazyframe inspect -jmf "$scripted$at" | cmp - whole &&
		[ -z "$(control faults)" ]
}
for kind in chunked length drop short reset status redirect; do
	check "$kind: the header" right_after $kind "$at"
	check "$kind: the table" right_after $kind "${at%header}zstd"
done
for kind in norange range total whole empty; do
	check "$kind: the table" right_after $kind "${at%header}zstd"
done

tap_end

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# A header of version 4 may name layers that it does not list: then their own
# headers tell how they are stored. They are never guessed to be raw.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
cd "$tap_dir" || exit 1

# child OWN LAYER...: a header over 64 KiB of each layer, of which it lists only
# the first; prints its path
child()
{
	python3 - "$@" <<-'END'
	import os, struct, subprocess, sys, uuid
	own, *layers = sys.argv[1:]
	ids = [uuid.UUID(l) for l in layers]
	data = open(f"store/{layers[0]}/i.header", "rb").read()
	lz4 = lambda how, d: subprocess.run(["lz4", how], input=d, stdout=-1,
	                                    check=True).stdout
	body = lz4("-dcq", data[69:])[:-44]
	body += struct.pack("<I", len(ids))
	for n, i in enumerate(ids):
	    body += struct.pack("<QQ16sQ", n << 16, 1 << 16, i.bytes, 0)
	os.makedirs(f"store/{own}", exist_ok=True)
	path = f"store/{own}/i.header"
	open(path, "wb").write(
	    struct.pack("<QQQQ16s16s", 4, 4096, len(ids) << 16, 1,
	                uuid.UUID(own).bytes, ids[0].bytes) +
	    struct.pack("<BI", 0, len(body)) + lz4("-qc", body))
	print(path)
	END
}

json()
{
	lazyframe inspect --json "$1" | python3 -c "import json, sys
j = json.load(sys.stdin)
sys.exit(not ($2))"
}

mkdir store
own=00000000-0000-4000-8000-000000000001
head -c 64K /dev/urandom >plain
names=()
for codec in zstd lz4 zstd none; do
	url=$(lazyframe build -q -n i -c $codec -f 16K plain "file://$PWD/store") ||
		exit 1
	names+=("$(basename "$(dirname "$url")")")
done
url="file://$PWD/$(child $own "${names[@]}")"

listed()
{
	lazyframe verify "$url" && json "$url" 'j["size"] == 4 << 16 and
		sorted(l["codec"] for l in j["layers"]) ==
		["lz4", "none", "zstd", "zstd"]'
}
check "a layer that a header does not list" listed

built_on()
{
	local next

	cat plain plain plain plain >four
	printf x | dd of=four bs=1 seek=100000 conv=notrunc status=none
	next=$(lazyframe build -q --parent "$url" four "file://$PWD/store") &&
		python3 "$tests/lib/header.py" "${next#file://}" four &&
		mv store away && mkdir store &&
		cp -r away/* store && rm store/*/i.header &&
		cp "away/${next#"file://$PWD/store/"}" "${next#file://}" &&
		lazyframe verify -q "$next"
	local status=$?

	rm -rf store
	mv away store
	return $status
}
check "its child lists it, and needs none of the ancestors' headers" built_on

count()
{
	python3 "$tests/server" --root store <pipe >port &
	server=$!
	until [ -s port ]; do sleep 0.1; done
	http=http://127.0.0.1:$(cat port)
	lazyframe verify "$http/$own/i.header" || return 1
	curl -s --data-binary log "$http/.control" >log || return 1
	grep header log
	# the child's, and of the layers all but the first
	[ "$(grep -c '^GET .*header' log)" = 4 ]
}
mkfifo pipe
exec 7<>pipe
check "one request for each header" count
kill $server
rm pipe

mv "store/${names[1]}/i.header" saved
check "no own header, no raw object: refused" \
	says 1 "${names[1]}/i: " lazyframe inspect "$url"
: >"store/${names[1]}/i.header"
check "a damaged one" says 1 "header" lazyframe inspect "$url"
cp "store/${names[0]}/i.header" "store/${names[1]}/i.header"
check "another layer's" \
	says 1 "is not the header of layer ${names[1]}" lazyframe inspect "$url"
mv saved "store/${names[1]}/i.header"
check "all is well again" lazyframe verify "$url"

mv "store/${names[3]}/i.header" saved
check "a raw layer needs none" lazyframe verify "$url"
mv saved "store/${names[3]}/i.header"

# The found table has to hold what is mapped, as a listed one has.
short()
{
	head -c 32K plain >half
	url=$(lazyframe build -q -n i half "file://$PWD/store")
	child $own "${names[0]}" "$(basename "$(dirname "$url")")" >/dev/null
	says 1 "mapping 1 ends at" \
		lazyframe inspect "file://$PWD/store/$own/i.header"
}
check "a layer that is too short" short

tap_end

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# lazyframe inspect, and what counts as an image: headers of all kinds, single
# objects that the standard tools made, and what is refused.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
image_py="$tests/cli/image.py"
cd "$tap_dir" || exit 1

mkdir store
python3 "$image_py" make sparse sparse
url=$(lazyframe build -q -f 64K sparse "file://$PWD/store")

# json URL EXPRESSION: of j, the parsed output
json()
{
	lazyframe inspect --json --mappings --frames "$1" |
		python3 -c "import json, sys
j = json.load(sys.stdin)
ok = ($2)
print(ok)
sys.exit(not ok)"
}

# Blocks that are not zero: 2 + 74 + 1 (9000001) + 256 + 2 + 1
check "JSON: the image" json "$url" \
	'(j["size"], j["block_size"], j["header_version"], j["generation"]) ==
	 (40 << 20, 4096, 4, 0) and j["uuid"] == j["base_uuid"]'
check "JSON: mappings cover the image" json "$url" \
	'sum(m["length"] for m in j["mappings"]["list"]) == 40 << 20 and
	 all(a["start"] + a["length"] == b["start"] for a, b in
	     zip(j["mappings"]["list"], j["mappings"]["list"][1:]))'
check "JSON: mappings are counted" json "$url" \
	'j["mappings"]["count"] == len(j["mappings"]["list"]) == 13 and
	 j["mappings"]["zero_count"] == 6 and
	 j["mappings"]["zero_bytes"] == (40 << 20) - 336 * 4096'
check "JSON: the layer" json "$url" \
	'len(j["layers"]) == 1 and
	 j["layers"][0]["uncompressed_size"] == 336 * 4096 ==
	 j["layers"][0]["mapped_bytes"] and
	 j["layers"][0]["codec"] == "zstd" and
	 len(j["layers"][0]["sha256"]) == 64 and
	 j["layers"][0]["validator"][0] == chr(34)'
check "JSON: frames" json "$url" \
	'(lambda f: f["count"] == len(f["list"]) == 21 and
	 sum(x["size"] for x in f["list"]) == f["stored"]["total"] and
	 f["uncompressed"]["largest"] == 65536 and
	 all(x["checksum"] for x in f["list"]))(j["layers"][0]["frames"])'

stable()
{
	lazyframe inspect -jmf "$url" >one && lazyframe inspect -jmf "$url" >two &&
		cmp one two
}
check "JSON is the same each time" stable

plain()
{
	lazyframe inspect "$url" >out && ! grep -q $'\033' out &&
		grep -q "^    [1-6]\{21\}$" out &&
		grep -q "^mappings      13, 6 of them zero" out
}
check "text in a pipe: no colours, one digit a frame" plain
coloured()
{
	script -qec "lazyframe inspect $url" /dev/null </dev/null >out &&
		grep -q $'\033\\[3[1-6]m' out
}
no_colour()
{
	NO_COLOR=1 script -qec "lazyframe inspect $url" /dev/null </dev/null \
		>out && ! grep -q $'\033' out
}
check "colours on a terminal" coloured
check "no colours with NO_COLOR" no_colour

matrix()
{
	head -c 9M /dev/urandom >many
	lazyframe inspect "$(lazyframe build -q -f 4K many \
		"file://$PWD/store")" >out &&
		grep -q "ratio of each 3 frames:" out &&
		[ "$(grep -c '^    1*$' out)" = 12 ]
}
check "2304 frames in 12 rows of 64 cells of 3" matrix

# Objects that other tools made: the frames by zstd and lz4, the seek table as
# the published format describes it.
python3 "$image_py" make bytes-1048577 plain
python3 - <<'END'
import struct, subprocess
data = open("plain", "rb").read()
def table(entries, sums):
    size = len(entries) * (12 if sums else 8) + 9
    out = struct.pack("<II", 0x184d2a5e, size)
    for e in entries:
        out += struct.pack("<II", *e[:2])
        if sums:
            out += struct.pack("<I", e[2])
    return out + struct.pack("<IBI", len(entries), sums << 7, 0x8f92eab1)
def make(name, tool, cuts, sums, skip=False):
    out, entries, at = b"", [], 0
    for n in cuts:
        part = data[at:at + n]
        at += n
        c = subprocess.run(tool, input=part, stdout=-1, check=True).stdout
        # Of zstd, the frame's own checksum: the same half of the same hash.
        entries.append((len(c), len(part), int.from_bytes(c[-4:], "little")))
        out += c
        if skip:
            s = struct.pack("<II", 0x184d2a50, 3) + b"abc"
            entries.append((len(s), 0, 0))
            out += s
    open(name, "wb").write(out + table(entries, sums))
zstd = ["zstd", "-qc", "--check"]
lz4 = ["lz4", "-qc", "-BI"]
even = [65536] * 16 + [1]
odd = [1, 5000, 300000, 70001, 512, len(data) - 375514]
make("even.zst", zstd, even, 1)
make("odd.zst", zstd, odd, 1)
make("nosums.zst", zstd, odd, 0)
make("nocheck.zst", ["zstd", "-qc", "--no-check"], odd, 0)
make("skip.zst", zstd, odd, 1, True)
# Only the table has checksums.
full, bare = open("odd.zst", "rb").read(), open("nocheck.zst", "rb").read()
sums = [full[-9 - 12 * i - 4:-9 - 12 * i or None][:4] for i in range(6)][::-1]
t = bare[-(8 + 8 * 6 + 9):]
c = [struct.unpack_from("<II", t, 8 + 8 * i) for i in range(6)]
def only(name, sums):
    open(name, "wb").write(bare[:-len(t)] + table(
        [(*c[i], int.from_bytes(sums[i], "little")) for i in range(6)], 1))
only("tablesums.zst", sums)
only("badsums.zst", sums[:5] + [bytes(4)])
make("even.lz4", lz4, even, 0)
make("odd.lz4", lz4, odd, 0)
make("linked.lz4", ["lz4", "-qc", "-BD", "-B4"], [len(data)], 0)
raw = open("even.zst", "rb").read()
open("short.zst", "wb").write(raw[:100] + raw[101:])
open("huge.zst", "wb").write(table([(10, 1 << 25, 0)], 1))
open("none.zst", "wb").write(table([], 1))
END
for f in even.zst odd.zst nosums.zst nocheck.zst skip.zst tablesums.zst even.lz4 odd.lz4; do
	check "$f attaches" lazyframe verify "file://$PWD/$f"
	check "$f: what it is" json "file://$PWD/$f" \
		'j["size"] == 1048577 and j["header_version"] == 0 and
		 len(j["layers"]) == 1 and j["mappings"]["count"] == 1'
done
check "a checksum that only the table has is checked" \
	says 1 "badsums.zst: frame 5 (" lazyframe verify "file://$PWD/badsums.zst"
check "a raw object" lazyframe verify "file://$PWD/plain"
check "a raw object: runs are made up" json "file://$PWD/plain" \
	'j["layers"][0]["codec"] == "none" and
	 j["layers"][0]["frames"]["count"] == 9'
uuids()
{
	local a b

	a=$(lazyframe inspect -j "file://$PWD/plain" | grep '"uuid"' | uniq)
	b=$(lazyframe inspect -j "file://$PWD/plain" | grep '"uuid"' | uniq)
	[ "$a" = "$b" ] || return 1
	touch plain
	b=$(lazyframe inspect -j "file://$PWD/plain" | grep '"uuid"' | uniq)
	[ "$a" != "$b" ]
}
check "an object's UUID is its own, until it changes" uuids

# refused WORDS FILE
refused()
{
	says 1 "$1" lazyframe inspect "file://$PWD/$2"
}
zstd -qk plain -o plain.zst
lz4 -q plain plain.lz4 2>/dev/null
lz4 -lq plain old.lz4 2>/dev/null
: >nothing
printf 'too short' >bad.header
head -c 100 plain >store/bad.header
check "zstd without a seek table" refused "store it with lazyframe build" \
	plain.zst
check "LZ4 without a seek table" refused "store it with lazyframe build" \
	plain.lz4
check "an old LZ4 file" refused "store it with lazyframe build" old.lz4
check "a table that does not fit" refused "does not fit the object's size" \
	short.zst
check "frames that are too big" refused "the limit is 16 MiB" huge.zst
check "a table of nothing" refused "the image is empty" none.zst
check "an empty object" refused "the image is empty" nothing
check "a header that is none" refused "header" bad.header
check "nothing there" refused "No such file" no-such-object
check "a folder" refused "not a regular file" store
check "LZ4 with linked blocks: verify names it" says 1 "linked.lz4: frame 0" \
	lazyframe verify "file://$PWD/linked.lz4"
check "a header's URL with a query" says 1 "has no query" \
	lazyframe inspect "file://$PWD/x/y.header?z"

# The header and the object's own table must tell the same.
disagree()
{
	local a b

	rm -rf store/*
	a=$(lazyframe build -q -f 64K -n i plain "file://$PWD/store")
	b=$(lazyframe build -q -f 128K -n i plain "file://$PWD/store")
	a=${a#file://}
	cp "$(dirname "${b#file://}")/i.zstd" "$(dirname "$a")/i.zstd"
	says 1 "is not in the object's seek table" \
		lazyframe inspect "file://$a"
}
check "header and seek table disagree" disagree

# Objects without a seek table: the header has all.
bare()
{
	local a

	rm -rf store/*
	a=$(lazyframe build -q -f 64K -n i -c "$1" plain "file://$PWD/store")
	python3 - "$(dirname "${a#file://}")/i.$1" <<-'END'
	import os, sys
	size = os.path.getsize(sys.argv[1])
	os.truncate(sys.argv[1], size - (17 * 12 + 17))
	END
	lazyframe verify "$a" && json "$a" \
		'j["layers"][0]["frames"]["count"] == 17 and
		 not j["layers"][0]["table_checksums"]'
}
check "zstd: only the header has a table" bare zstd
check "LZ4: only the header has a table" bare lz4

# A stack: a header whose mappings go to two layers, one compressed, one raw.
stack()
{
	local a b

	rm -rf store/*
	a=$(lazyframe build -q -n i plain "file://$PWD/store")
	b=$(lazyframe build -q -n i -c none plain "file://$PWD/store")
	python3 - "${a#file://}" "${b#file://}" <<-'END' >stack.url
	import os, struct, subprocess, sys
	a, b = (open(p, "rb").read() for p in sys.argv[1:3])
	body = subprocess.run(["lz4", "-dcq"], input=a[69:], stdout=-1).stdout
	ua, ub = a[32:48], b[32:48]
	own = os.urandom(16)
	body = body[:-44] + struct.pack("<I", 4)
	for m in ((0, 8192, ua, 4096), (8192, 4096, bytes(16), 0),
	          (12288, 4096, ub, 0), (16384, 8192, ua, 1040384)):
	    body += struct.pack("<QQ16sQ", *m)
	z = subprocess.run(["lz4", "-qc"], input=body, stdout=-1).stdout
	u = "-".join((own.hex()[:8], own.hex()[8:12], own.hex()[12:16],
	              own.hex()[16:20], own.hex()[20:]))
	path = os.path.join(os.path.dirname(os.path.dirname(sys.argv[1])), u)
	os.mkdir(path)
	meta = struct.pack("<QQQQ16s16s", 4, 4096, 24576 - 4095, 1, own, ua)
	open(path + "/i.header", "wb").write(
	    meta + struct.pack("<BI", 0, len(body)) + z)
	print("file://" + path + "/i.header")
	END
	lazyframe verify "$(cat stack.url)" &&
		json "$(cat stack.url)" 'len(j["layers"]) == 2 and
			j["mappings"]["count"] == 4 and
			j["size"] == 20481 and j["generation"] == 1 and
			sorted(l["codec"] for l in j["layers"]) ==
			["none", "zstd"]'
}
check "a header on two layers" stack

tap_end

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# lazyframe flatten: many layers become one or a few, and what can be copied is
# not encoded again.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
cd "$tap_dir" || exit 1
. "$tests/lib/store.sh"

# flat COPIED ENCODED ARGUMENT...: flatten to "$flat", and so many frames
flat()
{
	local copied=$1 encoded=$2

	shift 2
	flat=$(lazyframe flatten "$@" "$base" 2>err) || { cat err; return 1; }
	grep -q "^frames  $copied copied as they are, $encoded encoded anew$" err ||
		{ cat err; return 1; }
}

# as_before NEW OLD...: how many frames of NEW's own layer are, byte for byte,
# frames of one of OLD's layers
as_before()
{
	python3 - "$tests/lib" "$@" <<-'END'
	import sys
	sys.path.insert(0, sys.argv[1])
	from header import Image
	def frames(path):
	    image = Image(path[len("file://"):])
	    for b in image.header.builds:
	        for u, c, _, size in b.frames:
	            yield image.header.uuid == b.uuid, image.fetch(b.uuid, c, size)
	old = {f for path in sys.argv[3:] for _, f in frames(path)}
	print(sum(own and f in old for own, f in frames(sys.argv[2])))
	END
}

# change FROM TO AT...: TO is FROM with other bytes at AT
change()
{
	python3 - "$@" <<-'END'
	import sys
	data = bytearray(open(sys.argv[1], "rb").read())
	for at in map(int, sys.argv[3:]):
	    data[at] ^= 0xff
	open(sys.argv[2], "wb").write(data)
	END
}

python3 - <<'END'
import random
r = random.Random(61)
data = bytearray(b"".join(b"%d %x\n" % (i, r.getrandbits(20))
                          for i in range(300000))[:2500001])
# two frames of zeros
data[1 << 20:(1 << 20) + (256 << 10)] = bytes(256 << 10)
open("zero", "wb").write(data)
END

# 18 frames: 2500001 bytes without 256 KiB of zeros
for codec in zstd lz4; do
	same()
	{
		local a

		a=$(build -c $codec -n same zero) && flat 18 0 "$a" &&
			equal "$flat" zero &&
			cmp "$(dirname "${a#file://}")/same.$codec" \
			    "$(dirname "${flat#file://}")/same.$codec" &&
			json "$flat" 'j["generation"] == 1 and
				j["mappings"]["zero_bytes"] == 256 << 10'
	}
	check "one layer that is whole: every byte of it is copied, $codec" same
done

change zero one 5000 300000
change one two 2499999
change two three 700000 5001
change three four 1200000
a=$(build -c zstd zero)
b=$(build -c zstd -p "$a" one)
c=$(build -c lz4 -p "$b" two)
d=$(build -c none -p "$c" three)
e=$(build -c zstd -p "$d" four)

chain()
{
	# Changed are blocks 1, 73, 170, 292 and 610, in frames 0, 2, 5, zeros, and
	# 17. What is left of those four frames is encoded with what changed in
	# them. The block amid zeros is all of the newest layer, and so a frame.
	flat 15 4 "$e" && equal "$flat" four && json "$flat" \
		'len(j["layers"]) == 1 and j["layers"][0]["codec"] == "zstd" and
			j["generation"] == 5' &&
		[ "$(as_before "$flat" "$e")" = 15 ]
}
check "a chain: frames that are whole are copied, the rest is encoded" chain

others()
{
	# but for a layer that has it
	flat 1 18 -c lz4 "$e" && equal "$flat" four && flat 0 0 -c none "$e" &&
		equal "$flat" four && json "$flat" 'j["header_version"] == 3'
}
check "another codec: nothing is copied" others

zeros()
{
	python3 - "$tests/lib" "${e#file://}" "${flat#file://}" <<-'END'
	import sys
	sys.path.insert(0, sys.argv[1])
	from header import *
	nil = [[(s, n) for s, n, u, _ in Image(p).header.mappings if u == NIL]
	       for p in sys.argv[2:]]
	need(nil[0] == nil[1] and len(nil[0]) == 2, nil)
	END
}
check "what was zeros stays zeros" zeros

bounded()
{
	# The four blocks of the others, packed, and the end, which is LZ4's.
	flat 1 1 --layers 2 -c lz4 "$e" && equal "$flat" four &&
		json "$flat" "[l['codec'] for l in j['layers']
			if '${a#"$base/"}'.startswith(l['uuid'])] == ['zstd'] and
			sorted(l['codec'] for l in j['layers']) ==
			['lz4', 'zstd']"
}
check "--layers 2 keeps the biggest as it is" bounded

enough()
{
	local n

	for n in 5 6 65535; do
		flat 0 0 --layers $n "$e" && equal "$flat" four &&
			[ "$(ls "$(dirname "${flat#file://}")")" = zero.header ] &&
			json "$flat" 'len(j["layers"]) == 5' || return 1
	done
}
check "--layers with as many as there are, or more, keeps all" enough

elsewhere()
{
	mkdir -p other
	flat=$(lazyframe flatten -q "$e" "file://$PWD/other") &&
		mv store away && equal "$flat" four
	local status=$?

	mv away store
	return $status
}
check "into another directory, which then needs nothing of the first" elsewhere
check "not with --layers, as layers lie beside their header" \
	says 1 "below file://$PWD/other/" \
	lazyframe flatten --layers 2 "$e" "file://$PWD/other"

renamed()
{
	flat=$(lazyframe flatten -q --name new "$e" "$base") &&
		equal "$flat" four && [ "${flat##*/}" = new.header ]
}
check "--name" renamed

again()
{
	local f

	flat 15 4 "$e" && f=$flat && flat 19 0 "$f" && equal "$flat" four &&
		json "$flat" 'j["generation"] == 6'
}
check "what was flattened is copied whole" again

# sizes that are multiples of nothing, and grew and shrank
sized()
{
	local url=$e n

	for n in 2500003 4000000 3999999 1000001 65537; do
		truncate -s $n four
		head -c 70000 /dev/urandom |
			dd of=four bs=1 seek=$((n / 2)) conv=notrunc status=none
		truncate -s $n four
		url=$(build -p "$url" four) && equal "$url" four &&
			flat=$(lazyframe flatten -q "$url" "$base") &&
			equal "$flat" four || { echo "$n"; return 1; }
	done
}
check "images that grew and shrank" sized

# object CODEC FRAME IMAGE: what another tool made, as IMAGE.CODEC
object()
{
	python3 - "$tests/lib" "$@" <<-'END'
	import struct, sys
	sys.path.insert(0, sys.argv[1])
	from lazyframe import Layer, LZ4, ZSTD
	codec, frame, image = sys.argv[2:]
	layer = Layer(open(image, "rb").read(), LZ4 if codec == "lz4" else ZSTD,
	              int(frame))
	entries = [struct.pack("<III", c, u, s) for _, _, u, c, s in layer.frames]
	# Something else between two frames, as the format allows
	at, extra = layer.frames[4][1], struct.pack("<II", 0x184d2a50, 4) + b"else"
	entries.insert(4, struct.pack("<III", len(extra), 0, 0))
	table = b"".join(entries) + \
	    struct.pack("<IBI", len(entries), 0x80, 0x8f92eab1)
	open(image + "." + codec, "wb").write(
	    layer.object[:at] + extra + layer.object[at:] +
	    struct.pack("<II", 0x184d2a5e, len(table)) + table)
	END
}

# foreign CODEC COPIED ENCODED: after a change inside a frame. What the other tool
# stored of zeros build maps as zeros, so that frames 10 to 13 are not whole.
foreign()
{
	local changed

	# No frame begins where a block does, so those of zeros are copied, too.
	cp zero foreign
	object $1 100000 foreign && flat 26 0 "file://$PWD/foreign.$1" &&
		equal "$flat" zero && json "$flat" 'j["generation"] == 0 and
			j["uuid"] == j["base_uuid"]' &&
		[ "${flat##*/}" = foreign.header ] || return 1
	change zero changed 2050000
	changed=$(build -p "$flat" changed) && equal "$changed" changed &&
		flat $2 $3 -c "$1" "$changed" && equal "$flat" changed
}
check "frames that end inside blocks: zstd" foreign zstd 22 4
check "frames that end inside blocks: LZ4" foreign lz4 21 3

zero_frames()
{
	cp zero zeros
	object zstd 131072 zeros && flat 18 0 "file://$PWD/zeros.zstd" &&
		equal "$flat" zero &&
		json "$flat" 'j["mappings"]["zero_bytes"] == 256 << 10'
}
check "frames of nothing but zeros are not copied" zero_frames

# A layer that ends inside a block, in the middle of an image: a header of
# version 3 that maps 5000 bytes as two blocks, and zeros behind them.
short_layer()
{
	local url

	head -c 5000 zero >short
	url=$(build -c none -n short short) || return 1
	python3 - "${url#file://}" <<-'END'
	import struct, sys
	with open(sys.argv[1], "r+b") as f:
	    head = f.read(64)
	    own = head[32:48]
	    f.seek(0)
	    f.write(head[:16] + struct.pack("<Q", 12288) + head[24:] +
	            struct.pack("<QQ16sQ", 0, 8192, own, 0) +
	            struct.pack("<QQ16sQ", 8192, 4096, bytes(16), 0))
	END
	truncate -s 12288 short
	equal "$url" short && flat 0 1 -c zstd "$url" && equal "$flat" short &&
		url=$(build -p "$url" short) && equal "$url" short &&
		[ "$(ls "$(dirname "${url#file://}")")" = short.header ]
}
check "a layer that ends inside a block" short_layer

raw_object()
{
	flat 0 0 --name raw "file://$PWD/zero" && equal "$flat" zero &&
		flat 0 18 --name raw -c zstd "file://$PWD/zero" &&
		equal "$flat" zero
}
check "a raw file" raw_object

all_zero()
{
	truncate -s 100001 nothing
	local url

	url=$(build nothing) && flat 0 0 "$url" && equal "$flat" nothing
}
check "an image of zeros" all_zero

damaged()
{
	local bad before

	bad=$(build -n damaged zero) && before=$(find store | sort) || return 1
	python3 "$tests/cli/image.py" corrupt \
		"$(dirname "${bad#file://}")/damaged.zstd" 100000
	says 1 "frame 1" lazyframe flatten "$bad" "$base" &&
		[ "$before" = "$(find store | sort)" ]
}
check "a frame that does not verify is not copied" damaged

failing()
{
	local before n

	before=$(find store | sort)
	for n in 1 2 3 4 5 6 7; do
		strace -f -o /dev/null -e trace=fsync \
			-e inject=fsync:error=EIO:when=$n \
			lazyframe flatten "$e" "$base" >out 2>err && return 1
		grep -q "Input/output error" err || { cat err; return 1; }
		[ "$before" = "$(find store | sort)" ] || return 1
	done
}
check "an error at any fsync leaves nothing behind" failing

dry()
{
	local before

	before=$(find store | sort)
	lazyframe flatten --dry-run "$e" "$base" >out 2>/dev/null &&
		[ "$(grep -c '^would store' out)" = 2 ] &&
		[ "$before" = "$(find store | sort)" ]
}
check "--dry-run" dry

check "no layers at all" says 2 "from 1 to" \
	lazyframe flatten --layers 0 "$e" "$base"
check "a level that the codec has not" says 2 "level 20" \
	lazyframe flatten -c lz4 -l 20 "$e" "$base"
check "one URL" says 2 "two URLs" lazyframe flatten "$e"
check "a directory that is not there" says 1 "No such file" \
	lazyframe flatten "$e" "file://$PWD/nowhere"
tap_end

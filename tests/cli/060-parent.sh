#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# lazyframe build --parent: what is the same stays where it is.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
cd "$tap_dir" || exit 1
. "$tests/lib/store.sh"

# stored URL: bytes in the layer that came with it
stored()
{
	python3 - "$tests/lib" "${1#file://}" <<-'END'
	import sys
	sys.path.insert(0, sys.argv[1])
	from header import Image
	h = Image(sys.argv[2]).header
	print(sum(l for _, l, u, _ in h.mappings if u == h.uuid))
	END
}

python3 - <<'END'
import random
r = random.Random(60)
data = bytearray(b"".join(b"%d %x\n" % (i, r.getrandbits(20))
                          for i in range(300000))[:2500001])
data[800000:900000] = bytes(100000)
open("one", "wb").write(data)
# a byte here, a byte there, zeros over data, data over zeros
for at in (0, 4095, 4096, 123456, 1000000, 2499999):
    data[at] ^= 0xff
data[409600:417792] = bytes(8192)
data[860160:864256] = b"x" * 4096
open("two", "wb").write(data)
END

one=$(build one)
for codec in zstd lz4 none; do
	changed()
	{
		two=$(build --codec $codec --parent "$one" two) || return 1
		# two of the six bytes share a block
		stored "$two"
		[ "$(stored "$two")" = $((6 * 4096)) ] && equal "$two" two &&
			json "$two" 'j["generation"] == 1'
	}
	check "changed blocks are stored, and no others: $codec" changed
done

zero_wins()
{
	# What is zero now is mapped as zeros, and not left as the parent has it.
	python3 - "$tests/lib" "${two#file://}" <<-'END'
	import sys
	sys.path.insert(0, sys.argv[1])
	from header import *
	h = Image(sys.argv[2]).header
	need(any(s <= 409600 and s + n >= 417792 and u == NIL
	         for s, n, u, _ in h.mappings), "not zeros")
	END
}
check "zeros over data read as zeros, and nothing is stored for them" zero_wins

parent_stays()
{
	equal "$one" one && json "$one" 'j["generation"] == 0'
}
check "the parent is as it was" parent_stays

nothing()
{
	local same folder

	same=$(build --parent "$two" two) && folder=$(dirname "${same#file://}") &&
		[ "$(ls "$folder")" = one.header ] && equal "$same" two &&
		json "$same" 'j["generation"] == 2' || return 1
	python3 - "$tests/lib" "${same#file://}" "${two#file://}" <<-'END'
	import sys
	sys.path.insert(0, sys.argv[1])
	from header import *
	a, b = (Image(p).header for p in sys.argv[2:])
	need(a.mappings == b.mappings, "other mappings")
	need(a.uuid != b.uuid and a.base == b.base, "names")
	END
}
check "no change: a header, equal but for its name, and no data object" nothing

sizes()
{
	local size url

	for size in 1 4095 4096 4097 2500000 2500001 2500002 2502655 2502656 \
		    2502657 2600000 5000000; do
		head -c $size two >sized
		head -c $((size > 2500001 ? size - 2500001 : 0)) one >>sized
		truncate -s $size sized
		url=$(build --parent "$two" sized) && equal "$url" sized ||
			{ echo "to $size"; return 1; }
		# and back again, in one more generation
		url=$(build --parent "$url" two) && equal "$url" two ||
			{ echo "from $size"; return 1; }
	done
}
check "images that grow, shrink, and do so again" sizes

zeros_behind()
{
	local grown

	cp two sized
	truncate -s 3000000 sized
	grown=$(build --parent "$two" sized) && equal "$grown" sized || return 1
	# Its last, partial block is the only one to be stored anew.
	[ "$(stored "$grown")" = 4096 ]
}
check "growth by zeros stores the block that grew" zeros_behind

empty()
{
	local zeros back

	truncate -s 2500001 zeros
	zeros=$(build --parent "$two" zeros) && equal "$zeros" zeros &&
		json "$zeros" 'j["layers"] == []' &&
		back=$(build --parent "$zeros" two) && equal "$back" two &&
		json "$back" 'len(j["layers"]) == 1'
}
check "all zeros over data, and data over all zeros" empty

raw()
{
	local a b c d

	a=$(build -c none one) && b=$(build -c none --parent "$a" two) &&
		equal "$b" two && json "$b" 'j["header_version"] == 3' &&
		cp two three &&
		printf y | dd of=three bs=1 seek=2000000 conv=notrunc status=none &&
		c=$(build -c zstd --parent "$b" three) && equal "$c" three &&
		json "$c" 'j["header_version"] == 4 and
			sorted(l["codec"] for l in j["layers"]) ==
			["none", "none", "zstd"]' &&
		d=$(build -c none --parent "$c" two) && equal "$d" two &&
		json "$d" 'j["header_version"] == 3 and len(j["layers"]) == 3'
}
check "a stack of raw layers has a header of version 3, a mixed one of 4" raw

# Blocks of 2 MiB, as memory snapshots have them: the child keeps that.
big_blocks()
{
	local a b

	truncate -s 6M memory
	dd if=one of=memory bs=4096 seek=512 conv=notrunc status=none
	a=$(build -n memory memory) || return 1
	python3 - "${a#file://}" <<-'END'
	import struct, sys
	with open(sys.argv[1], "r+b") as f:
	    f.seek(8)
	    f.write(struct.pack("<Q", 2 << 20))
	END
	printf x | dd of=memory bs=1 seek=5000000 conv=notrunc status=none
	b=$(build --parent "$a" memory) && equal "$b" memory &&
		[ "$(stored "$b")" = 4096 ] &&
		json "$b" 'j["block_size"] == 2 << 20'
}
check "a parent with blocks of 2 MiB" big_blocks

# What an image refers to lies beside it, or it is not written.
other_base()
{
	mkdir -p other
	says 1 "flatten the parent first" \
		lazyframe build -q --parent "$two" one "file://$PWD/other" &&
		[ -z "$(ls -A other)" ]
}
check "another directory: refused, as the layers are not there" other_base

copied_base()
{
	local url

	cp -r store/. other/
	url=$(lazyframe build -q --parent "$two" one "file://$PWD/other") &&
		equal "$url" one
}
check "unless they are" copied_base

other_name()
{
	says 1 "under the same name" lazyframe build -q --name other \
		--parent "$two" one "$base"
}
check "another name: refused" other_name

same_place()
{
	local new

	new=$(lazyframe build -q --parent "$two" --name one one "$base//") &&
		equal "$new" one
}
check "the same name, and slashes behind the URL" same_place

check "a parent that is not there" says 1 "No such file" \
	lazyframe build -q --parent "$base/x/one.header" one "$base"
object()
{
	says 1 "lazyframe flatten makes one with a header" lazyframe build -q \
		-n one --parent "$(echo "$one" | sed 's,header$,zstd,')" two "$base"
}
check "a parent that is a data object" object

bad_parent()
{
	local other

	other=$(build -n damaged one) || return 1
	python3 "$tests/cli/image.py" corrupt "$(echo "${other#file://}" |
		sed 's,header$,zstd,')" 5000
	says 1 "frame 0" lazyframe build -q --parent "$other" two "$base" &&
		[ "$(find store -name damaged.header | wc -l)" = 1 ]
}
check "a damaged parent is no base to compare with" bad_parent

# 12 frames of 16 MiB, of which those that were read last are kept
memory()
{
	local big next peak

	head -c 192M /dev/zero | tr '\0' x >big
	big=$(build -n big -f 16M big) || return 1
	printf y | dd of=big bs=1 seek=100000000 conv=notrunc status=none
	peak=$(python3 - lazyframe build -q -t 1 -f 4K --parent "$big" big \
		"$base" 2>&1 >next <<-'END'
	import resource, subprocess, sys
	subprocess.run(sys.argv[1:], check=True)
	print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
	      file=sys.stderr)
	END
	) || return 1
	echo "peak: $peak KiB"
	next=$(cat next)
	rm big
	[ "$(stored "$next")" = 4096 ] &&
		[ "$peak" -lt "${LAZYFRAME_MEMORY:-120000}" ]
}
check "memory does not grow with the parent" memory

http_parent()
{
	local new

	python3 "$tests/server" --root store <pipe >port &
	server=$!
	until [ -s port ]; do sleep 0.1; done
	new=$(lazyframe build -q --parent \
		"http://127.0.0.1:$(cat port)/${two#"$base/"}" one "$base") &&
		equal "$new" one
}
mkfifo pipe
exec 7<>pipe
check "a parent that comes over the network" http_parent
kill $server

interrupted()
{
	local before after n

	before=$(find store | sort)
	for n in 1 2 3 4 5 6 7; do
		strace -f -o /dev/null -e trace=fsync \
			-e inject=fsync:error=EIO:when=$n \
			lazyframe build -q --parent "$one" two "$base" \
			>out 2>err && return 1
		grep -q "Input/output error" err || { cat err; return 1; }
		after=$(find store | sort)
		[ "$before" = "$after" ] ||
			{ diff <(echo "$before") <(echo "$after"); return 1; }
	done
}
check "an error at any fsync leaves nothing behind" interrupted

killed()
{
	local n header

	for n in 1 2 3 4 5 6 7; do
		strace -f -o /dev/null -e trace=fsync \
			-e inject=fsync:signal=KILL:when=$n \
			lazyframe build -q -n killed --parent "$one" two "$base" \
			>out 2>/dev/null
		strace -f -o /dev/null -e trace=fsync \
			-e inject=fsync:signal=KILL:when=$n \
			lazyframe build -q --parent "$one" two "$base" \
			>out 2>/dev/null
	done
	for header in store/*/one.header; do
		lazyframe verify -q "file://$PWD/$header" || return 1
	done
	two=$(build --parent "$one" two) && equal "$two" two
}
check "killed at any fsync: headers verify, and the next run works" killed

tap_end

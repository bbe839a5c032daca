#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# lazyframe store-format on files: the bytes that another implementation of the
# layout makes, refusals that change nothing, and no moment at which a run that
# is killed leaves what would be taken for a store, but is none.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
export PYTHONPATH=$tests/lib PYTHONDONTWRITEBYTECODE=1
cd "$tap_dir" || exit 1

# judge FILE: "store UUID" if it is an empty one, to the byte; "none"; or it fails
cat >judge.py <<'EOP'
import os, sys, uuid
from lazyframe import xxh64
from store import BLOCK, Content, Shape, super_block

fd = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(fd).st_size // BLOCK * BLOCK
read = lambda off, n: os.pread(fd, n, off)
shape = Shape(size)
copies = [read(n * BLOCK, BLOCK) for n in range(2)]
whole = [c for c in copies if c[:8] == b"LZYSTORE" and
         c[-8:] == xxh64(c[:-8]).to_bytes(8, "little")]
if not whole:
    print("none")
    sys.exit()
name = whole[0][16:32]
assert all(c == super_block(shape, name) for c in whole), "another superblock"
assert len(whole) == 2 or "--one" in sys.argv, "one superblock only"
table = shape.layers * 32
assert read(2 * BLOCK, table) == bytes(table), "layers"
for n in range(shape.segments):
    assert read(shape.summary(n), BLOCK) == bytes(BLOCK), f"summary {n}"
assert shape.place(shape.segments) <= size, "size"
# what others would know a device by
assert read(2 * BLOCK, (1 << 20) - 2 * BLOCK) == bytes((1 << 20) - 2 * BLOCK)
assert read(size - (1 << 17), 1 << 17) == bytes(1 << 17), "end"
content = Content(read) if len(whole) == 2 else None
assert not content or not content.layers and not content.frames
print("store", uuid.UUID(bytes=name))
EOP
judge() { python3 judge.py "$@"; }

# garbage FILE SIZE: all of the parts that matter are taken
garbage()
{
	rm -f "$1"
	truncate -s "$2" "$1"
	head -c 8M /dev/urandom | dd of="$1" conv=notrunc status=none
	head -c 1M /dev/urandom |
		dd of="$1" bs=1M seek=$(($(stat -c %s "$1") - 1048576))B conv=notrunc status=none
}

formats()
{
	rm -f f
	truncate -s "$1" f
	lazyframe store-format f >out 2>note || { cat note; return 1; }
	cat out note
	[ "$(cat out)" = "0 $(($(stat -c %s f) / 4096 * 8)) lazyframe-store f" ] &&
		[ "$(judge f)" = "store $(awk '/^store/ { print $2 }' note)" ] &&
		[ "$(du -k f | cut -f 1)" -lt "$2" ]
}
for size in 33M 40M 41943041 64M 100M 1G 1100000000 1028M 2G 9G 64G; do
	check "$size: what the layout says, sparse" formats $size 9000
done
check "16 TiB: the largest" eval 'truncate -s 16T f 2>/dev/null || truncate -s 15T f
	lazyframe store-format f 2>note && grep -E "segments +(524|491)... of 33554432 " note; rm f'
check "a UUID of its own each time" eval 'truncate -s 40M f &&
	lazyframe store-format f && one=$(judge f) && lazyframe store-format f --force &&
	[ "$one" != "$(judge f)" ]'
check "stderr has the shape" eval 'says 0 "segments  9 of 4194304 bytes" \
	lazyframe store-format f --force && grep "layers    128" "$tap_dir/stderr"'

check "a store is refused, unchanged" \
	unchanged f says 1 "is the store $(judge f | cut -d ' ' -f 2) already: --force" \
	lazyframe store-format f
truncate -s $((33 * 1048576 - 1)) small
check "too small, unchanged" \
	unchanged small says 1 "34598912 bytes: a store needs" lazyframe store-format small
check "by force, too" \
	unchanged small says 1 "34598912 bytes: a store needs" lazyframe store-format small --force
: >empty
check "an empty file" unchanged empty says 1 "0 bytes: a store needs" lazyframe store-format empty
garbage data 48M
check "data is refused, unchanged" \
	unchanged data says 1 "holds data that is no store: --force" lazyframe store-format data
truncate -s 48M end
printf X | dd of=end bs=1 seek=$((48 * 1048576 - 8192)) conv=notrunc status=none
check "so is data at the end" \
	unchanged end says 1 "holds data" lazyframe store-format end
truncate -s 48M fs
mkfs.ext4 -q -F fs
check "so is a file system" \
	unchanged fs says 1 "holds data" lazyframe store-format fs
mkdir images
head -c 100000 /dev/urandom >img
url=$(lazyframe build img "file://$PWD/images" 2>/dev/null | tail -n 1)
truncate -s 48M meta
lazyframe format meta "$url" >/dev/null 2>&1
check "so is a meta device" \
	unchanged meta says 1 "is a meta device: --force" lazyframe store-format meta
check "and a store is no meta device" \
	unchanged f says 1 "holds data that is no meta device" lazyframe format f "$url"
for file in data end fs meta; do
	check "--force makes a store of $file" eval 'lazyframe store-format $file --force &&
		[ "$(judge $file | cut -c 1-5)" = store ]'
done
check "nor is anything else left to see" eval '[ -z "$(blkid -p fs meta)" ]'
tr '\0' '\377' </dev/zero | head -c 48M >erased
check "erased flash is blank" lazyframe store-format erased

check "no such device" says 1 "nowhere: No such file" lazyframe store-format nowhere
check "a folder" says 1 "neither" lazyframe store-format images
check "a character device" says 1 "neither" lazyframe store-format /dev/null
check "wrong use: none" says 2 "Usage" lazyframe store-format
check "wrong use: two" says 2 "Usage" lazyframe store-format f f
check "wrong use: an option" says 2 "Usage" lazyframe store-format f --frce
check "--help" eval 'lazyframe store-format --help | grep Usage'

if ! command -v strace >/dev/null; then
	check "strace is installed: run tests/setup" false
	tap_end
fi
# An old store whose every summary says something, and what becomes of it
truncate -s 40M old
lazyframe store-format old >/dev/null 2>&1
python3 - <<'EOP'
import os
from store import BLOCK, Shape
with open("old", "r+b") as f:
    shape = Shape(40 << 20)
    f.seek(2 * BLOCK)
    f.write(os.urandom(shape.summary(shape.segments) - 2 * BLOCK))
EOP
cp old k
calls=$(strace -e trace=fallocate,pwrite64,fsync lazyframe store-format k --force 2>&1 |
	grep -c -E '^(fallocate|pwrite64|fsync)')
check "there are calls to cut off" test "$calls" -ge 15
killed()
{
	local call i kills=0 none=0 whole=0 got

	for call in fallocate pwrite64 fsync; do
		for ((i = 1; ; i++)); do
			cp old k
			strace -qqq -o trace -e trace=$call \
				-e inject=$call:signal=KILL:when=$i \
				lazyframe store-format k --force
			[ $? -eq 137 ] || break
			kills=$((kills + 1))
			if cmp -s k old; then
				continue
			fi
			got=$(judge k --one) || return 1
			case $got in
			none)	none=$((none + 1)) ;;
			*)	whole=$((whole + 1)) ;;
			esac
		done
	done
	echo "$kills kills, $none times none, $whole times whole"
	# whole: at the second superblock, and at the last fsync
	[ $kills -eq "$calls" ] && [ $none -eq $((calls - 3)) ] && [ $whole -eq 2 ]
}
check "killed at any call, it is the old store, none, or an empty one" killed
failing()
{
	local call i

	for call in pwrite64 fsync; do
		for ((i = 1; ; i++)); do
			cp old k
			strace -qqq -o trace -e trace=$call -e inject=$call:error=EIO:when=$i \
				lazyframe store-format k --force >out 2>note
			[ $? -ne 0 ] || break
			grep -F "k: Input/output error; format it again" note || return 1
			[ ! -s out ] && judge k --one || return 1
		done
		[ $i -gt 3 ] || return 1
	done
}
check "an error of any call is told" failing
check "a run after that needs no --force for what it left" eval 'cp old k
	strace -qqq -o trace -e inject=pwrite64:signal=KILL:when=1 lazyframe store-format k --force
	[ "$(judge k)" = none ] && lazyframe store-format k'
tap_end

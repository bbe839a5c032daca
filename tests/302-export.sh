#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# lazyframe export: what was written becomes a layer and a header, whose image is
# what the device showed; the device goes on, without the sealed overlay. Many
# generations, several overlays at once, while it is written, killed anywhere.
. "$(dirname "$0")/common.sh"
cd "$tap_dir" || exit 1

export DM_DISABLE_UDEV=1
modprobe loop
state=/var/lib/lazyframe
cleanup()
{
	kill $helper $writer
	umount mnt
	cd /
	rm -f $state/x.meta*
}
mkdir store mnt
head -c 3000001 /dev/urandom >img
dd if=/dev/zero of=img bs=4096 seek=100 count=200 conv=notrunc status=none
url=$(lazyframe build img "file://$PWD/store" --frame-size 16K 2>/dev/null | tail -n 1)
writer=
helper_start()
{
	lazyframed >>helper.log 2>&1 &
	helper=$!
}
helper_start

put() { dd if="$1" of=/dev/mapper/x bs=4096 seek="$2" conv=notrunc,fsync oflag=direct status=none; }
both()
{
	put "$1" "$2" && dd if="$1" of=model bs=4096 seek="$2" conv=notrunc status=none
}
zero()
{
	blkdiscard -o $(($1 * 4096)) -l $(($2 * 4096)) /dev/mapper/x &&
		dd if=/dev/zero of=model bs=4096 seek=$1 count=$2 conv=notrunc status=none
}
is_model() { cmp model /dev/mapper/x; }
# export_x OPTION...: its URL is in $new
export_x() { lazyframe export x "$@" >out 2>note; status=$?; cat note; new=$(cat out); return $status; }
# shows URL MODEL: the image there is what MODEL has
shows()
{
	lazyframe verify "$1" >/dev/null && lazyframe attach y "$1" >/dev/null 2>&1 || return 1
	cmp "$2" /dev/mapper/y
	status=$?
	lazyframe detach y && [ $status = 0 ]
}
field() { lazyframe inspect --json "$1" | python3 -c "import json, sys; print(json.load(sys.stdin)$2)"; }
number() { lazyframe status x --json | python3 -c "import json, sys; print(json.load(sys.stdin)$1)"; }
headers() { ls store/*/*.header | wc -l; }
start()
{
	lazyframe attach x "$url" --cow cow >/dev/null 2>&1 && cp img model && truncate -s 3000320 model
}
alone() { [ -z "$(ls -d cow.* $state/x.meta.* 2>/dev/null)" ] && [ "$(devices)" = x ]; }
for n in 1 2 3 4; do head -c 40960 /dev/urandom >ten$n; done
head -c 4096 /dev/zero >nothing

check "attach, write, discard" eval 'start && both ten1 3 && both ten2 500 && zero 50 30 &&
	dd if=ten3 of=/dev/mapper/x bs=512 seek=5859 count=1 oflag=direct conv=notrunc,fsync status=none &&
	dd if=ten3 of=model bs=512 seek=5859 count=1 conv=notrunc status=none && is_model'
check "export prints the header's URL" eval 'export_x && [ -s "${new#file://}" ] &&
	[ "$(cat out | wc -l)" = 1 ]'
cp model model1
first=$new
check "its image is what the device showed" eval 'head -c 3000001 model >m && truncate -s 3000320 m &&
	cp m model1 && shows "$first" model1'
check "one layer more, one generation more" eval '[ "$(field "$first" "[\"generation\"]")" = \
	$(($(field "$url" "[\"generation\"]") + 1)) ] && [ "$(field "$first" "[\"layers\"].__len__()")" = 2 ]'
check "it is where its parent is" eval '[ "$(dirname "$(dirname "$first")")" = "file://$PWD/store" ]'
check "only what was written is stored" eval '[ "$(du -b store/$(basename $(dirname $first)) | cut -f 1)" -lt 120000 ]'
check "the device goes on without the sealed one" eval 'alone && cmp model1 /dev/mapper/x &&
	[ "$(number "[\"dirty_bytes\"]")" = 0 ] && [ "$(number "[\"image\"]")" = $(basename $(dirname $first)) ]'
cp model1 model
check "and can be written" eval 'both ten4 4 && zero 500 3 && both nothing 7 && is_model'
check "detach, attach with the new URL" eval 'lazyframe detach x &&
	lazyframe attach x "$first" --cow cow && is_model'
check "with the old one: refused, with the new one named" eval 'lazyframe detach x &&
	says 1 "$first" lazyframe attach x "$url" --cow cow && lazyframe attach x "$first" --cow cow'

generations()
{
	local i codec

	for ((i = 1; i <= 4; i++)); do
		codec=$(echo zstd lz4 none zstd | cut -d ' ' -f $i)
		both ten$i $((i * 97)) && both ten$(((i + 1) % 4 + 1)) $((i * 41 + 5)) && zero $((i * 30)) $i &&
			export_x --codec $codec --frame-size 8K || return 1
		cp model model.$i
		echo "$new" >url.$i
		is_model && alone || return 1
	done
	for ((i = 1; i <= 4; i++)); do
		shows "$(cat url.$i)" model.$i || { echo "generation $i"; return 1; }
	done
}
check "four more generations, of all codecs: each shows what was there then" generations
check "nothing written: a header alone" eval 'before=$(ls store/*/*.zstd | wc -l) && export_x &&
	shows "$new" model && [ "$(ls store/*/*.zstd | wc -l)" = $before ]'
check "--compare-parent: what is the same is left out" eval 'dd if=model of=same bs=4096 skip=20 count=400 status=none &&
	put same 20 && both ten1 700 && export_x --compare-parent && shows "$new" model && is_model &&
	[ "$(du -b store/$(basename $(dirname $new)) | cut -f 1)" -lt 70000 ]'
check "several sealed overlays at once: the newest wins" eval '
	both ten1 10 && both ten2 100 && zero 200 20 && lazyframe seal x && both ten3 12 && zero 101 2 && both ten4 205 &&
	lazyframe seal x && zero 14 1 && both ten1 210 && lazyframe seal x && cp model sealed.model &&
	both ten2 11 && export_x && shows "$new" sealed.model && is_model && alone'
check "--keep: device and sealed overlay stay" eval 'both ten3 44 && cp model sealed.model && export_x --keep &&
	shows "$new" sealed.model && is_model && [ "$(devices | wc -w)" = 2 ] && both ten4 46 && is_model'
check "and can be exported again" eval 'export_x && shows "$new" sealed.model && is_model && alone'
check "--dry-run stores nothing" eval 'n=$(headers) && both ten2 50 && export_x --dry-run && [ "$(headers)" = $n ] && is_model'
cp model sealed.model
check "into another store: the parent's layers are missed" eval 'mkdir -p other; n=$(headers)
	! export_x "file://$PWD/other" && grep -i "no such\|not" note && is_model && [ -z "$(ls other)" ]'
check "a store that cannot be written: nothing changes" eval '! export_x "file://$PWD/nowhere/at/all" &&
	is_model && both ten3 60 && is_model'
check "another image as --parent" eval 'says 1 "is not the image" lazyframe export x --parent "$url"'
check "then it works" eval 'export_x && shows "$new" sealed.model && is_model && alone'
check "no helper is needed for what was written" eval 'kill $helper; wait $helper 2>/dev/null
	both ten1 70 && cp model sealed.model && export_x && helper_start && shows "$new" sealed.model && is_model'
check "the image is known after a reboot, too" eval 'both ten2 80 && lazyframe seal x && sync && lazyframe detach x &&
	lazyframe attach x "$(cat out)" --cow cow && cp model sealed.model && export_x && shows "$new" sealed.model &&
	is_model && alone'
lazyframe detach x --discard
object=$(ls $PWD/store/$(basename $(dirname $url))/*.zstd)
check "an object without a header has no children" eval 'lazyframe attach x "file://$object" --cow cow &&
	says 1 "without a header" lazyframe export x && lazyframe detach x --discard'
# a meta device of another tool's making does not tell where its image is
forget_url()
{
	PYTHONPATH=$tests/lib PYTHONDONTWRITEBYTECODE=1 python3 - $state/x.meta <<-'END'
	import struct, sys
	from lazyframe import BLOCK, xxh64
	with open(sys.argv[1], "r+b") as f:
	    data = bytearray(f.read())
	    start, size, _ = struct.unpack_from("<QQQ", data, 88 + 4 * 24)
	    at = start * BLOCK
	    strings = bytes(data[at:at + size]).replace(b"image=", b"other=")
	    data[at:at + size] = strings
	    struct.pack_into("<Q", data, 88 + 4 * 24 + 16, xxh64(strings))
	    struct.pack_into("<Q", data, BLOCK - 8, xxh64(data[:BLOCK - 8]))
	    f.seek(0)
	    f.write(data)
	END
}
check "an image of unknown place: --parent is asked for" eval 'start && both ten1 8 && lazyframe detach x &&
	forget_url && lazyframe attach x "$url" --cow cow && is_model &&
	says 1 "give --parent" lazyframe export x'
check "and taken" eval 'export_x --parent "$url" && shows "$new" model && is_model && both ten2 9 && export_x &&
	shows "$new" model && lazyframe detach x --discard'
check "no such device" says 1 "no device" lazyframe export nothing
check "wrong use" says 2 "Usage" lazyframe export
check "a wrong codec" says 2 "codec" lazyframe export x --codec rar
lazyframe attach x "$url" >/dev/null 2>&1
check "a device without an overlay" says 1 "has no overlay" lazyframe export x
lazyframe detach x

# while it is written
cat >writer.py <<'END'
import mmap, os
fd = os.open("/dev/mapper/x", os.O_RDWR | os.O_DIRECT)
buf = mmap.mmap(-1, 4096)
n = 0
while not os.path.exists("stop"):
    n += 1
    buf[:] = n.to_bytes(8, "little") * 512
    for block in range(0, 320, 5):
        os.pwritev(fd, [buf], block * 4096)
    with open("count.new", "w") as f:
        f.write(str(n))
    os.rename("count.new", "count")
END
cat >numbers.py <<'END'
# every fifth block has one number, that never grows from one to the next
import sys
data = open(sys.argv[1], "rb").read(320 * 4096)
n = []
for block in range(0, 320, 5):
    words = {data[i:i + 8] for i in range(block * 4096, block * 4096 + 4096, 8)}
    assert len(words) == 1, f"torn block {block}"
    n.append(int.from_bytes(words.pop(), "little"))
assert n == sorted(n, reverse=True) and n[0] - n[-1] <= 1, n
print(n[0])
END
written()
{
	local i last=0 n

	start || return 1
	rm -f stop count
	python3 writer.py &
	writer=$!
	for i in 1 2 3; do
		until [ "$(cat count 2>/dev/null || echo 0)" -gt $last ]; do :; done
		export_x || return 1
		lazyframe attach y "$new" >/dev/null 2>&1 && n=$(python3 numbers.py /dev/mapper/y) || return 1
		lazyframe detach y || return 1
		[ $n -ge $last ] || { echo "$n after $last"; return 1; }
		last=$n
	done
	touch stop
	wait $writer
	status=$?
	writer=
	[ $status = 0 ] && python3 numbers.py /dev/mapper/x && alone && lazyframe detach x --discard
}
check "exported while it is written, three times" written

truncate -s 24M fs
mkfs.ext4 -q -F fs
fsurl=$(lazyframe build fs "file://$PWD/store" 2>/dev/null | tail -n 1)
check "a mounted file system: the image needs no recovery" eval 'lazyframe attach x "$fsurl" --cow cow &&
	mount /dev/mapper/x mnt && cp -r $tests/lib mnt/a && export_x && cp -r $tests/lib mnt/b && umount mnt &&
	fsck.ext4 -fn /dev/mapper/x && lazyframe attach y "$new" && fsck.ext4 -fn /dev/mapper/y &&
	mount -o ro /dev/mapper/y mnt && diff -r mnt/a $tests/lib && [ ! -e mnt/b ] && umount mnt &&
	lazyframe detach y && lazyframe detach x --discard'

# all devices go, as by a reboot
by_hand()
{
	local d round

	for round in 1 2 3 4; do
		for d in $(dmsetup ls | awk '/^x/ { print $1 }'); do
			dmsetup remove --noudevsync $d
		done >/dev/null 2>&1
	done
	! dmsetup ls | grep ^x
}
# attach_any: with the image that the overlay is of, whatever that is by now
attach_any()
{
	lazyframe attach x "$url" --cow cow >/dev/null 2>again && return
	now=$(sed -n 's/.*overlay of image [^(]*(\([^)]*\)).*/\1/p' again)
	[ "$now" ] || { cat again; return 1; }
	lazyframe attach x "$now" --cow cow >/dev/null
}
# killed at any moment: the device is as it was or done, no header is half there
killed()
{
	local i kills=0 n at file

	start || return 1
	for ((i = 1; i <= EXPORT_KILLS; i++)); do
		# there are some fifty to a hundred of them
		at=$((i * 120 / (EXPORT_KILLS + 5)))
		both ten$((i % 4 + 1)) $((i * 11 % 700)) || return 1
		cp model sealed.model
		strace -qqq -f -o trace \
			-e trace=ioctl,pwrite64,renameat2,rename,link,linkat,fsync,fdatasync,unlink,fsetxattr \
			-e inject=ioctl,pwrite64,renameat2,rename,link,linkat,fsync,fdatasync,unlink,fsetxattr:signal=KILL:when=$at \
			lazyframe export x >out 2>note
		[ $? -eq 137 ] && kills=$((kills + 1))
		for file in store/*/*.header; do
			grep -qxF "$file" verified 2>/dev/null && continue
			lazyframe verify "file://$PWD/$file" >verify.out 2>&1 ||
				{ echo "after kill at $at"; cat verify.out; return 1; }
			echo "$file" >>verified
		done
		if [ $((i % 2)) = 0 ]; then
			by_hand && attach_any && is_model || { echo "attached after kill at $at"; return 1; }
		fi
		export_x || { echo "again after kill at $at"; return 1; }
		is_model && alone && shows "$new" sealed.model || { echo "after kill at $at"; return 1; }
	done
	echo "$kills kills"
	[ $kills -gt 0 ] && lazyframe detach x --discard
}
check "killed at any step, a second run completes it" killed
finish

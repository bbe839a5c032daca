#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# lazyframe seal: what was written is set aside while the device is written, in
# a time that does not depend on how much it was; stacks of sealed overlays come
# back after a reboot; a seal that is killed completes, or never was.
. "$(dirname "$0")/common.sh"
cd "$tap_dir" || exit 1

export DM_DISABLE_UDEV=1
modprobe loop
truncate -s 64M disk1 disk2 disk3
disk1=$(losetup -f --show disk1)
disk2=$(losetup -f --show disk2)
disk3=$(losetup -f --show disk3)
state=/var/lib/lazyframe
cleanup()
{
	kill $helper $writer
	umount mnt
	cd /
	losetup -d $disk1
	losetup -d $disk2
	losetup -d $disk3
	rm -f $state/x.meta*
}
mkdir store mnt
head -c 8388608 /dev/urandom >img
dd if=/dev/zero of=img bs=4096 seek=100 count=200 conv=notrunc status=none
url=$(lazyframe build img "file://$PWD/store" 2>/dev/null | tail -n 1)
lazyframed >helper.log 2>&1 &
helper=$!
writer=

put() { dd if="$1" of=/dev/mapper/x bs=4096 seek="$2" conv=notrunc,fsync oflag=direct status=none; }
both()
{
	put "$1" "$2" && dd if="$1" of=model bs=4096 seek="$2" conv=notrunc status=none
}
is_model() { cmp model /dev/mapper/x; }
seal() { lazyframe seal x "$@" >sealed 2>note && cat note && sealed=$(cat sealed) && [ -b "$sealed" ]; }
number() { lazyframe status x --json | python3 -c "import json, sys; print(json.load(sys.stdin)$1)"; }
# all devices go, as by a reboot
by_hand()
{
	local d round

	for round in 1 2 3 4 5 6 7 8; do
		for d in $(dmsetup ls | awk '/^x/ { print $1 }'); do
			dmsetup remove --noudevsync $d
		done >/dev/null 2>&1
	done
	! dmsetup ls | grep ^x
}
for n in 1 2 3 4; do head -c 40960 /dev/urandom >ten$n; done

check "attach" eval 'lazyframe attach x "$url" --cow cow && cp img model &&
	both ten1 3 && both ten2 500 && blkdiscard -o 409600 -l 40960 /dev/mapper/x &&
	dd if=/dev/zero of=model bs=4096 seek=100 count=10 conv=notrunc status=none && is_model'
check "what has no overlay cannot be sealed" eval 'lazyframe attach y "$url" &&
	says 1 "has no overlay" lazyframe seal y && lazyframe detach y'
check "seal prints the sealed device, and the time" eval 'seal &&
	grep -x "/dev/mapper/x-sealed-[0-9a-f]\{8\}" sealed && grep "^suspended  [0-9.]* ms$" note'
first=$(cat sealed)
cp model model1
check "the sealed device shows what was there" cmp model1 $first
check "it is read-only" eval '[ "$(blockdev --getro $first)" = 1 ]'
check "the device shows the same, with nothing dirty" eval 'is_model &&
	[ "$(number "[\"dirty_bytes\"]")" = 0 ] && [ "$(number "[\"origin\"]")" = $(basename $first) ]'
check "the new files have the names of the old ones" eval '
	[ "$(number "[\"cow_file\"]")" = $PWD/cow ] && [ "$(number "[\"meta_file\"]")" = $state/x.meta ] &&
	ls cow.sealed-* $state/x.meta.sealed-*'
check "what is written now is not in the sealed one" eval 'both ten3 3 && both ten3 700 && is_model &&
	cmp model1 $first'
check "parts of a block are copied up from it" eval '
	dd if=ten4 of=/dev/mapper/x bs=512 seek=4001 count=3 conv=notrunc,fsync oflag=direct status=none &&
	dd if=ten4 of=model bs=512 seek=4001 count=3 conv=notrunc status=none && is_model'
check "detach removes both, attach brings both back" eval 'lazyframe detach x &&
	[ -z "$(dmsetup ls --target lazyframe | grep sealed)" ] &&
	lazyframe attach x "$url" --cow cow && is_model && cmp model1 $first'
check "three more generations" eval 'for n in 1 2 3; do
	both ten$n $((n * 211)) && seal && both ten4 $((n * 300)) && is_model || exit 1; done'
check "five devices" eval '[ $(lazyframe list | grep -c "^x") = 5 ]'
check "removed by hand, as by a reboot: all is there" eval 'sync
	by_hand && lazyframe attach x "$url" --cow cow && is_model && cmp model1 $first'
check "a sealed overlay of the stack is missing: named" eval 'lazyframe detach x &&
	mv $(ls cow.sealed-* | head -n 1) away &&
	says 1 "lies on the sealed overlay" lazyframe attach x "$url" --cow cow;
	status=$?
	lost=$(sed -n "s/.*there is no \(.*cow.sealed-[0-9a-f]*\)$/\1/p" stderr); mv away "$lost" &&
	[ $status = 0 ] && lazyframe attach x "$url" --cow cow && is_model'
check "detach --discard takes all of them" eval 'lazyframe detach x --discard &&
	[ -z "$(ls cow* $state/x.meta* 2>/dev/null)" ]'

# places of one's own
check "block devices need new ones" eval '
	lazyframe attach x "$url" --cow $disk1 --meta m1 --force && cp img model && both ten1 9 &&
	says 1 "is a block device: --cow" lazyframe seal x'
check "given, they are used" eval 'seal --cow $disk2 --meta m2 && both ten2 9 && is_model &&
	lazyframe detach x && lazyframe attach x "$url" --cow $disk2 --meta m2 && is_model'
check "the sealed one alone cannot be written" eval 'lazyframe detach x &&
	says 1 "is sealed" lazyframe attach x "$url" --cow $disk1 --meta m1'
check "but read" eval 'lazyframe attach x "$url" --cow $disk1 --meta m1 --read-only &&
	cmp -n 40960 -i 36864:0 /dev/mapper/x ten1 && lazyframe detach x'
check "a COW in use is refused, the device goes on" eval '
	lazyframe attach x "$url" --cow $disk2 --meta m2 &&
	says 1 "is in use" lazyframe seal x --cow $disk1 --meta m3 && both ten4 20 && is_model &&
	[ ! -e m3 ]'
check "what holds data is refused, too" eval 'mkfs.ext4 -q -F $disk3 &&
	says 1 "holds data" lazyframe seal x --cow $disk3 --meta m3 && both ten3 25 && is_model &&
	fsck.ext4 -fn $disk3'
check "discarded, all of it" lazyframe detach x --discard
check "removed by hand, sealed devices left: detach takes them" eval 'lazyframe attach x "$url" --cow cow && seal &&
	dmsetup remove --noudevsync x && lazyframe detach x && [ -z "$(devices)" ] &&
	lazyframe attach x "$url" --cow cow && lazyframe detach x --discard && [ ! -e cow ]'

# with writers on it: each write is in the sealed device whole or not at all
truncate -s 48M fs
mkfs.ext4 -q -F fs
fsurl=$(lazyframe build fs "file://$PWD/store" 2>/dev/null | tail -n 1)
cat >writer.py <<'END'
import os, sys, mmap
fd = os.open("/dev/mapper/x", os.O_RDWR | os.O_DIRECT)
buf = mmap.mmap(-1, 65536)
n = 0
while not os.path.exists("stop"):
    n += 1
    buf[:] = n.to_bytes(8, "little") * 8192
    os.pwritev(fd, [buf], 0)
    os.pwritev(fd, [buf], 1 << 20)
    with open("count.new", "w") as f:
        f.write(str(n))
    os.rename("count.new", "count")
END
cat >numbers.py <<'END'
# both places of a device hold one number each; the first is the same or one more
import sys
data = open(sys.argv[1], "rb").read(2 << 20)
a, b = data[:65536], data[1 << 20:(1 << 20) + 65536]
x = [int.from_bytes(a[i:i + 8], "little") for i in range(0, 65536, 8)]
y = [int.from_bytes(b[i:i + 8], "little") for i in range(0, 65536, 8)]
# a write of several blocks may be cut between blocks
blocks = [set(x[i:i + 512]) for i in range(0, 8192, 512)] + \
         [set(y[i:i + 512]) for i in range(0, 8192, 512)]
assert all(len(s) == 1 for s in blocks), "torn block"
n = [s.pop() for s in blocks]
assert max(n) - min(n) <= 1 and n == sorted(n, reverse=True), n
print(max(n))
END
sealed_under_load()
{
	local n last=0

	lazyframe attach x "$fsurl" --cow cow || return 1
	rm -f stop
	python3 writer.py &
	writer=$!
	for n in 1 2 3 4; do
		while [ "$(cat count 2>/dev/null || echo 0)" -le $last ]; do :; done
		seal || return 1
		n=$(python3 numbers.py $sealed) || return 1
		echo "sealed at write $n"
		[ "$n" -ge $last ] || return 1
		last=$n
	done
	touch stop
	wait $writer
	status=$?
	writer=
	[ $status = 0 ] && python3 numbers.py /dev/mapper/x && lazyframe detach x --discard
}
check "sealed while it is written, four times: nothing is torn or lost" sealed_under_load

# a file system is frozen for the moment: what is sealed needs no recovery
check "a mounted file system" eval 'lazyframe attach x "$fsurl" --cow cow &&
	mount /dev/mapper/x mnt && cp -r $tests/lib mnt/a && seal && cp -r $tests/lib mnt/b && umount mnt &&
	fsck.ext4 -fn $sealed && fsck.ext4 -fn /dev/mapper/x &&
	mount -o ro /dev/mapper/x mnt && diff -r mnt/a mnt/b && umount mnt && lazyframe detach x --discard'

# killed at each call that changes something
killed()
{
	local i kills=0 step=$((40 / SEAL_KILLS))

	[ $step -gt 0 ] || step=1
	lazyframe attach x "$url" --cow cow >/dev/null 2>&1 || return 1
	cp img model
	for ((i = 1; i <= SEAL_KILLS; i++)); do
		both ten$((i % 4 + 1)) $((i * 17)) || return 1
		strace -qqq -f -o trace -e trace=ioctl,pwrite64,renameat2,fsync \
			-e inject=ioctl,pwrite64,renameat2,fsync:signal=KILL:when=$((i * step)) \
			lazyframe seal x >/dev/null 2>&1
		[ $? -eq 137 ] || break
		kills=$((kills + 1))
		# as a reboot, or go on: a suspended device is resumed by the next seal
		if [ $((i % 2)) = 0 ]; then
			by_hand && lazyframe attach x "$url" --cow cow >/dev/null || return 1
		else
			lazyframe seal x >/dev/null 2>seal.err || { cat seal.err; return 1; }
		fi
		is_model || { echo "after kill $i"; return 1; }
		both ten1 $((i * 31)) || return 1
		case $i in
		*[05])	lazyframe detach x && lazyframe attach x "$url" --cow cow || return 1 ;;
		esac
		is_model || { echo "attached again after kill $i"; return 1; }
	done
	echo "$kills kills"
	[ $kills -gt 1 ] || return 1
	lazyframe detach x --discard
}
check "killed at any step, the next one completes it" killed

# the time: 1 MiB and much more, in long runs
mib() { python3 - "$1" <<'END'
import mmap, os, sys
fd = os.open("/dev/mapper/x", os.O_RDWR | os.O_DIRECT)
buf = mmap.mmap(-1, 1 << 20)
buf[:] = os.urandom(1 << 20)
for i in range(int(sys.argv[1])):
    os.pwritev(fd, [buf], i << 20)
os.fsync(fd)
END
}
truncate -s 9G huge
hugeurl=$(lazyframe build huge "file://$PWD/store" 2>/dev/null | tail -n 1)
much=$SEAL_MIB
median() { sort -n | sed -n "$(( ($1 + 1) / 2 ))p"; }
timed()
{
	local n

	for n in 1 2 3; do
		lazyframe attach x "$hugeurl" --cow cow >/dev/null 2>&1 || return 1
		mib $1 || return 1
		[ "$2" = 0 ] || blkdiscard -z -o 1G -l $2 /dev/mapper/x || return 1
		lazyframe seal x 2>note >/dev/null || return 1
		lazyframe detach x --discard >/dev/null 2>&1 || return 1
		sed -n 's/^suspended *\(.*\) ms/\1/p' note
	done | median 3
}
small=$(timed 1 0)
large=$(timed $much 8G)
echo "# suspended: $small ms with 1 MiB dirty, $large ms with $much MiB dirty and 8 GiB zero (median of 3)"
check "the time does not depend on how much was written" \
	python3 -c "import sys; sys.exit(not ($large < 10 * $small + 50))"
finish

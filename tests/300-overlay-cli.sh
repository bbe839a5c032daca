#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# attach --cow: what is written is there again after detach and attach, in files
# and on block devices; what does not belong together is refused, and nothing
# that was written is lost without --force or --discard.
. "$(dirname "$0")/common.sh"
cd "$tap_dir" || exit 1

export DM_DISABLE_UDEV=1
modprobe loop
truncate -s 64M disk1 disk2
disk1=$(losetup -f --show disk1)
disk2=$(losetup -f --show disk2)
state=/var/lib/lazyframe
cleanup()
{
	kill $helper
	cd /
	losetup -d $disk1
	losetup -d $disk2
	rm -f $state/x.meta
}
mkdir store
head -c 3000001 /dev/urandom >img
dd if=/dev/zero of=img bs=4096 seek=100 count=200 conv=notrunc status=none
url=$(lazyframe build img "file://$PWD/store" 2>/dev/null | tail -n 1)
head -c 100000 /dev/urandom >img2
other=$(lazyframe build img2 "file://$PWD/store" 2>/dev/null | tail -n 1)
lazyframed >helper.log 2>&1 &
helper=$!

loops() { grep -hs . /sys/block/loop*/loop/backing_file | grep -v -e /disk1$ -e /disk2$; }
json() { python3 -c "import json, sys; d = json.load(sys.stdin); sys.exit(not ($1))"; }
put() { dd if="$1" of=/dev/mapper/x bs=4096 seek="$2" conv=notrunc,fsync oflag=direct status=none; }
# model: what the device must show; both are written
both()
{
	put "$1" "$2" && dd if="$1" of=model bs=4096 seek="$2" conv=notrunc status=none
}
fresh_model() { cp img model && truncate -s 3000320 model; }
is_model() { cmp model /dev/mapper/x; }
both_unchanged()
{
	local before after

	before=$(sha256sum "$1" "$2")
	shift 2
	"$@" || return 1
	after=$(sha256sum $(awk '{print $2}' <<<"$before"))
	[ "$before" = "$after" ] || { echo "files changed"; return 1; }
}
head -c 40960 /dev/urandom >ten
head -c 4096 /dev/urandom >one
head -c 4096 /dev/zero >zero

check "there are images to work with" test "$url" -a "$other"
fresh_model
check "attach --cow FILE: the node alone" \
	eval '[ "$(lazyframe attach x "$url" --cow cow 2>note)" = /dev/mapper/x ]'
check "it can be written" eval '[ "$(blockdev --getro /dev/mapper/x)" = 0 ]'
check "it shows the image" is_model
check "the file is private, sparse, and has room for all" \
	eval '[ "$(stat -c "%a %s" cow)" = "600 $((733 * 4096 + 8192))" ] &&
	[ "$(stat -c %b cow)" -lt 100 ]'
check "the meta file is in $state" test -s $state/x.meta
check "its table names both devices" eval 'dmsetup table x |
	grep -E "^0 5860 lazyframe 7:[0-9]+ - 7:[0-9]+$"'
check "list shows the mode" eval 'lazyframe list | grep -E "^x .* rw +0 B +0 B +$state/x.meta$"'
check "what is written is there" eval 'both ten 3 && both one 731 && is_model'
check "list shows what is dirty" eval 'lazyframe list |
	grep -E "^x .* rw +44.0 KiB +0 B "'
check "discarded blocks are zero" eval 'blkdiscard -o 8192 -l 12288 /dev/mapper/x &&
	dd if=/dev/zero of=model bs=4096 seek=2 count=3 conv=notrunc status=none && is_model'
check "status shows the overlay" eval 'lazyframe status x >s && cat s &&
	grep -E "^overlay +rw$" s && grep -E "^dirty +36.0 KiB$" s &&
	grep -E "^zero +12.0 KiB$" s && grep -E "^COW file +$PWD/cow$" s'
check "status --json, too" eval 'lazyframe status x --json | json "
	d[\"mode\"] == \"rw\" and d[\"dirty_bytes\"] == 36864 and
	d[\"zero_bytes\"] == 12288 and d[\"cow_file\"] == \"$PWD/cow\" and
	not d[\"read_only\"] and d[\"status\"][\"dirty_blocks\"] == 9"'
check "what is active cannot be attached twice" \
	says 1 "is in use" lazyframe attach y "$url" --cow cow --meta $state/x.meta
check "it cannot be checked now" says 2 "is in use" lazyframe check $state/x.meta --cow cow
check "detach leaves meta and COW" \
	eval 'lazyframe detach x && [ -s $state/x.meta ] && [ -s cow ]'
check "and no loop device" eval '! loops'
check "both are clean, and count what was written" eval 'lazyframe check $state/x.meta --cow cow >c && cat c &&
	grep "^overlay .* 9 dirty and 3 zero of 733 blocks$" c'
check "the same line: what was written is there" \
	eval 'lazyframe attach x "$url" --cow cow && is_model'
check "it can be written again" eval 'both one 0 && is_model'
check "removed by hand, as a reboot does: still there" eval 'sync && dmsetup remove --noudevsync x &&
	lazyframe attach x "$url" --cow cow && is_model'
lazyframe detach x

check "no server is asked when all is known" eval 'mv store away &&
	lazyframe attach x "$url" --cow cow && lazyframe detach x; status=$?; mv away store
	[ $status = 0 ]'
check "--read-only shows it and writes nothing" eval '
	both_unchanged cow $state/x.meta eval "lazyframe attach x \"$url\" --cow cow --read-only &&
		is_model && ! put one 5 && lazyframe detach x"'
check "--read-only without --cow makes no sense" \
	says 2 "goes with --cow" lazyframe attach x "$url" --read-only
check "attach without --cow: refused, nothing is lost" both_unchanged cow $state/x.meta \
	says 1 "has an overlay" lazyframe attach x "$url"
check "with --meta: the same" both_unchanged cow $state/x.meta \
	says 1 "has an overlay" lazyframe attach x "$url" --meta $state/x.meta
check "format: the same" both_unchanged cow $state/x.meta \
	says 1 "has an overlay" lazyframe format $state/x.meta "$url"
check "format --cow: the same" both_unchanged cow $state/x.meta \
	says 1 "with what was written" lazyframe format new "$url" --cow cow
check "another image: refused, with both names" both_unchanged cow $state/x.meta \
	says 1 "has an overlay of image" lazyframe attach x "$other" --cow cow
check "another COW: refused" both_unchanged cow $state/x.meta \
	says 1 "there is no" lazyframe attach x "$url" --cow nothing
lazyframe format mb "$url" --cow cb >/dev/null 2>&1
check "a foreign COW: refused" both_unchanged cow $state/x.meta \
	says 1 "belongs to another overlay" lazyframe attach x "$url" --cow cb
check "and not touched" eval 'lazyframe attach y "$url" --meta mb --cow cb &&
	lazyframe detach y'
head -c 8192 /dev/urandom >data
check "a COW that holds data: refused" both_unchanged data $state/x.meta \
	says 1 "holds data" lazyframe attach y "$url" --cow data --meta my
check "nothing was made for it" test ! -e my
check "--force takes it" eval 'lazyframe attach y "$url" --cow data --meta my --force &&
	cmp -n 3000001 img /dev/mapper/y && lazyframe detach y'

# copies of both devices, at different times
lazyframe attach x "$url" --cow cow >/dev/null 2>&1
lazyframe detach x
cp cow cow.old
cp $state/x.meta meta.old
lazyframe attach x "$url" --cow cow >/dev/null 2>&1
both ten 500
lazyframe detach x
check "an older COW: refused" says 1 "the COW device is an older copy" \
	lazyframe attach x "$url" --cow cow.old
check "an older meta: refused" says 1 "the meta device is an older copy" \
	lazyframe attach x "$url" --cow cow --meta meta.old
check "both old ones: what was there then" eval 'lazyframe attach y "$url" --cow cow.old --meta meta.old &&
	lazyframe detach y'
cp cow cut
truncate -s -4096 cut
check "a COW that was cut off: refused" says 1 "smaller" \
	lazyframe attach x "$url" --cow cut
check "detach --discard lets all go" eval 'lazyframe attach x "$url" --cow cow &&
	is_model && lazyframe detach x --discard && [ ! -e cow ] && [ ! -e $state/x.meta ]'
check "without the device: nothing to detach" says 1 "no device" lazyframe detach x

# block devices
fresh_model
check "on block devices" eval 'lazyframe attach x "$url" --cow $disk1 --meta $disk2 &&
	both ten 30 && is_model'
check "detach and attach" eval 'lazyframe detach x &&
	lazyframe attach x "$url" --cow $disk1 --meta $disk2 && is_model'
check "--discard marks them as empty" eval 'lazyframe detach x --discard &&
	lazyframe attach x "$other" --cow $disk1 --meta $disk2 --force && cmp -n 100000 img2 /dev/mapper/x &&
	lazyframe detach x --discard'
mkfs.ext4 -q -F $disk1
check "a file system is no COW" says 1 "holds data" \
	lazyframe attach x "$url" --cow $disk1 --meta $disk2
check "and still there" fsck.ext4 -fn $disk1
check "swapped, they are refused" eval 'lazyframe attach x "$url" --cow $disk1 --meta $disk2 --force &&
	put one 1 && lazyframe detach x &&
	says 1 "" lazyframe attach x "$url" --cow $disk2 --meta $disk1'

# format and a line of one's own
check "format --cow and dmsetup" eval '
	lazyframe format $disk2 "$url" --cow $disk1 --force >line 2>note && cat line &&
	grep -x "0 5860 lazyframe $disk2 - $disk1" line &&
	dmsetup create x --noudevsync <line && dmsetup mknodes && fresh_model && both one 9 && is_model &&
	lazyframe detach x'

# with a file system
truncate -s 32M fs
mkfs.ext4 -q -F fs
fsurl=$(lazyframe build fs "file://$PWD/store" 2>/dev/null | tail -n 1)
mkdir mnt
check "ext4 on it: written, detached, attached, there" eval '
	lazyframe attach x "$fsurl" --cow fscow && mount /dev/mapper/x mnt &&
	cp -r $tests/lib mnt/ && umount mnt && lazyframe detach x &&
	lazyframe attach x "$fsurl" --cow fscow && mount -o ro /dev/mapper/x mnt &&
	diff -r $tests/lib mnt/lib; status=$?; umount mnt; lazyframe detach x --discard && [ $status = 0 ]'
check "a COW needs a meta that survives" eval '
	mount -t tmpfs -o ro none $state && says 1 "survives a reboot" lazyframe attach x "$url" --cow c3;
	status=$?; umount $state; [ $status = 0 ] && [ ! -e c3 ]'
finish

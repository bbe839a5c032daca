#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# attach, list, status and detach without a helper: what they make, what they
# refuse, and that each failure undoes everything.
. "$(dirname "$0")/common.sh"
cd "$tap_dir" || exit 1

modprobe loop
truncate -s 64M disk
disk=$(losetup -f --show disk)
cleanup()
{
	local name

	[ -e module ] && mv module "$module"
	[ -e away ] && mv away /dev/loop-control
	udevadm control --exit
	umount mnt $meta
	for name in foreign thief above small; do dms remove $name; done
	cd / && losetup -d $disk
}
mkdir store
truncate -s 3000001 img
dd if=/dev/urandom of=img bs=4096 seek=300 count=100 conv=notrunc status=none
url=$(lazyframe build img "file://$PWD/store" 2>/dev/null | tail -n 1)
head -c 100000 /dev/urandom >other
other=$(lazyframe build other "file://$PWD/store" 2>/dev/null | tail -n 1)
uuid=$(basename "$(dirname "$url")")
meta=/var/lib/lazyframe

# dmsetup leaves nodes to udevd; here there is none (until the end)
dms() { dmsetup --verifyudev "$@"; }
loops() { grep -hs . /sys/block/loop*/loop/backing_file | grep -v /disk$; }
# what attach could leave behind
state()
{
	local file line

	echo $meta/* /run/lazyframe/* /dev/mapper/*
	for file in /sys/block/loop*/loop/backing_file /sys/block/dm-*/dm/name; do
		[ -e "$file" ] && read -r line <"$file" && echo "$file:$line"
	done
}
same_state()
{
	local before after

	before=$(state)
	"$@" || return 1
	after=$(state)
	[ "$before" = "$after" ] || { printf '%s\n' "$before" "$after"; return 1; }
}
gone()
{
	[ ! -e "/dev/mapper/$1" ] && [ ! -e "$meta/$1.meta" ] &&
		! grep -sx "$1" /sys/block/dm-*/dm/name &&
		! loops | grep -F "/$1.meta"
}
json() { python3 -c "import json, sys; d = json.load(sys.stdin); sys.exit(not ($1))"; }
dev() { echo "dm-$(dmsetup info -c --noheadings -o minor "$1")"; }

check "there are images to work with" test "$url" -a "$other"
check "attach prints the node alone" \
	eval '[ "$(lazyframe attach x "$url" 2>note)" = /dev/mapper/x ]'
check "and notes that reads wait" grep "reads wait until lazyframed runs" note
check "the node is there" test -b /dev/mapper/x
check "read-only" eval '[ "$(blockdev --getro /dev/mapper/x)" = 1 ]'
check "with the image's size, in sectors" \
	eval '[ "$(blockdev --getsz /dev/mapper/x)" = 5860 ]'
check "its UUID names the image" eval '[ "$(dmsetup info -c --noheadings \
	-o uuid x)" = "LAZYFRAME-$uuid-x" ]'
check "its table is the documented one" eval 'dmsetup table x |
	grep -E "^0 5860 lazyframe 7:[0-9]+ - -$"'
check "its tables are in a private file" \
	eval '[ "$(stat -c %a $meta/x.meta)" = 600 ]'
check "nothing read it" eval '[ "$(cat /sys/block/$(dev x)/lazyframe/reads)" = 0 ]'
check "zeros need no helper" eval 'cmp -n 4096 /dev/mapper/x /dev/zero'

check "list shows it" eval 'lazyframe list | grep -E "^x +$uuid +2.9 MiB +1 +none +- +- +- +$meta/x.meta$"'
check "list --json too" eval 'lazyframe list --json | json "len(d) == 1 and
	d[0][\"name\"] == \"x\" and d[0][\"image\"] == \"$uuid\" and
	d[0][\"bytes\"] == 5860 * 512 and d[0][\"helper\"] == \"none\" and
	d[0][\"meta_file\"] == \"$meta/x.meta\""'
check "status names fields, counters and rates" eval 'lazyframe status x >s &&
	grep -E "^reads_zero +[1-9]" s && grep -E "^reads of zeros +100.0 %" s &&
	grep -E "^table +0 5860 lazyframe 7:" s && grep -E "^waiting +0" s'
check "status --json has every counter file" eval 'lazyframe status x --json | json "
	sorted(d[\"counters\"]) == sorted(\"\"\"$(ls -p /sys/block/$(dev x)/lazyframe | grep -vx -e mode -e .*/)\"\"\".split()) and
	d[\"status\"][\"reads\"] == d[\"counters\"][\"reads\"] > 0 and
	d[\"read_only\"] and d[\"policy\"] == \"queue\""'

check "a name that is taken is refused" \
	same_state says 1 "there is a device x already" lazyframe attach x "$other"
dms create foreign --table "0 8 zero"
check "another target's name, too" \
	same_state says 1 "not one of lazyframe's" lazyframe attach foreign "$url"
check "status of another target's device" \
	says 1 "no lazyframe device" lazyframe status foreign
check "another target's device is not detached" \
	same_state says 1 'its target is "zero"' lazyframe detach foreign
check "not by force either" \
	same_state says 1 'its target is "zero"' lazyframe detach foreign --force
dms remove foreign
for name in "" . .. control a/b "a b" "$(printf %0128d 0)"; do
	check "no name: \"${name:0:20}\"" \
		same_state says 1 name lazyframe attach "$name" "$url"
done
check "a name too long for the UUID" \
	same_state says 1 "longer than 81" lazyframe attach "$(printf %082d 0)" "$url"
check "no such image" \
	same_state says 1 nowhere lazyframe attach y "file://$PWD/store/nowhere"
check "--store with a disk that is none" \
	same_state says 1 "store-format $disk" lazyframe attach y "$url" --store $disk
check "--store with a file" \
	same_state says 1 "losetup" lazyframe attach y "$url" --store img
for n in "" -1 1x 86401 99999999999999999999; do
	check "no number of seconds: \"$n\"" same_state \
		says 2 "seconds" lazyframe attach y "$url" --fetch-timeout "$n"
done

for n in "" 0 2K 12K 32M -4K x; do
	check "no window: \"$n\"" same_state \
		says 2 "power of two" lazyframe attach y "$url" --read-around "$n"
done

# the kernel refuses the device at the last step
dms create thief --uuid "LAZYFRAME-$uuid-y" --table "0 8 zero"
check "what the kernel refuses is undone" \
	same_state says 1 "cannot create device y" lazyframe attach y "$url"
dms remove thief
mv /dev/loop-control away
check "no loop devices: undone" \
	same_state says 1 "modprobe loop" lazyframe attach y "$url"
mv away /dev/loop-control
mkdir /dev/mapper/y
check "something else in the node's place: undone" \
	same_state says 1 "/dev/mapper/y" lazyframe attach y "$url"
rmdir /dev/mapper/y

check "detach" eval 'lazyframe detach x && gone x'
check "detach of what is not there" \
	same_state says 1 "there is no device x" lazyframe detach x

lazyframe attach x "$url" --error-if-no-helper --no-helper-timeout 7 \
	--fetch-timeout 9 --read-around 8M >/dev/null 2>note
check "features reach the table" eval 'dmsetup table x | grep -F \
	" - - 7 error_if_no_helper no_helper_timeout 7 fetch_timeout 9 read_around 8388608"'
check "the note says that reads fail" grep "reads fail unless" note
check "and they do" eval '! dd if=/dev/mapper/x of=/dev/null bs=4096 skip=300 count=1'
lazyframe detach x

lazyframe attach x "$url" >/dev/null 2>&1
sleep 1000 </dev/mapper/x &
holder=$!
check "a busy device stays, and says who has it" \
	same_state says 1 "open in process $holder (sleep)" lazyframe detach x
check "by force it fails, but stays while it is open" \
	says 1 "all I/O fails from now on" lazyframe detach x --force
check "its reads fail" eval '! dd if=/dev/mapper/x of=/dev/null bs=4096 count=1 iflag=direct'
kill $holder
wait $holder 2>/dev/null
check "then it can be detached" eval 'lazyframe detach x && gone x'

lazyframe attach x "$url" >/dev/null 2>&1
dd if=/dev/mapper/x of=/dev/null bs=4096 skip=300 count=1 2>dd.err &
reader=$!
until grep -qE "^waiting +[1-9]" <(lazyframe status x); do :; done
check "a reader that waits makes it busy" \
	says 1 "process $reader (dd)" lazyframe detach x
check "detach --force ends the reader and the device" \
	eval 'lazyframe detach x --force && gone x && ! wait $reader && cat dd.err &&
	grep -i "input/output error" dd.err'

lazyframe attach x "$url" >/dev/null 2>&1
dms create above --readonly --table "0 8 linear /dev/mapper/x 0"
check "a device above it makes it busy" \
	same_state says 1 "below dm-" lazyframe detach x
dms remove above
dms remove x
check "removed by hand: the loop device is gone" eval '! loops | grep x.meta'
check "detach removes what is left" eval 'lazyframe detach x && gone x'
lazyframe attach x "$url" >/dev/null 2>&1
dms remove x
losetup -f $meta/x.meta
check "left: file and loop device" eval 'lazyframe detach x && gone x'
lazyframe attach x "$url" >/dev/null 2>&1
dms remove x
check "attach over a file that was left" \
	eval 'lazyframe attach x "$other" && lazyframe list | grep "^x.* 98.0 KiB"'
lazyframe detach x

check "--meta FILE" eval 'lazyframe attach x "$url" --meta $PWD/mine && test -s mine'
check "its file cannot be formatted or used twice" eval '
	same_state says 1 "is in use" lazyframe format mine "$url" --force &&
	same_state says 1 "is in use" lazyframe attach y "$url" --meta mine'
check "it stays after detach, its loop device does not" \
	eval 'lazyframe detach x && [ -s mine ] && ! loops | grep mine'
check "another image's FILE is refused" \
	same_state says 1 "meta device of image" lazyframe attach x "$other" --meta mine
check "a failing attach removes a FILE it made" eval '
	dms create thief --uuid "LAZYFRAME-$uuid-y" --table "0 8 zero" &&
	says 1 "cannot create" lazyframe attach y "$url" --meta made
	dms remove thief; [ ! -e made ]'
check "--meta DEVICE" eval 'lazyframe attach x "$url" --meta $disk &&
	lazyframe list | grep -E "^x .* $PWD/disk$" && ! loops | grep .'
check "that device cannot be formatted" \
	says 1 "is in use" lazyframe format $disk "$url" --force
check "nor used twice" same_state \
	says 1 "is in use" lazyframe attach y "$url" --meta $disk
lazyframe detach x
check "the loop device that DEVICE was is still there" \
	eval '[ "$(blockdev --getsize64 $disk)" = 67108864 ]'
check "format and dmsetup make the same device" eval '
	lazyframe format $disk "$url" | dms create x --readonly &&
	cmp -n 4096 /dev/mapper/x /dev/zero &&
	lazyframe list | grep -E "^x +$uuid" && lazyframe detach x && gone x'
check "not read-only: the module refuses" eval '
	! lazyframe format $disk "$url" | dms create x'
mkfs.ext4 -q -F $disk && mkdir mnt && mount $disk mnt
check "a mounted device is refused" \
	same_state says 1 "is in use" lazyframe attach x "$url" --meta $disk
check "by format, too" says 1 "is in use" lazyframe format $disk "$url" --force
umount mnt
check "a file system is refused" \
	same_state says 1 "no meta device" lazyframe attach x "$url" --meta $disk
check "and still there" fsck.ext4 -fn $disk
dms create small --table "0 8 linear $disk 0"
check "a device that is too small is refused, with both sizes" \
	eval 'says 1 "4096 bytes" lazyframe format /dev/mapper/small "$url" --force &&
	grep "need 28672" "$tap_dir/stderr"'
dms remove small

mount -t tmpfs -o ro none $meta
check "no /var/lib: the file goes to /run" eval 'lazyframe attach x "$url" &&
	[ -s /run/lazyframe/x.meta ] && lazyframe detach x &&
	[ ! -e /run/lazyframe/x.meta ] && gone x'
umount $meta

for i in 1 2 3 4; do
	lazyframe attach p$i "$url" >/dev/null 2>&1 &
	lazyframe attach same "$url" >same.$i 2>/dev/null &
done
wait
check "attached at once" eval '[ "$(lazyframe list | grep -c ^p)" = 4 ]'
check "one name, one winner" eval '[ "$(cat same.* | wc -l)" = 1 ]'
for i in p1 p2 p3 p4 same; do lazyframe detach $i & done
wait
check "detached at once" eval 'for i in p1 p2 p3 p4 same; do gone $i || exit 1; done'

# with udevd, which must finish and must not read the device
/lib/systemd/systemd-udevd --daemon && udevadm trigger -s block &&
	udevadm settle -t 60
udevd=$(pgrep -xo systemd-udevd)
check "udevd runs" test "$udevd"
check "with udevd: attach" lazyframe attach x "$url"
udevadm settle -t 60
check "with udevd: nothing read it" \
	eval '[ "$(cat /sys/block/$(dev x)/lazyframe/reads)" = 0 ]'
check "with udevd: the node is udev's link" test -L /dev/mapper/x
check "with udevd: detach, 5 times" eval 'lazyframe detach x && gone x &&
	for i in {1..5}; do
		lazyframe attach x "$url" >/dev/null && lazyframe detach x || exit 1
	done; gone x'
udevadm control --exit
tail --pid="$udevd" -f /dev/null
# what it leaves would make libdevmapper wait for it
rm -rf /run/udev

rmmod lazyframe
module=$(modinfo -n lazyframe)
mv "$module" module
check "no module: attach says what to do" \
	same_state says 1 "modprobe lazyframe" lazyframe attach x "$url"
check "no module: list is empty" eval '[ -z "$(lazyframe list)" ]'
mv module "$module"
finish

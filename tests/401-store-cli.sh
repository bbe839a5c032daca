#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# attach --store: one store for all devices of a formatted disk, made when it is
# missing, kept by seal and export, found again after a reboot; with the daemon,
# and then without.
. "$(dirname "$0")/common.sh"
cd "$tap_dir" || exit 1

export DM_DISABLE_UDEV=1
modprobe loop
truncate -s 64M cache
disk=$(losetup -f --show cache)
truncate -s 64M blank
blank=$(losetup -f --show blank)
state=/var/lib/lazyframe
helper=
cleanup()
{
	kill $helper
	umount mnt
	cd /
	for name in x y z above; do dmsetup remove $name; done
	stores_remove
	losetup -d $disk
	losetup -d $blank
	rm -f $state/x.meta*
}
stores() { dmsetup ls --target lazyframe-store | awk '!/^No devices/ { print $1 }'; }
stores_remove()
{
	local name

	for name in $(stores); do dmsetup remove "$name" || return 1; done
}
mkdir images mnt
head -c 3000001 /dev/urandom >img
dd if=/dev/zero of=img bs=4096 seek=100 count=200 conv=notrunc status=none
cp img model
truncate -s 3000320 model
url=$(lazyframe build img "file://$PWD/images" --frame-size 16K 2>/dev/null | tail -n 1)
head -c 1000000 /dev/urandom >other
other=$(lazyframe build other "file://$PWD/images" --frame-size 16K 2>/dev/null | tail -n 1)

helper_start()
{
	lazyframed >>helper.log 2>&1 &
	helper=$!
}
helper_stop()
{
	kill $helper
	wait $helper
	helper=
}
same_state()
{
	local before after

	before=$(tables)
	"$@" || return 1
	after=$(tables)
	[ "$before" = "$after" ] || { printf '%s\n' "$before" "$after"; return 1; }
}
tables() { dmsetup table; ls $state; losetup -a | sort; }
number() { echo "$(dmsetup info -c --noheadings --separator : -o major,minor "$1")"; }
# word NAME N: of its table line
word() { dmsetup table "$1" | awk "{ print \$$2 }"; }
# info N: of the store's status line, behind "0 <sectors> lazyframe-store"
info() { dmsetup status "$store" | awk "{ print \$($1 + 3) }"; }
until_stored()
{
	local i

	for ((i = 0; i < 200; i++)); do
		[ "$(info 4)" -ge "$1" ] && return
		sleep 0.1
	done
	dmsetup status "$store"
	return 1
}
reads() { lazyframe status "$1" --json | python3 -c "import json, sys; print(json.load(sys.stdin)['status']['reads_$2'])"; }
json() { python3 -c "import json, sys; d = json.load(sys.stdin); sys.exit(not ($1))"; }
# what was read is taken from memory when nobody needs it any more
detach() { lazyframe detach "$1" && echo 3 >/proc/sys/vm/drop_caches; }

# what is refused, with nothing left behind
check "there are images to work with" test "$url" -a "$other"
check "a disk that is no store: the remedy is named" same_state \
	says 1 "lazyframe store-format $disk" lazyframe attach x "$url" --store $disk
check "store-format" eval 'lazyframe store-format $disk >out 2>note &&
	[ "$(cat out)" = "0 131072 lazyframe-store $disk" ]'
uuid=$(awk '/^store/ { print $2 }' note)
store=lazyframe-store-${uuid:0:8}
check "no such device" same_state \
	says 1 "there is no such device" lazyframe attach x "$url" --store /dev/nowhere
check "a file" same_state \
	says 1 "losetup" lazyframe attach x "$url" --store cache
check "a character device" same_state \
	says 1 "no block device" lazyframe attach x "$url" --store /dev/null
mkfs.ext4 -q -F $blank && mount $blank mnt
check "a file system is no store" same_state \
	says 1 "store-format" lazyframe attach x "$url" --store $blank
check "a mounted disk cannot be formatted" \
	says 1 "in use" lazyframe store-format $blank --force
umount mnt
dmsetup create above --table "0 131072 linear $disk 0"
check "a disk that another target has" same_state \
	says 1 "in use: below dm-" lazyframe attach x "$url" --store $disk
dmsetup remove above
cp cache smaller
truncate -s 40M smaller
small=$(losetup -f --show smaller)
check "a disk that shrank" same_state \
	says 1 "smaller than when it was formatted" lazyframe attach x "$url" --store $small
losetup -d $small
printf X | dd of=cache bs=1 seek=40 conv=notrunc status=none
printf X | dd of=cache bs=1 seek=4136 conv=notrunc status=none
check "a damaged superblock" same_state \
	says 1 "superblock is damaged" lazyframe attach x "$url" --store $disk
printf '\017' | dd of=cache bs=1 seek=40 conv=notrunc status=none
check "one of two is enough; an image that is not there: the store goes again" same_state \
	says 1 nowhere lazyframe attach x "file://$PWD/nowhere" --store $disk
dmsetup create above --uuid "LAZYFRAME-$(basename "$(dirname "$url")")-x" --table "0 8 zero"
check "what fails behind the store's making takes it back" same_state \
	says 1 "cannot create device x" lazyframe attach x "$url" --store $disk
dmsetup remove above
dmsetup create $store --table "0 8 zero"
check "its name is taken" same_state \
	says 1 "there is a device $store already" lazyframe attach x "$url" --store $disk
dmsetup remove $store
lazyframe store-format $disk --force >out 2>note
uuid=$(awk '/^store/ { print $2 }' note)
store=lazyframe-store-${uuid:0:8}
dmsetup create $store --uuid LAZYFRAME_STORE-$uuid --notable
check "a device that a killed run left is replaced" eval '
	lazyframe attach z "$url" --store $disk && [ "$(info 2)" = rw ] &&
	lazyframe detach z && dmsetup remove $store'

blockdev --setro $disk
check "a disk that is read-only: a store that is" eval '
	lazyframe attach z "$url" --store $disk && [ "$(info 2)" = ro ] &&
	[[ $(dmsetup table $store) = *" 1 read_only" ]] &&
	lazyframe detach z && dmsetup remove $store'
blockdev --setrw $disk

# two at once, one store
helper_start
lazyframe attach x "$url" --store $disk >x.out 2>x.err &
first=$!
lazyframe attach y "$other" --store $disk >y.out 2>y.err &
wait $first $!
check "two attaches at once" eval 'cat x.err y.err; [ "$(cat x.out y.out)" = "/dev/mapper/x
/dev/mapper/y" ]'
check "make one store" eval '[ "$(stores)" = $store ]'
check "with its UUID, all of its disk, writable" eval '
	[ "$(dmsetup info -c --noheadings -o uuid $store)" = LAZYFRAME_STORE-$uuid ] &&
	[ "$(dmsetup table $store)" = "0 131072 lazyframe-store $(cat /sys/block/${disk#/dev/}/dev)" ] &&
	[ "$(info 1)" = $uuid ] && [ "$(info 2)" = rw ]'
check "both tables name it" eval '[ "$(word x 5)" = "$(number $store)" ] &&
	[ "$(word y 5)" = "$(number $store)" ]'
check "store-format of a disk in use is refused" same_state \
	says 1 "in use" lazyframe store-format $disk --force
check "status shows it" eval 'lazyframe status x >s && grep -E "^store +$store$" s &&
	grep -E "^store device +$disk$" s && grep -E "^store file +$PWD/cache$" s &&
	grep -E "^reads_store +0" s'
check "status --json, too" eval 'lazyframe status x --json | json "
	d[\"store\"] == \"$store\" and d[\"store_device\"] == \"$disk\" and
	d[\"store_file\"] == \"$PWD/cache\" and d[\"status\"][\"reads_store\"] == 0 and
	d[\"counters\"][\"reads_store\"] == 0"'
check "list has the two devices alone" eval '[ "$(lazyframe list | awk "NR > 1 { print \$1 }" | xargs)" = "x y" ]'
check "status of the store itself" same_state \
	says 1 "no lazyframe device" lazyframe status $store
check "detach of the store itself" same_state \
	says 1 'its target is "lazyframe-store"' lazyframe detach $store --force

check "all is read" eval 'cmp -n 3000001 img /dev/mapper/x && cmp -n 1000000 other /dev/mapper/y'
frames=$((3000001 / 16384 + 1 - 49 + 1000000 / 16384 + 1))
check "and stored" eval 'echo $frames; until_stored $((frames - 2)) && [ "$(info 10)" = 0 ] && [ "$(info 11)" = 0 ]'
check "detach leaves the store alone" eval 'detach x && detach y && [ "$(stores)" = $store ]'
helper_stop
only_store()
{
	lazyframe attach "$1" "$2" --store "$4" --error-if-no-helper >/dev/null 2>&1 &&
		cmp "$3" "/dev/mapper/$1" && [ "$(reads "$1" fetched)" = 0 ] &&
		[ "$(reads "$1" store)" -gt 0 ] && [ "$(reads "$1" failed)" = 0 ]
}
check "without a helper, all comes from the store" only_store x "$url" model $disk
check "a second device, by the store's own name" eval '
	truncate -s 1000448 other; only_store y "$other" other /dev/mapper/$store'
check "which is still the only one" eval '[ "$(stores)" = $store ]'
check "status names the share" eval 'lazyframe status x | grep -E "^from the store +[1-9]"'

# a reboot: nothing is left but the disk and the files
reboot()
{
	lazyframe detach x && lazyframe detach y && stores_remove && [ -z "$(devices)" ] &&
		losetup -d $disk && echo 3 >/proc/sys/vm/drop_caches && module_unload && modprobe lazyframe &&
		disk=$(losetup -f --show cache)
}
check "a reboot" reboot
check "attach finds all of it" eval 'only_store x "$url" model $disk &&
	only_store y "$other" other $disk && [ "$(stores)" = $store ]'
check "the frames are those that were stored" eval '[ "$(info 4)" -ge $((frames - 2)) ]'
detach y

# overlays
detach x
only_cow()
{
	lazyframe attach x "$url" --cow cow --store $disk --error-if-no-helper >/dev/null 2>&1
}
check "attach with --cow" only_cow
names_store() { [ "$(word "$1" 5)" = "$(number $store)" ]; }
check "it names the store" names_store x
both()
{
	dd if=/dev/urandom of=block bs=4096 count=$2 status=none &&
	dd if=block of=/dev/mapper/x bs=4096 seek=$1 oflag=direct conv=notrunc,fsync status=none &&
	dd if=block of=model bs=4096 seek=$1 conv=notrunc status=none
}
check "it is written" both 5 3
check "seal" lazyframe seal x
sealed=$(devices | grep sealed)
check "both keep the store" eval 'names_store x && names_store $sealed'
check "and read from it, with no helper" eval 'echo 3 >/proc/sys/vm/drop_caches; timeout -s KILL 60 cmp model /dev/mapper/x &&
	[ "$(reads $sealed failed)" = 0 ]'
check "detach, attach: the sealed one names it, too" eval 'detach x && [ -z "$(devices)" ] && only_cow &&
	names_store x && names_store $sealed && cmp model /dev/mapper/x &&
	[ "$(reads $sealed store)" -gt 0 ]'
check "another without it" eval 'lazyframe attach y "$url" >/dev/null 2>&1 && [ "$(word y 5)" = - ] &&
	lazyframe status y --json | json "d[\"store\"] is None" && detach y'
check "written and sealed again, exported" eval 'both 700 2 && lazyframe seal x &&
	for s in x $(devices | grep sealed); do names_store $s || exit 1; done &&
	[ "$(devices | wc -l)" = 3 ] && lazyframe export x >new 2>note'
check "the table keeps it" eval '[ "$(devices)" = x ] && names_store x'
helper_start
layer=$(lazyframe inspect --json "$(cat new)" | python3 -c "import json, sys
print(sum(l['frames']['count'] for l in json.load(sys.stdin)['layers']
	  if l['uuid'] == '$(basename "$(dirname "$(cat new)")")'))")
before=$(info 4)
check "read anew, all is there" eval 'echo 3 >/proc/sys/vm/drop_caches; cmp model /dev/mapper/x'
check "the new layer is stored, too" eval 'echo $before and $layer
	[ "$layer" -ge 1 ] && until_stored $((before + layer))'
helper_stop
detach x
check "the new image, from the store alone" only_store z "$(cat new)" model /dev/mapper/$store
detach z

# a store that is suspended, or has gone bad, is no reason not to attach
helper_start
dmsetup suspend $store
check "a suspended store: attach, and read all" eval '
	lazyframe attach z "$url" --store $disk >/dev/null 2>&1 && cmp -n 20000 img /dev/mapper/z &&
	[ "$(reads z store)" = 0 ]'
dmsetup resume $store
detach z
check "no store is left over" stores_remove
finish

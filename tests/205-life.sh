#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# The life of a device beside that of the helper: reads wait for it or fail by
# policy, wrong URLs and damaged headers leave nothing behind, detaching ends
# what waits, a file system stays mounted while helpers come and go.
. "$(dirname "$0")/remote.sh"

odd=$images/image/odd
url=$(url_of odd-zstd-128K)
check "nginx" nginx_start
block() { dd if="/dev/mapper/$1" bs=4k count=1 skip="$2" iflag=direct status=none; }
used_up() { [ -z "$(control faults)" ]; }
right() { cmp <(block $1 $2) <(dd if="$odd" bs=4k count=1 skip="$2" status=none); }

# No helper
check "attach without a helper" attach l "$nginx/$url"
block l 3 >"$tap_dir/block" &
reader=$!
check "a read waits" until_true waiting_is l 1
check "status tells both" eval 'lazyframe status l >"$tap_dir/status" &&
	grep -E "^waiting +1$" "$tap_dir/status" &&
	grep -E "^helper +none$" "$tap_dir/status"'
events=$(dmsetup info -c --noheadings -o events l)
check "the helper comes" helper_start
check "the read ends" wait $reader
check "with the right bytes" cmp "$tap_dir/block" \
	<(dd if="$odd" bs=4k count=1 skip=3 status=none)
check "which was an event" test "$(dmsetup info -c --noheadings -o events l)" -gt "$events"
check "status tells that, too" eval 'lazyframe status l --json |
	/usr/bin/python3 -c "import json, sys; d = json.load(sys.stdin)
assert d[\"counters\"][\"reads_fetched\"] == 1, d
assert d[\"helper\"] == \"attached\", d"'
check "list shows it" eval 'lazyframe list | grep -E "^l +[0-9a-f-]{36} +1.0 MiB"'
events=$(dmsetup info -c --noheadings -o events l)
helper_kill
check "the helper's end is an event" \
	test "$(dmsetup info -c --noheadings -o events l)" -gt "$events"
check "what is in memory needs no helper" right l 3
check "fail at once, by message" eval 'dmsetup message l 0 error_if_no_helper &&
	says 1 "error reading" block l 200'
check "and back: it waits" eval 'dmsetup message l 0 queue_if_no_helper
	block l 200 >"$tap_dir/block" & reader=$!; until_true waiting_is l 1'
check "a message ends waiting reads, too" eval 'dmsetup message l 0 error_if_no_helper &&
	! wait $reader && waiting_is l 0'
check "attach --error-if-no-helper" fresh l "$nginx/$url" --error-if-no-helper
check "reads fail" says 1 "error reading" block l 200
helper_start
check "and work with a helper" right l 200
helper_kill
check "attach --no-helper-timeout 1" fresh l "$nginx/$url" --no-helper-timeout 1
check "reads fail, a second later" eval 'start=$(date +%s%N)
	says 1 "error reading" block l 200 &&
	took=$((($(date +%s%N) - start) / 1000000)) && echo "$took ms" && [ $took -ge 900 ]'

# Detach with misses outstanding
check "attach" fresh l "$nginx/$url"
block l 100 >/dev/null 2>"$tap_dir/dd.err" &
reader=$!
until_true waiting_is l 1
check "detach refuses while a reader waits" says 1 "(dd)" \
	lazyframe detach l
check "detach --force ends it" lazyframe detach l --force
check "the reader got an error" eval '! wait $reader && grep "error reading" "$tap_dir/dd.err"'
check "nothing is left" eval '[ ! -e /dev/mapper/l ] && [ ! -e /var/lib/lazyframe/l.meta ] &&
	! losetup -n -O BACK-FILE | grep lazyframe'
server_start
helper_start --stall-timeout 600
check "attach by the other server" attach l "$server/$url" --fetch-timeout 3600
control "fault hold path=/${url%.header}.zstd at=100"
block l 100 >/dev/null 2>"$tap_dir/dd.err" &
reader=$!
until_true used_up
check "detach --force while the server sends" lazyframe detach l --force
check "the reader got an error then, too" eval '! wait $reader && grep "error reading" "$tap_dir/dd.err"'
control clear
check "the same again" attach l "$server/$url"
check "works" same l "$odd"
check "detach" detach l

# URLs that lead nowhere
nothing() { [ -z "$(dmsetup ls --target lazyframe | grep -v "No devices")" ] &&
	[ -z "$(ls /var/lib/lazyframe 2>/dev/null)" ] && ! losetup -n | grep -q .; }
cp -r "$images/store/${url%/*}" "$tap_dir/copy"
mkdir -p "$tap_dir/store"
uuid=${url%/*}
put() { rm -rf "$tap_dir/store/$uuid"; cp -r "$tap_dir/copy" "$tap_dir/store/$uuid"; }
local_url=file://$tap_dir/store/$url
wrong()
{
	local words=$1

	shift
	says 1 "$words" lazyframe attach w "$@" && nothing && return
	lazyframe detach w
	return 1
}
check "no such object" wrong "404" "$nginx/$uuid/none.header"
check "no such server" wrong "127.0.0.1" "http://127.0.0.1:9/$url"
check "no such file" wrong "No such file" "file:///nowhere/$url"
check "no URL at all" wrong "none.header" "none.header"
check "an unknown kind of URL" wrong "ftp" "ftp://127.0.0.1/$url"
control "fault status count=0"
check "a server that fails" wrong "500" "$server/$url"
control clear
control "fault short count=0"
check "a server that breaks off" wrong "$server/" "$server/$url"
control clear
put
rm "$tap_dir/store/${url%.header}.zstd"
check "a header whose layer is missing" wrong "odd.zstd" "$local_url"
put
truncate -s 50000 "$tap_dir/store/${url%.header}.zstd"
check "a data object that is cut off" wrong "odd.zstd" "$local_url"
for at in 0 23 70; do
	put
	printf '\377' | dd of="$tap_dir/store/$url" bs=1 seek=$at conv=notrunc status=none
	check "a header with byte $at damaged" wrong "odd.header" "$local_url"
done
put
truncate -s 60 "$tap_dir/store/$url"
check "a header that is cut off" wrong "odd.header" "$local_url"
: >"$tap_dir/store/$url"
check "an empty header" wrong "odd.header" "$local_url"
put
check "the undamaged one attaches" eval 'attach w "$local_url" && same w "$odd"'
check "a name that is taken" says 1 "there is a device w already" lazyframe attach w "$local_url"
object=$tap_dir/store/${url%.header}.zstd
mv "$object" "$tap_dir/away"
check "an object that is gone later: memory still answers" right w 100
mv "$tap_dir/away" "$object"
check "attached once more" fresh w "$local_url"
mv "$object" "$tap_dir/away"
check "an object that is gone: an error, not zeros" says 1 "error reading" block w 3
check "the helper's log says so" grep -E "layer $uuid: frame at .*: .*No such file" "$tap_dir/helper.log"
cp "$tap_dir/away" "$object"
printf '\\377' | dd of="$object" bs=1 seek=100 conv=notrunc status=none
check "another one in its place: an error" says 1 "error reading" block w 3
check "the log tells that it is another" eval 'tail -n 3 "$tap_dir/helper.log" |
	grep -E "layer $uuid: frame at .*: .*the entity tag is .*, not "'
mv "$tap_dir/away" "$object"
check "the first one is back: so are the bytes" right w 3
check "detach" detach w

# By hand
truncate -s 1M "$tap_dir/meta"
loop=$(losetup -f --show "$tap_dir/meta")
check "lazyframe format and dmsetup create" eval '
	lazyframe format --force "$loop" "$nginx/$url" >"$tap_dir/table" &&
	grep -E "^0 2049 lazyframe [^ ]+ - -$" "$tap_dir/table" &&
	dmsetup create --readonly h <"$tap_dir/table"'
check "the same device" same h "$odd" iflag=direct
check "its own table makes it again" eval 'table=$(dmsetup table h) && dmsetup remove h &&
	dmsetup create --readonly h --table "$table" && same h "$odd"'
check "list shows it, too" eval 'lazyframe list | grep "^h "'
check "reload while it is read" eval 'dd if=/dev/mapper/h of=/dev/null bs=4k iflag=direct status=none &
	reader=$!
	for i in 1 2 3 4 5; do
		dmsetup reload --readonly h --table "$table" && dmsetup resume h || break
	done && [ $i = 5 ] && wait $reader'
check "still the same" same h "$odd" iflag=direct
check "dmsetup remove" dmsetup remove h
losetup -d "$loop"

# A file system
ext4=$(url_of ext4-zstd-128K)
mnt=$tap_dir/mnt
mkdir "$mnt"
check "an ext4 image" attach root "$server/$ext4"
check "mounts" mount -o ro "/dev/mapper/root" "$mnt"
check "a program runs from it" eval '[ "$(chroot "$mnt" /bin/busybox cat /etc/motd)" = \
	"read from a lazyframe device" ]'
check "before much of it was fetched" test "$(module fill_bytes)" -gt 0 -a \
	"$(module cache_bytes)" -lt $((24 << 20 >> 1))
check "detach refuses while it is mounted" says 1 "$mnt" lazyframe detach root
helper_kill
echo 3 >/proc/sys/vm/drop_caches
cmp "$mnt/etc/odd" "$odd" >"$tap_dir/cmp" 2>&1 &
reader=$!
check "without a helper, a new file waits" until_true waiting_over root 0
check "a helper comes" helper_start
check "the file is right" wait $reader
check "all files can be read" eval 'tar -c -C "$mnt" . | wc -c'
check "fsck finds nothing" e2fsck -fn /dev/mapper/root
check "umount" umount "$mnt"
check "detach" detach root
check "nothing is left" nothing
finish

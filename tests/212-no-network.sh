#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# With the network down, or a name server that is silent, lazyframed starts, what
# is stored is served, what is not waits; and when the network is back, it goes
# on by itself.
. "$(dirname "$0")/remote.sh"

image=$images/image/fio
url=$(url_of fio-zstd-128K)
truncate -s 64M "$tap_dir/disk"
disk=$(losetup -f --show "$tap_dir/disk")
eval "plain_$(declare -f cleanup)"
cleanup()
{
	[ -z "$silent" ] || kill $silent
	ip link set lo up
	plain_cleanup
	dmsetup remove n
	losetup -d "$loop"
	dmsetup remove "$store"
	losetup -d $disk
}
silent= loop= store=
lazyframe store-format $disk >/dev/null 2>&1
nginx_start
helper_start
check "attach" attach n "$nginx/$url" --store $disk --meta "$tap_dir/meta" \
	--fetch-timeout 3600
store=$(dmsetup ls --target lazyframe-store | awk '{ print $1 }')
stored() { [ "$(dmsetup status "$store" | awk '{ print $7 }')" -ge $1 ]; }
part=$((1 << 20))
check "some of it is read" cmp -n $part /dev/mapper/n "$image"
check "and stored" until_true stored 8
table=$(dmsetup table n)
helper_kill
check "detach" detach n
check "nothing of it is in memory" test "$(module cache_frames)" = 0

ip link set lo down
check "the network is down" eval '! timeout 1 bash -c "exec 7<>/dev/tcp/127.0.0.1/8080"'
loop=$(losetup -f --show -r "$tap_dir/meta")
# a reboot may give it another number
device=$(awk '{ print $4 }' <<<"$table")
table=${table/"$device"/$loop}
check "the device is made of what is there" dmsetup create --readonly n --table "$table"
check "with no helper: what is stored is read" cmp -n $part /dev/mapper/n "$image"
check "lazyframed starts" helper_start --connect-timeout 1
check "what is stored is still read" eval 'echo 3 >/proc/sys/vm/drop_caches
	cmp -n $part /dev/mapper/n "$image"'
check "by none of its requests" eval '[ "$(counter n reads_fetched)" = 0 ] &&
	[ "$(counter n reads_store)" -gt 0 ]'
dd if=/dev/mapper/n of="$tap_dir/block" bs=4k count=1 skip=5000 iflag=direct status=none &
reader=$!
check "what is not waits" until_true waiting_over n 0
check "lazyframed says why" until_true grep -E "layer .*127.0.0.1" "$tap_dir/helper.log"
busy()
{
	local before after
	local ticks='{ print $14 + $15 }'

	before=$(awk "$ticks" /proc/$helper_pid/stat)
	sleep 3
	after=$(awk "$ticks" /proc/$helper_pid/stat)
	echo "$((after - before)) of 300 ticks"
	[ $((after - before)) -lt 60 ]
}
check "it does not keep a processor busy" busy
check "the read still waits" kill -0 $reader
check "lazyframed may be replaced meanwhile" eval '
	lazyframed --verbose --replace >>"$tap_dir/helper.log" 2>&1 & new=$!
	wait $helper_pid; [ $? = 3 ] && helper_pid=$new'
ip link set lo up
check "the network is back: the read ends" wait $reader
check "with the right bytes" cmp "$tap_dir/block" \
	<(dd if="$image" bs=4k count=1 skip=5000 status=none)
check "and the rest is there" cmp -n $(stat -c %s "$image") /dev/mapper/n "$image"
helper_kill

# start: took is its time in ms
start()
{
	local start

	start=$(date +%s%N)
	helper_start
	took=$((($(date +%s%N) - start) / 1000000))
}
start
before=$took
helper_kill

# A name server that is there and never answers
/usr/bin/python3 -c 'import signal, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 53))
print(flush=True)
signal.pause()' >"$tap_dir/silent" &
silent=$!
until_true test -s "$tap_dir/silent"
echo "nameserver 127.0.0.1" >/etc/resolv.conf
start
echo "# lazyframed attaches after $took ms, before $before ms"
check "a silent name server delays the start by 1 second, not by 10" \
	test $took -lt $((before + 5000))
check "it serves" eval 'echo 3 >/proc/sys/vm/drop_caches
	cmp -n $(stat -c %s "$image") /dev/mapper/n "$image"'
finish

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# fio reads what is cold and what the store has, writes and reads back what is
# dirty, blocks in part too, while the helper is killed and replaced at any
# moment: no error, no wrong byte.
. "$(dirname "$0")/remote.sh"

image=$images/image/fio
zstd=$(url_of fio-zstd-128K)
lz4=$(url_of fio-lz4-128K)
limit=$(cat /sys/module/lazyframe/parameters/cache_mib)
truncate -s 64M "$tap_dir/disk"
disk=$(losetup -f --show "$tap_dir/disk")
server_start
check "a store" eval 'lazyframe store-format $disk'
check "attach what is cold" attach cold "$server/$zstd"
check "attach what is stored" attach stored "$server/$lz4" --store $disk
check "attach what is written" attach dirty "$server/$zstd" \
	--cow "$tap_dir/cow" --meta "$tap_dir/dirty.meta"
store=$(dmsetup ls --target lazyframe-store | awk '{ print $1 }')
devices="cold stored dirty"

eval "plain_$(declare -f cleanup)"
cleanup()
{
	touch "$tap_dir/stop"
	echo $limit >/sys/module/lazyframe/parameters/cache_mib
	plain_cleanup
	dmsetup remove "$store"
	losetup -d $disk
}

cat >"$tap_dir/jobs" <<END
[global]
ioengine=libaio
iodepth=8
direct=1
verify=crc32c
verify_fatal=1
norandommap
rw=randread
bs=4k
[cold]
filename=/dev/mapper/cold
io_size=1M
[stored]
filename=/dev/mapper/stored
io_size=1M
[clean]
filename=/dev/mapper/dirty
offset=12M
io_size=512k
[dirty]
filename=/dev/mapper/dirty
rw=randwrite
norandommap=0
bs=2k
size=12M
io_size=256k
do_verify=1
END
work_on()
{
	local round=0

	while [ ! -e "$tap_dir/stop" ]; do
		round=$((round + 1))
		fio --randseed=$round --aux-path="$tap_dir" \
			--output="$tap_dir/fio.out" "$tap_dir/jobs" ||
			{ cat "$tap_dir/fio.out"; return 1; }
		echo $round >"$tap_dir/rounds"
	done
}

# spawn: a helper that takes over, if there is something to
spawn()
{
	local sessions

	sessions=$(module sessions)
	lazyframed --replace >>"$tap_dir/helper.log" 2>&1 &
	helper_pid=$!
	until_true session_over $sessions
}

losses=0 replaced=0 met=0
lose()
{
	helper_kill KILL && spawn && losses=$((losses + 1))
}
replace()
{
	local old=$helper_pid status

	[ $((replaced % 2)) = 0 ] || kill -STOP $old
	spawn || return 1
	kill -CONT $old
	wait $old
	status=$?
	[ $status = 3 ] || { echo "the old one ended with $status"; return 1; }
	replaced=$((replaced + 1))
}
# each at its moment: after some requests, and a little later
all()
{
	local name busy before
	local share=$(((LOSSES + REPLACES) / REPLACES))

	while [ $losses -lt $LOSSES ] || [ $replaced -lt $REPLACES ]; do
		before=$(($(module requests) + RANDOM % 10))
		until_true requests_over $before || return 1
		read -r -t 0.0$((RANDOM % 10)) -u 6
		busy=
		for name in $devices; do
			[ "$(counter $name waiting)" = 0 ] || busy=y
		done
		[ -z "$busy" ] || met=$((met + 1))
		if [ $replaced -lt $REPLACES ] &&
			[ $(((losses + replaced) % share)) = 0 ] ||
			[ $losses -ge $LOSSES ]; then
			replace || return 1
		else
			lose 2>/dev/null || return 1
		fi
		kill -0 $fio || { echo "fio ended"; return 1; }
	done
}

spawn
check "what the store has is read once" eval 'same stored "$image" iflag=direct &&
	until_true eval "[ \$(dmsetup status $store | awk \"{ print \\\$7 }\") -ge 190 ]"'
echo 1 >/sys/module/lazyframe/parameters/cache_mib
control "shape rate=4000000"
work_on >"$tap_dir/fio.err" &
fio=$!
patience=120
check "$LOSSES kills, $REPLACES replacements while fio reads and writes" all
check "all go on with the last one" eval 'before=$(module requests)
	until_true requests_over $((before + 20))'
touch "$tap_dir/stop"
check "fio saw no error and no wrong byte" eval 'wait $fio || ! cat "$tap_dir/fio.err"'
echo "# result: $losses kills and $replaced replacements, $met with reads waiting;" \
	"$(cat "$tap_dir/rounds") rounds of fio; cold, stored, dirty:" \
	"$(for name in $devices; do counter $name reads; done | paste -s -d ' ') reads," \
	"$(counter stored reads_store) from the store," \
	"$(counter dirty reads_overlay) from the overlay"
unharmed()
{
	grep -H . /sys/block/dm-*/lazyframe/{reads_failed,frames_bad}
	[ "$(counter $1 reads_failed) $(counter $1 frames_bad)" = "0 0" ] &&
		waiting_is $1 0
}
for device in $devices; do
	check "$device: no read failed, no frame was bad, nothing waits" unharmed $device
done
check "half of them met waiting reads" test $met -ge $(((LOSSES + REPLACES) / 2))
check "the store was read" test "$(counter stored reads_store)" -gt 0
echo $limit >/sys/module/lazyframe/parameters/cache_mib
control clear
check "what was cold equals the image" same cold "$image" iflag=direct
check "what is stored does, too" same stored "$image" iflag=direct
check "and what was not written" cmp -i $((12 << 20)) /dev/mapper/dirty "$image"
finish

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# kill -9 of the helper, again and again at any moment, while fio reads and
# verifies an image that knows its own content, and something starts a new
# helper each time: no error, no wrong byte, no reader that waits for ever.
. "$(dirname "$0")/remote.sh"

kills=$KILLS
image=$images/image/fio
url=$(url_of fio-zstd-128K)

server_start
check "attach" attach k "$server/$url"

# supervise: a helper, always
supervise()
{
	while [ ! -e "$tap_dir/stop" ]; do
		lazyframed --wait >>"$tap_dir/helper.log" 2>&1 &
		echo $! >"$tap_dir/helper.pid.new"
		mv "$tap_dir/helper.pid.new" "$tap_dir/helper.pid"
		wait $!
	done 2>/dev/null
}
supervise &
supervisor=$!

# Frames are evicted all the time, and come slowly: kills meet open requests
limit=$(cat /sys/module/lazyframe/parameters/cache_mib)
echo 1 >/sys/module/lazyframe/parameters/cache_mib
control "shape rate=4000000"
read_on k &
fio=$!
restore() { echo $limit >/sys/module/lazyframe/parameters/cache_mib; }
plain_cleanup=$(declare -f cleanup)
eval "plain_${plain_cleanup}"
cleanup()
{
	touch "$tap_dir/stop"
	kill $supervisor
	kill -9 "$(cat "$tap_dir/helper.pid")"
	restore
	plain_cleanup
}

# kill_one: after some requests of the running helper, and a moment
met=0
kill_one()
{
	local sessions=$1 waiting

	until_true session_over $sessions &&
		until_true requests_over $(($(module requests) + RANDOM % 20)) ||
		return 1
	sleep 0.0$((RANDOM % 10))
	waiting=$(counter k waiting)
	[ "$waiting" = 0 ] || met=$((met + 1))
	kill -9 "$(cat "$tap_dir/helper.pid")"
}

all_kills()
{
	local i sessions

	sessions=$(($(module sessions) - $(module helper)))
	for i in $(seq $kills); do
		kill_one $sessions || return 1
		sessions=$((sessions + 1))
		kill -0 $fio || return 1
	done
}
patience=120
check "the helper is killed $kills times while fio reads" all_kills
check "the reader goes on with the last one" eval 'until_true session_over $kills &&
	until_true requests_over $(($(module requests) + 50))'
touch "$tap_dir/stop"
check "fio saw no error and no wrong byte" wait $fio
echo "# result: $kills kills, $met with reads waiting; $(cat "$tap_dir/rounds") rounds of fio," \
	"$(module requests) requests, $(module sessions) sessions, $(module evictions) evictions"
check "most kills met waiting reads" test $met -ge $((kills / 2))
check "frames were evicted in between" test "$(module evictions)" -gt $kills
check "no read failed" test "$(counter k reads_failed)" = 0
check "no frame was bad" test "$(counter k frames_bad)" = 0
check "nothing waits" waiting_is k 0
kill $supervisor
kill -9 "$(cat "$tap_dir/helper.pid")"
wait $supervisor
until_true helper_is 0
restore
control clear
check "a helper that is not killed" helper_start --stall-timeout 600
check "the whole device equals the image" same k "$image" iflag=direct

# What arrived before the kill is not asked for again
check "detached and attached" fresh k "$server/$url" --fetch-timeout 3600
fill=$(module fill_bytes)
control forget "fault hold at=50000" >/dev/null
dd if=/dev/mapper/k of="$tap_dir/block" bs=4k count=1 skip=1000 iflag=direct status=none &
reader=$!
check "50000 bytes of a frame came" until_true eval '[ "$(module cache_frames)" = 1 ] &&
	[ -z "$(control faults)" ] && [ "$(module fill_bytes)" -ge $((fill + 40000)) ]'
helper_kill
control release
helper_start
check "the next helper brings the rest" wait $reader
check "which is right" cmp "$tap_dir/block" \
	<(dd if="$image" bs=4k count=1 skip=1000 status=none)
check "from where the first one was" eval 'served | tee "$tap_dir/served"
	[ "$(wc -l <"$tap_dir/served")" = 2 ] &&
	awk "{ split(\$3, r, \"-\"); if (NR == 1) first = r[1]; else second = r[1] }
		END { exit !(second > first + 40000) }" "$tap_dir/served"'

# Stopped in good order, and asked for its options
check "SIGTERM ends it at once" eval 'helper_kill TERM && grep "stopping: Terminated" "$tap_dir/helper.log"'
check "two at once: the second says what to do" eval 'helper_start;
	says 1 "another helper is attached" lazyframed'
check "--wait takes over" eval '(lazyframed --wait 2>"$tap_dir/second" & second=$!
	until_true grep -q "waiting for its end" "$tap_dir/second" || exit 1
	kill -9 $helper_pid
	until_true grep "attached to" "$tap_dir/second" && helper_is 1
	status=$?; kill $second; wait $second; exit $status)'
helper_pid=
finish

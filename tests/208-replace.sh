#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# lazyframed --replace, below devices that fail at once without a helper: no
# reader notices, whatever the old one is doing, and that ends by itself.
. "$(dirname "$0")/remote.sh"

image=$images/image/fio
url=$(url_of fio-zstd-128K)
server_start
check "attach --error-if-no-helper" attach r "$server/$url" \
	--error-if-no-helper --fetch-timeout 3600

# replace [OPTION]...: a new helper; the old one's process is $old_pid
replace()
{
	local sessions

	sessions=$(module sessions)
	old_pid=$helper_pid
	lazyframed --verbose --replace "$@" >>"$tap_dir/helper.log" 2>&1 &
	helper_pid=$!
	until_true session_over $sessions
}
# replaced: the old process has ended, and says why
replaced()
{
	wait $old_pid
	[ $? = 3 ] && grep "another helper has replaced this one" "$tap_dir/helper.log"
}
block()
{
	dd if=/dev/mapper/r of="$tap_dir/block" bs=4k count=1 skip=$1 \
		iflag=direct status=none
}
right()
{
	cmp "$tap_dir/block" <(dd if="$image" bs=4k count=1 skip=$1 status=none)
}

check "with none attached it is the first" replace
check "without --replace: what to do" says 1 "give --replace" lazyframed

# half of a frame is there, the server sends no more
fill=$(module fill_bytes)
control forget "fault hold at=50000" >/dev/null
block 1000 &
reader=$!
check "50000 bytes of a frame came" until_true eval '[ -z "$(control faults)" ] &&
	[ "$(module fill_bytes)" -ge $((fill + 40000)) ]'
check "another one takes over" replace --stall-timeout 600
check "and brings the rest" wait $reader
check "which is right" right 1000
check "the old one has ended" replaced
control release
check "from where the first one was" eval 'served | tee "$tap_dir/served"
	[ "$(wc -l <"$tap_dir/served")" = 2 ] &&
	awk "{ split(\$3, r, \"-\"); if (NR == 1) first = r[1]; else second = r[1] }
		END { exit !(second > first + 40000) }" "$tap_dir/served"'

# the old one is stopped, with a request that it has read and one that it has not
control "fault hold at=0" >/dev/null
block 2000 &
reader=$!
until_true eval '[ -z "$(control faults)" ]'
kill -STOP $helper_pid
block 3000 2>/dev/null &
second=$!
until_true waiting_is r 2
check "one that is stopped" replace
check "its readers go on" eval 'wait $reader && wait $second'
check "the old one is still there" grep "^State:.T" /proc/$old_pid/status
kill -CONT $old_pid
check "until it runs, and ends" replaced
control clear

# under load
limit=$(cat /sys/module/lazyframe/parameters/cache_mib)
echo 1 >/sys/module/lazyframe/parameters/cache_mib
control "shape rate=4000000"
read_on r &
fio=$!
eval "plain_$(declare -f cleanup)"
cleanup()
{
	touch "$tap_dir/stop"
	echo $limit >/sys/module/lazyframe/parameters/cache_mib
	kill -9 $old_pid
	plain_cleanup
}
met=0
all_replaced()
{
	local i status

	for i in $(seq $REPLACES); do
		until_true requests_over $(($(module requests) + RANDOM % 20)) ||
			return 1
		[ "$(counter r waiting)" = 0 ] || met=$((met + 1))
		[ $((i % 3)) != 0 ] || kill -STOP $helper_pid
		replace || return 1
		kill -CONT $old_pid
		wait $old_pid
		status=$?
		[ $status = 3 ] || { echo "status $status"; return 1; }
		kill -0 $fio || return 1
	done
}
patience=120
check "replaced $REPLACES times while fio reads" all_replaced
check "the reader goes on with the last one" \
	until_true requests_over $(($(module requests) + 50))
touch "$tap_dir/stop"
check "fio saw no error and no wrong byte" wait $fio
check "no read failed" test "$(counter r reads_failed)" = 0
echo "# result: replaced $REPLACES times, $met with reads waiting;" \
	"$(cat "$tap_dir/rounds") rounds of fio, $(module requests) requests"
check "most replacements met waiting reads" test $met -ge $((REPLACES / 2))
echo $limit >/sys/module/lazyframe/parameters/cache_mib
control clear
check "the whole device equals the image" same r "$image" iflag=direct
old_pid=
finish

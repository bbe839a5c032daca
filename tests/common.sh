# SPDX-License-Identifier: GPL-2.0-only
#
# For the scripts NNN-*.sh that run in a virtual machine (tests/vm): what tap.sh
# gives, and a kernel that must be as clean afterwards as it was before.
#
#	#!/bin/bash
#	. "$(dirname "$0")/common.sh"
#	cleanup() { kill $daemon; }		# optional: undo what you started
#	check "what must hold" COMMAND...	# see tap.sh
#	skip "what is not tested" "why"
#	finish
#
# finish checks that each device's counters add up, calls cleanup, removes the
# devices that are left, and checks that the module unloads and loads again,
# that the kernel's log has nothing bad since the script began and, on the debug
# kernel, that nothing leaked. A script may set log_expected to a regular
# expression of bad lines that it provokes on purpose. $tap_dir is for its files.

tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$tests/tap.sh"

log_expected=
log_mark="$(basename "$0") begins ($$)"
log_bad='WARNING:|BUG:|Oops|KASAN|KFENCE|UBSAN|ODEBUG|general protection fault'
log_bad+='|possible (circular|recursive) locking|inconsistent lock state'
log_bad+='|bad unlock balance|held lock freed|suspicious RCU usage'
log_bad+='|sleeping function called|scheduling while atomic|refcount_t:'
log_bad+='|corruption|blocked for more than|detected stalls|LOCKUP'
log_bad+='|kmemleak: [1-9]|unable to handle|Kernel panic'

cleanup() { :; }

skip()
{
	tap_count=$((tap_count + 1))
	echo "ok $tap_count $1 # SKIP $2"
}

# log_since_start: the kernel's log since this script began
log_since_start()
{
	dmesg | sed "1,/$log_mark/d"
}

log_clean()
{
	log_since_start | grep -E -A 30 "$log_bad" |
		grep -v -E "${log_expected:-^$}" >"$tap_dir/log.bad"
	cat "$tap_dir/log.bad"
	! grep -q -E "$log_bad" "$tap_dir/log.bad"
}

# counters_add_up [NAME...]: reads are the sum of reads_*, for each device named
# or else for all
counters_add_up()
{
	local dir sum file count bad=0 dirs=()

	if [ $# -eq 0 ]; then
		dirs=(/sys/block/dm-*/lazyframe)
	fi
	while [ $# -gt 0 ]; do
		dirs+=("/sys/block/$(basename "$(readlink -f "/dev/mapper/$1")")/lazyframe")
		shift
	done
	for dir in "${dirs[@]}"; do
		[ -f "$dir/reads" ] || continue
		sum=0
		for file in "$dir"/reads_*; do
			read -r count <"$file"
			sum=$((sum + count))
		done
		read -r count <"$dir/reads"
		if [ "$count" -ne $sum ]; then
			grep -H . "$dir"/reads*
			bad=1
		fi
	done
	return $bad
}

# devices: names of all lazyframe devices
devices()
{
	dmsetup ls --target lazyframe | awk '!/^No devices/ { print $1 }'
}

# devices_remove: every lazyframe device and what lies on it
devices_remove()
{
	local round

	for round in 1 2 3 4; do
		[ -n "$(devices)" ] || return 0
		dmsetup remove_all --force --noudevsync >/dev/null 2>&1
	done
	devices
	return 1
}

module_unload()
{
	! grep -q '^lazyframe ' /proc/modules || rmmod lazyframe
}

# kmemleak_empty: blocks count as leaked only when they are 5 seconds old and two
# scans saw them with the same content
kmemleak_empty()
{
	local scan

	for scan in 1 2; do
		[ $scan -eq 2 ] || sleep 5
		echo scan >/sys/kernel/debug/kmemleak
	done
	cat /sys/kernel/debug/kmemleak
	! grep -q . /sys/kernel/debug/kmemleak
}

finish()
{
	check "counters add up" counters_add_up
	cleanup >/dev/null 2>&1
	cleanup() { :; }
	check "no device is left over" devices_remove
	check "the module unloads" module_unload
	if [ -e /sys/kernel/debug/kmemleak ]; then
		check "nothing leaked" kmemleak_empty
	fi
	check "the module loads again" modprobe lazyframe
	check "the kernel's log is clean" log_clean
	tap_end
}

trap 'cleanup >/dev/null 2>&1; rm -rf "$tap_dir"' EXIT
[ ! -e /sys/kernel/debug/kmemleak ] || echo clear >/sys/kernel/debug/kmemleak
grep -q '^lazyframe ' /proc/modules || modprobe lazyframe
echo "$log_mark" >/dev/kmsg

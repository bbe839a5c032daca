#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# A virtual machine that writes is killed, again and again: the file system is
# clean then, and no file that was synced is lost. Runs on the building machine.
#
#   POWER_CUTS	how many (2)
tests=$(cd "$(dirname "$0")" && pwd)
. "$tests/tap.sh"

cuts=${POWER_CUTS:-2}
# where the machine sees it, too: its /tmp is another
dir=$(dirname "$tests")/build/power-cut
disk=$dir/disk
log=$dir/log
synced=$dir/synced
rm -rf "$dir"
mkdir -p "$dir"
: >"$synced"
truncate -s 256M "$disk"

# boot STEP: starts a machine in the background; its pid in $vm
boot()
{
	local kernels=(6.1 6.12)

	"$tests/vm" -k ${kernels[RANDOM % 2]} -m 1G -t 400 -d "$disk" -- \
		env PYTHONPATH="$tests/lib" PYTHONDONTWRITEBYTECODE=1 \
		DM_DISABLE_UDEV=1 python3 -u "$tests/lib/power-cut.py" \
		"$1" /dev/vda "$synced" >"$log" 2>"$log.err" &
	vm=$!
}

# cut: kills the machine itself
cut_power()
{
	local limit qemu

	limit=$(pgrep -P $vm -x timeout) && qemu=$(pgrep -P "$limit") &&
		kill -9 $qemu
	wait $vm 2>/dev/null
	# tests/vm takes it for the end of its patience, or for a death
	[ $? -ge 124 ]
}

# one STEP LINES: boots, waits for so many synced files more, and cuts
one()
{
	local lines=$2 seconds=0

	boot "$1"
	until [ "$(grep -c ^synced "$log")" -ge $lines ]; do
		sleep 0.2
		seconds=$((seconds + 1))
		kill -0 $vm 2>/dev/null && [ $seconds -lt 2000 ] || {
			cat "$log" "$log.err"
			return 1
		}
	done
	cut_power || { cat "$log.err"; return 1; }
	# the last line may have been cut as well
	grep -E '^synced f[0-9]+ [0-9a-f]{16}$' "$log" >>"$synced"
	grep '^checked' "$log" || { cat "$log"; return 1; }
}

last()
{
	boot LAST
	wait $vm || { cat "$log" "$log.err"; return 1; }
	grep '^checked' "$log"
}

check "a machine that writes, and its end" one FIRST $((RANDOM % 20 + 5))
n=1
while [ $n -lt "$cuts" ]; do
	check "all that was synced is there: cut $((n += 1)) of $cuts" \
		one NEXT $((RANDOM % 20 + 5))
done
check "all that was synced is there: $(sort -u -k 2,2 "$synced" | wc -l) files" \
	last
rm -f "$disk"
tap_end

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# machine: slow 1
# A cold image of 100 MiB, read from beginning to end by dd, over loopback, beside
# what a pipe in user space can do, and beside nbdkit's curl plugin, which serves the
# raw object. The limit is the pipe of the same codec.
#
#	BENCH_ROUNDS	(3; 1: fewer cases)
. "$(dirname "$0")/bench.sh"

rounds=${BENCH_ROUNDS:-3}
codecs="zstd1 lz41 none"
[ "$rounds" != 1 ] || codecs=zstd1
codecs=${BENCH_CODECS:-$codecs}
bytes=$((100 << 20))
origin_start near 0 0
helper_start
modprobe nbd

# rate COMMAND...: MB/s
rate()
{
	local start stop

	start=$(date +%s%N)
	"$@" >"$tap_dir/rate" 2>&1 || return 1
	stop=$(date +%s%N)
	values+=($((bytes * 1000 / (stop - start))))
}

pipe() { set -o pipefail; curl -sf "$url" | "$@" >/dev/null; }
read_device()
{
	dd if="$1" of=/dev/null bs=1M status=none iflag="$2"
}

turns() { local turn; values=(); for turn in $(seq "$rounds"); do "$@" || return 1; done; }
one_pipe() { rate pipe "${decode[@]}"; }
one_device()
{
	[ ! -e /dev/mapper/seq ] || dmsetup remove seq || return 1
	dmsetup create seq --readonly --table "$line" && rate read_device /dev/mapper/seq "$flag"
}
one_nbd()
{
	nbdkit -r -U "$tap_dir/nbd" -P "$tap_dir/nbd.pid" curl url="$url" protocols=http &&
		nbd-client -unix "$tap_dir/nbd" /dev/nbd0 -N "" >/dev/null || return 1
	rate read_device /dev/nbd0 fullblock
	nbd-client -d /dev/nbd0 >/dev/null 2>&1
	kill "$(cat "$tap_dir/nbd.pid")"
	until_true test ! -d "/proc/$(cat "$tap_dir/nbd.pid")"
	rm -f "$tap_dir/nbd"
}

for codec in $codecs; do
	url=${origin[near]}/$(object "runs100-$codec")
	curl -sf "$url" >/dev/null	# the host's file, in this machine's memory
	case $codec in
	zstd*)	decode=(zstd -dcq) ;;
	lz4*)	decode=(lz4 -dcq) ;;
	*)	decode=(cat) ;;
	esac
	check "$codec: pipe" turns one_pipe
	cell "$codec" "curl | ${decode[0]}" MB/s "${values[@]}"
	line=$(table "runs100-$codec" near 2>/dev/null)
	for flag in fullblock direct; do
		check "$codec: dd, $flag" turns one_device
		cell "$codec" "lazyframe, ${flag/fullblock/buffered}" MB/s "${values[@]}"
	done
	if [ "$codec" = none ] && command -v nbdkit >/dev/null; then
		check "$codec: nbdkit-curl" turns one_nbd
		cell "$codec" nbdkit-curl MB/s "${values[@]}"
	fi
done
finish

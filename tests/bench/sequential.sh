#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# machine: slow 1
# A cold image of 100 MiB, read from beginning to end by dd, over loopback, beside
# what a pipe in user space can do, and beside nbdkit's curl plugin, which serves the
# raw object. The limit is the pipe of the same codec. And from far away, where each
# connection has its own limit, in slow motion (bench.sh); there the limit is the
# pipe's one connection, and several can do better.
#
#	BENCH_ROUNDS	(3; 1: fewer cases)
#	BENCH_CODECS	(zstd1 lz41 none; with one round, zstd1)
#	BENCH_LINKS	(near far; with one round, near)
. "$(dirname "$0")/bench.sh"

rounds=${BENCH_ROUNDS:-3}
codecs="zstd1 lz41 none"
[ "$rounds" != 1 ] || codecs=zstd1
codecs=${BENCH_CODECS:-$codecs}
links="near far"
[ "$rounds" != 1 ] || links=near
links=${BENCH_LINKS:-$links}
bytes=$((100 << 20))
helper_start
modprobe nbd

# rate COMMAND...: MB/s
rate()
{
	local start stop

	start=$(date +%s%N)
	"$@" >"$tap_dir/rate" 2>&1 || return 1
	stop=$(date +%s%N)
	values+=($((bytes * 1000 * slow / (stop - start))))
}

pipe() { set -o pipefail; curl -sf "$url" | "$@" >/dev/null; }
read_device()
{
	dd if="$1" of=/dev/null bs=1M status=none iflag="$2"
}

turns() { local turn; values=(); for turn in $(seq "$times"); do "$@" || return 1; done; }
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

# link NAME SLOW DELAY-US BYTES
link()
{
	slow=$2
	origin_start "$1" "$3" "$4"
	echo $((800 * slow)) >/sys/module/lazyframe/parameters/prefetch_ms
}

for link in $links; do
	case $link in
	near)	link near 1 0 0; says= times=$rounds ;;
	# which is most of the time, and the same each time
	far)	link far 8 50000 $((100 << 20)); says=", 50 ms + 100 MiB/s" times=1 ;;
	esac
	for codec in $codecs; do
		row=$codec$says
		url=${origin[$link]}/$(object "runs100-$codec")
		# the host's file, in this machine's memory
		cat "$bench/store/$(object "runs100-$codec")" >/dev/null
		case $codec in
		zstd*)	decode=(zstd -dcq) ;;
		lz4*)	decode=(lz4 -dcq) ;;
		*)	decode=(cat) ;;
		esac
		check "$row: pipe" turns one_pipe
		cell "$row" "curl | zstd, lz4 or cat" MB/s "${values[@]}"
		line=$(table "runs100-$codec" $link 2>/dev/null)
		for flag in fullblock direct; do
			check "$row: dd, $flag" turns one_device
			cell "$row" "lazyframe, ${flag/fullblock/buffered}" MB/s "${values[@]}"
		done
		if [ "$codec" = none ] && command -v nbdkit >/dev/null; then
			check "$row: nbdkit-curl" turns one_nbd
			cell "$row" nbdkit-curl MB/s "${values[@]}"
		fi
	done
done
finish

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# machine: slow 8
# How long four readers take to read all of a cold image of 100 MiB at random, direct,
# in pieces of 4 KiB and of 2 MiB, over as many connections. Beside it the best row of
# the seed system's own benchmark for such an origin, whatever its codec, on its
# machine of 16 threads. The limit is the link's: first byte, and a fourth of what is
# stored; "no link" is the same from an origin that costs no time: what this machine's
# one processor needs. All bytes are wanted, so the way is long ranges: "read_around"
# has one of 8 MiB of content for each read that waits; "hydrate" has an empty store in
# memory, and begins to fill it when readers begin. Without either, reads of 4 KiB are
# not measured: of 128 KiB each is a request, 800 of them, which takes as long as four
# connections need.
#
#	BENCH_ROUNDS	(3; 1: fewer cases)
#	BENCH_CODECS	(none lz41 zstd1 zstd2 zstd3; with one round, zstd1)
#	BENCH_BLOCKS	(4096 2097152; with one round, 2097152)
#	BENCH_LINKS	(far near; with one round, far)
#	BENCH_ONLY	regular expression of columns (all; with one round, all but hydrate)
. "$(dirname "$0")/bench.sh"

rounds=${BENCH_ROUNDS:-3}
codecs="none lz41 zstd1 zstd2 zstd3"
blocks="4096 2097152"
links="far near"
only=.
if [ "$rounds" = 1 ]; then
	codecs=zstd1 blocks=2097152 links=far only='^(lazyframe|read_around)$'
fi
only=${BENCH_ONLY:-$only}
around="2 read_around $((8 << 20))"
codecs=${BENCH_CODECS:-$codecs}
blocks=${BENCH_BLOCKS:-$blocks}
links=${BENCH_LINKS:-$links}
declare -A says=([far]="50 ms + 100 MiB/s" [near]="1 ms + 500 MiB/s")
declare -A delay=([far]=50000 [near]=1000)
declare -A rate=([far]=$((100 << 20)) [near]=$((500 << 20)))
declare -A given=(["far 4096"]=562 ["far 2097152"]=587
	["near 4096"]=55 ["near 2097152"]=66)

# The seed system keeps what it fetched and what it decoded, all of it
echo 128 >/sys/module/lazyframe/parameters/decoded_mib
echo 256 >/sys/module/lazyframe/parameters/cache_mib
rmmod brd 2>/dev/null
modprobe brd rd_nr=1 rd_size=$((160 << 10))
origin_start none 0 0
for link in $links; do
	origin_start $link ${delay[$link]} ${rate[$link]}
done
# What a reader waits for is a hole in what is fetched ahead: read over it, rather than
# ask twice, where a first byte takes as long as 5 MiB
helper_start --connections 4 --gap-max 128K

# An empty store, whatever was in it
emptied="! dmsetup info store >/dev/null 2>&1 || dmsetup remove store
	lazyframe store-format --force /dev/ram0 2>/dev/null | dmsetup create store"

# measure BLOCK TABLE [OPTION]...: milliseconds of each round
measure()
{
	local block=$1 table=$2

	shift 2
	values=()
	timeout 1000 "$bench/callers" -w 4 -b "$block" -r "$rounds" "$@" \
		device cold "$table" >"$tap_dir/times" || return 1
	values=($(awk -v slow=$slow '{ printf "%.3f\n", $1 / slow }' "$tap_dir/times"))
}

# one COLUMN IMAGE [OPTION]...: the case of $row
one()
{
	local column=$1 line requests bytes more_requests more_bytes

	[[ $column =~ $only ]] || return
	line=$(table "$2" $link 2>/dev/null)
	case $column in
	read_around) line+=" $around" ;;
	hydrate) line=${line/% - -/ /dev/mapper/store -} ;;
	esac
	shift 2
	read -r requests bytes < <(counts $link)
	check "$row, $column" measure "$block" "$line" "$@"
	[ ${#values[@]} -gt 0 ] || return
	read -r more_requests more_bytes < <(counts $link)
	cell "$row" "$column" ms "${values[@]}"
	# the first round, which is not timed, makes as many
	cell "$row" "$column, requests" requests \
		$(((more_requests - requests) / (rounds + 1)))
	cell "$row" "$column, fetched" MiB "$(awk -v b=$((more_bytes - bytes)) \
		-v n=$((rounds + 1)) 'BEGIN { printf "%.1f", b / n / 1048576 }')"
}

for link in $links; do
	for block in $blocks; do
		for codec in $codecs; do
			row="${says[$link]}, $((block >> 10)) KiB, $codec"
			image=runs100-$codec
			bytes=$(stat -c %s "$bench/store/$(object $image)")
			cell "$row" "seed's best (given)" ms "${given["$link $block"]}"
			cell "$row" "limit" ms "$(awk -v d=${delay[$link]} -v b="$bytes" \
				-v r=${rate[$link]} 'BEGIN { printf "%.3f", d / 1e3 + b / 4 / r * 1e3 }')"
			[ "$block" = 4096 ] || one lazyframe $image
			one read_around $image
			one hydrate $image -c "$emptied" -m "prefetch all"
			if [ "$rounds" -gt 1 ]; then
				check "$row, no link" measure "$block" \
					"$(table $image none 2>/dev/null) $around"
				cell "$row" "no link" ms "${values[@]}"
			fi
			cell "$row" stored MiB "$(awk -v b="$bytes" 'BEGIN { printf "%.1f", b / 1048576 }')"
		done
	done
done
! dmsetup info store >/dev/null 2>&1 || dmsetup remove store
finish

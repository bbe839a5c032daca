#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# machine: slow 8
# How long a caller waits for a block that is not there: three of them read 4 KiB
# each, at once and at random places, of an image of 4 MiB that is cold: each its own
# block, and then all of them one and the same. The limit is
# a client that does nothing but to fetch that block's frame over a warm connection
# (callers.c), with the same origin in the same machine. Beside both what the seed
# system's own benchmark gave for such an origin, on its machine and with 4 MiB of
# zeros. Images "-32K" were built in frames of 32 KiB ("-64K" are there, too): three
# callers stand in line for this machine's one processor, which decodes a frame as a
# whole.
#
#	BENCH_ROUNDS	(100; 1: fewer cases) times, and all of it three times
#	BENCH_CODECS	(none lz41 lz41-32K zstd1 zstd1-32K; with one round, zstd1)
#	BENCH_LINKS	(far near)
. "$(dirname "$0")/bench.sh"

rounds=${BENCH_ROUNDS:-100}
codecs="none lz41 lz41-32K zstd1 zstd1-32K"
turns=3
if [ "$rounds" = 1 ]; then
	rounds=5 turns=1 codecs=zstd1
fi
codecs=${BENCH_CODECS:-$codecs}
links=${BENCH_LINKS:-far near}

origin_start far 20000 100000000
origin_start near 1000 500000000
declare -A says=([far]="20 ms + 100 MB/s" [near]="1 ms + 500 MB/s")
declare -A given=([far]="42.8 63.3" [near]="6.0 10.4")
helper_start

# measure [-s] WHAT...: averages and the longest of each turn
measure()
{
	local turn

	averages=() worst=()
	for turn in $(seq $turns); do
		"$bench/callers" -w 3 -n 3 -r "$rounds" "$@" >"$tap_dir/times" || return 1
		averages+=("$(awk -v slow=$slow '{ s += $2 }
			END { printf "%.3f", s / NR / slow }' "$tap_dir/times")")
		worst+=("$(awk -v slow=$slow '$3 > m { m = $3 }
			END { printf "%.3f", m / slow }' "$tap_dir/times")")
	done
}

cells()
{
	cell "$row average" "$1" ms "${averages[@]}"
	cell "$row worst" "$1" ms "${worst[@]}"
}

for link in $links; do
	for codec in $codecs; do
		url=${origin[$link]}/$(object "runs4-$codec")
		table=$(table "runs4-$codec" $link 2>/dev/null)
		for blocks in "" -s; do
			row="${says[$link]} $codec${blocks:+, one block}"
			check "$row: fetch" measure $blocks fetch "$url" $((4 << 20))
			cells limit
			check "$row: decode" measure $blocks decode "$url" $((4 << 20))
			cells "limit, decoded"
			check "$row: read" measure $blocks device progressive "$table"
			cells lazyframe
			averages=("${given[$link]% *}") worst=("${given[$link]#* }")
			cells "seed (given)"
		done
	done
done
finish

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# A service that starts from a root file system behind a link of 25 Mbit/s: without
# and with a trace of an earlier start, beside the time that its bytes take on the
# link alone, which is the limit.
#
#   BENCH_ROUNDS	(3)
#   BENCH_DELAYS	ms each way (25 50; with one round, 25)
#   BENCH_FRAMES	sizes of the image's frames, of 32K, 64K and 128K (128K)
#   BENCH_AROUND	attach --read-around (not given)
. "$(dirname "$0")/../replay.sh"

rounds=${BENCH_ROUNDS:-3}
delays=${BENCH_DELAYS:-25 50}
[ "$rounds" -gt 1 ] || delays=${BENCH_DELAYS:-25}
results=$tap_dir/results
patience=300

nginx_start
helper_start

# record IMAGE: a trace of a start from it
record()
{
	url=$(url_of "$1")
	check "attach to record" attach r "$nginx/$url"
	check "record" lazyframe trace r --start
	check "the service starts" service_start r
	service_stop
	check "store the trace" lazyframe trace r --stop --force -o "$tap_dir/trace"
	detach r
	cold
}

# start CASE COLUMN [OPTION]...: milliseconds from when the device is there, and
# with it the prefetch, to the last answer
start()
{
	local case=$1 column=$2 begun=${EPOCHREALTIME/./} took

	shift 2
	check "attach" attach r "$nginx/$url" ${BENCH_AROUND:+--read-around "$BENCH_AROUND"} "$@"
	echo "# attach took $(((${EPOCHREALTIME/./} - begun) / 1000)) ms"
	begun=${EPOCHREALTIME/./}
	check "$column" service_start r
	took=$((${EPOCHREALTIME/./} - begun))
	service_stop
	[ "$column" != trace ] || asked=$(prefetch_asked r)
	# 25 Mbit/s: 0.32 us for a byte
	[ "$column" != trace ] || echo "$case link $((asked * 32 / 100000))" >>"$results"
	echo "$case $column $((took / 1000))" >>"$results"
	grep -H . /sys/block/dm-*/lazyframe/{prefetch_*,frames_[dp]*} | sed "s,.*/,# $column ,"
	detach r
	cold
}

for size in ${BENCH_FRAMES:-128K}; do
	record "root-zstd-$size"
	for delay in $delays; do
		row=$((2 * delay))ms
		[ "$size" = 128K ] || row+=",$size"
		link 25 "$delay"
		for round in $(seq "$rounds"); do
			start "$row" trace --prefetch="$tap_dir/trace"
			start "$row" without
		done
		link_off
	done
done
awk '{ key = "\"row\": \"" $1 "\", \"column\": \"" $2 "\""
	if (!(key in got)) order[++n] = key
	got[key] = got[key] (got[key] ? ", " : "") $3 }
	END { for (i = 1; i <= n; i++)
		print "# bench {\"table\": \"replay\", " order[i] ", \"unit\": \"ms\", " \
			"\"values\": [" got[order[i]] "]}" }' "$results"
finish

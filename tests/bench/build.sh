#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# machine: none
# How fast an image is compressed, by one worker and by two, beside tools that make
# one stream, and pzstd, whose output is cut in frames as well. In frames of 128 KiB
# a little is lost: "ratio" says how much. Compressed bytes go to memory (/dev/shm).
#
#	BENCH_ROUNDS	(3)
set -u
tree=$(cd "$(dirname "$0")/../.." && pwd)
PATH=$tree/helper:$PATH
rounds=${BENCH_ROUNDS:-3}
dir=$(mktemp -d /dev/shm/lazyframe-bench.XXXXXX) || exit 1
trap 'rm -rf "$dir"' EXIT
image=$dir/image
# Programs, of which the bulk of a root file system consists
cat /usr/bin/* /usr/lib/x86_64-linux-gnu/*.so* 2>/dev/null |
	head -c $((rounds > 1 ? 256 << 20 : 64 << 20)) >"$image"
bytes=$(stat -c %s "$image")
status=0

# measure ROW COLUMN CMD...: CMD leaves what it made in $dir/out
measure()
{
	local row=$1 column=$2 round took values=() cpu=() stored TIMEFORMAT='%R %U %S'

	shift 2
	for round in $(seq "$rounds"); do
		rm -rf "$dir/out"
		mkdir "$dir/out"
		took=$( { time "$@" >"$dir/log" 2>&1 || echo failed; } 2>&1)
		[[ $took != *failed* ]] || { cat "$dir/log" >&2; status=1; return; }
		values+=("$(awk -v b="$bytes" '{ printf "%.1f", b / 1e6 / $1 }' <<<"$took")")
		cpu+=("$(awk -v b="$bytes" '{ printf "%.1f", b / 1e6 / ($2 + $3) }' <<<"$took")")
	done
	stored=$(find "$dir/out" -type f -printf '%s\n' | awk '{ s += $1 } END { print s }')
	printf -v values ', %s' "${values[@]}"
	echo "# bench {\"row\": \"$row\", \"column\": \"$column\"," \
		"\"unit\": \"MB/s\", \"values\": [${values:2}]}"
	printf -v values ', %s' "${cpu[@]}"
	echo "# bench {\"row\": \"$row\", \"column\": \"$column, by CPU time\"," \
		"\"unit\": \"MB/s\", \"values\": [${values:2}]}"
	echo "# bench {\"row\": \"$row\", \"column\": \"$column, ratio\"," \
		"\"unit\": \"\", \"values\": [$(awk -v u="$bytes" -v c="$stored" \
		'BEGIN { printf "%.3f", u / c }')]}"
}

for threads in 1 2; do
	for level in 1 3; do
		row="zstd $level, workers: $threads"
		measure "$row" "zstd, lz4" zstd -q -$level -T$threads --check -o "$dir/out/a" "$image"
		measure "$row" lazyframe lazyframe build -q -c zstd --level $level \
			--threads $threads "$image" "file://$dir/out"
		[ -z "$(command -v pzstd)" ] || measure "$row" pzstd \
			pzstd -q -$level -p $threads -o "$dir/out/a" "$image"
	done
	measure "lz4 1, workers: $threads" "zstd, lz4" lz4 -q -1 "$image" "$dir/out/a"
	measure "lz4 1, workers: $threads" lazyframe lazyframe build -q -c lz4 --level 1 \
		--threads $threads "$image" "file://$dir/out"
done
exit $status

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# How much is asked of the server, by the server's own log: one request for one
# frame however many readers and devices wait, about one frame for a 4 KiB read,
# few ranges for a long sequential one.
. "$(dirname "$0")/remote.sh"

faults=$images/image/faults
url=$(url_of faults-zstd-128K)
layer=/${url%.header}.zstd

# readers COUNT FRAME DEVICE...: COUNT for each device read blocks of that frame
reading=()
readers()
{
	local count=$1 frame=$2

	shift 2
	"$tests/readers.py" "$faults" $((frame * 32)) $count "${@/#//dev/mapper/}" &
	reading+=($!)
}

# readers_right: all have ended well, with the image's bytes
readers_right()
{
	local pid bad=0

	for pid in "${reading[@]}"; do
		wait $pid || bad=1
	done
	reading=()
	return $bad
}

# one_frame: what was requested is one range of one frame of 128 KiB that no
# codec makes smaller
one_frame()
{
	requests | range_bytes >"$tap_dir/ranges"
	cat "$tap_dir/ranges"
	[ "$(wc -l <"$tap_dir/ranges")" = 1 ] || return 1
	read -r _ _ bytes <"$tap_dir/ranges"
	[ "$bytes" -ge 131072 ] && [ "$bytes" -lt 131200 ]
}

n=64
[ -z "$slow" ] || n=24
check "nginx" nginx_start
check "attach" attach p "$nginx/$url"
check "the same layer a second time" attach q "$nginx/$url"
forget

# They gather while there is no helper: none can have come late
readers $n 3 p
check "$n readers wait for one frame" until_true waiting_is p $n
check "the helper comes" helper_start --stall-timeout 600
check "each got its bytes" readers_right
check "by one request" one_frame
check "which was one frame for the module, too" test "$(counter p frames_demanded)" = 1
check "and one decode for most" test "$(module decodes)" -le $n

helper_kill
forget
readers $((n / 2)) 7 p q
check "readers of two devices wait" eval 'until_true waiting_is p $((n / 2)) &&
	until_true waiting_is q $((n / 2))'
helper_start --stall-timeout 600
check "each got its bytes from two devices" readers_right
check "by one request for both" one_frame
forget
readers 8 7 q
check "again: from memory" readers_right
check "without a request" eval '[ -z "$(requests)" ]'

# With a helper that has sent the request already
server_start
check "the same layer from elsewhere is refused" says 1 "File exists" \
	lazyframe attach r "$server/$url"
check "both detach" eval 'detach p && detach q'
check "attach by the other server" attach p "$server/$url" --fetch-timeout 3600
check "and the second device too" attach q "$server/$url" --fetch-timeout 3600
control forget "fault hold path=$layer at=1000" >/dev/null
readers 1 20 p
check "the first reader's request is at the server" until_true eval '[ -z "$(control faults)" ]'
readers $((n / 2)) 20 p q
check "more readers wait" eval 'until_true waiting_is p $((n / 2 + 1)) &&
	until_true waiting_is q $((n / 2))'
control release
check "all got their bytes" readers_right
check "by that one request" eval 'served | tee "$tap_dir/served"
	[ "$(wc -l <"$tap_dir/served")" = 1 ]'

# A small cold read
detach p
detach q
for codec in zstd lz4 none; do
	for way in direct nonblock; do
		fresh p "$nginx/$(url_of faults-$codec-128K)"
		forget
		check "4 KiB cold, $codec ($way): right" eval 'cmp \
			<(dd if=/dev/mapper/p bs=4k count=1 skip=1234 iflag=$way status=none) \
			<(dd if=$faults bs=4k count=1 skip=1234 status=none)'
		check "4 KiB cold, $codec ($way): one range of one frame" one_frame
	done
done

# Jumping about fetches the frames that are needed and no others
fresh p "$nginx/$url"
forget
check "the first block of every other frame" eval '(for i in $(seq 0 2 62); do
	cmp <(dd if=/dev/mapper/p bs=4k count=1 skip=$((i * 32)) iflag=direct status=none) \
		<(dd if=$faults bs=4k count=1 skip=$((i * 32)) status=none) || exit 1; done)'
check "32 frames, 32 ranges" eval 'requests | range_bytes >"$tap_dir/ranges"
	cat "$tap_dir/ranges"; [ "$(wc -l <"$tap_dir/ranges")" = 32 ] &&
	awk "{ sum += \$3 } END { exit !(sum < 32 * 131200) }" "$tap_dir/ranges"'

# A long read. A quarter of it is enough where it would take too long.
long=$images/image/long
mib=64
[ $MATRIX = all ] || mib=16
url=$(url_of long-zstd-128K)
object=$images/store/${url%.header}.zstd
ways=("buffered, 1 MiB:1M:nonblock:1" "direct, 128 KiB:128k:direct:8")
[ $MATRIX != all ] || ways+=("direct, 1 MiB:1M:direct:1")
for way in "${ways[@]}"; do
	IFS=: read -r name bs flag each <<<"$way"
	fresh p "$nginx/$url"
	forget
	check "$mib MiB cold, $name: right" eval 'dd if=/dev/mapper/p bs=$bs \
		of="$tap_dir/read" count=$((mib * each)) iflag=$flag status=none &&
		cmp -n ${mib}M "$tap_dir/read" "$long" && rm "$tap_dir/read"'
	requests >"$tap_dir/long"
	range_bytes <"$tap_dir/long" >"$tap_dir/ranges"
	echo "# $(wc -l <"$tap_dir/ranges") ranges, $(awk '{ print $6 }' "$tap_dir/long" | sort -u | wc -l) connections"
	check "$mib MiB cold, $name: at most 16 requests" eval 'cat "$tap_dir/ranges"
		[ "$(wc -l <"$tap_dir/ranges")" -le 16 ]'
	check "$mib MiB cold, $name: no byte twice, none beyond the object" eval '
		sort -n "$tap_dir/ranges" | awk -v size=$(stat -c %s "$object") \
		"NR > 1 && \$1 <= last { bad = 1 } { last = \$2 }
		END { exit bad || last >= size }"'
	check "$mib MiB cold, $name: connections are used again" eval '
		[ "$(awk "{ print \$6 }" "$tap_dir/long" | sort -u | wc -l)" -lt \
			"$(wc -l <"$tap_dir/long")" ]'
	cat "$tap_dir/long" >>"$tap_dir/longs"
done
check "all readings together: 8 connections at most" eval '
	[ "$(awk "{ print \$6 }" "$tap_dir/longs" | sort -u | wc -l)" -le 8 ]'
finish

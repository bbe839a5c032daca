#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# What a hit costs: the same image read from memory through each codec, from an
# overlay, and through what others use to serve images, beside dm-linear on
# memory, which is the limit. Each round reads from all, one after the other; the
# median is taken. With tests/vm -i, time is instructions.
#
#   BENCH_ROUNDS	(3)
#   BENCH_SECONDS	for each measurement (2)
#   BENCH_ONLY		regular expression of what to measure
. "$(dirname "$0")/../remote.sh"

rounds=${BENCH_ROUNDS:-3}
seconds=${BENCH_SECONDS:-2}
image=$images/image/fio
size=$(stat -c %s "$image")
results=$tap_dir/results
node=()

# contestant NAME NODE: to be measured, if it was asked for
contestant()
{
	if [[ $1 =~ ${BENCH_ONLY:-.} ]]; then
		node+=("$1 $2")
	fi
}

# speed NODE RW BLOCK DIRECT: KiB a second
speed()
{
	fio --name=hit --filename="$1" --readonly --rw="$2" --bs="$3" --direct="$4" \
		--ioengine=psync --thread --size=$size --time_based --runtime=$seconds \
		--norandommap --randrepeat=1 --output-format=terse --terse-version=3 |
		cut -d ';' -f 7
}

measure()
{
	local round case entry name

	# what is measured is the second time
	for entry in "${node[@]}"; do
		dd if="${entry##* }" of=/dev/null bs=4k iflag=direct status=none
	done
	for round in $(seq $rounds); do
		for case in "randread 4k 1" "read 1m 1" "randread 4k 0"; do
			for entry in "${node[@]}"; do
				name=${entry% *}
				# what a device answers counts, not the page cache above it
				[ "${case##* }" = 1 ] || blockdev --flushbufs "${entry##* }"
				echo "$name $case $(speed "${entry##* }" $case)" >>"$results"
			done
		done
	done
}

rmmod brd 2>/dev/null; modprobe brd rd_nr=2 rd_size=$((64 << 10)); modprobe nbd
dd if="$image" of=/dev/ram0 bs=1M status=none
dmsetup create linear --table "0 $((size / 512)) linear /dev/ram0 0"
contestant linear /dev/mapper/linear

server_start
helper_start
for codec in none lz4 zstd; do
	[ -e "$images/fio-$codec-128K" ] || continue
	check "attach $codec" attach $codec "$server/$(url_of fio-$codec-128K)"
	check "read it all" same $codec "$image"
	contestant $codec /dev/mapper/$codec
done
# the same disk as the limit's, another one of them
check "attach an overlay" attach overlay "$server/$(url_of fio-lz4-128K)" \
	--cow /dev/ram1 --meta "$tap_dir/meta"
check "write it all" dd if="$image" of=/dev/mapper/overlay bs=1M oflag=direct status=none
contestant overlay /dev/mapper/overlay

cp "$image" "$tap_dir/image"
if command -v nbdkit >/dev/null; then
	nbdkit -U "$tap_dir/nbdkit" -r file "$tap_dir/image"
	check "nbdkit" nbd-client -unix "$tap_dir/nbdkit" /dev/nbd0 -N ""
	contestant nbdkit /dev/nbd0
fi
if command -v qemu-nbd >/dev/null; then
	qemu-img convert -c -O qcow2 -o compression_type=zstd "$image" "$tap_dir/qcow2"
	check "qemu-nbd" qemu-nbd -r -c /dev/nbd1 "$tap_dir/qcow2"
	contestant qemu-nbd /dev/nbd1
fi

measure
awk '{ key = "\"row\": \"" $2 " " $3 ($4 ? " direct" : " buffered") "\", \"column\": \"" $1 "\""
	if (!(key in got)) order[++n] = key
	got[key] = got[key] (got[key] ? ", " : "") $5 }
	END { for (i = 1; i <= n; i++)
		print "# bench {\"table\": \"hit\", " order[i] ", \"unit\": \"KiB/s\", " \
			"\"values\": [" got[order[i]] "]}" }' "$results"
nbd-client -d /dev/nbd0 >/dev/null 2>&1
qemu-nbd -d /dev/nbd1 >/dev/null 2>&1
dmsetup remove linear
finish

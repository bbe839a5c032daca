#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Counts that depend on no machine, each checked against the most that it may be:
# instructions of a hit and of a decoded MiB, where a nanosecond is an instruction
# (tests/vm -i); switches between processes, decodes, requests and bytes fetched.
# tests/bench/decoder/build KERNEL comes before.
. "$(dirname "$0")/../remote.sh"

image=$images/image/fio
size=$(stat -c %s "$image")
header=$(url_of fio-lz4-128K)
decoder=$(dirname "$tests")/build/decoder/$(uname -r)/decoder.ko
declare -A cost

# cell ROW COLUMN UNIT VALUE
cell()
{
	echo "# bench {\"table\": \"counts\", \"row\": \"$1\", \"column\": \"$2\"," \
		"\"unit\": \"$3\", \"values\": [$4]}"
}

# measure ROW READS BYTES HOW MEMORY NAME...: costs go to cost[ROW NAME], switches
# to cost[ROW NAME switches]
measure()
{
	local row=$1 args=("${@:2:4}") name took switched

	shift 5
	for name; do
		args+=("$name=${node[$name]}")
	done
	"$tests/bench/cost.py" "${args[@]}" >"$tap_dir/cost" || return 1
	while read -r name took switched; do
		cell "$row" $name instructions $took
		cell "$row: switches" $name "per read" $switched
		cost[$row $name]=$took cost[$row $name switches]=$switched
	done <"$tap_dir/cost"
}

# most VALUE LIMIT: both may have digits behind the point
most()
{
	awk -v value="$1" -v limit="$2" 'BEGIN { print value, "of", limit
		exit !(value != "" && value <= limit) }'
}

rmmod brd 2>/dev/null
modprobe brd rd_nr=2 rd_size=$((64 << 10))
modprobe null_blk queue_mode=0 gb=1 bs=4096
dd if="$image" of=/dev/ram0 bs=1M status=none
dmsetup create linear --table "0 $((size / 512)) linear /dev/ram0 0"
# a device that does nothing: what reading costs before anybody answers
declare -A node=([linear]=/dev/mapper/linear [null]=/dev/nullb0)
server_start
helper_start
for codec in lz4 zstd; do
	check "attach $codec" attach $codec "$server/$(url_of fio-$codec-128K)"
	node[$codec]=/dev/mapper/$codec
done

# What a sequential reader fetches
control forget
check "read it all" dd if=/dev/mapper/lz4 of="$tap_dir/same" bs=128k iflag=direct status=none
check "it is right" cmp "$tap_dir/same" "$image"
requests=$(served | wc -l)
object=$(stat -c %s "$images/store/${header%.header}.lz4")
cell "requests for a MiB, read in sequence" lz4 "" \
	$(awk "BEGIN { print $requests / ($size / 1048576) }")
check "a request for 2 MiB or more" most $requests $((size >> 21))
fetched=$(module fill_bytes)
cell "bytes fetched for each that is stored, read in sequence" lz4 "" \
	$(awk "BEGIN { print $fetched / $object }")
check "no byte is fetched twice" most $fetched $object
cell "decodes of each byte, read as frames" lz4 "" \
	$(awk "BEGIN { print $(module decodes) / ($size / 131072) }")
check "each frame is decoded once" most "$(module decodes)" $((size / 131072))

# What who jumps fetches: of each third frame a block
jump()
{
	local frame

	for ((frame = size / 131072 - 3; frame >= 0; frame -= 3)); do
		dd if=/dev/mapper/lz4 of=/dev/null bs=4k count=1 iflag=direct status=none \
			skip=$((frame * 32 + frame % 32)) || return 1
	done
}
check "attach lz4 anew" fresh lz4 "$server/$header"
control forget
fetched=$(module fill_bytes)
check "read some of it" jump
fetched=$(($(module fill_bytes) - fetched))
cell "bytes fetched for each that is read, 4 KiB at random" lz4 "" \
	$(awk "BEGIN { print $fetched / ($size / 96) }")
check "a request for each read" most "$(served | wc -l)" $((size / 131072 / 3))
check "its frame, and no more" most $fetched $((object * 34 / 100))

# What is decoded each time
dd if=/dev/mapper/lz4 of=/dev/null bs=128k iflag=direct status=none
echo 0 >/sys/module/lazyframe/parameters/decoded_mib
dd if=/dev/mapper/zstd of=/dev/null bs=128k iflag=direct status=none
insmod "$decoder" object="$images/store/${header%.header}.lz4"
alone=$(cat /sys/module/decoder/parameters/took)
rmmod decoder
for memory in huge scattered; do
	row="1 MiB in sequence, decoded into $memory pages"
	measure "$row" 16 $((1 << 20)) sequential $memory null lz4 zstd
	cell "$row" LZ4_decompress_safe instructions "$alone"
	check "$row: at least 0.9 of decoding and reading nothing" \
		most "${cost[$row lz4]}" $(((alone + cost[$row null]) * 10 / 9))
done
row="1 MiB in sequence, decoded into huge pages"
# 0.80 was seen
check "$row: at least 0.79 of the decoder alone" most "${cost[$row lz4]}" $((alone * 100 / 79))
echo 64 >/sys/module/lazyframe/parameters/decoded_mib

# What stays decoded
check "attach an overlay" attach overlay "$server/$header" --cow /dev/ram1 --meta "$tap_dir/meta"
check "write it all" dd if="$image" of=/dev/mapper/overlay bs=1M oflag=direct status=none
node[overlay]=/dev/mapper/overlay
before=$(module decodes)
for name in lz4 zstd; do
	dd if=/dev/mapper/$name of=/dev/null bs=4k iflag=direct status=none
done
decodes=$(($(module decodes) - before))
cell "decodes of each byte, read as blocks" "lz4, zstd" "" \
	$(awk "BEGIN { print $decodes / ($size / 65536) }")
check "each frame is decoded once, read as blocks" most $decodes $((size / 65536))
row="4 KiB at random"
measure "$row" 400 4096 random huge null linear lz4 zstd overlay
for name in lz4 zstd overlay; do
	check "4 KiB hit, $name: at least 0.9 of dm-linear" \
		most "${cost[$row $name]}" $((cost[$row linear] * 10 / 9))
	check "4 KiB hit, $name: nobody is woken" most "${cost[$row $name switches]}" 0.02
done
if command -v nbdkit >/dev/null && modprobe nbd; then
	cp "$image" "$tap_dir/image"
	nbdkit -U "$tap_dir/nbdkit" -r file "$tap_dir/image"
	check "nbdkit" nbd-client -unix "$tap_dir/nbdkit" /dev/nbd0 -N ""
	node[nbdkit]=/dev/nbd0
	measure "$row" 400 4096 random huge nbdkit
	check "4 KiB hit: a fifth of nbdkit" \
		most $((cost[$row lz4] * 5)) "${cost[$row nbdkit]}"
	nbd-client -d /dev/nbd0 >/dev/null 2>&1
fi
dmsetup remove linear
finish

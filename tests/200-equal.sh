#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# The whole device equals the image: codecs x frame sizes x images of odd sizes,
# over HTTP and from files, buffered and with O_DIRECT; cold and from memory.
. "$(dirname "$0")/remote.sh"

codecs="zstd lz4 none"
sizes="4K 128K 2M 16M"
# Frame sizes say little of what has one frame, none, or nothing to compress
names="odd sparse mixed"
more="tiny zero random"
[ $MATRIX != few ] || names="odd sparse" more="tiny zero"

# equal URL IMAGE FIRST SECOND: two ways to read, the first finds nothing here
equal()
{
	attach e "$1" || return 1
	if same e "$2" $3 && same e "$2" $4; then
		detach e
	else
		detach --force e
		return 1
	fi
}

# take TURN NAME...: all of them, or the one whose turn it is
take()
{
	local turn=$1

	shift
	[ $MATRIX = all ] || set -- "${@:turn % $# + 1:1}"
	echo "$@"
}

# The way that reads cold takes turns
turn=0
both()
{
	turn=$((turn + 1))
	if [ $((turn % 2)) = 0 ]; then
		equal "$1" "$2" iflag=direct ""
	else
		equal "$1" "$2" "" iflag=direct
	fi
}

check "nginx" nginx_start
check "lazyframed" helper_start
column=0
for codec in $codecs; do
	row=$column
	for size in $sizes; do
		for name in $(take $row $names) $([ $size != 128K ] || take $column $more); do
			check "http: $name $codec $size" \
				both "$nginx/$(url_of $name-$codec-$size)" "$images/image/$name"
		done
		row=$((row + 1))
	done
	turn=$((turn + 1))
	[ $MATRIX != all ] || [ "$slow" ] ||
		check "http: large $codec 16M" \
			both "$nginx/$(url_of large-$codec-16M)" "$images/image/large"
	column=$((column + 1))
	for name in $(take $column $names); do
		check "file: $name $codec 128K" \
			both "file://$images/store/$(url_of $name-$codec-128K)" "$images/image/$name"
	done
done

# What readers ask for does not change what they get
random_reads()
{
	/usr/bin/python3 - "$images/image/$1" /dev/mapper/e <<-'END'
	import os, random, sys
	image = open(sys.argv[1], "rb").read()
	fd = os.open(sys.argv[2], os.O_RDONLY)
	r = random.Random(1)
	for _ in range(300):
	    at = r.randrange(len(image))
	    n = r.choice((1, 511, 4096, 5000, 70000, 400000))
	    if os.pread(fd, min(n, len(image) - at), at) != image[at:at + n]:
	        sys.exit(f"wrong bytes in {n} at {at}")
	END
}
for codec in $codecs; do
	check "reads at odd places: $codec" eval 'attach e "$nginx/$(url_of mixed-$codec-4K)" &&
		random_reads mixed; status=$?; detach e && [ $status = 0 ]'
done
check "the comparison sees one wrong byte" eval '
	attach e "$nginx/$(url_of odd-zstd-4K)" && cp "$images/image/odd" "$tap_dir/wrong" &&
	printf x | dd of="$tap_dir/wrong" bs=1 seek=777777 conv=notrunc status=none &&
	! same e "$tap_dir/wrong" && detach e'
finish

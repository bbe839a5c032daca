#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# lazyframe build: codecs x frame sizes x images of odd sizes. The standard
# tools decode what is stored, a reader of our own puts the image together again.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
image_py="$tests/cli/image.py"
cd "$tap_dir" || exit 1

# each IMAGE CODEC FRAME...: build it with each frame size, and look at it
each()
{
	local image=$1 codec=$2 frame url check=()

	shift 2
	for frame; do
		url=$(lazyframe build -q --codec "$codec" --frame-size "$frame" \
			"$image" "file://$PWD/store") &&
			[ "$(echo "$url" | wc -l)" = 1 ] &&
			lazyframe verify "$url" || return 1
		check+=("${url#file://}" "$frame")
	done
	python3 "$image_py" check "$image" "${check[@]}" && rm -rf store/*
}

store_holds()
{
	[ "$(find store -type f | sed 's,.*/,,' | sort | tr '\n' ' ')" = "$1" ]
}

mkdir store
for kind in bytes-1 bytes-511 bytes-4095 bytes-4096 bytes-4097 \
	    bytes-1048577 sparse random zero tail; do
	python3 "$image_py" make $kind $kind || exit 1
	for codec in zstd lz4 none; do
		check "$kind, $codec: frames of 4K, 128K, 2M, 16M" \
			each $kind $codec 4096 128K 2M 16M
	done
done

check "frames that are no power of two" each sparse zstd 12K
check "a frame size in plain bytes" each sparse lz4 20480

level()
{
	local codec=$1 level=$2

	lazyframe build -q -c "$codec" -l "$level" -n "l$level" \
		bytes-1048577 "file://$PWD/store" >url &&
		lazyframe verify -q "$(cat url)" &&
		cat store/*/"l$level.$codec" | wc -c
}
best_is_smaller()
{
	[ "$(level "$1" "$2" | tail -n 1)" -gt "$(level "$1" "$3" | tail -n 1)" ]
}
check "zstd level 19 stores less than 1" best_is_smaller zstd 1 19
check "LZ4 level 12 stores less than 1" best_is_smaller lz4 1 12
rm -rf store/*

names()
{
	local url

	cp bytes-4097 'odd % name?#.img' &&
		url=$(lazyframe build -q 'odd % name?#.img' "file://$PWD/store/") &&
		[ "${url##*/}" = odd%20%25%20name%3F%23.img.header ] &&
		store_holds 'odd % name?#.img.header odd % name?#.img.zstd odd % name?#.img.zstd.uncompressed-size ' &&
		lazyframe verify -q "$url" && rm -rf store/*
}
check "names are escaped in URLs" names

named()
{
	lazyframe build -q --name rootfs.ext4 -c lz4 bytes-511 \
		"file://$PWD/store" &&
		store_holds 'rootfs.ext4.header rootfs.ext4.lz4 rootfs.ext4.lz4.uncompressed-size ' &&
		rm -rf store/*
}
check "--name" named

streams()
{
	lazyframe build sparse "file://$PWD/store" >out 2>err || return 1
	[ "$(wc -l <out)" = 1 ] && grep -q '^file:///.*/sparse.header$' out &&
		grep -q '^image   40.0 MiB' err && grep -q 'time .*iB/s' err &&
		! grep -q -e $'\r' -e $'\033' err && rm -rf store/*
}
check "the URL alone on stdout, a summary and no bar on stderr" streams

bar()
{
	script -qec "lazyframe build -c zstd -l 19 bytes-1048577 file://$PWD/store" \
		/dev/null >tty </dev/null && grep -q 'build \[' tty &&
		rm -rf store/*
}
check "a progress bar on a terminal" bar

dry()
{
	lazyframe build --dry-run sparse "file://$PWD/store" >out 2>err &&
		[ -z "$(ls -A store)" ] &&
		lazyframe build -q sparse "file://$PWD/store" >url || return 1
	for suffix in zstd header; do
		bytes=$(stat -c %s store/*/sparse.$suffix)
		grep -q "^would store file:///.*/sparse.$suffix: $bytes bytes$" \
			out || return 1
	done
	rm -rf store/*
}
check "--dry-run tells what a run stores, and stores nothing" dry

threads()
{
	local n sums

	for n in 1 2 7 64; do
		lazyframe build -q -f 16K -t $n -n i random \
			"file://$PWD/store" >/dev/null || return 1
	done
	sums=$(sha256sum store/*/i.zstd | cut -d' ' -f1 | sort -u | wc -l)
	rm -rf store/*
	[ "$sums" = 1 ]
}
check "the same bytes with any number of threads" threads

existing()
{
	lazyframe build -q bytes-4096 "file://$PWD/store" >one &&
		lazyframe build -q bytes-4096 "file://$PWD/store" >two &&
		! cmp -s one two && lazyframe verify -q "$(cat one)" &&
		lazyframe verify -q "$(cat two)" && rm -rf store/*
}
check "a second build is a second image" existing

# 32 jobs of 1 MiB and their compressed twins would fit; the image would not.
memory()
{
	local peak

	head -c 300M /dev/urandom >big &&
		peak=$(python3 - lazyframe build -q -t 2 big \
			"file://$PWD/store" 2>&1 <<-'END'
		import resource, subprocess, sys
		subprocess.run(sys.argv[1:], check=True, stdout=2)
		print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
		END
		) || return 1
	rm -rf store/* big
	peak=$(echo "$peak" | tail -n 1)
	echo "peak: $peak KiB"
	[ "$peak" -lt "${LAZYFRAME_MEMORY:-40000}" ]
}
check "memory does not grow with the image" memory

blockdev()
{
	local dev

	dev=$(losetup --find --show --read-only sparse) || return 1
	lazyframe build -q -n sparse "$dev" "file://$PWD/store" >url
	losetup -d "$dev"
	python3 "$image_py" check sparse "$(sed 's,file://,,' url)" 131072 &&
		rm -rf store/*
}
# 5 GiB of which nothing can tell what is zero: more blocks than frames.
too_many()
{
	local dev pid line

	truncate -s 5G huge
	dev=$(losetup --find --show --read-only huge) || return 1
	mkfifo err.fifo
	lazyframe build --dry-run -f 4K "$dev" "file://$PWD/store" \
		2>err.fifo >/dev/null &
	pid=$!
	read -r line <err.fifo
	kill $pid
	wait $pid
	losetup -d "$dev"
	rm huge err.fifo
	echo "$line"
	[[ $line = *"frames of 8.0 KiB instead of 4.0 KiB"* ]]
}
if losetup --find >/dev/null 2>&1; then
	check "a block device as the image" blockdev
	check "frames are doubled until a layer can hold them" too_many
else
	tap_count=$((tap_count + 1))
	echo "ok $tap_count block devices as images # SKIP no loop devices"
fi

tap_end

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# What a hit costs: the same image read from memory through each codec, from a
# store, from an overlay, and through what others use to serve images, beside
# dm-linear on memory, which is the limit. Each round reads from all, one after the
# other; the median is taken. With tests/vm -i, time is instructions.
#
#	none, lz4, zstd		from memory; what is read in parts stays decoded
#	lz4-anew, zstd-anew	from memory, decoded for each read (decoded_mib 0)
#	lz4-store, zstd-store	from the store, and decoded for each read: memory has
#				room for the twelfth part of the image (cache_mib 1)
#	overlay			dirty blocks
#	ublk			ublk.c, the image mapped: no copy but the kernel's
#	nbdkit, qemu-nbd	the image; a qcow2 of zstd
#	vdo			dm-vdo on a disk in memory. It stores this image as it is: its
#				blocks compress to a little more than a half, and no two fit in one
#	s3backer		its FUSE file, all of it in its block cache
#	erofs-*, squashfs-*	a file in such a file system, on loop on memory. Where it
#				is compressed, neither has direct reads
#
# Direct reads are repeated for some seconds. Through the page cache each block is
# read but once, at random 8 MiB of them: the second time, all would measure the same
# page cache.
#
#   BENCH_ROUNDS	(3; 1: fewer of both, cases and devices, without BENCH_ONLY)
#   BENCH_SECONDS	for each measurement (2)
#   BENCH_ONLY		regular expression of what to measure
. "$(dirname "$0")/bench.sh"

rounds=${BENCH_ROUNDS:-3}
seconds=${BENCH_SECONDS:-2}
# as fio has them: how, how much, direct, how many at a time
cases=("randread 4k 1 1" "read 1m 1 1" "randread 4k 0 1" "read 1m 0 1" "randread 4k 1 32")
only=.
if [ "$rounds" = 1 ] && [ -z "$BENCH_ONLY" ]; then
	cases=("${cases[@]::3}")
	only='^(linear|lz4|lz4-store|overlay|ublk|nbdkit|erofs-lz4)$'
fi
only=${BENCH_ONLY:-$only}
image=$images/image/fio
size=$(stat -c %s "$image")
names=()
declare -A node state values buffered
# cache_mib, decoded_mib
declare -A limits=([kept]="128 64" [anew]="128 0" [store]="1 0")

wanted() { [[ $1 =~ $only ]]; }

# contestant NAME NODE [STATE]: to be measured, if it is there and was asked for
contestant()
{
	! wanted "$1" || [ ! -e "$2" ] || names+=("$1")
	node[$1]=$2
	state[$1]=${3:-kept}
}

# speed NODE RW BLOCK DIRECT DEPTH: KiB a second
speed()
{
	local how=(--time_based --runtime=$seconds --norandommap --size=$size)

	case $4,$2 in
	0,read)	how=(--size=$size) ;;
	0,*)	how=(--size=$size --io_size=8M) ;;
	esac
	[ "$5" = 1 ] || how+=(--ioengine=libaio --iodepth="$5")
	fio --name=hit --filename="$1" --readonly --rw="$2" --bs="$3" --direct="$4" \
		--ioengine=psync "${how[@]}" --thread --randrepeat=1 \
		--output-format=terse --terse-version=3 | cut -d ';' -f 7
}

reads() { dd if="$1" of=/dev/null bs="$2" iflag="$3" status=none "${@:4}"; }

# become STATE: what lazyframe has in memory
become()
{
	local codec mib

	read -r -a mib <<<"${limits[$1]}"
	echo "${mib[0]}" >/sys/module/lazyframe/parameters/cache_mib
	echo "${mib[1]}" >/sys/module/lazyframe/parameters/decoded_mib
	[ "$1" != store ] || return 0
	for codec in "${codecs[@]}"; do
		reads /dev/mapper/$codec 4k direct
	done
}

# what a device answers counts, not the page cache above it
forget()
{
	if [ -b "$1" ]; then
		blockdev --flushbufs "$1"
	else
		reads "$1" 4k nocache count=0
	fi
}

# stored FIELD: of the store's status
stored() { [ -z "$store" ] || dmsetup status "$store" | awk "{ print \$($1 + 3) }"; }

# numbers NAME: reads, those that were fetched or failed, decodes, and what the
# store gave
numbers()
{
	local name=${node[$1]##*/}

	echo $(counter $name reads) $(($(counter $name reads_fetched) + \
		$(counter $name reads_failed))) $(module decodes) $(stored 5)
}

# as_said NAME READS LOST DECODES FRAMES: since these were the numbers, reads did
# what the device's name says
as_said()
{
	local before=("${@:2}") now

	read -r -a now <<<"$(numbers "$1")"
	echo "${before[*]}, then ${now[*]}"
	local n=$((now[0] - before[0]))
	[ $n -gt 0 ] && [ "${now[1]}" = "${before[1]}" ] || return 1
	case ${state[$1]} in
	kept)	[ "${now[3]}" = "${before[3]}" ] ;;
	anew)	[ "${now[3]}" = "${before[3]}" ] &&
			[ $(((now[2] - before[2]) * 10)) -ge $((n * 9)) ] ;;
	store)	[ $(((now[3] - before[3]) * 10)) -ge $((n * 8)) ] ;;
	esac
}

misses() { awk '$1 == "block_cache_read_misses" { print $2 }' "$tap_dir/s3backer/stats"; }
no_misses() { [ "$(misses)" = 0 ]; }

# turn NAME CASE...: one measurement
turn()
{
	local name=$1 before

	shift
	forget "${node[$name]}"
	# of a device of ours
	if [[ ${node[$name]} =~ ^/dev/mapper/(none|lz4|zstd)$ ]]; then
		read -r -a before <<<"$(numbers "$name")"
	fi
	values[$name $*]+=" $(speed "${node[$name]}" "$@")"
	[ "$name" != s3backer ] || check "$name, $*: no miss" no_misses
	[ ${#before[@]} = 0 ] || check "$name, $*: as it says" as_said "$name" "${before[@]}"
}

measure()
{
	local round is case name became

	for round in $(seq $rounds); do
		for is in kept anew store; do
			became=
			for case in "${cases[@]}"; do
				for name in "${names[@]}"; do
					[ "${state[$name]}" = $is ] || continue
					[ -z "${buffered[$name]}" ] || [[ $case = *" 0 "* ]] || continue
					[ "$became" ] || become $is
					became=y
					turn "$name" $case
				done
			done
		done
	done
}

# Memory, the limit on it, and a disk each for overlay, store and vdo
rmmod brd 2>/dev/null
modprobe brd rd_nr=4 rd_size=$((192 << 10))
modprobe -a nbd fuse
dd if="$image" of=/dev/ram0 bs=1M status=none
dmsetup create linear --table "0 $((size / 512)) linear /dev/ram0 0"
contestant linear /dev/mapper/linear

server_start
helper_start
check "a store" eval 'lazyframe store-format /dev/ram2 2>/dev/null'
codecs=()
for codec in none lz4 zstd; do
	if [ $codec = none ]; then
		url=file://$bench/store/$(header fio-none)
		on=()
	else
		url=$server/$(url_of fio-$codec-128K)
		on=(--store /dev/ram2)
	fi
	wanted $codec || wanted $codec-anew || wanted $codec-store || continue
	codecs+=($codec)
	check "attach $codec" attach $codec "$url" "${on[@]}"
	check "read it all" same $codec "$image"
	contestant $codec /dev/mapper/$codec
	[ $codec != none ] || continue
	contestant $codec-anew /dev/mapper/$codec anew
	contestant $codec-store /dev/mapper/$codec store
	frames=$((frames + (size >> 17)))
done
store=$(dmsetup ls --target lazyframe-store | awk '/^lazyframe/ { print $1 }')
if [ "$store" ]; then
	all_stored() { [ "$(stored 4)" = $frames ]; }
	check "all of it is stored" until_true all_stored
fi
if wanted overlay; then
	check "attach an overlay" attach overlay "$server/$(url_of fio-lz4-128K)" \
		--cow /dev/ram1 --meta "$tap_dir/meta"
	check "write it all" dd if="$image" of=/dev/mapper/overlay bs=1M oflag=direct status=none
	contestant overlay /dev/mapper/overlay
fi

# Others. Their files are in memory
cp "$image" "$tap_dir/image"
if wanted ublk && modprobe ublk_drv 2>/dev/null; then
	mkfifo "$tap_dir/ublk"
	"$bench/ublk" "$tap_dir/image" >"$tap_dir/ublk" &
	ublk=$!
	read -r disk <"$tap_dir/ublk"
	check "ublk" cmp "$image" "$disk"
	contestant ublk "$disk"
fi
if wanted nbdkit; then
	nbdkit -U "$tap_dir/nbdkit" -r file "$tap_dir/image"
	check "nbdkit" nbd-client -unix "$tap_dir/nbdkit" /dev/nbd0 -N ""
	contestant nbdkit /dev/nbd0
fi
if wanted qemu-nbd; then
	cp "$bench/fio.qcow2" "$tap_dir/qcow2"
	check "qemu-nbd" qemu-nbd -r -c /dev/nbd1 "$tap_dir/qcow2"
	contestant qemu-nbd /dev/nbd1
fi
if wanted vdo && modprobe dm-vdo 2>/dev/null; then
	line=$("$tests/bench/vdoformat.py" /dev/ram3 $((size / 512)))
	check "vdo" eval 'dmsetup create vdo --table "$line" &&
		dd if="$image" of=/dev/mapper/vdo bs=1M conv=fsync status=none &&
		cmp "$image" /dev/mapper/vdo'
	contestant vdo /dev/mapper/vdo
fi
if wanted s3backer; then
	mkdir "$tap_dir"/s3{objects,backer}
	# -s: many threads in turn for one reader are several times slower
	s3backer --test --quiet -s --size=$size --blockSize=128k --readAhead=0 \
		--blockCacheSize=$((size >> 17)) "$tap_dir"/s3{objects,backer} 2>"$tap_dir/s3log"
	written() { grep -q 'dirty_ratio *0\.0000' "$tap_dir/s3backer/stats"; }
	check "s3backer" eval 'dd if="$image" of="$tap_dir/s3backer/file" bs=128k \
		conv=notrunc status=none && until_true written &&
		cmp "$image" "$tap_dir/s3backer/file"'
	contestant s3backer "$tap_dir/s3backer/file"
fi
for fs in "$bench"/fs/*; do
	name=${fs##*/}
	wanted "$name" || continue
	modprobe "${name%%-*}"
	cp "$fs" "$tap_dir/$name.fs"
	mkdir "$tap_dir/$name"
	check "$name" eval 'mount -o loop,ro -t ${name%%-*} "$tap_dir/$name.fs" "$tap_dir/$name" &&
		cmp "$image" "$tap_dir/$name/image"'
	contestant "$name" "$tap_dir/$name/image"
	reads "$tap_dir/$name/image" 4k direct count=1 2>/dev/null || buffered[$name]=y
done

measure
for case in "${cases[@]}"; do
	read -r how much direct depth <<<"$case"
	row="$how $much $([ $direct = 1 ] && echo direct || echo buffered)"
	[ $depth = 1 ] || row+=", $depth at a time"
	for name in "${names[@]}"; do
		[ -z "${values[$name $case]}" ] || cell "$row" "$name" KiB/s ${values[$name $case]}
	done
done

nbd-client -d /dev/nbd0 >/dev/null 2>&1
qemu-nbd -d /dev/nbd1 >/dev/null 2>&1
umount "$tap_dir"/{erofs,squashfs}-* "$tap_dir/s3backer" 2>/dev/null
if [ "$ublk" ]; then
	kill "$ublk"
	check "ublk ends" wait "$ublk"
fi
dmsetup remove linear
[ ! -e /dev/mapper/vdo ] || check "remove vdo" dmsetup remove vdo
for name in "${attached[@]}"; do
	check "detach $name" detach $name
done
attached=()
[ -z "$store" ] || check "remove the store" dmsetup remove "$store"
finish

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# lazyframe build: what it refuses, in words, with nothing written anywhere.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
cd "$tap_dir" || exit 1

mkdir store work
cd work || exit 1
head -c 10000 /dev/urandom >image
: >empty
mkfifo pipe
mkdir folder
store=file://$tap_dir/store

# refused STATUS WORDS ARGUMENT...: as in says(); all folders stay as they are
refused()
{
	local status=$1 words=$2 before after

	shift 2
	before=$(find "$tap_dir/store" "$tap_dir/work" -printf '%p %s %T@\n')
	says "$status" "$words" lazyframe build "$@" || return 1
	[ ! -s "$tap_dir/stdout" ] || { echo "wrote to stdout"; return 1; }
	after=$(find "$tap_dir/store" "$tap_dir/work" -printf '%p %s %T@\n')
	[ "$before" = "$after" ] || { echo "$after"; return 1; }
}

check "no arguments" refused 2 "wants IMAGE and URL"
check "an argument too many" refused 2 "wants IMAGE and URL" image $store x
check "an unknown option" refused 2 "--help" --ancestor x image $store
check "an unknown codec" refused 2 "codec gzip: unknown; known are zstd" \
	-c gzip image $store
for level in 0 20 -1 x 1x ''; do
	check "zstd level '$level'" refused 2 \
		"level $level: zstd has levels 1 to 19" -l "$level" image $store
done
for level in 0 13; do
	check "LZ4 level $level" refused 2 "level $level: lz4 has levels 1 to 12" \
		-c lz4 -l $level image $store
done
check "a level of no codec" refused 2 "codec none has no levels" \
	-c none -l 1 image $store
for size in 0 1 4095 6K 4097 32M 17M -4K 4X 4KK 99999999999999999999 K ''; do
	check "frame size '$size'" refused 2 \
		"frame size $size: not a multiple of 4K between 4K and 16M" \
		-f "$size" image $store
done
for n in 0 -1 257 x; do
	check "threads $n" refused 2 "threads $n: not a number" \
		-t $n image $store
done
for name in '' . .. a/b $'a\nb' "$(printf %0201d 1)"; do
	check "name $(printf %q "$name")" refused 2 "see --name" -n "$name" image $store
done

check "an empty image" refused 1 "the image is empty" empty $store
check "no image" refused 1 "No such file" nothing $store
check "a folder as image" refused 1 "neither a regular file nor" folder $store
check "a character device" refused 1 "neither a regular file nor" /dev/null \
	$store
truncate -s 17T huge 2>/dev/null &&
	check "an image of 17 TiB" refused 1 "larger than 16 TiB" huge $store
rm -f huge

check "a path is no URL" refused 1 "not a URL" image "$tap_dir/store"
check "an unknown kind of URL" refused 1 "unknown kind of URL" image ftp://x/y
check "http is read-only" refused 1 "can only be read" image http://x/y
check "a host in a file URL" refused 1 "names no host" image file://host/dir
check "a bad escape" refused 1 "two hex digits" image "$store%2"
check "a NUL in a path" refused 1 "two hex digits" image "$store%00"
check "a query in a file URL" refused 1 "no query" image "$store?x"
check "a destination that is not there" refused 1 "make the directory first" \
	image "$store/x"
check "a destination below a file" refused 1 "Not a directory" \
	image "file://$PWD/image/x"
check "a destination that is a file" refused 1 "not a directory" \
	image "file://$PWD/image"
check "/proc as the destination" refused 1 "cannot write in /proc" \
	image file:///proc
check "a dry run looks at the destination too" refused 1 \
	"make the directory first" --dry-run image "$store/x"

# Root may do anything, so ask as somebody else.
not_root()
{
	if [ "$(id -u)" != 0 ]; then
		"$@"
	else
		setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
	fi
}
as_nobody()
{
	chmod 755 "$tap_dir"
	cp "$(command -v lazyframe)" "$tap_dir/lazyframe" &&
		says 1 "$1" not_root "$tap_dir/lazyframe" build "$2" "$3" &&
		[ -z "$(ls -A "$tap_dir/store")" ]
}
chmod 555 "$tap_dir/store"
check "a destination that is not writable" as_nobody "not writable" image $store
chmod 777 "$tap_dir/store"
chmod 600 image
[ "$(id -u)" = 0 ] &&
	check "an image that is not readable" as_nobody "Permission denied" \
		image $store

full()
{
	mkdir "$tap_dir/full" && mount -t tmpfs -o size=64k none "$tap_dir/full" ||
		return 1
	head -c 1M /dev/urandom >big
	says 1 "No space left on device" lazyframe build big "file://$tap_dir/full"
	local err=$? left

	left=$(ls -A "$tap_dir/full")
	umount "$tap_dir/full"
	[ $err = 0 ] && [ -z "$left" ]
}
[ "$(id -u)" = 0 ] && check "a full destination stays empty" full

# A name that fits alone, but not with the longest suffix.
cd "$tap_dir" || exit 1
check "the longest name works" lazyframe build -q \
	-n "$(printf %0200d 1)" work/image $store

# Every command line that is wrong for the program itself.
check "no command" says 2 "Usage: lazyframe [--cafile FILE] COMMAND" lazyframe
check "an unknown command" says 2 "unknown command frob" lazyframe frob
helps()
{
	lazyframe --help | grep -q '^  build ' &&
		lazyframe --version | grep -qx 'lazyframe [0-9.]*' &&
		lazyframe build --help | grep -q 'default zstd' &&
		lazyframe inspect --help | grep -q -e --json &&
		lazyframe verify --help | grep -q -e --threads
}
check "--help and --version" helps
disk_full()
{
	says 1 "writing the output" sh -c 'lazyframe --version >/dev/full' ||
		says 1 "writing the output" \
			sh -c "lazyframe inspect --help >/dev/full"
}
check "output that is lost is an error" disk_full

tap_end

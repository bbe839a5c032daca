#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Traces as files: shown, merged in the order of the median, refused when they are
# none; what is there already stays. Without a module.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
. "$tests/s3.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
cd "$tap_dir" || exit 1

# trace FILE LAYER FRAME...: as the format is written down
trace()
{
	/usr/bin/python3 -c '
import ctypes, struct, sys
xxh = ctypes.CDLL("libxxhash.so.0").XXH64
xxh.restype = ctypes.c_uint64
xxh.argtypes = ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64
frames = sys.argv[3:]
data = b"LZYTRACE" + struct.pack("<IIII", 1, 1, len(frames), 1) + bytes(range(16))
data += bytes.fromhex(sys.argv[2] * 16) + struct.pack("<Q", 1 << 30)
for frame in frames:
    data += struct.pack("<Q", int(frame) << 17)
open(sys.argv[1], "wb").write(data + struct.pack("<Q", xxh(data, len(data), 0)))' "$@"
}

# frames FILE: the numbers of its frames
frames()
{
	lazyframe trace --show "$1" | sed 1,4d | while read -r _ at; do
		printf '%d ' $((at >> 17))
	done
}

trace a aa 1 2 3 4
trace b aa 2 1 3
trace c aa 2 1 9 3
trace d bb 7
check "a trace is shown" eval 'lazyframe trace --show a >shown && [ "$(head -n 4 shown)" = \
"image 00010203-0405-0607-0809-0a0b0c0d0e0f
traces 1
layers 1
frames 4" ]'
check "its frames, in their order" test "$(frames a)" = "1 2 3 4 "
check "three are merged" says 0 "m: 3 frames of 1 layers" lazyframe trace --merge a b c -o m
check "in the order of the median, without what one alone has" test "$(frames m)" = "2 1 3 "
check "all, if that is asked for" eval 'lazyframe trace --merge a b c --share 1 -o all &&
	[ "$(frames all)" = "2 1 3 9 4 " ]'
check "the order of the traces does not matter" eval 'lazyframe trace --merge c a b -o n && cmp m n'
check "merged is merged again" eval 'lazyframe trace --merge m -o o && cmp m o'
check "traces of two images share what they share" eval 'lazyframe trace --merge a d -o two &&
	[ "$(lazyframe trace --show two | sed -n 3p)" = "layers 2" ]'
check "what is there stays" says 1 "there is one already; --force replaces it" \
	lazyframe trace --merge a -o m
check "and nothing is left beside it" eval '[ -z "$(ls .*.tmp *.tmp 2>/dev/null)" ]'
check "but with --force" eval 'lazyframe trace --merge a -o m --force && [ "$(frames m)" = "1 2 3 4 " ]'
check "a store keeps one, too" eval 'mkdir s && lazyframe trace --merge a -o "file://$PWD/s/u/x.header.trace" &&
	lazyframe trace --show "file://$PWD/s/u/x.header.trace" | cmp - shown'
check "and what it has" says 1 "--force replaces it" \
	lazyframe trace --merge b -o "file://$PWD/s/u/x.header.trace"
check "but with --force" eval 'lazyframe trace --merge b -o "file://$PWD/s/u/x.header.trace" --force &&
	[ "$(frames "file://$PWD/s/u/x.header.trace")" = "2 1 3 " ]'

# An object store: what is there is replaced in one step, or not at all.
s3_start
trap 's3_stop; rm -rf "$tap_dir"' EXIT
s3_keys
url=s3://bucket/u/x.header.trace
check "S3 keeps one" eval 'lazyframe trace --merge a -o $url && [ "$(frames $url)" = "1 2 3 4 " ]'
check "and what it has" says 1 "there is one already; --force replaces it" \
	lazyframe trace --merge b -o $url
s3_control "fault put count=100"
check "a put that fails" says 1 "500" lazyframe trace --merge b -o $url --force
check "loses nothing" test "$(frames $url)" = "1 2 3 4 "
s3_stop
s3_start
check "one that does not replaces it" eval 'lazyframe trace --merge b -o $url --force &&
	[ "$(frames $url)" = "2 1 3 " ]'

head -c 100 a >cut
cp a flipped
printf x | dd of=flipped bs=1 seek=70 conv=notrunc status=none
echo "no trace at all, but long enough to be one, one would think" >text
check "one that was cut off is refused" says 1 "cut: 100 bytes where 104 should be" \
	lazyframe trace --show cut
check "one that is damaged, too" says 1 "flipped: the checksum is wrong" lazyframe trace --show flipped
check "so is any other file" says 1 "text: this is no trace" lazyframe trace --show text
check "and a folder" says 1 "s: " lazyframe trace --show s
check "a file that is not there is named" says 1 "none: No such file" lazyframe trace --merge a none -o z
check "nothing was written then" test ! -e z
for words in "--merge a" "--merge -o x" "--show" "--show a b" "x --start -o y" "x" \
	"x --seconds 1 --until-idle 1 -o y" "x -o y --seconds 0" "--merge a -o x --share 101"; do
	check "wrong use: $words" says 2 lazyframe lazyframe trace $words
done
for words in "" "x y" "x --rate 1x" "x --pause --stop"; do
	check "wrong use: hydrate $words" says 2 lazyframe lazyframe hydrate $words
done
tap_end

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# lazyframe verify: one wrong byte anywhere is found and named. What a format
# cannot show is listed in the test.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
image_py="$tests/cli/image.py"
cd "$tap_dir" || exit 1

mkdir store
# Partial last block, zeros before it, several frames.
python3 - <<'END' >image
import random, sys
r = random.Random(1)
text = b"".join(b"%d %x\n" % (i, r.getrandbits(24)) for i in range(20000))
sys.stdout.buffer.write(text[:140000].ljust(143360, b"y") + bytes(8192) +
                        r.randbytes(9000))
END

# fails WORDS URL
fails()
{
	says 1 "$1" lazyframe verify "$2"
}

# sweep URL FILE WORDS COUNT [FIRST LAST]: changes bytes, one at a time, all or
# a sample of COUNT; each is found, or changes nothing that is decoded. Bytes in
# $exempt may be anything.
sweep()
{
	EXEMPT=$exempt python3 - "$@" <<'END'
import os, random, subprocess, sys
url, path, words, count = sys.argv[1:5]
good = open(path, "rb").read()
first, last = ([int(a) for a in sys.argv[5:7]] or [0, len(good)])
exempt = os.environ["EXEMPT"].split()
where = [i for i in range(first, last) if str(i) not in exempt]
if int(count) < len(where):
    where = sorted(random.Random(2).sample(where, int(count)))
def decoded():
    tool = "zstd" if path.endswith("zstd") else "lz4"
    p = subprocess.run([tool, "-dcq", path], capture_output=True)
    return p.returncode, p.stdout
right = decoded()
same = 0
for at in where:
    for flip in (0xff, 1 << at % 8):
        bad = bytearray(good)
        bad[at] ^= flip
        open(path, "r+b").write(bad)
        p = subprocess.run(["lazyframe", "verify", "-q", url],
                           capture_output=True, text=True)
        # Some bits of compressed data change nothing that is decoded.
        if p.returncode == 0 and path.endswith(("zstd", "lz4")) and \
           decoded() == right:
            same += 1
        elif p.returncode != 1 or words not in p.stderr:
            print(f"byte {at} ^ {flip:#x} of {len(good)}: status "
                  f"{p.returncode}, {p.stderr}")
            sys.exit(1)
open(path, "r+b").write(good)
print(f"{2 * len(where)} flips, {same} without effect")
sys.exit(same * 50 > len(where))
END
}

for codec in zstd lz4; do
	rm -rf store/*
	url=$(lazyframe build -q -c $codec -f 64K image "file://$PWD/store")
	dir=$(dirname "${url#file://}")
	check "$codec: a good image" lazyframe verify "$url"
	data=$dir/image.$codec
	size=$(stat -c %s "$data")
	check "$codec: 300 wrong bytes of the data object" \
		sweep "$url" "$data" "image.$codec" 300
	check "$codec: each byte of its seek table" \
		sweep "$url" "$data" "image.$codec" 999 $((size - 53)) "$size"
	# Byte 9 and 10: any block size that is a multiple of 4 KiB will do.
	exempt="9 10"
	check "$codec: each byte of the header" \
		sweep "$url" "$dir/image.header" "image" 9999
	exempt=
	check "$codec: each byte of uncompressed-size" \
		sweep "$url" "$data.uncompressed-size" "uncompressed-size" 99
	check "$codec: good again" lazyframe verify "$url"

	cp "$data" good
	truncate -s -1 "$data"
	check "$codec: the last byte is missing" fails "image.$codec" "$url"
	cp good "$data"
	echo >>"$data"
	check "$codec: a byte too many" fails "image.$codec" "$url"
	cp good "$data"
	truncate -s 0 "$data"
	check "$codec: nothing left" fails "image.$codec" "$url"
	rm "$data"
	check "$codec: no data object" fails "No such file" "$url"
	cp good "$data"
	check "$codec: and back" lazyframe verify "$url"

	python3 "$image_py" corrupt "$data" 40
	check "$codec: the first frame is named" fails "frame 0 (U offset 0, " \
		"$url"
	cp good "$data"
	python3 "$image_py" corrupt "$data" $((size - 53 - 10))
	check "$codec: the last frame is named" fails \
		"frame 2 (U offset 131072, " "$url"
	check "$codec: on any number of threads, the first one is" \
		fails "frame 2 (" "$url"
	python3 "$image_py" corrupt "$data" 40
	for n in 1 2 9; do
		check "$codec: two wrong frames, $n threads: the first" \
			says 1 "frame 0 (" lazyframe verify -t $n "$url"
	done

	# The same object, moved below another name, is another image's.
	cp good "$data"
	mkdir -p store/00000000-0000-4000-8000-000000000001
	cp "$dir"/* store/00000000-0000-4000-8000-000000000001
	check "$codec: a header in another image's folder" \
		fails "the header is of image" \
		"file://$PWD/store/00000000-0000-4000-8000-000000000001/image.header"
done

# Headers that are well formed and wrong. rewrite CODE: b is the content of the
# LZ4 frame: 4 bytes, UUID, U size (at 20), SHA-256 (at 28), codec, frames,
# 24 bytes a frame, number of mappings, 40 bytes each.
rewrite()
{
	python3 - "$dir/image.header" "$1" <<'END'
import struct, subprocess, sys
path, code = sys.argv[1:]
h = open(path, "rb").read()
b = bytearray(subprocess.run(["lz4", "-dcq"], input=h[69:],
                             stdout=-1, check=True).stdout)
exec(code)
z = subprocess.run(["lz4", "-qc"], input=b, stdout=-1, check=True).stdout
open(path, "r+b").truncate(0)
open(path, "wb").write(h[:65] + struct.pack("<I", len(b)) + z)
END
}
# wrong WORDS CODE
wrong()
{
	cp "$dir/image.header" good.header
	rewrite "$2" && fails "$1" "$url"
	local status=$?

	cp good.header "$dir/image.header"
	return $status
}
rm -rf store/*
url=$(lazyframe build -q -f 64K image "file://$PWD/store")
dir=$(dirname "${url#file://}")
check "a wrong SHA-256" wrong "SHA-256 of the content is" "b[30] ^= 1"
check "an unknown SHA-256 is none to check" rewrite "b[28:60] = bytes(32)"
check "... and is not" lazyframe verify "$url"
check "a wrong size of the layer" wrong "no frame has some" "b[20] ^= 1"
# Mappings: 35 blocks of data, 2 of zeros, 3 of data; all 3 become zeros, or
# the second of two is not the one that is stored there.
check "stored bytes that nothing maps" wrong "9000 bytes, first at U offset 143360" \
	"b[-24:-8] = bytes(16)"
check "the same bytes twice, and others not" wrong "are mapped by nothing" \
	"b[-8:] = struct.pack('<Q', 32 * 4096)"
check "frames that nothing maps" wrong "with 2 whole frames" \
	"b[-120:] = struct.pack('<QQ16sQ', 0, 4096, b[4:20], 0) + struct.pack('<QQ16xQ', 4096, 39 * 4096, 0); b[-84:-80] = struct.pack('<I', 2)"
check "a frame of the header that is not in the object" \
	wrong "is not in the object's seek table" "b[89] -= 1"

# Raw layers have no checksum; what can be seen is that bytes are missing.
rm -rf store/*
url=$(lazyframe build -q -c none image "file://$PWD/store")
dir=$(dirname "${url#file://}")
check "raw: a good image" lazyframe verify "$url"
raw_says()
{
	lazyframe verify "$url" | grep "no checksum that could be wrong"
}
check "raw: verify says what it could not check" raw_says
# Byte 0: version 2 is the same as 3. The storage of the zero mapping, bytes
# 136 to 143, means nothing.
exempt="0 9 10"
check "raw: each byte of metadata and the first mapping" \
	sweep "$url" "$dir/image.header" "image" 999 0 104
check "raw: the zero mapping's place and layer" \
	sweep "$url" "$dir/image.header" "image" 999 104 136
check "raw: the last mapping" \
	sweep "$url" "$dir/image.header" "image" 999 144 184
truncate -s -1 "$dir/image"
check "raw: the last byte is missing" fails "image" "$url"
truncate -s +2 "$dir/image"
check "raw: a byte too many" fails "image" "$url"

tap_end

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# A VM's memory image, as snapshots keep it: a header with blocks of 2 MiB,
# mapped with MAP_PRIVATE by many processes at once. They see its pages, share
# them, and keep what they write to themselves; each frame is fetched once.
. "$(dirname "$0")/common.sh"
cd "$tap_dir" || exit 1

export DM_DISABLE_UDEV=1
modprobe loop
cleanup()
{
	kill $helper
}
lazyframed >helper.log 2>&1 &
helper=$!

# pages of zeros, of few distinct words, of noise; some 2 MiB all zero
python3 - $MEMORY_MIB <<'END'
import random, sys
rng = random.Random(3)
with open("memory", "wb") as f:
    for block in range(int(sys.argv[1]) // 2):
        if block % 5 == 3:
            f.write(bytes(2 << 20))
            continue
        for page in range(512):
            f.write(rng.choice((lambda: bytes(4096), lambda: rng.randbytes(4096),
                                lambda: rng.randbytes(16) * 256))())
END
mkdir store
build()
{
	local url header

	url=$(lazyframe build memory "file://$PWD/store" --codec $1 --frame-size $2 2>/dev/null | tail -n 1)
	header=${url#file://}
	# the header's second number is the block size
	python3 - "$header" <<-'END'
	import struct, sys
	with open(sys.argv[1], "r+b") as f:
	    version, size = struct.unpack("<QQ", f.read(16))
	    assert version in (3, 4) and size == 4096, (version, size)
	    f.seek(8)
	    f.write(struct.pack("<Q", 2 << 20))
	END
	echo "$url"
}
cat >map.py <<'END'
# map.py PROCESSES: each compares all pages in an order of its own, writes to
# some of its own copies, and compares again
import mmap, os, random, re, sys

image = open("memory", "rb").read()
fd = os.open("/dev/mapper/m", os.O_RDONLY)
children = int(sys.argv[1])
STEP = 32768


def child(seed):
    rng = random.Random(seed)
    memory = mmap.mmap(fd, len(image), flags=mmap.MAP_PRIVATE,
                       prot=mmap.PROT_READ | mmap.PROT_WRITE)
    order = list(range(0, len(image), STEP))
    rng.shuffle(order)
    # first one byte of a page: a fault brings it
    for at in order[:200]:
        page = at + rng.randrange(STEP)
        if memory[page] != image[page]:
            return 1
    for at in order:
        if memory[at:at + STEP] != image[at:at + STEP]:
            return 2
    smaps = open("/proc/self/smaps").read()
    part = smaps[smaps.index("/dev/dm-" if "/dev/dm-" in smaps else "/dev/mapper/m"):]
    kib = {k: int(v) for k, v in re.findall(r"^(\w+): +(\d+) kB", part, re.M)[:20]}
    mine = {rng.randrange(len(image) // 4096): rng.randbytes(4096)
            for _ in range(50)}
    for page, data in mine.items():
        memory[page * 4096:(page + 1) * 4096] = data
    for at in order:
        want = bytearray(image[at:at + STEP])
        for page in range(at // 4096, (at + STEP) // 4096):
            if page in mine:
                want[page * 4096 - at:(page + 1) * 4096 - at] = mine[page]
        if memory[at:at + STEP] != bytes(want):
            return 3
    # pages of zeros may be mapped once for all; none is a copy before it is written
    if kib["Anonymous"] or kib["Rss"] * 1024 < len(image) * 0.9:
        print("#", kib)
        return 4
    return 0


pids = []
for n in range(children):
    pid = os.fork()
    if not pid:
        os._exit(child(n))
    pids.append(pid)
status = [os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in pids]
print(status)
sys.exit(any(status))
END
requests() { cat /sys/class/misc/lazyframe/requests; }
mapped()
{
	local before frames url

	url=$(build $1 $2)
	[ "$(lazyframe inspect --json $url | python3 -c 'import json, sys
print(json.load(sys.stdin)["block_size"])')" = 2097152 ] || { echo "not 2 MiB blocks"; return 1; }
	frames=$(lazyframe inspect --json $url | python3 -c '
import json, sys
print(sum(l["frames"]["count"] for l in json.load(sys.stdin)["layers"]))')
	before=$(requests)
	lazyframe attach m $url >/dev/null 2>&1 && python3 map.py ${3:-12} || return 1
	echo "$frames frames, $(($(requests) - before)) requests"
	[ $(($(requests) - before)) = $frames ] || return 1
	# what they wrote was theirs
	cmp memory /dev/mapper/m && lazyframe detach m
}
check "zstd, frames of 2 MiB: 12 processes map it, each frame is fetched once" mapped zstd 2M
check "LZ4, frames of 2 MiB" mapped lz4 2M
check "zstd, frames of 128 KiB" mapped zstd 128K
check "raw" eval 'url=$(build none 128K) && lazyframe attach m $url && python3 map.py 4 &&
	cmp memory /dev/mapper/m && lazyframe detach m'
check "above an overlay: what was written before is in the mappings" eval '
	url=$(build lz4 2M) && lazyframe attach m $url --cow cow &&
	head -c 400000 /dev/urandom >part && dd if=part of=/dev/mapper/m bs=512 seek=777 conv=notrunc,fsync status=none &&
	dd if=part of=memory bs=512 seek=777 conv=notrunc status=none && python3 map.py 6 &&
	cmp memory /dev/mapper/m && lazyframe detach m --discard'
finish

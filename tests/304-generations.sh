#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Generations of random changes through a device: written, sealed, exported, and
# flattened now and then. The device, and the image of its new header, show what
# a flat model says, each time.
#
#   EXPORTS	how many (6)
#   EXPORT_SEED	of the random numbers
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
mkdir store
cat >generations.py <<'END'
import fcntl
import mmap
import os
import random
import struct
import subprocess
import sys

count, seed = int(sys.argv[1]), int(sys.argv[2])
rng = random.Random(seed)
BLOCK = 4096
SIZE = 200 * BLOCK + 700		# not a multiple of anything
DEVICE = -(-SIZE // 512) * 512
base = f"file://{os.getcwd()}/store"


def run(*args):
    got = subprocess.run(("lazyframe",) + args, capture_output=True, text=True)
    if got.returncode:
        sys.exit(f"generation {n}: {' '.join(args)}: {got.stderr}")
    return got.stdout.strip().split("\n")[-1]


def content(size):
    return rng.choice((rng.randbytes, lambda n: rng.randbytes(7) * (n // 7 + 1),
                       bytes))(size)[:size]


def change(fd, buf):
    """One write, zeroing or discard of random place and length."""
    dice = rng.random()
    if dice < 0.6:
        unit = rng.choice((512, BLOCK))
        at = rng.randrange(DEVICE // unit) * unit
        size = min(unit * rng.randrange(1, 12), DEVICE - at)
        data = content(size)
        buf[:size] = data
        with memoryview(buf) as view:
            assert os.pwritev(fd, [view[:size]], at) == size
        model[at:at + size] = data
        return
    at = rng.randrange(DEVICE // BLOCK) * BLOCK
    size = min(BLOCK * rng.randrange(1, 16), DEVICE - at)
    if dice < 0.8:
        fcntl.ioctl(fd, 0x127f, struct.pack("=QQ", at, size))	# BLKZEROOUT
    elif size % BLOCK == 0:
        fcntl.ioctl(fd, 0x1277, struct.pack("=QQ", at, size))	# BLKDISCARD
    else:
        return
    model[at:at + size] = bytes(size)


def shows(path, what):
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    got = b""
    while len(got) < DEVICE:
        part = os.pread(fd, DEVICE - len(got), len(got))
        if not part:
            break
        got += part
    os.close(fd)
    # what is written behind the image's end, in its last sector, is no part of it
    if got[:SIZE] != model[:SIZE]:
        bad = next(i for i in range(SIZE) if got[i:i + 1] != model[i:i + 1])
        sys.exit(f"generation {n}: {what}: byte {bad} differs")


def nothing_dirty():
    node = f"dm-{os.minor(os.stat('/dev/mapper/g').st_rdev)}"
    counts = []
    for name in ("dirty_blocks", "zero_blocks"):
        with open(f"/sys/block/{node}/lazyframe/{name}") as f:
            counts.append(int(f.read()))
    return not any(counts)


def changes(times):
    fd = os.open("/dev/mapper/g", os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(-1, 64 * 1024) as buf:
        for _ in range(times):
            change(fd, buf)
    os.fsync(fd)
    os.close(fd)


n = 0
first = content(SIZE)
with open("image", "wb") as f:
    f.write(first)
model = bytearray(first + bytes(DEVICE - SIZE))
url = run("build", "-q", "image", base)
run("attach", "g", url, "--cow", "cow")
layers = flat = seals = 0
for n in range(1, count + 1):
    changes(rng.randrange(1, 9))
    sealed = False
    while rng.random() < 0.2:
        run("seal", "g")
        seals += 1
        sealed = True
        changes(rng.randrange(0, 5))
    # export takes what is sealed; if nothing is, it seals
    if sealed:
        run("seal", "g")
    shows("/dev/mapper/g", "the device, before")
    url = run("export", "g", "--codec", rng.choice(("zstd", "lz4", "none")),
              "--frame-size", rng.choice(("4K", "8K", "64K", "1M")),
              *(["--compare-parent"] if rng.random() < 0.3 else []))
    # so what the device shows now are the new layers
    assert nothing_dirty(), f"generation {n}"
    shows("/dev/mapper/g", "the device, after")
    if n % 25 == 0 or n == count:
        run("verify", "-q", url)
        url = run("flatten", "-q", url, base)
        flat += 1
        run("verify", "-q", url)
        run("detach", "g", "--discard")
        run("attach", "g", url, "--cow", "cow")
        shows("/dev/mapper/g", "the flat image")
run("detach", "g", "--discard")
print(f"# result: {count} generations, seed {seed}: {seals} more seals, {flat} flattened")
END
: "${EXPORT_SEED:=$RANDOM}"
check "what a device shows, and what is exported of it, is the model's" \
	eval 'python3 generations.py "$EXPORTS" "$EXPORT_SEED" >result'
cat result
check "the comparison finds a byte" eval 'sed "s/^    shows(.*before.*/    model[0] ^= 1; &/" generations.py >wrong.py &&
	! python3 wrong.py 1 1 && lazyframe detach g --discard'
finish

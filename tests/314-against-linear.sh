#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# What an overlay costs: reads of dirty blocks and writes, compared with
# dm-linear on the same disk, one after the other in each round. Prints a table;
# fails only where lazyframe is a quarter as fast, for a machine may be busy.
# tests/vm -i measures instructions instead.
#
#   LINEAR_ROUNDS	of which the median is taken (2)
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

modprobe -q brd rd_nr=1 max_part=8 rd_size=$((200 * 1024))

python_tests <<'EOF2'
import json
import statistics
from rig import *

ROUNDS = int(os.environ.get("LINEAR_ROUNDS", "2"))
SIZE = 16 * MIB
HALF = 100 * MIB
# far below what is wanted (0.9): the machine may have other things to do
FLOOR = 0.25

READ = {
    "read of dirty blocks, 4 KiB, random": ("randread", "4k"),
    "read of dirty blocks, 1 MiB, sequential": ("read", "1m"),
}
WRITE = {
    "write to dirty blocks, 4 KiB, random": ("randwrite", "4k"),
    "write to dirty blocks, 1 MiB, sequential": ("write", "1m"),
}


def fio(node, cases):
    """Bytes a second for each, one after the other."""
    args = ["fio", f"--filename={node}", f"--size={SIZE}", "--direct=1",
            "--ioengine=psync", "--thread", "--randrepeat=1", "--end_fsync=1",
            "--output-format=json"]
    for name, (how, block) in cases.items():
        args += [f"--name={name}", f"--rw={how}", f"--bs={block}",
                 f"--loops={1 if block == '4k' else 4}", "--stonewall"]
    got = subprocess.run(args, capture_output=True, text=True,
                         timeout=patience(60))
    assert not got.returncode, got.stderr
    jobs = json.loads(got.stdout[got.stdout.index("{"):])["jobs"]
    return {name: max(job["read"]["bw_bytes"], job["write"]["bw_bytes"])
            for name, job in zip(cases, jobs)}


def fill(node):
    fd = os.open(node, os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(-1, 1 * MIB) as buf:
        buf.write(random.randbytes(1 * MIB))
        for at in range(0, SIZE, 1 * MIB):
            os.pwritev(fd, [buf], at)
    os.fsync(fd)
    os.close(fd)


def partitions(disk, *sizes):
    """Cut a disk into parts of so many bytes: their nodes."""
    fd = os.open(disk, os.O_RDWR)
    undo(lambda: os.close(fd))
    name, out, start = os.path.basename(disk), [], 1 * MIB

    def partition(add, number, start=0, size=0):
        part = ctypes.create_string_buffer(
            struct.pack("=qqi64s64s4x", start, size, number, b"", b""))
        args = ctypes.create_string_buffer(
            struct.pack("=iii4xQ", 1 if add else 2, 0, len(part) - 1,
                        ctypes.addressof(part)))
        if libc.ioctl(fd, 0x1269, args) < 0:		# BLKPG
            raise OSError(ctypes.get_errno(), "BLKPG")

    for number, size in enumerate(sizes, 1):
        partition(True, number, start, size)
        undo(lambda number=number: partition(False, number))
        start += size
        node = glob.glob(f"/sys/block/{name}/{name}*{number}")[0]
        out.append(f"/dev/{os.path.basename(node)}")
    return out


def compare(disk):
    speeds = {}
    # no mapped device below ours: dm-linear has none either
    cow, below, other = partitions(disk, HALF - 8 * MIB, 8 * MIB, SIZE)

    def measure(linear, device, cases):
        for which, node in (("linear", linear.node), ("here", device.node)):
            for name, speed in fio(node, cases).items():
                speeds.setdefault((name, which), []).append(speed)

    linear = Mapped("linear", SIZE, f"{other} 0")
    for node in (linear.node, cow):
        fill(node)
    fresh = {name.replace("dirty", "fresh"): how
             for name, how in WRITE.items()}
    for _ in range(ROUNDS):
        for name, how in fresh.items():
            device = Device([], [], SIZE, on=(below, cow), keep=True)
            assert not device.stat("dirty_blocks")
            measure(linear, device, {name: how})
            assert device.stat("dirty_blocks") == SIZE // BLOCK
            assert not device.stat("copy_ups")
            device.close()
    device = Device([], [], SIZE, on=(below, cow))
    fill(device.node)
    for _ in range(ROUNDS):
        measure(linear, device, {**READ, **WRITE})
    assert device.stat("dirty_blocks") == SIZE // BLOCK
    assert not device.stat("copy_ups")
    say(f"| on {disk} | dm-linear | lazyframe | ratio |")
    say("|---|---|---|---|")
    slow = []
    for name in (*READ, *WRITE, *fresh):
        one, two = (statistics.median(speeds[name, which])
                    for which in ("linear", "here"))
        ratio = statistics.median(
            b / a for a, b in zip(speeds[name, "linear"],
                                  speeds[name, "here"]))
        say(f"| {name} | {one / MIB:.0f} MiB/s | {two / MIB:.0f} MiB/s | "
            f"{ratio:.2f} |")
        if ratio < FLOOR:
            slow.append(name)
    assert not slow, slow


@test("in memory, all cost is that of the way there", 120)
def _():
    compare("/dev/ram0")


@test("on a virtual disk", 240)
def _():
    if not os.environ.get("LINEAR_DISK"):
        raise Skip("LINEAR_DISK does not name a disk that may be overwritten")
    compare(os.environ["LINEAR_DISK"])


finish()
EOF2
rmmod brd 2>/dev/null
finish

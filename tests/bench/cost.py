#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""cost.py READS SIZE random|sequential scattered|huge NAME=NODE...: what a read costs.

Prints "NAME NANOSECONDS SWITCHES" a line: the median of five rounds, what the loop
itself takes left out, and how often all processes of this machine were switched,
for each read, of SIZE bytes at aligned places of the first 16 MiB, direct, into
memory whose pages follow each other nowhere, as in an old machine, or in a huge page.
"""
import ctypes
import mmap
import os
import random
import statistics
import sys
import time

SPAN = 16 << 20
HUGE = 2 << 20
ROUNDS = 5


def switches():
    with open("/proc/stat") as f:
        return next(int(line.split()[1]) for line in f
                    if line.startswith("ctxt"))


def took(fd, page, offsets):
    start = time.perf_counter_ns()
    for off in offsets:
        os.preadv(fd, page, off)
    return (time.perf_counter_ns() - start) / len(offsets)


def memory(size, scattered):
    """Lies in a huge page if it is not to be scattered."""
    area = mmap.mmap(-1, 2 * HUGE)
    area.madvise(mmap.MADV_NOHUGEPAGE if scattered else mmap.MADV_HUGEPAGE)
    start = -ctypes.addressof(ctypes.c_char.from_buffer(area)) % HUGE
    pages = list(range(start, start + size, mmap.PAGESIZE))
    if scattered:
        random.Random(2).shuffle(pages)
    for at in pages:
        area[at] = 1
    return memoryview(area)[start:start + size]


def main():
    reads, size = int(sys.argv[1]), int(sys.argv[2])
    places = range(0, SPAN, size)
    if sys.argv[3] == "random":
        offsets = random.Random(1).choices(places, k=reads)
    else:
        offsets = [places[i % len(places)] for i in range(reads)]
    page = [memory(size, sys.argv[4] == "scattered")]
    for arg in sys.argv[5:]:
        name, node = arg.split("=")
        fd = os.open(node, os.O_RDONLY | os.O_DIRECT)
        end = [os.lseek(fd, 0, os.SEEK_END)] * reads
        took(fd, page, offsets)
        cost, empty, switched = [], [], []
        for _ in range(ROUNDS):
            empty.append(took(fd, page, end))
            before = switches()
            cost.append(took(fd, page, offsets))
            switched.append((switches() - before) / reads)
        os.close(fd)
        print(name, round(statistics.median(cost) - statistics.median(empty)),
              f"{statistics.median(switched):.2f}", flush=True)


main()

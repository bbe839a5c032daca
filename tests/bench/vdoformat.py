#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""vdoformat.py DEVICE SECTORS: makes DEVICE, all of it zeros, a new VDO of so many
logical sectors, and prints its dm-vdo line. Debian 12 has no tool for that.

For reading what was compressed, not for keeping it: there is no room for an index,
so nothing is deduplicated, and no more is written than the two blocks that the kernel
looks for. Blocks have 4 KiB.
"""
import os
import struct
import sys
import uuid
import zlib

NONCE = 0x1a27f4a3e
SUPER = 2			# block; before it are the geometry's and the index's
ROOTS = 60			# trees of the block map
SUMMARY = 64			# blocks
JOURNAL = 8192			# blocks
SLAB = 8192			# blocks
SLAB_JOURNAL = 224		# blocks of each slab
COUNTS = 8 * (512 - 8)		# reference counts in a block
NEW = 1
# component: its number, versions
LAYOUT, RECOVERY_JOURNAL, DEPOT, BLOCK_MAP = (1, 3, 0), (2, 7, 0), (3, 2, 0), (4, 2, 0)


def component(name, data, size=None):
    return struct.pack("<IIIQ", *name, len(data) if size is None else size) + data


def summed(data):
    return data + struct.pack("<I", zlib.crc32(data, 0xffffffff))


def geometry():
    data = struct.pack("<IQ16sQ", 0, NONCE, uuid.UUID(int=NONCE).bytes, 0)
    # the regions of index and data
    data += struct.pack("<IQIQ", 0, 1, 1, SUPER)
    # an index of 256 MiB of memory, not sparse
    data += struct.pack("<IIB", 0xfffffffd, 0, 0)
    return summed(b"dmvdo001" +
                  component((5, 5, 0), data, 8 + 20 + len(data) + 4))


def super_block(physical, logical):
    first = SUPER + 1
    sizes = {0: ROOTS, 1: physical - first - ROOTS - SUMMARY - JOURNAL,
             2: JOURNAL, 3: SUMMARY}
    layout = struct.pack("<QQB", physical, physical, len(sizes))
    at = first
    for number, blocks in sizes.items():
        layout += struct.pack("<BQQQ", number, at, 0, blocks)
        at += blocks
    counts = -(-(SLAB - SLAB_JOURNAL) // COUNTS)
    depot = first + ROOTS
    data = struct.pack("<III", 0, 67, 0)
    # what the whole of it is
    data += struct.pack("<IIIQQ", 41, 0, NEW, 0, 0)
    data += struct.pack("<6Q", logical, physical, SLAB, JOURNAL, SLAB_JOURNAL,
                        NONCE)
    data += component(LAYOUT, layout)
    data += component(RECOVERY_JOURNAL, struct.pack("<3Q", 1, 0, 0))
    # of the journal of a slab: when it is flushed, when it blocks, when it is scrubbed
    data += component(DEPOT, struct.pack(
        "<9QB", SLAB, SLAB - SLAB_JOURNAL - counts, counts, SLAB_JOURNAL,
        168, 208, 222, depot, depot + sizes[1] // SLAB * SLAB, 1))
    data += component(BLOCK_MAP, struct.pack("<4Q", 1, 0, first, ROOTS))
    return summed(component((0, 12, 0), data, len(data) + 4))


def main():
    device, sectors = sys.argv[1], int(sys.argv[2])
    with open(device, "r+b") as f:
        physical = f.seek(0, os.SEEK_END) >> 12
        for block, data in ((0, geometry()),
                            (SUPER, super_block(physical, sectors >> 3))):
            assert len(data) <= 512
            f.seek(block << 12)
            f.write(data.ljust(4096, b"\0"))
        f.flush()
        os.fsync(f.fileno())
    print(f"0 {sectors} vdo V4 {device} {physical} 4096 32768 {JOURNAL // 4} "
          "deduplication off compression on")


main()

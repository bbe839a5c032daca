#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""seekable.py IMAGE DIR: objects that hold IMAGE, made without lazyframe.

Frames come from the zstd and lz4 commands, the seek table is written here from
the published format alone (zstd_seekable_compression_format.md):

	Skippable_Magic_Number	0x184D2A5E		4 bytes, little-endian
	Frame_Size		of what follows		4
	per frame: Compressed_Size 4, Decompressed_Size 4, [Checksum 4]
	Seek_Table_Footer: Number_Of_Frames 4, Seek_Table_Descriptor 1 (bit 7:
		checksums are there), Seekable_Magic_Number 0x8F92EAB1 4

A checksum is the low half of the XXH64 of a frame's content. A zstd frame that
was made with --check ends with the same four bytes, so they are taken there.
"""
import os
import struct
import subprocess
import sys


def seek_table(entries, checksums):
    body = b""
    for csize, usize, checksum in entries:
        body += struct.pack("<II", csize, usize)
        if checksums:
            body += struct.pack("<I", checksum)
    body += struct.pack("<IBI", len(entries), 0x80 if checksums else 0,
                        0x8F92EAB1)
    return struct.pack("<II", 0x184D2A5E, len(body)) + body


def even(size, frame):
    return [min(frame, size - at) for at in range(0, size, frame)]


def varying(size):
    cuts = [1, 4095, 70001, 4096, 300000, 513, 262144]
    return cuts + [size - sum(cuts)]


def make(path, data, cuts, tool, checksums):
    entries = []
    at = 0
    with open(path, "wb") as f:
        for n in cuts:
            frame = subprocess.run(tool, input=data[at:at + n], check=True,
                                   stdout=subprocess.PIPE).stdout
            f.write(frame)
            entries.append((len(frame), n, int.from_bytes(frame[-4:], "little")))
            at += n
        f.write(seek_table(entries, checksums))


def main(image, directory):
    with open(image, "rb") as f:
        data = f.read()
    zstd = ["zstd", "-qc", "--check"]
    lz4 = ["lz4", "-qc", "-BI", "--content-size"]
    size = len(data)
    for name, cuts, tool, checksums in (
            ("even-checksums.zst", even(size, 65536), zstd, True),
            ("even.zst", even(size, 65536), zstd, False),
            ("varying-checksums.zst", varying(size), zstd, True),
            ("varying.zst", varying(size), zstd, False),
            ("one-frame.zst", [size], zstd, True),
            ("level19.zst", even(size, 131072), zstd + ["-19"], True),
            ("unchecked.zst", varying(size), ["zstd", "-qc", "--no-check"], False),
            ("even.lz4", even(size, 65536), lz4, False),
            ("varying.lz4", varying(size), lz4, False),
            ("high.lz4", even(size, 131072), lz4 + ["-9"], False)):
        make(os.path.join(directory, name), data, cuts, tool, checksums)


main(*sys.argv[1:])

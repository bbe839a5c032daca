#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""image.py NAME FILE: makes a test image; the same bytes each time.

	tiny	333 bytes
	odd	1 MiB and a byte, text
	sparse	12 MiB and 511 bytes, mostly holes, data at both ends
	zero	3000777 bytes, all zero
	random	3000001 bytes that no codec makes smaller
	mixed	some 5 MB, text, zeros and noise in turn
	large	the same, but more than one frame of 16 MiB
	long	66 MiB without a zero block, half of it noise
	faults	8 MiB of noise
"""
import random
import sys


def text(r, size):
    line = b"".join(b"%d %x\n" % (i, r.getrandbits(20)) for i in range(20000))
    return (line * (size // len(line) + 1))[:size]


def mixed(r, size):
    made = 0
    while made < size:
        n = min(r.randrange(1, 700000), size - made)
        kind = r.randrange(20)
        if kind < 14:
            yield text(r, n)
        elif kind == 14:
            yield bytes(n)
        else:
            yield r.randbytes(n)
        made += n


def main(name, path):
    r = random.Random(name)
    with open(path, "wb") as f:
        if name == "tiny":
            f.write(text(r, 333))
        elif name == "odd":
            f.write(text(r, (1 << 20) + 1))
        elif name == "sparse":
            size = (12 << 20) + 511
            for at, n in ((0, 5000), (1 << 20, 300000), (9000001, 1),
                          (10 << 20, 700000), (size - 7, 7)):
                f.seek(at)
                f.write(text(r, n))
        elif name == "zero":
            f.truncate(3000777)
        elif name == "random":
            f.write(r.randbytes(3000001))
        elif name in ("mixed", "large"):
            for piece in mixed(r, 5234567 if name == "mixed" else 18765432):
                f.write(piece)
        elif name == "long":
            for _ in range(66 * 8):
                f.write(r.randbytes(65536) + text(r, 65536))
        elif name == "faults":
            f.write(r.randbytes(8 << 20))
        else:
            sys.exit(f"image.py: no image {name}")


main(*sys.argv[1:])

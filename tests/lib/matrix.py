#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""matrix.py: reads one block for each line of its input, all at the same time.

A line is "NAME DEVICE IMAGE BLOCK". When all reads have ended, prints a line for
each: "NAME right SECONDS" if it got the image's 4 KiB, "NAME wrong SECONDS" if
it got others, "NAME error SECONDS" if the read failed."""
import mmap
import os
import sys
import threading
import time

BLOCK = 4096


def read(line, results):
    name, device, image, block = line.split()
    start = time.monotonic()
    buffer = mmap.mmap(-1, BLOCK)
    try:
        fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
        n = os.preadv(fd, [buffer], int(block) * BLOCK)
        os.close(fd)
        with open(image, 'rb') as f:
            f.seek(int(block) * BLOCK)
            right = n == BLOCK and buffer[:] == f.read(BLOCK)
        result = 'right' if right else 'wrong'
    except OSError:
        result = 'error'
    results.append(f'{name} {result} {time.monotonic() - start:.1f}')


def main():
    results = []
    threads = [threading.Thread(target=read, args=(line, results))
               for line in sys.stdin]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print('\n'.join(results))


main()

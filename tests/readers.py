#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""readers.py IMAGE FIRST COUNT DEVICE...

COUNT threads for each DEVICE read one of the 32 blocks of 4 KiB from block
FIRST on, with O_DIRECT, all at the same time. Status 0 if each got the image's
bytes."""
import mmap
import os
import sys
import threading

BLOCK = 4096


def read(device, image, block, wrong):
    try:
        fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
        buffer = mmap.mmap(-1, BLOCK)
        if os.preadv(fd, [buffer], block * BLOCK) != BLOCK or \
                buffer[:] != os.pread(image, BLOCK, block * BLOCK):
            wrong.append(f"{device}: block {block} is wrong")
        os.close(fd)
    except OSError as error:
        wrong.append(f"{device}: block {block}: {error}")


def main(image, first, count, *devices):
    wrong = []
    fd = os.open(image, os.O_RDONLY)
    threads = [threading.Thread(target=read, args=(
        device, fd, int(first) + i * 7 % 32, wrong))
        for device in devices for i in range(int(count))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit("\n".join(wrong) or 0)


main(*sys.argv[1:])

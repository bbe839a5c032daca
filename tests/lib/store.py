# SPDX-License-Identifier: GPL-2.0-only
"""The store on disk, written and read from the words of kmod/store_disk.h, and a
device with a store on it."""
import os
import shutil
import struct
import tempfile
import time

from lazyframe import xxh64
from rig import (DM, KIB, MIB, Device, Loop, Mapped, Server, sectors, undo,
                 wait_until)

BLOCK = 4096
UNIT = 4 * MIB
HEAD = struct.Struct("<Q16sQIIII16x")
ENTRY = struct.Struct("<QHHI")
assert HEAD.size == 64 and ENTRY.size == 16


class Shape:
    """Where everything is on a device of @bytes."""

    def __init__(self, size, segment=None):
        self.size = size
        self.segment = UNIT
        while self.segment < 32 * MIB and size // self.segment > 256:
            self.segment *= 2
        if segment:
            self.segment = segment
        self.layers = min(max(size // MIB // 128 * 128, 128), 65408)
        self.units = self.segment // UNIT
        self.slots = self.units * 256 - 4
        self.summaries = 2 + self.layers // 128
        self.segments = size // self.segment
        while self.end() > size:
            self.segments -= 1

    def end(self):
        end = self.summaries + self.segments * self.units
        self.data = -(-end // 256) * 256
        return self.data * BLOCK + self.segments * self.segment

    def summary(self, n):
        return (self.summaries + n * self.units) * BLOCK

    def place(self, n):
        return self.data * BLOCK + n * self.segment


def super_block(shape, uuid):
    head = struct.pack("<8sII16sQII", b"LZYSTORE", 1, shape.segment, uuid,
                       shape.size, shape.segments, shape.layers)
    head += bytes(BLOCK - 8 - len(head))
    return head + struct.pack("<Q", xxh64(head))


def format_store(path, size=None, uuid=None, segment=None):
    """@path: a file or a device."""
    with open(path, "r+b") as f:
        size = size or f.seek(0, os.SEEK_END)
        shape = Shape(size, segment)
        uuid = uuid or os.urandom(16)
        block = super_block(shape, uuid)
        f.seek(0)
        f.write(block * 2 + bytes((shape.summaries - 2) * BLOCK))
        for n in range(shape.segments):
            f.seek(shape.summary(n))
            f.write(bytes(BLOCK))
        f.flush()
        os.fsync(f.fileno())
    return shape


class Content:
    """What is stored, by a function that reads bytes."""

    def __init__(self, read):
        block = read(0, BLOCK)
        magic, version, segment, self.uuid, size, segments, layers = \
            struct.unpack_from("<8sII16sQII", block)
        assert (magic, version) == (b"LZYSTORE", 1)
        self.shape = shape = Shape(size, segment)
        assert (shape.segments, shape.layers) == (segments, layers)
        table = read(2 * BLOCK, layers * 32)
        self.layers = {}
        for i in range(layers):
            entry = table[32 * i:32 * i + 32]
            if any(entry) and xxh64(entry[:28]) & 0xffffffff == \
                    struct.unpack_from("<I", entry, 28)[0]:
                self.layers[i] = entry[:16]
        self.frames = {}		# (uuid, C offset) -> (offset, sectors, sum)
        self.begun = {}			# segment -> sequence
        newest = {}
        for n in range(segments):
            data = read(shape.summary(n), shape.units * BLOCK)
            digest, store, sequence, magic, number, entries, log = \
                HEAD.unpack_from(data)
            if magic != 0x79726d73 or store != self.uuid or \
                    digest != xxh64(data[8:]) or number != n:
                continue
            self.begun[n] = sequence
            for i in range(entries):
                key, offset, count, check = ENTRY.unpack_from(data, 64 + 16 * i)
                uuid = self.layers.get(key >> 44)
                name = uuid, key & (1 << 44) - 1
                if uuid and newest.get(name, -1) < sequence:
                    newest[name] = sequence
                    self.frames[name] = (shape.place(n) + 512 * offset, count,
                                         check)

    def wrong(self, read):
        """Frames whose bytes are not what their sum says."""
        return [name for name, (at, count, check) in self.frames.items()
                if xxh64(read(at, count * 512), xxh64(name[0], name[1])) &
                0xffffffff != check]


class Store(Mapped):
    """A store on a file of its own, new or a copy of the file @like, or on the
    device @on."""
    NAMES = ("hits", "misses", "stored", "skipped", "evicted", "moved", "bad",
             "errors")

    def __init__(self, size=64 * MIB, on=None, fresh=True, features="",
                 like=None):
        self.loop = None
        if not on:
            fd, self.path = tempfile.mkstemp(suffix=".store")
            os.ftruncate(fd, size)
            os.close(fd)
            if like:
                shutil.copyfile(like, self.path)
                size, fresh = os.path.getsize(like), False
            undo(lambda: os.unlink(self.path))
            self.loop = Loop(self.path)
            undo(self.loop.close)
            on = self.loop.name
        else:
            self.path = on
        self.shape = format_store(on, size) if fresh else None
        super().__init__("lazyframe-store", size, f"{on} {features}".strip())

    def info(self):
        words = DM.status(self.name).split()
        if words == ["-"]:
            return {"mode": "-"}
        used, room = words[2].split("/")
        out = dict(zip(self.NAMES, map(int, words[4:12])))
        out.update(uuid=words[0], mode=words[1], used=int(used),
                   room=int(room), frames=int(words[3]),
                   scrub=" ".join(words[12:-1]), memory=int(words[-1]))
        return out

    def suspend(self):
        DM.call(DM.SUSPEND, self.name, DM.F_SUSPEND | DM.SKIP_LOCKFS)

    def resume(self):
        DM.call(DM.SUSPEND, self.name)

    def again(self):
        """What is in memory goes; what is on disk comes back."""
        self.suspend()
        self.resume()

    def settled(self, frames, limit=20):
        """Wait until so many are stored, or were skipped."""
        def done():
            info = self.info()
            return info["stored"] + info["skipped"] >= frames
        wait_until(done, f"{frames} frames in the store", limit)

    def idle(self):
        """Wait until nothing more is stored, for a moment."""
        last = None
        while last != (last := self.info()["stored"]):
            time.sleep(0.003)

    def content(self):
        return Content(self.at)

    def at(self, offset, length):
        fd = os.open(self.path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            return os.pread(fd, length, offset)
        finally:
            os.close(fd)

    def change(self, offset, data):
        with open(self.path, "r+b") as f:
            f.seek(offset)
            f.write(data)
            f.flush()
            os.fsync(f.fileno())


def check_all(device, step=64 * KIB):
    for at in range(0, device.size, step):
        device.check(at, min(step, sectors(device.size) * 512 - at))


def gone(device):
    """The last device of a layer takes its frames from memory."""
    device.release()
    device.close()


def filled(store, layer, **kw):
    """All of a layer is in the store, and nothing of it in memory; gives what
    the device counted, and what the helper was asked for."""
    device = Device([layer], store=store, **kw)
    server = Server(layer)
    before = store.info()
    check_all(device)
    store.settled(before["stored"] + before["skipped"] + len(layer.frames))
    server.close()
    stats = device.adds_up()
    gone(device)
    return stats, len(server.log)


def read_all(layer, store, server=True, **kw):
    """Read by a new device: its counters, and what the helper was asked for."""
    asked = Server(layer) if server else None
    device = Device([layer], store=store, **kw)
    check_all(device)
    stats = device.adds_up()
    gone(device)
    if asked:
        asked.close()
    return stats, len(asked.log) if asked else 0

# SPDX-License-Identifier: GPL-2.0-only
"""Every state that a power cut can leave behind, and whether it is a right one.

	Logged		one disk below dm-log-writes, cut into a meta and a COW slice
	Model		what was written, flushed, and when, between marks in the log
	Checker		replays the log and compares each point with the model

dm-log-writes logs a plain write in front of the next flush that began after the
write's end, a write with FUA when it ends, a mark when it is made. So in front
of a flush lies all that was in the disk's cache: a power cut may leave any part
of it behind, in sectors. What lies in front of the last flush is there.

One disk gives one order; but the slices are two devices, each with a cache of
its own: a flush through one says nothing of the other. dm-delay (of no time) moves a
flush to where its slice begins, so the log tells which it was; dm-linear does
so before Linux 6.11 only.

A discard is replayed as garbage: nobody may rely on what is left then. A write
with FUA is replayed before plain writes that had ended but were not flushed:
no workload may do both to one block.
"""
import os
import random
import struct
import tempfile

import overlay
from overlay import BLOCK, Bad
from rig import DM, Loop, Mapped, undo

FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
HEAD = struct.Struct("<QQQQ")
SECTOR = 512
SECTORS = BLOCK // SECTOR
GARBAGE = bytes.fromhex("dbadd15c") * (SECTOR // 4)


def round_up(n, to=1 << 20):
    return -(-n // to) * to


class Logged:
    """@meta, @cow: bytes. Use .meta and .cow, then close(), then entries()."""

    def __init__(self, meta, cow, log=4 << 30):
        self.meta_bytes, self.cow_bytes = round_up(meta), round_up(cow)
        self.size = self.meta_bytes + self.cow_bytes
        self.loops = []
        self.log_path = self.file(log)
        log_loop = self.loop(self.log_path)
        disk = self.loop(self.file(self.size))
        self.log = Mapped("log-writes", self.size,
                          f"{disk.name} {log_loop.name}")
        self.meta = Mapped("delay", self.meta_bytes, f"{self.log.node} 0 0")
        self.cow = Mapped("delay", self.cow_bytes,
                          f"{self.log.node} {self.meta_bytes // 512} 0")

    def file(self, size):
        fd, path = tempfile.mkstemp(suffix=".disk")
        os.ftruncate(fd, size)
        os.close(fd)
        undo(lambda: os.unlink(path))
        return path

    def loop(self, path):
        loop = Loop(path)
        undo(loop.close)
        return loop

    def mark(self, text):
        self.log.message(f"mark {text}")

    def flush(self):
        for device in (self.meta, self.cow):
            device.flush()
            device.release()

    def close(self):
        """No more writes: the log is complete."""
        for device in (self.cow, self.meta, self.log):
            device.close()

    def entries(self):
        return read_log(self.log_path)


def read_log(path):
    """List of (flags, byte offset, data); data of a discard is its length."""
    out = []
    with open(path, "rb") as f:
        magic, version, count, unit = struct.unpack("<QQQI", f.read(28))
        assert (magic, version) == (0x6a736677736872, 1), "not a log"
        f.seek(unit)
        for _ in range(count):
            head = f.read(unit)
            sector, sectors, flags, length = HEAD.unpack_from(head)
            if flags & MARK:
                data = head[HEAD.size:HEAD.size + length].decode()
            elif flags & DISCARD:
                data = sectors * unit
            else:
                data = f.read(sectors * unit)
                assert len(data) == sectors * unit, "the log is cut short"
            out.append((flags, sector * unit, data))
    return out


class Disk:
    """A sparse disk in memory that can go back to where it was."""

    def __init__(self):
        self.pages = {}
        self.touched = set()
        self.journal = None

    def read(self, offset, length):
        first, last = offset // BLOCK, (offset + length - 1) // BLOCK
        if not offset % BLOCK and length == BLOCK:
            return self.pages.get(first, bytes(BLOCK))
        data = b"".join(self.pages.get(n, bytes(BLOCK))
                        for n in range(first, last + 1))
        skip = offset - first * BLOCK
        return data[skip:skip + length]

    def write(self, offset, data):
        at = 0
        while at < len(data):
            page, skip = divmod(offset + at, BLOCK)
            n = min(BLOCK - skip, len(data) - at)
            old = self.pages.get(page)
            if self.journal is not None:
                self.journal.append((page, old))
            if n == BLOCK:
                self.pages[page] = data[at:at + n]
            else:
                old = old or bytes(BLOCK)
                self.pages[page] = old[:skip] + data[at:at + n] + \
                    old[skip + n:]
            self.touched.add(page)
            at += n

    def apply(self, entry):
        flags, offset, data = entry
        if flags & DISCARD:
            data = GARBAGE * (data // SECTOR)
        self.write(offset, data)

    def tear(self, entry, rng):
        """Some of its sectors only."""
        flags, offset, data = entry
        if flags & DISCARD:
            data = GARBAGE * (data // SECTOR)
        for at in range(0, len(data), SECTOR):
            if rng.random() < 0.5:
                self.write(offset + at, data[at:at + SECTOR])

    def begin(self):
        self.journal = []

    def back(self):
        for page, old in reversed(self.journal):
            if old is None:
                self.pages.pop(page, None)
            else:
                self.pages[page] = old
            self.touched.add(page)
        self.journal = None


class Slice:
    """Part of a Disk."""

    def __init__(self, disk, start):
        self.disk, self.start = disk, start

    def __call__(self, offset, length):
        return self.disk.read(self.start + offset, length)


class Model:
    """What a device must show. The workload calls write() and zero() before it
    does so, and mark() behind each flush; the checker calls follow() and
    allows()."""

    def __init__(self, image, size):
        self.image = image		# function(offset, length)
        self.size = size
        self.windows = [[]]		# operations since the last mark
        self.marks = []			# what each made durable; None: all
        self.restart()

    def restart(self):
        """To before the first mark."""
        self.durable = {}		# block -> bytes
        self.latest = {}
        self.pending = {}		# block -> [(first byte, bytes)]

    def write(self, offset, data):
        self.windows[-1].append((offset, data))

    def zero(self, offset, length):
        self.write(offset, bytes(length))

    def mark(self, operations=None):
        """All is durable that ended by now, or only these operations. Gives
        the text for the log."""
        self.marks.append(operations)
        self.windows.append([])
        return f"m{len(self.marks) - 1}"

    # ---- while replaying

    def value(self, of, n):
        if n in of:
            return of[n]
        return self.image(n * BLOCK, BLOCK).ljust(BLOCK, b"\0")

    def parts(self, operations):
        for offset, data in operations:
            data = data[:max(0, self.size - offset)]
            at = 0
            while at < len(data):
                n, skip = divmod(offset + at, BLOCK)
                part = data[at:at + BLOCK - skip]
                yield n, skip, part
                at += len(part)

    def expect(self, window):
        """These operations may show from now on."""
        for n, skip, part in self.parts(self.windows[window]):
            old = self.value(self.latest, n)
            self.latest[n] = old[:skip] + part + old[skip + len(part):]
            self.pending.setdefault(n, []).append((skip, part))

    def follow(self, mark):
        """Go past a mark: gives the blocks that must show something now."""
        changed = set()
        if self.marks[mark] is None:
            for n in self.pending:
                self.durable[n] = self.latest[n]
            changed.update(self.pending)
            self.pending = {}
        else:
            for n, skip, part in self.parts(self.marks[mark]):
                old = self.value(self.durable, n)
                self.durable[n] = old[:skip] + part + old[skip + len(part):]
                left = []
                for other, data in self.pending.pop(n, ()):
                    # what was written before to the same sectors is past
                    for i in range(0, len(data), SECTOR):
                        if not skip <= other + i < skip + len(part):
                            left.append((other + i, data[i:i + SECTOR]))
                if left:
                    self.pending[n] = left
                changed.add(n)
        return changed

    def why_not(self, n, got):
        """None, or what is wrong with block @n."""
        old = self.value(self.durable, n)
        if got == old or (n in self.pending and got == self.latest[n]):
            return None
        for at in range(0, min(BLOCK, self.size - n * BLOCK), SECTOR):
            sector = got[at:at + SECTOR]
            if sector == old[at:at + SECTOR]:
                continue
            if any(skip <= at < skip + len(data) and
                   sector == data[at - skip:at - skip + SECTOR].ljust(
                       len(sector), b"\0")
                   for skip, data in self.pending.get(n, ())):
                continue
            return f"block {n}, byte {at}: {sector[:8].hex()}, not " \
                f"{old[at:at + 8].hex()}" + \
                (" nor what was written since" if n in self.pending else "")
        return None


class PairView:
    """A disk seen as a meta and a COW device."""

    def __init__(self, disk, meta_bytes, image):
        self.disk, self.split, self.image = disk, meta_bytes, image
        self.meta, self.cow = Slice(disk, 0), Slice(disk, meta_bytes)
        self.pair = None
        self.was = {}, {}
        self.out = set()

    def changed(self):
        """Load; gives the blocks that may show something else than before."""
        if self.pair is None:
            self.pair = overlay.Pair(self.meta, self.cow, load=False)
        first = self.split // BLOCK
        self.out.update(page - first for page in self.disk.touched
                        if page >= first)
        self.disk.touched.clear()
        self.pair.load()
        out, self.out = self.out, set()
        now = self.pair.dirty, self.pair.zero
        for new, old in zip(now, self.was):
            for leaf in {*new, *old}:
                out.update(overlay.bits(
                    new.get(leaf, 0) ^ old.get(leaf, 0),
                    leaf * overlay.LEAF_BLOCKS))
        self.was = now
        return {n for n in out if n < self.pair.tree.blocks}

    def block(self, n):
        return self.pair.block(n, self.image).ljust(BLOCK, b"\0")


class PlainView:
    """A disk that is the device."""

    def __init__(self, disk):
        self.disk = disk

    def changed(self):
        out = set(self.disk.touched)
        self.disk.touched.clear()
        return out

    def block(self, n):
        return self.disk.read(n * BLOCK, BLOCK)


class Checker:
    """@samples: states between two flushes. @visit: called with this, at all
    points. @lossy: an injected fault, function(entry): is this write lost?
    @split: where the second device begins."""

    def __init__(self, disk, view, model, seed=0, samples=1, visit=None,
                 lossy=None, split=None):
        self.split = split
        self.disk, self.view, self.model = disk, view, model
        self.rng = random.Random(seed)
        self.samples, self.visit, self.lossy = samples, visit, lossy
        self.points, self.violations = 0, []
        self.open = set()		# blocks to look at
        self.started = False

    def point(self, where, exact=()):
        if not self.started:
            return
        self.points += 1
        self.open.update(exact)
        try:
            self.open |= self.view.changed()
        except Bad as bad:
            self.violations.append(f"{where}: {bad}")
            return
        wrong = set()
        for n in self.open:
            why = self.model.why_not(n, self.view.block(n))
            if why:
                wrong.add(n)
                self.violations.append(f"{where}: {why}")
        # what was wrong shall be looked at again
        self.open = wrong
        if self.visit:
            self.visit(self)

    def cached(self, run, where):
        """Parts of what was in the disk's cache."""
        for sample in range(self.samples):
            self.disk.begin()
            keep = self.rng.choice((0.1, 0.5, 0.9))
            for entry in run:
                dice = self.rng.random()
                if dice < keep:
                    self.disk.apply(entry)
                elif dice < keep + 0.1:
                    self.disk.tear(entry, self.rng)
            self.point(f"{where}, sample {sample}")
            self.disk.back()

    def second(self, entry):
        return self.split is not None and entry[1] >= self.split

    def replay(self, entries, start="start"):
        run = []			# in the caches
        for i, entry in enumerate(entries):
            self.entry = i
            flags, _, data = entry
            if flags & MARK:
                self.pass_mark(data, f"entry {i}", start)
            elif not flags & (FLUSH | FUA):
                run.append(entry)
            else:
                if flags & FLUSH and run:
                    if self.started:
                        self.cached(run, f"entry {i}")
                    left = []
                    for one in run:
                        if self.second(one) == self.second(entry):
                            self.apply(one)
                        else:
                            left.append(one)
                    run = left
                if len(data):
                    self.apply(entry)
                self.point(f"entry {i}")
        return self

    def pass_mark(self, text, where, start):
        if text == start:
            self.started = True
            self.point(f"{where}, start")
            self.model.expect(0)
        elif self.started and text[0] == "m" and text[1:].isdigit():
            mark = int(text[1:])
            self.point(f"{where}, mark {mark}", self.model.follow(mark))
            self.model.expect(mark + 1)

    def apply(self, entry):
        if not (self.started and self.lossy and self.lossy(entry)):
            self.disk.apply(entry)

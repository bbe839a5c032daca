#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# A power cut at any moment while frames come, move and go: what the store has
# then is right; the rest is absent. By the log of every write, and with its own
# reader (tests/lib/store.py); some of the states are mounted, too.
#
#   STORE_CUTS	states that are looked at, beside every flush (200)
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

modprobe -q -a dm-log-writes

python_tests <<'EOF'
from rig import *
from logwrites import FLUSH, FUA, MARK, Checker, Disk, read_log
from store import BLOCK, Content, Shape, Store, format_store

SEED = int(os.environ.get("STORE_SEED", "0")) or random.randrange(1 << 32)
CUTS = int(os.environ.get("STORE_CUTS", "200"))
rng = random.Random(SEED)
say(f"STORE_SEED={SEED}")
SIZE = 40 * MIB
FRAME = 64 * KIB


class Loss:
    """What a point may find: frames of these layers, and no others."""

    def __init__(self, layers):
        self.layers = {layer.uuid: layer for layer in layers}

    def why_not(self, uuid, cstart, data):
        layer = self.layers.get(uuid)
        if not layer:
            return "of no layer"
        frame = next((f for f in layer.frames if f[1] == cstart), None)
        if not frame:
            return "of no frame"
        want = layer.object[cstart:cstart + frame[3]]
        if data[:len(want)] != want:
            return "not the frame's bytes"
        return None


class StoreChecker(Checker):
    def __init__(self, disk, loss, seed, samples, visit=None, lossy=None):
        super().__init__(disk, None, None, seed, samples, visit, lossy)
        self.loss, self.started = loss, True
        self.known = {}			# place and name -> was it right
        self.found = 0

    def point(self, where, exact=()):
        self.points += 1
        touched, self.disk.touched = self.disk.touched, set()
        content = Content(self.disk.read)
        self.found = max(self.found, len(content.frames))
        old = self.known
        self.known = {}
        for name, (at, count, check) in content.frames.items():
            pages = range(at // BLOCK, (at + count * 512 - 1) // BLOCK + 1)
            key = name, at, count, check
            why = old.get(key, "new") if touched.isdisjoint(pages) else "new"
            if why == "new":
                why = self.loss.why_not(*name, self.disk.read(at, count * 512))
            self.known[key] = why
            if why:
                self.violations.append(f"{where}: {name[0].hex()} "
                                       f"+{name[1]} at {at}: {why}")
        if self.visit:
            self.visit(self)


def record():
    """Fill a logged store beyond its size: layers, and the log's entries."""
    cache_mib(2)

    def file(size):
        fd, path = tempfile.mkstemp(suffix=".disk")
        os.ftruncate(fd, size)
        os.close(fd)
        undo(lambda: os.unlink(path))
        loop = Loop(path)
        undo(loop.close)
        return path, loop

    log_path, log = file(1 << 30)
    disk_path, disk = file(SIZE)
    logged = Mapped("log-writes", SIZE, f"{disk.name} {log.name}")
    format_store(logged.node)
    store = Store(SIZE, on=logged.node, fresh=False)
    layers = [layer_of(rng.randbytes(6 * MIB), NONE, FRAME) for _ in range(14)]
    server = Server(*layers)
    devices = [Device([layer], store=store) for layer in layers]
    count = 6 * MIB // FRAME
    for n in range(scale(1800, 900)):
        device = rng.choice(devices)
        # some are hot
        at = rng.randrange(6) if rng.random() < 0.3 else rng.randrange(count)
        device.check(at * FRAME, BLOCK)
        if n % 100 == 99:
            store.again()
    info = store.info()
    say(info)
    assert info["evicted"] and info["moved"], info
    for device in devices:
        device.release()
        device.close()
    server.close()
    store.close()
    logged.close()
    return layers, read_log(log_path)


RECORDED = []


@test("after any of them, what is there is right", 300)
def _():
    layers, entries = record()
    RECORDED.extend((layers, entries))
    flushes = sum(1 for flags, _, _ in entries if flags & (FLUSH | FUA))
    samples = max(1, -(-CUTS // max(flushes, 1)))
    turns = sorted(rng.sample(range(len(entries) // 4, len(entries)), 6))

    def visit(checker):
        if not turns or checker.entry < turns[0]:
            return
        turns.pop(0)
        fd, path = tempfile.mkstemp(suffix=".cut")
        os.ftruncate(fd, SIZE)
        for page, data in checker.disk.pages.items():
            os.pwrite(fd, data, page * BLOCK)
        os.close(fd)
        loop = Loop(path)
        try:
            store = Store(SIZE, on=loop.name, fresh=False)
            device = Device([layers[0]], store=store)
            server = Server(layers[0])
            for at in range(0, device.size, FRAME):
                device.check(at, FRAME)
            info = store.info()
            # no entry of the index was wrong
            assert not info["errors"], info
            checker.mounted += 1
            server.close()
            device.release()
            device.close()
            store.close()
        finally:
            loop.close()
            os.unlink(path)

    checker = StoreChecker(Disk(), Loss(layers), SEED, samples, visit)
    checker.mounted = 0
    # from where it was formatted: before that it was no store
    first = next(i for i, e in enumerate(entries) if e[0] & FLUSH)
    for entry in entries[:first]:
        if not entry[0] & MARK:
            checker.disk.apply(entry)
    checker.replay(entries[first:])
    say(f"{checker.points} points, {len(checker.violations)} violations; "
        f"up to {checker.found} frames; {checker.mounted} mounted")
    assert checker.points >= CUTS and checker.found > 100
    assert checker.mounted == 6
    assert not checker.violations, checker.violations[:5]


@test("the checker finds a summary in front of its data, and one not wiped", 120)
def _():
    if not RECORDED:
        raise Skip("nothing was recorded")
    layers, entries = RECORDED
    shape = Shape(SIZE)
    first = next(i for i, e in enumerate(entries) if e[0] & FLUSH)

    def wipe(entry):
        """A summary that is wiped: lost."""
        flags, offset, data = entry
        return shape.summaries * BLOCK <= offset < shape.data * BLOCK and \
            not flags & MARK and not any(data)

    def data(entry):
        """Every third write to a segment: lost."""
        data.n += 1
        return entry[1] >= shape.data * BLOCK and not data.n % 3

    data.n = 0
    for lossy in (wipe, data):
        checker = StoreChecker(Disk(), Loss(layers), SEED, 1, None, lossy)
        for entry in entries[:first]:
            if not entry[0] & MARK:
                checker.disk.apply(entry)
        checker.replay(entries[first:])
        say(f"{lossy.__name__}: {len(checker.violations)} violations")
        assert checker.violations, lossy.__name__


finish()
EOF
finish

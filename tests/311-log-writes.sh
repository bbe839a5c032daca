#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Whatever a power cut leaves behind, all that was flushed is there and nothing
# is that was never written: each state that dm-log-writes saw is compared with
# a model. tests/lib/logwrites.py has how.
#
#   CRASH_OPS	operations of each workload (400)
#   CRASH_SEED	to repeat one
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

for target in log-writes delay; do
	modprobe -q "dm-$target"
	check "the kernel has dm-$target" \
		sh -c "dmsetup targets | grep -q '^$target '"
done
modprobe -q dm-dust
dmsetup targets | grep -q '^dust ' ||
	echo "# kernel $(uname -r) has no dm-dust: the debug kernel has"

python_tests <<'EOF2'
import subprocess
from rig import *
import logwrites
from logwrites import Checker, Disk, Logged, Model, PairView, PlainView

OPS = scale(int(os.environ.get("CRASH_OPS", "400")), 40)
SEED = int(os.environ.get("CRASH_SEED", "0")) or random.randrange(1 << 32)
ATTACH = max(1, int(os.environ.get("CRASH_ATTACH", "12")))
rng = random.Random(SEED)
say(f"CRASH_SEED={SEED}")


class Workload:
    """Writes of all kinds in places where it matters, and a model of it.

    @hot: (first byte, bytes): only there. A batch of operations that do not
    overlap is under way at once; between batches there may be a flush."""

    def __init__(self, device, model, logged, hot, zeroes=True):
        self.device, self.model, self.logged = device, model, logged
        self.hot, self.zeroes = hot, zeroes
        self.count = {}
        self.unflushed = set()		# blocks

    def place(self, most):
        start, length = rng.choice(self.hot)
        unit = rng.choice((512, 512, 4096, 4096, 4096))
        size = unit * rng.choice((1, 1, 1, 2, 3, rng.randrange(1, most)))
        size = min(size, length)
        at = start + rng.randrange(0, length - size + 1, 1) // unit * unit
        return max(at, start), size

    def operation(self):
        kinds = ["write"] * 8 + ["discard", "zeroes"] * self.zeroes
        kind = rng.choice(kinds)
        offset, length = self.place(12 if kind == "write" else 40)
        return kind, offset, length

    @staticmethod
    def with_data(kind, offset, length):
        return kind, offset, length, \
            rng.randbytes(length) if kind == "write" else bytes(length)

    def batch(self):
        out = []
        for _ in range(rng.choice((1, 1, 2, 4, 6))):
            kind, offset, length = self.operation()
            if all(offset >= o + n or o >= offset + length
                   for _, o, n, _ in out):
                out.append(self.with_data(kind, offset, length))
        return out

    def expect(self, kind, offset, length, data):
        if kind == "discard":
            start, end = -(-offset // BLOCK) * BLOCK, offset + length
            if end < self.model.size:
                end = end // BLOCK * BLOCK
            if start < end:
                self.model.zero(start, end - start)
        else:
            self.model.write(offset, data)

    def do(self, kind, offset, length, data, fua=False):
        if kind == "write":
            self.device.write(offset, data, fua=fua)
        elif kind == "discard":
            self.device.discard(offset, length)
        else:
            self.device.zeroes(offset, length)
        self.count[kind] = self.count.get(kind, 0) + 1

    def mark(self):
        self.logged.mark(self.model.mark())
        self.unflushed.clear()

    def run(self, operations, pause=True):
        done, begun = 0, time.monotonic()
        while done < operations:
            batch = self.batch()
            blocks = {n for _, o, l, _ in batch
                      for n in range(o // BLOCK, (o + l - 1) // BLOCK + 1)}
            fua = len(batch) == 1 and batch[0][0] == "write" and \
                not blocks & self.unflushed and rng.random() < 0.4
            self.unflushed |= blocks
            for one in batch:
                self.expect(*one)
            if len(batch) == 1:
                self.do(*batch[0], fua)
            else:
                errors = []

                def run(one):
                    try:
                        self.do(*one)
                    except BaseException as e:
                        errors.append(e)
                threads = [threading.Thread(target=run, args=(one,))
                           for one in batch]
                for t in threads:
                    t.start()
                for t in threads:
                    t.join()
                assert not errors, errors
            done += len(batch)
            if fua:
                self.mark()
            dice = rng.random()
            if dice < 0.3:
                self.device.flush()
                self.mark()
            elif dice < 0.32 and pause:
                # the module's own commit comes after a second
                time.sleep(rng.choice((1.0, 1.1, 1.5)))
            elif dice < 0.36 and pause:
                self.device.suspend()
                self.device.resume()
            elif dice < 0.38 and pause:
                self.device.message("commit")
        self.device.flush()
        self.mark()
        say(f"{self.count}, {time.monotonic() - begun:.0f} s, "
            f"{len(self.model.marks)} marks")

    def replay(self, operations):
        for operation in operations:
            if operation[0] == "flush":
                self.device.flush()
                self.mark()
            else:
                one = self.with_data(*operation)
                self.expect(*one)
                self.do(*one)
        self.device.flush()
        self.mark()
        say(f"{self.count}, {len(self.model.marks)} marks")


def fio(size, count, *options):
    """What fio would do to a device: (kind, offset, bytes)."""
    path = tempfile.mktemp(suffix=".iolog")
    subprocess.run(["fio", "--name=x", "--ioengine=null", f"--size={size}",
                    f"--number_ios={count}", f"--randseed={SEED}",
                    f"--write_iolog={path}", *options],
                   check=True, stdout=subprocess.DEVNULL)
    kinds = {"write": "write", "trim": "discard", "sync": "flush",
             "datasync": "flush"}
    with open(path) as f:
        for line in f:
            words = line.split()
            if words[2] in kinds:
                yield kinds[words[2]], int(words[3]), int(words[4])
    os.unlink(path)


def report(checker):
    say(f"{checker.points} points, {len(checker.violations)} violations")
    for line in checker.violations[:10]:
        say(line)


class Crashed:
    """A device as a power cut left it, attached for real."""

    def __init__(self, size):
        self.size, self.count = size, 0

    def __call__(self, checker, hot, meta_bytes):
        disk, pair = checker.disk, checker.view.pair
        paths = []
        for start, end in ((0, meta_bytes), (meta_bytes, 1 << 60)):
            fd, path = tempfile.mkstemp(suffix=".cut")
            for page, data in disk.pages.items():
                if start <= page * BLOCK < end:
                    os.pwrite(fd, data, page * BLOCK - start)
            size = meta_bytes if not start else pair.tree.cow_bytes
            os.ftruncate(fd, size)
            os.close(fd)
            paths.append(path)
        read_only = self.count % 2 == 0
        self.count += 1
        loops = [Loop(path) for path in paths]
        device = Block(self.size)
        name = f"cut{os.getpid()}-{self.count}"
        number = DM.call(DM.CREATE, name)["dev"]
        device.node = f"/dev/dm-{number & 0xff | number >> 12 & 0xfff00}"
        try:
            DM.load(name, sectors(self.size),
                    f"{loops[0].name} - {loops[1].name}" +
                    " 1 read_only" * read_only,
                    DM.READONLY if read_only else 0)
            DM.call(DM.SUSPEND, name)
            want = {start: bytearray().join(
                checker.view.block(n) for n in blocks_of(start, length))
                for start, length in hot}
            for start, length in hot:
                same(device.read(start, length), want[start][:length], start)
            if not read_only:
                self.goes_on(device, want, hot)
        finally:
            device.release()
            DM.call(DM.REMOVE, name)
            for loop in loops:
                loop.close()
        if not read_only:
            pair = overlay.pair(*paths)
            for start, length in hot:
                same(b"".join(pair.block(n, checker.view.image).ljust(
                    BLOCK, b"\0") for n in blocks_of(start, length))[:length],
                    want[start][:length], start)
        for path in paths:
            os.unlink(path)

    def goes_on(self, device, want, hot):
        """It can be written, and what it was is not lost by that."""
        for start, length in hot:
            offset = rng.randrange(length // 512) * 512
            data = rng.randbytes(min(512 * rng.randrange(1, 20),
                                     length - offset))
            device.write(start + offset, data)
            want[start][offset:offset + len(data)] = data
        device.flush()
        for start, length in hot:
            same(device.read(start, length), want[start][:length], start)


def blocks_of(start, length):
    """Of a place that begins with a block."""
    return range(start // BLOCK, -(-(start + length) // BLOCK))


# The checker first: without an overlay, as a disk is.

@test("the checker: a plain disk, 0 violations; and some once writes get lost",
      60)
def _():
    size = 4 * MIB
    logged = Logged(1 * MIB, size - 1 * MIB)
    model = Model(lambda offset, length: bytes(length), size)
    device = logged.log
    logged.mark("start")
    # a disk need not zero what is discarded: only writes
    work = Workload(device, model, logged, [(0, size)], zeroes=False)
    work.run(max(OPS // 2, 40), pause=False)
    logged.close()
    entries = logged.entries()
    good = Checker(d := Disk(), PlainView(d), model, samples=2)
    good.replay(entries)
    report(good)
    assert good.points > 20 and not good.violations
    model.restart()
    dice = random.Random(1)
    bad = Checker(d := Disk(), PlainView(d), model,
                  lossy=lambda entry: dice.random() < 0.05)
    bad.replay(entries)
    say("with a disk that loses one write of 20:")
    report(bad)
    assert bad.violations


def prepare(size, spots, seed):
    """An image of @size with content at @spots."""
    mine = random.Random(seed)
    layer = layer_of(noise(512 * KIB, mine), ZSTD, 64 * KIB)
    extents = []
    for start, length in spots:
        # the first part of each comes from the layer, the second is a hole
        part = min(length // 2 // BLOCK * BLOCK, len(layer.content))
        extents.append((start, part, 0, 0))
    return [layer], extents


def overlaid(size, spots, run):
    """Run a workload on a device over a log: gives entries, model, place."""
    layers, extents = prepare(size, spots, SEED)
    image = flat(layers, extents, size)
    tree = overlay.Tree(size)
    logged = Logged(1 * MIB + tree.region_bytes, tree.cow_bytes)
    device = Device(layers, extents, size, on=(logged.meta.node,
                                               logged.cow.node))
    Server(*layers)
    logged.flush()
    logged.mark("start")
    model = Model(lambda offset, length: image[offset:offset + length],
                  len(image))
    run(device, model, logged)
    for start, length in spots:
        device.check(start, length)
    device.close()
    logged.close()
    return logged.entries(), model, logged.meta_bytes, image


def judge(entries, model, split, image, samples=2, visit=None, lossy=None):
    disk = Disk()
    view = PairView(disk, split,
                    lambda offset, length: image[offset:offset + length])
    checker = Checker(disk, view, model, SEED, samples, visit, lossy, split)
    checker.replay(entries)
    report(checker)
    return checker


BIG = 130 * MIB + 1234
SPOTS = [(0, 512 * KIB), (64 * MIB - 256 * KIB, 512 * KIB),
         (128 * MIB - 128 * KIB, 256 * KIB), (130 * MIB - 64 * KIB,
                                              64 * KIB + 1536)]
saved = {}


@test("writes, partial writes, discards, zeroes, FUA: each point is right", 240)
def _():
    say(f"{OPS} operations")
    entries, model, split, image = overlaid(
        BIG, SPOTS, lambda *args: Workload(*args, SPOTS).run(OPS))
    crashed = Crashed(BIG)
    flushes = sum(1 for flags, _, _ in entries if flags & 3)
    every = max(1, flushes * 3 // ATTACH)
    turn = itertools.count()

    def visit(checker):
        if next(turn) % every == 0:
            try:
                crashed(checker, SPOTS, split)
            except (OSError, AssertionError, overlay.Bad) as e:
                checker.violations.append(f"attached: {e}")
    checker = judge(entries, model, split, image, visit=visit)
    say(f"{flushes} flushes and FUA writes, {crashed.count} of the points "
        "attached and compared by the module")
    saved["big"] = entries, model, split, image
    assert not checker.violations
    assert checker.points > flushes and crashed.count


def unflushed(entries):
    """The log of a disk whose flushes do nothing, two of three."""
    out, n = [], 0
    for flags, offset, data in entries:
        if flags & 1:
            n += 1
            if n % 3 and not len(data):
                continue
            flags = flags if n % 3 == 0 else flags & ~1
        out.append((flags & ~2, offset, data))
    return out


@test("the checker sees each fault that is injected", 120)
def _():
    if "big" not in saved:
        raise Skip("nothing was recorded")
    entries, model, split, image = saved["big"]
    dice = random.Random(2)
    faults = {
        "a COW device that loses one write of 20": lambda e:
            e[1] >= split and not e[0] & 3 and dice.random() < 0.05,
        "a meta device that loses one write of 20": lambda e:
            e[1] < split and dice.random() < 0.05,
    }
    for name, lossy in faults.items():
        model.restart()
        say(name + ":")
        assert judge(entries, model, split, image, 0, lossy=lossy).violations
    model.restart()
    say("flushes that do nothing:")
    assert judge(unflushed(entries), model, split, image, 4).violations


@test("what fio writes, trims and syncs: each point is right", 120)
def _():
    size, spots = 8 * MIB, [(0, 8 * MIB)]
    writes = list(fio(size, OPS // 2, "--rw=randwrite", "--bsrange=512-64k",
                      "--percentage_random=70", "--fsync=5", "--fdatasync=7"))
    trims = list(fio(size, OPS // 10, "--rw=randtrim", "--bsrange=4k-128k"))
    operations = []
    while writes or trims:
        source = rng.choices((writes, trims), (len(writes), len(trims)))[0]
        operations.append(source.pop(0))
    assert {kind for kind, _, _ in operations} == {"write", "discard", "flush"}
    entries, model, split, image = overlaid(
        size, spots, lambda *args: Workload(*args, spots).replay(operations))
    checker = judge(entries, model, split, image)
    assert not checker.violations and checker.points > OPS // 20


@test("many flushes at once share commits, and each keeps its promise", 120)
def _():
    size = 8 * MIB
    spots = [(i * MIB, MIB) for i in range(8)]

    def run(device, model, logged):
        lock = threading.Lock()
        errors = []

        def writer(start):
            mine = random.Random(start)
            try:
                for _ in range(max(6, OPS // 40)):
                    offset = start + 512 * mine.randrange(2000)
                    data = mine.randbytes(512 * mine.randrange(1, 20))
                    offset = min(offset, start + MIB - len(data))
                    with lock:
                        model.write(offset, data)
                    device.write(offset, data)
                    device.flush()
                    with lock:
                        logged.mark(model.mark([(offset, data)]))
            except BaseException as e:
                errors.append(e)
        device.fd(True, True)
        threads = [threading.Thread(target=writer, args=(start,))
                   for start, _ in spots]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not errors, errors
        device.flush()
        logged.mark(model.mark())

    entries, model, split, image = overlaid(size, spots, run)
    assert not judge(entries, model, split, image, 3).violations


finish()
EOF2
finish

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Who reads on is read ahead for, in batches that travel as few ranges; who
# jumps causes nothing but his own frame, unless around_kib says otherwise.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'EOF'
from rig import *

rng = random.Random(0x109)
SIZE = (64 if SLOW == 1 else 8) * MIB
MOST = 16 * MIB			# of one range, bytes of the object


def blend(size):
    """Half noise, half zeros, in runs of 2 KiB: a ratio of about two."""
    piece = b"".join(rng.randbytes(2048) + bytes(2048) for _ in range(256))
    return piece * (size // len(piece))


def repeat(size):
    piece = rng.randbytes(1 * MIB)
    return b"".join(struct.pack("<Q", i) + piece[8:]
                    for i in range(size // MIB))


random_content = repeat(max(SIZE, 16 * MIB))
soft_content = blend(16 * MIB)


class Merging(Server):
    """Serves as a helper that merges what it finds in the ring together. A
    transfer takes a while, during which requests gather."""

    def __init__(self, *layers, pace=0.02):
        self.ranges, self.pace = [], pace
        super().__init__(*layers)

    def run(self):
        try:
            todo = []
            while not self.stop:
                for r in self.helper.requests(0 if todo else 0.05):
                    if r.flags & Request.PROMOTE:
                        self.promotes.append(r)
                    else:
                        todo.append(r)
                        self.log.append(r)
                if not todo:
                    continue
                todo.sort(key=lambda r: (bool(r.flags & Request.PREFETCH),
                                         r.layer, r.offset))
                first = todo[0]
                near = sorted((r for r in todo if r.layer == first.layer),
                              key=lambda r: r.offset)
                run, end = [first], first.offset + first.length
                begin = first.offset
                for r in near:
                    if r.offset == end and end + r.length - begin <= MOST:
                        run.append(r)
                        end += r.length
                todo = [r for r in todo if r not in run]
                self.ranges.append((begin, end - begin))
                time.sleep(self.pace)
                for r in run:
                    self.answer(r)
        except Exception:
            self.error = traceback.format_exc()
        finally:
            self.helper.close()


def sequential(device, step, direct):
    for off in range(0, len(device.model), step):
        device.check(off, step, direct)


for what, content, codec, step, direct in (
        ("random", random_content[:SIZE], NONE, 128 * KIB, True),
        ("random", random_content[:SIZE // 2], ZSTD, 1 * MIB, True),
        ("random", random_content[:SIZE // 2], LZ4, 128 * KIB, False),
        ("soft", soft_content, ZSTD, 128 * KIB, True)):
    name = ("no codec", "zstd", "LZ4")[codec]

    @test(f"{len(content) >> 20} MiB of {what} content, {name}, "
          f"{step >> 10} KiB {'direct' if direct else 'buffered'}: at most "
          "one range for each 4 MiB", 60)
    def _():
        layer = layer_of(content, codec, 128 * KIB)
        device = Device([layer])
        server = Merging(layer)
        sequential(device, step, direct)
        s = device.stats()
        say(f"{len(server.ranges)} ranges, {len(server.log)} frames, "
            f"{len(server.promotes)} promotions, {s}")
        assert len({r.offset for r in server.log}) == len(server.log)
        assert len(server.log) == len(layer.frames)
        # the first windows are small, whatever the length
        most = len(content) // (4 * MIB)
        if len(content) < 64 * MIB:
            most = max(most, 2) + 3
        assert len(server.ranges) <= most, server.ranges
        assert s["frames_prefetched"] + s["frames_demanded"] == \
            len(layer.frames)


@test("reads of 4 KiB in sequence are read ahead for, too", 60)
def _():
    layer = layer_of(random_content[:16 * MIB], NONE, 128 * KIB)
    device = Device([layer])
    server = Merging(layer)
    sequential(device, 4 * KIB if SLOW == 1 else 64 * KIB, True)
    say(server.ranges)
    assert len(server.ranges) <= 10, server.ranges


@test("a cold read of 4 KiB asks for its own frame and for nothing else")
def _():
    layer = layer_of(soft_content[:16 * MIB], ZSTD, 128 * KIB)
    device = Device([layer])
    server = Server(layer)
    frames = list(range(128))
    rng.shuffle(frames)
    # no two neighbours in ascending order: that would be a sequence
    for n, i in enumerate(frames[:40], 1):
        device.check(i * 128 * KIB + 4096 * rng.randrange(31), 4096)
        assert len(server.log) == n, (n, server.log)
        assert server.log[-1].offset == layer.frames[i][1]
        assert not server.log[-1].flags
    time.sleep(0.3)
    assert len(server.log) == 40
    assert device.stat("frames_prefetched") == 0


@test("buffered, a random cold 4 KiB costs little more than its frame")
def _():
    layer = layer_of(soft_content[:16 * MIB], ZSTD, 128 * KIB)
    device = Device([layer])
    os.posix_fadvise(device.fd(False), 0, 0, os.POSIX_FADV_RANDOM)
    server = Server(layer)
    frames = rng.sample(range(128), 30)
    for i in frames:
        device.check(i * 128 * KIB + 8192, 4096, False)
    assert len(server.log) == 30, len(server.log)


@test("a reader that waits for what was only read ahead promotes it")
def _():
    layer = layer_of(random_content[:16 * MIB], NONE, 128 * KIB)
    device = Device([layer])
    hand = Hand()
    ahead, off = [], 0
    while not ahead:
        reader = Reader(device, off, 128 * KIB)
        got = []
        while not reader.done():
            for r in hand.requests(0.1):
                assert not r.flags & Request.PROMOTE, r
                if r.flags & Request.PREFETCH:
                    ahead.append(r)
                else:
                    hand.answer(r, {layer.uuid: layer})
        reader.good()
        off += 128 * KIB
        assert off < 8 * MIB, "no read-ahead"
    target = ahead[-1]
    reader = Reader(device, target.offset, 512)
    more = [r for r in [hand.next()]]
    promote = more[0]
    assert promote.flags & Request.PROMOTE, promote
    assert promote.tag == target.tag and promote.offset == target.offset
    # promoted once, however many wait
    second = Reader(device, target.offset + 512, 512)
    waiting(device, 2)
    hand.none()
    hand.answer(target, {layer.uuid: layer})
    reader.good()
    second.good()
    for r in ahead[:-1]:
        hand.answer(r, {layer.uuid: layer})


@test("demand is posted before what is read ahead")
def _():
    layer = layer_of(random_content[:16 * MIB], NONE, 64 * KIB)
    device = Device([layer])
    server = Server(layer)
    for off in range(0, 8 * MIB, 64 * KIB):
        device.check(off, 64 * KIB)
    mixed = 0
    for batch in server.batches:
        kinds = [bool(r.flags & Request.PREFETCH) for r in batch]
        mixed += True in kinds and False in kinds
        assert kinds == sorted(kinds), batch
    assert mixed


@test("read-ahead ends at the layer's end and after a jump")
def _():
    layer = layer_of(random_content[:4 * MIB], NONE, 64 * KIB)
    device = Device([layer])
    server = Server(layer)
    for off in range(3 * MIB, 4 * MIB, 64 * KIB):
        device.check(off, 64 * KIB)
    assert max(r.offset for r in server.log) < 4 * MIB
    assert min(r.offset for r in server.log) >= 3 * MIB
    time.sleep(0.2)
    before = len(server.log)
    device.check(1 * MIB, 4096)
    time.sleep(0.2)
    assert len(server.log) == before + 1, server.log[before:]


@test("without a helper nothing is read ahead, and nothing stays behind")
def _():
    layer = layer_of(random_content[:4 * MIB], NONE, 64 * KIB)
    device = Device([layer])
    hand = Hand()
    ahead = []
    off = 0
    while len(ahead) < 4 and off < 4 * MIB:
        reader = Reader(device, off, 64 * KIB)
        while not reader.done():
            for r in hand.requests(0.1):
                if r.flags & Request.PREFETCH:
                    ahead.append(r)
                elif not r.flags:
                    hand.answer(r, {layer.uuid: layer})
        off += 64 * KIB
    hand.close()
    # the next helper is not asked for what nobody waits for
    hand = Hand()
    hand.none(0.5)


class Sparse:
    """Reads at places that are far apart, in a layer of small raw frames, with
    windows of four frames around what misses."""

    FRAME = 16 * KIB
    STEP = 128 * KIB

    def __init__(self):
        self.layer = layer_of(random_content[:16 * MIB], NONE, self.FRAME)
        parameter("around_kib", 4 * self.FRAME // KIB)
        self.device = Device([self.layer])
        self.server = Server(self.layer)
        self.before = module("fill_bytes")
        self.seen = 0
        # no two in ascending order: that would be a sequence
        self.places = range(16 * MIB - self.STEP, 0, -self.STEP)

    def settle(self):
        wait_until(lambda: module("fill_bytes") - self.before ==
                   sum(r.length for r in self.server.log), "all bytes")

    def miss(self, at):
        """The requests that a read causes, when all have been answered."""
        self.device.check(at, BLOCK)
        self.settle()
        new = self.server.log[self.seen:]
        self.seen = len(self.server.log)
        return new


@test("around_kib: neighbours of a miss come behind it, read ahead")
def _():
    sparse = Sparse()
    at = sparse.places[3]
    got = sparse.miss(at + 2 * BLOCK)
    assert [r.offset for r in got] == [at + i * sparse.FRAME for i in range(5)]
    assert [r.flags for r in got] == [0] + 4 * [Request.PREFETCH]
    assert not sparse.miss(at + 3 * sparse.FRAME)
    assert sparse.device.stat("reads_memory") == 1


@test("around_kib: at a present frame the window goes on in front of the miss")
def _():
    sparse = Sparse()
    at = sparse.places[5]
    parameter("around_kib", 0)
    assert len(sparse.miss(at + 2 * sparse.FRAME)) == 1
    parameter("around_kib", 4 * sparse.FRAME // KIB)
    got = sparse.miss(at)
    assert got[0].offset == at and not got[0].flags, got
    assert sorted((r.offset - at) // sparse.FRAME for r in got) == \
        [-3, -2, -1, 0, 1], got


@test("around_kib: where nobody reads what comes along, misses soon stand alone")
def _():
    sparse = Sparse()
    took = [len(sparse.miss(at)) for at in sparse.places]
    say(took)
    assert took[:32] == 32 * [5], took
    assert took[32:64] == 32 * [1], took
    # tried again, in vain
    assert took[64:72] == 8 * [5], took
    assert set(took[72:]) == {1}, took


@test("around_kib: where readers find it, it goes on")
def _():
    sparse = Sparse()
    for at in sparse.places:
        assert len(sparse.miss(at)) == 5
        assert not sparse.miss(at + 2 * sparse.FRAME)


finish()
EOF
finish

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Who reads on is read ahead for, in batches that travel as few ranges; who
# jumps causes nothing but his own frame, or, with read_around, one range around it.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'EOF'
from rig import *
from store import Store

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


for what, content, codec, step, direct, frame in (
        ("random", random_content[:SIZE], NONE, 128 * KIB, True, 128 * KIB),
        ("random", random_content[:SIZE], NONE, 1 * MIB, True, 32 * KIB),
        ("random", random_content[:SIZE // 2], ZSTD, 1 * MIB, True, 128 * KIB),
        ("random", random_content[:SIZE // 2], LZ4, 128 * KIB, False, 128 * KIB),
        ("soft", soft_content, ZSTD, 128 * KIB, True, 128 * KIB)):
    name = ("no codec", "zstd", "LZ4")[codec]

    @test(f"{len(content) >> 20} MiB of {what} content, {name}, "
          f"frames of {frame >> 10} KiB, {step >> 10} KiB "
          f"{'direct' if direct else 'buffered'}: at most one range for each 4 MiB", 60)
    def _():
        layer = layer_of(content, codec, frame)
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


class Far(Server):
    """Answers what it is asked for after so many seconds, however much that is."""

    def __init__(self, *layers, after):
        self.after, self.due = after, []
        super().__init__(*layers)

    def run(self):
        try:
            while not self.stop:
                due = self.due and self.due[0][0] <= time.monotonic()
                new = [r for r in self.helper.requests(0 if due else 0.005)
                       if not r.flags & Request.PROMOTE]
                self.log += new
                if new:
                    self.batches.append(new)
                self.due += [(time.monotonic() + self.after, r) for r in new]
                if due:
                    self.answer(self.due.pop(0)[1])
        except Exception:
            self.error = traceback.format_exc()
        finally:
            self.helper.close()


def most_ahead(server, device, begin, end, step=128 * KIB, pause=0):
    """How far what was asked for was ahead of who reads all that, at most"""
    most = 0
    for off in range(begin, end, step):
        device.check(off, step)
        asked = max(r.offset + r.length for r in list(server.log))
        most = max(most, asked - off)
        time.sleep(pause * SLOW)
    say(f"{most / MIB} MiB ahead, {device.stats()}")
    return most


def far(mib, after, **kw):
    layer = layer_of(repeat(mib * MIB), NONE, 128 * KIB)
    return Far(layer, after=after * SLOW), Device([layer], **kw)


for step in (128 * KIB, 1 * MIB):
    @test(f"reads of {step >> 10} KiB: who has to wait for what is read ahead has several "
          "windows under way, but no more than a fourth of the cache", 240)
    def _():
        parameter("prefetch_ms", int(20000 * SLOW))
        server, device = far(64, 0.6)
        assert 28 * MIB <= most_ahead(server, device, 0, 64 * MIB, step) <= 33 * MIB
        assert len({r.offset for r in server.log}) == len(server.log) == 512
        assert device.stat("prefetch_wasted_bytes") == 0


@test("who has not has the next when half of one is left", 240)
def _():
    server, device = far(32, 0.005)
    most = most_ahead(server, device, 0, 32 * MIB, pause=0.02)
    assert device.stat("prefetch_late_bytes") > MIB or most <= 13 * MIB


@test("and so has who has windows that take long, however many he had before", 240)
def _():
    parameter("prefetch_ms", int(20000 * SLOW))
    server, device = far(96, 0.3)
    assert most_ahead(server, device, 0, 40 * MIB) >= 15 * MIB
    parameter("prefetch_ms", 20)
    most_ahead(server, device, 40 * MIB, 72 * MIB)
    assert most_ahead(server, device, 72 * MIB, 80 * MIB) <= 13 * MIB


@test("what a reader has left behind unread is not in the way of the next one", 240)
def _():
    parameter("prefetch_ms", int(20000 * SLOW))
    cache_mib(64)
    server, device = far(64, 0.3)
    assert most_ahead(server, device, 0, 24 * MIB) >= 15 * MIB
    wait_until(lambda: not server.due, "all that was asked for")
    behind = max(r.offset + r.length for r in server.log)
    assert most_ahead(server, device, behind, 64 * MIB) >= 15 * MIB


@test("what waits for tags is not posted one by one, as they come free", 60)
def _():
    layer = layer_of(random_content[:16 * MIB], NONE, 4 * KIB)
    device = Device([layer])
    server = Far(layer, after=0.05)
    sequential(device, 128 * KIB, True)
    say(f"{len(server.log)} frames, {len(server.batches)} times")
    assert len(server.log) == 4096
    assert len(server.batches) < 200, [len(b) for b in server.batches]


@test("what is fetched ahead leaves tags to who has to wait, and has them when they "
      "are free", 60)
def _():
    layers = [layer_of(random_content[:2 * MIB], NONE, 4 * KIB) for _ in range(4)]
    devices = [Device([layer]) for layer in layers]
    held, released = [], []

    def reply(server, r):
        if r.flags & Request.PREFETCH and not released:
            held.append(r)
        else:
            server.answer(r)

    server = Server(*layers, reply=reply)
    for device in devices:
        device.message("prefetch begin 512")
        device.message("prefetch pause")
        for at in range(0, 512, 64):
            device.message("prefetch add " + "".join(
                f"{(at + n) * 4 * KIB:016x}" for n in range(64)))
        device.message("prefetch resume")
    wait_until(lambda: len(held) == 768, "tags that are held")
    for device in devices:
        device.check(2 * MIB - 64 * KIB, 64 * KIB)
    assert len(held) == 768
    released.append(True)
    for r in held:
        server.answer(r)
    wait_until(lambda: len(server.log) == 4 * 512, "all of it")
    for device in devices:
        device.check()


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


def frames_of(ranges):
    return sorted(off for begin, length in ranges
                  for off in range(begin, begin + length, 128 * KIB))


@test("with read_around, who jumps brings a window, as one range, of his extent")
def _():
    layer = layer_of(random_content[:16 * MIB], NONE, 128 * KIB)
    # of the layer, 1.5 MiB to 6.5 MiB
    device = Device([layer], [(0, 5 * MIB, 0, 3 * MIB // 2)], 5 * MIB,
                    features=f"read_around {MIB}")
    server = Merging(layer)
    for off, window in ((MIB // 2 - 4096, (3 * MIB // 2, MIB // 2)),
                        (4 * MIB + MIB // 2, (6 * MIB, MIB // 2)),
                        (2 * MIB, (3 * MIB, MIB)),
                        # what is there already is not asked for
                        (3 * MIB - 4096, (4 * MIB, MIB))):
        device.check(off, 4096)
        time.sleep(0.2)
        assert server.ranges.pop() == window, (off, window, server.ranges)
        assert not server.ranges and not any(r.flags for r in server.log)
    # over a boundary: the window where it has to wait
    device.check(MIB // 2 - 4096, 8192)
    time.sleep(0.2)
    assert server.ranges == [(2 * MIB, MIB)], server.ranges
    assert device.stat("frames_demanded") == 4 + 4 + 8 + 8 + 8
    assert device.stat("frames_prefetched") == 0
    device.message("read_around 0")
    device.check(9 * MIB // 2 - MIB // 4, 4096)
    time.sleep(0.2)
    assert server.ranges[1:] == [(6 * MIB - MIB // 4, 128 * KIB)]


@test("of small frames a window has 256, and the reader's is one of them")
def _():
    layer = layer_of(random_content[:16 * MIB], NONE, 4 * KIB)
    device = Device([layer], features=f"read_around {8 * MIB}")
    server = Merging(layer)
    device.check(5 * MIB + 8192, 4096)
    wait_until(lambda: len(server.log) == 256, "the window")
    time.sleep(0.2)
    assert len(server.log) == 256
    assert server.ranges == [(5 * MIB, MIB)], server.ranges


@test("a window is one range, however busy the want list is", 60)
def _():
    layer = layer_of(random_content[:16 * MIB], NONE, 128 * KIB)
    device = Device([layer], features=f"read_around {MIB}")
    for _ in range(scale(20, 5)):
        server = Merging(layer, pace=0.005)
        readers = [Reader(device, w * MIB + 4096 * rng.randrange(256), 4096)
                   for w in rng.sample(range(16), 16)]
        for r in readers:
            r.good()
        wait_until(lambda: len(server.log) == 128, "all windows")
        # neighbours may have been merged
        assert all(begin % MIB == 0 and length % MIB == 0
                   for begin, length in server.ranges), server.ranges
        assert frames_of(server.ranges) == list(range(0, 16 * MIB, 128 * KIB))
        server.close()
        device.close()
        device = Device([layer], features=f"read_around {MIB}")


@test("a window leaves out what the store has, and is no larger than a fourth of "
      "the cache")
def _():
    layer = layer_of(random_content[:16 * MIB], NONE, 128 * KIB)
    store = Store(64 * MIB)
    device = Device([layer], store=store)
    server = Merging(layer)
    device.check(3 * 128 * KIB, 4096)
    store.settled(1)
    server.close()
    device.close()
    cache_mib(2)
    device = Device([layer], features=f"read_around {4 * MIB}", store=store)
    server = Merging(layer)
    device.check(0, 4096)
    wait_until(lambda: len(server.log) == 3, "the window")
    time.sleep(0.2)
    assert frames_of(server.ranges) == [0, 128 * KIB, 256 * KIB]
    assert store.info()["hits"] == 0, store.info()


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


finish()
EOF
finish

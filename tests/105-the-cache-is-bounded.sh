#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# The memory cache keeps its limit, live; what it drops is fetched again, what
# is used stays.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'EOF'
from rig import *

rng = random.Random(0x105)
PARAMETER = "/sys/module/lazyframe/parameters/cache_mib"


def empty():
    assert module("cache_bytes") == 0 and module("cache_frames") == 0, \
        (module("cache_bytes"), module("cache_frames"))


class Sampler(threading.Thread):
    """The most that cache_bytes ever showed."""

    def __init__(self):
        super().__init__(daemon=True)
        self.top, self.stop = 0, False
        self.start()

    def run(self):
        while not self.stop:
            self.top = max(self.top, module("cache_bytes"))

    def end(self):
        self.stop = True
        self.join()
        return self.top


@test("values that make no sense are refused")
def _():
    cache_mib(7)
    for value in ("0", "-1", "x", "", "1.5", str(1 << 63),
                  "99999999999999999999999"):
        with fails(errno.EINVAL, errno.ERANGE):
            with open(PARAMETER, "w") as f:
                f.write(value + "\n")
    with open(PARAMETER) as f:
        assert int(f.read()) == 7
    assert module("cache_limit") == 7 * MIB


for frame, limit in ((4 * KIB, 1), (128 * KIB, 1), (1 * MIB, 3), (2 * MIB, 1)):
    @test(f"frames of {frame >> 10} KiB, limit {limit} MiB: kept under load")
    def _():
        empty()
        cache_mib(limit)
        layer = layer_of(rng.randbytes(8 * MIB), NONE, frame)
        device = Device([layer])
        server = Server(layer, chunk=256 * KIB)
        sampler = Sampler()
        evicted = module("evictions")
        try:
            device.check(0, 4 * MIB)
            threads = [Reader(device, 512 * rng.randrange(16000), 128 * KIB)
                       for _ in range(16)]
            for t in threads:
                t.good(30)
            device.check(direct=False)
        finally:
            top = sampler.end()
        assert top <= max(limit * MIB, 0) + frame, (top, limit * MIB, frame)
        assert module("evictions") > evicted
        # everything was asked for at least once, and then some again
        assert len(server.log) > len(layer.frames)
        device.check()


@test("frames of many sizes, codecs and devices share one limit")
def _():
    empty()
    cache_mib(2)
    layers = [layer_of(noise(3 * MIB, rng), codec, frame) for codec, frame in
              ((NONE, 512 * KIB), (ZSTD, 64 * KIB), (LZ4, 1 * MIB))]
    devices = [Device([layer]) for layer in layers]
    Server(*layers)
    sampler = Sampler()
    ends = time.monotonic() + trial(3)
    try:
        while time.monotonic() < ends:
            for t in [Reader(d, 512 * rng.randrange(5000), 64 * KIB)
                      for d in devices for _ in range(3)]:
                t.good(30)
    finally:
        top = sampler.end()
    assert top <= 3 * MIB + 64 * KIB, top
    for d in devices:
        d.check(direct=False)


@test("lowered live, it shrinks at once; raised, it fills")
def _():
    empty()
    cache_mib(16)
    layer = layer_of(rng.randbytes(8 * MIB), NONE, 128 * KIB)
    device = Device([layer])
    server = Server(layer)
    device.check()
    assert module("cache_bytes") == 8 * MIB and module("cache_frames") == 64
    assert len(server.log) == 64
    device.check()
    assert len(server.log) == 64
    cache_mib(2)
    assert module("cache_bytes") <= 2 * MIB, module("cache_bytes")
    device.check()
    assert 64 + 40 <= len(server.log) <= 64 + 64 + 16, len(server.log)
    cache_mib(16)
    device.check()
    before = len(server.log)
    device.check()
    assert len(server.log) == before


@test("a frame that is read again and again is not what goes")
def _():
    empty()
    cache_mib(1)
    layer = layer_of(rng.randbytes(8 * MIB), NONE, 128 * KIB)
    device = Device([layer])
    server = Server(layer)
    hot = 5 * 128 * KIB
    order = list(range(64))
    rng.shuffle(order)
    for i in order:
        device.check(hot, 512)
        device.check(i * 128 * KIB + 4096, 512)
    fetched = [r.offset for r in server.log]
    assert fetched.count(hot) <= 2, fetched.count(hot)
    assert len(fetched) >= 64


@test("a window of read-ahead does not drive out what it just brought")
def _():
    empty()
    cache_mib(2)
    layer = layer_of(rng.randbytes(16 * MIB), NONE, 64 * KIB)
    device = Device([layer])
    server = Server(layer)
    for off in range(0, 16 * MIB, 64 * KIB):
        device.check(off, 64 * KIB)
    assert len(server.log) <= 256 + 8, len(server.log)


@test("while nobody answers, no more is asked for than fits")
def _():
    empty()
    cache_mib(1)
    layer = layer_of(rng.randbytes(8 * MIB), NONE, 256 * KIB)
    device = Device([layer])
    hand = Hand()
    readers = [Reader(device, i * 256 * KIB, 512) for i in range(16)]
    waiting(device, 16)
    got = hand.requests(1)
    more = hand.requests(0.5)
    assert 1 <= len(got + more) <= 4, got + more
    assert module("cache_bytes") <= 1 * MIB
    todo = got + more
    while todo:
        hand.answer(todo.pop(0), {layer.uuid: layer})
        todo += [r for r in hand.requests(0.2)
                 if not r.flags & Request.PROMOTE]
    for r in readers:
        r.good()


@test("what a layer had goes with its last device")
def _():
    empty()
    layer = layer_of(rng.randbytes(1 * MIB), NONE, 64 * KIB)
    one, two = Device([layer], keep=True), Device([layer], keep=True)
    server = Server(layer)
    one.check()
    two.check()
    assert module("cache_bytes") == 1 * MIB
    one.close()
    assert module("cache_bytes") == 1 * MIB
    two.close()
    empty()
    # with a request open: its answer comes too late and is thrown away
    three = Device([layer], features="fetch_timeout 1", keep=True)
    server.close()
    hand = Hand()
    reader = Reader(three, 0, 512)
    request = hand.next()
    hand.fill(request, layer.object[:100])
    reader.bad(errno.EIO, errno.ETIMEDOUT)
    three.close()
    wait_until(lambda: module("cache_frames") == 0, "empty cache")
    with fails(errno.ENOENT):
        hand.info(request.layer)
    try:
        hand.fill(request, layer.object[100:request.length], offset=100)
    except OSError as e:
        assert e.errno == errno.EINVAL, e
    wait_until(lambda: module("cache_bytes") == 0, "empty cache")


finish()
EOF
finish

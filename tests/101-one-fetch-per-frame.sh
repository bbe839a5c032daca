#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# However many readers and devices want a frame, it is fetched once; who says
# something else about the same layer is refused.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'EOF'
from rig import *

rng = random.Random(0x101)
content = rng.randbytes(256 * KIB)


@test("64 readers of one cold frame cause one request")
def _():
    layer = layer_of(content, ZSTD, 128 * KIB)
    device = Device([layer])
    hand = Hand()
    posted = module("requests")
    readers = [Reader(device, 2048 * i, 2048) for i in range(64)]
    waiting(device, 64)
    request = hand.next()
    hand.none()
    hand.answer(request, {layer.uuid: layer})
    for r in readers:
        r.good()
    assert module("requests") == posted + 1
    assert device.stat("frames_demanded") == 1
    assert device.stat("reads_fetched") == 64
    device.check(0, 128 * KIB)
    assert device.stat("reads_memory") >= 1
    hand.none(0.1)


@test("two processors that want it at the same moment, again and again: one each time")
def _():
    frames = 256
    layer = layer_of(rng.randbytes(frames * 4 * KIB), NONE, 4 * KIB)
    device = Device([layer])
    server = Server(layer)
    order = rng.sample(range(frames), frames)
    at = mmap.mmap(-1, 2 * mmap.PAGESIZE)

    def race(me):
        mine, other = me * mmap.PAGESIZE, (1 - me) * mmap.PAGESIZE
        try:
            for n, frame in enumerate(order, 1):
                at[mine] = n % 256
                while at[other] not in (n % 256, (n + 1) % 256):
                    pass
                assert device.read(frame * 4 * KIB, 4 * KIB)
            at[mine] = (frames + 1) % 256
            os._exit(0)
        finally:
            os._exit(1)

    device.fd()
    children = []
    for me in range(2):
        children.append(os.fork())
        if not children[-1]:
            race(me)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert len(server.log) == frames, len(server.log)
    assert device.stat("frames_demanded") == frames, device.stats()


@test("a frame is decoded for readers, not fetched for them, once it is there")
def _():
    layer = layer_of(content, LZ4, 64 * KIB)
    device = Device([layer])
    server = Server(layer)
    for _ in range(3):
        device.check()
    assert len(server.log) == 4, server.log


@test("two devices on one layer cause one request, also when both wait")
def _():
    layer = layer_of(content, ZSTD, 64 * KIB)
    one, two = Device([layer]), Device([layer])
    hand = Hand()
    readers = [Reader(d, 512 * i, 512) for i in range(4) for d in (one, two)]
    waiting(one, 4)
    waiting(two, 4)
    request = hand.next()
    hand.none()
    hand.answer(request, {layer.uuid: layer})
    for r in readers:
        r.good()
    one.check(0, 64 * KIB)
    two.check(0, 64 * KIB)
    hand.none(0.1)
    assert one.stat("frames_demanded") + two.stat("frames_demanded") == 1


@test("what one device fetched outlives it while another has the layer")
def _():
    layer = layer_of(content, ZSTD, 64 * KIB)
    one, two = Device([layer], keep=True), Device([layer])
    hand = Hand()
    r = Reader(one, 0, 4096)
    hand.answer(hand.next(), {layer.uuid: layer})
    r.good()
    one.close()
    two.check(0, 64 * KIB)
    hand.none(0.1)


@test("trimmed tables of one layer share the frames that both name")
def _():
    layer = layer_of(content, ZSTD, 32 * KIB)
    low = trimmed(layer, lambda n, f: n < 5)
    high = trimmed(layer, lambda n, f: n >= 3)
    one = Device([low], [(0, 5 * 32 * KIB, 0, 0)], 5 * 32 * KIB)
    two = Device([high], [(0, 5 * 32 * KIB, 0, 3 * 32 * KIB)], 5 * 32 * KIB)
    server = Server(layer)
    one.check()
    assert len(server.log) == 5, server.log
    two.check()
    assert len(server.log) == 8, server.log
    assert len({r.layer for r in server.log}) == 1
    one.check()
    two.check()
    assert len(server.log) == 8


@test("tables that disagree about a frame end in errors, never in wrong bytes")
def _():
    layer = layer_of(content, ZSTD, 64 * KIB)
    u, c, ub, cb, s = layer.frames[1]
    for lie in ((u, c, ub, cb, s ^ 1),			# checksum
                (u, c, ub, cb - 1, s),			# C size
                (u, c, ub - 512, cb, s)):		# U size
        other = trimmed(layer, lambda n, f: n < 2)
        other.frames[1] = lie
        honest = Device([layer], keep=True)
        liar = Device([other], [(0, 100 * KIB, 0, 0)], 100 * KIB, keep=True)
        server = Server(layer)
        try:
            honest.check()
            liar.check(0, 64 * KIB)
            Reader(liar, 64 * KIB, 4096).bad(errno.EIO, errno.EUCLEAN,
                                             errno.ENODATA, errno.EILSEQ)
            honest.check()
        finally:
            server.close()
            liar.close()
            honest.close()
    # the liar first: its frame cannot verify, and the honest one still reads
    honest = Device([layer])
    other.frames[1] = (u, c, ub, cb, s ^ 1)
    liar = Device([other], [(0, 100 * KIB, 0, 0)], 100 * KIB)
    Server(layer)
    Reader(liar, 64 * KIB, 4096).bad(errno.EIO, errno.EILSEQ)
    honest.check()
    liar.check(0, 64 * KIB)


@test("who contradicts a layer in use is refused, with a reason")
def _():
    layer = layer_of(content, ZSTD, 64 * KIB, validator='"v1"')
    device = Device([layer])
    Server(layer)
    for change in (dict(codec=LZ4), dict(content=content + b"x"),
                   dict(object=layer.object + b"x"),
                   dict(validator=b'"v2"')):
        other = trimmed(layer, lambda n, f: True)
        for name, value in change.items():
            setattr(other, name, value)
        log = KernelLog()
        with fails(errno.EEXIST, errno.EINVAL, errno.EBUSY):
            Device([other], [(0, 4096, 0, 0)], 4096, keep=True)
        text = log.read()
        log.close()
        assert "lazyframe" in text and "layer" in text, text
    device.check()


@test("refused while the first is there, welcome when it is gone")
def _():
    layer = layer_of(content, ZSTD, 64 * KIB)
    other = layer_of(content[:100000], LZ4, 32 * KIB, uuid=layer.uuid)
    first = Device([layer], keep=True)
    server = Server(layer)
    first.check(0, 4096)
    server.close()
    first.close()
    second = Device([other])
    Server(other)
    second.check()


@test("layers of the same bytes but other names are not mixed up")
def _():
    layers = [layer_of(content[:64 * KIB], NONE, 4 * KIB),
              layer_of(content[64 * KIB:128 * KIB], NONE, 4 * KIB)]
    device = Device(layers, [(0, 64 * KIB, 0, 0), (64 * KIB, 64 * KIB, 1, 0)],
                    128 * KIB)
    Server(*layers)
    for _ in range(scale(200, 20)):
        device.check(512 * rng.randrange(256), 512)


finish()
EOF
finish

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# A reader goes as soon as its own frame is there and verified; not later, not
# earlier.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'EOF'
from rig import *

rng = random.Random(0x102)
content = rng.randbytes(1 * MIB)


def by_offset(requests):
    return {r.offset: r for r in requests}


@test("the reader of the first frame does not wait for the second")
def _():
    layer = layer_of(content, ZSTD, 128 * KIB)
    device = Device([layer])
    hand = Hand()
    readers = [Reader(device, i * 128 * KIB, 4096) for i in range(8)]
    waiting(device, 8)
    requests = by_offset(hand.next(8))
    for i, (u, c, ub, cb, s) in enumerate(layer.frames):
        readers_left = 8 - i
        assert device.stat("waiting") == readers_left
        hand.fill(requests[c], layer.object[c:c + cb])
        readers[i].good()
        assert all(not r.done() for r in readers[i + 1:])


@test("one big read waits for all of its frames, in any order of arrival")
def _():
    layer = layer_of(content, NONE, 64 * KIB)
    device = Device([layer])
    hand = Hand()
    reader = Reader(device, 0, 192 * KIB)
    requests = hand.next(3)
    rng.shuffle(requests)
    for r in requests:
        time.sleep(0.02)
        assert not reader.done()
        hand.answer(r, {layer.uuid: layer})
    reader.good()


@test("not before the last byte, and then at once")
def _():
    layer = layer_of(content, NONE, 128 * KIB)
    device = Device([layer])
    hand = Hand()
    for frame, step in enumerate((128 * KIB - 1, 50000, 4097)):
        reader = Reader(device, frame * 128 * KIB, 512)
        request = hand.next()
        last = request.length - 1
        for at in range(0, last, step):
            data = layer.object[request.offset + at:][:min(step, last - at)]
            hand.fill(request, data, offset=at)
        time.sleep(0.1)
        assert not reader.done() and device.stat("waiting") == 1
        hand.fill(request, layer.object[request.offset + last:][:1],
                  offset=last)
        reader.good()


@test("byte by byte")
def _():
    layer = layer_of(content[:4096], ZSTD, 4096)
    device = Device([layer])
    hand = Hand()
    reader = Reader(device, 0, 4096)
    request = hand.next()
    data = layer.object
    before = module("fill_bytes")
    count = len(data) if SLOW == 1 else 300
    for i in range(count - 1):
        hand.fill(request, data[i:i + 1], offset=i)
        if i == 100:
            with fails(errno.EINVAL):		# not again
                hand.fill(request, data[i:i + 1], offset=i)
    assert not reader.done()
    assert module("fill_bytes") == before + count - 1
    hand.fill(request, data[count - 1:], offset=count - 1)
    reader.good()
    assert module("fill_bytes") == before + len(data)


@test("frames are answered in any interleaving")
def _():
    layer = layer_of(content, ZSTD, 64 * KIB)
    device = Device([layer])
    hand = Hand()
    readers = [Reader(device, i * 64 * KIB, 8192) for i in range(16)]
    open_requests = hand.next(16)
    at = {r.tag: 0 for r in open_requests}
    while open_requests:
        r = rng.choice(open_requests)
        n = min(rng.randrange(1, 20000), r.length - at[r.tag])
        hand.fill(r, layer.object[r.offset + at[r.tag]:][:n],
                  offset=at[r.tag])
        at[r.tag] += n
        if at[r.tag] == r.length:
            open_requests.remove(r)
    for r in readers:
        r.good()


@test("requests say what the table says, and tags are distinct")
def _():
    layer = layer_of(content, LZ4, 128 * KIB, locator="http://x/y z",
                     validator='W/"7"')
    device = Device([layer], features="fetch_timeout 100")
    hand = Hand()
    readers = [Reader(device, i * 128 * KIB, 512) for i in range(8)]
    requests = hand.next(8)
    assert len({r.tag for r in requests}) == 8
    assert hand.entries >= 3 * hand.tags
    assert not hand.entries & (hand.entries - 1)
    now = time.monotonic_ns()
    for r in requests:
        u, c, ub, cb, s = layer.frame_at(r.offset)
        assert r.length == cb and r.have == 0 and r.flags == 0
        assert r.reserved == 0 and r.generation == hand.generation
        assert now < r.deadline <= now + 100 * 10**9, (r.deadline, now)
    assert hand.info(requests[0].layer) == dict(
        csize=len(layer.object), codec=LZ4, uuid=layer.uuid,
        locator="http://x/y z", validator='W/"7"')
    with fails(errno.ENOENT):
        hand.info(requests[0].layer + 1)
    with fails(errno.ENOENT):
        hand.info(0)
    for r in requests:
        hand.answer(r, {layer.uuid: layer})
    for r in readers:
        r.good()


@test("no deadline where fetch_timeout is 0")
def _():
    layer = layer_of(content, NONE, 128 * KIB)
    device = Device([layer], features="fetch_timeout 0")
    hand = Hand()
    reader = Reader(device, 0, 512)
    request = hand.next()
    assert request.deadline == 0
    hand.answer(request, {layer.uuid: layer})
    reader.good()


@test("more frames wanted than there are tags: all are served")
def _():
    layer = layer_of(rng.randbytes(6 * MIB), NONE, 4096)
    device = Device([layer])
    hand = Hand()
    count = hand.tags + 200
    reader = Reader(device, 0, count * 4096)
    seen = 0
    while seen < count:
        for r in hand.requests(5):
            if r.flags & Request.PROMOTE:
                continue
            seen += 1
            hand.answer(r, {layer.uuid: layer})
    reader.good()


@test("poll and read: one wakeup for many requests, EAGAIN for none")
def _():
    import select
    layer = layer_of(content, NONE, 64 * KIB)
    device = Device([layer])
    hand = Hand()
    with fails(errno.EAGAIN):
        os.read(hand.fd, 8)
    with fails(errno.EINVAL):
        os.read(hand.fd, 7)
    readers = [Reader(device, i * 64 * KIB, 512) for i in range(3)]
    # a read waits before its frame is posted
    wait_until(lambda: struct.unpack_from("=Q", hand.ring)[0] == 3,
               "three requests")
    assert select.select([hand.fd], [], [], 5)[0]
    head, = struct.unpack("=Q", os.read(hand.fd, 8))
    assert head == 3, head
    assert not select.select([hand.fd], [], [], 0)[0]
    with fails(errno.EAGAIN):
        os.read(hand.fd, 8)
    assert struct.unpack_from("=Q", hand.ring)[0] == 3
    for i in range(3):
        at = 64 + i * 64
        hand.answer(Request(hand.ring[at:at + 64]), {layer.uuid: layer})
    hand.tail = 3
    for r in readers:
        r.good()


finish()
EOF
finish

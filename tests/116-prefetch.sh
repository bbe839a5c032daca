#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# What is read first is recorded in its order; what is to be read is fetched before,
# behind those who wait, never more than there is room for, until the device goes.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'EOF'
from rig import *
from store import Store
import uuid

rng = random.Random(0x116)
FRAME = 64 * KIB
content = noise(2 * MIB, rng)
layer = layer_of(content, ZSTD, FRAME)
raw = layer_of(rng.randbytes(8 * MIB), NONE, FRAME)


def frames_at(offset, length, size=FRAME):
    return range(offset // size, (offset + length - 1) // size + 1)


def recorded(device):
    """All of a recording: [(layer, U offset)], and how many were lost."""
    out = []
    while True:
        head, *lines = device.message(f"record read {len(out)}").splitlines()
        count, lost = re.fullmatch(r"entries (\d+) lost (\d+)", head).groups()
        if not lines:
            assert int(count) == len(out)
            return out, int(lost)
        out += [tuple(map(int, line.split())) for line in lines]


def order(device, frames, size=FRAME):
    device.message(f"prefetch begin {len(frames)}")
    for at in range(0, len(frames), 100):
        device.message("prefetch add " + "".join(
            f"{n * size:016x}" for n in frames[at:at + 100]))


def progress(device):
    names = ("what", "state", "next", "count", "asked", "left", "unread",
             "chunk", "rate")
    words = device.message("prefetch status").split()
    return dict(zip(names, words[:2] + list(map(int, words[2:]))))


def asked_of(hand, count=8):
    """The first requests of an order, at least so many."""
    ahead = []
    wait_until(lambda: ahead.extend(hand.requests(0.1)) or
               len(ahead) >= count, "requests")
    return ahead


def done(device, limit=20):
    wait_until(lambda: progress(device)["state"] == "done", "end of prefetch",
               limit)


def score(device):
    """The bytes of what was fetched ahead are each counted once."""
    s = {name: device.stat(f"prefetch_{name}bytes") for name in
         ("", "useful_", "late_", "wasted_", "stored_")}
    unread = s[""] - s["useful_"] - s["late_"] - s["wasted_"] - s["stored_"]
    assert unread >= 0, s
    return s["useful_"], s["late_"], s["wasted_"], s["stored_"], unread


def cbytes(frames, of=layer):
    return sum(of.frames[n][3] for n in frames)


@test("the order of first reads is recorded: hits and misses, no frame twice")
def _():
    device = Device([layer, raw], [(0, 2 * MIB, 0, 0),
                                   (4 * MIB, 8 * MIB, 1, 0)], 12 * MIB)
    Server(layer, raw)
    # in memory already, and all the same read first
    device.check(5 * FRAME, 512)
    device.message("record start")
    want = []
    for _ in range(300):
        length = 512 * rng.randrange(1, 300)
        at = 512 * rng.randrange((12 * MIB - length) // 512)
        device.check(at, length)
        for index, start, end in ((0, 0, 2 * MIB), (1, 4 * MIB, 12 * MIB)):
            a, b = max(at, start), min(at + length, end)
            want += [(index, n * FRAME) for n in
                     frames_at(a - start, b - a) if b > a]
    want = list(dict.fromkeys(want))
    got, lost = recorded(device)
    assert got == want and not lost, (got[:9], want[:9])
    assert device.message("layers 0").split() == [
        str(uuid.UUID(bytes=layer.uuid)), str(2 * MIB),
        str(uuid.UUID(bytes=raw.uuid)), str(8 * MIB)]
    assert device.message("layers 1").split()[1:] == [str(8 * MIB)]
    assert not device.message("layers 2").split()


@test("what is read ahead is not recorded, for nobody has read it")
def _():
    device = Device([raw])
    Server(raw)
    device.message("record start")
    for off in range(0, MIB, FRAME):
        device.check(off, FRAME)
    wait_until(lambda: device.stat("frames_prefetched"), "read-ahead")
    assert recorded(device)[0] == [(0, n * FRAME) for n in range(16)]


@test("a recording has each frame once, is read in pieces, and ends")
def _():
    small = layer_of(rng.randbytes(8 * MIB), NONE, 4 * KIB)
    device = Device([small])
    Server(small)
    for message in ("record stop", "record read 0"):
        with fails(errno.ENODATA):
            device.message(message)
    device.message("record start")
    with fails(errno.EBUSY):
        device.message("record start")
    for _ in range(2):
        device.check()
    got, lost = recorded(device)
    assert sorted(got) == [(0, n * 4 * KIB) for n in range(2048)] and not lost
    device.message("record stop")
    with fails(errno.ENODATA):
        device.message("record read 0")
    for bad in ("record", "record start 1", "record read", "record read -1",
                "record read x", "record what", "layers", "layers x"):
        with fails(errno.EINVAL):
            device.message(bad)


@test("recordings begin and end below readers, reloads and removal", 60)
def _():
    device = Device([layer])
    Server(layer)
    readers = Readers(device)
    for n in range(scale(30, 8)):
        device.message("record start")
        time.sleep(0.01)
        got, _ = recorded(device)
        assert len(set(got)) == len(got) <= 32
        if n % 3 == 1:
            device.load(device.args)
            device.suspend(noflush=n % 2)
            device.resume()
        elif n % 3 == 2:
            device.suspend()
            device.resume()
        if n % 3 != 1:
            device.message("record stop")
    device.message("record start")
    readers.end()


@test("an order is fetched as it says, in chunks that are sorted for ranges")
def _():
    device = Device([layer])
    server = Server(layer)
    frames = list(range(32))
    rng.shuffle(frames)
    order(device, frames)
    done(device)
    assert sorted(r.offset for r in server.log) == \
        [f[1] for f in layer.frames]
    assert all(r.flags & Request.PREFETCH for r in server.log)
    for batch in server.batches:
        assert [r.offset for r in batch] == sorted(r.offset for r in batch)
    assert score(device) == (0, 0, 0, 0, cbytes(frames))
    device.check()
    assert score(device) == (cbytes(frames), 0, 0, 0, 0)
    assert device.stat("reads_memory") == device.stat("reads")
    assert len(server.log) == 32


@test("the first ones of a long order come first")
def _():
    device = Device([raw])
    server = Server(raw)
    frames = list(range(128))
    rng.shuffle(frames)
    order(device, frames)
    done(device)
    place = {r.offset // FRAME: n for n, r in enumerate(server.log)}
    # never further from its place than two of the largest chunks
    first = set(frames[:8])
    say(f"the first 8 came within the first {max(place[n] for n in first)}")
    assert max(place[n] for n in first) < 24, place


@test("a reader that waits is late, and goes first")
def _():
    device = Device([raw])
    hand = Hand()
    order(device, list(range(64)))
    ahead = asked_of(hand)
    ahead += hand.requests(0.3)
    assert len(ahead) < 64 and all(r.flags & Request.PREFETCH for r in ahead)
    assert progress(device)["left"] == sum(r.length for r in ahead)
    # one that is on its way, and one that was not asked for
    late = Reader(device, ahead[3].offset, 512)
    promote = hand.next()
    assert promote.flags & Request.PROMOTE and promote.tag == ahead[3].tag
    other = Reader(device, 100 * FRAME, 512)
    request = hand.next()
    assert not request.flags and request.offset == 100 * FRAME
    hand.answer(request, {raw.uuid: raw})
    other.good()
    hand.answer(ahead[3], {raw.uuid: raw})
    late.good()
    assert score(device)[:2] == (0, FRAME)


@test("what nobody reads takes half of the memory cache, and no more")
def _():
    cache_mib(2)
    device = Device([raw])
    server = Server(raw)
    order(device, list(range(128)))
    wait_until(lambda: progress(device)["state"] == "full", "a full cache")
    assert progress(device)["unread"] <= MIB
    asked = len(server.log)
    assert asked <= 16
    # readers make room for the next ones
    for n in range(128):
        device.check(n * FRAME, 4096)
        time.sleep(0.002)
    done(device)
    useful, late, wasted, stored, unread = score(device)
    say((useful, late, wasted, stored, unread))
    assert useful + late and not wasted and not stored and not unread


@test("what leaves memory unread was wasted")
def _():
    cache_mib(2)
    device = Device([raw])
    Server(raw)
    order(device, list(range(8)))
    done(device)
    # the hand spares them once; no two neighbours, which would be read ahead for
    for n in [*range(20, 120, 2), *range(21, 121, 2)]:
        device.check(n * FRAME, 4096)
    assert score(device) == (0, 0, 8 * FRAME, 0, 0), score(device)


@test("a helper goes: the next one is asked for what the first did not bring")
def _():
    device = Device([raw])
    order(device, list(range(40)))
    assert progress(device)["state"] == "helper", progress(device)
    hand = Hand()
    ahead = asked_of(hand)
    for r in ahead[:3]:
        hand.answer(r, {raw.uuid: raw})
    hand.close()
    wait_until(lambda: progress(device)["state"] == "helper", "no helper")
    server = Server(raw)
    done(device)
    assert sorted(r.offset // FRAME for r in server.log) == list(range(3, 40))
    device.check(0, 40 * FRAME)
    assert device.stat("reads_memory") == device.stat("reads")


@test("the device goes: nothing more is asked for, answers are good for nothing")
def _():
    device = Device([raw])
    hand = Hand()
    order(device, list(range(128)))
    ahead = asked_of(hand)
    device.release()
    device.remove()
    ahead += hand.requests(0.3)
    assert len(ahead) < 64
    for r in ahead:
        with contextlib.suppress(OSError):
            hand.fill(r, bytes(r.length))
    hand.none()
    assert module("cache_bytes") == 0


@test("it stops, pauses and goes on below readers, suspends and reloads", 60)
def _():
    device = Device([raw])
    Server(raw)
    readers = Readers(device)
    for n in range(scale(40, 10)):
        frames = rng.sample(range(128), 100)
        order(device, frames)
        action = ("prefetch stop", "prefetch pause", "prefetch resume")[n % 3]
        device.message(action)
        if n % 5 == 1:
            device.load(device.args)
        if n % 2:
            device.suspend(noflush=n % 4 == 1)
            device.resume()
    readers.end()
    order(device, list(range(128)))
    device.message("prefetch pause")
    before = progress(device)
    time.sleep(0.1)
    assert progress(device)["next"] == before["next"]
    assert before["state"] == "paused"
    device.message("prefetch resume")
    done(device)
    score(device)


@test("who knows the order reads nothing else ahead")
def _():
    device = Device([raw])
    Server(raw)
    order(device, list(range(100, 128)))
    device.message("prefetch begin 10")
    for off in range(0, 2 * MIB, FRAME):
        device.check(off, FRAME)
    before = device.stat("frames_prefetched")
    assert before <= 28
    device.message(f"read_around {4 * MIB}")
    demanded = device.stat("frames_demanded")
    device.check(80 * FRAME, 512)
    assert device.stat("frames_demanded") == demanded + 1
    device.message("read_around 0")
    device.message("prefetch stop")
    for off in range(2 * MIB, 4 * MIB, FRAME):
        device.check(off, FRAME)
    assert device.stat("frames_prefetched") > before


@test("all of an image goes to the store, what it has is left out")
def _():
    store = Store(64 * MIB)
    device = Device([raw, layer], [(0, 8 * MIB, 0, 0),
                                   (8 * MIB, MIB, 1, 0)], 9 * MIB, store=store)
    server = Server(raw, layer)
    device.check(3 * FRAME, 512)
    store.settled(1)
    device.message("prefetch all")
    done(device)
    store.idle()
    # the second layer's second half is not in the image
    assert store.info()["frames"] == 128 + 16, store.info()
    assert len(server.log) == 128 + 16
    device.message("prefetch all")
    done(device)
    assert progress(device)["asked"] == 0
    assert len(server.log) == 128 + 16
    server.close()
    device.close()
    cold = Device([raw, layer], [(0, 8 * MIB, 0, 0),
                                 (8 * MIB, MIB, 1, 0)], 9 * MIB, store=store)
    cold.check()


@test("through a small memory cache, too")
def _():
    cache_mib(1)
    store = Store(64 * MIB)
    device = Device([raw], store=store)
    Server(raw)
    device.message("prefetch all")
    done(device)
    store.idle()
    assert store.info()["frames"] == 128, store.info()


@test("at a rate, if that is asked for")
def _():
    store = Store(64 * MIB)
    device = Device([raw], store=store)
    Server(raw)
    device.message(f"prefetch rate {4 * MIB}")
    begun = time.monotonic()
    device.message("prefetch all")
    for _ in range(5):
        time.sleep(0.1)
        most = 4 * MIB * (time.monotonic() - begun) + MIB + FRAME
        assert progress(device)["asked"] <= most, (progress(device), most)
    assert progress(device)["asked"]
    device.message("prefetch rate 0")
    done(device)


@test("an order with a store: what the store has comes from there")
def _():
    store = Store(64 * MIB)
    device = Device([raw], store=store)
    server = Server(raw)
    device.message("prefetch all")
    done(device)
    store.idle()
    device.close()
    device = Device([raw], store=store)
    asked = len(server.log)
    order(device, list(range(20)))
    done(device)
    assert len(server.log) == asked
    device.check(0, 20 * FRAME)
    # behind them, that may have been read ahead for
    assert score(device)[:4] == (20 * FRAME, 0, 0, 0), score(device)


@test("messages that make no sense are refused, frames that are not there left out")
def _():
    device = Device([layer])
    Server(layer)
    with fails(errno.EOPNOTSUPP):
        device.message("prefetch all")
    with fails(errno.ENODATA):
        device.message("prefetch pause")
    for bad in ("prefetch", "prefetch begin", "prefetch begin 1048577",
                "prefetch begin x", "prefetch add 00", "prefetch rate -1",
                "prefetch rate 1099511627777", "prefetch status 1",
                "prefetch what", "prefetch add 0000000000000000"):
        with fails(errno.EINVAL):
            device.message(bad)
    device.message("prefetch begin 3")
    for bad in ("0" * 15, "0" * 15 + "x", "0" * 64):
        with fails(errno.EINVAL):
            device.message("prefetch add " + bad)
    device.message("prefetch add 0001000000000000" +
                   f"{2 * MIB:016x}" + "0000ffffffffffff")
    done(device)
    assert progress(device)["asked"] == 0


finish()
EOF
finish

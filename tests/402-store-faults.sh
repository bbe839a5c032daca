#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# A store that is damaged, full, slow, failing or not one at all: readers get the
# image's bytes, from elsewhere.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

modprobe -q -a dm-delay dm-flakey

python_tests <<'EOF'
import uuid as uuids
from rig import *
from store import BLOCK, Store, filled, format_store, read_all

rng = random.Random(0x402)
FRAME = 64 * KIB


def pages(count, codec=NONE, frame=FRAME):
    return layer_of(rng.randbytes(count * frame), codec, frame)


@test("a frame that was changed is forgotten, fetched once, and counted")
def _():
    store = Store()
    layer = pages(32)
    filled(store, layer)
    store.again()
    content = store.content()
    bad = rng.sample(sorted(content.frames), 5)
    for name in bad:
        at, count, _ = content.frames[name]
        store.change(at + rng.randrange(count * 512), b"\x5a\xa5")
    _, asked = read_all(layer, store)
    info = store.info()
    assert asked == info["bad"] == 5, (asked, info)
    store.settled(5)
    stats, _ = read_all(layer, store, False)
    assert not stats["reads_fetched"], stats
    store.again()
    assert not store.content().wrong(store.at)


@test("the raw bytes of a layer without checksums are verified, too")
def _():
    store = Store()
    layer = layer_of(rng.randbytes(1 * MIB), NONE, FRAME, sums=False)
    filled(store, layer)
    content = store.content() if store.again() else store.content()
    for at, count, _ in content.frames.values():
        store.change(at + 100, b"wrong")
    _, asked = read_all(layer, store)
    assert asked == 16 == store.info()["bad"], asked


@test("one bit anywhere: harmless, or healed", 90)
def _():
    store = Store(48 * MIB)
    layer = pages(40)
    filled(store, layer)
    store.suspend()
    shape = store.shape

    def regions():
        """Name -> first byte, length, how many frames a flip there costs."""
        content = store.content()
        newest = max(content.begun, key=content.begun.get)
        free = min(set(range(shape.segments)) - set(content.begun))
        at, count, _ = rng.choice(sorted(content.frames.values()))
        held = sum(0 <= f[0] - shape.place(newest) < shape.segment
                   for f in content.frames.values())
        place = next(iter(content.layers))
        return {
            "superblock": (0, BLOCK, 0), "its copy": (BLOCK, BLOCK, 0),
            "layer": (2 * BLOCK + 32 * place, 32, 40),
            "free layers": (2 * BLOCK + 32 * 100, 32 * 20, 0),
            "summary, head": (shape.summary(newest), 64, held),
            "summary, entries": (shape.summary(newest) + 64, held * 16, held),
            "summary, rest": (shape.summary(newest) + 704, 2000, held),
            "free summary": (shape.summary(free), BLOCK, 0),
            "a frame": (at, count * 512, 1),
            "free": (shape.place(free), 100, 0),
        }

    bad = 0
    for name in regions():
        for _ in range(2):
            start, length, cost = regions()[name]
            at = start + rng.randrange(length)
            old = store.at(at, 1)
            store.change(at, bytes([old[0] ^ 1 << rng.randrange(8)]))
            store.resume()
            before = store.info()
            _, asked = read_all(layer, store)
            # an older place of a frame may come to light again
            assert asked <= cost and (asked or not cost or
                                      name.startswith("summary")), \
                (name, at, asked, cost)
            # a summary of another format or store is none, and so not bad
            bad, was = store.info()["bad"], bad
            assert (bad > was) == (cost > 0) or \
                name in ("layer", "summary, head"), (name, at, was, bad)
            store.settled(before["stored"] + asked)
            store.suspend()
            if not cost:
                store.change(at, old)
    store.resume()


@test("both superblocks: it is refused")
def _():
    store = Store()
    store.suspend()
    for at in (100, BLOCK + 100):
        store.change(at, b"\xff")
    with fails(errno.EINVAL):
        store.resume()
    log = KernelLog()
    with fails(errno.EINVAL):
        Mapped("lazyframe-store", store.size, store.loop.name)
    assert "superblock is damaged" in log.read()
    log.close()


@test("what is no store, too small or in use is refused")
def _():
    log = KernelLog()
    fd, path = tempfile.mkstemp()
    os.close(fd)
    undo(lambda: os.unlink(path))
    for size, words in ((4096, "too small"), (64 * MIB, "not formatted")):
        os.truncate(path, size)
        loop = Loop(path)
        try:
            with fails(errno.EINVAL):
                Mapped("lazyframe-store", size, loop.name)
        finally:
            loop.close()
        assert words in log.read(), words
    store = Store()
    for args, words in (("", "Expected"), (f"{store.loop.name} 1 x", "Unknown"),
                        (f"{store.loop.name} 2 a b", "Invalid number"),
                        (f"{store.loop.name} 1 read_only y", "Too many"),
                        ("/dev/nothing", "Cannot open")):
        with fails(errno.EINVAL, errno.ENOENT, errno.ENXIO, errno.ENODEV):
            Mapped("lazyframe-store", store.size, args)
        assert words in log.read(), words
    # cut short
    with fails(errno.EBUSY):
        Mapped("lazyframe-store", store.size, store.loop.name)
    assert "active already" in log.read()
    os.truncate(store.path, 60 * MIB)
    store.suspend()
    store.loop.resize()
    with fails(errno.EINVAL):
        store.resume()
    assert "smaller than when it was formatted" in log.read()
    # as a device's store
    layer = pages(1)
    other = Mapped("linear", 1 * MIB, f"{store.loop.name} 0")
    with fails(errno.EINVAL):
        Device([layer], store=other)
    assert "no lazyframe-store table" in log.read()
    log.close()


@test("messages: what they do not know is an error")
def _():
    store = Store()
    for text in ("scrub now", "pin", "pin x", "unpin 12345678", "polish",
                 f"pin {uuids.uuid4()} x"):
        with fails(errno.EINVAL):
            store.message(text)
    with fails(errno.ENOENT):
        store.message(f"unpin {uuids.uuid4()}")
    store.suspend()
    for text in ("scrub", f"pin {uuids.uuid4()}"):
        with fails(errno.ENODEV):
            store.message(text)
    store.resume()


@test("a store that is read-only: what it has is read, nothing on it changes")
def _():
    store = Store()
    layer, other = pages(8), pages(8)
    filled(store, layer)
    store.suspend()
    before = hash(store.at(0, store.size))
    DM.load(store.name, store.size // 512, f"{store.loop.name} 1 read_only", 0,
            target="lazyframe-store")
    store.resume()
    with fails(errno.EROFS):
        store.message(f"pin {uuids.UUID(bytes=layer.uuid)}")
    filled(store, other)
    stats, _ = read_all(layer, store, False)
    assert not stats["reads_fetched"] and store.info()["mode"] == "ro", stats
    store.message("scrub")
    wait_until(lambda: store.info()["scrub"] == "-", "end of scrub")
    assert store.info()["skipped"] == 8, store.info()
    store.suspend()
    assert hash(store.at(0, store.size)) == before
    store.resume()


@test("new layers that come together have places of their own")
def _():
    store = Store()
    layers = [layer_of(rng.randbytes(8192), NONE, 8192) for _ in range(24)]
    devices = [Device([layer], store=store) for layer in layers]
    server = Server(*layers)
    readers = [Reader(device, 0, 8192) for device in devices]
    for reader in readers:
        reader.good()
    store.settled(24)
    info = store.info()
    assert info["frames"] == info["stored"] == 24, info
    store.again()
    assert set(store.content().layers.values()) == {l.uuid for l in layers}
    assert not store.content().wrong(store.at)


class Layered:
    """A store with a device below it that can be made to fail."""

    def __init__(self, size=64 * MIB):
        fd, self.path = tempfile.mkstemp(suffix=".disk")
        os.ftruncate(fd, size)
        os.close(fd)
        undo(lambda: os.unlink(self.path))
        format_store(self.path)
        self.loop = Loop(self.path)
        undo(self.loop.close)
        self.disk = Mapped("linear", size, f"{self.loop.name} 0")
        self.store = Store(size, on=self.disk.node, fresh=False)

    def turn(self, target, args):
        self.disk.turn(target, args.replace("@", self.loop.name))


@test("a device that fails to write: what is there stays, no more comes")
def _():
    layered = Layered()
    store = layered.store
    one, two = pages(16), pages(16)
    filled(store, one)
    event = DM.call(DM.STATUS, store.name)["event"]
    # up 0 seconds, down for ever
    layered.turn("flakey", "@ 0 0 1000 1 error_writes")
    filled(store, two)
    wait_until(lambda: store.info()["mode"] == "ro", "read-only")
    assert DM.call(DM.STATUS, store.name)["event"] > event
    stats, _ = read_all(one, store, False)
    assert not stats["reads_fetched"], stats
    _, asked = read_all(two, store)
    assert asked == 16
    layered.turn("linear", "@ 0")
    store.again()
    assert store.info()["mode"] == "rw"
    filled(store, two)
    stats, _ = read_all(two, store, False)
    assert not stats["reads_fetched"], stats


@test("a device that fails to read: no reader sees it; in the end it is passed by")
def _():
    layered = Layered()
    store = layered.store
    layer = pages(40)
    filled(store, layer)
    layered.turn("error", "")
    _, asked = read_all(layer, store)
    info = store.info()
    assert asked == 40 and info["errors"] >= 16 and info["mode"] == "fail", info
    layered.turn("linear", "@ 0")
    store.again()
    read_all(layer, store)
    assert store.info()["mode"] == "rw"


@test("a device that is slow: the helper is asked after a while", 120)
def _():
    layered = Layered()
    store = layered.store
    # more than are read from it at once
    layer = pages(200, frame=16 * KIB)
    filled(store, layer)
    layered.turn("delay", "@ 0 60000")
    server = Server(layer)
    device = Device([layer], store=store)
    begun = time.monotonic()
    readers = [Reader(device, n * 16 * KIB, 4096) for n in range(200)]
    for reader in readers:
        reader.good()
    took = time.monotonic() - begun
    say(f"read after {took:.1f} s")
    assert took < 50 and len(server.log) == 200, (took, server.log)
    stats = device.adds_up()
    assert stats["reads_fetched"] and not stats["reads_failed"], stats
    # what is held up below comes through at once
    layered.turn("linear", "@ 0")


@test("a device that is slow, without a helper: readers wait for it", 90)
def _():
    layered = Layered()
    store = layered.store
    layer = pages(2)
    filled(store, layer)
    layered.turn("delay", "@ 0 6000")
    device = Device([layer], store=store, features="error_if_no_helper")
    device.check(0, FRAME)
    assert device.adds_up()["reads_store"], device.stats()


@test("no memory cache to speak of, and the store between", 60)
def _():
    cache_mib(1)
    store = Store()
    layer = pages(64, frame=256 * KIB)
    filled(store, layer)
    device = Device([layer], store=store, features="error_if_no_helper")
    readers = []
    for _ in range(scale(200, 20)):
        at = rng.randrange(device.size // 4096) * 4096
        readers.append(Reader(device, at, min(128 * KIB, device.size - at)))
        if len(readers) > 8:
            readers.pop(0).good()
    for reader in readers:
        reader.good()


@test("scrub finds what is bad, and leaves the rest")
def _():
    store = Store()
    layer = pages(50)
    filled(store, layer)
    store.again()
    content = store.content()
    for name in rng.sample(sorted(content.frames), 7):
        store.change(content.frames[name][0] + 77, b"!")
    event = DM.call(DM.STATUS, store.name)["event"]
    store.message("scrub")
    wait_until(lambda: store.info()["scrub"] == "-", "end of scrub")
    wait_until(lambda: DM.call(DM.STATUS, store.name)["event"] > event, "event")
    info = store.info()
    assert info["bad"] == 7 and info["frames"] == 43, info
    _, asked = read_all(layer, store)
    assert asked == 7


@test("what is pinned stays, whatever comes", 60)
def _():
    store = Store(48 * MIB)
    pinned = pages(80)
    store.message(f"pin {uuids.UUID(bytes=pinned.uuid)}")
    filled(store, pinned)
    store.again()
    for _ in range(6):
        filled(store, pages(256))
    info = store.info()
    say(info)
    stats, _ = read_all(pinned, store, False)
    assert info["evicted"] and not stats["reads_fetched"], stats
    # no room for anything else
    more = pages(512)
    store.message(f"pin {uuids.UUID(bytes=more.uuid)}")
    filled(store, more)
    filled(store, pages(64))
    info = store.info()
    say(info)
    assert info["skipped"], info
    stats, _ = read_all(pinned, store, False)
    for layer in (pinned, more):
        store.message(f"unpin {uuids.UUID(bytes=layer.uuid)}")

    def stored():
        """It does not look for room again at once."""
        before, last = store.info()["skipped"], pages(64)
        filled(store, last)
        if store.info()["skipped"] > before:
            return False
        stats, _ = read_all(last, store, False)
        assert not stats["reads_fetched"], stats
        return True

    wait_until(stored, "room", 20)


@test("more layers than it can name: the first places are free again")
def _():
    store = Store(48 * MIB)
    assert store.shape.layers == 128
    layers = [layer_of(rng.randbytes(8192), NONE, 4096) for _ in range(140)]
    for layer in layers:
        filled(store, layer)
    info = store.info()
    assert info["stored"] == 256 and info["skipped"] == 24, info


@test("devices come and go while it is suspended and resumed", 90)
def _():
    cache_mib(2)
    store = Store()
    layer = pages(64)
    server = Server(layer)
    stop = []

    def storm():
        while not stop:
            store.again()
            time.sleep(0.05)

    thread = Later(storm)
    end = time.monotonic() + trial(6)
    rounds = 0
    while time.monotonic() < end:
        device = Device([layer], store=store, keep=True)
        for _ in range(20):
            device.check(rng.randrange(64) * FRAME, FRAME)
        device.release()
        device.close()
        rounds += 1
    stop.append(1)
    thread.good()
    info = store.info()
    say(f"{rounds} devices; {info}")
    assert info["hits"] and not info["bad"] and not info["errors"], info


finish()
EOF
finish

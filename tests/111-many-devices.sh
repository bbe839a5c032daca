#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Hundreds of devices on a few images: made, read, removed, some at once.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'EOF'
from rig import *

rng = random.Random(0x111)
MANY = int(os.environ["DEVICES"])

shared = [layer_of(noise(256 * KIB, rng), codec, 16 * KIB)
          for codec in (NONE, ZSTD, LZ4)]
IMAGES = [([shared[0]], [(0, 256 * KIB, 0, 0)], 256 * KIB),
          ([shared[1], shared[0]], [(0, 128 * KIB, 1, 0),
                                    (128 * KIB, 256 * KIB, 0, 0)], 500 * KIB),
          (shared, [(i * 512, 512, i % 3, (i // 3) * 2048)
                    for i in range(0, 300, 2)], 200 * KIB + 1)]


class Shared:
    """Loop devices of the images: devices of one image share one."""

    def __init__(self):
        self.images = []
        for layers, extents, size in IMAGES:
            loop = Loop(write_meta(layers, extents, size))
            undo(loop.close)
            undo(lambda path=loop.path: os.unlink(path))
            self.images.append((loop, flat(layers, extents, size)))


class Plain(Device):
    """One of many: no files of its own."""

    def __init__(self, loop, model):
        self.layers = self.extents = None
        self.model, self.size, self.writable = model, len(model), False
        self.loop = self.path = self.cow_loop = None
        self.lock = threading.Lock()
        self.name = f"m{os.getpid()}-{next(_names)}"
        self.fds = {}
        self.alive = False
        number = DM.call(DM.CREATE, self.name)["dev"]
        self.alive = True
        self.dm = f"dm-{(number & 0xff) | ((number >> 12) & 0xfff00)}"
        self.node = "/dev/" + self.dm
        undo(self.close)
        self.args = f"{loop.name} - -"
        self.load(self.args)
        self.resume()


_names = itertools.count()


def at_once(count, body):
    """body(its own random numbers) in @count threads."""
    errors = []

    def run(seed):
        try:
            body(random.Random(seed))
        except BaseException:
            errors.append(traceback.format_exc())

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors[0]


@test(f"{MANY} devices at once, and each layer's frame is fetched once", 120)
def _():
    images = Shared().images
    server = Server(*shared)
    devices = []
    for i in range(MANY):
        loop, model = images[i % len(images)]
        device = Plain(loop, model)
        devices.append(device)
        size = len(device.model)
        off = 512 * rng.randrange(size // 512)
        device.check(off, min(8192, size - off))
        device.release()
    for device in rng.sample(devices, 10):
        device.check()
        device.release()
    assert len({(r.layer, r.offset) for r in server.log}) == len(server.log)
    assert len(server.log) <= 48
    for device in devices[::2]:
        device.close()
    for device in rng.sample(devices[1::2], 5):
        device.check()
        device.release()


@test("made and removed by several at once, with reads", 120)
def _():
    images = Shared().images
    Server(*shared)

    def life(mine):
        for _ in range(min(MANY, 200) // 8):
            device = Plain(*mine.choice(images))
            size = len(device.model)
            for _ in range(2):
                off = 512 * mine.randrange(size // 512)
                device.check(off, min(4096, size - off))
            device.close()

    at_once(4, life)


@test("tables loaded and cleared by several at once", 60)
def _():
    images = Shared().images

    def loads(mine):
        device = Plain(*mine.choice(images))
        for _ in range(scale(150, 30)):
            device.load(device.args)
            DM.call(DM.CLEAR, device.name)
        device.close()

    at_once(4, loads)


@test("a helper's death with many devices waiting: all go on with the next")
def _():
    images = Shared().images
    devices = [Plain(*images[i % 3]) for i in range(min(MANY, 60))]
    readers = [Reader(d, 0, 512) for d in devices]
    for d in devices:
        waiting(d)
    for _ in range(3):
        hand = Helper()
        hand.requests(1)
        hand.close()
    Server(*shared)
    for r in readers:
        r.good()


@test(f"{MANY} with misses outstanding, removed by force, all at once", 180)
def _():
    images = Shared().images
    devices = [Plain(*images[i % 3]) for i in range(MANY)]
    readers = [Reader(d, 0, 512) for d in devices]
    for d in devices:
        waiting(d)
    # a helper that has taken the requests of half of them, and is silent
    hand = Helper()
    undo(hand.close)
    hand.requests(1)

    def force(device):
        """As dmsetup remove --force does it"""
        DM.load(device.name, sectors(device.size), "", target="error")
        DM.call(DM.SUSPEND, device.name, DM.F_SUSPEND | DM.NOFLUSH |
                DM.SKIP_LOCKFS)
        device.resume()

    turns = iter(devices)
    guard = threading.Lock()

    def remove(mine):
        while True:
            with guard:
                device = next(turns, None)
            if not device:
                return
            force(device)

    at_once(6, remove)
    for r in readers:
        r.bad()
    for d in devices:
        d.close()
    wait_until(lambda: module("cache_frames") == 0, "empty cache")


@test("nothing of them is left")
def _():
    wait_until(lambda: module("cache_frames") == 0, "empty cache")
    assert module("cache_bytes") == 0


finish()
EOF
finish

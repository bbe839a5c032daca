#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# An image with a long history: it attaches in bounded time and memory, and a
# read of what is in memory costs what it costs with one layer.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'EOF'
from rig import *

rng = random.Random(0x320)
LAYERS, MAPPINGS = (2000, 10000) if SLOW == 1 else (400, 2000)
EACH = MAPPINGS // LAYERS * BLOCK
SIZE = MAPPINGS * BLOCK
ROUNDS, READS = 9, 400


def available():
    with open("/proc/meminfo") as f:
        return {line.split(":")[0]: int(line.split()[1]) for line in f}[
            "MemAvailable"]


def history():
    """Every mapping in another layer than its neighbours, in no order."""
    layers = [layer_of(noise(EACH, rng), NONE, BLOCK) for _ in range(LAYERS)]
    places = [(n, i * BLOCK) for n in range(LAYERS)
              for i in range(EACH // BLOCK)]
    rng.shuffle(places)
    return layers, [(at * BLOCK, BLOCK, n, storage)
                    for at, (n, storage) in enumerate(places)]


class Measured(Device):
    """What the kernel takes to attach it."""

    def create(self, resume=True):
        before, start = available(), time.perf_counter()
        super().create(resume)
        self.took = time.perf_counter() - start
        self.used = before - available()


def cost(device, offsets):
    fd = device.fd()
    page = mmap.mmap(-1, BLOCK)
    start = time.perf_counter()
    for off in offsets:
        os.preadv(fd, [page], off)
    return time.perf_counter() - start


@test(f"{MAPPINGS} mappings over {LAYERS} layers", 300)
def _():
    cache_mib(SIZE // MIB * 2)
    layers, extents = history()
    flat_layer = layer_of(noise(SIZE, rng), NONE, BLOCK)
    one = Device([flat_layer], [(0, SIZE, 0, 0)], SIZE)
    many = Measured(layers, extents, SIZE)
    Server(flat_layer, *layers)
    one.check()
    many.check()
    times = {one: [], many: []}
    for _ in range(ROUNDS):
        offsets = [BLOCK * rng.randrange(MAPPINGS) for _ in range(READS)]
        for device in (one, many):
            times[device].append(cost(device, offsets))
    median = {d: sorted(t)[ROUNDS // 2] for d, t in times.items()}
    ratio = median[many] / median[one]
    say(f"attached in {many.took:.2f} s, {many.used} KiB; a hot 4 KiB read costs "
        f"{ratio:.2f} times that with one layer")
    assert many.stats()["reads_failed"] == 0
    assert many.took < 20 * SLOW and many.used < 32 << 10, (many.took,
                                                            many.used)
    assert ratio < 1.5, times


finish()
EOF
finish

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# What size costs, for tests/vm -i, where a nanosecond is an instruction: attaching
# images of up to 1 TiB and 2,000 layers, the kernel's memory that they take, and a
# hit of 4 KiB in them.
#
#   BENCH_ONLY	regular expression of the rows to measure
. "$(dirname "$0")/../common.sh"
. "$tests/lib/python.sh"

python_tests <<'EOF'
import json
import re
import rig
from rig import *

COST = f"{os.path.dirname(os.path.dirname(rig.__file__))}/bench/cost.py"
ONLY = os.environ.get("BENCH_ONLY", "")
# above what a device of the tests is compared with
GIB = (1 << 30) + 128 * KIB
HOT = 16 * MIB		# what cost.py reads
rng = random.Random(0x5ca1e)


class Zeros:
    """So many of them, which take no memory."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, part):
        return bytes(len(range(*part.indices(self.size))))


def sparse_layer(size):
    """A raw layer of zeros, in frames as large as build would make them."""
    frame = 128 * KIB
    while size // frame > 1 << 20:
        frame *= 2
    layer = Layer(b"", NONE, sums=False)
    layer.content = layer.object = Zeros(size)
    layer.frames = [(at, at, frame, frame, 0) for at in range(0, size, frame)]
    return layer


def history(layers, mappings):
    """Every mapping in another layer than its neighbours, in no order."""
    each = mappings // layers * BLOCK
    made = [layer_of(noise(each, rng), NONE, BLOCK) for _ in range(layers)]
    places = [(n, i) for n in range(layers) for i in range(each // BLOCK)]
    rng.shuffle(places)
    return made, [(at * BLOCK, BLOCK, n, i * BLOCK)
                  for at, (n, i) in enumerate(places)]


def kernel_kib():
    """What the kernel allocated for itself; what nobody needs is given back first.
    Free memory does not tell: much of what was freed waits in lists of processors."""
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3")
    with open("/proc/meminfo") as f:
        found = {line.split(":")[0]: int(line.split()[1]) for line in f}
    return sum(found[what] for what in ("VmallocUsed", "Slab", "Percpu",
                                        "KernelStack", "PageTables"))


class Measured(Device):
    def create(self, resume=True):
        before, start = kernel_kib(), time.perf_counter_ns()
        super().create(resume)
        self.took = time.perf_counter_ns() - start
        self.used = kernel_kib() - before


def cell(row, column, unit, value):
    say("bench " + json.dumps({"table": "scale", "row": row, "column": column,
                               "unit": unit, "values": [value]}))


def hit(device):
    for at in range(0, HOT, 128 * KIB):
        os.preadv(device.fd(), [mmap.mmap(-1, 128 * KIB)], at)
    got = subprocess.run([COST, "400", str(BLOCK), "random", "huge",
                          f"x={device.node}"], capture_output=True, text=True,
                         timeout=patience(60), check=True)
    return int(got.stdout.split()[1])


def shown(row, device, seen=True):
    cell(row, "memory", "KiB", device.used)
    cell(row, "attach", "instructions", device.took)
    if seen:
        device.hit = hit(device)
        cell(row, "hit of 4 KiB", "instructions", device.hit)
        assert not device.stat("reads_failed")
    return device


def wanted(name):
    return re.search(ONLY, name)


for size, name in ((GIB, "1 GiB"), (64 << 30, "64 GiB"), (1 << 40, "1 TiB")):
    if wanted(name):
        @test(f"{name}: less than 16 MiB of memory", 300)
        def _():
            layer = sparse_layer(size)
            Server(layer)
            device = shown(name, Measured([layer], None, size))
            assert device.used < 16 << 10, device.used
            device.close()
            device = shown(f"{name}, with an overlay",
                           Measured([layer], None, size, cow=True), False)
            assert device.used < 16 << 10, device.used

counts = [n for n in (1, 100, 2000) if wanted(f"{n} layers")]
if len(counts) > 1:
    @test(f"{counts[-1]} layers: a hit costs what it costs with one", 600)
    def _():
        costs = {}
        cache_mib(128)
        for layers in counts:
            made, extents = history(layers, 6000)
            if layers == 1:
                extents = None
            server = Server(*made)
            device = shown(f"{layers} layers, {len(extents or [0])} mappings",
                           Measured(made, extents, 6000 * BLOCK))
            costs[layers] = device.hit
            device.check()
            assert device.used < 4 << 10, device.used
            device.close()
            server.close()
        assert max(costs.values()) <= costs[1] * 1.1, costs

if wanted("devices"):
    @test("500 devices of one image", 600)
    def _():
        layer = sparse_layer(GIB)
        Server(layer)
        first = Measured([layer])
        before = kernel_kib()
        others = [Device([layer]) for _ in range(499)]
        cell("500 devices of an image of 1 GiB", "memory", "KiB",
             (kernel_kib() - before) // len(others))


finish()
EOF
finish

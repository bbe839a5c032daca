#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# How much of what is read is found in a store that is too small for all of it,
# and how much an LRU of as many bytes would find.
#
#	TRACE_SESSIONS	of programs, whose reads tests/lib/reads.py has recorded
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'EOF'
import bisect
import collections
from rig import *
from store import Store
import reads

FRAME = reads.BLOCK
CACHE = 8				# MiB of memory above the store
SESSIONS = int(os.environ["TRACE_SESSIONS"])
rng = random.Random(0x404)


def lru(trace, room):
    """The part of all reads that it finds."""
    held, hits, total = collections.OrderedDict(), 0, 0
    for start, count in trace:
        for frame in range(start, start + count):
            total += 1
            if frame in held:
                held.move_to_end(frame)
                hits += 1
                continue
            held[frame] = True
            if len(held) > room // FRAME:
                held.popitem(last=False)
    return hits / total


def ours(trace, size):
    """The same of a store, and its room."""
    cache_mib(CACHE)
    frames = max(start + count for start, count in trace)
    piece = rng.randbytes(FRAME)
    layer = layer_of(b"".join(struct.pack("<Q", n) + piece[8:]
                              for n in range(frames)), NONE, FRAME)
    store = Store(size)
    device = Device([layer], store=store)
    server = Server(layer)
    for start, count in trace:
        asked = len(server.log)
        # backwards, so that nothing is read ahead
        for frame in reversed(range(start, start + count)):
            device.check(frame * FRAME, FRAME)
            # what is stored shall not depend on how fast this machine is
            if len(server.log) - asked >= 16:
                store.idle()
                asked = len(server.log)
    info = store.info()
    assert not info["errors"] and not info["skipped"], info
    total = sum(count for _, count in trace)
    return 1 - len(server.log) / total, info["room"] * 512


def compare(name, trace, size):
    total = sum(count for _, count in trace)
    apart = len({f for start, count in trace
                 for f in range(start, start + count)})
    found, room = ours(trace, size)
    # memory helps both
    plain = lru(trace, room + CACHE * MIB)
    say(f"{name}: {total} reads of {apart} frames ({apart * FRAME >> 20} MiB), "
        f"store of {size >> 20} MiB: {found:.1%} found; LRU {plain:.1%}")
    return found, plain


@test("few frames are read often, most of them seldom, and there are scans", 120)
def _():
    frames, weight, sums = 12000, 0, []
    for rank in range(frames):
        weight += 1 / (rank + 1) ** 0.9
        sums.append(weight)
    place = rng.sample(range(frames), frames)
    trace = []
    for n in range(max(SESSIONS * 600, 4000)):
        if n % 1500 == 1499:
            trace += [(at, 16) for at in range(rng.randrange(4000), 8000, 16)]
        rank = bisect.bisect(sums, rng.random() * weight)
        trace.append((place[rank], 1))
    found, plain = compare("synthetic", trace, 64 * MIB)
    assert found > plain, "worse than LRU"


if SESSIONS:
    @test("programs on a Debian start again and again, and are backed up", 1000)
    def _():
        trace = reads.day(SESSIONS, rng)
        found, plain = compare("recorded", trace, 48 * MIB)
        assert found > plain, "worse than LRU"


finish()
EOF
finish

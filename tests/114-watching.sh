#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Who asks what is slow gets the truth: histograms, tracepoints, and why.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'END'
from rig import *
from store import Store
import uuid

rng = random.Random(0x114)
FRAME = 64 * KIB
content = noise(512 * KIB, rng)
layer = layer_of(content, ZSTD, FRAME)
other = layer_of(content, LZ4, FRAME)
layers = {layer.uuid: layer, other.uuid: other}
STEPS = ("queue", "first_byte", "transfer", "load", "verify", "decode")


def count(histogram):
    return sum(n for _, n in histogram[0])


def added(before, after):
    """(le, count) of what was counted meanwhile, and its sum in seconds."""
    return ([(le, b - a) for (le, a), (_, b) in zip(before[0], after[0])
             if a != b], (after[1] - before[1]) / 1e9)


def all_steps():
    return {name: step(name) for name in STEPS}


@test("a file of latency/: 28 buckets and a sum, one line each, read-only")
def _():
    device = Device([layer])
    for folder, names in ((f"/sys/block/{device.dm}/lazyframe/latency",
                           ("fetch", "hit", "store")),
                          (f"{MODULE}/latency", sorted(STEPS))):
        assert sorted(os.listdir(folder)) == list(names)
        for name in names:
            histogram(f"{folder}/{name}")
            assert os.stat(f"{folder}/{name}").st_mode & 0o777 == 0o444


@test("each read is in one histogram, the one of what it waited for")
def _():
    store = Store()
    device = Device([layer], [(0, 512 * KIB, 0, 0)], 1 * MIB, store=store)
    server = Server(layer)
    for i in (3, 1, 5):
        device.check(i * FRAME, 4096)
    for i in range(20):
        device.check(5 * FRAME + i * 512, 512)
    device.check(700 * KIB, 4096)	# zeros take no time
    store.settled(3)
    cache_mib(1)
    again = Device([layer], store=store)
    device.close()
    again.check(3 * FRAME, 512)
    Reader(again, 5 * FRAME, 512).good()
    s = again.stats()
    for name, stat in (("hit", "reads_memory"), ("store", "reads_store"),
                       ("fetch", "reads_fetched")):
        assert count(again.latency(name)) == s[stat], (name, s)
    # what is in memory is dropped with the layer's last device
    again.close()
    cold = Device([layer], store=store)
    before = step("load")
    cold.check(3 * FRAME, 512)
    s = cold.stats()
    assert s["reads_store"] == 1, s
    for name in ("hit", "store", "fetch"):
        assert count(cold.latency(name)) == (name == "store"), name
    assert count(step("load")) == count(before) + 1
    assert len(server.log) == 3


@test("a slow step of a fetch is found in its own histogram, in its bucket")
def _():
    device = Device([layer])
    hand = Hand()
    for index, slow in enumerate(("queue", "first_byte", "transfer")):
        before, fetch = all_steps(), device.latency("fetch")
        at = [time.monotonic()]
        reader = Reader(device, index * 2 * FRAME, 512)
        wait_until(lambda: device.message("why").count(" posted "))
        if slow == "queue":
            time.sleep(0.3)
        at.append(time.monotonic())
        request = hand.next()
        at.append(time.monotonic())
        if slow == "first_byte":
            time.sleep(0.3)
        data = layer.object[request.offset:request.offset + request.length]
        at.append(time.monotonic())
        hand.fill(request, data[:100])
        at.append(time.monotonic())
        if slow == "transfer":
            time.sleep(0.3)
        hand.fill(request, data[100:], offset=100)
        at.append(time.monotonic())
        reader.good()
        most = {"queue": at[2] - at[0], "first_byte": at[4] - at[1],
                "transfer": at[5] - at[3], "verify": 1e9, "decode": 1e9}
        changed = {name: added(before[name], now)
                   for name, now in all_steps().items()}
        say({name: f"{seconds:.6f}" for name, (_, seconds) in changed.items()})
        for name in STEPS:
            buckets, seconds = changed[name]
            assert sum(n for _, n in buckets) == (name != "load"), changed
            if name == "load":
                continue
            le = buckets[0][0]
            assert le / 2 < max(seconds * 1e6, 0.6) <= le, (name, changed)
            assert (name == slow) * 0.29 <= seconds <= most[name], \
                (name, changed, most)
        buckets, seconds = added(fetch, device.latency("fetch"))
        assert len(buckets) == 1 and seconds >= 0.29, buckets


@test("a raw frame is verified and not decoded, a frame once verified no more")
def _():
    raw = layer_of(content, NONE, FRAME)
    device = Device([raw, layer], [(0, 256 * KIB, 0, 0),
                                   (256 * KIB, 256 * KIB, 1, 0)], 512 * KIB)
    Server(raw, layer)
    before = all_steps()
    device.check(3 * FRAME, 512)
    device.check(3 * FRAME, 512)
    after = all_steps()
    assert count(after["decode"]) == count(before["decode"])
    assert count(after["verify"]) == count(before["verify"]) + 1


# ---------------------------------------------------------------- tracing

TRACING = "/sys/kernel/tracing"


class Trace:
    """What the tracepoints say while it is open: (event, {field: text})."""

    def __init__(self):
        if not os.path.isdir(f"{TRACING}/events"):
            raise Skip("the kernel has no tracefs")
        self.set("buffer_size_kb", "1024")
        self.set("trace", "")
        self.set("events/lazyframe/enable", "1")
        undo(lambda: self.set("events/lazyframe/enable", "0"))

    def set(self, name, text):
        with open(f"{TRACING}/{name}", "w") as f:
            f.write(text)

    def events(self):
        out = []
        with open(f"{TRACING}/trace") as f:
            for line in f:
                found = re.search(r" lazyframe_(\w+): (.*)", line)
                if found:
                    fields = dict(re.findall(r"(\w+)=(\S+)", found[2]))
                    out.append((found[1], fields))
        return out


def frame_of(layer, index):
    u, c, ub, cb, _ = layer.frames[index]
    return {"layer": str(uuid.UUID(bytes=layer.uuid)), "C": f"{c}+{cb}",
            "U": f"{u}+{ub}"}


@test("a miss can be followed from want to end")
def _():
    device = Device([layer])
    hand = Hand()
    trace = Trace()
    reader = Reader(device, 2 * FRAME + 512, 1024)
    request = hand.next()
    data = layer.object[request.offset:request.offset + request.length]
    hand.fill(request, data[:50])
    hand.fill(request, data[50:], offset=50)
    reader.good()
    events = trace.events()
    say(events)
    names = [name for name, _ in events]
    # what is posted is, by a worker, perhaps posted before the read is parked
    waits = names.index("read_waits")
    assert waits < names.index("read_done")
    assert [n for n in names if n != "read_waits"] == [
        "wanted", "posted", "taken", "first_bytes", "filled", "decoded",
        "verified", "read_done"], names
    want = frame_of(layer, 2)
    for name, fields in events:
        assert fields["layer"] == want["layer"], (name, fields)
        if not name.startswith("read_"):
            assert fields["C"] == want["C"] and fields["U"] == want["U"], \
                (name, fields)
    assert events[waits][1]["U"] == f"{2 * FRAME + 512}+1024"
    assert events[-1][1]["U"] == f"{2 * FRAME + 1536}+0"
    assert events[-1][1]["error"] == "0"
    trace.set("trace", "")
    device.check(2 * FRAME, 512)
    assert [name for name, _ in trace.events()] == ["read_done"]


@test("and through a helper's death, to another one's error")
def _():
    device = Device([other])
    hand = Hand()
    trace = Trace()
    reader = Reader(device, FRAME, 512)
    hand.next()
    hand.close()
    hand = Hand()
    hand.fill(hand.next(), status=errno.ENOENT)
    reader.bad()
    events = trace.events()
    assert [n for n, _ in events if n != "read_waits"] == [
        "wanted", "posted", "taken", "requeued", "posted", "taken", "failed",
        "read_done"], events
    assert events[-2][1]["error"] == str(-errno.ENOENT), events
    assert events[-1][1]["error"] == str(-errno.EIO) or \
        events[-1][1]["error"] == str(-errno.ENOENT), events


@test("a read that its device's policy ends gives up")
def _():
    device = Device([layer], features="fetch_timeout 1")
    hand = Hand()
    trace = Trace()
    reader = Reader(device, FRAME, 512)
    hand.next()
    reader.bad(errno.ETIMEDOUT)
    names = [n for n, _ in trace.events()]
    assert "read_gave_up" in names, names
    assert names.index("read_gave_up") < names.index("read_done"), names


@test("from the store it is loading and loaded")
def _():
    store = Store()
    device = Device([layer], store=store)
    Server(layer)
    device.check(FRAME, 512)
    store.settled(1)
    device.close()
    device = Device([layer], store=store)
    trace = Trace()
    device.check(FRAME, 512)
    names = [n for n, _ in trace.events() if n != "read_waits"]
    assert names == ["wanted", "loading", "loaded", "decoded", "verified",
                     "read_done"], names


# ---------------------------------------------------------------- why

def why(device):
    lines = device.message("why").splitlines()
    head = lines[0].split()
    assert head[0] == "helper" and head[4] == "waiting" and \
        head[6] == "listed" and len(lines) == 1 + int(head[7]), lines
    names = ("age", "state", "here", "uuid", "layer", "upos", "cstart",
             "have", "cbytes")
    reads = []
    for line in lines[1:]:
        word = line.split()
        assert word[0] == "read" and len(word) == 10, line
        reads.append({n: w if n in ("state", "uuid") else int(w)
                      for n, w in zip(names, word[1:])})
    return {"helper": head[1], "since": int(head[2]), "silent": int(head[3]),
            "waiting": int(head[5])}, reads


@test("why: nobody waits")
def _():
    device = Device([layer])
    head, reads = why(device)
    assert head["helper"] == "none" and not head["waiting"] and not reads


@test("why: each state of a fetch, its layer, its frame and its age")
def _():
    device = Device([layer])
    reader = Reader(device, 3 * FRAME + 512, 4096)
    waiting(device)

    def one(state):
        head, reads = why(device)
        assert head["waiting"] == 1 and len(reads) == 1, (head, reads)
        r = reads[0]
        assert r["state"] == state, (state, r)
        assert uuid.UUID(r["uuid"]).bytes == layer.uuid
        assert r["upos"] == 3 * FRAME + 512, r
        assert r["cstart"] == layer.frames[3][1], r
        assert r["cbytes"] == layer.frames[3][3], r
        assert r["here"] <= r["age"], r
        return head, r

    time.sleep(0.3)
    head, r = one("helper")
    assert head["helper"] == "none" and r["age"] >= 250, r
    hand = Hand()
    wait_until(lambda: why(device)[1][0]["state"] == "posted")
    time.sleep(0.3)
    head, r = one("posted")
    assert head["helper"] == "attached" and head["silent"] >= 250, head
    assert r["age"] >= 500 and 250 <= r["here"] < r["age"], r
    request = hand.next()
    assert r["layer"] == request.layer
    head, r = one("taken")
    assert head["silent"] <= r["here"] + 50, (head, r)
    data = layer.object[request.offset:request.offset + request.length]
    hand.fill(request, data[:77])
    head, r = one("receiving")
    assert r["have"] == 77, r
    hand.fill(request, data[77:], offset=77)
    reader.good()
    head, reads = why(device)
    assert not head["waiting"] and not reads


@test("why: the store's device is what it waits for")
def _():
    store = Store()
    device = Device([layer], store=store)
    server = Server(layer)
    device.check(FRAME, 512)
    store.settled(1)
    device.close()
    server.close()
    store.suspend()
    # the store's file below a device that can be stopped
    low = Mapped("linear", store.size, f"{store.loop.name} 0")
    frozen = Store(store.size, on=low.node, fresh=False)
    cold = Device([layer], store=frozen)
    DM.call(DM.SUSPEND, low.name, DM.F_SUSPEND | DM.SKIP_LOCKFS)
    reader = Reader(cold, FRAME, 512)
    wait_until(lambda: why(cold)[0]["waiting"])
    head, reads = why(cold)
    assert [r["state"] for r in reads] == ["loading"], (head, reads)
    DM.call(DM.SUSPEND, low.name)
    reader.good()


@test("why tells of 128 reads at most, and of how many there are")
def _():
    big = layer_of(content, NONE, 4096)
    device = Device([big])
    frames = len(big.frames)
    readers = [Reader(device, i % frames * 4096, 512) for i in range(132)]
    waiting(device, len(readers))
    head, reads = why(device)
    assert head["waiting"] == len(readers) > 128 and len(reads) == 128
    Server(big)
    for reader in readers:
        reader.good()


@test("who asks why while reads come and go, and helpers, does no harm", 60)
def _():
    device = Device([layer], features="error_if_no_helper")
    stop = []

    def asking():
        while not stop:
            why(device)

    def reading(seed):
        mine = random.Random(seed)
        while not stop:
            try:
                device.read(512 * mine.randrange(1000), 4096)
            except OSError:
                pass

    device.fd()
    threads = [Later(asking)] + [Later(reading, i) for i in range(3)]
    end = time.monotonic() + trial(2)
    while time.monotonic() < end:
        server = Server(layer)
        time.sleep(0.03)
        server.close()
        cache_mib(rng.choice((1, 64)))
    stop.append(1)
    for thread in threads:
        thread.good()
    device.adds_up()


finish()
END
finish

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# What dmsetup and sysfs say is true, adds up and reloads.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'EOF'
from rig import *

rng = random.Random(0x108)
FRAME = 64 * KIB
content = rng.randbytes(512 * KIB)
layer = layer_of(content, ZSTD, FRAME)
other = layer_of(content[:FRAME], LZ4, FRAME)
layers = {layer.uuid: layer}

INFO = ("helper", "policy", "layers", "cache_frames", "cache_bytes",
        "cache_limit", "waiting", "reads", "reads_zero", "reads_memory",
        "reads_fetched", "reads_failed", "frames_bad", "mode", "dirty_blocks",
        "zero_blocks", "writes", "copy_ups", "commits", "reads_overlay",
        "reads_origin", "reads_store")


def info(device):
    fields = device.info()
    assert len(fields) == len(INFO), fields
    return dict(zip(INFO, [int(f) if f.isdigit() else f for f in fields]))


@test("INFO: each field says what sysfs says")
def _():
    device = Device([layer, other], [(0, 512 * KIB, 0, 0), (
        600 * KIB, FRAME, 1, 0)], 700 * KIB)
    fresh = info(device)
    assert fresh["helper"] == "none" and fresh["policy"] == "queue", fresh
    assert fresh["layers"] == 2 and fresh["reads"] == 0, fresh
    cache_mib(9)
    server = Server(layer, other)
    device.check()
    device.check(0, FRAME)
    now = info(device)
    stats = device.adds_up()
    assert now["helper"] == "attached" and now["layers"] == 2
    assert now["cache_frames"] == module("cache_frames") == 9
    assert now["cache_bytes"] == module("cache_bytes") == \
        len(layer.object) + len(other.object)
    assert now["cache_limit"] == module("cache_limit") == 9 * MIB
    assert now["mode"] == "-"
    for name in INFO[7:13] + INFO[14:]:
        assert now[name] == stats[name], (name, now, stats)
    server.close()
    reader = Reader(device, 4096, 512)
    reader.good()
    device.message("error_if_no_helper")
    assert info(device)["policy"] == "error"
    assert info(device)["helper"] == "none"


@test("INFO counts the reads that wait")
def _():
    device = Device([layer])
    readers = [Reader(device, i * FRAME, 512) for i in range(5)]
    waiting(device, 5)
    assert info(device)["waiting"] == 5
    Server(layer)
    for r in readers:
        r.good()
    assert info(device)["waiting"] == 0


@test("TABLE is the line that was given, and reloads to the same")
def _():
    for features in ("", "error_if_no_helper", "no_helper_timeout 5",
                     "fetch_timeout 7", "read_only", "fetch_timeout 0",
                     "error_if_no_helper no_helper_timeout 86400 "
                     "fetch_timeout 1 read_around 4096 read_only"):
        device = Device([layer], features=features, keep=True)
        table = device.table()
        dev = os.stat(device.loop.name).st_rdev
        assert table == device.args.replace(
            device.loop.name, f"{os.major(dev)}:{os.minor(dev)}"), table
        device.load(table)
        device.resume()
        assert device.table() == table
        device.close()


@test("TABLE follows the messages")
def _():
    device = Device([layer])
    bare = device.table()
    for message, feature in (
            ("error_if_no_helper", "1 error_if_no_helper"),
            ("no_helper_timeout 9", "3 error_if_no_helper "
             "no_helper_timeout 9"),
            ("fetch_timeout 0", "5 error_if_no_helper no_helper_timeout 9 "
             "fetch_timeout 0"),
            ("queue_if_no_helper", "4 no_helper_timeout 9 fetch_timeout 0"),
            ("no_helper_timeout 0", "2 fetch_timeout 0"),
            ("read_around 8388608", "4 fetch_timeout 0 read_around 8388608"),
            ("read_around 0", "2 fetch_timeout 0")):
        device.message(message)
        assert device.table() == f"{bare} {feature}", device.table()
        device.load(device.table())
        device.resume()
        assert device.table() == f"{bare} {feature}", device.table()
    device.message("fetch_timeout 60")
    assert device.table() == bare


@test("the IMA line names target, version and image")
def _():
    device = Device([layer])
    text = DM.status(device.name, DM.IMA)
    assert text.startswith("target_name=lazyframe,target_version="), text
    assert text.endswith(";"), text
    fields = dict(f.split("=", 1) for f in text.rstrip(";").split(","))
    assert int(fields["image_bytes"]) == len(content)
    assert fields["layers"] == "1"
    assert len(fields["image_uuid"]) == 36


@test("a short buffer for the status does no harm")
def _():
    device = Device([layer])
    for room in range(40, 200, 7):
        for flags in (0, DM.STATUS_TABLE, DM.IMA):
            DM.call(DM.TABLE, device.name, flags, room=room)


@test("each read counts once, under what it was")
def _():
    device = Device([layer], [(0, 512 * KIB, 0, 0)], 1 * MIB)
    server = Server(layer)
    want = dict.fromkeys(device.stats(), 0)

    def did(**changes):
        for name, n in changes.items():
            want[name] += n
        got = device.adds_up()
        got.pop("frames_prefetched")
        assert got == {k: v for k, v in want.items()
                       if k != "frames_prefetched"}, (got, want)

    did()
    device.check(0, 4096)
    did(reads=1, reads_fetched=1, read_bytes=4096, frames_demanded=1)
    device.check(0, 4096)
    did(reads=1, reads_memory=1, read_bytes=4096)
    device.check(600 * KIB, 8192)
    did(reads=1, reads_zero=1, read_bytes=8192)
    server.close()
    device.message("error_if_no_helper")
    Reader(device, 2 * FRAME, 4096).wait()
    assert device.stat("reads_failed") == 1
    want["frames_demanded"] = device.stat("frames_demanded")
    did(reads=1, reads_failed=1)


@test("the counters add up behind a storm of all kinds of reads")
def _():
    device = Device([layer], [(0, 512 * KIB, 0, 0)], 1 * MIB,
                    features="error_if_no_helper")
    total = [0]
    lock = threading.Lock()

    def reading(seed):
        mine = random.Random(seed)
        for _ in range(scale(100, 20)):
            try:
                data = device.read(512 * mine.randrange(2000), 4096)
                with lock:
                    total[0] += len(data)
            except OSError:
                pass

    device.fd()
    threads = [threading.Thread(target=reading, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    while any(t.is_alive() for t in threads):
        server = Server(layer)
        time.sleep(0.03)
        server.close()
    s = device.adds_up()
    say(s)
    # a read that lies on a border is two: one may succeed and one fail
    assert s["read_bytes"] >= total[0]
    if not s["reads_failed"]:
        assert s["read_bytes"] == total[0]
    assert s["reads"] >= scale(100, 20) * 4


@test("the module's counters")
def _():
    names = ("requests", "fill_bytes", "fill_errors", "sessions", "decodes")
    before = {n: module(n) for n in names}
    device = Device([layer])
    hand = Hand()
    assert module("helper") == 1
    for i in range(3):
        reader = Reader(device, i * FRAME, 512)
        request = hand.next()
        if i == 2:
            hand.fill(request, status=errno.EIO)
            reader.bad()
        else:
            hand.answer(request, layers)
            reader.good()
    after = {n: module(n) - before[n] for n in names}
    sizes = [f[3] for f in layer.frames]
    assert after["requests"] == 3 and after["sessions"] == 1, after
    assert after["fill_bytes"] == sizes[0] + sizes[1], after
    assert after["fill_errors"] == 1 and after["decodes"] >= 2, after
    hand.close()
    assert module("helper") == 0
    assert sorted(n for n in os.listdir(MODULE) if
                  os.path.isfile(f"{MODULE}/{n}") and
                  n not in ("dev", "uevent")) == sorted(
        names + ("cache_bytes", "cache_frames", "cache_limit", "decoded_bytes",
                 "evictions",
                 "helper"))


@test("every file of sysfs is one number, or a word, read-only")
def _():
    device = Device([layer])
    for folder in (f"/sys/block/{device.dm}/lazyframe", MODULE):
        for name in os.listdir(folder):
            path = f"{folder}/{name}"
            if not os.path.isfile(path) or name in ("dev", "uevent"):
                continue
            with open(path) as f:
                text = f.read()
            good = text.strip() in ("-", "rw", "ro", "fail") \
                if name == "mode" else text.strip().isdigit()
            assert text.endswith("\n") and good, (path, text)
            assert os.stat(path).st_mode & 0o777 == 0o444, path


@test("an event for each helper that comes and goes, and dmsetup wait ends")
def _():
    device = Device([layer])

    def events():
        return DM.call(DM.STATUS, device.name)["event"]

    start = events()
    hand = Hand()
    wait_until(lambda: events() > start, "event for a new helper")
    middle = events()
    waiter = subprocess.Popen(["dmsetup", "wait", "--noflush", device.name,
                               str(middle)], stdout=subprocess.PIPE)
    time.sleep(0.3)
    hand.close()
    wait_until(lambda: events() > middle, "event for a helper that went")
    assert waiter.wait(patience(10)) == 0
    waiter.stdout.close()


@test("sysfs goes with suspend and comes with resume; counters go on")
def _():
    device = Device([layer])
    Server(layer)
    device.check(0, 4096)
    folder = f"/sys/block/{device.dm}/lazyframe"
    for _ in range(20):
        device.suspend()
        device.resume()
        assert os.path.isdir(folder)
    assert device.stat("reads") == 1
    # readers of the files while they go
    stop = []

    def reading():
        while not stop:
            try:
                device.stats()
            except (FileNotFoundError, OSError):
                pass
    threads = [threading.Thread(target=reading) for _ in range(2)]
    for t in threads:
        t.start()
    for _ in range(scale(100, 20)):
        device.suspend(True)
        device.resume()
    stop.append(1)
    for t in threads:
        t.join()


finish()
EOF
finish

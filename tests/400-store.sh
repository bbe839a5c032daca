#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# The store: what was fetched once is there, for every device, with no helper,
# after a reboot; and nothing that happens to it is an error for a reader.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'EOF'
from rig import *
from store import Store, check_all, filled, read_all

rng = random.Random(0x400)


def pages(count, frame=16 * KIB, codec=ZSTD, unlike=0.5):
    """A layer of so many frames; some compress."""
    content = b"".join(rng.randbytes(int(frame * unlike)) +
                       bytes(frame - int(frame * unlike))
                       for _ in range(count))
    return layer_of(content, codec, frame)


@test("what was fetched is read from the store, with no helper")
def _():
    store = Store()
    for codec in (ZSTD, LZ4, NONE):
        layer = pages(40, codec=codec)
        stats, asked = filled(store, layer)
        assert asked == 40 and stats["reads_store"] == 0, (asked, stats)
        stats, _ = read_all(layer, store, False, features="error_if_no_helper")
        assert stats["reads_store"] and not stats["reads_fetched"] and \
            not stats["reads_failed"], stats
    info = store.info()
    assert info["frames"] == info["stored"] == 120 and \
        info["hits"] == 120, info


@test("after a reboot, too")
def _():
    store = Store()
    layer = pages(60)
    filled(store, layer)
    store.again()
    assert store.info()["frames"] == 60
    read_all(layer, store, False, features="error_if_no_helper")
    store.suspend()
    content = store.content()
    assert len(content.frames) == 60 and not content.wrong(store.at)
    assert set(content.layers.values()) == {layer.uuid}
    store.resume()


@test("while it is suspended, devices do without")
def _():
    store = Store()
    layer = pages(20)
    assert filled(store, layer)[1] == 20
    store.suspend()
    assert read_all(layer, store)[1] == 20 and store.info()["mode"] == "-"
    store.resume()
    assert read_all(layer, store)[1] == 0


@test("what was read again outlasts what is read but once", 60)
def _():
    store = Store(48 * MIB)
    hot = layer_of(rng.randbytes(6 * MIB), NONE, 64 * KIB)
    filled(store, hot)
    read_all(hot, store, False)
    for _ in range(8):
        filled(store, layer_of(rng.randbytes(12 * MIB), NONE, 64 * KIB))
    info = store.info()
    say(info)
    assert info["evicted"] > info["frames"], info
    stats, asked = read_all(hot, store)
    assert not asked, (asked, stats, store.info())


@test("a store full of what was read again still takes what is new", 60)
def _():
    store = Store(48 * MIB)
    hot = layer_of(rng.randbytes(36 * MIB), NONE, 64 * KIB)
    filled(store, hot)
    for _ in range(2):
        read_all(hot, store, False)
    before = store.info()
    filled(store, layer_of(rng.randbytes(12 * MIB), NONE, 64 * KIB))
    info = store.info()
    say(info)
    assert info["stored"] == before["stored"] + 192 and not info["skipped"]
    asked = read_all(hot, store)[1]
    say(f"{asked} of {len(hot.frames)} hot frames gave way")
    assert asked < len(hot.frames) // 2


@test("a frame is stored once, whoever asked for it")
def _():
    store = Store()
    layer = pages(30)
    one, two = (Device([layer], store=store) for _ in range(2))
    without = Device([layer])
    server = Server(layer)
    for device in (one, two, without):
        check_all(device)
    store.settled(30)
    info = store.info()
    assert info["stored"] == 30 == len(server.log), info


@test("frames that do not fit a segment pass by")
def _():
    store = Store()
    content = rng.randbytes(5 * MIB)
    layer = layer_of(content, NONE, 5 * MIB)
    device = Device([layer], store=store)
    server = Server(layer)
    device.check(0, 4096)
    store.settled(1)
    info = store.info()
    assert info["stored"] == 0 and info["skipped"] == 1, info


@test("more than it has room for: what is read is right, and it stays full", 60)
def _():
    cache_mib(4)
    store = Store(48 * MIB)
    frame = 64 * KIB
    layer = layer_of(rng.randbytes(96 * MIB), NONE, frame)
    device = Device([layer], store=store)
    server = Server(layer)
    order = list(range(96 * MIB // frame))
    for n in range(2):
        rng.shuffle(order)
        for at in order:
            device.check(at * frame + rng.randrange(15) * 4096, 4096)
    store.settled(len(server.log))
    info = store.info()
    say(info)
    assert info["evicted"] and info["hits"] and not info["bad"] and \
        not info["errors"], info
    # two segments are being filled, one is kept free
    assert info["used"] >= 0.9 * (info["room"] - 3 * 8192), info
    store.again()
    assert not store.content().wrong(store.at)
    again = store.info()
    assert again["frames"] == info["frames"], (again, info)


@test("the index takes 0.15 % of the store at most")
def _():
    for size in (33 * MIB, 256 * MIB, 2 << 30, 40 << 30):
        store = Store(size)
        info = store.info()
        say(f"{size >> 20} MiB: {info['memory'] * 100 / size:.4f} %, "
            f"{info['room'] * 51200 / size:.2f} % of it for frames")
        assert info["memory"] <= size * 0.0015, info
        assert info["room"] * 512 >= size * (0.98 if size > 99 * MIB else 0.96)
        store.close()


finish()
EOF
finish

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Every byte of a device equals the image, whatever the layers' codecs and
# frames, however it is read.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'EOF'
from rig import *

rng = random.Random(0x100)
base = noise(17 * MIB + 4099, rng)


def foreign(size):
    """Frame sizes that another tool may choose."""
    out, left = [], size
    while left:
        n = min(left, rng.choice((1, 2, 7, 511, 512, 513, 4095, 4097, 10001,
                                  rng.randrange(1, 70000))))
        out.append(n)
        left -= n
    return out


def extents_over(layers, size, most):
    """Random extents of whole sectors; some of the image is nil."""
    out, pos = [], 0
    while pos < size:
        length = min(512 * rng.randrange(1, most // 512), size - pos)
        if rng.random() < 0.8:
            i = rng.randrange(len(layers))
            end = len(layers[i].content)
            # up to 4095 bytes may be missing at the layer's end
            last = end + 4095 - length
            storage = min(last, end - 1, rng.randrange(end + 4096)) & ~511
            if storage >= 0:
                out.append((pos, length, i, storage))
        pos += length
    return out


def read_everything(device, rounds, most=300 * KIB):
    device.check(direct=False)
    device.check(direct=True)
    size = len(device.model)
    for direct in (True, False):
        if not direct:
            device.forget_pages()
        for _ in range(rounds):
            off = 512 * rng.randrange(size // 512)
            length = 512 * rng.randrange(1, most // 512)
            if not direct:
                off, length = off + rng.randrange(512), length + \
                    rng.randrange(512)
            device.check(off, min(length, size - off), direct)
    device.forget_pages()
    with mmap.mmap(device.fd(False), size, prot=mmap.PROT_READ) as m:
        same(m[:], device.model)


small = [layer_of(base[i * 4321:][:200 * KIB + 517 * i + 3], codec, frame)
         for i, (codec, frame) in enumerate(itertools.product(
             (NONE, ZSTD, LZ4), (4 * KIB, 12 * KIB, 128 * KIB)))]
for codec in (NONE, ZSTD, LZ4):
    content = base[codec * 300001:][:250000 + codec]
    small.append(cut(content, codec, foreign(len(content))))


@test("many extents over layers of all codecs, small frames, foreign frames")
def _():
    size = 3 * MIB + 1234
    extents = extents_over(small, size, 64 * KIB)
    device = Device(small, extents, size)
    Server(*small)
    read_everything(device, scale(100, 10))
    assert device.stat("reads_zero") and device.stat("reads_fetched")
    assert not device.stat("frames_bad")


for codec in (NONE, ZSTD, LZ4):
    name = ("no codec", "zstd", "LZ4")[codec]

    @test(f"{name}, frames of 2 MiB", 40)
    def _():
        layer = layer_of(base[:5 * MIB + 777], codec, 2 * MIB)
        device = Device([layer], [(0, len(layer.content), 0, 0)])
        Server(layer)
        read_everything(device, scale(12, 2), 3 * MIB)

    @test(f"{name}, frames of 16 MiB", 60)
    def _():
        layer = layer_of(base, codec, 16 * MIB)
        device = Device([layer], [(0, len(layer.content), 0, 0)])
        Server(layer)
        device.check(direct=False)
        for _ in range(scale(10, 2)):
            off = 512 * rng.randrange(len(device.model) // 512)
            device.check(off, min(512 * rng.randrange(1, 3000),
                                  len(device.model) - off))


@test("frames of one byte, and frames without checksums in the table")
def _():
    content = base[:4096 + 5]
    layers = [cut(content, codec, [1] * 700 + [len(content) - 701] +
                  [1], sums=False) for codec in (NONE, ZSTD, LZ4)]
    for layer in layers:
        layer.frames = [f for f in layer.frames if f[2]]
    extents = [(8192 * i, 8192 if i < 2 else 4101, i, 0) for i in range(3)]
    extents = [(s, min(l, 4608), i, st) for s, l, i, st in extents]
    device = Device(layers, extents, 16384 + 4101)
    Server(*layers)
    read_everything(device, 20, 5000)


@test("tables that were trimmed to the frames that the image maps")
def _():
    layers, extents, pos = [], [], 0
    for i, codec in enumerate((NONE, ZSTD, LZ4)):
        full = layer_of(base[:512 * KIB + 100], codec, 16 * KIB)
        kept = sorted(rng.sample(range(33), 12) + [32])
        layers.append(trimmed(full, lambda n, f: n in kept))
        for n in kept:
            skip = rng.randrange(4) * 512
            if n == 32:
                skip, length = 0, 512
            else:
                length = 16 * KIB - skip - rng.randrange(4) * 512
            extents.append((pos, length, i, n * 16 * KIB + skip))
            pos += length + rng.randrange(2) * 4096
    device = Device(layers, extents, pos + 512)
    Server(*layers)
    read_everything(device, scale(40, 10))


@test("image sizes that are multiples of nothing: the last sector ends in zeros")
def _():
    for n, size in enumerate((1, 511, 512, 513, 4095, 4096, 4097, 8191,
                              65536 + 1, 131072 + 511)):
        for codec in ((n % 3, (n + 1) % 3) if SLOW == 1 else (n % 3,)):
            layer = layer_of(base[:size], codec, 4096)
            device = Device([layer], keep=True)
            server = Server(layer)
            try:
                assert len(device.model) == -(-size // 512) * 512
                device.check()
                device.forget_pages()
                device.check(direct=False)
                assert not device.read(len(device.model), 512)
                with open(f"/sys/block/{device.dm}/size") as f:
                    assert int(f.read()) == len(device.model) // 512
            finally:
                server.close()
                device.close()


@test("an image without extents, and one that ends in a hole")
def _():
    device = Device([], [], 100000)
    device.check()
    device.check(direct=False)
    layer = layer_of(base[:8192], ZSTD)
    device = Device([layer], [(4096, 8192, 0, 0)], 50001)
    Server(layer)
    device.check()


@test("zeros are written into buffers that were used")
def _():
    # holes before, between and behind data, and a last sector that ends in zeros
    layer = layer_of(base[:8192 + 100], ZSTD, 4096)
    device = Device([layer], [(8192, 4096, 0, 0), (20480, 4196, 0, 4096)],
                    20480 + 4196)
    Server(layer)
    size = len(device.model)
    buf = mmap.mmap(-1, size)
    for off in list(range(0, size, 512)) + [0]:
        length = size - off
        buf[:] = b"\xa5" * size
        with memoryview(buf) as view:
            assert os.preadv(device.fd(), [view[:length]], off) == length
        same(buf[:length], device.model[off:], off)
        assert buf[length:] == b"\xa5" * off
    buf.close()
    assert device.stat("reads_zero")


@test("many readers at once see nothing but the image")
def _():
    size = 2 * MIB + 99
    device = Device(small, extents_over(small, size, 32 * KIB), size)
    Server(*small, chunk=3000)
    errors = []

    def reader(seed):
        mine = random.Random(seed)
        try:
            for _ in range(scale(60, 5)):
                off = 512 * mine.randrange(len(device.model) // 512)
                device.check(off, min(512 * mine.randrange(1, 200),
                                      len(device.model) - off), seed & 1)
        except BaseException as e:
            errors.append(repr(e))

    threads = [threading.Thread(target=reader, args=(i,)) for i in range(8)]
    for direct in (True, False):
        device.fd(direct)
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors


finish()
EOF
finish

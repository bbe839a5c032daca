#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Frames that are read in parts stay decoded, within a limit, and only as long as
# memory is not short and the frame is there.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'EOF'
from rig import *

rng = random.Random(0x115)
FRAME = 32 * KIB


def decoded_mib(value):
    parameter("decoded_mib", value)


def gone():
    wait_until(lambda: module("decoded_bytes") == 0, "no decoded frames")


def read_parts(device, count=200):
    """Blocks at random places; the number of frames that they lie in."""
    frames = set()
    for _ in range(count):
        at = BLOCK * rng.randrange(device.size // BLOCK)
        device.check(at, BLOCK)
        frames.add(at // FRAME)
    return len(frames)


for codec in (ZSTD, LZ4):
    name = ("", "zstd", "LZ4")[codec]

    @test(f"{name}: what is read in parts is decoded once")
    def _():
        layer = layer_of(noise(1 * MIB, rng), codec, FRAME)
        device = Device([layer])
        Server(layer)
        before = module("decodes")
        frames = read_parts(device)
        assert module("decodes") - before == frames
        assert module("decoded_bytes") >= frames * FRAME
        before = module("decodes")
        memory = device.stat("reads_memory")
        device.check(FRAME - BLOCK, 2 * BLOCK)
        assert module("decodes") == before
        assert device.stat("reads_memory") == memory + 1

    @test(f"{name}: for all who wait for parts of a frame, it is decoded once")
    def _():
        layer = layer_of(noise(MIB, rng), codec, MIB)
        device = Device([layer])
        hand = Hand()
        before = module("decodes")
        readers = [Reader(device, n * 16 * BLOCK, BLOCK) for n in range(16)]
        request = hand.next()
        wait_until(lambda: device.stat("waiting") == 16, "16 who wait")
        hand.answer(request, {layer.uuid: layer})
        for reader in readers:
            reader.good()
        assert module("decodes") - before == 1, module("decodes") - before

    @test(f"{name}: what is read as a whole is not kept")
    def _():
        gone()
        layer = layer_of(noise(1 * MIB, rng), codec, FRAME)
        device = Device([layer])
        Server(layer)
        for _ in range(2):
            for at in range(0, MIB, FRAME):
                device.check(at, FRAME)
        assert module("decoded_bytes") == 0

    @test(f"{name}: a limit of 0 keeps nothing, and is live")
    def _():
        layer = layer_of(noise(1 * MIB, rng), codec, FRAME)
        device = Device([layer])
        Server(layer)
        read_parts(device, 20)
        assert module("decoded_bytes")
        decoded_mib(0)
        gone()
        before = module("decodes")
        read_parts(device, 50)
        assert module("decoded_bytes") == 0
        assert module("decodes") > before + 25


    @test(f"{name}: who scribbles where it reads into harms nobody else", 60)
    def _():
        layer = layer_of(noise(1 * MIB, rng), codec, FRAME)
        device = Device([layer])
        Server(layer)
        decoded_mib(0)
        device.check()
        before = module("decodes")
        area, stop = mmap.mmap(-1, FRAME), threading.Event()

        def scribble():
            while not stop.is_set():
                for at in range(0, FRAME, 64):
                    area[at] = 0x55

        thread = threading.Thread(target=scribble)
        thread.start()
        fd = device.fd()
        reads = int(trial(400))
        try:
            for i in range(reads):
                assert os.preadv(fd, [area], i * FRAME % MIB) == FRAME
        finally:
            stop.set()
            thread.join()
        say(f"{module('decodes') - before} decodes for {reads} reads")
        assert device.stat("frames_bad") == 0
        device.check()


def forged(size):
    """An LZ4 frame with a match of offset 0, which means nothing, and the zeros that
    a decoder of whole blocks makes of it."""
    xxh32 = ctypes.CDLL("libxxhash.so.0").XXH32
    head = b"\x60\x40"
    middle, tail = size - 3 - 16, rng.randbytes(16)
    more = middle - 4 - 15
    block = b"\x3fabc" + bytes(2) + b"\xff" * (more // 255) + bytes([more % 255]) + \
        b"\xf0\x01" + tail
    return b"abc" + bytes(middle) + tail, \
        struct.pack("<I", 0x184d2204) + head + \
        bytes([xxh32(head, 2, 0) >> 8 & 255]) + \
        struct.pack("<I", len(block)) + block + bytes(4)


@test("a forged frame shows nothing of what was decoded in its place before")
def _():
    decoded_mib(0)
    layer = layer_of(noise(1 * MIB, rng), LZ4, FRAME)
    content, data = forged(FRAME)
    layer.frames.append((MIB, len(layer.object), FRAME, len(data),
                         xxh64(content) & 0xffffffff))
    layer.content += content
    layer.object += data
    device = Device([layer])
    Server(layer)
    for _ in range(3):
        for off in range(0, MIB, FRAME):
            device.check(off, BLOCK)
        for off in (4 * BLOCK, 0, FRAME - BLOCK):
            device.check(MIB + off, BLOCK)
    assert device.stat("frames_bad") == 0


@test("values that make no sense are refused")
def _():
    decoded_mib(7)
    for value in ("-1", "x", "", str(1 << 63)):
        with fails(errno.EINVAL, errno.ERANGE):
            decoded_mib(value)
    assert parameter("decoded_mib") == "7"


@test("the limit holds while many read, and each byte is right", 60)
def _():
    gone()
    layers = [layer_of(noise(4 * MIB, rng), codec, FRAME)
              for codec in (ZSTD, LZ4)]
    devices = [Device([layer]) for layer in layers]
    Server(*layers)
    cache_mib(2)
    decoded_mib(1)
    readers = Readers(*devices, count=6, size=BLOCK)
    ends, top = time.monotonic() + trial(4), 0
    while time.monotonic() < ends:
        for _ in range(50):
            top = max(top, module("decoded_bytes"))
        decoded_mib(rng.choice((0, 1, 1)))
    readers.end()
    say(f"{readers.good} reads, at most {top} bytes")
    assert MIB // 2 < top <= MIB, top


@test("memory that is short takes them back")
def _():
    layer = layer_of(noise(1 * MIB, rng), ZSTD, FRAME)
    device = Device([layer])
    Server(layer)
    read_parts(device, 100)
    assert module("decoded_bytes") > FRAME

    def shrunk():
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write("2")
        return module("decoded_bytes") == 0

    wait_until(shrunk, "an empty cache")
    device.check()


@test("a frame takes its content along")
def _():
    layer = layer_of(noise(1 * MIB, rng), LZ4, FRAME)
    device = Device([layer], keep=True)
    Server(layer)
    read_parts(device, 50)
    assert module("decoded_bytes")
    cache_mib(1)
    device.close()
    gone()


@test("a frame that does not verify is not kept")
def _():
    layer = layer_of(noise(256 * KIB, rng), ZSTD, FRAME)
    device = Device([layer])
    hand = Hand()
    reader = Reader(device, 0, BLOCK)
    for _ in range(2):
        request = hand.next()
        bad = bytearray(layer.object[request.offset:][:request.length])
        bad[len(bad) // 2] ^= 1
        hand.fill(request, bytes(bad))
    reader.bad()
    assert module("decoded_bytes") == 0
    assert device.stat("frames_bad") == 2


finish()
EOF
finish

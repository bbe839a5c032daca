#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Whatever a helper does with its file, no reader gets a wrong byte, and the
# next right answer is taken.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'EOF'
from rig import *

rng = random.Random(0x104)
FRAME = 64 * KIB
content = rng.randbytes(256 * KIB)
layer = layer_of(content, NONE, FRAME)
layers = {layer.uuid: layer}
WRONG = (errno.EINVAL, errno.EMSGSIZE)
BAD = (errno.EIO, errno.EILSEQ)


class Iov(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int,
                      ctypes.c_int, ctypes.c_int, ctypes.c_long)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
libc.writev.argtypes = (ctypes.c_int, ctypes.POINTER(Iov), ctypes.c_int)
libc.writev.restype = ctypes.c_ssize_t
FAILED = ctypes.c_void_p(-1).value


def c_mmap(fd, length, prot, flags, offset=0):
    got = libc.mmap(None, length, prot, flags, fd, offset)
    if got == FAILED:
        raise OSError(ctypes.get_errno(), "mmap")
    return got


def raw(hand, data):
    return os.write(hand.fd, data)


def asked(hand, device, at=0):
    reader = Reader(device, at, 512)
    return reader, hand.next()


@test("answers that fit no request are refused, and the request stands")
def _():
    device = Device([layer])
    hand = Hand()
    reader, r = asked(hand, device, FRAME)
    data = layer.object[r.offset:r.offset + r.length]
    half = r.length // 2
    hand.fill(r, data[:half])
    left = data[half:]
    for what in (dict(data=left, tag=r.tag + 1),
                 dict(data=left, tag=0),
                 dict(data=left, tag=0xffffffff),
                 dict(data=left, tag=r.tag + hand.tags),
                 dict(data=left, tag=r.tag ^ 0x80000000),
                 dict(data=left, offset=half - 1),
                 dict(data=left, offset=half + 1),
                 dict(data=left, offset=0),
                 dict(data=left, offset=0xffffffff),
                 dict(data=data[:half], offset=0),
                 dict(data=left + b"x", offset=half),
                 dict(data=data, offset=half),
                 dict(data=b"", offset=half),
                 dict(data=b"x" * 10, offset=half, status=5),
                 dict(data=b"", offset=half, length=10),
                 dict(data=b"", offset=half, length=0xffffffff),
                 dict(data=left, offset=half, length=len(left) - 1),
                 dict(data=left[:-1], offset=half, length=len(left)),
                 dict(data=left, offset=half, length=0),
                 dict(data=left, offset=half, length=0xffffffff)):
        with fails(*WRONG):
            hand.fill(r, **what)
    for size in (1, 8, 23):
        with fails(errno.EMSGSIZE):
            raw(hand, bytes(size))
    # a tag that is nobody's, whatever it is to bring
    for tag in (0, r.tag + 1, r.tag - 1, 0xffffffff, hand.tags):
        for what in (dict(status=5), dict(data=b"x"), dict(data=data),
                     dict(data=b"x", offset=100)):
            with fails(*WRONG):
                hand.fill(r, tag=tag, **what)
    assert not reader.done()
    hand.fill(r, left, offset=half)
    reader.good()
    with fails(errno.EINVAL):			# after the end
        hand.fill(r, data)
    with fails(errno.EINVAL):
        hand.fill(r, status=errno.EIO)


@test("statuses that are no errno end in an error or are refused")
def _():
    device = Device([layer])
    hand = Hand()
    for status in (4096, 4095, 1000, 0x7fffffff, 0x80000000, 0xffffffff):
        reader, r = asked(hand, device)
        try:
            hand.fill(r, status=status)
        except OSError as e:
            assert e.errno == errno.EINVAL
            hand.fill(r, status=errno.EIO)
        reader.wait()
        assert reader.errno and reader.errno < 4096, reader.errno
    reader, r = asked(hand, device)
    hand.answer(r, layers)
    reader.good()


@test("a stale tag: the same slot, asked again, has another", 60)
def _():
    device = Device([layer])
    hand = Hand()
    seen = set()
    for _ in range(scale(1100, 100)):
        reader, r = asked(hand, device)
        assert r.tag not in seen
        if seen:
            with fails(errno.EINVAL):
                hand.fill(r, b"x" * r.length, tag=last)
        seen.add(r.tag)
        last = r.tag
        hand.fill(r, b"x" * 100)
        hand.fill(r, status=errno.EIO, offset=100)
        for what in (dict(status=5), dict(data=b"x" * 10, offset=100)):
            with fails(errno.EINVAL):		# a free slot's is no tag
                hand.fill(r, tag=0, **what)
        reader.bad()


@test("a bad address: EFAULT, and the request stands as it was")
def _():
    device = Device([layer])
    hand = Hand()
    reader, r = asked(hand, device)
    area = c_mmap(-1, 3 * 4096, mmap.PROT_READ | mmap.PROT_WRITE,
                  mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    libc.munmap(area + 4096, 4096)
    head = ctypes.create_string_buffer(
        hand.FILL.pack(r.generation, r.tag, 0, 0, 8192))
    for base, n in ((area, 8192), (area + 4096, 8192), (8, 8192),
                    (0xffff888000000000, 8192)):
        vec = (Iov * 2)(Iov(ctypes.addressof(head), 24), Iov(base, n))
        assert libc.writev(hand.fd, vec, 2) == -1
        assert ctypes.get_errno() == errno.EFAULT, ctypes.get_errno()
    vec = (Iov * 1)(Iov(area + 4096 - 8, 24))
    assert libc.writev(hand.fd, vec, 1) == -1
    assert ctypes.get_errno() == errno.EFAULT
    assert not reader.done()
    hand.answer(r, layers)
    reader.good()


@test("a header in pieces: writev of any cut is one answer")
def _():
    device = Device([layer])
    hand = Hand()
    reader, r = asked(hand, device)
    data = layer.object[:r.length]
    at = 0
    while at < r.length:
        n = min(20000, r.length - at)
        blob = hand.FILL.pack(r.generation, r.tag, 0, at, n) + data[at:at + n]
        cuts = sorted(rng.randrange(len(blob)) for _ in range(6))
        parts = [blob[a:b] for a, b in zip([0] + cuts, cuts + [len(blob)])]
        assert os.writev(hand.fd, parts) == len(blob)
        at += n
    reader.good()


@test("concurrent writers of one tag: each byte is taken once")
def _():
    device = Device([layer])
    hand = Hand()
    for frame in range(4):
        reader, r = asked(hand, device, frame * FRAME)
        taken, odd = [], []

        def writer():
            for at in range(0, r.length, 4096):
                while True:
                    try:
                        hand.fill(r, layer.object[r.offset + at:][:4096],
                                  offset=at)
                        taken.append(at)
                        break
                    except OSError as e:
                        if e.errno != errno.EINVAL:
                            odd.append(e)
                        if at in taken or len(taken) * 4096 >= r.length:
                            break
        threads = [threading.Thread(target=writer) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        reader.good()
        assert sorted(taken) == list(range(0, r.length, 4096)), taken
        assert not odd, odd


def spoil(data, at):
    out = bytearray(data)
    out[at % len(out)] ^= 1 << rng.randrange(8)
    return bytes(out)


for codec in (NONE, ZSTD, LZ4):
    name = ("no codec", "zstd", "LZ4")[codec]

    @test(f"{name}: one wrong bit is noticed, fetched once more, then served")
    def _():
        victim = layer_of(noise(256 * KIB, rng), codec, 8 * KIB)
        device = Device([victim])
        spoiled = set()

        def reply(server, r):
            data = server.data(r)
            if r.offset not in spoiled:
                spoiled.add(r.offset)
                data = spoil(data, rng.randrange(len(data)) if
                             rng.random() < 0.6 else rng.randrange(-6, 12))
            server.helper.fill(r, data)
        server = Server(victim, reply=reply)
        for off in range(0, 256 * KIB, 8 * KIB):
            device.check(off, 8 * KIB)
        s = device.stats()
        # a flipped bit that does not change the content is no error
        assert 1 <= s["frames_bad"] <= 32, s
        assert s["reads_failed"] == 0
        assert len(server.log) == 32 + s["frames_bad"], (len(server.log), s)
        if codec == NONE:
            assert s["frames_bad"] == 32
        device.check()

    @test(f"{name}: wrong twice is an error, and right later is right")
    def _():
        victim = layer_of(rng.randbytes(64 * KIB), codec, 16 * KIB)
        device = Device([victim])
        healed = []

        def reply(server, r):
            data = server.data(r)
            server.helper.fill(r, data if healed else
                               spoil(data, len(data) // 2))
        server = Server(victim, reply=reply)
        Reader(device, 0, 4096).bad(*BAD)
        assert len(server.log) == 2, server.log
        s = device.stats()
        assert s["frames_bad"] == 2 and s["reads_failed"] == 1, s
        readers = [Reader(device, 16 * KIB + 512 * i, 512) for i in range(8)]
        for reader in readers:
            reader.bad(*BAD)
        healed.append(1)
        device.check()


@test("what was refused is asked for anew, until it has come right")
def _():
    victim = layer_of(rng.randbytes(64 * KIB), ZSTD, 16 * KIB)
    device = Device([victim])
    asked = []

    def reply(server, r):
        asked.append(bool(r.flags & Request.AGAIN))
        data = server.data(r)
        if len(asked) == 1:
            server.helper.fill(r, spoil(data, len(data) // 2))
        elif len(asked) == 2:
            server.helper.fill(r, status=errno.ENOENT)
        else:
            server.helper.fill(r, data)
    Server(victim, reply=reply)
    # the second request says so; so does the one after it, as that one failed
    Reader(device, 0, 4096).bad(errno.EIO)
    device.check(0, 4096)
    device.check(16 * KIB, 4096)
    assert asked == [False, True, True, False], asked


@test("what is wrong is named in the kernel's log")
def _():
    device = Device([layer])
    Server(layer, reply=lambda server, r: server.helper.fill(
        r, bytes(r.length)))
    log = KernelLog()
    undo(log.close)

    def named():	# not each time: the log is rate limited
        Reader(device, FRAME, 512).bad(*BAD)
        return f"{FRAME}" in "".join(
            line for line in log.read().splitlines() if "lazyframe" in line)
    wait_until(named, "message that names the frame")


def served(codec, frames, ubytes, sums=True):
    """What a reader gets if the object's only frame is each of @frames: its data,
    its content by the table, and the table's checksum, if it is not of that."""
    for name, (data, want, *checksum) in frames.items():
        odd = Layer(b"", codec, sums=sums)
        odd.content = (want + bytes(ubytes))[:ubytes]
        odd.object = data
        checksum = checksum or [xxh64(odd.content) & 0xffffffff]
        odd.frames = [(0, 0, ubytes, len(data), *checksum)]
        device = Device([odd], [(0, ubytes, 0, 0)], ubytes, keep=True)
        server = Server(odd)
        try:
            Reader(device, 0, min(ubytes, 4096)).bad(*BAD, limit=20)
        except AssertionError as e:
            raise AssertionError(f"{name}: {e}") from None
        finally:
            server.close()
            device.close()


def zstd_with(data, **parameters):
    lib = ctypes.CDLL("libzstd.so.1")
    lib.ZSTD_createCCtx.restype = ctypes.c_void_p
    for f in ("ZSTD_compressBound", "ZSTD_compress2"):
        getattr(lib, f).restype = ctypes.c_size_t
    ctx = ctypes.c_void_p(lib.ZSTD_createCCtx())
    for number, value in dict(level=(100, 1)).values():
        lib.ZSTD_CCtx_setParameter(ctx, number, value)
    for number, value in parameters.values():
        lib.ZSTD_CCtx_setParameter(ctx, number, value)
    cap = lib.ZSTD_compressBound(ctypes.c_size_t(len(data)))
    out = ctypes.create_string_buffer(cap)
    n = lib.ZSTD_compress2(ctx, out, ctypes.c_size_t(cap), data,
                           ctypes.c_size_t(len(data)))
    lib.ZSTD_freeCCtx(ctx)
    return out.raw[:n]


@test("zstd frames that are not what the table says: errors only")
def _():
    good = content[:FRAME]
    z = compress(ZSTD, good)
    big = compress(ZSTD, good + bytes(4 * MIB))
    for sums in (True, False):
        served(ZSTD, {
            "bomb": (big, good),
            "one byte more": (compress(ZSTD, good + b"x"), good),
            "one byte less": (compress(ZSTD, good[:-1]), good),
            "half": (compress(ZSTD, good[:FRAME // 2]), good),
            "two frames": (z + z, good),
            "garbage behind": (z + b"garbage", good),
            "truncated": (z[:-1], good),
            "no checksum left": (z[:-4], good),
            "header alone": (z[:6], good),
            "one byte": (z[:1], good),
            "garbage": (rng.randbytes(5000), good),
            "zeros": (bytes(5000), good),
            "an LZ4 frame": (compress(LZ4, good), good),
            "a skippable frame": (struct.pack("<II", 0x184d2a50, 100) +
                                  bytes(100), good),
        }, FRAME, sums)
    halves = good[:FRAME // 2], good[FRAME // 2:]
    served(ZSTD, {
        "other content": (compress(ZSTD, content[1:FRAME + 1]), good),
        "no sum of its own": (zstd_with(content[1:FRAME + 1], sum=(201, 0)), good),
        "two frames, the sum of the second":
            (b"".join(compress(ZSTD, half) for half in halves), good,
             xxh64(halves[1]) & 0xffffffff),
    }, FRAME)


@test("zstd: a window of 128 MiB is refused or decoded rightly")
def _():
    good = content[:FRAME]
    wide = zstd_with(good, window=(101, 27), size=(200, 0), sum=(201, 1))
    odd = cut(good, NONE, [FRAME])
    odd.codec, odd.object = ZSTD, wide
    odd.frames = [(0, 0, FRAME, len(wide), xxh64(good) & 0xffffffff)]
    device = Device([odd])
    Server(odd)
    reader = Reader(device, 0, 4096).wait()
    if reader.errno is None:
        reader.good()
    else:
        reader.bad(*BAD)


def lz4_with(data, **changes):
    from lazyframe import _Lz4Preferences
    lib = ctypes.CDLL("liblz4.so.1")
    lib.LZ4F_compressFrameBound.restype = ctypes.c_size_t
    lib.LZ4F_compressFrame.restype = ctypes.c_size_t
    fields = dict(block_size=4, block_mode=1, content_checksum=1,
                  content_size=len(data), level=1)
    fields.update(changes)
    prefs = _Lz4Preferences(**fields)
    cap = lib.LZ4F_compressFrameBound(ctypes.c_size_t(len(data)),
                                      ctypes.byref(prefs))
    out = ctypes.create_string_buffer(cap)
    n = lib.LZ4F_compressFrame(out, ctypes.c_size_t(cap), data,
                               ctypes.c_size_t(len(data)),
                               ctypes.byref(prefs))
    return out.raw[:n]


@test("LZ4 frames that are not what the table says: errors only")
def _():
    good = noise(FRAME, rng)
    z = compress(LZ4, good)
    for sums in (True, False):
        served(LZ4, {
            "bomb": (compress(LZ4, good + bytes(4 * MIB)), good),
            "one byte more": (compress(LZ4, good + b"x"), good),
            "one byte less": (compress(LZ4, good[:-1]), good),
            "two frames": (z + z, good),
            "garbage behind": (z + b"garbage", good),
            "truncated": (z[:-1], good),
            "no checksum left": (z[:-4], good),
            "header alone": (z[:7], good),
            "garbage": (rng.randbytes(5000), good),
            "a zstd frame": (compress(ZSTD, good), good),
            "the legacy magic": (struct.pack("<I", 0x184c2102) + z[4:], good),
            "a block longer than the frame":
                (z[:15] + struct.pack("<I", 0x7fffffff) + z[19:], good),
        }, FRAME, sums)
    served(LZ4, {"other content": (compress(LZ4, noise(FRAME, rng)), good)}, FRAME)


@test("LZ4 frames with other legal options read rightly or are refused")
def _():
    good = noise(FRAME, rng)
    results = []
    for changes in (dict(), dict(block_checksum=1), dict(content_checksum=0),
                    dict(content_size=0), dict(block_mode=0),
                    dict(block_size=7), dict(level=9)):
        odd = cut(good, NONE, [FRAME])
        odd.codec, odd.object = LZ4, lz4_with(good, **changes)
        odd.frames = [(0, 0, FRAME, len(odd.object), xxh64(good) &
                       0xffffffff)]
        device = Device([odd], keep=True)
        server = Server(odd)
        reader = Reader(device, 0, FRAME).wait()
        if reader.errno is None:
            reader.good()
        else:
            reader.bad(*BAD)
        results.append((changes, reader.errno))
        server.close()
        device.close()
    assert results[0][1] is None and results[1][1] is None, results


@test("the ring cannot be written, however it is asked for")
def _():
    hand = Hand(attach=False)
    with fails(errno.ENXIO, errno.EINVAL, errno.ENODEV):
        c_mmap(hand.fd, 4096, mmap.PROT_READ, mmap.MAP_SHARED)
    hand.attach()
    size = hand.ring_bytes
    rw = mmap.PROT_READ | mmap.PROT_WRITE
    ways = [(size, rw, mmap.MAP_SHARED, 0),
            (size, mmap.PROT_WRITE, mmap.MAP_SHARED, 0),
            (size, mmap.PROT_READ, mmap.MAP_PRIVATE, 0),
            (size, rw, mmap.MAP_PRIVATE, 0),
            (size + 4096, mmap.PROT_READ, mmap.MAP_SHARED, 0),
            (size - 4096, mmap.PROT_READ, mmap.MAP_SHARED, 0),
            (4096, mmap.PROT_READ, mmap.MAP_SHARED, 0),
            (size, mmap.PROT_READ, mmap.MAP_SHARED, 4096),
            (size, mmap.PROT_READ, mmap.MAP_SHARED, 1 << 40)]
    for length, prot, flags, offset in ways:
        with fails(errno.EPERM, errno.EINVAL, errno.EACCES, errno.ENXIO,
                   errno.EOVERFLOW):
            c_mmap(hand.fd, length, prot, flags, offset)
    good = c_mmap(hand.fd, size, mmap.PROT_READ, mmap.MAP_SHARED)
    assert libc.mprotect(good, 4096, rw) == -1
    assert ctypes.get_errno() == errno.EACCES
    libc.munmap(good, size)


@test("a mapping keeps the session as a descriptor does")
def _():
    hand = Hand()
    address = c_mmap(hand.fd, hand.ring_bytes, mmap.PROT_READ,
                     mmap.MAP_SHARED)
    try:
        hand.close()
        assert module("helper") == 1
        with fails(errno.EBUSY):
            Helper()
        assert ctypes.c_uint32.from_address(address + 8).value == hand.entries
    finally:
        libc.munmap(address, hand.ring_bytes)
    assert module("helper") == 0
    Hand()


@test("unknown ioctls, versions and flags are refused")
def _():
    from lazyframe import _iowr
    hand = Hand(attach=False)
    for nr in (0x3f, 0x42, 0, 0xff):
        with fails(errno.ENOTTY):
            fcntl.ioctl(hand.fd, _iowr(nr, 24), bytearray(24))
    with fails(errno.ENOTTY):
        fcntl.ioctl(hand.fd, _iowr(0x40, 16), bytearray(16))
    for abi in (0, 2, 0xffffffff):
        with fails(errno.EPROTONOSUPPORT):
            hand.attach(abi=abi)
    for flags in (2, 3, 0x80000000):
        with fails(errno.EINVAL):
            hand.attach(flags=flags)
    with fails(errno.EFAULT):
        fcntl.ioctl(hand.fd, _iowr(0x40, 24), 8)
    with fails(errno.EFAULT):
        fcntl.ioctl(hand.fd, _iowr(0x41, hand.LAYER.size), 8)
    hand.attach()
    with fails(errno.EFAULT):
        fcntl.ioctl(hand.fd, _iowr(0x41, hand.LAYER.size), 8)
    with fails(errno.ENOENT):
        hand.info(2**64 - 1)


def without(*how):
    """Open /dev/lazyframe in a shell that lacks a right: what it says."""
    return subprocess.run([*how, "sh", "-c", "exec 3<>/dev/lazyframe"],
                          capture_output=True, text=True)


@test("only CAP_SYS_ADMIN of the first user namespace may open it")
def _():
    assert os.stat("/dev/lazyframe").st_mode & 0o777 == 0o600
    hows = [("setpriv", "--bounding-set", "-sys_admin", "--inh-caps",
             "-sys_admin")]
    if os.path.exists("/proc/self/ns/user"):
        hows.append(("unshare", "--user", "--map-root-user"))
    for how in hows:
        got = without(*how)
        assert got.returncode and "not permitted" in got.stderr, \
            (how, got.returncode, got.stderr)
    got = without("setpriv", "--reuid", "65534", "--clear-groups")
    assert got.returncode and "denied" in got.stderr, got.stderr
    assert without().returncode == 0


@test("random writes, ioctls, reads and mappings: no harm, and it still serves",
      60)
def _():
    zstd = layer_of(noise(512 * KIB, rng), ZSTD, 16 * KIB)
    device = Device([zstd], features="fetch_timeout 4")
    hand = Hand()
    ends = time.monotonic() + trial(5)
    counts, wrong, stop = {}, [], []

    def reading(seed):
        mine = random.Random(seed)
        while not stop:
            try:
                device.check(512 * mine.randrange(1000), 4096)
            except OSError:
                pass
            except AssertionError as e:
                wrong.append(e)

    def number(bits):
        return rng.choice((0, 1, 2, rng.getrandbits(bits), (1 << bits) - 1,
                           1 << (bits - 1), rng.getrandbits(12), 4095, 4096))

    known = []

    def junk():
        r = rng.choice(known) if known and rng.random() < 0.9 else None
        tag = r.tag if r and rng.random() < 0.9 else number(32)
        length = min(number(32), 70000)
        data = rng.randbytes(min(length, 3000)) * (length // 3000 + 1)
        head = hand.FILL.pack(
            hand.generation if rng.random() < 0.9 else number(64), tag,
            0 if rng.random() < 0.9 else number(32),
            rng.choice((0, number(32), rng.randrange(20000))),
            length if rng.random() < 0.8 else number(32))
        kind = rng.randrange(10)
        if kind < 5:
            return os.writev(hand.fd, [head, data[:length]])
        if kind == 5:
            return os.write(hand.fd, rng.randbytes(rng.randrange(100)))
        if kind == 6:
            return fcntl.ioctl(hand.fd, rng.choice((
                number(32) & 0x7fffffff, 0xc0187a40, 0xc9187a41)),
                bytearray(rng.randbytes(4096)))
        if kind == 7:
            return os.read(hand.fd, rng.randrange(20))
        if kind == 8:
            address = c_mmap(hand.fd, number(20) or 1, rng.randrange(8),
                             rng.choice((1, 2)), number(8) << 12)
            return libc.munmap(address, 1)
        if known:
            r = known.pop(rng.randrange(len(known)))
            hand.answer(r, {zstd.uuid: zstd}, rng.choice((None, 1000)))

    device.fd()
    threads = [threading.Thread(target=reading, args=(i,)) for i in range(3)]
    for t in threads:
        t.start()
    while time.monotonic() < ends:
        known += [r for r in hand.requests(0)
                  if not r.flags & Request.PROMOTE]
        known = known[-20:]
        for _ in range(50):
            try:
                junk()
                what = "taken"
            except OSError as e:
                what = errno.errorcode[e.errno]
            counts[what] = counts.get(what, 0) + 1
    say(counts)
    stop.append(1)
    hand.close()
    Server(zstd)
    for t in threads:
        t.join(patience(10))
        assert not t.is_alive()
    assert not wrong, wrong
    device.check()


finish()
EOF
finish

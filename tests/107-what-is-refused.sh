#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Table lines and meta devices that are wrong are refused, each with a reason in
# the kernel's log, and leave nothing open.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'EOF'
from rig import *

rng = random.Random(0x107)
SIZE = 100000
layer = layer_of(noise(SIZE, rng), ZSTD, 8 * KIB, validator="v")
other = layer_of(noise(50000, rng), LZ4, 4 * KIB)
EXTENTS = [(0, 40960, 0, 0), (40960, 8192, 1, 4096),
           (57344, SIZE - 57344, 0, 53248)]
LAYERS = [layer, other]
REFUSED = (errno.EINVAL, errno.ENODEV, errno.ENXIO, errno.ENOENT, errno.ERANGE,
           errno.EBADMSG, errno.EUCLEAN, errno.EIO, errno.E2BIG,
           errno.EOVERFLOW, errno.ENOTBLK, errno.EACCES, errno.EILSEQ)

_bare = itertools.count()


class Bare:
    """A device without a table, and a loop device to try metas on."""

    def __init__(self):
        self.path = write_meta(LAYERS, EXTENTS, SIZE)
        self.loop = Loop(self.path)
        self.name = f"bare-{next(_bare)}"
        DM.call(DM.CREATE, self.name)
        undo(self.close)

    def load(self, args=None, size=sectors(SIZE), **kw):
        DM.load(self.name, size, args or f"{self.loop.name} - -", **kw)
        DM.call(DM.CLEAR, self.name)

    def refused(self, what, args=None, says="", **kw):
        log = KernelLog()
        try:
            self.load(args, **kw)
        except OSError as e:
            text = log.read()
            assert e.errno in REFUSED, f"{what}: {errno.errorcode[e.errno]}"
            assert "lazyframe" in text and says.lower() in text.lower(), \
                f"{what}: {text!r} lacks {says!r}"
            assert not self.loop.in_use(), f"{what}: meta device still held"
        else:
            raise AssertionError(f"{what}: taken")
        finally:
            log.close()

    def rewrite(self, blob):
        with open(self.path, "r+b") as f:
            f.write(blob)
            f.truncate(len(blob))
        self.loop.resize()

    def close(self):
        DM.call(DM.REMOVE, self.name)
        assert not self.loop.in_use()
        self.loop.close()
        os.unlink(self.path)


def blob(patch=None, layers=LAYERS, extents=EXTENTS, size=SIZE):
    path = write_meta(layers, extents, size, patch=patch)
    with open(path, "rb") as f:
        data = f.read()
    os.unlink(path)
    return data


@test("table lines")
def _():
    bare = Bare()
    m = bare.loop.name
    bare.load()
    for args in ("", "x", m, f"{m} -", "- - -"):
        bare.refused(f"<{args}>", args or " ")
    for args, says in ((f"{m} /dev/null -", "store"), (f"{m} {m} -", "store"),
                       (f"{m} - {m}", "overlay"),
                       ("/dev/nowhere - -", "meta device"),
                       ("/dev/null - -", "meta device"),
                       ("7:99 - -", "meta device"),
                       (f"{m} - - 1 frobnicate", "unknown feature"),
                       (f"{m} - - 1 fetch_timeout", "seconds"),
                       (f"{m} - - 2 fetch_timeout x", "seconds"),
                       (f"{m} - - 2 fetch_timeout -1", "seconds"),
                       (f"{m} - - 2 fetch_timeout 86401", "seconds"),
                       (f"{m} - - 2 fetch_timeout 4294967296", "seconds"),
                       (f"{m} - - 2 no_helper_timeout "
                        "18446744073709551617", "seconds"),
                       (f"{m} - - 1 no_helper_timeout 5", ""),
                       (f"{m} - - 1 read_around", "power of two"),
                       (f"{m} - - 2 read_around x", "power of two"),
                       (f"{m} - - 2 read_around 2048", "power of two"),
                       (f"{m} - - 2 read_around 12288", "power of two"),
                       (f"{m} - - 2 read_around 33554432", "power of two"),
                       (f"{m} - - 2 read_around 4294971392", "power of two"),
                       (f"{m} - - x", "feature"),
                       (f"{m} - - -1 read_only", "feature"),
                       (f"{m} - - 99999 read_only", "feature"),
                       (f"{m} - - 2 read_only", ""),
                       (f"{m} - - 0 read_only", "too many"),
                       (f"{m} - - 1 read_only read_only", "too many"),
                       (f"{m} - - 1 read_only x", "too many"),
                       (f"{m} - - - -", "feature")):
        bare.refused(args, args, says)
    for n in (sectors(SIZE) - 1, sectors(SIZE) + 1, 1, 1 << 40):
        bare.refused(f"{n} sectors", size=n, says="size")
    bare.refused("not read-only", flags=0, says="read-only")
    for good in (f"{m} - - 0", f"{m} - - 1 read_only",
                 f"{m} - - 6 error_if_no_helper no_helper_timeout 0 "
                 "fetch_timeout 86400 read_only",
                 f"{m} - - 2 read_around 16777216",
                 f"{m} - - 1 ERROR_IF_NO_HELPER"):
        bare.load(good)


@test("a target that does not begin at 0, or is one of two")
def _():
    bare = Bare()
    parts = []
    args = f"{bare.loop.name} - -"
    for begin, size, target, text in ((0, 8, b"zero", ""), (
            8, sectors(SIZE), b"lazyframe", args)):
        body = text.encode() + b"\0"
        body += bytes(-len(body) % 8)
        parts.append(DM.SPEC.pack(begin, size, 0, DM.SPEC.size + len(body),
                                  target) + body)
    log = KernelLog()
    with fails(*REFUSED):
        DM.call(DM.LOAD, bare.name, DM.READONLY, b"".join(parts), 2)
    text = log.read()
    assert "lazyframe" in text, text
    log.close()
    assert not bare.loop.in_use()


@test("devices that are no meta devices, or are cut short")
def _():
    bare = Bare()
    good = blob()
    for what, data in (("zeros", bytes(65536)),
                       ("noise", rng.randbytes(65536)),
                       ("an empty device", b""),
                       ("512 bytes", good[:512]),
                       ("a superblock alone", good[:4096]),
                       ("text", b"LZYFRAME" * 1000)):
        bare.rewrite(data + bytes(-len(data) % 512))
        bare.refused(what)
    for n in range(4096, len(good), 4096):
        bare.rewrite(good[:n])
        bare.refused(f"{n} of {len(good)} bytes")
    bare.rewrite(good)
    bare.load()
    bare.rewrite(good + bytes(1 << 20))		# room behind is no harm
    bare.load()


def reseal(b):
    """Correct every checksum, so that only the structure is wrong."""
    for i in range(5):
        start, size, _ = struct.unpack_from("<QQQ", b, 88 + 24 * i)
        if size <= len(b) and start < 1 << 40:
            struct.pack_into("<Q", b, 88 + 24 * i + 16, xxh64(
                b[start * 4096:start * 4096 + size]))
    struct.pack_into("<Q", b, 4088, xxh64(b[:4088]))


def offsets(b):
    return [struct.unpack_from("<Q", b, 88 + 24 * i)[0] * 4096
            for i in range(5)]


@test("the layout is the one that this test thinks it is")
def _():
    b = bytearray(blob())
    again = bytearray(b)
    reseal(again)
    assert again == b
    assert struct.unpack_from("<I", b, 80)[0] == 6, b[72:96].hex()


@test("any flipped byte that is not padding is noticed")
def _():
    bare = Bare()
    good = blob()
    spots = set(rng.sample(range(4096), scale(60, 12)))
    for start, size, _ in (struct.unpack_from("<QQQ", good, 88 + 24 * i)
                           for i in range(5)):
        spots |= {start * 4096, start * 4096 + size - 1}
        spots |= {start * 4096 + rng.randrange(size)
                  for _ in range(scale(10, 2))}
    for at in sorted(spots):
        b = bytearray(good)
        b[at] ^= 1 << rng.randrange(8)
        bare.rewrite(b)
        bare.refused(f"byte {at}")
    bare.rewrite(good)
    bare.load()


U32, U64 = "<I", "<Q"
BIG = 0xffffffffffffffff


def field(region, entry, size, at, fmt, value):
    """A patch of one field of one entry of a region."""
    def patch(b):
        pos = at if region is None else \
            offsets(b)[region] + entry * size + at
        old = struct.unpack_from(fmt, b, pos)[0]
        new = value(old) if callable(value) else value
        struct.pack_into(fmt, b, pos, new & ((1 << 8 * struct.calcsize(fmt))
                                             - 1))
        reseal(b)
    return patch


def sup(at, fmt, value):
    return field(None, 0, 0, at, fmt, value)


def lay(at, fmt, value, entry=0):
    return field(0, entry, 80, at, fmt, value)


def ext(at, fmt, value, entry=0):
    return field(1, entry, 32, at, fmt, value)


def run(at, fmt, value, entry=0):
    return field(2, entry, 24, at, fmt, value)


def frame(at, fmt, value, entry=0):
    return field(3, entry, 8, at, fmt, value)


STRUCTURE = {
    "magic": sup(0, U64, 0),
    "version 0": sup(8, U32, 0),
    "version 2": sup(8, U32, 2),
    "block size": sup(12, U32, 512),
    "unknown feature": sup(16, U64, 1),
    "unknown feature, high": sup(16, U64, 1 << 63),
    "image of no bytes": sup(64, U64, 0),
    "image too big": sup(64, U64, (1 << 44) + 1),
    "image of all ones": sup(64, U64, BIG),
    "more blocks than the device": sup(72, U64, BIG),
    "no blocks": sup(72, U64, 0),
    "no regions": sup(80, U32, 0),
    "too many regions": sup(80, U32, 1000),
    "region begins at the superblock": sup(88, U64, 0),
    "region begins at the other superblock": sup(88, U64, 1),
    "superblock in the wrong slot": sup(88 + 32 * 24, U64, 1),
    "overlay of a wrong size": sup(88 + 5 * 24 + 8, U64, 4096),
    "region begins behind the device": sup(88 + 24, U64, 1 << 30),
    "region start overflows": sup(88 + 48, U64, BIG),
    "region of too many bytes": sup(88 + 8, U64, 1 << 40),
    "region of all ones": sup(88 + 72 + 8, U64, BIG),
    "layers not whole": sup(88 + 8, U64, lambda v: v - 1),
    "extents not whole": sup(88 + 24 + 8, U64, lambda v: v - 5),
    "runs not whole": sup(88 + 48 + 8, U64, lambda v: v + 3),
    "frames not whole": sup(88 + 72 + 8, U64, lambda v: v - 3),
    "no layers": sup(88 + 8, U64, 0),
    "no runs": sup(88 + 48 + 8, U64, 0),
    "no frames": sup(88 + 72 + 8, U64, 0),
    "codec 3": lay(16, U32, 3),
    "codec huge": lay(16, U32, BIG),
    "layer flags": lay(20, U32, lambda v: v | 2),
    "layer of no U bytes": lay(24, U64, 0),
    "layer's U size huge": lay(24, U64, BIG),
    "layer's U size too small": lay(24, U64, 1000),
    "layer of no C bytes": lay(32, U64, 0),
    "layer's C size huge": lay(32, U64, BIG),
    "layer's C size too small": lay(32, U64, lambda v: v - 1),
    "first run out of range": lay(40, U32, 1000),
    "first run overflows": lay(40, U32, BIG),
    "runs out of range": lay(44, U32, 1000),
    "runs overflow": lay(44, U32, BIG),
    "layer without runs": lay(44, U32, 0),
    "first frame out of range": lay(48, U32, 100000),
    "first frame overflows": lay(48, U32, BIG),
    "frames out of range": lay(52, U32, 100000),
    "frames overflow": lay(52, U32, BIG),
    "layer without frames": lay(52, U32, 0),
    "one frame less than the runs have": lay(52, U32, lambda v: v - 1, 1),
    "locator out of range": lay(56, U32, 100000),
    "locator overflows": lay(56, U32, BIG),
    "locator too long": lay(60, U32, 2048),
    "locator's length overflows": lay(60, U32, BIG),
    "validator out of range": lay(64, U32, 100000),
    "validator too long": lay(68, U32, 256),
    "layer's reserved": lay(72, U64, 1),
    "extent not on a sector": ext(0, U64, 1),
    "extent's length not whole": ext(8, U64, 40961),
    "extent of no bytes": ext(8, U64, 0),
    "extent beyond the image": ext(8, U64, 1 << 30),
    "extent's length overflows": ext(8, U64, BIG & ~511),
    "extent's start overflows": ext(0, U64, BIG & ~511, 2),
    "extent's storage not on a sector": ext(16, U64, 100),
    "extent's storage beyond the layer": ext(16, U64, 102400),
    "extent's storage overflows": ext(16, U64, BIG & ~511),
    "extent's end beyond the layer": ext(16, U64, 65536),
    "extent of no layer": ext(24, U32, 2),
    "extent's layer huge": ext(24, U32, BIG),
    "extent's reserved": ext(28, U32, 1),
    "extents overlap": ext(0, U64, 40448, 1),
    "extents out of order": ext(0, U64, 0, 1),
    "run's U start moved": run(0, U64, 4096),
    "run's U start huge": run(0, U64, BIG),
    "run's C start huge": run(8, U64, BIG),
    "run's C start beyond": run(8, U64, 1 << 40),
    "run of frames of no bytes": run(16, U32, 0),
    "run of frames too big": run(16, U32, (16 << 20) + 1),
    "run of huge frames": run(16, U32, BIG),
    "run does not begin at frame 0": run(20, U32, 1),
    "run's first frame huge": run(20, U32, BIG, 1),
    "runs out of order": run(0, U64, 0, 1),
    "run's C start falls back": run(8, U64, 0, 1),
    "frame of no C bytes": frame(0, U32, 0),
    "frame too big": frame(0, U32, (17 << 20) + 1),
    "frame of all ones": frame(0, U32, BIG),
    "frame longer by one": frame(0, U32, lambda v: v + 70000),
}


@test("whatever is structurally wrong is refused, though its sums are right",
      60)
def _():
    bare = Bare()
    good = bytearray(blob())
    # where a check may legally find nothing wrong, no harm may come of it
    taken = []
    for what, patch in STRUCTURE.items():
        b = bytearray(good)
        patch(b)
        assert b != good, what
        bare.rewrite(b)
        try:
            bare.refused(what)
        except AssertionError as e:
            taken.append(str(e))
    bare.rewrite(good)
    bare.load()
    assert not taken, "\n".join(taken)


@test("random damage with right sums: refused, or a device that does no harm",
      60)
def _():
    good = bytearray(blob())
    bare = Bare()
    counts = {"refused": 0, "taken": 0}
    ends = offsets(good)
    sizes = [struct.unpack_from("<Q", good, 96 + 24 * i)[0]
             for i in range(5)]
    Server(*LAYERS, reply=lambda server, r: server.helper.fill(
        r, status=errno.EIO))
    for _ in range(scale(300, 40)):
        b = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            i = rng.randrange(-1, 4)
            at = rng.randrange(8, 220) if i < 0 else \
                ends[i] + rng.randrange(sizes[i])
            b[at % len(b)] = rng.choice((0, 1, 0xff, 0x80, rng.randrange(256)))
        reseal(b)
        bare.rewrite(b)
        size = struct.unpack_from("<Q", b, 64)[0]
        try:
            DM.load(bare.name, max(sectors(size), 1) & ((1 << 54) - 1),
                    f"{bare.loop.name} - - 1 error_if_no_helper")
        except OSError as e:
            assert e.errno in REFUSED + (errno.ENOMEM, errno.EEXIST), e
            counts["refused"] += 1
            continue
        counts["taken"] += 1
        DM.call(DM.SUSPEND, bare.name)
        number = DM.call(DM.TABLE, bare.name)["dev"]
        fd = os.open(f"/dev/dm-{(number & 0xff) | (number >> 12 & 0xfff00)}",
                     os.O_RDONLY | os.O_DIRECT)
        try:
            m = mmap.mmap(-1, 65536)
            for off in (0, 40960, 57344, 98304):
                try:
                    os.preadv(fd, [m], off)
                except OSError:
                    pass
        finally:
            os.close(fd)
    say(counts)


@test("what is refused under load does not disturb who is attached")
def _():
    device = Device(LAYERS, EXTENTS, SIZE)
    Server(*LAYERS)
    bare = Bare()
    bad = bytearray(blob())
    ext(24, U32, 2)(bad)
    for i in range(scale(50, 10)):
        bare.rewrite(bad)
        bare.refused("a bad meta device")
        device.check(512 * rng.randrange(100), 8192)
    device.check()


@test("a device's meta device cannot change under it")
def _():
    device = Device(LAYERS, EXTENTS, SIZE)
    Server(*LAYERS)
    device.check(0, 512)
    with open(device.path, "r+b") as f:
        f.write(bytes(os.path.getsize(device.path)))
    device.check()


finish()
EOF
finish

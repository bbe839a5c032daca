# SPDX-License-Identifier: GPL-2.0-only
"""The module's two interfaces, from the outside.

Written from kmod/disk.h and uapi/linux/lazyframe.h alone, so that the tests
share no code with what they test:

	meta(path, layers, extents, size)	writes a meta device
	Helper()				a helper that does what a test says
"""
import ctypes
import fcntl
import mmap
import os
import select
import struct

BLOCK = 4096
NONE, ZSTD, LZ4 = 0, 1, 2
RUN_FRAMES = 32


def _libxxhash():
    for name in ("libxxhash.so.0", "libxxhash.so"):
        try:
            lib = ctypes.CDLL(name)
        except OSError:
            continue
        lib.XXH64.restype = ctypes.c_uint64
        lib.XXH64.argtypes = (ctypes.c_char_p, ctypes.c_size_t,
                              ctypes.c_uint64)
        return lib
    raise SystemExit("libxxhash is missing: run tests/setup")


_xxh = _libxxhash()


def xxh64(data, seed=0):
    return _xxh.XXH64(bytes(data), len(data), seed)


class _Lz4Preferences(ctypes.Structure):
    """LZ4F_preferences_t of lz4frame.h"""
    _fields_ = [("block_size", ctypes.c_int), ("block_mode", ctypes.c_int),
                ("content_checksum", ctypes.c_int),
                ("frame_type", ctypes.c_int),
                ("content_size", ctypes.c_ulonglong),
                ("dict_id", ctypes.c_uint), ("block_checksum", ctypes.c_int),
                ("level", ctypes.c_int), ("auto_flush", ctypes.c_uint),
                ("favor_dec_speed", ctypes.c_uint),
                ("reserved", ctypes.c_uint * 3)]


def _zstd(data, level):
    lib = ctypes.CDLL("libzstd.so.1")
    lib.ZSTD_createCCtx.restype = ctypes.c_void_p
    lib.ZSTD_compressBound.restype = ctypes.c_size_t
    lib.ZSTD_compress2.restype = ctypes.c_size_t
    cctx = ctypes.c_void_p(lib.ZSTD_createCCtx())
    lib.ZSTD_CCtx_setParameter(cctx, 100, level)	# compressionLevel
    lib.ZSTD_CCtx_setParameter(cctx, 201, 1)		# checksumFlag
    cap = lib.ZSTD_compressBound(ctypes.c_size_t(len(data)))
    out = ctypes.create_string_buffer(cap)
    n = lib.ZSTD_compress2(cctx, out, ctypes.c_size_t(cap), data,
                           ctypes.c_size_t(len(data)))
    lib.ZSTD_freeCCtx(cctx)
    assert not lib.ZSTD_isError(ctypes.c_size_t(n))
    return out.raw[:n]


def _lz4(data, level):
    lib = ctypes.CDLL("liblz4.so.1")
    lib.LZ4F_compressFrameBound.restype = ctypes.c_size_t
    lib.LZ4F_compressFrame.restype = ctypes.c_size_t
    prefs = _Lz4Preferences(block_size=7 if len(data) > 1 << 20 else 5,
                            block_mode=1, content_checksum=1,
                            content_size=len(data), level=level)
    cap = lib.LZ4F_compressFrameBound(ctypes.c_size_t(len(data)),
                                      ctypes.byref(prefs))
    out = ctypes.create_string_buffer(cap)
    n = lib.LZ4F_compressFrame(out, ctypes.c_size_t(cap), data,
                               ctypes.c_size_t(len(data)),
                               ctypes.byref(prefs))
    assert not lib.LZ4F_isError(ctypes.c_size_t(n))
    return out.raw[:n]


def compress(codec, data, level=1):
    """One frame of @data, with content size and checksum."""
    return data if codec == NONE else (_zstd if codec == ZSTD else _lz4)(
        data, level)


class Layer:
    """A layer: content, cut into frames of @frame bytes, in one object."""

    def __init__(self, content, codec=NONE, frame=128 << 10, uuid=None,
                 locator="test:", validator="", sums=True):
        self.content = content
        self.codec = codec
        self.uuid = uuid or os.urandom(16)
        self.locator = locator.encode()
        self.validator = validator.encode()
        self.sums = sums
        self.frames = []		# (ustart, cstart, ubytes, cbytes, sum)
        self.object = b""
        for u in range(0, len(content), frame):
            part = content[u:u + frame]
            data = compress(codec, part)
            self.frames.append((u, len(self.object), len(part), len(data),
                                xxh64(part) & 0xffffffff))
            self.object += data

    def frame_at(self, cstart):
        return next(f for f in self.frames if f[1] == cstart)


def meta(path, layers, extents, size, uuid=None, generation=1, patch=None,
         overlay=b"", origin=bytes(16), sequence=0):
    """Write a meta device. @extents: (start, length, layer index, storage).
    @overlay: the region OVERLAY (overlay.py makes one), or how it begins and
    its size."""
    runs, frames, disk_layers, strings = [], [], [], b""
    for layer in layers:
        first_run, first_frame = len(runs), len(frames)
        prev = None
        for n, (u, c, ub, cb, s) in enumerate(layer.frames):
            if (prev is None or prev[0] + prev[2] != u or
                    prev[1] + prev[3] != c or prev[2] != ub or
                    n - run_first >= RUN_FRAMES):
                runs.append(struct.pack("<QQII", u, c, ub, n))
                run_first = n
            frames.append(struct.pack("<II", cb, s if layer.sums else 0))
            prev = (u, c, ub, cb)
        loc, val = len(strings), len(strings) + len(layer.locator)
        strings += layer.locator + layer.validator
        disk_layers.append(struct.pack(
            "<16sIIQQIIIIIIIIQ", layer.uuid, layer.codec,
            1 if layer.sums else 0, len(layer.content), len(layer.object),
            first_run, len(runs) - first_run, first_frame,
            len(frames) - first_frame, loc, len(layer.locator), val,
            len(layer.validator), 0))
    ext = [struct.pack("<QQQII", s, l, st, i, 0) for s, l, i, st in extents]
    regions = [b"".join(p) for p in (disk_layers, ext, runs, frames)] + [strings]
    table, body, block = b"", b"", 2
    for data in regions:
        table += struct.pack("<QQQ", block, len(data), xxh64(data))
        padded = data + bytes(-len(data) % BLOCK)
        body += padded
        block += len(padded) // BLOCK
    if not isinstance(overlay, tuple):
        overlay = overlay, len(overlay)
    table += struct.pack("<QQQ", block if overlay[1] else 0, overlay[1], 0)
    body += overlay[0]
    block += overlay[1] // BLOCK
    sup = struct.pack("<8sIIQ16s16sQQQII", b"LZYFRAME", 1, BLOCK, 0,
                      uuid or os.urandom(16), bytes(16), generation, size,
                      block, len(regions) + 1, 0)
    sup = (sup + table).ljust(88 + 32 * 24, b"\0")
    sup += struct.pack("<Q16s", sequence, origin)
    sup = sup.ljust(BLOCK - 8, b"\0")
    sup += struct.pack("<Q", xxh64(sup))
    slots = [bytes(BLOCK), bytes(BLOCK)]
    slots[sequence % 2] = sup
    blob = bytearray(b"".join(slots) + body)
    if patch:
        patch(blob)
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "r+b") as f:
            f.write(blob)
            f.flush()
            os.fsync(f.fileno())
    else:
        with open(path, "wb") as f:
            f.write(blob)
            f.truncate(max(len(blob), block * BLOCK))


def sectors(size):
    return -(-size // 512)


class Request:
    FIELDS = ("seq", "generation", "layer", "offset", "deadline", "length",
              "have", "tag", "flags", "reserved")
    STRUCT = struct.Struct("=QQQQQIIIIQ")
    PREFETCH, PROMOTE, AGAIN = 1, 2, 4

    def __init__(self, raw):
        for name, value in zip(self.FIELDS, self.STRUCT.unpack(raw)):
            setattr(self, name, value)

    def __repr__(self):
        return (f"<request tag {self.tag:#x} layer {self.layer} offset "
                f"{self.offset}+{self.length} have {self.have} flags "
                f"{self.flags}>")


def _iowr(nr, size):
    return (3 << 30) | (size << 16) | (ord("z") << 8) | nr


class Helper:
    """One session on /dev/lazyframe, driven by hand."""
    ATTACH = struct.Struct("=IIQII")
    LAYER = struct.Struct("=QQII16s2048s256s")
    FILL = struct.Struct("=QIIII")

    def __init__(self, attach=True, path="/dev/lazyframe"):
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        self.tail = 0
        self.layers = {}
        if attach:
            try:
                self.attach()
            except BaseException:
                os.close(self.fd)
                raise

    def attach(self, abi=1, flags=0):
        arg = bytearray(self.ATTACH.pack(abi, flags, 0, 0, 0))
        fcntl.ioctl(self.fd, _iowr(0x40, self.ATTACH.size), arg)
        _, _, self.generation, self.ring_bytes, self.tags = \
            self.ATTACH.unpack(arg)
        self.ring = mmap.mmap(self.fd, self.ring_bytes, mmap.MAP_SHARED,
                              mmap.PROT_READ)
        _, self.entries, self.entry_bytes = struct.unpack_from(
            "=QII", self.ring)
        assert self.entry_bytes == Request.STRUCT.size

    def requests(self, timeout=10.0):
        """What was posted since the last call; waits for at least one."""
        if not select.select([self.fd], [], [], timeout)[0]:
            return []
        head, = struct.unpack("=Q", os.read(self.fd, 8))
        out = []
        while self.tail < head:
            at = 64 + (self.tail % self.entries) * self.entry_bytes
            r = Request(self.ring[at:at + self.entry_bytes])
            assert r.seq == self.tail, (r.seq, self.tail)
            out.append(r)
            self.tail += 1
        return out

    def info(self, layer):
        arg = bytearray(self.LAYER.pack(layer, 0, 0, 0, b"", b"", b""))
        fcntl.ioctl(self.fd, _iowr(0x41, self.LAYER.size), arg)
        _, csize, codec, _, uuid, locator, validator = self.LAYER.unpack(arg)
        return {"csize": csize, "codec": codec, "uuid": uuid,
                "locator": locator.rstrip(b"\0").decode(),
                "validator": validator.rstrip(b"\0").decode()}

    def fill(self, request, data=b"", offset=None, status=0, length=None,
             generation=None, tag=None):
        head = self.FILL.pack(
            request.generation if generation is None else generation,
            request.tag if tag is None else tag, status,
            request.have if offset is None else offset,
            len(data) if length is None else length)
        return os.writev(self.fd, [head, data])

    def serve(self, layers, seconds=None, until=None, chunk=None):
        """Answer everything rightly. @layers: Layer by UUID."""
        poller = select.poll()
        poller.register(self.fd, select.POLLIN)
        while not (until and until()):
            for r in self.requests(0.2):
                if r.flags & Request.PROMOTE:
                    continue
                self.answer(r, layers, chunk)

    def answer(self, r, layers, chunk=None):
        if r.layer not in self.layers:
            self.layers[r.layer] = layers[self.info(r.layer)["uuid"]]
        data = self.layers[r.layer].object[r.offset:r.offset + r.length]
        step = chunk or r.length
        for at in range(r.have, r.length, step):
            self.fill(r, data[at:at + step], offset=at)

    def close(self):
        self.ring = None
        os.close(self.fd)

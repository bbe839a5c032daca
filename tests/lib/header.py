# SPDX-License-Identifier: GPL-2.0-only
"""Headers of versions 3 and 4 and the images that they describe, read by
somebody else: written from the formats' description, with nothing of helper/
or kmod/. Every field is checked; what is not as described raises Bad.

	Header(data)		decode and check
	Image(path)		the header at a path, with its layers beside it
	Image.read(off, len)	bytes of the image
	Image.all()		all of it
	Image.check()		sizes, sidecars, SHA-256 of all layers

As a program: header.py HEADER [IMAGE] checks all, and compares.
"""
import ctypes
import hashlib
import os
import struct
import sys

PAGE = 4096
NIL = bytes(16)
NONE, ZSTD, LZ4 = 0, 1, 2
SUFFIX = {NONE: "", ZSTD: ".zstd", LZ4: ".lz4"}
MAX_HEADER = 256 << 20


class Bad(Exception):
    pass


def need(condition, *what):
    if not condition:
        raise Bad(" ".join(map(str, what)))


_zstd = ctypes.CDLL("libzstd.so.1")
_zstd.ZSTD_decompress.restype = ctypes.c_size_t
_zstd.ZSTD_findFrameCompressedSize.restype = ctypes.c_size_t
_lz4 = ctypes.CDLL("liblz4.so.1")
_lz4.LZ4F_createDecompressionContext.restype = ctypes.c_size_t
_lz4.LZ4F_decompress.restype = ctypes.c_size_t
_lz4.LZ4F_isError.argtypes = (ctypes.c_size_t,)
_zstd.ZSTD_isError.argtypes = (ctypes.c_size_t,)


def zstd_frame(data, size):
    """Exactly one frame, of exactly @size bytes."""
    out = ctypes.create_string_buffer(size or 1)
    src = ctypes.c_size_t(len(data))
    need(_zstd.ZSTD_findFrameCompressedSize(data, src) == len(data),
         "not one zstd frame")
    n = _zstd.ZSTD_decompress(out, ctypes.c_size_t(size), data, src)
    need(not _zstd.ZSTD_isError(n), "a zstd frame does not decode")
    need(n == size, "a zstd frame has", n, "bytes, not", size)
    return out.raw[:size]


def lz4_frame(data, size):
    out = ctypes.create_string_buffer(size + 1)
    ctx = ctypes.c_void_p()
    need(not _lz4.LZ4F_isError(_lz4.LZ4F_createDecompressionContext(
        ctypes.byref(ctx), ctypes.c_uint(100))), "no LZ4 context")
    src = ctypes.create_string_buffer(data, len(data))
    at = got = 0
    try:
        while True:
            dlen = ctypes.c_size_t(size + 1 - got)
            slen = ctypes.c_size_t(len(data) - at)
            hint = _lz4.LZ4F_decompress(
                ctx, ctypes.byref(out, got), ctypes.byref(dlen),
                ctypes.byref(src, at), ctypes.byref(slen), None)
            need(not _lz4.LZ4F_isError(hint), "an LZ4 frame does not decode")
            at += slen.value
            got += dlen.value
            if not hint:
                break
            need(slen.value or dlen.value, "an LZ4 frame is cut short")
    finally:
        _lz4.LZ4F_freeDecompressionContext(ctx)
    need(at == len(data), "bytes follow an LZ4 frame")
    need(got == size, "an LZ4 frame has", got, "bytes, not", size)
    return out.raw[:size]


def decode(codec, data, size):
    if codec == NONE:
        need(len(data) == size, "a raw run of the wrong size")
        return data
    return (zstd_frame if codec == ZSTD else lz4_frame)(data, size)


def uuid_text(raw):
    h = raw.hex()
    return "-".join((h[:8], h[8:12], h[12:16], h[16:20], h[20:]))


class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        size = struct.calcsize(form)
        need(self.at + size <= len(self.data), "cut short at", self.at)
        out = struct.unpack_from(form, self.data, self.at)
        self.at += size
        return out


class Build:
    """One entry of the builds section."""

    def __init__(self, cur):
        self.uuid, self.usize, self.sha256 = cur.take("<16sq32s")
        self.codec, count = cur.take("<II")
        need(self.uuid != NIL, "a build without a name")
        need(self.usize >= 0, "a negative size")
        need(self.codec in SUFFIX, "codec", self.codec)
        need(self.codec or not count, "a raw build with frames")
        self.frames = [cur.take("<qqii") for _ in range(count)]
        uend = cend = 0
        for u, c, usize, csize in self.frames:
            need(usize > 0 and csize > 0, "an empty frame")
            need(u >= uend and c >= cend, "frames that overlap")
            uend, cend = u + usize, c + csize
        need(uend <= self.usize, "a frame behind the build's end")

    def complete(self):
        """Has its table all frames?"""
        uend = 0
        for u, _, usize, _ in self.frames:
            if u != uend:
                return False
            uend += usize
        return uend == self.usize

    def frame_of(self, off):
        low, high = 0, len(self.frames)
        while low < high:
            mid = (low + high) // 2
            if self.frames[mid][0] <= off:
                low = mid + 1
            else:
                high = mid
        need(low, "no frame has U offset", off)
        u, _, usize, _ = self.frames[low - 1]
        need(off < u + usize, "no frame has U offset", off)
        return low - 1


class Header:
    def __init__(self, data):
        need(len(data) <= MAX_HEADER, "too big")
        cur = Cursor(data)
        (self.version, self.block_size, self.size, self.generation,
         self.uuid, self.base) = cur.take("<QQQQ16s16s")
        need(self.version in (3, 4), "version", self.version)
        need(self.block_size and self.block_size % PAGE == 0, "block size")
        need(self.size, "an empty image")
        need(self.uuid != NIL, "an image without a name")
        if self.generation:
            need(self.base not in (self.uuid, NIL),
                 "generation", self.generation, "without a base")
        else:
            need(self.base == self.uuid, "a first generation with a base")
        self.builds = []
        if self.version == 3:
            need((len(data) - cur.at) % 40 == 0, "part of a record")
            count = (len(data) - cur.at) // 40
            self.mappings = [cur.take("<QQ16sQ") for _ in range(count)]
            need(count, "no record")
        else:
            cur = Cursor(self.content(data, cur))
            count, = cur.take("<I")
            self.builds = [Build(cur) for _ in range(count)]
            count, = cur.take("<I")
            self.mappings = [cur.take("<QQ16sQ") for _ in range(count)]
            need(cur.at == len(cur.data), "bytes behind the mappings")
        names = [b.uuid for b in self.builds]
        need(names == sorted(set(names)), "builds out of order")
        self.build = {b.uuid: b for b in self.builds}
        self.check_mappings()

    @staticmethod
    def content(data, cur):
        flags, size = cur.take("<BI")
        need(flags == 0, "flags", flags)
        need(size <= MAX_HEADER, "content too big")
        frame = data[cur.at:]
        magic, flg, bd = struct.unpack_from("<IBB", frame)
        need(magic == 0x184d2204, "no LZ4 frame")
        need(flg >> 6 == 1, "LZ4 version")
        need(flg & 0x10, "no block checksums")
        need(flg & 0x04, "no content checksum")
        need(not flg & 0x03, "a dictionary, or reserved bits")
        # 4 MiB, or less where the content is less; any LZ4 reader takes it
        need(bd in (0x40, 0x50, 0x60, 0x70) and
             (bd == 0x70 or size <= 1 << (8 + 2 * (bd >> 4))), "block size")
        return lz4_frame(frame, size)

    def check_mappings(self):
        end = 0
        last = None
        for m in self.mappings:
            start, length, uuid, storage = m
            need(start == end, "a mapping at", start, "not", end)
            need(length and length % PAGE == 0, "a length of", length)
            need(start < self.size, "a mapping behind the image")
            end = start + length
            if uuid == NIL:
                need(storage == 0, "zeros with storage")
            else:
                need(storage % PAGE == 0, "storage", storage)
            if last and last[2] == uuid:
                need(uuid != NIL and last[3] + last[1] != storage,
                     "neighbours that are one mapping, at", start)
            if self.version == 4 and uuid != NIL:
                self.check_storage(uuid, storage, length)
            last = m
        need(self.size <= end < self.size + self.block_size,
             "mappings end at", end, "the image at", self.size)
        used = {m[2] for m in self.mappings} - {NIL}
        if self.version == 4:
            need(used == set(self.build), "builds that are listed, and mapped")

    def check_storage(self, uuid, storage, length):
        need(uuid in self.build, "a build that is not listed")
        build = self.build[uuid]
        need(storage < build.usize and
             storage + length < build.usize + self.block_size,
             "a mapping behind its build")
        if build.codec == NONE:
            return
        stop = min(storage + length, build.usize)
        at = storage
        while at < stop:
            u, _, usize, _ = build.frames[build.frame_of(at)]
            at = u + usize


class Image:
    def __init__(self, path):
        self.path = path
        with open(path, "rb") as f:
            self.header = Header(f.read())
        self.cache = {}
        folder = os.path.basename(os.path.dirname(os.path.abspath(path)))
        need(folder == uuid_text(self.header.uuid), "in another's directory")

    def object(self, uuid):
        build = self.header.build.get(uuid)
        base = os.path.dirname(os.path.dirname(os.path.abspath(self.path)))
        name = os.path.basename(self.path)
        need(name.endswith(".header"), "not the name of a header")
        return os.path.join(base, uuid_text(uuid), name[:-len(".header")] +
                            SUFFIX[build.codec if build else NONE])

    def fetch(self, uuid, off, size):
        with open(self.object(uuid), "rb") as f:
            f.seek(off)
            return f.read(size)

    def frame(self, uuid, index):
        build = self.header.build[uuid]
        u, c, usize, csize = build.frames[index]
        # Not the index: other headers leave out other frames.
        key = uuid, u
        if key not in self.cache:
            data = self.fetch(uuid, c, csize)
            need(len(data) == csize, "an object that is cut short")
            self.cache[key] = decode(build.codec, data, usize)
        return self.cache[key]

    def layer_read(self, uuid, off, size):
        """Bytes of a layer's content; zeros behind its end."""
        build = self.header.build.get(uuid)
        if not build or build.codec == NONE:
            return self.fetch(uuid, off, size).ljust(size, b"\0")
        out, at = [], off
        stop = min(off + size, build.usize)
        while at < stop:
            index = build.frame_of(at)
            u = build.frames[index][0]
            out.append(self.frame(uuid, index)[at - u:stop - u])
            at += len(out[-1])
        return b"".join(out).ljust(size, b"\0")

    def read(self, off, size):
        out = []
        for start, length, uuid, storage in self.header.mappings:
            a, b = max(start, off), min(start + length, off + size,
                                        self.header.size)
            if a < b:
                out.append(bytes(b - a) if uuid == NIL else
                           self.layer_read(uuid, storage + a - start, b - a))
        return b"".join(out)

    def all(self):
        return self.read(0, self.header.size)

    def check(self):
        """What is known about every layer, mapped or not."""
        for uuid in {m[2] for m in self.header.mappings} - {NIL}:
            build = self.header.build.get(uuid)
            path = self.object(uuid)
            size = os.path.getsize(path)
            if not build:
                continue
            if build.codec == NONE:
                need(size == build.usize, path, "has not the size it should")
            else:
                with open(path + ".uncompressed-size") as f:
                    need(f.read() == str(build.usize), path, "sidecar")
                need(build.frames[-1][1] + build.frames[-1][3] < size, path,
                     "ends before its frames do")
            need(build.codec == NONE or build.complete() or
                 uuid != self.header.uuid, "the own table has gaps")
            if build.sha256 == bytes(32):
                need(build.codec == NONE and uuid != self.header.uuid, path,
                     "no SHA-256")
            elif build.codec == NONE or build.complete():
                content = self.layer_read(uuid, 0, build.usize)
                need(hashlib.sha256(content).digest() == build.sha256, path,
                     "SHA-256")


def main(argv):
    image = Image(argv[0])
    image.check()
    data = image.all()
    need(len(data) == image.header.size, "size")
    if len(argv) > 1:
        with open(argv[1], "rb") as f:
            want = f.read()
        need(data == want, "the image is not", argv[1])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Bad as bad:
        sys.exit(f"{sys.argv[1]}: {bad}")

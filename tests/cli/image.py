#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""A second reader of stored images, written from the description of the
formats alone; the codecs are the zstd and lz4 commands. It shares no code with
what it checks.

	image.py check IMAGE HEADER FRAME...	the objects are what IMAGE must become
	image.py assemble HEADER	the image, on stdout
	image.py make KIND FILE		a test image
	image.py corrupt FILE OFFSET	change one byte
"""
import hashlib
import os
import random
import struct
import subprocess
import sys

BLOCK = 4096
CODECS = {0: "", 1: ".zstd", 2: ".lz4"}
NIL = bytes(16)


def die(*what):
    sys.exit("image.py: " + " ".join(map(str, what)))


def run(*cmd, data=None):
    return subprocess.run(cmd, input=data, stdout=subprocess.PIPE,
                          check=True).stdout


def uuid_text(raw):
    h = raw.hex()
    return "-".join((h[:8], h[8:12], h[12:16], h[16:20], h[20:]))


def records(data):
    if len(data) % 40:
        die("part of a mapping")
    out = []
    for at in range(0, len(data), 40):
        start, length = struct.unpack_from("<QQ", data, at)
        storage, = struct.unpack_from("<Q", data, at + 32)
        out.append((start, length, data[at + 16:at + 32], storage))
    return out


class Header:
    def __init__(self, path):
        data = open(path, "rb").read()
        (self.version, self.block, self.size,
         self.generation) = struct.unpack_from("<QQQQ", data)
        self.uuid, self.base = data[32:48], data[48:64]
        self.layers = {}
        if self.version == 3:
            self.mappings = records(data[64:])
            return
        if self.version != 4:
            die("version", self.version)
        flags, size = struct.unpack_from("<BI", data, 64)
        body = run("lz4", "-dcq", data=data[69:])
        if flags or len(body) != size:
            die("flags", flags, "size", size, "not", len(body))
        count, = struct.unpack_from("<I", body)
        at = 4
        for _ in range(count):
            uuid = body[at:at + 16]
            usize, = struct.unpack_from("<Q", body, at + 16)
            sha = body[at + 24:at + 56]
            codec, n = struct.unpack_from("<II", body, at + 56)
            at += 64
            frames = [struct.unpack_from("<QQII", body, at + 24 * i)
                      for i in range(n)]
            at += 24 * n
            self.layers[uuid] = (usize, sha, codec, frames)
        n, = struct.unpack_from("<I", body, at)
        self.mappings = records(body[at + 4:])
        if len(self.mappings) != n:
            die("mappings", n, "not", len(self.mappings))


def decode(path):
    if path.endswith(".zstd"):
        return run("zstd", "-dcq", path)
    if path.endswith(".lz4"):
        return run("lz4", "-dcq", path)
    return open(path, "rb").read()


def layer_path(header, path, uuid):
    codec = header.layers[uuid][2] if uuid in header.layers else 0
    name = os.path.basename(path)[:-len(".header")] + CODECS[codec]
    return os.path.join(os.path.dirname(os.path.dirname(path)),
                        uuid_text(uuid), name)


def assemble(path):
    header = Header(path)
    content = {}
    image = bytearray()
    for start, length, uuid, storage in header.mappings:
        if start != len(image):
            die("a gap or overlap at", start)
        if uuid == NIL:
            image += bytes(length)
            continue
        if uuid not in content:
            content[uuid] = decode(layer_path(header, path, uuid))
        image += content[uuid][storage:storage + length].ljust(length, b"\0")
    if not header.size <= len(image) < header.size + header.block:
        die("mappings end at", len(image), "the image at", header.size)
    return bytes(image[:header.size])


def stored(image):
    """What of an image is to be stored: blocks that are not all zero."""
    out = bytearray()
    for at in range(0, len(image), BLOCK):
        block = image[at:at + BLOCK]
        if block.strip(b"\0"):
            out += block
    return bytes(out)


def check_table(path, frames):
    """The seek table at the object's end, against the header's table."""
    data = open(path, "rb").read()
    n, desc, magic = struct.unpack("<IBI", data[-9:])
    if magic != 0x8f92eab1 or desc != 0x80:
        die(path, "has no seek table with checksums")
    table = data[-(8 + 12 * n + 9):]
    if struct.unpack_from("<II", table) != (0x184d2a5e, 12 * n + 9):
        die(path, "has a bad skippable frame")
    at = u = 0
    found = []
    for i in range(n):
        c, size, sum_ = struct.unpack_from("<III", table, 8 + 12 * i)
        found.append((u, at, size, c))
        # A zstd frame's own checksum is the same half of the same hash.
        if path.endswith(".zstd") and data[at + c - 4:at + c] != \
           struct.pack("<I", sum_):
            die(path, "frame", i, "has another checksum than its table entry")
        at += c
        u += size
    if at + len(table) != len(data):
        die(path, "has bytes that are in no frame")
    if found != frames:
        die(path, "the header has other frames than the seek table")
    # Every frame is complete on its own.
    for i in {0, n // 2, n - 1} if n else ():
        u, c, size, csize = found[i]
        tool = "zstd" if path.endswith(".zstd") else "lz4"
        if len(run(tool, "-dcq", data=data[c:c + csize])) != size:
            die(path, "frame", i, "does not decode alone")


def check(image, want, path, frame_size):
    """@want: stored(@image); no frame but the last is smaller."""
    header = Header(path)
    name = os.path.basename(path)[:-len(".header")]
    if header.size != len(image) or header.block != BLOCK or \
       header.generation or header.base != header.uuid or \
       uuid_text(header.uuid) != os.path.basename(os.path.dirname(path)):
        die("metadata")
    folder = os.path.dirname(path)
    data = [f for f in os.listdir(folder)
            if not f.endswith((".header", ".uncompressed-size"))]
    if not want:
        if data or assemble(path) != image:
            die("zeros need no data object, but there is", data)
        return
    if len(data) != 1 or not data[0].startswith(name):
        die("objects:", data)
    data = os.path.join(folder, data[0])
    if decode(data) != want:
        die("the data object does not hold the stored bytes")
    if data.endswith((".zstd", ".lz4")):
        side = open(data + ".uncompressed-size").read()
        if side != str(len(want)):
            die("uncompressed-size", side, "not", len(want))
        usize, sha, codec, frames = header.layers[header.uuid]
        if not data.endswith(CODECS[codec]) or usize != len(want):
            die("the layer's codec or size")
        if sha != hashlib.sha256(want).digest():
            die("SHA-256")
        if any(f[2] != frame_size for f in frames[:-1]) or \
           any(f[2] > frame_size for f in frames):
            die("frames are not of", frame_size, "bytes")
        check_table(data, frames)
        over = os.path.getsize(data) - len(want) - 8 - 9 - 12 * len(frames)
        # Headers and checksums of a frame, and of its blocks of 64 KiB or more.
        if over > sum(32 + 4 * (1 + f[2] // 65536) for f in frames):
            die("grew by", over, "bytes in", len(frames), "frames")
    elif header.version != 3:
        die("raw, but not version 3")
    for (_, _, one, _), (_, _, two, _) in zip(header.mappings,
                                              header.mappings[1:]):
        if one == two:
            die("mappings that could be one")
    if assemble(path) != image:
        die("the image reads back different")


def make(kind, path):
    r = random.Random(kind)
    text = b"".join(b"%d %x\n" % (i, r.getrandbits(20)) for i in range(90000))
    with open(path, "wb") as f:
        if kind.startswith("bytes-"):
            n = int(kind[6:])
            f.write((text * (n // len(text) + 1))[:n])
        elif kind == "random":
            f.write(r.randbytes(3000001))
        elif kind == "zero":
            f.write(bytes(1000000))
        elif kind == "sparse":
            f.truncate(40 << 20)
            # Data at both ends, zeros inside data, data not on block borders.
            for at, n in ((0, 5000), (1 << 20, 300000), (9000001, 1),
                          (20 << 20, 1 << 20), ((40 << 20) - 7, 7)):
                f.seek(at)
                f.write(text[:n])
            f.seek(21 << 20)
            f.write(bytes(1 << 20))
            f.seek((30 << 20) + 8192)
            f.write(text[:4096] + bytes(4096) + text[:4096])
        elif kind == "tail":
            # The last, partial, block is zero.
            f.write(text[:100000].ljust(106496, b"x") + bytes(1000))
        else:
            die("unknown kind", kind)


def units(text):
    shift = {"K": 10, "M": 20}.get(text[-1], 0)
    return int(text.rstrip("KM")) << shift


def corrupt(path, offset, xor=0xff):
    with open(path, "r+b") as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes((byte ^ xor,)))


def main(argv):
    if argv[0] == "check":
        image = open(argv[1], "rb").read()
        want = stored(image)
        for path, frame in zip(argv[2::2], argv[3::2]):
            check(image, want, path, units(frame))
    elif argv[0] == "assemble":
        sys.stdout.buffer.write(assemble(argv[1]))
    elif argv[0] == "make":
        make(argv[1], argv[2])
    elif argv[0] == "corrupt":
        corrupt(argv[1], int(argv[2]))
    else:
        die("see the top of the file")


if __name__ == "__main__":
    main(sys.argv[1:])

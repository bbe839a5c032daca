# SPDX-License-Identifier: GPL-2.0-only
"""many-layers.py DIRECTORY LAYERS MAPPINGS: a store with an image of so many
layers, of all codecs, in so many mappings of one block each, none of which
joins its neighbour; DIRECTORY/image is what it reads as. Prints the header's
path. As it may have become after years of generations.
"""
import hashlib
import os
import random
import struct
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from lazyframe import LZ4, NONE, ZSTD, Layer  # noqa: E402
from header import PAGE, SUFFIX, uuid_text  # noqa: E402


def seek_table(layer):
    body = b"".join(struct.pack("<III", c, u, s)
                    for _, _, u, c, s in layer.frames)
    body += struct.pack("<IBI", len(layer.frames), 0x80, 0x8f92eab1)
    return struct.pack("<II", 0x184d2a5e, len(body)) + body


def main(folder, layers, mappings):
    r = random.Random(64)
    each = -(-mappings // layers)
    builds, places = [], []
    for n in range(layers):
        codec = (ZSTD, LZ4, NONE)[n % 3]
        content = b"".join(
            (b"%d %d %x\n" % (n, i, r.getrandbits(200))).ljust(128, b".") * 32
            for i in range(each))
        layer = Layer(content, codec, r.choice((4096, 8192, 131072)),
                      r.randbytes(16))
        path = os.path.join(folder, "store", uuid_text(layer.uuid))
        os.makedirs(path)
        path = os.path.join(path, "disk" + SUFFIX[codec])
        with open(path, "wb") as f:
            f.write(layer.object + (seek_table(layer) if codec else b""))
        if codec:
            with open(path + ".uncompressed-size", "w") as f:
                f.write(str(len(content)))
        builds.append(layer)
    # Downwards, so that a layer that follows itself does not go on.
    for i in reversed(range(each)):
        r.shuffle(builds)
        places += [(b, i) for b in builds]
    places = places[:mappings]
    builds.sort(key=lambda b: b.uuid)

    body = struct.pack("<I", len(builds))
    for b in builds:
        frames = [f[:4] for f in b.frames] if b.codec else []
        body += struct.pack("<16sQ32sII", b.uuid, len(b.content),
                            hashlib.sha256(b.content).digest(), b.codec,
                            len(frames))
        body += b"".join(struct.pack("<QQII", *f) for f in frames)
    body += struct.pack("<I", len(places))
    for i, (b, at) in enumerate(places):
        body += struct.pack("<QQ16sQ", i * PAGE, PAGE, b.uuid, at * PAGE)
    own = r.randbytes(16)
    path = os.path.join(folder, "store", uuid_text(own), "disk.header")
    os.makedirs(os.path.dirname(path))
    frame = subprocess.run(("lz4", "-qc", "-B7", "-BX"), input=body,
                           stdout=subprocess.PIPE, check=True).stdout
    with open(path, "wb") as f:
        f.write(struct.pack("<QQQQ16s16sBI", 4, PAGE, len(places) * PAGE, 2000,
                            own, builds[0].uuid, 0, len(body)) + frame)
    with open(os.path.join(folder, "image"), "wb") as f:
        for b, at in places:
            f.write(b.content[at * PAGE:(at + 1) * PAGE])
    print(path)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

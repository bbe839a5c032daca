# SPDX-License-Identifier: GPL-2.0-only
"""Generations of random changes, against a flat model.

	generations.py LAZYFRAME WRITE-LAYER DIRECTORY COUNT SEED

An image is built, then changed COUNT times: by build --parent from a file, by
the layer writer from dirty and zero sets, and flattened now and then; sizes,
codecs and frames at random. After each generation the image is read with
lib/header.py and compared with the model, and so is where each block is said to
lie: what was stored is what changed, no more and no less.
"""
import hashlib
import os
import random
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import header  # noqa: E402
from header import NIL, PAGE, need  # noqa: E402

CODECS = ("zstd", "lz4", "none")
FRAMES = (4096, 8192, 12288, 65536, 131072, 1 << 20)


def pages(data):
    return -(-len(data) // PAGE)


def page(data, i):
    return bytes(data[i * PAGE:(i + 1) * PAGE])


def is_zero(data):
    return not data.strip(b"\0")


class Run:
    def __init__(self, lazyframe, writer, folder, seed):
        self.lazyframe, self.writer = lazyframe, writer
        self.store = os.path.join(folder, "store")
        self.file = os.path.join(folder, "image")
        self.random = random.Random(seed)
        self.good = set()               # layers whose SHA-256 was checked
        self.history = []               # (path of header, hash of the model)
        self.counts = {}
        # Many layers come of small changes, hard cases of big ones.
        self.small = seed % 2
        os.makedirs(self.store, exist_ok=True)

    def run(self, *cmd, data=None):
        done = subprocess.run(cmd, input=data, text=True, capture_output=True,
                              check=False)
        need(done.returncode == 0, " ".join(cmd), "\n", done.stderr)
        self.stderr = done.stderr
        return done.stdout.strip()

    def content(self, size):
        """Bytes of some kind, zeros among them."""
        r = self.random
        kind = r.randrange(6)
        if kind == 0:
            return r.randbytes(size)
        if kind == 1:
            return bytes(size)
        if kind == 2:
            return bytes(r.randrange(256) for _ in range(64)) * (size // 64) + \
                bytes(size % 64)
        if kind == 3 and len(self.model) > size:
            at = r.randrange(len(self.model) - size + 1)
            at -= at % PAGE
            return bytes(self.model[at:at + size])
        text = b"".join(b"%d %x\n" % (i, r.getrandbits(20))
                        for i in range(size // 8 + 1))[:size]
        return text if kind == 4 else text[:size // 2].ljust(size, b"\0")

    def extent(self, limit):
        """Whole pages, but for the image's last one."""
        r = self.random
        n = pages(self.model)
        start = r.randrange(n)
        count = min(n - start, r.randrange(1, 4 if self.small else
                                           r.choice((2, 4, 30, limit))))
        return start * PAGE, min(count * PAGE, len(self.model) - start * PAGE)

    def name_args(self):
        return ("-c", self.random.choice(CODECS), "-f",
                str(self.random.choice(FRAMES)))

    def write_file(self):
        with open(self.file, "wb") as f:
            # Holes, as a sparse file has them.
            for i in range(pages(self.model)):
                data = page(self.model, i)
                if is_zero(data) and self.random.randrange(4):
                    f.seek(len(data), os.SEEK_CUR)
                else:
                    f.write(data)
            f.truncate(len(self.model))

    # Each returns the new header's URL, and sets self.want: for each page,
    # "own", NIL, or where it was before.

    def first(self):
        size = self.random.randrange(1 << 20 if self.small else 1, 3 << 20)
        self.model = bytearray()
        while len(self.model) < size:
            self.model += self.content(self.random.randrange(1, 1 << 19))
        del self.model[size:]
        self.write_file()
        self.want = [NIL if is_zero(page(self.model, i)) else "own"
                     for i in range(pages(self.model))]
        return self.run(self.writer, "build", "-q", "-n", "disk",
                        *self.name_args(), self.file, "file://" + self.store)

    def resize(self):
        r = self.random
        old = len(self.model)
        most = 13 if self.small else 20
        if r.randrange(2):
            self.model += self.content(r.randrange(1, 1 << r.randrange(1, most)))
        elif old > 1 << 20:
            del self.model[-r.randrange(1, min(old // 2, 1 << most)):]

    def build(self):
        r = self.random
        before = bytes(self.model)
        for _ in range(r.randrange(0, 3 if self.small else 12)):
            start, length = self.extent(200)
            if r.randrange(2):          # not on page borders
                start += r.randrange(length)
                length = r.randrange(1, len(self.model) - start + 1)
                length = min(length, 1 << (13 if self.small else 19))
            self.model[start:start + length] = self.content(length)
        if not r.randrange(5):
            self.resize()
        self.write_file()
        # A page that the parent has in part cannot stay where it is.
        kept = len(before) if len(self.model) <= len(before) else \
            len(before) // PAGE * PAGE
        self.want = []
        for i in range(pages(self.model)):
            now = page(self.model, i)
            same = i * PAGE + len(now) <= kept and \
                before[i * PAGE:i * PAGE + len(now)] == now
            self.want.append(NIL if is_zero(now) else
                             self.where[i] if same else "own")
        return self.run(self.writer, "build", "-q", "--parent", self.url,
                        *self.name_args(), self.file, "file://" + self.store)

    def changes(self):
        r = self.random
        before = bytes(self.model)
        dedup = r.randrange(2)
        taken, lines = set(), []
        self.want = list(self.where)
        for _ in range(r.randrange(0, 5 if self.small else 40)):
            start, length = self.extent(100)
            span = range(start // PAGE, -(-(start + length) // PAGE))
            if taken & set(span):
                continue
            taken |= set(span)
            kind = r.choice("dddz")
            lines.append((start, length, kind))
            if kind == "z":
                self.model[start:start + length] = bytes(length)
            elif r.randrange(4):
                self.model[start:start + length] = self.content(length)
            for i in span:
                now = page(self.model, i)
                same = dedup and page(before, i) == now
                self.want[i] = NIL if is_zero(now) else \
                    self.where[i] if same else "own"
        self.write_file()
        text = "".join(f"{k} {s} {n}\n" for s, n, k in sorted(lines))
        args = [self.writer, self.file, self.url, "file://" + self.store,
                r.choice(CODECS), str(r.choice(FRAMES))]
        return self.run(*args, *(["dedup"] if dedup else []), data=text)

    def nothing(self):
        self.write_file()
        self.want = list(self.where)
        return self.run(self.writer, "build", "-q", "--parent", self.url,
                        self.file, "file://" + self.store)

    def flatten(self):
        self.want = None
        self.layers = self.random.choice((1, 1, 1, 2, 3, 8))
        args = [self.writer, "flatten", self.url, "file://" + self.store,
                "--layers", str(self.layers)]
        if self.random.randrange(2):
            args += self.name_args()
        url = self.run(*args)
        first = self.stderr.splitlines()[0].split()
        self.counts["frames copied"] = \
            self.counts.get("frames copied", 0) + int(first[1])
        self.counts["frames encoded"] = \
            self.counts.get("frames encoded", 0) + int(first[6])
        return url

    def check(self, how, generation):
        path = self.url[len("file://"):]
        image = header.Image(path)
        image.cache = self.frames
        h = image.header
        need(h.generation == generation, "generation", h.generation)
        need(h.size == len(self.model), "size", h.size)
        if generation == 0:
            self.base = h.uuid
        need(h.base == self.base, "base")
        # Version 3 where it says all: no compressed layers.
        raw = all(b.codec == header.NONE for b in h.builds)
        if h.version == 4 and h.builds:
            need(not raw, "version 4 for raw layers")
        data = image.all()
        need(data == self.model, "the image differs at", next(
            (i for i in range(len(data)) if data[i] != self.model[i]), "end"))
        for b in h.builds:
            if b.uuid not in self.good:
                image.check()
                self.good |= {b.uuid for b in h.builds}
        self.run(self.lazyframe, "verify", "-q", self.url)

        # Of others' layers, only the frames that some mapping needs are listed.
        for b in h.builds:
            spans = [(s, s + n) for _, n, u, s in h.mappings if u == b.uuid]
            need(b.uuid == h.uuid or all(
                any(s < u + n and u < e for s, e in spans)
                for u, _, n, _ in b.frames), "frames that nothing maps")
        where = []
        for start, length, uuid, storage in h.mappings:
            for i in range(0, length, PAGE):
                where.append(NIL if uuid == NIL else (uuid, storage + i))
        own = [w for w in where if w != NIL and w[0] == h.uuid]
        need([s for _, s in own] == list(range(0, len(own) * PAGE, PAGE)),
             "the new layer is not in the order of the image, or not compact")
        folder = os.listdir(os.path.dirname(path))
        need(len(folder) > 1 or not own, "no data object")
        need(len(folder) == 1 or own, "a data object with nothing in it")
        if self.want is None:
            used = {w[0] for w in where if w != NIL}
            need(len(used) <= self.layers, len(used), "layers")
            for i, w in enumerate(self.where):
                need(w != NIL or where[i] == NIL, "page", i, "was zeros")
        else:
            need(len(where) == len(self.want), "pages")
            for i, w in enumerate(self.want):
                need(w == "own" and where[i] != NIL and where[i][0] == h.uuid or
                     w == where[i], how, "page", i, "is at", where[i],
                     "not", w)
        self.where = where
        self.history.append((path, hashlib.sha256(self.model).digest()))
        self.counts["most layers"] = max(
            self.counts.get("most layers", 0), len({w[0] for w in where}))
        self.counts["most mappings"] = max(
            self.counts.get("most mappings", 0), len(h.mappings))

    def generations(self, count):
        self.frames = {}
        self.where = []
        for generation in range(count + 1):
            how = "first" if not generation else self.random.choices(
                ("build", "changes", "nothing", "flatten"),
                (40, 45, 3, 25 if generation % 20 > 14 else 1))[0]
            self.counts[how] = self.counts.get(how, 0) + 1
            try:
                self.url = getattr(self, how)()
                self.check(how, generation)
            except Exception:
                print(f"generation {generation}, {how}", file=sys.stderr)
                raise
            if len(self.frames) > 5000:
                self.frames.clear()

    def old_ones(self):
        """All that came before is as it was."""
        for path, digest in self.random.sample(
                self.history, min(10, len(self.history))):
            need(hashlib.sha256(header.Image(path).all()).digest() == digest,
                 path, "changed")

    def objects(self):
        out = {}
        for folder in os.listdir(self.store):
            for name in os.listdir(os.path.join(self.store, folder)):
                if not name.endswith((".header", ".uncompressed-size")):
                    out[folder] = os.path.join(self.store, folder, name)
        return out

    def gc(self):
        """Some headers go; then what no other needs goes, and nothing else."""
        url = "file://" + self.store
        gone = [p for p, _ in self.history if self.random.randrange(3)]
        for path in gone:
            os.unlink(path)
        left = [(p, d) for p, d in self.history if p not in gone]
        needed = set()
        for path, _ in left:
            h = header.Image(path).header
            needed |= {header.uuid_text(m[2]) for m in h.mappings} | \
                {header.uuid_text(h.uuid)}
        there = self.objects()
        listed = self.run(self.writer, "gc", "-q", "--min-age", "0", url)
        want = sorted(set(there) - needed)
        need(sorted(x.split()[0] for x in listed.splitlines()) == want,
             "gc lists other layers than", want)
        need(self.objects() == there, "gc deleted without being told to")
        self.run(self.writer, "gc", "-q", "--delete", "--min-age", "0", url)
        need(sorted(self.objects()) == sorted(set(there) & needed), "gc")
        for path, digest in left[-20:]:
            need(hashlib.sha256(header.Image(path).all()).digest() == digest,
                 path, "changed by gc")
            self.run(self.lazyframe, "verify", "-q", "file://" + path)
        self.counts["gc deleted"] = len(want)


def main(argv):
    run = Run(argv[0], argv[1], argv[2], int(argv[4]))
    run.generations(int(argv[3]))
    run.old_ones()
    run.gc()
    print(run.counts)


if __name__ == "__main__":
    main(sys.argv[1:])

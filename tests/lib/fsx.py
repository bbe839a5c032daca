# SPDX-License-Identifier: GPL-2.0-only
"""fsx.py FILE SECONDS [SEED]: does to a file whatever one can do to files, and
compares each read with a model. In the manner of fsx."""
import ctypes
import mmap
import os
import random
import sys
import time

SIZE = 512 << 10
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64,
                           ctypes.c_int64)
KEEP_SIZE, PUNCH, ZERO = 1, 2, 16


class Fsx:
    def __init__(self, path, seed):
        self.path, self.rng = path, random.Random(seed)
        self.model = bytearray()
        self.history = []
        self.count = {}
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def place(self):
        """Somewhere, sometimes on whole sectors or blocks."""
        unit = self.rng.choice((1, 1, 512, 4096))
        at = self.rng.randrange(SIZE) // unit * unit
        n = min(self.rng.randrange(1, 64 << 10), SIZE - at)
        return at, max(n // unit * unit, 1)

    def put(self, at, data):
        if at > len(self.model):
            self.model.extend(bytes(at - len(self.model)))
        self.model[at:at + len(data)] = data

    def write(self):
        at, n = self.place()
        data = self.rng.randbytes(n)
        os.pwrite(self.fd, data, at)
        self.put(at, data)
        return at, n

    def direct(self):
        at, n = self.place()
        at, n = at & ~4095, max(4096, n & ~4095)
        data = self.rng.randbytes(n)
        with mmap.mmap(-1, n) as buf:
            buf[:] = data
            fd = os.open(self.path, os.O_RDWR | os.O_DIRECT)
            assert os.pwritev(fd, [buf], at) == n
            os.close(fd)
        self.put(at, data)
        return at, n

    def read(self):
        at, n = self.place()
        self.compare(at, os.pread(self.fd, n, at), n)
        return at, n

    def mapped(self, change):
        if not self.model:
            return 0, 0
        at, n = self.place()
        at = min(at, len(self.model) - 1)
        n = min(n, len(self.model) - at)
        with mmap.mmap(self.fd, len(self.model)) as m:
            if change:
                data = self.rng.randbytes(n)
                m[at:at + n] = data
                self.put(at, data)
            else:
                self.compare(at, m[at:at + n], n)
        return at, n

    def map_read(self):
        return self.mapped(False)

    def map_write(self):
        return self.mapped(True)

    def truncate(self):
        n = self.rng.randrange(SIZE)
        os.ftruncate(self.fd, n)
        del self.model[n:]
        self.model.extend(bytes(n - len(self.model)))
        return 0, n

    def fallocate(self, mode):
        at, n = self.place()
        if libc.fallocate(self.fd, mode, at, n) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        if mode:
            n = max(0, min(n, len(self.model) - at))
            self.model[at:at + n] = bytes(n)
        elif at + n > len(self.model):
            self.model.extend(bytes(at + n - len(self.model)))
        return at, n

    def punch(self):
        return self.fallocate(KEEP_SIZE | PUNCH)

    def zero(self):
        return self.fallocate(KEEP_SIZE | ZERO)

    def allocate(self):
        return self.fallocate(0)

    def sync(self):
        os.fsync(self.fd)
        return 0, 0

    def forget(self):
        os.fsync(self.fd)
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return 0, 0

    def reopen(self):
        os.close(self.fd)
        self.fd = os.open(self.path, os.O_RDWR)
        return 0, 0

    def compare(self, at, got, n):
        want = bytes(self.model[at:at + n])
        if got == want:
            return
        off = next((i for i in range(min(len(got), len(want)))
                    if got[i] != want[i]), min(len(got), len(want)))
        for line in self.history[-40:]:
            print("#", *line)
        raise SystemExit(f"{self.path}: byte {at + off}: {len(got)} bytes, "
                         f"{got[off:off + 8].hex()}, not {len(want)} bytes, "
                         f"{want[off:off + 8].hex()}")

    def run(self, seconds):
        steps = [self.write] * 6 + [self.read] * 6 + [self.map_write] * 3 + \
            [self.map_read] * 3 + [self.direct] * 3 + [
                self.truncate, self.punch, self.zero, self.allocate,
                self.sync, self.forget, self.reopen]
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            step = self.rng.choice(steps)
            self.history.append((step.__name__, *step()))
            del self.history[:-100]
            name = step.__name__
            self.count[name] = self.count.get(name, 0) + 1
        self.forget()
        self.compare(0, os.pread(self.fd, SIZE * 2, 0), SIZE * 2)
        print(f"{sum(self.count.values())} operations")


if __name__ == "__main__":
    Fsx(sys.argv[1], int(sys.argv[3]) if len(sys.argv) > 3 else
        time.time_ns()).run(float(sys.argv[2]))

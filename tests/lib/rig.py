# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of the module share: TAP, devices, readers, helpers.

A test is a function:

	@test("a promise of the contract")
	def _():
	    assert ...

It runs where it is written. What it made is undone behind it (helpers first,
then devices, each of which must have counters that add up), and a test that
takes longer than its limit ends the program, with every thread's place shown.
finish() at the end hands the counts to the shell.

Devices are made by the device-mapper ioctls themselves: no process per step,
and errors come back as errno.
"""
import contextlib
import ctypes
import errno
import faulthandler
import fcntl
import glob
import itertools
import mmap
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import overlay
from lazyframe import (BLOCK, LZ4, NONE, ZSTD, Helper, Layer, Request,
                       compress, meta, sectors, xxh64)

KIB, MIB = 1 << 10, 1 << 20
libc = ctypes.CDLL(None, use_errno=True)
libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)
libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64,
                           ctypes.c_int64)
MODULE = "/sys/class/misc/lazyframe"

# A kernel with KASAN and lockdep is about ten times as slow.
SLOW = float(os.environ.get("LAZYFRAME_SLOW") or
             (10 if "debug" in os.uname().release else 1))


# tests/counts.sh has them
ROUNDS = float(os.environ.get("ROUNDS", "1"))


def scale(count, least=1):
    """A count for this kernel: fewer rounds where each takes longer."""
    return max(least, int(count * ROUNDS / SLOW))


def trial(seconds):
    """How long a test tries random things, on a fast kernel."""
    return seconds * ROUNDS * (1 if SLOW == 1 else 2)


def patience(seconds):
    """A limit on time for this kernel; never what a test measures."""
    return seconds * float(os.environ.get("RIG_PATIENCE", "4")) * SLOW * \
        max(ROUNDS, 1)


# ---------------------------------------------------------------- TAP

_count = int(os.environ.get("TAP_FIRST", "0"))
_failed = 0
_undo = []


def say(text):
    for line in str(text).rstrip().splitlines():
        print("#", line, flush=True)


def _result(good, name, skip=None):
    global _count, _failed
    _count += 1
    _failed += not good
    print(f"{'ok' if good else 'not ok'} {_count} {name}" +
          (f" # SKIP {skip}" if skip else ""), flush=True)


class Skip(Exception):
    pass


def undo(function):
    """Call @function when the current test is over, last one first."""
    _undo.append(function)
    return function


def _overdue(name, limit):
    _result(False, name)
    say(f"not done after {limit:.0f} seconds")
    sys.stdout.flush()
    faulthandler.dump_traceback(file=sys.stdout)
    with open("/proc/sysrq-trigger", "w") as f:
        f.write("w")
    _write_counts()
    os._exit(1)


def test(name, limit=30):
    """@limit: seconds that a fast kernel may take. By hand: RIG_ONLY, a regular
    expression, picks tests; RIG_TIMES shows how long each took."""
    def run(function):
        if not re.search(os.environ.get("RIG_ONLY", ""), name):
            return function
        limits = patience(limit)
        watch = threading.Timer(limits, _overdue, (name, limits))
        watch.daemon = True
        watch.start()
        good, skip = True, None
        begun = time.monotonic()
        try:
            function()
        except Skip as why:
            skip = why
        except Exception:
            good = False
            detail = traceback.format_exc()
        while _undo:
            try:
                _undo.pop()()
            except Exception:
                if good:
                    detail = traceback.format_exc()
                good = False
        watch.cancel()
        _result(good, name, skip)
        if not good:
            say(detail)
        if os.environ.get("RIG_TIMES"):
            say(f"{time.monotonic() - begun:.1f} s")
        return function
    return run


def _write_counts():
    path = os.environ.get("TAP_COUNTS")
    if path:
        with open(path, "w") as f:
            f.write(f"{_count} {_failed}\n")


def finish():
    for loop in list(_loops):
        _loops.pop().close()
    _write_counts()


def wait_until(condition, what="condition", limit=10):
    end = time.monotonic() + patience(limit)
    while not condition():
        assert time.monotonic() < end, f"no {what} after {patience(limit)} s"
        time.sleep(0.005)


@contextlib.contextmanager
def fails(*errnos):
    """The body raises OSError with one of these."""
    try:
        yield
    except OSError as e:
        assert e.errno in errnos, \
            f"{errno.errorcode.get(e.errno)}, not " \
            f"{[errno.errorcode[n] for n in errnos]}"
    else:
        raise AssertionError(
            f"succeeded, not {[errno.errorcode[n] for n in errnos]}")


def same(got, want, at=0):
    """Equal bytes, or an AssertionError that says where they differ."""
    if got == want:
        return
    assert len(got) == len(want), f"{len(got)} bytes, not {len(want)}"
    step = 1 << 16
    for base in range(0, len(want), step):
        if got[base:base + step] != want[base:base + step]:
            break
    off = next(i for i in range(base, len(want)) if got[i] != want[i])
    raise AssertionError(f"byte {at + off}: {bytes(got[off:off + 8]).hex()}, "
                         f"not {bytes(want[off:off + 8]).hex()}")


class KernelLog:
    """What the kernel says from now on."""

    def __init__(self):
        self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.fd, 0, os.SEEK_END)

    def read(self):
        out = []
        while True:
            try:
                out.append(os.read(self.fd, 8192).decode(errors="replace"))
            except BlockingIOError:
                break
            except BrokenPipeError:	# overwritten before we read it
                continue
        return "".join(o.split(";", 1)[1] for o in out)

    def close(self):
        os.close(self.fd)


# ---------------------------------------------------------------- contents

def noise(size, rng=random):
    """Bytes like a file system's: some repeat, some do not, some are zero."""
    out, kinds = [], (lambda n: rng.randbytes(n), lambda n: bytes(n),
                      lambda n: (rng.randbytes(37) * (n // 37 + 1))[:n])
    left = size
    while left:
        n = min(left, rng.randrange(1, 1 << rng.randrange(1, 17)))
        out.append(rng.choice(kinds)(n))
        left -= n
    return b"".join(out)


def cut(content, codec, sizes, **kw):
    """A layer whose frames have the U sizes @sizes, as foreign tools cut."""
    layer = Layer(b"", codec, **kw)
    layer.content = content
    parts, u, c = [], 0, 0
    for size in sizes:
        part = content[u:u + size]
        data = compress(codec, part)
        layer.frames.append((u, c, len(part), len(data),
                             xxh64(part) & 0xffffffff))
        parts.append(data)
        u += len(part)
        c += len(data)
    assert u == len(content)
    layer.object = b"".join(parts)
    return layer


def layer_of(content, codec=NONE, frame=128 * KIB, **kw):
    """As Layer(), in linear time for many frames."""
    full, rest = divmod(len(content), frame)
    return cut(content, codec, [frame] * full + ([rest] if rest else []), **kw)


def trimmed(layer, keep):
    """The same layer as a header sees it that maps only some frames."""
    other = Layer(b"", layer.codec, uuid=layer.uuid, sums=layer.sums)
    other.content, other.object = layer.content, layer.object
    other.locator, other.validator = layer.locator, layer.validator
    other.frames = [f for i, f in enumerate(layer.frames) if keep(i, f)]
    return other


def flat(layers, extents, size):
    """The image as bytes, with its last sector's padding."""
    out = bytearray(sectors(size) * 512)
    for start, length, index, storage in extents:
        part = layers[index].content[storage:storage + length]
        out[start:start + len(part)] = part
    return bytes(out)


# ---------------------------------------------------------------- devices

class Loop:
    """A file as a block device."""

    def __init__(self, path):
        self.path = path
        ctl = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            while True:
                number = fcntl.ioctl(ctl, 0x4c82)	# LOOP_CTL_GET_FREE
                self.name = f"/dev/loop{number}"
                self.fd = os.open(self.name, os.O_RDWR | os.O_CLOEXEC)
                config = struct.pack("=II232x64x", fd, 0)
                try:
                    fcntl.ioctl(self.fd, 0x4c0a, config)  # LOOP_CONFIGURE
                    break
                except OSError as e:
                    os.close(self.fd)
                    if e.errno != errno.EBUSY:
                        raise
        finally:
            os.close(fd)
            os.close(ctl)

    def resize(self):
        fcntl.ioctl(self.fd, 0x4c07)			# LOOP_SET_CAPACITY

    def close(self):
        fcntl.ioctl(self.fd, 0x4c01)			# LOOP_CLR_FD
        os.close(self.fd)

    def in_use(self):
        """Does anybody hold it, ourselves apart?"""
        name = os.path.basename(self.name)
        return bool(os.listdir(f"/sys/block/{name}/holders"))


_loops = []


class DM:
    """The ioctls of /dev/mapper/control."""
    HEAD = struct.Struct("=3I I I I i I I I Q 128s 129s 7x")
    SPEC = struct.Struct("=QQiI16s")
    (LIST, CREATE, REMOVE, SUSPEND, STATUS, WAIT, LOAD, CLEAR, TABLE,
     MESSAGE) = 2, 3, 4, 6, 7, 8, 9, 10, 12, 14
    READONLY, F_SUSPEND, STATUS_TABLE, SKIP_LOCKFS, NOFLUSH, IMA = \
        1 << 0, 1 << 1, 1 << 4, 1 << 10, 1 << 11, 1 << 19
    control = None

    @classmethod
    def call(cls, nr, name, flags=0, payload=b"", targets=0, event=0,
             room=16384):
        if cls.control is None:
            cls.control = os.open("/dev/mapper/control",
                                  os.O_RDWR | os.O_CLOEXEC)
        size = cls.HEAD.size + len(payload) + room
        buf = bytearray(size)
        cls.HEAD.pack_into(buf, 0, 4, 0, 0, size, cls.HEAD.size, targets, 0,
                           flags, event, 0, 0, name.encode(), b"")
        buf[cls.HEAD.size:cls.HEAD.size + len(payload)] = payload
        # fcntl.ioctl() would keep all other threads from running
        arg = (ctypes.c_char * size).from_buffer(buf)
        if libc.ioctl(cls.control, (3 << 30) | (cls.HEAD.size << 16) |
                      (0xfd << 8) | nr, arg) < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{os.strerror(code)}, ioctl {nr} of {name}")
        head = cls.HEAD.unpack_from(buf)
        return dict(start=head[4], targets=head[5], open=head[6],
                    flags=head[7], event=head[8], dev=head[10], buf=buf)

    @classmethod
    def status(cls, name, flags=0):
        got = cls.call(cls.TABLE, name, flags)
        if not got["targets"]:
            return None
        text = bytes(got["buf"][got["start"] + cls.SPEC.size:])
        return text.split(b"\0", 1)[0].decode()

    @classmethod
    def load(cls, name, size, args, flags=None, target="lazyframe", begin=0):
        text = args.encode() + b"\0"
        text += bytes(-len(text) % 8)
        spec = cls.SPEC.pack(begin, size, 0, cls.SPEC.size + len(text),
                             target.encode())
        cls.call(cls.LOAD, name, cls.READONLY if flags is None else flags,
                 spec + text, 1)

    @classmethod
    def message(cls, name, text):
        got = cls.call(cls.MESSAGE, name, payload=struct.pack("=Q", 0) +
                       text.encode() + b"\0")
        if not got["flags"] & 1 << 16:			# DM_DATA_OUT_FLAG
            return None
        assert not got["flags"] & 1 << 8, "more than the buffer takes"
        return bytes(got["buf"][got["start"]:]).split(b"\0", 1)[0].decode()


_names = itertools.count()


class Block:
    """A block device and, where it fits in memory, what it must say."""

    def __init__(self, size, model=None):
        self.size, self.model = size, model
        self.node = None
        self.fds = {}
        self.lock = threading.Lock()

    def fd(self, direct=True, write=False):
        flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC | \
            (os.O_DIRECT if direct else 0)
        with self.lock:
            if flags not in self.fds:
                self.fds[flags] = os.open(self.node, flags)
            return self.fds[flags]

    def put(self, offset, data):
        """Change the model only."""
        data = data[:max(0, len(self.model) - offset)]
        self.model[offset:offset + len(data)] = data

    def write(self, offset, data, direct=True, fua=False, model=True):
        """@model: False where a test knows better what it will read."""
        flags = os.RWF_DSYNC if fua else 0
        fd = self.fd(direct, True)
        done = 0
        with contextlib.closing(mmap.mmap(-1, len(data))) as buf:
            buf.write(data)
            with memoryview(buf) as view:
                while done < len(data):
                    done += os.pwritev(fd, [view[done:]], offset + done, flags)
        if model and self.model is not None:
            self.put(offset, data)

    def flush(self):
        os.fsync(self.fd(True, True))

    def ioctl_range(self, nr, offset, length):
        arg = (ctypes.c_uint64 * 2)(offset, length)
        if libc.ioctl(self.fd(True, True), nr, arg) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def discard(self, offset, length, model=True):
        """Whole blocks become zeros, what hangs over stays."""
        self.ioctl_range(0x1277, offset, length)	# BLKDISCARD
        if model and self.model is not None:
            start = -(-offset // BLOCK) * BLOCK
            end = offset + length
            if end < sectors(self.size) * 512:
                end = end // BLOCK * BLOCK
            if end > start:
                self.put(start, bytes(end - start))

    def zeroes(self, offset, length, model=True):
        self.ioctl_range(0x127f, offset, length)	# BLKZEROOUT
        if model and self.model is not None:
            self.put(offset, bytes(length))

    def punch(self, offset, length, model=True):
        """fallocate: write-zeroes, and an error where the device has none."""
        if libc.fallocate(self.fd(True, True), 3, offset, length) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        if model and self.model is not None:
            self.put(offset, bytes(length))

    def read(self, offset, length, direct=True):
        if not direct:
            return os.pread(self.fd(False), length, offset)
        buf = mmap.mmap(-1, max(length, 1))
        # what is not written must not look like zeros
        buf.write(b"\xa5" * length)
        fd = self.fd()
        done = 0
        with memoryview(buf) as view:
            while done < length:
                n = os.preadv(fd, [view[done:length]], offset + done)
                if not n:
                    break
                done += n
            data = bytes(view[:done])
        buf.close()
        return data

    def check(self, offset=0, length=None, direct=True):
        if length is None:
            length = sectors(self.size) * 512 - offset
        same(self.read(offset, length, direct),
             self.model[offset:offset + length], offset)

    def forget_pages(self):
        """Drop the page cache of the device."""
        os.posix_fadvise(self.fd(False), 0, 0, os.POSIX_FADV_DONTNEED)
        fcntl.ioctl(self.fd(False), 0x1261)		# BLKFLSBUF

    def release(self):
        """Close our own descriptors."""
        for fd in self.fds.values():
            os.close(fd)
        self.fds = {}


class Mapped(Block):
    """A device of one target of another kind, writable, over @args."""

    def __init__(self, target, size, args, flags=0):
        super().__init__(size)
        self.name = f"m{os.getpid()}-{next(_names)}"
        number = DM.call(DM.CREATE, self.name)["dev"]
        self.dm = f"dm-{(number & 0xff) | ((number >> 12) & 0xfff00)}"
        self.node = f"/dev/{self.dm}"
        undo(self.close)
        self.alive = True
        self.turn(target, args, flags)

    def turn(self, target, args, flags=0):
        """Another table in the place of the first; reads that wait stay."""
        DM.load(self.name, self.size // 512, args, flags, target=target)
        DM.call(DM.SUSPEND, self.name, DM.NOFLUSH | DM.SKIP_LOCKFS)

    def message(self, text):
        DM.message(self.name, text)

    def close(self):
        self.release()
        if self.alive:
            DM.call(DM.REMOVE, self.name)
            self.alive = False


def write_meta(layers, extents, size, patch=None, **kw):
    fd, path = tempfile.mkstemp(suffix=".meta")
    os.close(fd)
    meta(path, layers, extents, size, patch=patch, **kw)
    return path


def histogram(path):
    """A file of a folder latency/: upper bounds in us and counts, and the sum."""
    with open(path) as f:
        lines = [line.split() for line in f.read().splitlines()]
    assert [le for le, _ in lines] == \
        [str(1 << i) for i in range(27)] + ["inf", "sum"], lines
    return [(float(le), int(n)) for le, n in lines[:-1]], int(lines[-1][1])


class Device(Block):
    """A lazyframe device, its meta device and what it must say."""

    def __init__(self, layers, extents=None, size=None, features="",
                 resume=True, keep=False, cow=False, on=None, origin=None,
                 origin_uuid=None, store=None):
        """@cow: with an overlay, on a file of its own; @on: on these two block
        devices. @origin: a device's path. @store: a device, or None."""
        if size is None:
            size = len(layers[0].content)
        if extents is None:
            extents = [(0, size, 0, 0)]
        # nobody holds a model of a huge image in memory
        super().__init__(size, flat(layers, extents, size)
                         if size <= 1 << 30 else None)
        self.layers, self.extents = layers, extents
        self.name = f"t{os.getpid()}-{next(_names)}"
        self.alive = False
        self.loop = self.cow_loop = self.number = None
        try:
            self.storage(cow, on, origin_uuid)
            self.args = self.line(features, origin, store)
            if not keep:
                undo(self.close)
            self.create(resume)
        except BaseException:
            if keep or self.number is None:
                self.close()
            raise

    def storage(self, cow, on, origin_uuid):
        """Make a meta device and, if asked for, a COW device."""
        kw = {"origin": origin_uuid or bytes(16)}
        tree = overlay.Tree(self.size)
        if cow or on:
            self.uuid = os.urandom(16)
            kw["overlay"], identity = overlay.fresh(self.size, self.uuid)
            if self.model is not None:
                self.model = bytearray(self.model)
        if on:
            self.path, self.cow_path = on
            meta(self.path, self.layers, self.extents, self.size, **kw)
        else:
            self.path = write_meta(self.layers, self.extents, self.size, **kw)
            self.loop = Loop(self.path)
            if cow:
                fd, self.cow_path = tempfile.mkstemp(suffix=".cow")
                os.close(fd)
                os.truncate(self.cow_path, tree.cow_bytes)
        if cow or on:
            with open(self.cow_path, "r+b") as f:
                f.seek(tree.blocks * BLOCK)
                f.write(identity)
                f.flush()
                os.fsync(f.fileno())
            if not on:
                self.cow_loop = Loop(self.cow_path)
        self.writable = bool(cow or on)

    def line(self, features="", origin=None, store=None):
        cow = self.cow_loop.name if self.cow_loop else \
            self.cow_path if self.writable else "-"
        if origin:
            features += f" origin {origin}"
        meta = self.loop.name if self.loop else self.path
        return f"{meta} {store.node if store else '-'} {cow}" + (
            f" {len(features.split())} {features}" if features else "")

    def create(self, resume=True):
        self.number = DM.call(DM.CREATE, self.name)["dev"]
        self.alive = True
        # dev numbers come in the kernel's huge encoding
        minor = (self.number & 0xff) | ((self.number >> 12) & 0xfff00)
        self.dm = f"dm-{minor}"
        self.node = f"/dev/{self.dm}"
        self.load(self.args)
        if resume:
            self.resume()

    def load(self, args, size=None, flags=None, begin=0):
        if flags is None:
            flags = 0 if self.writable and " read_only" not in args else None
        DM.load(self.name, sectors(self.size) if size is None else size,
                args, flags, begin=begin)

    def resume(self, flags=0):
        DM.call(DM.SUSPEND, self.name, flags)

    def suspend(self, noflush=False):
        DM.call(DM.SUSPEND, self.name, DM.F_SUSPEND | DM.SKIP_LOCKFS |
                (DM.NOFLUSH if noflush else 0))

    def message(self, text):
        return DM.message(self.name, text)

    def latency(self, name):
        return histogram(f"/sys/block/{self.dm}/lazyframe/latency/{name}")

    def info(self):
        return DM.status(self.name).split()

    def table(self):
        return DM.status(self.name, DM.STATUS_TABLE)

    def pair(self):
        """What is on its meta and COW device."""
        return overlay.pair(self.path, self.cow_path)

    def check_pair(self):
        """After its removal: the pair on disk is what the model says."""
        pair = self.pair()
        same(pair.show(flat(self.layers, self.extents, self.size)), self.model)
        return pair

    def mode(self):
        with open(f"/sys/block/{self.dm}/lazyframe/mode") as f:
            return f.read().strip()

    def event(self):
        return DM.call(DM.STATUS, self.name)["event"]

    def stat(self, name):
        with open(f"/sys/block/{self.dm}/lazyframe/{name}") as f:
            return int(f.read())

    def stats(self):
        return {name: self.stat(name) for name in
                os.listdir(f"/sys/block/{self.dm}/lazyframe")
                if name not in ("mode", "latency")}

    def adds_up(self):
        s = self.stats()
        assert s["waiting"] == 0, s
        assert s["reads"] == s["reads_zero"] + s["reads_memory"] + \
            s["reads_store"] + s["reads_fetched"] + s["reads_failed"] + \
            s["reads_overlay"] + s["reads_origin"], s
        return s

    def remove(self):
        DM.call(DM.REMOVE, self.name)
        self.alive = False

    def end_reads(self):
        """A test that failed may have left readers: they shall not stay."""
        self.message("error_if_no_helper")
        wait_until(lambda: not self.stat("waiting"), "end of reads")
        for thread in threading.enumerate():
            if isinstance(thread, Reader) and thread.device is self:
                thread.wait()

    def close(self):
        left = 0
        if self.alive and \
                os.path.exists(f"/sys/block/{self.dm}/lazyframe/waiting"):
            left = self.stat("waiting")
            if left:
                self.end_reads()
        self.release()
        if self.alive:
            try:
                if os.path.exists(f"/sys/block/{self.dm}/lazyframe/reads"):
                    self.adds_up()
            finally:
                self.remove()
        assert not left, f"{left} reads still waited"
        if self.loop:
            assert not self.loop.in_use(), "the meta device is still held"
            self.loop.close()
            self.loop = None
            os.unlink(self.path)
        if self.cow_loop:
            assert not self.cow_loop.in_use(), "the COW device is still held"
            self.cow_loop.close()
            self.cow_loop = None
            os.unlink(self.cow_path)


class Reader(threading.Thread):
    """One read in a thread of its own: .data or .errno when done()."""

    def __init__(self, device, offset, length, direct=True):
        super().__init__(daemon=True)
        self.args = (offset, length, direct)
        self.device, self.data, self.errno = device, None, None
        device.fd(direct)
        self.start()

    def run(self):
        try:
            self.data = self.device.read(*self.args)
        except OSError as e:
            self.errno = e.errno

    def done(self):
        return not self.is_alive()

    def wait(self, limit=10):
        self.join(patience(limit))
        assert not self.is_alive(), f"read of {self.args} did not end"
        return self

    def good(self, limit=10):
        self.wait(limit)
        assert self.errno is None, \
            f"read of {self.args}: {errno.errorcode[self.errno]}"
        offset, length, _ = self.args
        same(self.data, self.device.model[offset:offset + length], offset)

    def bad(self, *errnos, limit=10):
        self.wait(limit)
        assert self.errno in (errnos or (errno.EIO,)), \
            f"read of {self.args}: {self.errno}, {self.data and 'data'}"


class Readers:
    """@count threads that read and compare at random places, until end().

    @fails: a read may end in an error, too; that is counted in .failed
    """

    def __init__(self, *devices, size=8 * KIB, count=4, fails=False):
        self.size, self.fails = size, fails
        self.good = self.failed = 0
        self.stop, self.errors, self.threads = False, [], []
        for device in devices:
            device.fd()
        for i in range(count):
            self.threads.append(threading.Thread(
                target=self.run, args=(devices[i % len(devices)], i),
                daemon=True))
            self.threads[-1].start()

    def run(self, device, seed):
        mine = random.Random(seed)
        try:
            while not self.stop:
                at = 512 * mine.randrange((device.size - self.size) // 512)
                try:
                    device.check(at, self.size)
                    self.good += 1
                except OSError:
                    if not self.fails:
                        raise
                    self.failed += 1
        except BaseException as e:
            self.errors.append(e)

    def end(self, limit=20):
        """All of them, none with an error, and something was read."""
        self.stop = True
        for thread in self.threads:
            thread.join(patience(limit))
            assert not thread.is_alive(), "a read hangs"
        assert not self.errors, self.errors
        assert self.good


class Later(threading.Thread):
    """A call that may have to wait: done(), good() or bad()."""

    def __init__(self, function, *args, **kw):
        super().__init__(daemon=True)
        self.what, self.error = (function, args, kw), None
        self.start()

    def run(self):
        try:
            self.what[0](*self.what[1], **self.what[2])
        except Exception as e:
            self.error = e

    def done(self):
        return not self.is_alive()

    def wait(self, limit=10):
        self.join(patience(limit))
        assert not self.is_alive(), \
            f"{self.what[0].__name__}{self.what[1][:1]} did not end"

    def good(self, limit=10):
        self.wait(limit)
        if self.error:
            raise self.error

    def bad(self, *errnos, limit=10):
        self.wait(limit)
        assert isinstance(self.error, OSError) and \
            self.error.errno in (errnos or (errno.EIO,)), self.error


def waiting(device, count=1):
    wait_until(lambda: device.stat("waiting") == count,
               f"{count} waiting reads")


# ---------------------------------------------------------------- helpers

class Hand(Helper):
    """A session that is closed when the test is over."""

    def __init__(self, *args, **kw):
        super().__init__(*args, **kw)
        undo(self.close)

    def close(self):
        if self.fd is not None:
            self.ring = None
            os.close(self.fd)
            self.fd = None

    def next(self, count=1, limit=10):
        """Exactly @count requests, and no more for a moment."""
        out = []
        end = time.monotonic() + patience(limit)
        while len(out) < count:
            assert time.monotonic() < end, f"{len(out)} of {count} requests"
            out += self.requests(0.5)
        assert len(out) == count, out
        return out[0] if count == 1 else out

    def none(self, seconds=0.3):
        got = self.requests(seconds)
        assert not got, got


class Server(threading.Thread):
    """A helper in a thread. @reply(server, request) may do anything; by
    default it answers rightly."""

    def __init__(self, *layers, reply=None, chunk=None):
        super().__init__(daemon=True)
        self.by_uuid = {l.uuid: l for l in layers}
        self.reply, self.chunk = reply, chunk
        self.log, self.promotes, self.error = [], [], None
        self.batches = []
        self.stop = False
        self.helper = Helper()
        undo(self.close)
        self.start()

    def layer(self, request):
        known = self.helper.layers
        if request.layer not in known:
            known[request.layer] = \
                self.by_uuid[self.helper.info(request.layer)["uuid"]]
        return known[request.layer]

    def data(self, request):
        return self.layer(request).object[
            request.offset:request.offset + request.length]

    def answer(self, request):
        data = self.data(request)
        step = self.chunk or request.length
        for at in range(request.have, request.length, step):
            self.helper.fill(request, data[at:at + step], offset=at)

    def take(self):
        return self.helper.requests(0.05)

    def run(self):
        try:
            while not self.stop:
                batch = self.take()
                new = [r for r in batch if not r.flags & Request.PROMOTE]
                self.promotes += [r for r in batch
                                  if r.flags & Request.PROMOTE]
                self.log += new
                if new:
                    self.batches.append(new)
                for r in new:
                    if self.reply:
                        self.reply(self, r)
                    else:
                        self.answer(r)
        except Exception:
            self.error = traceback.format_exc()
        finally:
            self.helper.close()

    def close(self):
        if self.stop:
            return
        self.stop = True
        self.join(patience(20))
        assert not self.is_alive(), "the helper's thread hangs"
        if self.error:
            raise AssertionError("the helper's thread: " + self.error)


def module(name):
    with open(f"{MODULE}/{name}") as f:
        return int(f.read())


def step(name):
    return histogram(f"{MODULE}/latency/{name}")


def parameter(name, value=None):
    """One of the module's; set, it is so until the test is over."""
    path = f"/sys/module/lazyframe/parameters/{name}"
    with open(path) as f:
        old = f.read().strip()

    def write(text):
        with open(path, "w") as f:
            f.write(f"{text}\n")

    if value is not None:
        write(value)
        undo(lambda: write(old))
    return old


def cache_mib(value):
    """Set the cache's limit until the test is over."""
    parameter("cache_mib", value)

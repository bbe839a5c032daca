#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Devices below that fail, lie, lack space or are not the right ones: a clear
# error, never a wrong read, nothing that hangs, and all is well again when they
# are.
#
#   FAULT_ROUNDS  of the storm of errors (12)
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

modprobe -q -a dm-flakey dm-dust dm-thin-pool
log_expected='EXT4-fs error'

python_tests <<'EOF2'
from rig import *

SEED = int(os.environ.get("FAULT_SEED", "0")) or random.randrange(1 << 32)
rng = random.Random(SEED)
say(f"FAULT_SEED={SEED}")
FRAME = 64 * KIB
SIZE = 2 * MIB
layer = layer_of(noise(1 * MIB, rng), LZ4, FRAME)
EXTENTS = [(0, 512 * KIB, 0, 0), (1 * MIB, 512 * KIB, 0, 512 * KIB)]
IMAGE = flat([layer], EXTENTS, SIZE)
TREE = overlay.Tree(SIZE)
ERROR_WRITES = "0 60 1 error_writes"
ERROR_ALL = "0 60"
DROP = "0 60 1 drop_writes"


class Weak:
    """A device on a meta and a COW device that can be made to fail."""

    def __init__(self, resume=True, cow_bytes=TREE.cow_bytes):
        self.log = KernelLog()
        undo(self.log.close)
        self.below, self.on = {}, {}
        for name, size in (("meta", 1 * MIB), ("cow", cow_bytes)):
            fd, path = tempfile.mkstemp(suffix="." + name)
            os.ftruncate(fd, size)
            os.close(fd)
            undo(lambda path=path: os.unlink(path))
            loop = Loop(path)
            undo(loop.close)
            self.below[name] = loop
            self.on[name] = Mapped("linear", size, f"{loop.name} 0")
        self.device = Device([layer], EXTENTS, SIZE, resume=resume,
                             on=(self.on["meta"].node, self.on["cow"].node))

    def fail(self, name, how):
        self.on[name].turn("flakey", f"{self.below[name].name} 0 {how}")

    def heal(self, *names):
        for name in names or ("meta", "cow"):
            self.on[name].turn("linear", f"{self.below[name].name} 0")

    def again(self):
        """Suspend and resume: it tries once more."""
        self.device.suspend()
        self.device.resume()

    def paths(self):
        return self.below["meta"].path, self.below["cow"].path

    def pair(self):
        return overlay.pair(*self.paths())

    def ends_right(self):
        device = self.device
        device.check()
        device.adds_up()
        device.release()
        device.remove()
        pair = self.pair()
        same(pair.show(IMAGE), device.model)
        device.create()
        device.check()
        return pair


def settle(device):
    """Some dirty, some zero, all committed."""
    device.write(0, rng.randbytes(64 * KIB))
    device.write(1 * MIB + 512, rng.randbytes(512))
    device.zeroes(128 * KIB, 64 * KIB)
    device.flush()


def refuses_writes(device, *errnos):
    with fails(*(errnos or (errno.EIO,))):
        device.write(256 * KIB, bytes(BLOCK), model=False)


@test("a COW device that fails writes: EIO, read-only, an event; then well")
def _():
    weak = Weak()
    device = weak.device
    Server(layer)
    settle(device)
    event = device.event()
    weak.fail("cow", ERROR_WRITES)
    with fails(errno.EIO):
        device.write(512 * KIB, rng.randbytes(BLOCK), model=False)
    wait_until(lambda: device.mode() == "ro", "mode")
    wait_until(lambda: device.event() > event, "event")
    device.check()
    refuses_writes(device)
    with fails(errno.EIO):
        device.write(600 * KIB + 512, bytes(512), model=False)
    with fails(errno.EIO):
        device.zeroes(600 * KIB, BLOCK, model=False)
    text = weak.log.read()
    assert "no more writes" in text and "COW" in text, text
    # it tries again, and fails again
    weak.again()
    device.check()
    weak.heal()
    device.flush()		# all that was acknowledged is committed
    weak.again()
    assert device.mode() == "rw", device.mode()
    settle(device)
    weak.ends_right()


@test("a rewrite of a dirty block that fails")
def _():
    weak = Weak()
    device = weak.device
    Server(layer)
    settle(device)
    weak.fail("cow", ERROR_WRITES)
    with fails(errno.EIO):
        device.write(4096, rng.randbytes(BLOCK), model=False)
    wait_until(lambda: device.mode() == "ro", "mode")
    device.check()
    weak.heal()
    weak.again()
    device.write(4096, rng.randbytes(BLOCK))
    weak.ends_right()


@test("a copy-up whose write fails")
def _():
    weak = Weak()
    device = weak.device
    Server(layer)
    settle(device)
    weak.fail("cow", ERROR_WRITES)
    with fails(errno.EIO):
        device.write(256 * KIB + 512, rng.randbytes(512), model=False)
    wait_until(lambda: device.mode() == "ro", "mode")
    device.check()
    weak.heal()
    weak.again()
    device.write(256 * KIB + 512, rng.randbytes(512))
    weak.ends_right()


@test("a meta device that fails writes: the flush says so, reads stay right")
def _():
    weak = Weak()
    device = weak.device
    Server(layer)
    settle(device)
    event = device.event()
    weak.fail("meta", ERROR_WRITES)
    device.write(512 * KIB, rng.randbytes(3 * BLOCK))
    with fails(errno.EIO):
        device.flush()
    assert device.mode() == "ro"
    wait_until(lambda: device.event() > event, "event")
    device.check()
    refuses_writes(device)
    with fails(errno.EIO):
        device.flush()
    assert "commit" in weak.log.read()
    weak.again()
    assert device.mode() == "ro"
    device.check()
    weak.heal()
    weak.again()
    assert device.mode() == "rw"
    device.check()
    device.flush()
    assert 128 in weak.pair().dirty_blocks()
    weak.ends_right()


@test("the commit of time meets a meta device that fails")
def _():
    weak = Weak()
    device = weak.device
    Server(layer)
    settle(device)
    weak.fail("meta", ERROR_WRITES)
    device.write(512 * KIB, rng.randbytes(3 * BLOCK))
    wait_until(lambda: device.mode() == "ro", "mode", 5)
    device.check()
    weak.heal()
    weak.again()
    device.flush()
    weak.ends_right()


@test("a FUA write whose commit fails says so")
def _():
    weak = Weak()
    device = weak.device
    Server(layer)
    settle(device)
    weak.fail("meta", ERROR_WRITES)
    data = rng.randbytes(BLOCK)
    with fails(errno.EIO):
        device.write(512 * KIB, data, fua=True, model=False)
    got = device.read(512 * KIB, BLOCK)
    assert got in (data, IMAGE[512 * KIB:][:BLOCK])
    device.put(512 * KIB, got)
    weak.heal()
    weak.again()
    weak.ends_right()


@test("a COW device that fails its flush")
def _():
    weak = Weak()
    device = weak.device
    Server(layer)
    settle(device)
    device.write(512 * KIB, rng.randbytes(3 * BLOCK))
    weak.fail("cow", ERROR_WRITES)
    with fails(errno.EIO):
        device.flush()
    device.check()
    weak.heal()
    weak.again()
    assert device.mode() == "rw"
    device.flush()
    weak.ends_right()


@test("a COW device that fails reads, too: what is on it fails, no more")
def _():
    weak = Weak()
    device = weak.device
    Server(layer)
    settle(device)
    weak.fail("cow", ERROR_ALL)
    with fails(errno.EIO):
        device.read(0, BLOCK)
    with fails(errno.EIO):
        device.read(60 * KIB, 8 * KIB)
    device.check(64 * KIB, 512 * KIB)
    weak.heal()
    device.check()
    weak.again()
    assert device.mode() == "rw"
    weak.ends_right()


@test("a meta device that fails altogether while the device is made")
def _():
    weak = Weak()
    device = weak.device
    Server(layer)
    settle(device)
    device.release()
    device.remove()
    for name in ("meta", "cow"):
        weak.fail(name, ERROR_ALL)
        with fails(errno.EIO, errno.EINVAL):
            device.create()
        device.remove()
        weak.heal()
    device.create()
    device.check()
    weak.ends_right()


@test("a device that cannot begin to write shows what is there, and heals")
def _():
    for name in ("meta", "cow"):
        weak = Weak()
        device = weak.device
        server = Server(layer)
        settle(device)
        device.release()
        device.remove()
        weak.fail(name, ERROR_WRITES)
        device.create()
        assert device.mode() == "ro", device.mode()
        device.check()
        refuses_writes(device)
        weak.heal()
        weak.again()
        assert device.mode() == "rw", device.mode()
        settle(device)
        weak.ends_right()
        # and where it never heals before it is gone
        device.release()
        device.remove()
        weak.fail(name, ERROR_WRITES)
        device.create()
        device.check()
        device.release()
        device.remove()
        weak.heal()
        device.create()
        device.check()
        assert device.mode() == "rw"
        weak.ends_right()
        server.close()


@test("a suspend whose commit fails ends, and loses nothing while it lives")
def _():
    weak = Weak()
    device = weak.device
    Server(layer)
    settle(device)
    device.write(512 * KIB, rng.randbytes(3 * BLOCK))
    weak.fail("meta", ERROR_WRITES)
    Later(device.suspend).good()
    device.resume()
    assert device.mode() == "ro"
    device.check()
    device.load(device.table())
    device.resume()
    device.check()
    weak.heal()
    device.load(device.table())
    device.resume()
    assert device.mode() == "rw", device.mode()
    device.flush()
    weak.ends_right()


@test("what both devices drop from some time on: as a power cut at that time")
def _():
    for _ in range(3):
        weak = Weak()
        device = weak.device
        server = Server(layer)
        settle(device)
        kept = bytes(device.model)
        weak.fail("cow", DROP)
        weak.fail("meta", DROP)
        for _ in range(10):
            device.write(rng.randrange(SIZE // BLOCK) * BLOCK,
                         rng.randbytes(BLOCK), model=False)
        try:
            device.flush()
        except OSError:
            pass
        device.release()
        device.remove()
        weak.heal()
        same(weak.pair().show(IMAGE), kept)
        device.create()
        device.check()
        weak.ends_right()
        server.close()


@test("a meta device that spoils what is written is found out")
def _():
    refused = older = fine = 0
    for byte in (1, 9, 30, 100, 500, 2000, 4000, 4090):
        weak = Weak()
        device = weak.device
        server = Server(layer)
        settle(device)
        states = [bytes(device.model)]
        weak.fail("meta", f"0 60 5 corrupt_bio_byte {byte} w 165 0")
        for _ in range(2):
            device.write(512 * KIB + rng.randrange(20) * BLOCK,
                         rng.randbytes(BLOCK))
            try:
                device.flush()
            except OSError:
                pass
            states.append(bytes(device.model))
        device.release()
        device.remove()
        weak.heal()
        try:
            device.create()
        except OSError as e:
            assert e.errno in (errno.EINVAL, errno.EILSEQ, errno.EIO), e
            refused += 1
            device.remove()
        else:
            got = device.read(0, SIZE)
            if got == states[-1]:
                fine += 1
            else:
                # a COW device has no past: what was dirty before may be newer
                want = states[0]
                same(got[:512 * KIB], want[:512 * KIB])
                older += 1
            device.release()
            device.remove()
        server.close()
    say(f"{refused} refused, {older} an older state, {fine} unharmed")
    assert refused


@test("a meta device that reads wrongly is refused")
def _():
    weak = Weak()
    device = weak.device
    Server(layer)
    settle(device)
    device.release()
    device.remove()
    for byte in (40, 200, 4000):
        weak.fail("meta", f"0 60 5 corrupt_bio_byte {byte} r 165 0")
        try:
            device.create()
        except OSError as e:
            assert e.errno in (errno.EINVAL, errno.EILSEQ, errno.EIO), e
            device.remove()
        else:
            # that byte of no block matters
            device.check()
            device.release()
            device.remove()
        weak.heal()
    device.create()
    device.check()


@test("bad sectors below (dm-dust)")
def _():
    weak = Weak()
    device = weak.device
    Server(layer)
    settle(device)
    try:
        weak.on["cow"].turn("dust", f"{weak.below['cow'].name} 0 4096")
    except OSError:
        DM.call(DM.CLEAR, weak.on["cow"].name)
        raise Skip(f"kernel {os.uname().release} has no dm-dust")
    cow = weak.on["cow"]
    for n in (3, 5):
        cow.message(f"addbadblock {n}")
    cow.message("enable")
    for n in range(8):
        if n in (3, 5):
            with fails(errno.EIO):
                device.read(n * BLOCK, BLOCK)
        else:
            device.check(n * BLOCK, BLOCK)
    with fails(errno.EIO):
        device.read(0, 64 * KIB)
    # a write makes a bad sector a good one
    device.write(3 * BLOCK, rng.randbytes(BLOCK))
    device.check(3 * BLOCK, BLOCK)
    cow.message("disable")
    device.check()
    cow.turn("linear", f"{weak.below['cow'].name} 0")
    meta = weak.on["meta"]
    meta.turn("dust", f"{weak.below['meta'].name} 0 4096")
    device.release()
    device.remove()
    for n in range(weak.pair().super.start,
                   weak.pair().super.start + TREE.region_bytes // BLOCK):
        meta.message(f"addbadblock {n}")
    meta.message("enable")
    with fails(errno.EIO):
        device.create()
    device.remove()
    meta.message("disable")
    weak.heal()
    device.create()
    weak.ends_right()


# ---------------------------------------------------------------- no space

def full(device, grow):
    # One page each: Linux 6.12's loop device takes a short write for a whole.
    event = device.event()
    good = {}
    try:
        for at in range(0, SIZE, BLOCK):
            data = rng.randbytes(BLOCK)
            device.write(at, data, model=False)
            good[at] = data
    except OSError as e:
        assert e.errno in (errno.EIO, errno.ENOSPC), e
    assert good and len(good) < SIZE // BLOCK, "it never ran full"
    wait_until(lambda: device.mode() == "ro", "mode")
    wait_until(lambda: device.event() > event, "event")
    for at, data in good.items():
        device.put(at, data)
    failed = len(good) * BLOCK
    say(f"full after {failed // KIB} KiB")
    device.check(0, failed)
    device.check(failed + BLOCK, SIZE - failed - BLOCK)
    device.put(failed, device.read(failed, BLOCK))
    grow()
    device.suspend()
    device.resume()
    assert device.mode() == "rw", device.mode()
    device.write(failed, rng.randbytes(64 * KIB))
    device.flush()
    device.check()


@test("a sparse COW file on a file system that runs full")
def _():
    where = tempfile.mkdtemp()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "full", where],
                   check=True)
    undo(lambda: (subprocess.run(["umount", where], check=True),
                  os.rmdir(where)))
    path = f"{where}/cow"
    with open(path, "wb") as f:
        f.truncate(TREE.cow_bytes)
    cow = Loop(path)
    undo(cow.close)
    fd, meta_path = tempfile.mkstemp()
    os.ftruncate(fd, 1 * MIB)
    os.close(fd)
    undo(lambda: os.unlink(meta_path))
    below = Loop(meta_path)
    undo(below.close)
    device = Device([layer], EXTENTS, SIZE, on=(below.name, cow.name))
    Server(layer)
    full(device, lambda: subprocess.run(
        ["mount", "-o", "remount,size=16M", where], check=True))
    device.release()
    device.remove()
    same(overlay.pair(meta_path, path).show(IMAGE), device.model)
    device.create()
    device.check()


@test("a thin volume whose pool runs full")
def _():
    def file_of(size):
        fd, path = tempfile.mkstemp()
        os.ftruncate(fd, size)
        os.close(fd)
        undo(lambda: os.unlink(path))
        loop = Loop(path)
        undo(loop.close)
        return loop

    data, pool_meta, below = (file_of(n * MIB) for n in (1, 4, 1))
    try:
        pool = Mapped("thin-pool", 1 * MIB, f"{pool_meta.name} {data.name} "
                      "128 0 1 error_if_no_space")
    except OSError:
        raise Skip(f"kernel {os.uname().release} has no dm-thin")
    pool.message("create_thin 0")
    thin = Mapped("thin", 4 * MIB, f"{pool.node} 0")
    device = Device([layer], EXTENTS, SIZE, on=(below.name, thin.node))
    Server(layer)

    def grow():
        os.truncate(data.path, 8 * MIB)
        data.resize()
        pool.size = 8 * MIB
        pool.turn("thin-pool", f"{pool_meta.name} {data.name} 128 0 1 "
                  "error_if_no_space")

    full(device, grow)


# ---------------------------------------------------------------- damage

class Shelf:
    """Copies of a pair that was left in order."""

    def __init__(self):
        self.device = Device([layer], EXTENTS, SIZE, cow=True)
        self.log = KernelLog()
        undo(self.log.close)
        Server(layer)
        settle(self.device)
        self.device.release()
        self.device.remove()
        self.keep()

    def keep(self):
        """Its state now is the one to go back to."""
        self.blobs = [open(p, "rb").read()
                      for p in (self.device.path, self.device.cow_path)]

    def put(self, meta=None, cow=None):
        for path, loop, blob in (
                (self.device.path, self.device.loop, meta or self.blobs[0]),
                (self.device.cow_path, self.device.cow_loop,
                 cow or self.blobs[1])):
            with open(path, "r+b") as f:
                f.write(blob)
                f.truncate(len(blob))
            loop.resize()
            fd = os.open(loop.name, os.O_RDONLY)
            fcntl.ioctl(fd, 0x1261)			# BLKFLSBUF
            os.close(fd)

    def refused(self, words, meta=None, cow=None, errnos=()):
        self.put(meta, cow)
        self.log.read()
        for line in ("", "read_only"):
            self.device.args = self.device.line(line)
            try:
                with fails(errno.EINVAL, errno.EILSEQ, *errnos):
                    self.device.create()
            except AssertionError:
                raise AssertionError(f"taken: {words}")
            finally:
                self.device.remove()
            text = self.log.read()
            assert re.search(words, text, re.I), f"{words}: {text}"
        self.device.args = self.device.line()

    def taken(self, meta=None, cow=None):
        self.put(meta, cow)
        self.device.create()
        self.device.check()
        self.device.release()
        self.device.remove()
        self.device.check_pair()


def patched(blob, *places, value=None):
    out = bytearray(blob)
    for at in places:
        out[at] = out[at] ^ 0x5a if value is None else value
    return bytes(out)


@test("a damaged root, index, leaf or identity is refused by name", 60)
def _():
    shelf = Shelf()
    meta, cow = shelf.blobs
    pair = shelf.device.pair()
    start = pair.super.start * BLOCK
    newest = pair.root.sequence % 2 * 2
    # one copy of the root: the other serves
    for copy in (0, 1):
        shelf.taken(patched(meta, start + (newest + copy) * BLOCK + 100))
        shelf.device.model = bytearray(shelf.device.pair().show(IMAGE))
    shelf.refused("root", patched(meta, *(start + n * BLOCK + 100
                                          for n in range(4))))
    shelf.refused("root", meta[:start] + bytes(4 * BLOCK) +
                  meta[start + 4 * BLOCK:])
    index = TREE.index_place(0, pair.root.slots & 1)
    for at in (0, 4032, 4095):
        shelf.refused("index", patched(meta, start + index * BLOCK + at))
    slots = int.from_bytes(pair.read(index)[4032:], "little")
    leaf = TREE.leaf_place(0, slots & 1)
    for at in (0, 2048, 4095):
        shelf.refused("leaf", patched(meta, start + leaf * BLOCK + at))
    # the other slot of either does not matter
    other = TREE.leaf_place(0, ~slots & 1)
    shelf.taken(patched(meta, start + other * BLOCK + 5))
    end = TREE.blocks * BLOCK
    now = pair.identity.epoch % 2
    shelf.put()
    # the last identity is lost: what is left is of an epoch before
    shelf.refused("COW device", cow=patched(cow, end + now * BLOCK + 60))
    shelf.refused("COW device.*checksum|identity", cow=patched(
        cow, end + 60, end + BLOCK + 60))
    shelf.refused("belongs to no overlay",
                  cow=cow[:end] + bytes(2 * BLOCK))
    shelf.taken(cow=patched(cow, end + (now ^ 1) * BLOCK + 60))


@test("impossible values with right checksums are refused", 60)
def _():
    shelf = Shelf()
    meta, cow = shelf.blobs
    pair = shelf.device.pair()
    start = pair.super.start * BLOCK

    def rebuilt(**kw):
        """The same root twice in its slot, with other values."""
        root = pair.root
        args = dict(uuid=root.uuid, sequence=root.sequence, epoch=root.epoch,
                    flags=root.flags, dirty=root.dirty, zero=root.zero,
                    sums=root.sums, slots=root.slots)
        args.update(kw)
        args["sums"] = list(args["sums"])
        copy = overlay.root(kw.get("tree", TREE), **{
            k: v for k, v in args.items() if k != "tree"})
        out = bytearray(meta)
        for n in range(4):
            at = start + n * BLOCK
            out[at:at + BLOCK] = copy if n // 2 == args["sequence"] % 2 \
                else bytes(BLOCK)
        return bytes(out)

    shelf.taken(rebuilt())
    shelf.refused("version", rebuilt(version=2))
    shelf.refused("flags", rebuilt(flags=8))
    shelf.refused("size|blocks|belong", rebuilt(
        tree=overlay.Tree(SIZE + BLOCK)))
    shelf.refused("more blocks", rebuilt(dirty=TREE.blocks + 1))
    shelf.refused("indexes", rebuilt(sums=[*pair.root.sums[:1], 7] +
                                     [0] * 446))
    shelf.refused("older copy", rebuilt(epoch=pair.root.epoch + 1))
    shelf.refused("older copy", rebuilt(epoch=pair.root.epoch - 1))
    shelf.refused("older copy", rebuilt(
        epoch=pair.root.epoch + 2, flags=overlay.ACTIVATING))
    shelf.refused("another overlay", rebuilt(uuid=os.urandom(16)))
    # interrupted while it was being activated: both ways are fine
    shelf.taken(rebuilt(epoch=pair.root.epoch + 1, flags=overlay.ACTIVATING))
    shelf.taken(rebuilt(flags=overlay.ACTIVATING))


@test("counts in the root that are not the leaves' do not pass for true")
def _():
    shelf = Shelf()
    meta, cow = shelf.blobs
    pair = shelf.device.pair()
    start = pair.super.start * BLOCK
    root = overlay.root(TREE, pair.root.uuid, pair.root.sequence,
                        pair.root.epoch, 0, 1, 1, list(pair.root.sums),
                        pair.root.slots)
    out = bytearray(meta)
    at = start + pair.root.sequence % 2 * 2 * BLOCK
    out[at:at + 2 * BLOCK] = root * 2
    shelf.put(bytes(out))
    try:
        shelf.device.create()
    except OSError as e:
        assert e.errno in (errno.EINVAL, errno.EILSEQ)
        shelf.device.remove()
        return
    s = shelf.device.stats()
    assert s["dirty_blocks"] == 17 and s["zero_blocks"] == 16, s
    shelf.device.check()
    shelf.device.write(512 * KIB, rng.randbytes(BLOCK))
    shelf.device.release()
    shelf.device.remove()
    shelf.device.check_pair()


@test("another overlay's devices, older ones, shorter ones are refused", 60)
def _():
    shelf, other = Shelf(), None
    meta, cow = shelf.blobs
    device = shelf.device
    second = Device([layer], EXTENTS, SIZE, cow=True)
    second.write(0, rng.randbytes(BLOCK))
    second.release()
    second.remove()
    meta2, cow2 = (open(p, "rb").read() for p in (second.path,
                                                  second.cow_path))
    shelf.refused("another overlay", cow=cow2)
    shelf.refused("another overlay", meta=meta2)
    # activated once more, and written: now one or the other goes back
    shelf.put()
    device.create()
    device.write(512 * KIB, rng.randbytes(BLOCK))
    device.release()
    device.remove()
    shelf.keep()
    shelf.refused("COW device is an older copy", cow=cow)
    shelf.refused("meta device is an older copy", meta=meta)
    # both go back: that is an older state, and fine
    shelf.put(meta, cow)
    pair = device.pair()
    model, device.model = device.model, bytearray(pair.show(IMAGE))
    shelf.taken(meta, cow)
    device.model = model
    meta, cow = shelf.blobs
    shelf.refused("too small|cut short", cow=cow[:-BLOCK])
    shelf.refused("too small|cut short", cow=cow[:len(cow) // 2])
    shelf.refused("smaller than when it was written", meta=meta[:-BLOCK])
    shelf.taken(cow=cow + bytes(1 * MIB))
    shelf.put()
    # foreign
    shelf.refused("belongs to no overlay", cow=rng.randbytes(len(cow)))
    shelf.refused("not a lazyframe meta device", meta=rng.randbytes(len(meta)))
    bare = write_meta([layer], EXTENTS, SIZE)
    blob = open(bare, "rb").read()
    os.unlink(bare)
    shelf.refused("no overlay", meta=blob.ljust(len(meta), b"\0"))
    shelf.taken()


@test("one device in both places, and a device of another pair, are refused")
def _():
    one, two = (Device([layer], EXTENTS, SIZE, cow=True) for _ in range(2))
    one.write(0, rng.randbytes(BLOCK))
    loops = one.loop, one.cow_loop, two.cow_loop
    for args in (f"{loops[0].name} - {loops[0].name}",
                 f"{loops[1].name} - {loops[1].name}",
                 f"{loops[0].name} - {loops[2].name}"):
        with fails(errno.EINVAL, errno.EBUSY, errno.EILSEQ):
            one.load(args)
    one.check(0, BLOCK)
    assert one.mode() == "rw"
    Server(layer)


# ---------------------------------------------------------------- a storm

@test("writers while errors come and go: acknowledged is kept", 150)
def _():
    rounds = scale(int(os.environ.get("FAULT_ROUNDS", "12")), 3)
    weak = Weak()
    device = weak.device
    Server(layer)
    settle(device)
    device.fd(True, True)
    allowed = {s: {bytes(device.model[s:s + 512])}
               for s in range(0, SIZE, 512)}
    counts = {"good": 0, "bad": 0}

    def writer(i):
        mine = random.Random(SEED + i * 1000 + counts["good"])
        lo = i * SIZE // 6 // BLOCK * BLOCK
        hi = lo + SIZE // 6 // BLOCK * BLOCK
        for _ in range(15):
            unit = mine.choice((512, BLOCK))
            n = unit * mine.randrange(1, 5)
            at = lo + mine.randrange((hi - lo - n) // unit) * unit
            zero = mine.random() < 0.2
            data = bytes(n) if zero else mine.randbytes(n)
            pieces = [(at + k, data[k:k + 512]) for k in range(0, n, 512)]
            for s, piece in pieces:
                allowed[s].add(piece)
            try:
                if zero:
                    device.zeroes(at, n, model=False)
                else:
                    device.write(at, data, model=False)
                for s, piece in pieces:
                    allowed[s] = {piece}
                counts["good"] += 1
            except OSError as e:
                assert e.errno in (errno.EIO, errno.ENOSPC), e
                counts["bad"] += 1
            if mine.random() < 0.1:
                try:
                    device.flush()
                except OSError:
                    pass

    def agrees(got):
        for s in range(0, SIZE, 512):
            assert got[s:s + 512] in allowed[s], f"byte {s}"

    for i in range(rounds):
        calls = [Later(writer, k) for k in range(6)]
        time.sleep(rng.random() * 0.2)
        which = rng.choice((("meta",), ("cow",), ("meta", "cow")))
        for name in which:
            weak.fail(name, ERROR_WRITES)
        time.sleep(rng.random() * 0.3)
        if rng.random() < 0.5:
            weak.again()
        for call in calls:
            call.good(30)
        agrees(device.read(0, SIZE))
        weak.heal()
        weak.again()
        assert device.mode() == "rw", device.mode()
        device.flush()
        got = device.read(0, SIZE)
        agrees(got)
        # what it shows now is what it has committed
        same(weak.pair().show(IMAGE), got)
        for s in range(0, SIZE, 512):
            allowed[s] = {got[s:s + 512]}
    say(counts)
    assert counts["good"] and counts["bad"]
    device.put(0, device.read(0, SIZE))
    weak.ends_right()


finish()
EOF2
finish

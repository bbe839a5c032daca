#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Writes: what was written is read, the rest is the image's; in whole blocks,
# in sectors, by many at once, over suspends and reloads; and the pair of
# devices on disk says the same.
#
#   OVERLAY_SECONDS  of the torture at the end (8)
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'EOF2'
from rig import *

SEED = int(os.environ.get("OVERLAY_SEED", "0")) or random.randrange(1 << 32)
rng = random.Random(SEED)
say(f"OVERLAY_SEED={SEED}")
FRAME = 64 * KIB
SIZE = 2 * MIB + 1234
layer = layer_of(noise(1 * MIB, rng), ZSTD, FRAME)
layers = {layer.uuid: layer}
# content, a hole, content, a hole up to the end
EXTENTS = [(0, 512 * KIB, 0, 0), (1 * MIB, 512 * KIB, 0, 512 * KIB)]
GONE = (errno.EIO, errno.ENOLINK, errno.ETIMEDOUT)


def new(**kw):
    return Device([layer], EXTENTS, SIZE, cow=True, **kw)


def ends_right(device):
    """Its counters add up, it can go, and what it leaves behind is right."""
    device.check()
    device.release()
    device.adds_up()
    device.remove()
    pair = device.check_pair()
    assert not pair.root.flags
    return pair


def again(device):
    device.create()
    device.check()
    device.check(direct=False)


@test("whole blocks need no helper, and are there at once")
def _():
    # of whole blocks: else the page cache writes in sectors
    size = 2 * MIB
    device = Device([layer], EXTENTS, size, cow=True)
    want = []
    for _ in range(scale(60, 20)):
        n = rng.randrange(1, 12)
        block = rng.randrange(0, size // BLOCK - n)
        data = rng.randbytes(n * BLOCK)
        device.write(block * BLOCK, data, direct=rng.random() < 0.7)
        want.append((block * BLOCK, len(data)))
    device.flush()
    for offset, length in want:
        device.check(offset, length)
    s = device.stats()
    assert not s["waiting"] and not s["copy_ups"] and not s["reads_fetched"]
    assert s["reads_overlay"] and s["writes"], s
    blocks = {n for o, l in want for n in range(o // BLOCK, (o + l) // BLOCK)}
    assert s["dirty_blocks"] == len(blocks), s
    assert s["write_bytes"] >= len(blocks) * BLOCK
    Server(layer)
    pair = ends_right(device)
    assert pair.dirty_blocks() == blocks and not pair.zero_blocks()
    again(device)


@test("sectors: the rest of the block is what it was")
def _():
    device = new()
    Server(layer)
    for _ in range(scale(120, 30)):
        offset = rng.randrange(SIZE // 512) * 512
        length = 512 * rng.choice((1, 1, 2, 7, 8, 9, 15, 16, 40))
        length = min(length, sectors(SIZE) * 512 - offset)
        device.write(offset, rng.randbytes(length))
        device.check(max(0, offset - 8192) // 512 * 512,
                     min(24576, sectors(SIZE) * 512 - max(0, offset - 8192)))
    assert device.stat("copy_ups")
    ends_right(device)
    again(device)


@test("each sector of a block alone, over content and over a hole")
def _():
    device = new()
    Server(layer)
    for base in (8 * BLOCK, 700 * KIB, 512 * KIB - BLOCK, 512 * KIB):
        for i in range(8):
            device.write(base + 512 * i, rng.randbytes(512))
            device.check(base - BLOCK, 3 * BLOCK)
    ends_right(device)


@test("sectors over a hole, over zeros and over own data need no helper")
def _():
    device = new()
    device.write(600 * KIB + 512, rng.randbytes(1024))
    device.check(600 * KIB, 2 * BLOCK)
    device.write(0, rng.randbytes(BLOCK))
    device.write(512, rng.randbytes(512))
    device.check(0, BLOCK)
    device.zeroes(BLOCK, BLOCK)
    device.write(BLOCK + 2048, rng.randbytes(512))
    device.check(0, 2 * BLOCK)
    assert not device.stat("waiting")
    Server(layer)
    ends_right(device)


@test("one read of overlay, zeros, image and hole")
def _():
    device = new()
    server = Server(layer)
    for base in (0, 448 * KIB, 1 * MIB):
        for n in range(0, 32):
            at = base + n * BLOCK
            kind = rng.randrange(4)
            if kind == 0:
                device.write(at, rng.randbytes(BLOCK))
            elif kind == 1:
                device.zeroes(at, BLOCK)
            elif kind == 2:
                device.write(at + 512 * rng.randrange(8), rng.randbytes(512))
    for base in (0, 448 * KIB, 1 * MIB):
        device.check(base, 128 * KIB)
        device.check(base + 512, 127 * KIB)
        device.forget_pages()
        device.check(base, 128 * KIB, direct=False)
    s = device.adds_up()
    assert s["reads_overlay"] and s["reads_zero"] and \
        s["reads_memory"] + s["reads_fetched"], s
    ends_right(device)
    again(device)


@test("write-zeroes and discards, ragged and not")
def _():
    device = new()
    Server(layer)
    end = sectors(SIZE) * 512
    device.write(0, rng.randbytes(256 * KIB))
    for _ in range(scale(80, 20)):
        offset = rng.randrange(end // 512) * 512
        length = min(512 * rng.choice((1, 3, 8, 9, 16, 100, 500)), end - offset)
        if rng.random() < 0.3:
            offset &= ~4095
        rng.choice((device.zeroes, device.discard, device.punch))(
            offset, length)
        if rng.random() < 0.3:
            device.write(rng.randrange(end // 512) * 512, rng.randbytes(512))
        if rng.random() < 0.1:
            device.flush()
        start = max(0, offset - 8192)
        device.check(start, min(length + 20480, end - start))
    assert device.stat("zeroings") and device.stat("zero_blocks")
    ends_right(device)
    again(device)


@test("whole blocks of zeros need neither helper nor space, and free it")
def _():
    device = new()
    for i in range(0, 1536, 64):
        device.write(i * KIB, rng.randbytes(64 * KIB))
    device.flush()
    full = os.stat(device.cow_path).st_blocks
    device.discard(0, 1 * MIB)
    device.flush()
    # the module may give space back behind the commit
    wait_until(lambda: os.stat(device.cow_path).st_blocks < full - 1500,
               "space on the COW device")
    device.zeroes(1 * MIB, 256 * KIB)
    device.flush()
    device.check(0, 1280 * KIB)
    assert device.stat("zero_blocks") == 320
    assert device.stat("dirty_blocks") == 64
    assert not device.stat("waiting")
    device.write(0, rng.randbytes(128 * KIB))
    device.check(0, 1 * MIB)
    Server(layer)
    ends_right(device)


@test("discard of all, and everything written again")
def _():
    device = new()
    device.discard(0, sectors(SIZE) * 512)
    device.check()
    assert device.stat("zero_blocks") == -(-SIZE // BLOCK)
    for at in range(0, 512 * KIB, 32 * KIB):
        device.write(at, rng.randbytes(32 * KIB))
    device.discard(0, sectors(SIZE) * 512)
    for at in range(0, 256 * KIB, 32 * KIB):
        device.write(at, rng.randbytes(32 * KIB))
    pair = ends_right(device)
    assert len(pair.dirty_blocks()) == 64
    again(device)


@test("images whose last block is none")
def _():
    for size in (1, 511, 512, 513, 4095, 4096, 4097, 8191, 65536 + 1,
                 131072 + 511):
        part = layer_of(layer.content[:size], rng.choice((NONE, ZSTD, LZ4)),
                        4096)
        device = Device([part], keep=True, cow=True)
        server = Server(part)
        end = sectors(size) * 512
        try:
            for step in range(4):
                if step == 1:
                    device.write(end - 512, rng.randbytes(512))
                elif step == 2:
                    device.zeroes((size - 1) // BLOCK * BLOCK,
                                  end - (size - 1) // BLOCK * BLOCK)
                elif step == 3:
                    device.write(0, rng.randbytes(end))
                device.check()
                device.forget_pages()
                device.check(direct=False)
                assert not device.read(end, 512)
                device.release()
                device.remove()
                device.check_pair()
                device.create()
            device.check()
        finally:
            server.close()
            device.close()


@test("a flush with nothing to commit commits nothing; one with, one")
def _():
    device = new()
    device.flush()
    before = device.stat("commits")
    for _ in range(5):
        device.flush()
    assert device.stat("commits") == before
    device.write(0, rng.randbytes(BLOCK))
    device.flush()
    assert device.stat("commits") in (before + 1, before + 2)
    before = device.stat("commits")
    device.write(0, rng.randbytes(BLOCK))	# dirty already
    device.flush()
    assert device.stat("commits") == before


@test("a commit by flush, by FUA, by message, by suspend, by time")
def _():
    device = new()
    blocks = iter(range(0, 400, 7))

    def there(n):
        device.pair().load()
        return n in device.pair().dirty_blocks()

    for name, commit in (
            ("flush", device.flush), ("message",
             lambda: device.message("commit")),
            ("suspend", lambda: (device.suspend(), device.resume())),
            ("time", lambda: wait_until(lambda: there(n), "commit", 5))):
        n = next(blocks)
        device.write(n * BLOCK, rng.randbytes(BLOCK))
        commit()
        assert there(n), name
        device.check(n * BLOCK, BLOCK)
    n = next(blocks)
    device.write(n * BLOCK, rng.randbytes(BLOCK), fua=True)
    assert there(n), "FUA"
    n = next(blocks)
    device.zeroes(n * BLOCK, BLOCK)
    device.flush()
    assert n in device.pair().zero_blocks()
    Server(layer)
    ends_right(device)


@test("many flushes at once share commits")
def _():
    device = new()
    device.fd(True, True)
    before = device.stat("commits")
    rounds, each = 16, scale(20, 4)

    def writer(i):
        for j in range(each):
            device.write((i * each + j) * BLOCK, bytes([i + 1]) * BLOCK)
            device.flush()

    calls = [Later(writer, i) for i in range(rounds)]
    for call in calls:
        call.good(30)
    commits = device.stat("commits") - before
    say(f"{rounds * each} flushes, {commits} commits")
    assert 0 < commits < rounds * each
    Server(layer)
    ends_right(device)


# ---------------------------------------------------------------- races

def held(device, offset, data):
    """A write that waits for its frame, and the request."""
    hand = Hand()
    device.fd(True, True)
    write = Later(device.write, offset, data, model=False)
    request = hand.next()
    time.sleep(0.05)
    assert not write.done()
    return hand, write, request


def sectors_are(device, offset, choices):
    """Each sector of a block is one of its @choices (a function)."""
    got = device.read(offset, BLOCK)
    for i in range(0, BLOCK, 512):
        assert got[i:i + 512] in choices(i), f"sector at {i}"
    device.put(offset, got)


IMAGE = flat([layer], EXTENTS, SIZE)


@test("a write of the whole block while its copy-up waits for the frame")
def _():
    for pause in (0, 0.3):
        device = new()
        part, whole = rng.randbytes(1024), rng.randbytes(BLOCK)
        hand, write, request = held(device, 512, part)
        other = Later(device.write, 0, whole, model=False)
        time.sleep(pause)
        hand.answer(request, layers)
        write.good()
        other.good()
        sectors_are(device, 0, lambda i: (whole[i:i + 512],) if not
                    512 <= i < 1536 else (whole[i:i + 512],
                                          part[i - 512:i]))
        hand.close()
        server = Server(layer)
        ends_right(device)
        server.close()


@test("a sector and the whole block, one after the other: no frame is needed")
def _():
    device = new()
    hand = Hand()
    whole, part = rng.randbytes(BLOCK), rng.randbytes(512)
    device.write(0, whole)
    device.write(1024, part)
    device.check(0, BLOCK)
    hand.none(0.1)


@test("two sectors of one block while the frame is on its way")
def _():
    device = new()
    a, b, c = (rng.randbytes(512) for _ in range(3))
    hand, write, request = held(device, 0, a)
    others = [Later(device.write, 1024, b, model=False),
              Later(device.write, 4096 - 512, c, model=False),
              Later(device.write, BLOCK + 512, b, model=False)]
    reader = Later(device.read, 0, BLOCK)
    time.sleep(0.1)
    hand.answer(request, layers)
    for call in [write, reader] + others:
        call.good()
    hand.none(0.1)
    for offset, data in ((0, a), (1024, b), (4096 - 512, c), (BLOCK + 512, b)):
        device.put(offset, data)
    device.check(0, 4 * BLOCK)
    hand.close()
    Server(layer)
    ends_right(device)


@test("zeroing while a copy-up waits: the image does not come back")
def _():
    for kind in ("zeroes", "discard"):
        for pause in (0, 0.3):
            device = new()
            part = rng.randbytes(512)
            hand, write, request = held(device, 2048, part)
            other = Later(getattr(device, kind), 0, BLOCK, model=False)
            time.sleep(pause)
            hand.answer(request, layers)
            write.good()
            other.good()
            sectors_are(device, 0, lambda i: (bytes(512), part) if i == 2048
                        else (bytes(512),))
            hand.close()
            server = Server(layer)
            ends_right(device)
            server.close()


@test("a partial write that waits, and a discard of all")
def _():
    device = new()
    part = rng.randbytes(512)
    hand, write, request = held(device, 2048, part)
    other = Later(device.discard, 0, sectors(SIZE) * 512, model=False)
    time.sleep(0.2)
    hand.answer(request, layers)
    write.good()
    other.good()
    device.put(0, bytes(sectors(SIZE) * 512))
    sectors_are(device, 0, lambda i: (bytes(512), part) if i == 2048
                else (bytes(512),))
    hand.close()
    ends_right(device)


@test("a copy-up that fails: the write fails, the block stays the image's")
def _():
    device = new()
    hand, write, request = held(device, 512, rng.randbytes(512))
    hand.fill(request, status=errno.EIO)
    write.bad(*GONE)
    write = Later(device.write, 512, rng.randbytes(512), model=False)
    request = hand.next()
    hand.close()
    device.message("error_if_no_helper")
    write.bad(*GONE)
    # what waits behind it is not stuck
    device.write(0, rng.randbytes(BLOCK))
    device.check(0, BLOCK)
    assert device.mode() == "rw"
    device.message("queue_if_no_helper")
    Server(layer)
    ends_right(device)


@test("many writers of the sectors of one block: each keeps one of its values")
def _():
    device = new()
    device.fd(True, True)
    for block in (3, 300):
        wrote = {i: [IMAGE[block * BLOCK + i * 512:][:512]] for i in range(8)}
        hand = Hand()
        calls = []
        for i in range(24):
            first = rng.randrange(8)
            n = rng.randrange(1, 9 - first)
            data = bytes([rng.randrange(1, 256)]) * 512 * n
            for s in range(first, first + n):
                wrote[s].append(data[:512])
            calls.append(Later(device.write, block * BLOCK + first * 512, data,
                               model=False))
            if i == 12:
                for r in hand.requests(0.2):
                    hand.answer(r, layers)
        wait_until(lambda: [hand.answer(r, layers)
                            for r in hand.requests(0.01)] is not None and
                   all(c.done() for c in calls), "end of writes")
        for call in calls:
            call.good()
        sectors_are(device, block * BLOCK, lambda i: wrote[i // 512][1:] or
                    wrote[i // 512])
        hand.close()
    Server(layer)
    ends_right(device)


# ---------------------------------------------------------------- suspending

@test("noflush suspend while a partial write waits; then it goes on")
def _():
    device = new()
    part = rng.randbytes(512)
    hand, write, request = held(device, 512, part)
    Later(device.suspend, True).good()
    assert not write.done()
    device.resume()
    hand.answer(request, layers)
    write.good()
    device.put(512, part)
    device.check(0, BLOCK)
    hand.close()
    Server(layer)
    ends_right(device)


@test("reload while a partial write waits")
def _():
    device = new()
    part = rng.randbytes(512)
    hand, write, request = held(device, 512, part)
    device.write(64 * KIB, rng.randbytes(BLOCK))
    table = device.table()
    device.load(table)
    Later(device.resume, DM.NOFLUSH).good()
    assert device.table() == table and device.mode() == "rw"
    hand.answer(request, layers)
    write.good()
    device.put(512, part)
    device.check(0, FRAME)
    device.check(FRAME, BLOCK)
    hand.close()
    Server(layer)
    ends_right(device)


@test("flush suspend without a helper: the partial write fails, it ends")
def _():
    device = new()
    device.fd(True, True)
    write = Later(device.write, 512, rng.randbytes(512), model=False)
    time.sleep(0.2)
    assert not write.done()
    Later(device.suspend).good()
    write.bad(*GONE)
    device.resume()
    assert device.mode() == "rw"
    Server(layer)
    ends_right(device)


@test("remove --force while partial writes wait")
def _():
    device = new()
    device.write(0, rng.randbytes(BLOCK))
    device.fd(True, True)
    writes = [Later(device.write, (4 + 20 * i) * BLOCK + 512, rng.randbytes(512),
                    model=False) for i in range(4)]
    time.sleep(0.2)
    got = subprocess.run(["dmsetup", "remove", "--force", device.name],
                         capture_output=True, text=True, timeout=patience(30))
    for write in writes:
        write.bad()
    device.release()
    if DM.call(DM.LIST, "") and got.returncode:
        wait_until(lambda: not subprocess.run(
            ["dmsetup", "remove", device.name], capture_output=True).returncode,
            "removal")
    device.alive = False
    device.check_pair()


@test("reloads of the same line under writers", 60)
def _():
    device = new()
    Server(layer)
    device.fd(True, True)
    stop, count = [], [0]

    def writer(i):
        mine = random.Random(i)
        base = i * 256 * KIB
        while not stop:
            offset = base + 512 * mine.randrange(400)
            device.write(offset, mine.randbytes(512 * mine.randrange(1, 30)))
            device.check(base, 128 * KIB)
            count[0] += 1

    calls = [Later(writer, i) for i in range(6)]
    for i in range(scale(20, 5)):
        table = device.table()
        device.load(table)
        Later(device.resume, DM.NOFLUSH if i % 2 else 0).good()
        assert device.table() == table and device.mode() == "rw"
        time.sleep(0.02)
    stop.append(1)
    for call in calls:
        call.good()
    say(f"{count[0]} writes")
    ends_right(device)
    again(device)


# ---------------------------------------------------------------- what it says

@test("status, table and sysfs")
def _():
    device = new()
    device.write(0, rng.randbytes(2 * BLOCK))
    device.zeroes(8 * BLOCK, 3 * BLOCK)
    device.check(0, 2 * BLOCK)
    device.flush()
    s = device.stats()
    mode, dirty, zero, writes, copy_ups, commits, overlay_reads = \
        device.info()[13:20]
    assert (mode, dirty, zero) == ("rw", "2", "3"), device.info()
    assert int(writes) == s["writes"] and int(copy_ups) == s["copy_ups"]
    assert int(overlay_reads) == s["reads_overlay"]
    assert int(commits) <= s["commits"]
    assert device.mode() == "rw"
    assert device.table().split()[:3] == [
        f"{7}:{os.path.basename(device.loop.name)[4:]}", "-",
        f"{7}:{os.path.basename(device.cow_loop.name)[4:]}"], device.table()
    bare = Device([layer], EXTENTS, SIZE)
    assert bare.info()[13:20] == ["-"] + ["0"] * 6, bare.info()
    assert len(bare.info()) == len(device.info())


@test("without its COW device: the image, read-only")
def _():
    device = new()
    device.write(0, rng.randbytes(BLOCK))
    device.release()
    device.remove()
    Server(layer)
    kept = device.args, device.model
    device.args = f"{device.loop.name} - -"
    device.writable, device.model = False, IMAGE
    device.create()
    device.check()
    with fails(errno.EACCES, errno.EPERM, errno.EROFS):
        device.write(0, bytes(BLOCK), model=False)
    device.release()
    device.remove()
    device.args, device.model = kept
    device.writable = True
    again(device)


@test("read_only: the overlay is shown, nothing is written to either device")
def _():
    device = new()
    device.write(0, rng.randbytes(3 * BLOCK))
    device.zeroes(5 * BLOCK, BLOCK)
    device.release()
    device.remove()

    def digest():
        return [overlay.xxh64(open(p, "rb").read())
                for p in (device.path, device.cow_path)]
    before = digest()
    args, device.args = device.args, device.line("read_only")
    Server(layer)
    device.create()
    device.check()
    assert device.mode() == "ro", device.mode()
    with fails(errno.EACCES, errno.EPERM, errno.EROFS):
        device.write(0, bytes(BLOCK), model=False)
    device.release()
    device.remove()
    assert digest() == before
    device.args = args
    again(device)


@test("a read-only table is as good as the feature")
def _():
    device = new()
    device.write(0, rng.randbytes(3 * BLOCK))
    device.release()
    device.remove()
    device.writable = False
    device.create()
    assert device.mode() == "ro", device.mode()
    device.check(0, 3 * BLOCK)
    with fails(errno.EACCES, errno.EPERM, errno.EROFS):
        device.write(0, bytes(BLOCK), model=False)
    device.release()
    device.remove()
    device.writable = True
    device.create()
    device.check(0, 3 * BLOCK)
    assert device.mode() == "rw"


@test("a pair is active in one device only; tables may overlap")
def _():
    device = new()
    device.write(0, rng.randbytes(BLOCK))
    device.flush()
    other = f"x{device.name}"
    number = DM.call(DM.CREATE, other)["dev"]
    undo(lambda: DM.call(DM.REMOVE, other))
    DM.load(other, sectors(SIZE), device.args, 0)	# the table is fine
    try:
        DM.call(DM.SUSPEND, other)
    except OSError:
        pass
    else:
        status = DM.status(other).split()
        assert status[13] == "fail", status
        fd = os.open(f"/dev/dm-{number & 0xff | number >> 12 & 0xfff00}",
                     os.O_RDWR)
        try:
            with fails(errno.EIO):
                os.pread(fd, 4096, 0)
            with fails(errno.EIO):
                os.pwrite(fd, bytes(4096), 0)
                os.fsync(fd)
        finally:
            os.close(fd)
    device.write(BLOCK, rng.randbytes(BLOCK))
    device.check(0, 2 * BLOCK)
    assert device.mode() == "rw"
    Server(layer)
    ends_right(device)


# ---------------------------------------------------------------- seal, origin

@test("sealed: never written again, and another overlay stands on it", 60)
def _():
    below = new()
    Server(layer)
    below.write(0, rng.randbytes(3 * BLOCK))
    below.write(9 * BLOCK + 512, rng.randbytes(512))
    below.zeroes(5 * BLOCK, 2 * BLOCK)
    below.message("seal")
    below.suspend()
    below.resume()
    below.release()
    below.remove()
    pair = below.check_pair()
    assert pair.root.flags & overlay.SEALED
    # only read_only
    with fails(errno.EINVAL, errno.EROFS, errno.EPERM, errno.EACCES):
        below.create()
    below.remove()
    below.args = below.line("read_only")
    below.create()
    below.check()
    above = Device([layer], EXTENTS, SIZE, cow=True, origin=below.node,
                   origin_uuid=below.uuid)
    above.model = bytearray(below.model)
    above.check()
    above.write(3 * 512, rng.randbytes(512))	# over a dirty block
    above.write(5 * BLOCK + 512, rng.randbytes(512))	# over a zero one
    above.write(20 * BLOCK + 512, rng.randbytes(512))	# over the image's
    above.write(700 * KIB + 512, rng.randbytes(512))	# over a hole
    above.zeroes(BLOCK, BLOCK)
    above.check()
    above.check(direct=False)
    below.check()
    assert "origin" in above.table(), above.table()
    table = above.table()
    above.load(table)
    above.resume()
    assert above.table() == table
    above.check()
    above.adds_up()
    above.release()
    above.remove()
    same(above.pair().show(bytes(below.model)), above.model)
    above.create()
    above.check()
    above.close()


@test("unseal takes it back")
def _():
    device = new()
    device.write(0, rng.randbytes(BLOCK))
    device.message("seal")
    device.message("unseal")
    device.suspend()
    device.resume()
    device.write(BLOCK, rng.randbytes(BLOCK))
    device.flush()
    device.message("seal")
    device.suspend()
    assert device.pair().root.flags & overlay.SEALED
    device.message("unseal")
    device.resume()
    assert device.mode() == "rw"
    device.write(2 * BLOCK, rng.randbytes(BLOCK))
    device.flush()
    Server(layer)
    ends_right(device)


@test("an origin where none belongs, none where one does, another one")
def _():
    below = new()
    below.message("seal")
    below.suspend()
    below.release()
    below.remove()
    below.args = below.line("read_only")
    below.create()
    device = new()
    with fails(errno.EINVAL):
        device.load(device.line("", below.node))
    other = Device([layer], EXTENTS, SIZE, cow=True, resume=False,
                   origin=below.node, origin_uuid=below.uuid)
    with fails(errno.EINVAL):
        other.load(other.line())
    stranger = os.urandom(16)
    try:
        wrong = Device([layer], EXTENTS, SIZE, cow=True, origin=below.node,
                       origin_uuid=stranger)
    except OSError as e:
        assert e.errno == errno.EINVAL, e
    else:
        assert wrong.mode() == "fail", wrong.mode()
    DM.call(DM.CLEAR, other.name)


# ---------------------------------------------------------------- size

def kernel_memory():
    """Bytes that are neither free nor user space's nor the page cache's."""
    with open("/proc/meminfo") as f:
        m = {line.split(":")[0]: int(line.split()[1]) for line in f}
    return 1024 * (m["MemTotal"] - m["MemFree"] - m["Buffers"] - m["Cached"] -
                   m["AnonPages"] - m["SwapCached"])


def cost_of_devices(many):
    """Bytes for each of @many devices of 1 TiB, and one of them."""
    devices = []
    for _ in range(many):
        device = Device([layer], EXTENTS, 1 << 40, cow=True, resume=False)
        DM.call(DM.CLEAR, device.name)
        devices.append(device)
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3")
    time.sleep(0.5)
    before = kernel_memory()
    for device in devices:
        device.load(device.args)
        device.resume()
    time.sleep(0.5)
    return (kernel_memory() - before) / many, device


@test("1 TiB that nobody wrote costs less than 1 MiB", 120)
def _():
    many = scale(6, 2)
    # what others take or give back meanwhile counts, too: the one in the middle
    costs, devices = zip(*(cost_of_devices(many) for _ in range(3)))
    each = sorted(costs)[1]
    say(f"{each / KIB:.0f} KiB for each of {many} devices, of " +
        ", ".join(f"{cost / KIB:.0f}" for cost in costs))
    # KASAN and lockdep have a memory of their own
    assert each < (1 if SLOW == 1 else 2) * MIB, each
    after = kernel_memory()
    device = devices[0]
    wrote = {}
    for _ in range(20):
        at = rng.randrange(1 << 28) * BLOCK
        wrote[at] = rng.randbytes(BLOCK)
        device.write(at, wrote[at])
    device.flush()
    say(f"{(kernel_memory() - after) / KIB:.0f} KiB more for 20 blocks all "
        "over it")
    for at, data in wrote.items():
        assert device.read(at, BLOCK) == data
        assert not any(device.read(at + BLOCK, BLOCK))
    device.release()
    device.remove()
    assert {b * BLOCK for b in device.pair().dirty_blocks()} == set(wrote)
    device.create()
    for at, data in wrote.items():
        assert device.read(at, BLOCK) == data


@test("a discard of 10 GiB is done at once and takes no space", 60)
def _():
    device = Device([layer], EXTENTS, 10 << 30, cow=True)
    device.write(5 << 30, rng.randbytes(64 * KIB))
    device.discard(0, 10 << 30)
    device.flush()
    for at in (0, 5 << 30, (10 << 30) - BLOCK):
        assert not any(device.read(at, BLOCK))
    # where the image has nothing, there is nothing to mark
    assert device.stat("zero_blocks") >= 1536 * KIB // BLOCK
    assert not device.stat("dirty_blocks")
    device.release()
    device.remove()
    pair = device.pair()
    assert pair.root.zero >= 1 * MIB // BLOCK and not pair.root.dirty
    device.create()
    assert not any(device.read(0, BLOCK))
    assert os.stat(device.cow_path).st_blocks < 4096


# ---------------------------------------------------------------- torture

@test("all at once against a model, over suspends and reloads", 200)
def _():
    seconds = float(os.environ.get("OVERLAY_SECONDS", "8"))
    size = 6 * MIB + 777
    own = 512 * KIB
    content = layer_of(noise(2 * MIB, rng), LZ4, FRAME)
    extents = [(i * MIB, 320 * KIB, 0, i * 320 * KIB // BLOCK * BLOCK)
               for i in range(6)]
    device = Device([content], extents, size, cow=True)
    image = flat([content], extents, size)
    Server(content, chunk=10000)
    device.fd(True, True)
    device.fd(True)
    ends = time.monotonic() + seconds
    shared = 5 * MIB, 5 * MIB + 256 * KIB
    issued = {s: {image[s:s + 512]} for s in range(*shared, 512)}
    lock = threading.Lock()
    count = [0]

    def place(mine, lo, hi):
        unit = mine.choice((512, 4096))
        n = min(unit * mine.choice((1, 1, 2, 5, 20)), hi - lo)
        at = lo + mine.randrange((hi - lo - n) // unit + 1) * unit
        return at, n

    def owner(i):
        mine = random.Random(SEED + i)
        lo, hi = i * own, (i + 1) * own
        while time.monotonic() < ends:
            at, n = place(mine, lo, hi)
            dice = mine.random()
            if dice < 0.5:
                device.write(at, mine.randbytes(n), fua=mine.random() < 0.1)
            elif dice < 0.6:
                device.zeroes(at, n)
            elif dice < 0.7:
                device.discard(at, n)
            elif dice < 0.75:
                device.flush()
            else:
                device.check(*place(mine, lo, hi))
            count[0] += 1

    def sharer(i):
        mine = random.Random(SEED + 100 + i)
        while time.monotonic() < ends:
            at, n = place(mine, *shared)
            if mine.random() < 0.8:
                data = mine.randbytes(8) * 64
                with lock:
                    for s in range(at, at + n, 512):
                        issued[s].add(data)
                device.write(at, data * (n // 512), model=False)
            elif mine.random() < 0.5:
                with lock:
                    for s in range(at, at + n, 512):
                        issued[s].add(bytes(512))
                device.zeroes(at, n, model=False)
            else:
                got = device.read(at, n)
                with lock:
                    for s in range(0, n, 512):
                        assert got[s:s + 512] in issued[at + s], at + s
            count[0] += 1

    def disturber():
        mine = random.Random(SEED + 999)
        while time.monotonic() < ends:
            dice = mine.random()
            if dice < 0.3:
                device.load(device.table())
                device.resume(mine.choice((0, DM.NOFLUSH)))
            elif dice < 0.6:
                device.suspend(mine.random() < 0.5)
                device.resume()
            elif dice < 0.8:
                device.message("commit")
            else:
                time.sleep(0.1)
            time.sleep(mine.random() * 0.1)

    calls = [Later(owner, i) for i in range(9)] + \
        [Later(sharer, i) for i in range(3)] + [Later(disturber)]
    for call in calls:
        call.good(seconds + 30)
    say(f"{count[0]} operations")
    got = device.read(shared[0], shared[1] - shared[0])
    for s in range(0, len(got), 512):
        assert got[s:s + 512] in issued[shared[0] + s], shared[0] + s
    device.put(shared[0], got)
    ends_right(device)
    again(device)


finish()
EOF2
finish

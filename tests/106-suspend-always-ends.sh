#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Suspend, resume, reload and removal end, with misses outstanding, helpers
# dead or silent; and no read is lost or gets another image's bytes.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'EOF'
from rig import *

rng = random.Random(0x106)
FRAME = 64 * KIB
content = rng.randbytes(1 * MIB)
layer = layer_of(content, ZSTD, FRAME)
layers = {layer.uuid: layer}
GONE = (errno.EIO, errno.ENOLINK, errno.ETIMEDOUT)


class Call(threading.Thread):
    """A call that may have to wait."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self.call, self.error = (function, args), None
        self.start()

    def run(self):
        try:
            self.call[0](*self.call[1])
        except Exception as e:
            self.error = e

    def ended(self, limit=10):
        self.join(patience(limit))
        assert not self.is_alive(), f"{self.call} did not end"
        if self.error:
            raise self.error


def dmsetup(*args):
    return subprocess.run(["dmsetup", *args], capture_output=True, text=True,
                          timeout=patience(30))


@test("noflush suspend with misses outstanding ends; after resume they go on")
def _():
    device = Device([layer])
    hand = Hand()
    readers = [Reader(device, i * FRAME, 512) for i in range(6)]
    waiting(device, 6)
    requests = hand.next(6)
    hand.fill(requests[0], layer.object[requests[0].offset:][:1000])
    Call(device.suspend, True).ended()
    assert not any(r.done() for r in readers)
    # what arrives meanwhile is not lost
    hand.answer(requests[1], layers)
    device.resume()
    for r in requests[2:]:
        hand.answer(r, layers)
    r = requests[0]
    hand.fill(r, layer.object[r.offset + 1000:r.offset + r.length],
              offset=1000)
    for r in readers:
        r.good()
    hand.none(0.2)
    device.check(0, 512)


@test("noflush suspend without a helper, too")
def _():
    device = Device([layer])
    readers = [Reader(device, i * FRAME, 512) for i in range(6)]
    waiting(device, 6)
    for _ in range(3):
        Call(device.suspend, True).ended()
        device.resume()
    waiting(device, 6)
    Server(layer)
    for r in readers:
        r.good()


@test("noflush suspend and error_if_no_helper: no error while it lasts")
def _():
    device = Device([layer])
    reader = Reader(device, 0, 512)
    waiting(device)
    Call(device.suspend, True).ended()
    time.sleep(0.3)
    assert not reader.done()
    device.message("error_if_no_helper")
    device.resume()
    reader.bad(*GONE)


@test("flush suspend waits for the helper, and ends with its bytes")
def _():
    device = Device([layer])
    hand = Hand()
    readers = [Reader(device, i * FRAME, 512) for i in range(3)]
    waiting(device, 3)
    requests = hand.next(3)
    call = Call(device.suspend)
    for r in requests:
        time.sleep(0.1)
        assert call.is_alive()
        hand.answer(r, layers)
    call.ended()
    for r in readers:
        r.good()
    device.resume()
    device.check(0, 3 * FRAME)


@test("flush suspend with a silent helper ends by fetch_timeout")
def _():
    device = Device([layer], features="fetch_timeout 1")
    hand = Hand()
    readers = [Reader(device, i * FRAME, 512) for i in range(3)]
    waiting(device, 3)
    Call(device.suspend).ended()
    for r in readers:
        r.bad(*GONE)
    device.resume()


@test("flush suspend without a helper: reads fail, it ends")
def _():
    device = Device([layer])
    readers = [Reader(device, i * FRAME, 512) for i in range(3)]
    waiting(device, 3)
    Call(device.suspend).ended()
    for r in readers:
        r.bad(*GONE)
    device.resume()
    # the policy is what it was: reads wait
    reader = Reader(device, 0, 512)
    waiting(device)
    Server(layer)
    reader.good()


@test("flush suspend while the helper dies: reads fail, it ends")
def _():
    device = Device([layer])
    hand = Hand()
    readers = [Reader(device, i * FRAME, 512) for i in range(3)]
    waiting(device, 3)
    call = Call(device.suspend)
    time.sleep(0.2)
    assert call.is_alive()
    hand.close()
    call.ended()
    for r in readers:
        r.bad(*GONE)
    device.resume()


@test("a helper comes and goes while the device is suspended")
def _():
    device = Device([layer])
    reader = Reader(device, 0, 512)
    waiting(device)
    device.suspend(True)
    for _ in range(3):
        Helper().close()
    server = Server(layer)
    time.sleep(0.1)
    device.resume()
    reader.good()


@test("reload of its own table, with misses outstanding")
def _():
    device = Device([layer], features="no_helper_timeout 77 fetch_timeout 50")
    hand = Hand()
    readers = [Reader(device, i * FRAME, 512) for i in range(6)]
    waiting(device, 6)
    requests = hand.next(6)
    table = device.table()
    device.load(table)
    Call(device.resume, DM.NOFLUSH).ended()
    assert device.table() == table
    waiting(device, 6)
    for r in requests:
        hand.answer(r, layers)
    for r in readers:
        r.good()
    hand.none(0.2)


@test("reload ten times under readers")
def _():
    device = Device([layer])
    Server(layer)
    stop, errors, count = [], [], [0]

    def reading():
        try:
            while not stop:
                off = 512 * rng.randrange(2000)
                device.check(off, 8192)
                count[0] += 1
        except BaseException as e:
            errors.append(e)

    device.fd()
    threads = [threading.Thread(target=reading) for _ in range(4)]
    for t in threads:
        t.start()
    for i in range(scale(30, 6)):
        device.load(device.table())
        Call(device.resume, DM.NOFLUSH if i % 2 else 0).ended()
    stop.append(1)
    for t in threads:
        t.join()
    assert not errors and count[0], errors


@test("reload to another image: its bytes, from the resume on")
def _():
    other = layer_of(rng.randbytes(1 * MIB), LZ4, FRAME)
    device = Device([layer])
    Server(layer, other)
    device.check()
    device.check(direct=False)
    path = write_meta([other], [(0, 1 * MIB, 0, 0)], 1 * MIB)
    loop = Loop(path)
    undo(loop.close)
    device.load(f"{loop.name} - -")
    device.check(0, 4096)
    device.release()
    device.resume()
    old, device.model = device.model, flat([other], [(0, 1 * MIB, 0, 0)],
                                           1 * MIB)
    device.check()
    device.check(direct=False)
    # and back, with the cache between
    device.release()
    device.load(device.args)
    device.resume()
    device.model = old
    device.check(direct=False)
    device.check()
    wait_until(lambda: not loop.in_use(), "the other meta device free")


@test("reads that wait go to the image that was loaded over theirs")
def _():
    other = layer_of(rng.randbytes(1 * MIB), NONE, FRAME)
    device = Device([layer])
    readers = [Reader(device, i * FRAME, 4096) for i in range(4)]
    waiting(device, 4)
    path = write_meta([other], [(0, 1 * MIB, 0, 0)], 1 * MIB)
    loop = Loop(path)
    undo(loop.close)
    undo(device.close)
    device.load(f"{loop.name} - -")
    Call(device.resume, DM.NOFLUSH).ended()
    device.model = flat([other], [(0, 1 * MIB, 0, 0)], 1 * MIB)
    Server(layer, other)
    for r in readers:
        r.good()


@test("a table that is loaded and cleared, or replaced, leaves nothing")
def _():
    device = Device([layer])
    Server(layer)
    for _ in range(5):
        device.load(device.args)
    DM.call(DM.CLEAR, device.name)
    device.check()


@test("dmsetup remove --force with misses outstanding, without a helper")
def _():
    device = Device([layer])
    readers = [Reader(device, i * FRAME, 512) for i in range(4)]
    waiting(device, 4)
    dmsetup("remove", "--force", "--noudevsync", device.name)
    for r in readers:
        r.bad(*GONE)
    with fails(errno.EIO):
        device.read(0, 512)


@test("dmsetup remove --force --noflush with a silent helper")
def _():
    device = Device([layer], features="fetch_timeout 4")
    hand = Hand()
    readers = [Reader(device, i * FRAME, 512) for i in range(4)]
    waiting(device, 4)
    requests = hand.next(4)
    dmsetup("remove", "--force", "--noflush", "--noudevsync", device.name)
    for r in readers:
        r.bad(*GONE)
    # answers to nobody
    for r in requests:
        try:
            hand.fill(r, layer.object[r.offset:r.offset + r.length])
        except OSError as e:
            assert e.errno == errno.EINVAL, e
    wait_until(lambda: module("cache_bytes") == 0, "empty cache")


@test("dmsetup remove --force while a helper serves")
def _():
    device = Device([layer])

    def slowly(server, r):
        time.sleep(0.05)
        server.answer(r)
    Server(layer, reply=slowly)
    readers = [Reader(device, i * FRAME, 512) for i in range(8)]
    dmsetup("remove", "--force", "--noudevsync", device.name)
    for r in readers:
        r.wait()
        if r.errno is None:
            r.good()


@test("an idle device is removed, and an open one is not")
def _():
    device = Device([layer], keep=True)
    device.fd()
    with fails(errno.EBUSY):
        device.remove()
    device.close()
    # never resumed
    Device([layer], resume=False, keep=True).close()
    # suspended
    device = Device([layer], keep=True)
    device.suspend()
    device.close()


@test("suspended twice, resumed twice")
def _():
    device = Device([layer])
    Server(layer)
    device.check(0, FRAME)
    for noflush in (True, False):
        device.suspend(noflush)
        try:
            device.suspend(noflush)
        except OSError as e:
            assert e.errno == errno.EINVAL
        device.resume()
        device.resume()
        device.check(0, 2 * FRAME)


@test("everything at once, byte for byte", 60)
def _():
    other = layer_of(noise(1 * MIB, rng), LZ4, 16 * KIB)
    both = [layer, other]
    extents = [(0, 512 * KIB, 0, 0), (512 * KIB, 512 * KIB, 1, 100 * 512),
               (1100 * KIB, 300 * KIB, 0, 512 * KIB)]
    device = Device(both, extents, 1500 * KIB)
    twin = Device(both, extents, 1500 * KIB)
    cache_mib(1)
    ends = time.monotonic() + trial(6)
    wrong, counts = [], {"good": 0, "failed": 0}

    def reading(which, seed):
        mine = random.Random(seed)
        while time.monotonic() < ends:
            try:
                which.check(512 * mine.randrange(2900), 16 * KIB)
                counts["good"] += 1
            except OSError:
                counts["failed"] += 1
            except AssertionError as e:
                wrong.append(e)

    def serving():
        while time.monotonic() < ends:
            h = Helper()
            try:
                for _ in range(rng.randrange(40)):
                    for r in h.requests(0.01):
                        if r.flags & Request.PROMOTE:
                            continue
                        if rng.random() < 0.05:
                            continue
                        h.answer(r, {l.uuid: l for l in both},
                                 rng.choice((None, 3000)))
            finally:
                h.close()

    device.fd(), twin.fd()
    threads = [threading.Thread(target=reading, args=(d, i), daemon=True)
               for i, d in enumerate((device, twin, device, twin, device))]
    threads.append(threading.Thread(target=serving, daemon=True))
    for t in threads:
        t.start()
    rounds = 0
    device.message("fetch_timeout 2")
    twin.message("fetch_timeout 2")
    while time.monotonic() < ends:
        which = rng.choice((device, twin))
        what = rng.randrange(4)
        if what == 0:
            Call(which.suspend, True).ended()
            which.resume()
        elif what == 1:
            Call(which.suspend, False).ended()
            which.resume()
        elif what == 2:
            which.load(which.table())
            Call(which.resume, rng.choice((0, DM.NOFLUSH))).ended()
        else:
            which.message(rng.choice(("fetch_timeout 2", "fetch_timeout 3",
                                      "no_helper_timeout 1",
                                      "no_helper_timeout 0")))
        rounds += 1
    threads.pop().join(patience(20))		# the helper's
    Server(layer, other)
    for t in threads:
        t.join(patience(20))
        assert not t.is_alive()
    say(f"{rounds} rounds, {counts}")
    assert not wrong, wrong[0]
    assert counts["good"]
    device.check()
    twin.check()


finish()
EOF
finish

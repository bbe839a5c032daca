#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# One helper takes over from another, whatever state that is in: no reader
# notices, no device is without a helper, and the old one cannot do anything more.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'EOF'
import select
import signal
from rig import *

rng = random.Random(0x112)
content = rng.randbytes(512 * KIB)
FRAME = 64 * KIB
GONE = (errno.EIO, errno.ENOLINK)
LATE = (errno.EIO, errno.ETIMEDOUT)
layer = layer_of(content, NONE, FRAME)
layers = {layer.uuid: layer}
REPLACE = 1


def successor(cls=Hand):
    hand = cls(attach=False)
    try:
        hand.attach(flags=REPLACE)
    except BaseException:
        hand.close()
        raise
    return hand


def is_over(old, request=None):
    """All that it can still do is to go."""
    assert select.select([old.fd], [], [], 0)[0], "it does not hear of it"
    poller = select.poll()
    poller.register(old.fd, select.POLLIN)
    assert poller.poll(0)[0][1] & select.POLLHUP
    with fails(errno.ESTALE):
        os.read(old.fd, 8)
    if request:
        for what in (dict(data=b"x"), dict(status=errno.EIO),
                     dict(data=b"x" * request.length, offset=0)):
            with fails(errno.ESTALE):
                old.fill(request, **what)


class Trap:
    """A page that whoever reads it waits for, until it is sprung."""

    def __init__(self):
        libc.mmap.restype = ctypes.c_void_p
        self.fd = libc.syscall(323, os.O_CLOEXEC)	# userfaultfd
        if self.fd < 0:
            raise Skip("the kernel has no userfaultfd")
        self.call(0xc018aa3f, 0xaa, 0, 0)		# UFFDIO_API
        self.page = libc.mmap(None, ctypes.c_size_t(4096), 3, 0x22, -1, 0)
        self.call(0xc020aa00, self.page, 4096, 1, 0)	# UFFDIO_REGISTER
        undo(self.spring)

    def call(self, nr, *words):
        arg = (ctypes.c_uint64 * len(words))(*words)
        if libc.ioctl(self.fd, nr, arg) < 0:
            raise OSError(ctypes.get_errno(), hex(nr))

    def caught(self):
        assert select.select([self.fd], [], [], patience(10))[0], "nobody came"
        os.read(self.fd, 32)

    def spring(self):
        if self.fd is not None:
            self.call(0xc020aa04, self.page, 4096, 0, 0)  # UFFDIO_ZEROPAGE
            os.close(self.fd)
            self.fd = None


class Iov(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


def trapped_fill(hand, request, trap, good):
    """An answer that stays in the trap behind @good bytes."""
    head = hand.FILL.pack(request.generation, request.tag, 0, request.have,
                          len(good) + 4096)
    vec = (Iov * 3)(Iov(ctypes.cast(head, ctypes.c_void_p), len(head)),
                    Iov(ctypes.cast(good, ctypes.c_void_p), len(good)),
                    Iov(trap.page, 4096))
    if libc.writev(hand.fd, vec, 3) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def part(request, end, start=0):
    return layer.object[request.offset + start:request.offset + end]


STATES = {"nothing was read": None, "the request was read": 0,
          "one byte came": 1, "half of it came": FRAME // 2,
          "all but one byte came": FRAME - 1}

for state, have in STATES.items():
    @test(f"replaced when {state}: the next is asked for the rest, at once")
    def _():
        device = Device([layer], features="error_if_no_helper")
        old = Hand()
        reader = Reader(device, FRAME + 512, 4096)
        waiting(device)
        before, first = module("fill_bytes"), None
        if have is not None:
            first = old.next()
        if have:
            old.fill(first, part(first, have))
        new = successor()
        assert new.generation > old.generation and module("helper") == 1
        is_over(old, first)
        r = new.next()
        assert r.have == (have or 0) and r.offset == FRAME and not r.flags, r
        assert r.generation == new.generation
        new.answer(r, layers)
        reader.good()
        assert module("fill_bytes") - before == FRAME
        # the end of the old one is none for the new one
        old.close()
        assert module("helper") == 1
        reader = Reader(device, 3 * FRAME, 512)
        new.answer(new.next(), layers)
        reader.good()


@test("replaced ten times within one frame: each byte is sent once")
def _():
    device = Device([layer], features="error_if_no_helper")
    hand = Hand()
    before, at = module("fill_bytes"), 0
    reader = Reader(device, 0, 512)
    for i in range(11):
        r = hand.next()
        assert r.have == at, (r, at)
        n = rng.randrange(1, 6000) if i < 10 else FRAME - at
        hand.fill(r, part(r, at + n, at))
        at += n
        if i < 10:
            hand = successor()
    reader.good()
    assert module("fill_bytes") - before == FRAME


@test("many requests in all states")
def _():
    device = Device([layer], features="error_if_no_helper")
    old = Hand()
    readers = [Reader(device, i * FRAME, 512) for i in range(8)]
    have = {}
    for i, r in enumerate(old.next(8)):
        n = min(i * 9000, r.length)
        if n:
            old.fill(r, part(r, n))
        have[r.offset] = n
    new = successor()
    left = [o for o, n in have.items() if n < FRAME]
    for r in new.next(len(left)):
        assert r.have == have[r.offset], (r, have)
        new.answer(r, layers)
    for reader in readers:
        reader.good()


@test("what was read ahead goes on, too, from where it was")
def _():
    device = Device([layer], features="error_if_no_helper")
    old, end, ahead = Hand(), 0, {}
    while not ahead:
        reader, end = Reader(device, end, 2 * FRAME), end + 2 * FRAME
        while not reader.done():
            ahead.update((r.offset, r) for r in old.requests(0.1))
            for wanted in [o for o in ahead if o < end]:
                old.answer(ahead.pop(wanted), layers)
        reader.good()
        while late := old.requests(0.5):
            ahead.update((r.offset, r) for r in late)
    ahead = list(ahead.values())
    old.fill(ahead[0], part(ahead[0], 3000))
    new = successor()
    again = {r.offset: r for r in new.next(len(ahead))}
    for r in ahead:
        assert again[r.offset].flags & Request.PREFETCH, again
        assert again[r.offset].have == (3000 if r is ahead[0] else 0), again
        new.answer(again[r.offset], layers)


@test("a wedged one: its readers wait, and go on with the next")
def _():
    device = Device([layer], features="fetch_timeout 4")
    old = Hand()
    reader = Reader(device, 0, 512)
    old.next()
    time.sleep(2)
    new = successor()
    # the patience with a helper begins with the helper
    time.sleep(2.5)
    assert not reader.done()
    r = new.next()
    assert r.deadline > time.monotonic_ns()
    new.answer(r, layers)
    reader.good()


@test("who waits in read() hears of it; who maps the ring keeps it")
def _():
    old = Hand()
    os.set_blocking(old.fd, True)
    call = Later(os.read, old.fd, 8)
    time.sleep(0.2)
    assert not call.done()
    new = successor()
    call.bad(errno.ESTALE)
    assert struct.unpack_from("=QII", old.ring)[1] == old.entries
    is_over(old)
    new.none(0.1)


@test("a file has one session: EBUSY for the next, whoever has it now")
def _():
    hand = Hand()
    for flags in (0, REPLACE):
        with fails(errno.EBUSY):
            hand.attach(flags=flags)
    assert module("helper") == 1
    new = successor()
    for flags in (0, REPLACE):
        with fails(errno.EBUSY):
            hand.attach(flags=flags)
    sessions = module("sessions")
    new.close()
    assert module("helper") == 0
    for flags in (0, REPLACE):
        with fails(errno.EBUSY):
            hand.attach(flags=flags)
    is_over(hand)
    assert module("helper") == 0 and module("sessions") == sessions
    # with nobody to replace it is an ordinary attach
    device = Device([layer])
    reader = Reader(device, 0, 512)
    hand = successor()
    hand.answer(hand.next(), layers)
    reader.good()


@test("replaced in the middle of a write: the bytes of the write come too late")
def _():
    device = Device([layer], features="error_if_no_helper")
    old = Hand()
    reader = Reader(device, 0, FRAME)
    trap = Trap()
    r = old.next()
    call = Later(trapped_fill, old, r, trap, part(r, 1000))
    trap.caught()
    new = successor()
    # that frame is asked for from its beginning: who knows what is written
    r = new.next()
    assert r.have == 0 and r.offset == 0, r
    new.answer(r, layers)
    reader.good()
    assert not call.done()
    trap.spring()
    call.bad(errno.ESTALE)
    device.check(0, FRAME)
    # and the slot is whole
    readers = [Reader(device, i * FRAME, 512) for i in range(1, 8)]
    for r in new.next(7):
        new.answer(r, layers, 10000)
    for reader in readers:
        reader.good()


@test("writes that never end, with no memory but theirs: readers go on")
def _():
    cache_mib(1)
    big = layer_of(rng.randbytes(4 * MIB), NONE, MIB)
    device = Device([big], features="error_if_no_helper")
    hand, calls, traps = Hand(), [], []
    for _ in range(3):
        reader = Reader(device, 0, 4096)
        traps.append(Trap())
        r = hand.next()
        calls.append(Later(trapped_fill, hand, r, traps[-1],
                           big.object[:1000]))
        traps[-1].caught()
        hand = successor()
        r = hand.next()
        hand.answer(r, {big.uuid: big}, 100000)
        reader.good()
        for at in range(1, 4):
            reader = Reader(device, at * MIB, 4096)
            hand.answer(hand.next(), {big.uuid: big})
            reader.good()
    assert module("cache_bytes") >= 3 * MIB
    for trap, call in zip(traps, calls):
        trap.spring()
        call.bad(errno.ESTALE)
    device.release()
    device.close()
    wait_until(lambda: module("cache_bytes") == 0, "empty cache")


@test("killed in the middle of a write: what came before it stays")
def _():
    device = Device([layer])
    reader = Reader(device, 0, FRAME)
    trap = Trap()
    pid = os.fork()
    if not pid:
        try:
            hand = Helper()
            r = hand.requests()[0]
            hand.fill(r, part(r, 5000))
            r.have = 5000
            # the trap of a child is its own
            trap.__init__()
            threading.Thread(target=trapped_fill, daemon=True,
                             args=(hand, r, trap, part(r, 6000, 5000))).start()
            trap.caught()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(7)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    wait_until(lambda: module("helper") == 0, "end of the session")
    assert not reader.done()
    hand = Hand()
    r = hand.next()
    assert r.have == 5000, r
    hand.answer(r, layers)
    reader.good()


@test("opened and not attached, attached and not mapped: death is no event")
def _():
    device = Device([layer], features="error_if_no_helper")
    server = Hand()
    for _ in range(10):
        Hand(attach=False).close()
        with fails(errno.EBUSY):
            Helper()
    reader = Reader(device, 0, 512)
    server.answer(server.next(), layers)
    reader.good()
    server.close()
    for _ in range(10):
        fd = os.open("/dev/lazyframe", os.O_RDWR)
        fcntl.ioctl(fd, 0xc0187a40, bytearray(struct.pack("=IIQII", 1, 0, 0,
                                                          0, 0)))
        os.close(fd)
    assert module("helper") == 0
    Server(layer)
    device.check(0, FRAME)


@test("replaced without end, stopped, killed: no error, no wrong byte", 60)
def _():
    zstd = layer_of(rng.randbytes(4 * MIB), ZSTD, 32 * KIB)
    device = Device([zstd], features="error_if_no_helper")
    cache_mib(1)

    def child(ready):
        helper = successor(Helper)
        os.write(ready, b".")
        while True:
            try:
                for r in helper.requests(1):
                    if not r.flags & Request.PROMOTE:
                        helper.answer(r, {zstd.uuid: zstd}, 7000)
            except OSError as e:
                os._exit(3 if e.errno == errno.ESTALE else 7)

    def spawn():
        there, ready = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                child(ready)
            finally:
                os._exit(7)
        assert os.read(there, 1)
        os.close(there)
        os.close(ready)
        return pid

    pid = spawn()
    readers = Readers(device, size=20 * KIB, count=3)
    ends = {}
    for i in range(scale(40, 8)):
        time.sleep(rng.uniform(0.01, 0.1))
        how = rng.choice((None, None, signal.SIGSTOP))
        if how:
            os.kill(pid, how)
        fresh = spawn()
        if how:
            os.kill(pid, signal.SIGCONT if i % 2 else signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        ends[status] = ends.get(status, 0) + 1
        pid = fresh
    readers.end()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert set(ends) <= {3 << 8, signal.SIGKILL}, ends
    s = device.adds_up()
    say(f"{ends}, {s['reads']} reads")
    assert not s["reads_failed"] and not s["frames_bad"]


finish()
EOF
finish

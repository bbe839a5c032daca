#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# The death of a helper delays reads; the device's policy alone decides when
# they fail, and no bytes that arrived are asked for twice.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'EOF'
import signal
from rig import *

rng = random.Random(0x103)
content = rng.randbytes(512 * KIB)
FRAME = 64 * KIB
GONE = (errno.EIO, errno.ENOLINK)
LATE = (errno.EIO, errno.ETIMEDOUT)
layer = layer_of(content, NONE, FRAME)
layers = {layer.uuid: layer}


def nothing(hand):
    pass


def consumed(hand):
    hand.next()


def one_byte(hand):
    r = hand.next()
    hand.fill(r, layer.object[r.offset:r.offset + 1])


def half(hand):
    r = hand.next()
    hand.fill(r, layer.object[r.offset:r.offset + r.length // 2])


def all_but_one(hand):
    r = hand.next()
    hand.fill(r, layer.object[r.offset:r.offset + r.length - 1])


def header_only(hand):
    r = hand.next()
    hand.fill(r, layer.object[r.offset:r.offset + 1000])
    with fails(errno.EMSGSIZE):
        hand.fill(r, b"", offset=1000, length=5000)


STATES = {nothing: 0, consumed: 0, one_byte: 1, half: FRAME // 2,
          all_but_one: FRAME - 1, header_only: 1000}

for state, have in STATES.items():
    @test(f"it dies in state \"{state.__name__}\": the next resumes at {have}")
    def _():
        device = Device([layer])
        reader = Reader(device, FRAME + 512, 4096)
        waiting(device)
        first = Hand()
        state(first)
        generation = first.generation
        first.close()
        assert module("helper") == 0
        assert not reader.done() and device.stat("waiting") == 1
        before = module("fill_bytes")
        second = Hand()
        assert second.generation > generation
        request = second.next()
        assert request.have == have and request.offset == FRAME, request
        assert request.flags == 0 and request.generation == second.generation
        second.answer(request, layers)
        reader.good()
        assert module("fill_bytes") - before == FRAME - have
        device.check(FRAME, FRAME)
        second.none(0.1)


@test("it dies ten times within one frame: each byte is sent once")
def _():
    device = Device([layer])
    reader = Reader(device, 0, 512)
    at = 0
    before = module("fill_bytes")
    for i in range(10):
        hand = Hand()
        request = hand.next()
        assert request.have == at, (request, at)
        n = (FRAME - at) if i == 9 else rng.randrange(1, 6000)
        hand.fill(request, layer.object[at:at + n])
        at += n
        hand.close()
    reader.good()
    assert module("fill_bytes") - before == FRAME


@test("it dies with many requests in all states")
def _():
    device = Device([layer])
    readers = [Reader(device, i * FRAME, 512) for i in range(8)]
    hand = Hand()
    have = {}
    for i, r in enumerate(hand.next(8)):
        n = min(i * 9000, r.length)
        if n:
            hand.fill(r, layer.object[r.offset:r.offset + n])
        have[r.offset] = n
    done = [o for o, n in have.items() if n == FRAME]
    hand.close()
    hand = Hand()
    for r in hand.next(8 - len(done)):
        assert r.have == have[r.offset], (r, have)
        hand.answer(r, layers)
    for r in readers:
        r.good()


@test("reads wait for a helper by default; zeros and what is here do not")
def _():
    device = Device([layer], [(0, 512 * KIB, 0, 0)], 600 * KIB)
    server = Server(layer)
    device.check(0, FRAME)
    server.close()
    reader = Reader(device, FRAME, 512)
    waiting(device)
    device.check(0, FRAME)
    device.check(512 * KIB, 80 * KIB)
    time.sleep(1)
    assert not reader.done()
    Server(layer)
    reader.good()


@test("error_if_no_helper as a feature: misses fail at once, hits do not")
def _():
    device = Device([layer], [(0, 512 * KIB, 0, 0)], 600 * KIB,
                    features="error_if_no_helper")
    Reader(device, 0, 512).bad(*GONE)
    server = Server(layer)
    device.check(0, FRAME)
    server.close()
    device.check(0, FRAME)
    device.check(512 * KIB, 80 * KIB)
    Reader(device, FRAME, 512).bad(*GONE)
    assert device.stat("reads_failed") == 2


@test("error_if_no_helper: a helper's death fails the reads that wait")
def _():
    device = Device([layer], features="error_if_no_helper")
    hand = Hand()
    readers = [Reader(device, i * FRAME, 512) for i in range(3)]
    waiting(device, 3)
    half_done = hand.next(3)[0]
    hand.fill(half_done, layer.object[half_done.offset:][:100])
    hand.close()
    for r in readers:
        r.bad(*GONE)
    Server(layer)
    device.check()


@test("policy by message: queue and error flip the reads in flight")
def _():
    device = Device([layer])
    reader = Reader(device, 0, 512)
    waiting(device)
    device.message("error_if_no_helper")
    reader.bad(*GONE)
    Reader(device, 0, 512).bad(*GONE)
    device.message("queue_if_no_helper")
    reader = Reader(device, 0, 512)
    waiting(device)
    Server(layer)
    reader.good()


@test("unknown messages and values are refused and change nothing")
def _():
    device = Device([layer])
    table = device.table()
    for text in ("frobnicate", "error_if_no_helper 1", "fetch_timeout",
                 "fetch_timeout x", "fetch_timeout -1", "fetch_timeout 86401",
                 "fetch_timeout 4294967297", "no_helper_timeout 1 2",
                 "no_helper_timeout 99999999999999999999", "read_only"):
        with fails(errno.EINVAL, errno.ERANGE):
            device.message(text)
    assert device.table() == table


@test("no_helper_timeout: reads fail then, not before, and not with a helper")
def _():
    device = Device([layer], features="no_helper_timeout 2")
    begun = time.monotonic()
    Reader(device, 0, 512).bad(*GONE)
    took = time.monotonic() - begun
    assert 1.9 <= took < patience(4), took
    hand = Hand()
    reader = Reader(device, 0, 512)
    request = hand.next()
    time.sleep(2.6)
    assert not reader.done()
    hand.close()
    time.sleep(1)
    assert not reader.done()
    Server(layer)
    reader.good()


@test("no_helper_timeout by message ends and spares reads in flight")
def _():
    device = Device([layer])
    reader = Reader(device, 0, 512)
    waiting(device)
    time.sleep(1.2)
    device.message("no_helper_timeout 1")
    reader.bad(*GONE)
    device.message("no_helper_timeout 0")
    reader = Reader(device, 0, 512)
    time.sleep(1.5)
    assert not reader.done()
    Server(layer)
    reader.good()


@test("fetch_timeout: a silent helper costs a clear error, then all is well")
def _():
    device = Device([layer], features="fetch_timeout 2")
    hand = Hand()
    begun = time.monotonic()
    reader = Reader(device, 0, 512)
    request = hand.next()
    assert request.deadline / 1e9 <= time.monotonic() + 2
    reader.bad(*LATE)
    took = time.monotonic() - begun
    assert 1 <= took < patience(4), took
    assert device.stat("reads_failed") == 1
    # whatever the late answer is met with, the device goes on
    try:
        hand.answer(request, layers)
    except OSError as e:
        assert e.errno in (errno.EINVAL, errno.ESTALE), e
    hand.close()
    Server(layer)
    device.check()


@test("fetch_timeout by message; 0 is no limit")
def _():
    device = Device([layer], features="fetch_timeout 0")
    hand = Hand()
    reader = Reader(device, 0, 512)
    request = hand.next()
    time.sleep(1.2)
    assert not reader.done()
    device.message("fetch_timeout 1")
    reader.bad(*LATE)
    device.message("fetch_timeout 50")
    hand.close()
    Server(layer)
    device.check()


@test("reads with more patience survive those with less, of the same frame")
def _():
    hasty = Device([layer], features="fetch_timeout 1")
    calm = Device([layer], features="fetch_timeout 60")
    hand = Hand()
    one = Reader(hasty, 0, 512)
    request = hand.next()
    two = Reader(calm, 0, 512)
    waiting(calm)
    one.bad(*LATE)
    assert not two.done()
    hand.answer(request, layers)
    two.good()


@test("a helper's error reaches the readers, and is not remembered")
def _():
    device = Device([layer])
    hand = Hand()
    errors = module("fill_errors")
    for status in (errno.ENOENT, errno.EACCES, errno.ESTALE, errno.EPROTO,
                   errno.EIO):
        reader = Reader(device, 0, 512)
        request = hand.next()
        hand.fill(request, status=status)
        reader.wait()
        assert reader.errno, status
    assert module("fill_errors") == errors + 5
    reader = Reader(device, 0, 512)
    hand.answer(hand.next(), layers)
    reader.good()


@test("a helper that always says ETIMEDOUT costs fetch_timeout at most")
def _():
    device = Device([layer], features="fetch_timeout 3")
    Server(layer, reply=lambda server, r: server.helper.fill(
        r, offset=r.have, status=errno.ETIMEDOUT))
    begun = time.monotonic()
    Reader(device, 0, 512).bad(*LATE)
    assert time.monotonic() - begun < patience(4)


@test("an error after half of the bytes: the next fetch is whole and right")
def _():
    device = Device([layer])
    hand = Hand()
    reader = Reader(device, 0, 512)
    request = hand.next()
    hand.fill(request, layer.object[:100])
    hand.fill(request, offset=100, status=errno.EIO)
    reader.bad()
    reader = Reader(device, 0, 512)
    hand.answer(hand.next(), layers)
    reader.good()


@test("one helper at a time: EBUSY, on another file and on the same")
def _():
    hand = Hand()
    with fails(errno.EBUSY):
        Helper()
    with fails(errno.EBUSY):
        hand.attach()
    sessions = module("sessions")
    hand.close()
    second = Hand()
    assert module("sessions") == sessions + 1 and module("helper") == 1
    assert second.generation > hand.generation


@test("a session lives as long as any descriptor of it")
def _():
    device = Device([layer])
    hand = Hand()
    twin = os.dup(hand.fd)
    os.close(hand.fd)
    hand.fd = twin
    assert module("helper") == 1
    reader = Reader(device, 0, 512)
    hand.answer(hand.next(), layers)
    reader.good()


@test("answers of an older generation are refused: ESTALE")
def _():
    device = Device([layer])
    old = Hand()
    reader = Reader(device, 0, 512)
    stale = old.next()
    old.close()
    hand = Hand()
    request = hand.next()
    with fails(errno.ESTALE):
        hand.fill(stale, b"x" * 512)
    with fails(errno.ESTALE):
        hand.fill(request, b"x" * 512, generation=request.generation + 1)
    with fails(errno.ESTALE):
        hand.fill(request, b"x" * 512, generation=0)
    idle = Hand(attach=False)
    with fails(errno.ESTALE):
        idle.fill(request, b"x" * 512)
    hand.answer(request, layers)
    reader.good()


@test("random policies, random deaths: right bytes or an error, and an end")
def _():
    device = Device([layer], features="no_helper_timeout 1")
    ends = time.monotonic() + trial(3)
    readers = Readers(device, size=4096, fails=True)
    cache_mib(1)
    while time.monotonic() < ends:
        hand = Helper()
        try:
            for r in hand.requests(0.02):
                if r.flags & Request.PROMOTE or rng.random() < 0.3:
                    continue
                if rng.random() < 0.1:
                    hand.fill(r, offset=r.have, status=errno.EIO)
                else:
                    hand.fill(r, layer.object[r.offset + r.have:][
                        :min(rng.randrange(1, 3 * FRAME),
                             r.length - r.have)])
        finally:
            hand.close()
        device.message(rng.choice(("error_if_no_helper", "queue_if_no_helper",
                                   "no_helper_timeout 1", "fetch_timeout 2",
                                   "no_helper_timeout 0")))
    device.message("no_helper_timeout 0")
    device.message("queue_if_no_helper")
    Server(layer)
    readers.end()
    say(f"{readers.good} good reads, {readers.failed} failed ones")


@test("kill -9 of the helper's process: no error, no wrong byte", 60)
def _():
    content = rng.randbytes(4 * MIB)
    zstd = layer_of(content, ZSTD, 32 * KIB)
    device = Device([zstd])
    cache_mib(1)

    def child():
        helper = Helper()
        while True:
            for r in helper.requests(1):
                if not r.flags & Request.PROMOTE:
                    helper.answer(r, {zstd.uuid: zstd}, 7000)

    def spawn():
        pid = os.fork()
        if not pid:
            try:
                child()
            except BaseException:
                os._exit(7)
        return pid

    pid = spawn()
    readers = Readers(device, size=20 * KIB, count=3)
    for _ in range(scale(30, 5)):
        time.sleep(rng.uniform(0.01, 0.15))
        os.kill(pid, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
        pid = spawn()
    readers.end()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    s = device.adds_up()
    say(s)
    assert not s["reads_failed"] and not s["frames_bad"]


finish()
EOF
finish

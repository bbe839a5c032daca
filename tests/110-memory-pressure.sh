#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Where allocations fail, reads are late, never wrong, and what cannot be made is
# unmade. Needs the fault injection of the debug kernel.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

if [ ! -d /sys/kernel/debug/failslab ]; then
	skip "reads, devices and sessions while allocations fail" \
		"kernel $(uname -r) has no fault injection: the debug kernel's run tests it"
	finish
fi

python_tests <<'EOF'
from rig import *
from faults import Stubborn, failing

rng = random.Random(0x110)
FRAME = 16 * KIB


def storm(device, seconds):
    readers = Readers(device)
    time.sleep(seconds)
    readers.end()
    say(f"{readers.good} reads")


for codec in (ZSTD, LZ4):
    layer = layer_of(noise(1 * MIB + 777, rng), codec, FRAME)
    for kind, percent in (("failslab", 5), ("failslab", 50),
                          ("fail_page_alloc", 5), ("fail_page_alloc", 50)):
        @test(f"{('', 'zstd', 'LZ4')[codec]}: reads while {kind} is at "
              f"{percent} %", 60)
        def _():
            cache_mib(1)
            device = Device([layer])
            Stubborn(layer)
            device.fd()
            with failing(kind, percent):
                storm(device, 2)
            assert not device.stat("reads_failed")
            assert not device.stat("frames_bad")
            device.check()


layer = layer_of(noise(1 * MIB, rng), ZSTD, FRAME)


@test("answers while copies from the helper fail", 60)
def _():
    cache_mib(1)
    device = Device([layer])
    Stubborn(layer)
    device.fd()
    with failing("fail_usercopy", 10):
        storm(device, 3)
    assert not device.stat("reads_failed") and not device.stat("frames_bad")


@test("no memory at all for a while: reads wait for it", 60)
def _():
    device = Device([layer])
    Stubborn(layer)
    device.fd()
    with failing("failslab", 100):
        readers = [Reader(device, i * FRAME, 512) for i in range(8)]
        time.sleep(2)
    for r in readers:
        r.good(20)


@test("a suspend that begins without memory ends when there is some", 60)
def _():
    device = Device([layer])
    device.fd()
    with failing("failslab", 100):
        readers = [Reader(device, i * FRAME, 512) for i in range(4)]
        time.sleep(1)
        call = threading.Thread(target=device.suspend, daemon=True)
        call.start()
        time.sleep(1)
    call.join(patience(10))
    assert not call.is_alive()
    for r in readers:
        r.wait()
        assert r.errno
    device.resume()


for kind in ("failslab", "fail_page_alloc"):
    @test(f"a device that is made while {kind} strikes is whole or not there",
          100)
    def _():
        other = layer_of(noise(100000, rng), LZ4, 8 * KIB)
        good = bad = 0
        Stubborn(layer, other)
        for i in range(40):
            device = Device([layer, other], [(0, 1 * MIB, 0, 0), (
                2 * MIB, 90112, 1, 0)], 3 * MIB, resume=False, keep=True)
            DM.call(DM.CLEAR, device.name)
            try:
                with failing(kind, rng.choice((1, 1, 1, 2, 5, 50))):
                    device.load(device.args)
                    device.resume()
                device.check(512 * rng.randrange(6000), 8192)
                good += 1
            except OSError as e:
                assert e.errno in (errno.ENOMEM, errno.EIO, errno.EINVAL), e
                bad += 1
            finally:
                DM.call(DM.CLEAR, device.name)
                device.close()
        say(f"{good} made, {bad} not")
        assert bad
        device = Device([layer])
        device.check(0, 4 * FRAME)


@test("sessions while allocations and copies fail", 60)
def _():
    good = bad = 0
    for i in range(60):
        try:
            with failing(rng.choice(("failslab", "fail_page_alloc",
                                     "fail_usercopy")), 50):
                h = Helper()
            h.close()
            good += 1
        except OSError as e:
            assert e.errno in (errno.ENOMEM, errno.EFAULT, errno.EAGAIN), e
            bad += 1
    say(f"{good} attached, {bad} not")
    assert module("helper") == 0 and bad
    Helper().close()


finish()
EOF
finish

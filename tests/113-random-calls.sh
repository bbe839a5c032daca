#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Several threads and processes do random things to /dev/lazyframe, while devices
# are read, made, suspended and removed: no reader gets a wrong byte, each ends,
# the kernel's log stays clean, and the module has forgotten all of it in the end.
# SEED=N begins with another one.
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

check "the fuzzer builds" gcc -std=gnu11 -O2 -pthread -D_GNU_SOURCE \
	-I"$tests/../uapi" -o "$tap_dir/fuzz" "$tests/lib/fuzz-channel.c"
export FUZZ=$tap_dir/fuzz

python_tests <<'EOF'
from rig import *

SECONDS = int(os.environ["CHANNEL_SECONDS"])
SEED = int(os.environ.get("SEED", "113"))
rng = random.Random(SEED)
FRAME = 16 * KIB


def on_disk(content, codec):
    fd, path = tempfile.mkstemp(suffix=".object")
    layer = layer_of(content, codec, FRAME, locator=path)
    os.write(fd, layer.object)
    os.close(fd)
    undo(lambda: os.unlink(path))
    return layer


@test("random calls from all sides", SECONDS + 30)
def _():
    layers = [on_disk(noise(2 * MIB, rng), codec)
              for codec in (NONE, ZSTD, LZ4)]
    devices = [Device([layer], features="fetch_timeout 2")
               for layer in layers]
    devices.append(Device(layers[::-1], [(i * 16384, 16384, i % 3, i * 16384)
                                         for i in range(128)], 2 * MIB,
                          features="fetch_timeout 3 no_helper_timeout 1"))
    cache_mib(1)
    stop, rounds = [], [0]

    def force(device):
        """As dmsetup remove --force does it"""
        DM.load(device.name, sectors(device.size), "", target="error")
        DM.call(DM.SUSPEND, device.name, DM.F_SUSPEND | DM.NOFLUSH |
                DM.SKIP_LOCKFS)
        device.resume()

    def chaos():
        mine = random.Random(SEED)
        while not stop:
            device = mine.choice(devices)
            what = mine.randrange(5)
            if what == 0:
                device.suspend(True)
                device.resume()
            elif what == 1:
                device.load(device.table())
                device.resume(mine.choice((0, DM.NOFLUSH)))
            elif what == 2:
                device.message(mine.choice((
                    "fetch_timeout 2", "fetch_timeout 1", "no_helper_timeout 1",
                    "error_if_no_helper", "queue_if_no_helper")))
            else:
                extra = Device([mine.choice(layers)], keep=True,
                               features="fetch_timeout 1 no_helper_timeout 1")
                reader = Reader(extra, 512 * mine.randrange(4000), 512)
                if what == 3:
                    reader.wait(30)
                force(extra)
                reader.wait(30)
                extra.close()
            rounds[0] += 1

    readers = Readers(*devices, count=3 * len(devices), fails=True)
    changes = Later(chaos)
    fuzz = subprocess.run([os.environ["FUZZ"], str(SEED), str(SECONDS)],
                          capture_output=True, text=True)
    stop.append(1)
    say(fuzz.stdout + fuzz.stderr)
    for device in devices:
        device.message("queue_if_no_helper")
        device.message("no_helper_timeout 0")
    Server(*layers)
    readers.end(30)
    changes.good(30)
    say(f"result: {fuzz.stdout.splitlines()[-1]} with seed {SEED} beside "
        f"{readers.good} good reads, {readers.failed} failed ones and "
        f"{rounds[0]} changes; {module('sessions')} sessions")
    assert fuzz.returncode == 0, fuzz.returncode
    assert rounds[0]
    for device in devices:
        device.check()


@test("nothing of it is left")
def _():
    wait_until(lambda: module("cache_frames") == 0, "empty cache")
    assert module("cache_bytes") == 0 and module("helper") == 0


finish()
EOF
finish

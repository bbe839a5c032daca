#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Devices with and without overlay and store come and go under reads and writes,
# while helpers die, the store is suspended, tables are reloaded, and, where the
# kernel can inject that, allocations and I/O fail: nothing wrong is ever read,
# what is given up ends, and nothing is left.
#
#	STORM_SECONDS	of each kind of fault
#	STORM_KINDS	all, or a few
#	STORM_SEED	to repeat one, more or less
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

python_tests <<'EOF'
import shutil
import uuid as uuids
from rig import *
import faults
from store import Store

SECONDS = float(os.environ.get("STORM_SECONDS", "4"))
SEED = int(os.environ.get("STORM_SEED", "0")) or random.randrange(1 << 32)
FRAME = 32 * KIB
SIZE = 40 * FRAME + 512 * 3
say(f"STORM_SEED={SEED}")
rng = random.Random(SEED)
FULL = os.path.join(tempfile.gettempdir(), "full")
layers = [layer_of(noise(SIZE, rng), codec, FRAME)
          for codec in (ZSTD, LZ4, NONE, ZSTD)]


class Life:
    """One device from its creation to its end, and what is known of it."""

    def __init__(self, seed, store, faulty):
        self.rng = random.Random(seed)
        self.faulty, self.errors, self.operations = faulty, 0, 0
        self.doubt = set()		# sectors of which a write failed
        self.device = None
        try:
            self.device = Device(
                [self.rng.choice(layers)], cow=self.rng.random() < 0.7,
                store=store if self.rng.random() < 0.7 else None,
                features="fetch_timeout 60000", keep=True, resume=False)
            for loop in (self.device.loop, self.device.cow_loop):
                if loop and faulty == "fail_make_request":
                    faults.fragile(os.path.basename(loop.name))
            self.resume()
        except OSError:
            self.failed()
            self.end()

    def resume(self):
        """What could not go on stays suspended, and is asked again."""
        for _ in range(100):
            try:
                self.device.resume()
                return
            except OSError:
                self.failed()
        self.device.resume()

    def failed(self):
        """An error, in a storm that has none?"""
        if not self.faulty:
            raise
        self.errors += 1

    def place(self):
        unit = self.rng.choice((512, 512, 4096))
        n = unit * self.rng.choice((1, 1, 2, 9, 30))
        at = self.rng.randrange((SIZE - n) // unit) * unit
        return at, n

    def read(self):
        at, n = self.place()
        data = self.device.read(at, n)
        for s in range(0, n, 512):
            if (at + s) // 512 not in self.doubt:
                same(data[s:s + 512], self.device.model[at + s:at + s + 512],
                     at + s)

    def change(self):
        if not self.device.writable:
            return
        at, n = self.place()
        sectors_ = range(at // 512, (at + n) // 512)
        how = self.rng.choice((self.device.write, self.device.write,
                               self.device.zeroes, self.device.discard))
        args = (at, self.rng.randbytes(n)) if how == self.device.write else \
            (at, n)
        try:
            how(*args)
        except OSError:
            self.doubt.update(sectors_)
            raise
        if how != self.device.discard:
            self.doubt.difference_update(sectors_)

    def again(self):
        """A table in place of the same, or a pause."""
        if self.rng.random() < 0.5:
            self.device.load(self.device.args)
        else:
            self.device.suspend(self.rng.random() < 0.5)
        self.resume()

    def flush(self):
        if self.device.writable:
            self.device.flush()

    def step(self):
        what = self.rng.choices((self.read, self.change, self.flush, self.again),
                                (12, 8, 1, 1))[0]
        try:
            what()
        except OSError:
            self.failed()
        self.operations += 1

    def end(self):
        if self.device:
            self.device.release()
            self.device.close()
            self.device = None


class Storm:
    def __init__(self, faulty):
        self.faulty, self.over, self.done = faulty, False, False
        self.count = self.lives = self.errors = 0
        self.store = Store(like=FULL)

    def living(self, seed):
        mine = random.Random(seed)
        while not self.over:
            life = Life(mine.random(), self.store, self.faulty)
            try:
                if life.device:
                    for _ in range(mine.randrange(5, 80)):
                        life.step()
                        if self.over:
                            break
            finally:
                life.end()
            self.lives += 1
            self.count += life.operations
            self.errors += life.errors

    def helping(self, seed):
        mine = random.Random(seed)
        while not self.done:
            try:
                server = faults.Stubborn(*layers, chunk=mine.choice(
                    (None, 5000)))
            except OSError:
                if not self.faulty:
                    raise
                continue
            time.sleep(mine.random() * 0.4)
            server.close()

    def storing(self, seed):
        mine = random.Random(seed)
        words = ["scrub"] + [f"{word} {uuids.UUID(bytes=layer.uuid)}"
                             for layer in layers for word in ("pin", "unpin")]
        while not self.over:
            time.sleep(mine.random() * 0.1)
            try:
                if mine.random() < 0.5:
                    self.store.again()
                else:
                    self.store.message(mine.choice(words))
                self.store.info()
            except OSError as e:
                # of unpin: it has nothing of that layer; of scrub: it runs
                if not self.faulty and e.errno not in (errno.ENOENT,
                                                       errno.EBUSY):
                    raise

    def run(self, seconds):
        helping = Later(self.helping, rng.random())
        calls = [Later(self.living, rng.random()) for _ in range(4)] + \
            [Later(self.storing, rng.random())]
        end = time.monotonic() + seconds
        # on a busy machine little happens in that time
        while (time.monotonic() < end or self.count <= 20) and \
                not any(c.done() for c in calls):
            time.sleep(0.1)
        self.over = True
        return calls, helping


def after(store):
    """When all is well again, so is the store."""
    if store.info()["mode"] != "rw":
        store.again()
    assert store.info()["mode"] == "rw", store.info()
    Server(*layers)
    for layer in layers:
        device = Device([layer], store=store)
        device.check()


@test("a store is filled", 60)
def _():
    cache_mib(2)
    big = layer_of(rng.randbytes(MIB) * 40, NONE, MIB)
    store = Store(34 * MIB)
    Server(big)
    device = Device([big], store=store)
    # what comes too fast is not stored; the first frames to go make room
    used = peak = 0
    for at in itertools.islice(itertools.cycle(range(0, 40 * MIB, MIB)), 800):
        device.read(at, 4 * KIB)
        info = store.info()
        used, peak = info["used"], max(peak, info["used"])
        if info["evicted"] and used > peak - 2 * sectors(MIB):
            break
    assert info["evicted"], info
    device.release()
    device.close()
    store.suspend()
    shutil.copyfile(store.path, FULL)


few = os.environ.get("STORM_KINDS") == "few"
KINDS = [] if few else [(None, 0)]
if faults.there():
    KINDS += [("failslab", 2), ("fail_page_alloc", 5),
              ("fail_make_request", 10)]
    KINDS += [] if few else [("failslab", 20), ("fail_make_request", 1)]
else:
    KINDS = [(None, 0)]
    say(f"kernel {os.uname().release} cannot inject faults: only the storm "
        "without them; the debug kernel's run has all")

for kind, percent in KINDS:
    @test(f"a storm, {kind} at {percent} %" if kind else "a storm", 100)
    def _():
        cache_mib(2)
        storm = Storm(kind)
        if kind == "fail_make_request":
            faults.fragile(os.path.basename(storm.store.loop.name))
        with faults.failing(kind, percent) if kind else \
                contextlib.nullcontext():
            calls, helping = storm.run(SECONDS)
        for call in calls:
            call.good(60)
        # readers wait for a helper until their end
        storm.done = True
        helping.good()
        info = storm.store.info()
        say(f"{storm.lives} devices, {storm.count} operations, "
            f"{storm.errors} errors; {info}")
        assert storm.count > 20 and storm.lives
        # it counts from nothing whenever it begins anew
        assert kind or info["evicted"] or info["stored"] < 100, info
        assert not kind or percent < 5 or storm.errors
        after(storm.store)


finish()
EOF
finish

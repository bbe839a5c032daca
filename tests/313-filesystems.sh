#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# ext4 and xfs on a device whose image is an empty file system: what is written
# is read, and after a power cut the file system is clean and no file is lost
# that was synced.
#
#   FSX_SECONDS	each run of fsx (5)
#   POWER_CUTS	each file system's cuts (3)
. "$(dirname "$0")/common.sh"
. "$tests/lib/python.sh"

modprobe -q -a ext4 xfs dm-log-writes dm-delay

python_tests <<'EOF2'
from rig import *
from logwrites import SECTOR, Checker, Disk, Logged, PairView

SEED = int(os.environ.get("FS_SEED", "0")) or random.randrange(1 << 32)
FSX = float(os.environ.get("FSX_SECONDS", "5"))
CUTS = int(os.environ.get("POWER_CUTS", "3"))
LIB = os.environ["PYTHONPATH"]
rng = random.Random(SEED)
say(f"FS_SEED={SEED}")
STEP = 64 * KIB


def run(*args, ok=(0,), limit=120):
    got = subprocess.run(args, capture_output=True, text=True,
                         timeout=patience(limit))
    assert got.returncode in ok, f"{args}: status {got.returncode}: " \
        f"{got.stdout[-1500:]} {got.stderr[-1500:]}"
    return got.stdout


class Kind:
    """An image with an empty file system on it."""

    def __init__(self, name, size, make, check):
        self.name, self.size, self.make, self.check_args = \
            name, size, make, check

    def image(self):
        fd, path = tempfile.mkstemp()
        os.ftruncate(fd, self.size)
        run(*self.make, path)
        content, self.extents = b"", []
        at = 0
        while at < self.size:
            try:
                at = os.lseek(fd, at, os.SEEK_DATA) // STEP * STEP
            except OSError:
                break
            part = os.pread(fd, STEP, at)
            if any(part):
                self.extents.append((at, len(part), 0, len(content)))
                content += part
            at += STEP
        os.close(fd)
        os.unlink(path)
        self.layer = layer_of(content, ZSTD, STEP)

    def check(self, node):
        run(*self.check_args, node)

    def usable(self):
        if not hasattr(self, "layer"):
            with open("/proc/filesystems") as f:
                if self.name not in f.read().split():
                    raise Skip(f"kernel {os.uname().release} has no "
                               f"{self.name}")
            self.image()


KINDS = [
    Kind("ext4", 96 * MIB, ("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096"),
         ("e2fsck", "-f", "-n")),
    Kind("xfs", 320 * MIB, ("mkfs.xfs", "-q", "-f"), ("xfs_repair", "-n")),
]


class Mount:
    def __init__(self, kind, node, options="discard"):
        self.where = tempfile.mkdtemp()
        run("mount", "-t", kind.name, "-o", options, node, self.where)
        self.there = True
        undo(self.close)

    def close(self):
        if self.there:
            run("umount", self.where)
            os.rmdir(self.where)
            self.there = False


for kind in KINDS:
    @test(f"{kind.name}: fio verifies mixed block sizes", 120)
    def _():
        kind.usable()
        device = Device([kind.layer], kind.extents, kind.size, cow=True)
        Server(kind.layer)
        device.model = None
        mount = Mount(kind, device.node)
        for i, extra in enumerate((("--direct=1", "--bsrange=4k-64k"),
                                   ("--direct=0", "--bsrange=512-20k"))):
            run("fio", "--name=v", f"--filename={mount.where}/fio{i}",
                "--size=3M", "--rw=randrw", "--verify=crc32c",
                "--verify_fatal=1", "--ioengine=psync", "--fsync=64",
                "--do_verify=1", "--norandommap=0", "--verify_backlog=64",
                "--thread", "--output=/dev/null", f"--randseed={SEED}",
                f"--aux-path={mount.where}", *extra)
        run("fstrim", mount.where)
        mount.close()
        kind.check(device.node)
        device.release()
        device.remove()
        device.pair()
        device.create()
        kind.check(device.node)

    @test(f"{kind.name}: fsx, two at once", 60 + 2 * FSX)
    def _():
        kind.usable()
        device = Device([kind.layer], kind.extents, kind.size, cow=True)
        Server(kind.layer)
        device.model = None
        mount = Mount(kind, device.node)
        programs = [subprocess.Popen(
            ["python3", f"{LIB}/fsx.py", f"{mount.where}/fsx{i}", str(FSX),
             str(SEED + i)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True) for i in range(2)]
        for program in programs:
            out, _ = program.communicate(timeout=FSX + patience(40))
            say(out)
            assert not program.returncode
        mount.close()
        kind.check(device.node)


# ---------------------------------------------------------------- power cuts

class Files:
    """What is on the file system for sure, mark by mark. In the model's place:
    so the checker sees to the overlay's structure, and to the blocks whose
    place is known: those of a file that is written in place, with FUA."""

    def __init__(self, logged):
        self.logged = logged
        self.place = {}			# block of the device -> name
        self.marks = []			# what was synced by each
        self.durable = {}
        self.passed = -1

    def mark(self, name, data):
        self.marks.append((name, data))
        self.logged.mark(f"m{len(self.marks) - 1}")

    def follow(self, mark):
        self.passed = mark
        name, data = self.marks[mark]
        self.durable[name] = data
        return [n for n, of in self.place.items() if of == name]

    def expect(self, mark):
        pass

    def why_not(self, n, got):
        name = self.place.get(n)
        if name not in self.durable:
            return None
        choices = [self.durable[name]] + \
            [data for of, data in self.marks[self.passed + 1:self.passed + 2]
             if of == name]
        return mixed(f"block {name[1]} of the file written in place", got,
                     choices)

    def now(self):
        """Name -> the contents it may have."""
        out = {}
        for name, data in self.marks[:self.passed + 1]:
            out[name] = {data}
        for name, data in self.marks[self.passed + 1:]:
            if name in out:
                out[name].add(data)
        return out


def mixed(what, got, choices):
    """None if each sector is one of a choice's: a block that is written in
    place may be torn. Or what is wrong."""
    for at in range(0, BLOCK, SECTOR):
        if got[at:at + SECTOR] not in [c[at:at + SECTOR] for c in choices]:
            return f"{what}, byte {at}: {got[at:at + 8].hex()}, " \
                f"not {[c[at:at + 8].hex() for c in choices]}"
    return None


def sync_file(where, name, data):
    with open(f"{where}/{name}", "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    fd = os.open(where, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def places(path, count):
    """Which blocks of the device a file's blocks are: FIEMAP."""
    arg = bytearray(struct.pack("=QQIIII", 0, count * BLOCK, 1, 0, count, 0) +
                    bytes(56 * count))
    with open(path, "rb") as f:
        fcntl.ioctl(f, 0xc020660b, arg)
    out = {}
    for i in range(struct.unpack_from("=I", arg, 20)[0]):
        logical, physical, length = struct.unpack_from("=QQQ", arg, 32 + 56 * i)
        for at in range(0, length, BLOCK):
            out[(logical + at) // BLOCK] = (physical + at) // BLOCK
    return out


def use(mount, files, count):
    """Files come and stay, are replaced by rename, and written in place; and
    others that nobody syncs come between."""
    where = mount.where
    blocks = 16
    path = f"{where}/inplace"
    with open(path, "wb") as f:
        f.write(bytes(blocks * BLOCK))
    os.sync()
    value = {n: bytes(BLOCK) for n in range(blocks)}
    files.place = {at: ("inplace", n)
                   for n, at in places(path, blocks).items() if n < blocks}
    assert len(files.place) == blocks
    for n in range(blocks):
        files.mark(("inplace", n), value[n])
    direct = os.open(path, os.O_RDWR | os.O_DIRECT | os.O_DSYNC)
    buf = mmap.mmap(-1, BLOCK)
    for i in range(count):
        noise_file = f"{where}/noise{i % 5}"
        with open(noise_file, "wb") as f:
            f.write(rng.randbytes(rng.randrange(1, 100000)))
        dice = rng.random()
        if dice < 0.4:
            data = rng.randbytes(rng.randrange(1, 60000))
            sync_file(where, f"f{i}", data)
            files.mark(f"f{i}", data)
        elif dice < 0.6:
            data = rng.randbytes(rng.randrange(1, 30000))
            sync_file(where, "new", data)
            # until this mark the old one, or this one
            os.rename(f"{where}/new", f"{where}/kept")
            fd = os.open(where, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
            files.mark("kept", data)
        else:
            n = rng.randrange(blocks)
            buf[:] = rng.randbytes(BLOCK)
            os.pwritev(direct, [buf], n * BLOCK)
            files.mark(("inplace", n), bytes(buf))
        if rng.random() < 0.1:
            os.unlink(noise_file)
        if rng.random() < 0.05:
            run("fstrim", where)
    os.close(direct)


def recover(kind, files, checker, split):
    """A computer that starts again: journal, check, files."""
    disk, paths = checker.disk, []
    for start, end in ((0, split), (split, 1 << 60)):
        fd, path = tempfile.mkstemp(suffix=".cut")
        for page, data in disk.pages.items():
            if start <= page * BLOCK < end:
                os.pwrite(fd, data, page * BLOCK - start)
        os.ftruncate(fd, checker.view.pair.tree.cow_bytes if start else split)
        os.close(fd)
        paths.append(path)
    loops = [Loop(path) for path in paths]
    name = f"cut{os.getpid()}-{len(checker.cuts)}"
    number = DM.call(DM.CREATE, name)["dev"]
    node = f"/dev/dm-{number & 0xff | number >> 12 & 0xfff00}"
    try:
        DM.load(name, kind.size // 512, f"{loops[0].name} - {loops[1].name}", 0)
        DM.call(DM.SUSPEND, name)
        mount = Mount(kind, node, "defaults")
        want = files.now()
        for file, choices in want.items():
            if isinstance(file, tuple):
                with open(f"{mount.where}/{file[0]}", "rb") as f:
                    f.seek(file[1] * BLOCK)
                    got = f.read(BLOCK)
                wrong = mixed(file, got, choices)
                assert not wrong, wrong
            else:
                with open(f"{mount.where}/{file}", "rb") as f:
                    got = f.read()
                assert got in choices, f"{file}: {len(got)} bytes, " \
                    f"{got[:8].hex()}, not {[c[:8].hex() for c in choices]}"
        mount.close()
        kind.check(node)
        checker.cuts.append(len(want))
    finally:
        DM.call(DM.REMOVE, name)
        for loop in loops:
            loop.close()
        for path in paths:
            os.unlink(path)


for kind in KINDS:
    @test(f"{kind.name}: power cuts: clean, and what was synced is there",
          150 + 10 * CUTS)
    def _():
        kind.usable()
        tree = overlay.Tree(kind.size)
        logged = Logged(tree.region_bytes + 1 * MIB, tree.cow_bytes)
        device = Device([kind.layer], kind.extents, kind.size,
                        on=(logged.meta.node, logged.cow.node))
        device.model = None
        Server(kind.layer)
        mount = Mount(kind, device.node)
        files = Files(logged)
        logged.flush()
        logged.mark("start")
        with open(f"/sys/block/{device.dm}/queue/fua") as f:
            say(f"the device takes FUA: {f.read().strip()}")
        use(mount, files, scale(60, 15))
        mount.close()
        device.close()
        logged.close()
        entries = logged.entries()
        split = logged.meta_bytes

        def image(offset, length):
            return bytes(length)	# its content is no business of ours

        disk = Disk()
        made = next(i for i, e in enumerate(entries) if e[2] == "m15")
        turns = sorted(rng.sample(range(made, len(entries)), CUTS - 1))

        def visit(checker):
            # in front of a flush that is what the disk's cache has left
            if turns and checker.entry >= turns[0]:
                turns.pop(0)
                recover(kind, files, checker, split)

        checker = Checker(disk, PairView(disk, split, image), files, SEED, 1,
                          visit, split=split)
        checker.cuts = []
        checker.replay(entries)
        recover(kind, files, checker, split)
        say(f"result: {kind.name}: {checker.points} points, "
            f"{len(checker.violations)} violations; {len(checker.cuts)} power "
            f"cuts with {sum(checker.cuts)} synced files")
        assert not checker.violations, checker.violations[:5]


finish()
EOF2
finish

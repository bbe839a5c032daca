# SPDX-License-Identifier: GPL-2.0-only
"""power-cut.py FIRST|NEXT|LAST DISK SYNCED: in a virtual machine that will be
killed. Checks that each file that the lines "synced NAME XXH64" of the file
SYNCED name is there, and the file system clean; then writes files for ever, with
such a line for each that is synced. FIRST: makes the device. LAST: only checks."""
from rig import *

SIZE = 192 * MIB
META = 8 * MIB
step, disk, synced = sys.argv[1:]


def sh(*args):
    subprocess.run(args, check=True, stdout=subprocess.DEVNULL)


below = Mapped("linear", META, f"{disk} 0")
cow = Mapped("linear", overlay.Tree(SIZE).cow_bytes, f"{disk} {META // 512}")
if step == "FIRST":
    device = Device([], [], SIZE, on=(below.node, cow.node))
    device.model = None
    node = device.node
    sh("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", node)
else:
    number = DM.call(DM.CREATE, "cut")["dev"]
    node = f"/dev/dm-{number & 0xff | number >> 12 & 0xfff00}"
    DM.load("cut", SIZE // 512, f"{below.node} - {cow.node}", 0)
    DM.call(DM.SUSPEND, "cut")
where = tempfile.mkdtemp()
sh("mount", "-t", "ext4", "-o", "discard", node, where)
want = {}
with open(synced) as f:
    for line in f:
        words = line.split()
        if len(words) == 3 and words[0] == "synced":
            want[words[1]] = words[2]
for name, digest in want.items():
    with open(f"{where}/{name}", "rb") as f:
        got = f"{xxh64(f.read()):016x}"
    if got != digest:
        sys.exit(f"{name}: {got}, not {digest}")
sh("umount", where)
sh("e2fsck", "-f", "-n", node)
print("checked", len(want), flush=True)
if step == "LAST":
    sys.exit()
sh("mount", "-t", "ext4", "-o", "discard", node, where)
first = max((int(name[1:]) for name in want), default=-1) + 1
for i in itertools.count(first):
    data = random.randbytes(random.randrange(1, 60000))
    with open(f"{where}/new", "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    with open(f"{where}/noise{i % 9}", "wb") as f:
        f.write(random.randbytes(random.randrange(1, 300000)))
    if i < first + 100:
        os.rename(f"{where}/new", f"{where}/f{i}")
        fd = os.open(where, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        print("synced", f"f{i}", f"{xxh64(data):016x}", flush=True)
    if random.random() < 0.1:
        os.unlink(f"{where}/noise{i % 9}")

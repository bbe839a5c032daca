#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# lazyframe check on files: each part is damaged and named; --repair mends what
# can be told for sure, and leaves the rest as it was, byte for byte.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
cd "$tap_dir" || exit 1

check "wrong use" says 2 "Usage" lazyframe check
check "--help" eval 'lazyframe check --help | grep -q Usage'
check "no such file" says 2 "nothing" lazyframe check nothing
check "a folder" says 2 "neither" lazyframe check .
head -c 100000 /dev/urandom >img
mkdir store
url=$(lazyframe build img "file://$PWD/store" 2>/dev/null | tail -n 1)
check "a new meta device is clean" eval 'lazyframe format m "$url" && lazyframe check m | grep -x "m: clean"'
check "with an overlay, too" eval 'lazyframe format mo "$url" --cow co &&
	lazyframe check mo --cow co | grep "^overlay .* 0 dirty and 0 zero of 25 blocks$"'
check "a COW without an overlay" eval '! lazyframe check m --cow co >out && cat out && grep "no overlay" out'
check "checking changes nothing" eval 'sha256sum m mo co >sums && lazyframe check mo --cow co --repair &&
	lazyframe check m --repair && sha256sum -c sums'

cat >body.py <<'END'
import json
import os
import shutil
import struct
import subprocess
import sys

sys.path.insert(0, os.environ["TESTS"] + "/lib")
import overlay
from lazyframe import BLOCK, Layer, meta, xxh64

SIZE = (2 * overlay.LEAF_BLOCKS + 70) * BLOCK
UUID = b"overlay-overlay!"
DIRTY = set(range(5, 400)) | {16383, 16384, 40000 % 32838, 32837}
ZERO = set(range(1000, 5000)) | {20000, 32836}
tree = overlay.Tree(SIZE)
TOTAL, FAILED = int(sys.argv[1]), 0


def make(sequence=6, epoch=5, flags=0, dirty=DIRTY, zero=ZERO):
    layers = [Layer(os.urandom(300000), frame=4096, locator="http://h/a"),
              Layer(os.urandom(70000), frame=65536, locator="http://h/b")]
    extents = [(0, 65536, 0, 0), (1 << 20, 65536, 1, 0)]
    meta("m", layers, extents, SIZE, overlay=overlay.region(
        tree, UUID, dirty, zero, sequence, epoch, flags))
    # as after a commit: the one before it is in the other slot
    place = regions()[5][0] * BLOCK + (sequence + 1) % 2 * 2 * BLOCK
    with open("m", "r+b") as f:
        f.seek(place)
        f.write(overlay.root(tree, UUID, sequence - 1, epoch) * 2)
    with open("c", "wb") as f:
        f.truncate(tree.cow_bytes)
        f.seek(tree.blocks * BLOCK)
        f.write(overlay.identity(tree, UUID, epoch))


def regions():
    with open("m", "rb") as f:
        block = f.read(BLOCK)
    return [struct.unpack_from("<QQQ", block, 88 + 24 * i) for i in range(6)]


def flip(path, at, bit=3):
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 1 << bit]))


def put(path, at, data):
    with open(path, "r+b") as f:
        f.seek(at)
        f.write(data)


def get(path, at, size):
    with open(path, "rb") as f:
        f.seek(at)
        return f.read(size)


def base():
    return regions()[5][0] * BLOCK


def reroot(change):
    """The root of the last commit with other fields, and a right sum."""
    for copy in range(2):
        at = base() + copy * BLOCK
        block = bytearray(get("m", at, BLOCK - 8))
        change(block)
        put("m", at, overlay.finish(bytes(block)))


def releaf(number, change):
    """A leaf with other bits, and right sums up to the root."""
    at = base() + tree.leaf_place(number, 0) * BLOCK
    leaf = bytearray(get("m", at, BLOCK))
    change(leaf)
    put("m", at, bytes(leaf))
    index_at = base() + tree.index_place(0, 0) * BLOCK
    put("m", index_at + 8 * number,
        struct.pack("<Q", overlay.node_sum(bytes(leaf), number)))
    index = get("m", index_at, BLOCK)
    reroot(lambda root: struct.pack_into(
        "<Q", root, overlay.ROOT.size, overlay.node_sum(index, 0)))


def super_field(at, data):
    block = bytearray(get("m", 0, BLOCK))
    block[at:at + len(data)] = data
    block[-8:] = struct.pack("<Q", xxh64(bytes(block[:-8])))
    put("m", 0, bytes(block))


def second_super(damage=False):
    """Another image took the first one's place, then slot 0 or 1 is damaged."""
    block = bytearray(get("m", 0, BLOCK))
    struct.pack_into("<Q", block, 88 + 32 * 24, 1)
    block[-8:] = struct.pack("<Q", xxh64(bytes(block[:-8])))
    put("m", BLOCK, bytes(block))
    flip("m", (0 if damage else BLOCK) + 30)


def set_bit(kind, n):
    def change(leaf):
        leaf[kind * overlay.LEAF_BYTES + n // 8] |= 1 << n % 8
    return change


NONE, MENDED, LEFT = "none", "repaired", "left"
DAMAGE = [
    # name, what to do, place, words, and what --repair does
    ("nothing", lambda: None, None, None, NONE),
    ("the commit before, which nobody needs",
     lambda: flip("m", base() + 2 * BLOCK + 50), None, None, NONE),
    ("what a commit that was cut off left",
     lambda: put("m", base() + 2 * BLOCK, os.urandom(2 * BLOCK)), None, None,
     NONE),
    ("a free slot of a leaf", lambda: put(
        "m", base() + tree.leaf_place(1, 1) * BLOCK, os.urandom(BLOCK)),
     None, None, NONE),
    ("the only superblock", lambda: flip("m", 100), "superblock slot 0",
     "checksum", LEFT),
    ("its magic", lambda: flip("m", 0), "superblock slot 0",
     "not a lazyframe meta device", LEFT),
    ("the newer superblock", second_super, "superblock slot 1", "checksum",
     MENDED),
    ("the older superblock", lambda: second_super(True), "superblock slot 0",
     "checksum", MENDED),
    ("the region LAYERS", lambda: flip("m", regions()[0][0] * BLOCK + 4),
     "region LAYERS", "checksum", LEFT),
    ("the region EXTENTS", lambda: flip("m", regions()[1][0] * BLOCK + 4),
     "region EXTENTS", "checksum", LEFT),
    ("the region RUNS", lambda: flip("m", regions()[2][0] * BLOCK + 4),
     "region RUNS", "checksum", LEFT),
    ("the region FRAMES", lambda: flip("m", regions()[3][0] * BLOCK + 4),
     "region FRAMES", "checksum", LEFT),
    ("the region STRINGS", lambda: flip("m", regions()[4][0] * BLOCK + 4),
     "region STRINGS", "checksum", LEFT),
    ("a meta device that was cut off", lambda: os.truncate(
        "m", os.path.getsize("m") - BLOCK), "superblock slot 0", "smaller",
     LEFT),
    ("a meta device of nearly nothing", lambda: os.truncate("m", 5000),
     "meta device", "too small", LEFT),
    ("the first copy of the root", lambda: flip("m", base() + 60),
     "root slot 0 copy 0", "checksum", MENDED),
    ("the second copy of the root", lambda: flip("m", base() + BLOCK + 4000),
     "root slot 0 copy 1", "checksum", MENDED),
    ("the second copy, zeroed", lambda: put(
        "m", base() + BLOCK, bytes(BLOCK)), "root slot 0 copy 1", "no root",
     MENDED),
    ("a root whose copies were written at two times", lambda: put(
        "m", base() + BLOCK, overlay.root(tree, UUID, 4, 5)),
     "root slot 0 copy 1", "another commit", MENDED),
    ("all roots", lambda: [flip("m", base() + n * BLOCK + 8)
                           for n in range(4)], "root", "", LEFT),
    ("an index", lambda: flip("m", base() + tree.index_place(0, 0) * BLOCK),
     "index 0", "checksum", LEFT),
    ("a leaf", lambda: flip("m", base() + tree.leaf_place(1, 0) * BLOCK + 9),
     "leaf 1", "blocks 16384 to 32767", LEFT),
    ("a block that is dirty and zero", lambda: releaf(0, set_bit(1, 7)),
     "leaf 0", "dirty and zero", LEFT),
    ("a dirty block behind the end", lambda: releaf(2, set_bit(0, 71)),
     "leaf 2", "behind the image", MENDED),
    ("a zero block behind the end", lambda: releaf(2, set_bit(1, 16383)),
     "leaf 2", "behind the image", MENDED),
    ("the count of dirty blocks", lambda: reroot(
        lambda r: struct.pack_into("<Q", r, 56, 17)), "root",
     "it counts 17 dirty", MENDED),
    ("the count of zero blocks", lambda: reroot(
        lambda r: struct.pack_into("<Q", r, 64, 18)), "root",
     "18 zero blocks", MENDED),
    ("an unknown flag", lambda: reroot(
        lambda r: struct.pack_into("<I", r, 12, 8)), None, None, "older"),
    ("a COW device that was cut off", lambda: os.truncate(
        "c", tree.cow_bytes - BLOCK), "COW device", "it has", LEFT),
    ("a COW device of another overlay", lambda: put(
        "c", tree.blocks * BLOCK, overlay.identity(tree, b"another overlay!",
                                                   5)),
     "COW device", "belongs to another overlay", LEFT),
    ("an older COW device", lambda: put(
        "c", tree.blocks * BLOCK, overlay.identity(tree, UUID, 4)),
     "COW device", "older copy", LEFT),
    ("an older COW device that is damaged", lambda: [
        put("c", tree.blocks * BLOCK, overlay.identity(tree, UUID, 3)),
        flip("c", (tree.blocks + 1) * BLOCK + 20)],
     "COW device", "older copy", LEFT),
    ("an older meta device", lambda: put(
        "c", tree.blocks * BLOCK, overlay.identity(tree, UUID, 6)),
     "COW device", "older copy", LEFT),
    ("a blank COW device", lambda: put(
        "c", tree.blocks * BLOCK, bytes(2 * BLOCK)), "COW device",
     "no overlay", LEFT),
    ("the identity's older copy", lambda: flip(
        "c", tree.blocks * BLOCK + 20), "COW identity copy 0", "checksum",
     MENDED),
    ("the identity's newer copy", lambda: flip(
        "c", (tree.blocks + 1) * BLOCK + 4000), "COW identity copy 1",
     "checksum", MENDED),
    ("both copies of the identity", lambda: [
        flip("c", (tree.blocks + n) * BLOCK + 20) for n in (0, 1)],
     "COW device", "checksum", LEFT),
]


def run(*options):
    p = subprocess.run(["lazyframe", "check", "m", "--cow", "c", "--json",
                        *options], capture_output=True, text=True)
    assert p.returncode in (0, 1), (p.returncode, p.stderr)
    return p.returncode, json.loads(p.stdout)


def same_sets():
    pair = overlay.pair("m", "c")
    assert pair.dirty_blocks() == DIRTY and pair.zero_blocks() == ZERO


def content():
    return [open(p, "rb").read() for p in ("m", "c")]


def point(name, function):
    global TOTAL, FAILED
    TOTAL += 1
    try:
        function()
        print(f"ok {TOTAL} {name}")
    except Exception as why:
        FAILED += 1
        print(f"not ok {TOTAL} {name}\n# {type(why).__name__} {why}")


def damage(do, place, words, repair):
    make()
    same_sets()
    do()
    before = content()
    status, out = run()
    assert content() == before, "checking changed something"
    if repair == "older":
        # the last commit's root is no root: the one before it counts
        assert overlay.pair("m", "c").root.sequence == 5
        return
    if repair == NONE:
        assert status == 0 and out["state"] == "clean", out
        same_sets()
        return
    assert status == 1 and out["state"] == "damaged", out
    assert any(f["place"] == place and words in f["what"]
               for f in out["findings"]), out
    assert not any(f["repaired"] for f in out["findings"])
    status, out = run("--repair")
    if repair == LEFT:
        assert status == 1 and not any(f["repaired"]
                                       for f in out["findings"]), out
        assert content() == before, "--repair changed something"
        return
    assert status == 0 and out["state"] == "repaired", out
    assert all(f["repaired"] for f in out["findings"])
    same_sets()
    if place in ("root", "leaf 2"):
        # as a commit: what the root before it names is untouched
        free = {2, 3, tree.index_place(0, 1), tree.leaf_place(2, 1)}
        after, first = content()[0], base() // BLOCK
        changed = {n - first for n in range(len(after) // BLOCK)
                   if after[n * BLOCK:(n + 1) * BLOCK] !=
                   before[0][n * BLOCK:(n + 1) * BLOCK]}
        assert changed and changed <= free, changed
    status, out = run()
    assert status == 0 and out["state"] == "clean", out


for name, do, place, words, repair in DAMAGE:
    point(name, lambda: damage(do, place, words, repair))


def activating():
    make(flags=overlay.ACTIVATING)
    put("c", tree.blocks * BLOCK, overlay.identity(tree, UUID, 4))
    assert run()[0] == 0
    # the copy that was being written when the power went
    put("c", (tree.blocks + 1) * BLOCK, os.urandom(BLOCK))
    assert run()[0] == 0


point("an activation that was cut off is no damage", activating)


def together():
    # one that can be mended hides none that cannot, and is left then
    make()
    releaf(2, set_bit(0, 71))
    flip("m", base() + tree.leaf_place(1, 0) * BLOCK + 9)
    status, out = run("--repair")
    assert status == 1 and len(out["findings"]) == 2
    assert not any(f["repaired"] for f in out["findings"]), out


point("where a leaf is lost, no new root is written", together)


def sealed():
    make(flags=overlay.SEALED)
    status, out = run()
    assert status == 0 and out["overlay"]["sealed"]
    assert out["overlay"]["dirty"] == len(DIRTY), out


point("a sealed overlay says so", sealed)


def noise():
    import random
    rng = random.Random(5)
    for _ in range(int(os.environ.get("CHECK_ROUNDS", "60"))):
        make()
        for _ in range(rng.randrange(1, 5)):
            path = rng.choice(("m", "m", "c"))
            size = os.path.getsize(path)
            at = rng.randrange(size - 5000, size) if path == "c" else \
                rng.randrange(size)
            put(path, at, rng.randbytes(rng.randrange(1, 4000)))
        before = content()
        status, out = run()
        assert content() == before, "checking changed something"
        mended, out = run("--repair")
        if mended == 0:
            again, left = run()
            assert again == 0, (out, left)
            if out["findings"] or status == 0:
                try:
                    pair = overlay.pair("m", "c")
                except overlay.Bad as bad:
                    raise AssertionError(f"clean, but {bad}")
                # with both copies gone it looks like a commit cut off
                if pair.root.sequence != 5:
                    same_sets()


point("random damage: what is called clean is, what is mended is as it was",
      noise)
with open("counts", "w") as f:
    f.write(f"{TOTAL} {FAILED}\n")
END
TESTS=$tests PYTHONDONTWRITEBYTECODE=1 python3 body.py $tap_count 2>body.err
if [ -s counts ]; then
	read -r tap_count failed <counts
	tap_failed=$((tap_failed + failed))
else
	sed 's/^/# /' body.err
	check "the program ran to its end" false
fi
tap_end

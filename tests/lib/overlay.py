# SPDX-License-Identifier: GPL-2.0-only
"""The overlay on disk, from the outside.

Written from kmod/overlay_disk.h and kmod/disk.h alone, so that the tests share
no code with what they test. Devices are seen through functions that read:
read(offset, length) gives exactly that many bytes.

	fresh(image_bytes)	what a meta and a COW device begin with
	Pair(meta, cow)		what is on a pair of devices, every check made
"""
import os
import struct

from lazyframe import BLOCK, xxh64

LEAF_BLOCKS = 16384
LEAF_BYTES = LEAF_BLOCKS // 8
INDEX_LEAVES = 504
ROOT_INDEXES = 448
ROOT_SLOTS = 2
ROOT_COPIES = 2
ROOT_BLOCKS = ROOT_SLOTS * ROOT_COPIES
ACTIVATING, SEALED = 1, 2
COW_COPIES = 2
OVERLAY_REGION = 5

ROOT = struct.Struct("<8sII16sQQQQQ")
COW = struct.Struct("<8sII16sQQ")
SUPER = struct.Struct("<8sIIQ16s16sQQQII")


class Bad(Exception):
    """What is on the devices is not a valid overlay."""


def need(condition, why):
    if not condition:
        raise Bad(why)


def node_sum(block, number):
    return xxh64(block, number) or 1


def finish(block):
    """A block of 4088 bytes with its own checksum behind it."""
    block = block.ljust(BLOCK - 8, b"\0")
    return block + struct.pack("<Q", xxh64(block))


class Tree:
    """The shape of an image's overlay."""

    def __init__(self, image_bytes):
        self.blocks = -(-image_bytes // BLOCK)
        self.leaves = -(-self.blocks // LEAF_BLOCKS)
        self.indexes = -(-self.leaves // INDEX_LEAVES)
        self.region_bytes = BLOCK * (
            ROOT_BLOCKS + 2 * self.indexes + 2 * self.leaves)
        self.cow_bytes = (self.blocks + COW_COPIES) * BLOCK

    def index_place(self, index, slot):
        return ROOT_BLOCKS + 2 * index + slot

    def leaf_place(self, leaf, slot):
        return ROOT_BLOCKS + 2 * self.indexes + 2 * leaf + slot


def root(tree, uuid, sequence=0, epoch=0, flags=0, dirty=0, zero=0, sums=(),
         slots=0, version=1):
    """One copy of a root. @slots: an integer, bit n is index n's slot."""
    block = ROOT.pack(b"LZYFROOT", version, flags, uuid, sequence, epoch,
                      tree.blocks, dirty, zero)
    block += struct.pack(f"<{ROOT_INDEXES}Q", *sums,
                         *[0] * (ROOT_INDEXES - len(sums)))
    return finish(block + slots.to_bytes(7 * 8, "little"))


def identity(tree, uuid, epoch=0, version=1):
    """Both copies of a COW device's identity, as after @epoch activations."""
    out = [bytes(BLOCK)] * COW_COPIES
    for e in range(max(0, epoch - 1), epoch + 1):
        out[e % COW_COPIES] = finish(COW.pack(
            b"LZYFRCOW", version, 0, uuid, e, tree.blocks))
    return b"".join(out)


def region(tree, uuid, dirty=(), zero=(), sequence=0, epoch=0, flags=0):
    """A region OVERLAY whose last commit has these sets of blocks."""
    out = bytearray(tree.region_bytes)
    leaves = {}
    for kind, blocks in ((0, dirty), (LEAF_BYTES, zero)):
        for n in blocks:
            leaf, bit = divmod(n, LEAF_BLOCKS)
            block = leaves.setdefault(leaf, bytearray(BLOCK))
            block[kind + bit // 8] |= 1 << bit % 8
    sums = [[0] * INDEX_LEAVES for _ in range(tree.indexes)]
    for leaf, block in leaves.items():
        at = tree.leaf_place(leaf, 0) * BLOCK
        out[at:at + BLOCK] = block
        sums[leaf // INDEX_LEAVES][leaf % INDEX_LEAVES] = node_sum(block, leaf)
    index_sums = [0] * tree.indexes
    for i, of in enumerate(sums):
        if any(of):
            block = struct.pack(f"<{INDEX_LEAVES}Q", *of) + bytes(64)
            at = tree.index_place(i, 0) * BLOCK
            out[at:at + BLOCK] = block
            index_sums[i] = node_sum(block, i)
    copy = root(tree, uuid, sequence, epoch, flags, len(dirty), len(zero),
                index_sums)
    at = sequence % ROOT_SLOTS * ROOT_COPIES * BLOCK
    out[at:at + ROOT_COPIES * BLOCK] = copy * ROOT_COPIES
    return bytes(out)


def fresh(image_bytes, uuid=None):
    """What nobody used yet: a region OVERLAY as (its begin, its size), and a
    COW device's identity."""
    tree = Tree(image_bytes)
    uuid = uuid or os.urandom(16)
    roots = root(tree, uuid) * ROOT_COPIES
    # what another overlay may have left there must not count
    return ((roots.ljust(ROOT_BLOCKS * BLOCK, b"\0"), tree.region_bytes),
            identity(tree, uuid))


class Super:
    """The superblock that counts."""

    def __init__(self, read):
        found = None
        for slot in range(2):
            block = read(slot * BLOCK, BLOCK)
            if block[:8] != b"LZYFRAME" or \
                    struct.unpack_from("<Q", block, BLOCK - 8)[0] != \
                    xxh64(block[:-8]):
                continue
            sequence, origin = struct.unpack_from("<Q16s", block,
                                                  SUPER.size + 32 * 24)
            need(sequence % 2 == slot, "superblock in the wrong slot")
            if found is None or sequence > found:
                found = sequence
                fields = SUPER.unpack_from(block)
                self.uuid, self.base_uuid = fields[4:6]
                self.generation, self.image_bytes, self.blocks = fields[6:9]
                self.sequence, self.origin = sequence, origin
                self.start, self.bytes, _ = struct.unpack_from(
                    "<QQQ", block, SUPER.size + OVERLAY_REGION * 24)
        need(found is not None, "no superblock")


class Root:
    def __init__(self, block, tree, place):
        (magic, version, self.flags, self.uuid, self.sequence, self.epoch,
         blocks, self.dirty, self.zero) = ROOT.unpack_from(block)
        need(magic == b"LZYFROOT", "no root")
        need(version == 1, "version of the root")
        need(struct.unpack_from("<Q", block, BLOCK - 8)[0] ==
             xxh64(block[:-8]), "sum of the root")
        need(not self.flags & ~(ACTIVATING | SEALED), "flags of the root")
        need(self.sequence % ROOT_SLOTS == place // ROOT_COPIES,
             "place of the root")
        need(blocks == tree.blocks, "size in the root")
        self.sums = struct.unpack_from(f"<{ROOT_INDEXES}Q", block, ROOT.size)
        self.slots = int.from_bytes(
            block[ROOT.size + 8 * ROOT_INDEXES:][:56], "little")
        need(not any(self.sums[tree.indexes:]), "indexes behind the last")
        self.block = block


class Identity:
    def __init__(self, block, tree, copy):
        magic, version, reserved, self.uuid, self.epoch, blocks = \
            COW.unpack_from(block)
        need(magic == b"LZYFRCOW", "no identity")
        need(version == 1 and not reserved, "version of the identity")
        need(struct.unpack_from("<Q", block, BLOCK - 8)[0] ==
             xxh64(block[:-8]), "sum of the identity")
        need(self.epoch % COW_COPIES == copy, "place of the identity")
        need(blocks == tree.blocks, "size in the identity")


def pick(blocks, parse, key):
    found, why = None, None
    for i, block in enumerate(blocks):
        try:
            one = parse(block, i)
        except Bad as bad:
            why = why or bad
            continue
        if found is None or key(one) > key(found):
            found = one
    if found is None:
        raise why
    return found


def cut(data):
    return [data[i:i + BLOCK] for i in range(0, len(data), BLOCK)]


def bits(number, base=0):
    """The numbers of the bits that are set."""
    while number:
        low = number & -number
        yield base + low.bit_length() - 1
        number ^= low


class Pair:
    """What a meta device and a COW device hold.

    load() may be called again and again: what did not change is not checked
    anew. dirty and zero: {leaf: integer, one bit a block}.
    """

    def __init__(self, meta, cow, load=True):
        self.meta, self.cow = meta, cow
        self.super = Super(meta)
        need(self.super.bytes, "no region OVERLAY")
        self.tree = Tree(self.super.image_bytes)
        need(self.super.bytes == self.tree.region_bytes, "size of the region")
        self.nodes = {}			# place -> (block, sum)
        self.dirty, self.zero = {}, {}
        if load:
            self.load()

    def read(self, place, count=1):
        return self.meta((self.super.start + place) * BLOCK, count * BLOCK)

    def node(self, place, number, want):
        block = self.read(place)
        known = self.nodes.get(place)
        if known is None or known[0] != block or known[1] != number:
            known = self.nodes[place] = (block, number, node_sum(block, number))
        need(known[2] == want, f"sum of node {number} in block {place}")
        return block

    def load(self):
        tree = self.tree
        self.root = pick(cut(self.read(0, ROOT_BLOCKS)),
                         lambda b, i: Root(b, tree, i), lambda r: r.sequence)
        self.identity = pick(
            cut(self.cow(tree.blocks * BLOCK, COW_COPIES * BLOCK)),
            lambda b, i: Identity(b, tree, i), lambda c: c.epoch)
        need(self.root.uuid == self.identity.uuid, "pair of two overlays")
        need(self.identity.epoch == self.root.epoch or
             (self.root.flags & ACTIVATING and
              self.identity.epoch + 1 == self.root.epoch),
             f"epochs {self.root.epoch} and {self.identity.epoch}")
        dirty, zero = {}, {}
        for i, want in enumerate(self.root.sums[:tree.indexes]):
            if not want:
                continue
            index = self.node(tree.index_place(i, self.root.slots >> i & 1), i,
                              want)
            sums = struct.unpack_from(f"<{INDEX_LEAVES}Q", index)
            slots = int.from_bytes(index[8 * INDEX_LEAVES:], "little")
            for j, want in enumerate(sums):
                if not want:
                    continue
                n = i * INDEX_LEAVES + j
                need(n < tree.leaves, "leaf behind the last")
                leaf = self.node(tree.leaf_place(n, slots >> j & 1), n, want)
                d = int.from_bytes(leaf[:LEAF_BYTES], "little")
                z = int.from_bytes(leaf[LEAF_BYTES:], "little")
                need(not d & z, "dirty and zero")
                left = tree.blocks - n * LEAF_BLOCKS
                need(left >= LEAF_BLOCKS or not (d | z) >> left,
                     "blocks behind the image")
                dirty[n], zero[n] = d, z
        self.dirty, self.zero = dirty, zero
        for name, of, want in (("dirty", dirty, self.root.dirty),
                               ("zero", zero, self.root.zero)):
            got = sum(n.bit_count() for n in of.values())
            need(got == want, f"{got} {name} blocks, the root says {want}")

    def dirty_blocks(self):
        return {n for leaf, d in self.dirty.items()
                for n in bits(d, leaf * LEAF_BLOCKS)}

    def zero_blocks(self):
        return {n for leaf, z in self.zero.items()
                for n in bits(z, leaf * LEAF_BLOCKS)}

    def block(self, n, image):
        """What a device must show in block @n over @image(offset, length)."""
        leaf, bit = divmod(n, LEAF_BLOCKS)
        if self.dirty.get(leaf, 0) >> bit & 1:
            return self.cow(n * BLOCK, BLOCK)
        if self.zero.get(leaf, 0) >> bit & 1:
            return bytes(BLOCK)
        return image(n * BLOCK, BLOCK)

    def show(self, image):
        """All that a device must show over the bytes @image."""
        out = bytearray(image)
        for n in self.zero_blocks():
            end = min((n + 1) * BLOCK, len(out))
            out[n * BLOCK:end] = bytes(end - n * BLOCK)
        for n in self.dirty_blocks():
            end = min((n + 1) * BLOCK, len(out))
            out[n * BLOCK:end] = self.cow(n * BLOCK, BLOCK)[:end - n * BLOCK]
        return bytes(out)


def reader(path):
    """read(offset, length) of a file or device; zeros behind its end."""
    def read(offset, length):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, length, offset).ljust(length, b"\0")
        finally:
            os.close(fd)
    return read


def pair(meta, cow):
    return Pair(reader(meta), reader(cow))

# SPDX-License-Identifier: GPL-2.0-only
"""
What programs read from the root file system of a Debian. reads.txt is what this
program printed, in a virtual machine, of the image that `make demo` makes:

    tests/vm -n -- python3 tests/lib/reads.py IMAGE
"""
import os
import re
import subprocess
import sys
import textwrap

BLOCK = 16384
# Each is started with no page in memory, as in a machine of its own. The last
# is what nobody shall suffer from.
PROGRAMS = {
    "shell": "id; ls -l /etc /usr/bin; uname -a; env; cat /etc/os-release; date",
    "login": "getent passwd root; id; groups; mount; df; stat /; tty || true",
    "python": "python3 -c 'import os, re, sys, subprocess, threading; "
              "print(sorted(os.listdir(\"/usr/lib\")))'",
    "server": "python3 -c 'import socket, selectors, signal, struct, logging, "
              "hashlib, argparse, configparser, datetime, tempfile'",
    "tests": "python3 -m compileall -q -f /usr/lib/python3.11/re "
             "/usr/lib/python3.11/collections >/dev/null; true",
    "packages": "dpkg -l; apt-cache policy dpkg; dpkg -S /bin/ls; "
                "apt-get -s remove tzdata",
    "perl": "perl -e 'use strict; use POSIX; use Socket; use Getopt::Long; "
            "use IO::File; print join(\",\", sort keys %INC), \"\\n\"'",
    "text": "sort /etc/passwd | awk -F: '{print $1}' | sed s/a/b/ | md5sum; "
            "find /etc -type f | xargs wc -l; gzip -c /etc/bash.bashrc | zcat | "
            "tail -n 1; diff /etc/group /etc/passwd || true",
    "find": "find / -xdev -printf '%p %s\\n' | sort | md5sum",
    "backup": "tar -C / --one-file-system -cf - . | md5sum",
}
SCAN = "backup"


def recorded():
    """name -> [(first block, blocks)]"""
    out = {}
    with open(os.path.join(os.path.dirname(__file__), "reads.txt")) as f:
        for line in f:
            if line.endswith(":\n"):
                ranges = out[line[:-2]] = []
            elif not line.startswith("#"):
                ranges += [tuple(map(int, word.split("+")))
                           for word in line.split()]
    return out


def day(sessions, rng):
    """[(first block, blocks)] of so many of them, some kinds often, with a
    third of a backup now and then. Blocks that nobody reads have no number."""
    kinds = recorded()
    del kinds[SCAN][len(kinds[SCAN]) // 3:]
    number = {block: i for i, block in enumerate(sorted(
        {block for kind in kinds.values() for first, count in kind
         for block in range(first, first + count)}))}
    names = [name for name in kinds if name != SCAN]
    rng.shuffle(names)
    often = [1 / (n + 1) for n in range(len(names))]
    out = []
    for n in range(sessions):
        name = SCAN if n % 6 == 2 else rng.choices(names, often)[0]
        out += [(number[first], count) for first, count in kinds[name]]
    return out


def sh(command, **kw):
    return subprocess.run(command, shell=True, check=True, text=True,
                          stdout=subprocess.PIPE, **kw).stdout.strip()


def joined(reads):
    """Bytes as blocks; what goes on where the last one ended is one with it."""
    out = []
    for at, n in reads:
        first, end = at // BLOCK, (at + n - 1) // BLOCK + 1
        if out and out[-1][0] <= first <= out[-1][1]:
            out[-1] = out[-1][0], max(out[-1][1], end)
        else:
            out.append((first, end))
    return [(first, end - first) for first, end in out]


def record(image):
    os.environ["DM_DISABLE_UDEV"] = "1"
    sh("modprobe -a loop dm_mod ext4; mountpoint -q /sys/kernel/tracing || "
       "mount -t tracefs none /sys/kernel/tracing")
    loop = sh(f"losetup -rf --show {image}")
    sh(f"dmsetup create -r reads --table "
       f"'0 {sh(f'blockdev --getsz {loop}')} linear {loop} 0'")
    # a device of its own tells the image's reads from all others
    minor = sh("dmsetup info -c --noheadings -o minor reads")
    major = sh("dmsetup info -c --noheadings -o major reads")
    trace = "/sys/kernel/tracing"
    event = f"{trace}/events/block/block_bio_queue"
    sh(f"echo 32768 >{trace}/buffer_size_kb; "
       f"echo 'dev == {int(major) << 20 | int(minor)}' >{event}/filter")
    print("# SPDX-License-Identifier: GPL-2.0-only\n"
          "# See reads.py. The blocks of 16 KiB that each program read: "
          "first+count.")
    for name, command in PROGRAMS.items():
        sh(f"echo 3 >/proc/sys/vm/drop_caches; echo >{trace}/trace; "
           f"echo 1 >{event}/enable; mount -o ro,noload /dev/mapper/reads /mnt; "
           "mount -t tmpfs none /mnt/tmp; mount -t proc none /mnt/proc")
        status = subprocess.run(["chroot", "/mnt", "sh", "-c", command],
                                stdout=subprocess.DEVNULL).returncode
        sh(f"umount /mnt/tmp /mnt/proc /mnt; echo 0 >{event}/enable")
        print(f"{name}: status {status}", file=sys.stderr)
        print(f"{name}:")
        with open(f"{trace}/trace") as f:
            ranges = joined((int(at) * 512, int(n) * 512) for at, n in
                            re.findall(r" R\w* (\d+) \+ (\d+) ", f.read()))
        print("\n".join(textwrap.wrap(
            " ".join(f"{at}+{n}" for at, n in ranges), 78)))
    sh(f"dmsetup remove reads; losetup -d {loop}")


if __name__ == "__main__":
    record(sys.argv[1])

# SPDX-License-Identifier: GPL-2.0-only
"""Calls of the kernel that fail, where it can inject that."""
import contextlib
import errno
import functools
import os

from rig import Server, Skip

DEBUG = "/sys/kernel/debug/"
BUSY = errno.EFAULT, errno.ENOMEM


def module_text():
    with open("/proc/modules") as f:
        for line in f:
            if line.startswith("lazyframe "):
                fields = line.split()
                return int(fields[5], 16), int(fields[1])
    raise AssertionError("no module")


def function(name):
    """Where a function of the kernel begins and ends."""
    with open("/proc/kallsyms") as f:
        symbols = sorted((int(line.split()[0], 16), line.split()[2])
                         for line in f if "[" not in line)
    start = next(at for at, symbol in symbols if symbol == name)
    return start, next(at for at, _ in symbols if at > start)


@functools.cache
def spared():
    """Linux 6.12 itself leaks a name where this fails in a new slab, as dm-bufio
    makes one."""
    return function("sysfs_slab_add")


def there():
    return os.path.isdir(DEBUG + "failslab")


@contextlib.contextmanager
def failing(kind, percent):
    """Calls of @kind that come from the module fail at random; of kind
    fail_make_request, I/O on what is fragile(), whoever asks for it."""
    start, size = module_text()
    settings = {"probability": 0, "verbose": 0, "interval": 1, "times": -1,
                "space": 0, "task-filter": "N",
                "require-start": start, "require-end": start + size,
                "reject-start": spared()[0], "reject-end": spared()[1],
                "stacktrace-depth": 32}
    if kind == "fail_make_request":
        settings.update({"require-start": 0, "require-end": (1 << 64) - 1,
                         "reject-start": 0, "reject-end": 0})
    if kind in ("failslab", "fail_page_alloc"):
        settings["ignore-gfp-wait"] = "N"
    if kind == "fail_page_alloc":
        settings["min-order"] = 0
        settings["ignore-gfp-highmem"] = "N"

    def write(name, value):
        path = f"{DEBUG}{kind}/{name}"
        if name == "require-start" and not os.path.exists(path):
            raise Skip("the kernel has no FAULT_INJECTION_STACKTRACE_FILTER")
        if os.path.exists(path):
            with open(path, "w") as f:
                f.write(str(value) + "\n")

    for name, value in settings.items():
        write(name, value)
    # last: now that nobody else can be hit
    write("probability", percent)
    try:
        yield
    finally:
        write("probability", 0)
        write("times", 0)


def fragile(disk, value=1):
    """A disk (loop0) whose I/O fail_make_request may hit."""
    with open(f"/sys/block/{disk}/make-it-fail", "w") as f:
        f.write(str(value))


class Stubborn(Server):
    """Repeats what met a failing copy or allocation."""

    def layer(self, request):
        while True:
            try:
                return super().layer(request)
            except OSError as e:
                if e.errno not in BUSY:
                    raise

    def take(self):
        try:
            return super().take()
        except OSError as e:
            if e.errno not in BUSY:
                raise
            return []

    def answer(self, request):
        data = self.data(request)
        at = request.have
        while at < request.length:
            piece = data[at:at + 4096]
            try:
                self.helper.fill(request, piece, offset=at)
                at += len(piece)
            except OSError as e:
                if e.errno not in BUSY:
                    raise

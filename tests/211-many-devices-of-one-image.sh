#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# The same image attached many times, and read by all at once: the server is
# asked for what one device asks for, by its own log.
. "$(dirname "$0")/remote.sh"

url=$(url_of odd-zstd-4K)
image=$images/image/odd
nginx_start

# read_by HOW DEVICE...: "spots": blocks far apart, at the same moment by all of
# them, one after the other; "all": everything. Status 0 if each got the image.
cat >"$tap_dir/read_by" <<'END'
import mmap
import os
import sys
import threading

how, image, *devices = sys.argv[1:]
want = open(image, "rb").read()
want += bytes(-len(want) % 512)
size = len(want)
spots = [at * 4096 for at in (200, 150, 100, 50, 5)]
barrier = threading.Barrier(len(devices))
wrong = []


def read(device, at, length):
    buffer = mmap.mmap(-1, length)
    fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
    done = 0
    while done < length:
        n = os.preadv(fd, [memoryview(buffer)[done:]], at + done)
        assert n, f"{device} ends at {at + done}"
        done += n
    os.close(fd)
    assert buffer[:] == want[at:at + length], f"{device}: wrong at {at}"


def reader(device):
    try:
        for at in spots if how == "spots" else range(0, size, 64 << 10):
            if how == "spots":
                barrier.wait()
            read(device, at, 4096 if how == "spots" else
                 min(64 << 10, size - at))
    except Exception as error:
        wrong.append(f"{device}: {error}")
        barrier.abort()


threads = [threading.Thread(target=reader, args=(d,)) for d in devices]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit("\n".join(wrong) or 0)
END
read_by() { /usr/bin/python3 "$tap_dir/read_by" "$1" "$image" "${@:2}"; }

# the ranges that were asked for, and what is read of them
ranges() { requests | range_bytes | sort -n; }
bytes() { awk '{ sum += $3 } END { print sum + 0 }' "$1"; }
count() { wc -l <"$1"; }
# none of the bytes was asked for twice
once() { awk '$1 <= last && NR > 1 { exit 1 } { last = $2 }' "$1"; }

all_attached()
{
	for name; do
		attach "$name" "$nginx/$url" || return 1
	done
}
all_detached()
{
	for name; do
		detach "$name" || return 1
	done
	[ "$(module cache_frames)" = 0 ]
}
# from_nothing HOW LOG NAME...: attached, read, detached
from_nothing()
{
	local how=$1 log=$2

	shift 2
	all_attached "$@" && forget && read_by $how "${@/#//dev/mapper/}" || return 1
	ranges >"$tap_dir/$log"
	cat "$tap_dir/$log"
	all_detached "$@"
}
many=$(seq -f "m%.0f" $SHARERS)

helper_start
check "one device, blocks here and there" from_nothing spots one one
check "$SHARERS devices, the same blocks at the same moment" from_nothing spots many $many
check "the requests are those of one device" cmp "$tap_dir/one" "$tap_dir/many"
check "one device, read as a whole" from_nothing all one one
check "$SHARERS devices, all at once" from_nothing all many $many
check "no byte was asked for twice" eval 'once "$tap_dir/one" && once "$tap_dir/many"'
check "and as many as by one device" test "$(bytes "$tap_dir/one")" = "$(bytes "$tap_dir/many")"
merged="$(count "$tap_dir/one") and $(count "$tap_dir/many") with neighbours merged"
helper_kill

# Neighbours are merged as they happen to come together: here none is.
helper_start --range-max 4096
check "one device, a request for each frame" from_nothing all one one
check "$SHARERS devices" from_nothing all many $many
check "the requests are those of one device, again" cmp "$tap_dir/one" "$tap_dir/many"
echo "# result: one device and $SHARERS: $(count "$tap_dir/one") and" \
	"$(count "$tap_dir/many") requests, $(bytes "$tap_dir/many") bytes each; $merged"
finish

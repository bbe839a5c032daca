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
# made NAME...: some by the command, all others by the first one's table
made()
{
	local device n=0

	for device; do
		if [ $((n % 8)) = 0 ]; then
			attach "$device" "$nginx/$url" || return 1
		else
			dmsetup create --readonly "$device" --table "$(dmsetup table $1)" ||
				return 1
		fi
		n=$((n + 1))
	done
}
# gone NAME...: the first one last, for its table is in use until then
gone()
{
	local n

	for ((n = $# - 1; n >= 0; n--)); do
		if [ $((n % 8)) = 0 ]; then
			detach "${@:n + 1:1}" || return 1
		else
			dmsetup remove "${@:n + 1:1}" || return 1
		fi
	done
	[ "$(module cache_frames)" = 0 ]
}
# read_from_nothing LOG NAME...: first some blocks, then all
read_from_nothing()
{
	local log=$1 how

	shift
	made "$@" || return 1
	for how in spots all; do
		forget
		read_by $how "${@/#//dev/mapper/}" || return 1
		ranges >"$tap_dir/$log.$how"
		cat "$tap_dir/$log.$how"
	done
	gone "$@"
}

# Neighbours are merged as they happen to come together: here none is.
helper_start --range-max 4096
check "one device is read" read_from_nothing one one
check "$SHARERS devices are read at once" read_from_nothing many \
	$(seq -f "m%.0f" $SHARERS)
check "of the same blocks, the requests are those of one device" \
	cmp "$tap_dir/one.spots" "$tap_dir/many.spots"
check "and of the whole, too" cmp "$tap_dir/one.all" "$tap_dir/many.all"
check "there were some" test "$(count "$tap_dir/one.spots")" = 5 -a \
	"$(count "$tap_dir/one.all")" -gt 100
echo "# result: $SHARERS devices: $(count "$tap_dir/many.all") requests for" \
	"$(bytes "$tap_dir/many.all") bytes; one: $(count "$tap_dir/one.all") for" \
	"$(bytes "$tap_dir/one.all")"
finish

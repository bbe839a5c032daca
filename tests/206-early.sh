#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Bytes are handed over as they come: the reader of the first frame of a big
# range is done before the server has sent the range. The server holds the range
# in the middle until it is told to go on; nothing here is timed.
. "$(dirname "$0")/remote.sh"

faults=$images/image/faults
url=$(url_of faults-zstd-128K)
server_start
check "attach" attach r "$server/$url" --fetch-timeout 200
control forget "fault hold at=700000"
# 2 MiB at once, while there is no helper: neighbours, and so one range
dd if=/dev/mapper/r of="$tap_dir/all" bs=2M count=1 iflag=direct status=none &
big=$!
check "a reader of 16 frames waits" until_true waiting_over r 0
check "the helper comes" helper_start --stall-timeout 600
check "the reader of the first frame is done" eval 'cmp -n 65536 /dev/mapper/r "$faults"'
check "so is that of the fifth" eval 'cmp \
	<(dd if=/dev/mapper/r bs=64k count=1 skip=9 iflag=direct status=none) \
	<(dd if="$faults" bs=64k count=1 skip=9 status=none)'
check "the server has not ended an answer yet" eval '[ -z "$(control log | grep "^GET .*zstd")" ]'
dd if=/dev/mapper/r of="$tap_dir/late" bs=64k count=1 skip=12 iflag=direct status=none &
late=$!
check "the big reader still waits" kill -0 $big
check "the seventh frame's reader waits" eval 'until_true waiting_over r 1 && kill -0 $late'
control release
check "then it is done" eval 'wait $late && cmp "$tap_dir/late" \
	<(dd if="$faults" bs=64k count=1 skip=12 status=none)'
check "and the big reader" eval 'wait $big && cmp -n 2M "$tap_dir/all" "$faults"'
check "the held answer was one range of several frames" eval 'served | tee "$tap_dir/served"
	awk "{ split(\$3, r, \"-\"); if (r[2] - r[1] > 1000000) found = 1 }
		END { exit !found }" "$tap_dir/served"'
check "each byte came once" eval 'awk "{ sum += \$5 } END { print sum; exit sum > 2200000 }" "$tap_dir/served"'
finish

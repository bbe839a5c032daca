#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Objects that other tools made (tests/seekable.py) attach as they are.
. "$(dirname "$0")/remote.sh"

check "nginx" nginx_start
check "lazyframed" helper_start
odd=$images/image/odd
for object in "$images"/foreign/*; do
	object=${object##*/}
	check "$object attaches" attach f "$nginx/foreign/$object"
	check "$object equals, O_DIRECT" same f "$odd" iflag=direct
	check "$object equals" same f "$odd"
	check "$object detaches" detach f
	check "$object from a file" eval 'attach f "file://$images/foreign/$object" &&
		same f "$odd" && detach f'
done

# A zstd frame may hold less than the table tells, or other bytes than it sums
damaged()
{
	cp "$images/foreign/even-checksums.zst" "$tap_dir/$1.zst"
	printf '\377\377' | dd of="$tap_dir/$1.zst" bs=1 seek="$2" conv=notrunc status=none
	attach f "file://$tap_dir/$1.zst"
}
check "a damaged frame attaches" damaged inside 100000
check "its neighbours can be read" \
	dd if=/dev/mapper/f of=/dev/null bs=64K count=1 iflag=direct
check "it cannot" eval '! same f "$odd" iflag=direct'
check "and was counted" test "$(counter f frames_bad)" -gt 0
# each_block: errors in one frame of 16 blocks, the image's bytes elsewhere
each_block()
{
	/usr/bin/python3 - "$odd" /dev/mapper/f <<-'END'
	import mmap, os, sys
	image = open(sys.argv[1], "rb").read()
	fd = os.open(sys.argv[2], os.O_RDONLY | os.O_DIRECT)
	block = mmap.mmap(-1, 4096)
	bad = 0
	for at in range(0, 1 << 20, 4096):
	    try:
	        os.preadv(fd, [block], at)
	    except OSError:
	        bad += 1
	        continue
	    if block[:] != image[at:at + 4096]:
	        sys.exit(f"wrong bytes at {at}")
	print(bad, "blocks cannot be read")
	sys.exit(bad != 16)
	END
}
check "no read got wrong bytes" each_block
check "it detaches" detach f
finish

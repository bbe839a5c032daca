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
check "no read got wrong bytes" eval '(bad=0; for i in $(seq 0 255); do
	dd if=/dev/mapper/f bs=4K count=1 skip=$i iflag=direct 2>"$tap_dir/err" >"$tap_dir/piece" ||
		{ grep -q "error reading" "$tap_dir/err" && bad=$((bad + 1)) && continue; }
	cmp "$tap_dir/piece" <(tail -c +$((i * 4096 + 1)) "$odd" | head -c 4096) || exit 1
	done; echo "$bad blocks cannot be read"; [ "$bad" = 16 ])'
check "it detaches" detach f
finish

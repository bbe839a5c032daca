#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# From build to detach with the helper running: each kind of image reads back
# equal, and list and status tell about it.
. "$(dirname "$0")/common.sh"
cd "$tap_dir" || exit 1

modprobe loop
cleanup() { kill $helper; }
mkdir store
head -c 700001 /dev/urandom >img
cat /bin/bash >>img
truncate -s +300000 img
padded=$((($(stat -c %s img) + 511) / 512 * 512))
truncate -s $padded padded
cat img | dd of=padded conv=notrunc status=none

check "attach before the helper runs" eval 'url=$(lazyframe build img \
	"file://$PWD/store" 2>/dev/null) && lazyframe attach early "$url" 2>note'
check "a note says so" grep "no helper is attached" note
cmp padded /dev/mapper/early >cmp.early 2>&1 &
early=$!
lazyframed >log 2>&1 &
helper=$!
check "its reader got every byte when the helper came" wait $early

for codec in zstd lz4 none; do
	check "$codec: attach" eval 'url=$(lazyframe build img \
		"file://$PWD/store" --codec $codec 2>/dev/null) &&
		lazyframe attach $codec "$url" 2>note'
	check "$codec: no note" test ! -s note
	check "$codec: equal, buffered" cmp padded /dev/mapper/$codec
	check "$codec: equal, direct" eval 'dd if=/dev/mapper/$codec bs=64K \
		iflag=direct status=none | cmp - padded'
done
check "a raw object" eval 'lazyframe attach raw "file://$PWD/img" &&
	cmp padded /dev/mapper/raw'
check "list shows all, and the helper" \
	eval '[ "$(lazyframe list | grep -c " attached ")" = 5 ]'
check "counters add up" eval 'for n in early zstd lz4 none raw; do
	lazyframe status $n --json | python3 -c "
import json, sys
d = json.load(sys.stdin)
s, c = d[\"status\"], d[\"counters\"]
assert s[\"reads\"] == c[\"reads\"] > 0, d
assert s[\"reads\"] == sum(s[\"reads_\" + k] for k in
	(\"zero\", \"memory\", \"fetched\", \"failed\")), d
assert s[\"reads_fetched\"] > 0 and not s[\"reads_failed\"], d
assert not s[\"frames_bad\"] and d[\"helper\"] == \"attached\", d
" || exit 1; done'
check "rates are shown" eval 'lazyframe status zstd >s &&
	grep -E "^fetched +[0-9.]+ %" s && grep -E "^average request +" s'
kill $helper
wait $helper 2>/dev/null
check "detach all" eval 'for n in early zstd lz4 none raw; do
	lazyframe detach $n || exit 1; done; [ -z "$(lazyframe list)" ]'
check "nothing is left" eval '[ -z "$(ls -A /var/lib/lazyframe)" ] &&
	! cat /sys/block/loop*/loop/backing_file 2>/dev/null | grep .'
finish

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Whom one need not trust: a header that is not the one that was meant is refused
# (attach --sha256); and a layer whose bytes were exchanged where they are stored
# is found by dm-verity on top.
. "$(dirname "$0")/common.sh"
cd "$tap_dir" || exit 1
. "$tests/lib/store.sh"

export DM_DISABLE_UDEV=1
modprobe -a loop dm-verity
cleanup()
{
	kill $helper
	cd /
	rm -f /var/lib/lazyframe/[xy].meta
}
lazyframed >helper.log 2>&1 &
helper=$!

head -c 3000000 /dev/urandom >img
truncate -s 3002368 img
root=$(veritysetup format img img.hash | sed -n 's/^Root hash:[[:space:]]*//p')
url=$(build -c none img)
header=${url#file://}
pin=$(sha256sum "$header" | cut -c 1-64)
wrong=$(sha256sum img | cut -c 1-64)
check "there are an image, its hash tree, and its header" test "$root" -a "$pin"

# A header is what it was meant to be.
check "inspect shows the SHA-256 of the header" \
	eval 'lazyframe inspect "$url" | grep -q "$pin" && json "$url" "j[\"sha256\"] == \"$pin\""'
check "attach --sha256: the right one" \
	eval 'lazyframe attach x "$url" --sha256 $pin && cmp img /dev/mapper/x'
check "in capitals, too" \
	eval 'lazyframe detach x && lazyframe attach x "$url" --sha256 ${pin^^} && lazyframe detach x'
check "another one is refused, and nothing is left" \
	eval 'says 1 "$pin" lazyframe attach x "$url" --sha256 $wrong && ! test -e /dev/mapper/x &&
	! test -e /var/lib/lazyframe/x.meta'
check "what is no SHA-256 is an error of use" \
	eval 'says 2 "64 hex digits" lazyframe attach x "$url" --sha256 abc &&
	says 2 "64 hex digits" lazyframe attach x "$url" --sha256 ${pin/?/g}'
check "a single object has no header to be sure of" \
	eval 'says 1 "is of a header" lazyframe attach x "file://$PWD/img" --sha256 $pin'

# An overlay knows what it was made from, without the store.
check "with an overlay" \
	eval 'lazyframe attach x "$url" --cow cow --sha256 $pin &&
	dd if=/dev/zero of=/dev/mapper/x bs=4096 count=3 oflag=direct conv=fsync status=none &&
	lazyframe detach x'
check "again, while the store is away" \
	eval 'mv store away; lazyframe attach x "$url" --cow cow --sha256 $pin; status=$?;
	mv away store; [ $status = 0 ] && lazyframe detach x'
check "an overlay of another header is refused" \
	eval 'says 1 "$pin" lazyframe attach x "$url" --cow cow --sha256 $wrong &&
	! test -e /dev/mapper/x'
check "after an export it is the new header's" \
	eval 'lazyframe attach x "$url" --cow cow && new=$(lazyframe export -q x "$base") &&
	lazyframe detach x && newpin=$(sha256sum "${new#file://}" | cut -c 1-64) &&
	lazyframe attach x "$new" --cow cow --sha256 $newpin && lazyframe detach x &&
	says 1 "$newpin" lazyframe attach x "$new" --cow cow --sha256 $pin'

# dm-verity trusts nobody but its root hash.
verity()
{
	veritysetup open /dev/mapper/y v img.hash $root || return 1
	"$@"
	local status=$?
	veritysetup close v
	return $status
}
# other BYTE: what is stored is changed there, as one who may write there could
other()
{
	printf X | dd of="$object" bs=1 seek="$1" conv=notrunc status=none
}
object=$(find store -type f -size +2M ! -name '*.header' | head -n 1)
check "dm-verity on top: it is the image" \
	eval 'lazyframe attach y "$url" --sha256 $pin && verity cmp img /dev/mapper/v &&
	lazyframe detach y'
cp "$object" kept
other 1000000
check "a byte was exchanged in the store: the device shows it" \
	eval 'lazyframe attach y "$url" --sha256 $pin && ! cmp -s img /dev/mapper/y'
log_expected='device-mapper: verity|Buffer I/O error'
check "dm-verity does not: that block is an error, the others are right" \
	eval 'verity eval "! cat /dev/mapper/v >/dev/null 2>&1 &&
	cmp -n 999424 img /dev/mapper/v &&
	cmp -i 1003520 img /dev/mapper/v"; status=$?; lazyframe detach y; [ $status = 0 ]'
check "verify cannot tell: a raw layer has no checksum" \
	eval 'lazyframe verify "$url" >said &&
	grep -F "no checksum that could be wrong" said'
cp kept "$object"
check "all is well again" eval 'lazyframe attach y "$url" --sha256 $pin &&
	cmp img /dev/mapper/y && lazyframe detach y'
finish

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# rgw-device.sh ENDPOINT URL IMAGE USER: devices whose layers are in a real store.
# For cli/071-rgw.sh, in a machine that reaches the store; the keys are known there.
. "$(dirname "$0")/../remote.sh"
. "$tests/s3.sh"
export AWS_ENDPOINT_URL_S3=$1
url=$2 image=$3 user=$4
umask 077
s3() { AWS_ACCESS_KEY_ID=AKIARGW AWS_SECRET_ACCESS_KEY=rgw/secret+1 python3 "$tests/lib/s3.py" "$@"; }

s3_key_file AKIADEVICE1 secret/1
check "attach" attach d "$url"
check "the helper comes" helper_start --range-max 256K --connections 2
check "the device equals the image" same d "$image" iflag=direct

# What is written
model=$tap_dir/model
cp "$image" "$model"
truncate -s %512 "$model"
put()
{
	local file

	for file in /dev/mapper/w "$model"; do
		dd if=/bin/busybox of="$file" bs=4k count=40 seek="$1" conv=notrunc,fsync \
			status=none || return 1
	done
}
# exported MODEL: what was sealed, or else what is written, becomes the image of that
exported()
{
	new=$(lazyframe export -q w) && [[ $new = ${url%/*/*}/*.header ]] &&
		lazyframe verify -q "$new" && fresh n "$new" &&
		cmp "$1" /dev/mapper/n && cmp "$model" /dev/mapper/w
}
check "an overlay is written, sealed, and written again" eval 'attach w "$url" --cow "$tap_dir/cow" &&
	put 300 && lazyframe seal w && cp "$model" "$tap_dir/sealed" && put 330'
check "export: what was sealed" exported "$tap_dir/sealed"
first=$new
check "export: what was written since then" exported "$model"
detach n
detach w
layers() { lazyframe gc -q --min-age 0 "$@" "${url%/*/*}" | cut -d" " -f 1; }
check "gc: all layers are in use" eval '[ -z "$(layers)" ]'
path=${new#s3://*/}
s3 delete "$(cut -d/ -f 3 <<<"$new")" "$path"
check "without its header, the last is not" eval '[ "$(layers --delete)" = "$(basename "${new%/*}")" ]'
check "the others are whole" lazyframe verify -q "$first"

# Keys end in the middle of a read: the helper stands still with it until they have
middle()
{
	local before

	fresh d "$url" && before=$(module requests) || return 1
	same d "$image" iflag=direct >"$tap_dir/reader" 2>&1 &
	reader=$!
	until_true requests_over $((before + 3)) && kill -STOP $helper_pid &&
		until_true waiting_over d 0
}
ended()
{
	wait $reader || { cat "$tap_dir/reader"; return 1; }
	[ "$(counter d reads_failed)" = 0 ]
}
refusals() { grep -c "403, InvalidAccessKeyId" "$tap_dir/helper.log"; }

check "the middle of a read" middle
before=$(refusals)
s3_key_file AKIADEVICE2 secret/2
check "the keys are revoked, and others in their file" s3 revoke "$user" AKIADEVICE1
kill -CONT $helper_pid
check "the read succeeds" ended
check "the store had refused the old keys" [ "$(refusals)" -gt "$before" ]

check "the middle of another" middle
check "the keys are revoked, and there are no others yet" s3 revoke "$user" AKIADEVICE2
kill -CONT $helper_pid
check "the log says so" until_true grep -q "there are no others yet" "$tap_dir/helper.log"
check "it waits" eval 'kill -0 $reader && waiting_over d 0'
s3_key_file AKIADEVICE3 secret/3
check "they come, and it succeeds" ended

check "no secret in the log" eval '! grep -a -F -e secret/ "$tap_dir/helper.log"'
finish

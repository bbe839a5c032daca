#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# A device whose layers are in an S3 store: credentials that end while it is read,
# are not there yet, are refused, or change in their file. No secret is seen.
. "$(dirname "$0")/remote.sh"
. "$tests/s3.sh"

faults=$images/image/faults
at=s3://store/$(url_of faults-zstd-128K)
s3_start "$images"
plain_cleanup=$(declare -f cleanup)
eval "plain_${plain_cleanup}"
cleanup()
{
	plain_cleanup
	s3_stop
}

block() { dd if=/dev/mapper/s bs=4k count=1 skip="$1" iflag=direct status=none | cmp - \
	<(dd if="$faults" bs=4k count=1 skip="$1" status=none); }
counted() { [ "$(s3_log "$1" | wc -l)" -ge "$2" ] || { s3_log; return 1; }; }

# An agent gives keys, each for a few requests
export AWS_CONTAINER_CREDENTIALS_FULL_URI=$s3/agent
export AWS_CONTAINER_AUTHORIZATION_TOKEN=agent-1
s3_control "issue uses=12"
check "attach" attach s "$at"
check "the helper comes" helper_start --range-max 256K --connections 4
s3_control forget
check "the device equals the image" same s "$faults" iflag=direct
check "keys ended meanwhile" counted "ExpiredToken" 1
check "and were renewed" counted "GET /agent - 200" 2
check "nothing failed" eval '[ "$(counter s reads_failed)" = 0 ]'

s3_control issue "clock -7200"
check "a server two hours behind us: attach" fresh s "$at"
check "the device equals the image there, too" same s "$faults" iflag=direct
s3_control "clock 0"

check "attach anew" fresh s "$at"
s3_control "deny AccessDenied"
check "refused for good: an error" says 1 "error reading" \
	dd if=/dev/mapper/s of=/dev/null bs=4k count=1 iflag=direct status=none
check "and the log says why" grep -q "Permission denied.*AccessDenied" "$tap_dir/helper.log"
s3_control deny
check "allowed again, it is read" block 0

# Without credentials at the start
check "one block is in memory" block 900
helper_kill
s3_control "fail agent 0"
check "the helper comes without credentials" helper_start
check "what is in memory is read" block 900
block 1200 >"$tap_dir/late" 2>&1 &
late=$!
check "what is not waits" until_true waiting_over s 0
check "the log says why" until_true grep -q "cannot get credentials.*the server says 500" \
	"$tap_dir/helper.log"
s3_control "fail agent -1"
check "until they come" wait $late
helper_kill

# In a file
unset AWS_CONTAINER_CREDENTIALS_FULL_URI AWS_CONTAINER_AUTHORIZATION_TOKEN
s3_key_file AKIATEST not/right
check "the helper with keys in a file" helper_start
check "it warns of who may read it" until_true grep -q "credentials: holds secrets" "$tap_dir/helper.log"
check "wrong ones" says 1 "error reading" \
	dd if=/dev/mapper/s of=/dev/null bs=4k count=1 skip=1500 iflag=direct status=none
s3_key_file AKIATEST very/secret+key
kill -HUP $helper_pid
check "right ones, and SIGHUP" until_true block 1500

# What is written to a device goes there, too
head -c 3000001 /dev/urandom >"$tap_dir/image"
cp "$tap_dir/image" "$tap_dir/model"
truncate -s %512 "$tap_dir/model"
url=$(lazyframe build -q "$tap_dir/image" s3://bucket/dir)
write()
{
	local file

	for file in /dev/mapper/w "$tap_dir/model"; do
		dd if="$faults" of="$file" bs=4k count=50 seek=300 conv=notrunc,fsync \
			status=none || return 1
	done
}
check "an image in S3, with an overlay, is written" eval '
	attach w "$url" --cow "$tap_dir/cow" && write'
check "export" eval 'new=$(lazyframe export w) && [[ $new = s3://bucket/dir/*.header ]]'
check "what is there is right" lazyframe verify -q "$new"
check "it is what the device shows" eval 'attach n "$new" &&
	cmp "$tap_dir/model" /dev/mapper/n && cmp "$tap_dir/model" /dev/mapper/w'
check "no upload lies about" eval '[ -z "$(s3_control uploads)" ]'
detach n
detach w

# Keys of the services are secret/N+, their tokens session//N==
hidden()
{
	! grep -a -F -e very/secret -e not/right -e secret/ -e session// -e agent-1 \
		"$tap_dir/helper.log" || return 1
	! grep -a -F -e very/secret -e secret/ "/proc/$helper_pid/cmdline"
}
check "no secret in the log or a command line" hidden
finish

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# s3:// with a real store: Ceph's object gateway, which checks each signature.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
. "$tests/lib.sh"
# From here on there is another HOME; the machine with the devices has its kernels in
# this one.
export LAZYFRAME_CACHE=$cache
. "$tests/s3.sh"
. "$tests/rgw.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
image_py="$tests/cli/image.py"
fetch="$tests/../build/tests/lib/fetch-s3"
cd "$tap_dir" || exit 1
trap 'rgw_stop; rm -rf "$tap_dir"' EXIT

if lacking=$(rgw_missing); then
	echo "ok 1 a real store # SKIP $lacking: run tests/setup"
	echo "1..1"
	exit
fi
check "the daemon's fetcher builds" make -s -C "$tests" fetch-s3
check "Ceph starts" rgw_start
check "a user" rgw_user me AKIARGW 'rgw/secret+1'
export AWS_ENDPOINT_URL_S3=$rgw
s3_keys AKIARGW rgw/secret+1
s3() { python3 "$tests/lib/s3.py" "$@"; }
check "a bucket" s3 bucket images

mkdir store
python3 "$image_py" make bytes-1048577 image
name="an image (1)+ä&=?#%25~'!.ext4"
url=$(lazyframe build -q -f 64K -n "$name" image "file://$PWD/store")
at=${url#"file://$PWD/store/"}
uuid=${at%%/*}
upload()
{
	local file size

	for file in "store/$uuid"/an*; do
		size=()
		[ ! -e "$file.uncompressed-size" ] ||
			size=("uncompressed-size=$(cat "$file.uncompressed-size")")
		[[ $file = *-size ]] ||
			s3 put images "dir/$uuid/$(basename "$file")" "$file" "${size[@]}" ||
			return 1
	done
}
check "objects, put by a client of its own" upload
at=s3://images/dir/$at
check "verify" lazyframe verify "$at"
check "inspect" lazyframe inspect "$at"
check "the daemon's fetcher: 12 MiB in ranges" "$fetch" "s3://images/an%20object+%27" \
	"python3 $tests/lib/s3.py put images \"an object+'\""
check "a wrong secret" says 1 "SignatureDoesNotMatch" \
	env AWS_SECRET_ACCESS_KEY=no lazyframe verify "$at"
check "an unknown key" says 1 "InvalidAccessKeyId" \
	env AWS_ACCESS_KEY_ID=no lazyframe verify "$at"
check "no such object" says 1 "the server says 404" lazyframe verify s3://images/none

# Clocks that differ by more than the store takes
check "a clock to be set wrong" gcc -D_GNU_SOURCE -shared -fPIC -o skewed-clock.so \
	"$tests/lib/skewed-clock.c"
skewed() { SKEW=$1 LD_PRELOAD=$PWD/skewed-clock.so "${@:2}"; }
check "it is one that the store does not take" says 1 "RequestTimeTooSkewed" \
	skewed 7200 python3 "$tests/lib/s3.py" get images "dir/$uuid/$name.header" out
check "two hours fast: verify" skewed 7200 lazyframe verify "$at"
check "a day slow: verify" skewed -86400 lazyframe verify "$at"
check "a day slow: build" eval 'skewed -86400 lazyframe build -q image s3://images/slow >out &&
	lazyframe verify -q "$(cat out)"'

# Writing
check "a part may have number 10,000" s3 part images x 10000
head -c 40M /dev/urandom >big
truncate -s 5G big
written()
{
	url=$(lazyframe build -q "$@" s3://images/new) && lazyframe verify -q "$url" &&
		path=${url#s3://images/} && path=${path%.header} &&
		path=$(s3 list images | grep -F "$(dirname "$path")/" | grep -v header) &&
		s3 head images "$path" >head && cat head
}
check "build, in one request" written -n "$name" image
ubytes() { lazyframe inspect --json "$url" | python3 -c "import json, sys
print('uncompressed-size:', json.load(sys.stdin)['layers'][0]['uncompressed_size'])"; }
check "uncompressed-size" grep -q "$(ubytes)" head
check "build of 5 GiB, sparse, in parts" written big
check "its uncompressed-size" grep -q "uncompressed-size: 41943040" head
printf changed | dd of=big bs=1M seek=7 conv=notrunc status=none
check "a child" written -p "$url" big
check "an upload that is refused leaves nothing" eval '[ -z "$(s3 uploads images)" ]'
gone=$(basename "$(dirname "$url")")
s3 delete images "new/$gone/big.header"
check "gc finds a layer without a header" eval 'lazyframe gc --min-age 0 s3://images/new >out
	cat out; [ "$(cut -d" " -f1 out)" = "$gone" ]'
url=$(lazyframe build -q -n "100%25 & more" image s3://images/new)
gone=$(basename "$(dirname "$url")")
s3 delete images "new/$gone/100%25 & more.header"
check "gc --delete" eval 'lazyframe gc --min-age 0 --delete s3://images/new >out
	cat out; grep -q "^$gone" out && ! s3 list images | grep "$gone"'
rgw_user other AKIAOTHER other/secret
check "somebody else's bucket" says 1 "AccessDenied" \
	env AWS_ACCESS_KEY_ID=AKIAOTHER AWS_SECRET_ACCESS_KEY=other/secret lazyframe verify "$at"

large()
{
	head -c 1100M /dev/zero | openssl enc -aes-128-ctr -nosalt -K 0 -iv 0 >large 2>/dev/null
	written -c lz4 large && grep "uncompressed-size: $((1100 << 20))" head
}
[ "${LONG:-0}" = 0 ] ||
	check "above 1 GiB, the store copies it in parts to tell its size" large

# Sessions: keys that end
with_session() { env AWS_ACCESS_KEY_ID=$1 AWS_SECRET_ACCESS_KEY=$2 AWS_SESSION_TOKEN=$3 "${@:4}"; }
check "sessions are allowed" eval 'rgw_again $rgw_sts && rgw_may_session me'
check "a session" eval 'session=$(rgw_session) && [ "$session" ] && s3_key_file $session'
check "it writes" eval 'with_session $session lazyframe build -q image s3://images/session >out'
check "it reads" with_session $session lazyframe verify -q "$(cat out)"
check "but not without its token" says 1 "the server says 403" \
	with_session ${session% *} "" lazyframe verify "$(cat out)"
# The clock goes on by more than its time in the middle of a read
mkfifo half go
ended()
{
	env -u AWS_ACCESS_KEY_ID -u AWS_SECRET_ACCESS_KEY "$fetch" s3://images/session/object \
		"AWS_ACCESS_KEY_ID=AKIARGW AWS_SECRET_ACCESS_KEY=rgw/secret+1 \
		 python3 $tests/lib/s3.py put images session/object" \
		"echo >half; read word <go; [ \$word = on ]" >fetched 2>&1 &
	fetcher=$!
	read -r <half
	if rgw_again $rgw_sts SKEW=1000 LD_PRELOAD="$PWD/skewed-clock.so" &&
		session=$(SKEW=1000 LD_PRELOAD=$PWD/skewed-clock.so rgw_session) &&
		s3_key_file $session; then
		echo on >go
	else
		echo off >go
	fi
	wait $fetcher
	status=$?
	cat fetched
	[ $status = 0 ] && grep "403, AccessDenied" fetched
}
check "it ends in the middle of a read: the next one is used" ended
check "a gateway of today, without sessions" rgw_again

# Devices, in a machine that reaches the gateway and nothing else; keys of its own
# may be revoked there
device_image=$tests/../build/images/image/fio
prepared()
{
	local n

	"$tests/prepare-images" &&
		device=$(lazyframe build -q "$device_image" s3://images/device) &&
		rgw_admin caps add --uid=me --caps="users=*" >/dev/null || return 1
	for n in 1 2 3; do
		rgw_admin key create --uid=me --key-type=s3 --access-key=AKIADEVICE$n \
			--secret-key=secret/$n >/dev/null 2>&1 || return 1
	done
}
guest()
{
	cd "$tests/.." &&
		"$tests/vm" -k 6.12 -c 1 -p "${rgw##*:}" -- tests/lib/rgw-device.sh \
			"http://10.0.2.100:${rgw##*:}" "$device" "$device_image" me
}
if [ "$RGW_DEVICES" != 0 ]; then
	check "an image for devices, and keys" prepared
	tap_take "the machine with the devices ends well" guest
fi

tap_end

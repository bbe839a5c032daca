#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# build and gc with s3://: in one request and in parts, over faults of all kinds,
# and nothing is ever written over or left behind.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
. "$tests/s3.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
cd "$tap_dir" || exit 1

s3_start
trap 's3_stop; rm -rf "$tap_dir"' EXIT
s3_keys
base=s3://bucket/some/dir
name="an image (1)+ä&=?#%25~'!.ext4"
head -c 1000001 /dev/urandom >small
head -c 40M /dev/urandom >big
truncate -s 45M big

build() { lazyframe build -q "$@" "$base"; }
file_of() { echo "$s3_root/bucket/some/dir/$(basename "$(dirname "$1")")"; }
# No upload lies about, and no object but those of the URLs that are given
clean()
{
	[ -z "$(s3_control uploads)" ] || { s3_control uploads; return 1; }
	find "$s3_root" -type f ! -name '*.uncompressed-size' | grep -v -F -f kept && return 1
	return 0
}
keep() { basename "$(dirname "$1")" >>kept; }
: >kept

whole()
{
	s3_control forget
	url=$(build -n "$name" small) && keep "$url" && lazyframe verify -q "$url" &&
		[ "$(cat "$(file_of "$url")/"*.zstd.uncompressed-size)" = 1000001 ] &&
		zstd -dc "$(file_of "$url")/"*.zstd | cmp - small &&
		! s3_log "upload"
}
check "a small image, in one request" whole

parts()
{
	s3_control forget
	url=$(build -f 1M big) && keep "$url" && lazyframe verify -q "$url" &&
		zstd -dc "$(file_of "$url")/"*.zstd | cmp -n 40M - big &&
		s3_log "partNumber=3" && ! s3_log "partNumber=4"
}
check "a big one, in parts" parts
check "its size is in its metadata" eval '
	[ "$(cat "$(file_of "$url")/"*.zstd.uncompressed-size)" = 41943040 ]'
raw()
{
	url=$(build -c none big) && keep "$url" && lazyframe verify -q "$url"
}
check "raw" raw
check "nothing else" clean

child()
{
	local parent=$1

	cp big other
	printf changed | dd of=other bs=1M seek=7 conv=notrunc status=none
	url=$(build -p "$parent" other) && keep "$url" && lazyframe verify -q "$url"
}
check "a child" child "$url"
sparse()
{
	truncate -s 5G huge
	head -c 60M /dev/urandom | dd of=huge bs=1M seek=3000 conv=notrunc status=none
	url=$(build huge) && keep "$url" && lazyframe verify -q "$url"
}
check "5 GiB, sparse" sparse
rm -f huge

# Faults that pass

for fault in "part count=3" "complete count=2" "copy count=2" "lost" "put count=2"; do
	s3_control "fault $fault"
	check "passing: $fault" eval 'url=$(build big) && keep "$url" && lazyframe verify -q "$url"'
done
unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
export AWS_CONTAINER_CREDENTIALS_FULL_URI=$s3/agent
export AWS_CONTAINER_AUTHORIZATION_TOKEN=agent-1
s3_control "issue uses=6" forget
check "credentials that end" eval 'url=$(build big) && keep "$url"'
check "they did" s3_log ExpiredToken
s3_control issue
check "the image is right" lazyframe verify -q "$url"
check "nothing was left behind" clean
s3_keys

# Faults that last

s3_control "fault part count=1000"
check "parts fail: said" says 1 "after 5 attempts" lazyframe build -q big "$base"
check "parts fail: nothing is left" clean
s3_stop
s3_start
s3_control "fault complete count=1000"
check "completion fails: said" says 1 "InternalError" lazyframe build -q big "$base"
check "completion fails: nothing is left" clean
s3_stop
s3_start
s3_control "deny AccessDenied"
check "refused: said" says 1 "AccessDenied" lazyframe build -q small "$base"
s3_control deny
check "no bucket" says 1 "no such bucket; make it first" lazyframe build -q small s3://buckets/x

interrupted()
{
	local pid

	s3_control forget
	head -c 400M /dev/zero | openssl enc -aes-128-ctr -nosalt -K 0 -iv 0 >long 2>/dev/null
	env --default-signal=INT lazyframe build -q -c none long "$base" 2>err &
	pid=$!
	until s3_log "partNumber=2" >/dev/null; do read -r -t 0.02 <> <(:); done
	kill -INT $pid
	wait $pid
	[ $? -ne 0 ] && cat err && clean
}
check "interrupted: nothing is left" interrupted
rm -f long

# Nothing is written over

others()
{
	s3_control "fault race"
	says 1 "exists already" lazyframe build -q -c none big "$base" || return 1
	found=$(grep -rlx mine "$s3_root/bucket" 2>/dev/null)
	[ "$(wc -l <<<"$found")" = 1 ] && [ "$(cat "$found")" = mine ] &&
		rm -r "$(dirname "$found")"
}
check "somebody else's object stays as it is" others
check "and nothing is left" clean

# gc

s3_control "page 3"
gone=$(tail -n 1 kept)
rm "$s3_root/bucket/some/dir/$gone/"*.header
mkdir -p "$s3_root/bucket/some/dir2/$gone" "$s3_root/bucket/some/dir/a/b"
echo x >"$s3_root/bucket/some/dir2/$gone/x.zstd"
echo x >"$s3_root/bucket/some/dir/a/b/too-deep"
s3_control forget
check "gc finds what no header names" eval '
	lazyframe gc --min-age 0 "$base" >out && cat out && [ "$(cut -d" " -f1 out)" = "$gone" ]'
check "in a listing of several pages" s3_log "continuation-token"
check "what is young is kept" eval 'lazyframe gc "$base" >out 2>&1; grep -q "kept, as they may" out'
check "gc --delete" eval 'lazyframe gc --min-age 0 --delete "$base" &&
	[ -z "$(ls "$s3_root/bucket/some/dir/$gone")" ]'
check "all others are as they were" eval 'for id in $(grep -v "$gone" kept | sort -u); do
	lazyframe verify -q "$base/$id/"*.header 2>/dev/null ||
		[ -n "$(ls "$s3_root/bucket/some/dir/$id/"*.header)" ] || exit 1
done'

tap_end

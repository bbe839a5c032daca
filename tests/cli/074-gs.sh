#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# gs:// for the commands: every source of credentials, their end in the middle, what
# is written in one request and in parts, and no secret where others could see it.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
. "$tests/s3.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
image_py="$tests/cli/image.py"
cd "$tap_dir" || exit 1

openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem 2>/dev/null ||
	openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem 2>/dev/null
openssl pkey -in key.pem -pubout -out public.pem
s3_start "$tap_dir/s3" --public "$tap_dir/public.pem"
trap 's3_stop; rm -rf "$tap_dir"' EXIT
export STORAGE_EMULATOR_HOST=$s3
python3 "$image_py" make bytes-1048577 image
name="an image (1)+ä&=?#%25~'!.ext4"
url=$(lazyframe build -q -f 64K -n "$name" image "file://$s3_root/bucket")
at=gs://bucket/${url#"file://$s3_root/bucket/"}
dir=$(dirname "$url" | sed "s,file://,,")
cp "$dir"/*.zstd "$s3_root/bucket/object"

# account FILE KEY [TOKEN_URI]: a service account's key file
account()
{
	/usr/bin/python3 -c 'import json, sys
json.dump({"type": "service_account", "project_id": "project",
    "private_key_id": "kid-1", "private_key": open(sys.argv[1]).read(),
    "client_email": "me@project.iam", "token_uri": sys.argv[2]}, sys.stdout)' \
		"$2" "${3:-$s3/token}" >"$1"
	chmod 600 "$1"
}
user()
{
	printf '{"type": "authorized_user", "client_id": "id", "client_secret": "se cret", "refresh_token": "refresh-%s/+", "token_uri": "%s/token"}' \
		"${2:-1}" "$s3" >"$1"
	chmod 600 "$1"
}
verify() { lazyframe verify "$@"; }

# A service account

account account.json key.pem
export GOOGLE_APPLICATION_CREDENTIALS=$PWD/account.json
check "a service account: a header whose name needs escaping" verify "$at"
check "an object" verify gs://bucket/object
check "inspect" lazyframe inspect "$at"
check "no such object" says 1 "no such object, the server says 404" \
	lazyframe verify gs://bucket/nothing
check "no such bucket" says 1 "the server says 404" lazyframe verify gs://buckets/x
check "no bucket" says 1 "no bucket's name; objects are named gs://" lazyframe verify gs:///x
check "no warning about its file" eval 'verify "$at" 2>&1 | tee out; ! grep -i warning out'
chmod 640 account.json
check "others may read it" says 0 "warning: $PWD/account.json: holds secrets" \
	lazyframe verify "$at"
chmod 600 account.json
openssl rsa -in key.pem -traditional -out rsa.pem 2>/dev/null
account rsa.json rsa.pem
check "a key in the form of PKCS #1" env GOOGLE_APPLICATION_CREDENTIALS="$PWD/rsa.json" \
	lazyframe verify "$at"
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out other.pem 2>/dev/null
account other.json other.pem
check "another's key" says 1 "the token server says 400 invalid_grant" \
	env GOOGLE_APPLICATION_CREDENTIALS="$PWD/other.json" lazyframe verify "$at"
check "what was sent is not shown" eval '! grep -e assertion -e eyJ "$tap_dir/stderr"'
openssl ecparam -name prime256v1 -genkey -noout -out ec.pem
account ec.json ec.pem
check "no RSA key" says 1 "private_key: it is no RSA key" \
	env GOOGLE_APPLICATION_CREDENTIALS="$PWD/ec.json" lazyframe verify "$at"
echo nonsense >nonsense.pem
account nonsense.json nonsense.pem
check "no key at all" says 1 "nonsense.json: private_key: " \
	env GOOGLE_APPLICATION_CREDENTIALS="$PWD/nonsense.json" lazyframe verify "$at"
account away.json key.pem http://token.example/token
check "tokens of somewhere without TLS" says 1 "token_uri is neither https:// nor on this machine" \
	env GOOGLE_APPLICATION_CREDENTIALS="$PWD/away.json" lazyframe verify "$at"
echo '{"type": "external_account"}' >external.json
chmod 600 external.json
check "what is not supported, and what to do" says 1 "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE" \
	env GOOGLE_APPLICATION_CREDENTIALS="$PWD/external.json" lazyframe verify "$at"
check "no such file" says 1 "nowhere" \
	env GOOGLE_APPLICATION_CREDENTIALS=/nowhere lazyframe verify "$at"
for seconds in 3600 -86400; do
	s3_control "clock $seconds" "issue seconds=3600"
	check "a clock that is $seconds seconds ahead" verify gs://bucket/object
done
s3_control "clock 0" issue

# Others

unset GOOGLE_APPLICATION_CREDENTIALS
user user.json
mkdir -p "$HOME/.config/gcloud"
cp user.json "$HOME/.config/gcloud/application_default_credentials.json"
check "a user, from the file that gcloud leaves" verify "$at"
rm -r "$HOME/.config"
check "an emulator is asked without credentials" says 1 "the server says 403" lazyframe verify "$at"
check "no credentials at all" says 1 "set GOOGLE_APPLICATION_CREDENTIALS" \
	env STORAGE_EMULATOR_HOST= lazyframe verify "$at"
s3_control "key GOOG1EKEY very/secret+key"
hmac() { GS_ACCESS_KEY_ID=GOOG1EKEY GS_SECRET_ACCESS_KEY=very/secret+key "$@"; }
check "an HMAC key" hmac lazyframe verify "$at"
check "it signs" s3_log "206 - GOOG1EKEY"
check "another secret" says 1 "SignatureDoesNotMatch" \
	env GS_ACCESS_KEY_ID=GOOG1EKEY GS_SECRET_ACCESS_KEY=x lazyframe verify "$at"
check "half of one" says 1 "give both" env GS_ACCESS_KEY_ID=x lazyframe verify "$at"
cat >boto <<END
[Credentials]
gs_access_key_id = GOOG1EKEY
gs_secret_access_key = very/secret+key
END
chmod 644 boto
check "an HMAC key where gsutil has it; others may read it" says 0 "boto: holds secrets" \
	env BOTO_CONFIG="$PWD/boto" lazyframe verify "$at"
echo "tok-1" >token
chmod 600 token
s3_control "bearer tok-1"
warned() { [ "$(grep -c "STORAGE_EMULATOR_HOST is sent can be read on the way" "$tap_dir/stderr")" = "$1" ]; }
check "a token in a file, and no warning" eval 'CLOUDSDK_AUTH_ACCESS_TOKEN_FILE="$PWD/token" \
	lazyframe verify "$at" 2>"$tap_dir/stderr" && warned 0'
check "one where it can be read on the way" eval 'says 1 "http://store.example: " timeout 20 env \
	http_proxy=http://127.0.0.1:1 STORAGE_EMULATOR_HOST=store.example \
	CLOUDSDK_AUTH_ACCESS_TOKEN_FILE="$PWD/token" lazyframe verify "$at" && warned 1'
check "another's metadata server" eval 's3_control "flavor Acme"; says 1 "is no metadata server" \
	env -u NO_GCE_CHECK GCE_METADATA_HOST="${s3#http://}" lazyframe verify "$at"'
s3_control "flavor Google"

# Services: "once": one token was asked for.

once() { [ "$(s3_log "$1" | wc -l)" = 1 ] || { s3_log; return 1; }; }
google() { GOOGLE_APPLICATION_CREDENTIALS=$PWD/${file:-account}.json "$@"; }
gce() { env -u NO_GCE_CHECK GCE_METADATA_HOST="${s3#http://}" "$@"; }
refresh() { file=user google "$@"; }
s3_control "issue uses=3"
check "a user's tokens that end after three requests" refresh lazyframe verify "$at"
s3_control "token 2"
check "a refresh token that has ended" says 1 "400 invalid_grant" refresh lazyframe verify "$at"
s3_control "token 1"
for source in google gce; do
	s3_control forget issue
	what='POST /token - 200' fail=google
	[ $source != gce ] || what='default/token - 200' fail=gce
	check "$source" $source lazyframe verify "$at"
	check "$source: asked once" once "$what"
	s3_control "fail $fail 2"
	check "$source: two failures" $source lazyframe verify "$at"
	s3_control "fail $fail 0"
	check "$source: nothing but failures" says 1 "the server says 500" \
		$source lazyframe verify "$at"
	s3_control "fail $fail -1" "issue uses=3" forget
	check "$source: tokens that end after three requests" $source lazyframe verify "$at"
	check "$source: they did" s3_log " 401 "
	s3_control "issue uses=0" forget
	check "$source: tokens that never work" says 1 "the server says 401" \
		$source lazyframe verify gs://bucket/object
	check "$source: asked for twice, not for ever" eval '[ "$(s3_log "401 " | wc -l)" -le 6 ]'
	s3_control "issue uses=0 code=AccessDenied" forget
	check "$source: 403 for good" says 1 "AccessDenied" \
		$source lazyframe verify gs://bucket/object
	check "$source: no other token" once "$what"
done
s3_control issue

# Writing

base=gs://bucket/some/dir
head -c 18M /dev/urandom >big
build() { google lazyframe build -q "$@" "$base"; }
clean()
{
	[ -z "$(s3_control uploads)" ] || { s3_control uploads; return 1; }
	find "$s3_root" -name '.*' | grep . && return 1
	return 0
}
file_of() { echo "$s3_root/bucket/some/dir/$(basename "$(dirname "$1")")"; }
whole()
{
	s3_control forget
	url=$(build -n "$name" image) && google lazyframe verify -q "$url" && ! s3_log upload
}
check "a small image, in one request" whole
parts()
{
	s3_control forget
	url=$("$@" lazyframe build -q -f 1M big "$base") && "$@" lazyframe verify -q "$url" &&
		s3_log "PUT /bucket/some/dir/.*/\..*\.parts?partNumber=2" &&
		[ "$(cat "$(file_of "$url")/"big.zstd.uncompressed-size)" = 18874368 ] && clean
}
check "a big one, in parts" parts google
check "a big one, signed with an HMAC key" parts hmac
for fault in "complete count=2" "copy count=2" lost; do
	s3_control "fault $fault"
	check "passing: $fault" eval 'url=$(build big) && google lazyframe verify -q "$url" && clean'
done
s3_control "issue uses=6" forget
check "tokens that end while it is written" eval 'url=$(build big) && s3_log " 401 "'
s3_control issue
check "the image is right" google lazyframe verify -q "$url"
others()
{
	local found

	s3_control "fault race"
	says 1 "exists already" google lazyframe build -q -c none big "$base" || return 1
	found=$(grep -rlx mine "$s3_root/bucket" 2>/dev/null)
	[ "$(wc -l <<<"$found")" = 1 ] && [ "$(cat "$found")" = mine ] &&
		rm -r "$(dirname "$found")" && clean
}
check "somebody else's object stays as it is" others
s3_control "fault complete count=1000"
check "completion fails: said" says 1 "InternalError" google lazyframe build -q big "$base"
check "completion fails: nothing is left" clean
s3_control "page 3"
rm "$(file_of "$url")/"*.header
check "gc finds what no header names" eval 'google lazyframe gc --min-age 0 "$base" >out &&
	grep -q "^$(basename "$(file_of "$url")")" out'
check "gc --delete" eval 'google lazyframe gc --min-age 0 --delete "$base" &&
	[ -z "$(ls "$(file_of "$url")")" ]'

# Secrets: none in what was said, nor in the arguments of a process

hidden() { ! grep -F -e very_secret -e very/secret+key -e tok-1 -e refresh-1 -e "se cret" "$@"; }
s3_control "deny AccessDenied"
for how in google refresh gce hmac; do
	check "$how: a refusal" says 1 "AccessDenied" $how lazyframe verify "$at"
	check "$how: it does not show a secret" hidden "$tap_dir/stderr" "$tap_dir/stdout"
done

tap_end

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# s3:// for the commands: signatures that a checker of its own accepts, every
# source of credentials, their end in the middle, and clocks that differ.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
. "$tests/s3.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
image_py="$tests/cli/image.py"
cd "$tap_dir" || exit 1

s3_start
trap 's3_stop; rm -rf "$tap_dir"' EXIT
python3 "$image_py" make bytes-1048577 image
# A name that needs every kind of escaping, in the URL and in the signature
name="an image (1)+ä&=?#%25~'!.ext4"
url=$(lazyframe build -q -f 64K -n "$name" image "file://$s3_root/bucket")
at=s3://bucket/${url#"file://$s3_root/bucket/"}
dir=$(dirname "$url" | sed "s,file://,,")
cp "$dir"/*.zstd "$s3_root/bucket/object"

verify() { lazyframe verify "$@"; }
s3_keys
check "a header whose name needs escaping" verify "$at"
check "an object" verify s3://bucket/object
check "inspect" lazyframe inspect "$at"
check "session tokens" eval 's3_control "key ASIA9 s/e+c token=to/ken+==" &&
	s3_keys ASIA9 s/e+c to/ken+== && verify "$at"'
s3_keys

# Where

check "AWS_ENDPOINT_URL" env -u AWS_ENDPOINT_URL_S3 AWS_ENDPOINT_URL="$s3" \
	lazyframe verify "$at"
check "a slash at its end" env AWS_ENDPOINT_URL_S3="$s3/" lazyframe verify "$at"
check "the bucket in the host" env LAZYFRAME_S3_ADDRESSING=virtual \
	AWS_ENDPOINT_URL_S3="http://localhost:$s3_port" lazyframe verify "$at"
hosts()
{
	env LAZYFRAME_S3_ADDRESSING=virtual \
		AWS_ENDPOINT_URL_S3="http://localhost:$s3_port" \
		lazyframe inspect s3://bucket/object >/dev/null
	s3_log 'GET /object '
}
check "and not in the path" hosts
check "another style" says 1 "none of path, virtual, auto" \
	env LAZYFRAME_S3_ADDRESSING=x lazyframe verify "$at"
check "an endpoint that is none" says 1 "no endpoint" \
	env AWS_ENDPOINT_URL_S3=localhost lazyframe verify "$at"
check "a password in it is not repeated" eval '
	says 1 "the endpoint" env AWS_ENDPOINT_URL_S3=http://me:hush@localhost lazyframe verify "$at" &&
	! grep hush "$tap_dir/stderr"'
check "the wrong region: what to set" says 1 "set AWS_REGION to us-east-1" \
	env AWS_REGION=eu-west-1 lazyframe verify "$at"
check "no bucket" says 1 "no bucket's name" lazyframe verify s3:///x
check "a query" says 1 "write %3F for ?" lazyframe verify "s3://bucket/x?y"
check "a bad escape" says 1 "write %25 for %" lazyframe verify "s3://bucket/x%2"
check "no such object" says 1 "no such object, the server says 404" \
	lazyframe verify s3://bucket/nothing
check "no such bucket" says 1 "the server says 404" lazyframe verify s3://buckets/x

# TLS, with an authority of one's own

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
	-subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout key \
	-out cert >/dev/null 2>&1
cat key cert >both
mkfifo tls.port
/usr/bin/python3 "$tests/s3-server" --root "$s3_root" --tls both \
	--key "AKIATEST very/secret+key" >tls.port </dev/null 2>/dev/null &
tls_pid=$!
read -r tls_port <tls.port
tls() { AWS_ENDPOINT_URL_S3=https://127.0.0.1:$tls_port "$@"; }
check "https with an unknown certificate" says 1 "certificate" tls lazyframe verify "$at"
check "AWS_CA_BUNDLE" tls env AWS_CA_BUNDLE="$PWD/cert" lazyframe verify "$at"
written()
{
	tls env AWS_CA_BUNDLE="$PWD/cert" lazyframe build -q image s3://bucket/tls >out &&
		lazyframe verify "$(cat out)"
}
check "for writing, too" written
kill $tls_pid

# Files

s3_no_keys
check "no credentials at all" says 1 "set AWS_ACCESS_KEY_ID" lazyframe verify "$at"
mkdir "$HOME/.aws"
cat >"$HOME/.aws/credentials" <<END
# a comment
[other]
aws_access_key_id = AKIATEST
aws_secret_access_key = not that

[default]
aws_access_key_id=AKIATEST
aws_secret_access_key =  very/secret+key
END
chmod 600 "$HOME/.aws/credentials"
check "the credentials file" verify "$at"
check "no warning about it" eval 'verify "$at" 2>&1 | tee out; ! grep -i warning out'
chmod 644 "$HOME/.aws/credentials"
check "others may read it" says 0 "warning: $HOME/.aws/credentials: holds secrets" \
	lazyframe verify "$at"
chmod 600 "$HOME/.aws/credentials"
check "another profile" says 1 "SignatureDoesNotMatch" \
	env AWS_PROFILE=other lazyframe verify "$at"
check "no such profile" says 1 'no profile "nobody"' \
	env AWS_PROFILE=nobody lazyframe verify "$at"
cat >config <<END
[profile mine]
region = us-east-1
endpoint_url = http://localhost:$s3_port
s3 =
    addressing_style = virtual
aws_access_key_id = AKIATEST
aws_secret_access_key = very/secret+key
[profile theirs]
credential_process = /bin/false
[profile half]
aws_access_key_id = AKIATEST
END
chmod 600 config
s3_control forget
check "a profile in the config file" env -u AWS_ENDPOINT_URL_S3 AWS_PROFILE=mine \
	AWS_CONFIG_FILE="$PWD/config" lazyframe verify s3://bucket/object
check "with its addressing style" s3_log 'GET /object '
check "credential_process is named" says 1 "credential_process is not supported" \
	env AWS_PROFILE=theirs AWS_CONFIG_FILE="$PWD/config" lazyframe verify "$at"
check "a key without its secret" says 1 "without its secret" \
	env AWS_PROFILE=half AWS_CONFIG_FILE="$PWD/config" lazyframe verify "$at"
check "AWS_SHARED_CREDENTIALS_FILE" says 1 "set AWS_ACCESS_KEY_ID" \
	env AWS_SHARED_CREDENTIALS_FILE="$PWD/nowhere" lazyframe verify "$at"
check "the environment goes before files" says 1 "InvalidAccessKeyId" \
	env AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=y lazyframe verify "$at"
rm -r "$HOME/.aws"

# Services. "once": one set of keys was asked for.

once() { [ "$(s3_log "$1" | wc -l)" = 1 ] || { s3_log; return 1; }; }
instance() { env -u AWS_EC2_METADATA_DISABLED AWS_EC2_METADATA_SERVICE_ENDPOINT="$s3" "$@"; }
agent()
{
	AWS_CONTAINER_CREDENTIALS_FULL_URI=$s3/agent \
		AWS_CONTAINER_AUTHORIZATION_TOKEN=agent-1 "$@"
}
echo web-1 >web
chmod 600 web
sts()
{
	AWS_WEB_IDENTITY_TOKEN_FILE=$PWD/web AWS_ROLE_ARN=arn:aws:iam::1:role/a+b \
		AWS_ENDPOINT_URL_STS=$s3 "$@"
}
keys_of=([0]='of%20mine - 200' 'GET /agent - 200' 'POST / - 200')
n=0
for source in instance agent sts; do
	s3_control forget "issue"
	check "$source" $source lazyframe verify "$at"
	check "$source: asked once" once "${keys_of[n++]}"
	s3_control "fail $source 2"
	check "$source: two failures" $source lazyframe verify "$at"
	s3_control "fail $source 0"
	check "$source: nothing but failures" says 1 "the server says 500" \
		$source lazyframe verify "$at"
	s3_control "fail $source -1" "issue uses=3" forget
	check "$source: keys that end after three requests" $source lazyframe verify "$at"
	check "$source: they did" s3_log ExpiredToken
	s3_control "issue uses=0" forget
	check "$source: keys that never work" says 1 "ExpiredToken" \
		$source lazyframe verify s3://bucket/object
	check "$source: asked for twice, not for ever" eval '[ "$(s3_log ExpiredToken | wc -l)" -le 6 ]'
	s3_control "issue uses=0 code=AccessDenied" forget
	check "$source: 403 for good" says 1 "AccessDenied" \
		$source lazyframe verify s3://bucket/object
done
s3_control "issue"

echo agent-1 >token
chmod 600 token
check "the agent's token in a file" env AWS_CONTAINER_CREDENTIALS_FULL_URI="$s3/agent" \
	AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE="$PWD/token" lazyframe verify "$at"
check "another token" says 1 "the agent says 401" env AWS_CONTAINER_CREDENTIALS_FULL_URI="$s3/agent" \
	AWS_CONTAINER_AUTHORIZATION_TOKEN=hush lazyframe verify "$at"
for host in example.com 127.0.0.1:80@example.com 127.0.0.1.example.com; do
	check "an agent at $host" says 1 "nor on this machine" \
		env AWS_CONTAINER_CREDENTIALS_FULL_URI="http://$host/agent" lazyframe verify "$at"
done
s3_control "token 2"
check "a web identity that has ended" says 1 "STS says 400 ExpiredTokenException" \
	sts lazyframe verify "$at"
check "no file with a token" says 1 "nowhere" \
	env AWS_WEB_IDENTITY_TOKEN_FILE=/nowhere AWS_ROLE_ARN=x lazyframe verify "$at"
s3_control "token 1"

# Clocks

s3_keys
for seconds in 3600 -86400; do
	s3_control "clock $seconds" forget
	check "a clock that is $seconds seconds ahead" verify s3://bucket/object
	check "$seconds: told once" once RequestTimeTooSkewed
done
s3_control "clock 7200" "issue seconds=60"
check "keys of a minute from two hours ahead" instance lazyframe verify "$at"
s3_control "clock 0" "issue"

# Secrets

hidden()
{
	local what

	for what in very/secret+key "$@"; do
		! grep -F -e "$what" "$tap_dir/stdout" "$tap_dir/stderr" || return 1
	done
}
s3_control "deny SignatureDoesNotMatch"
check "a refusal" says 1 "the server says 403: SignatureDoesNotMatch" lazyframe verify "$at"
check "does not show the key" hidden
s3_control deny
check "a token with a line's end" says 1 "control characters" \
	env AWS_SESSION_TOKEN=$'a\nb: c' lazyframe verify "$at"

tap_end

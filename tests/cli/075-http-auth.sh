#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# http:// and https:// for the commands, where servers want to know who asks: tokens and
# headers from files, clients' certificates, authorities of one's own, proxies.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
. "$tests/s3.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
cd "$tap_dir" || exit 1
unset no_proxy NO_PROXY HTTPS_PROXY

others=()
s3_start
trap 'kill "${others[@]}" 2>/dev/null; s3_stop; rm -rf "$tap_dir"' EXIT
head -c 300000 /dev/urandom >"$s3_root/bucket/object"
at=$s3/bucket/object
export LAZYFRAME_HTTP_CONFIG=$PWD/http.conf
s3_control "bearer tok-very-secret"

conf() { printf '%s\n' "$@" >http.conf; }
verify() { s3_control forget && lazyframe verify "$@"; }
hidden() { ! grep -F -e tok- "$tap_dir/stdout" "$tap_dir/stderr"; }
# secret NAME TEXT: a file that only its owner may read
secret() { (umask 077; printf '%s\n' "$2" >"$1"); }

# Tokens and headers

conf
check "nobody says who asks" says 1 "403" lazyframe verify "$at"
secret token tok-very-secret
conf "[$s3]" "bearer_file = $PWD/token"
check "a token in a file" eval 'verify "$at" 2>"$tap_dir/stderr"'
check "no warning about it" eval '! grep warning "$tap_dir/stderr"'
chmod 644 token
check "others may read it" says 0 "warning: $PWD/token: holds secrets" lazyframe verify "$at"
chmod 600 token
secret token tok-wrong
check "a wrong one" says 1 "the server says 401" verify "$at"
check "it was sent twice, not for ever" eval '[ "$(s3_log " 401 " | wc -l)" -le 4 ]'
check "and is not shown" hidden
secret token "tok-very-secret and more"
check "what cannot be one" says 1 "token: the token is empty, or has spaces" lazyframe verify "$at"
check "is not shown, either" hidden
rm token
mkfifo token
check "a FIFO: nobody waits for its other end" says 1 "$PWD/token: " timeout 20 lazyframe verify "$at"
rm token
check "no such file" says 1 "$PWD/token: No such file" lazyframe verify "$at"
secret headers "X-Who: me
Authorization: Bearer tok-very-secret"
conf "# a comment" "[$s3/]" "bearer_file = x"
check "a section that is no origin" says 1 "http.conf: a section is named http://host" \
	lazyframe verify "$at"
conf "[http://me:tok-1@localhost]"
check "a password in it is not shown" eval 'says 1 "a section is named" lazyframe verify "$at" && hidden'
conf "[$s3]" "header_file = $PWD/headers"
check "headers in a file" verify "$at"
secret headers "Authorization: Bearer tok-very-secret
Range: bytes=0-1"
check "a header that is not to be set" says 1 "a name that is not to be set here" lazyframe verify "$at"
check "its value is not shown" hidden
secret headers "tok-very-secret"
check "no header at all" says 1 'headers: no "Name: value"' lazyframe verify "$at"
check "it is not shown" hidden
conf "[http://localhost:$s3_port]" "bearer_file = $PWD/token"
secret token tok-very-secret
check "another origin's token stays at home" eval 'says 1 403 verify "$at" && ! s3_log tok-'
check "that origin's own" lazyframe verify "http://LocalHost:$s3_port/bucket/object"
conf "[http://store.example]" "bearer_file = $PWD/token"
check "what can be read on the way is warned about" says 1 "can be read on the way; use https" \
	timeout 20 env http_proxy=http://127.0.0.1:1 lazyframe verify http://store.example/x
check "the file is not there" says 1 "LAZYFRAME_HTTP_CONFIG: /nowhere" \
	env LAZYFRAME_HTTP_CONFIG=/nowhere lazyframe verify "$at"
check "a token that ends while it is read" eval '
	s3_control "bearer tok-old uses=2"; secret token tok-old; conf "[$s3]" "bearer_file = $PWD/token"
	says 1 401 lazyframe verify "$at"'
secret token tok-very-secret

# Redirects: the token does not go along, other headers make them stop.

s3_control "redirect http://localhost:$s3_port"
check "a redirect is followed without the token" eval 'says 1 403 verify "$at" && s3_log " 403 AccessDenied -"'
secret headers "X-Key: tok-very-secret"
conf "[$s3]" "header_file = $PWD/headers"
check "with headers it is not followed" eval 'says 1 "the server says 302" verify "$at" && ! s3_log 403'
conf "[$s3]" "bearer_file = $PWD/token"
s3_control redirect

# TLS

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
	-addext subjectAltName=IP:127.0.0.1 -keyout key -out cert >/dev/null 2>&1
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=client \
	-keyout client.key -out client.pem >/dev/null 2>&1
chmod 600 client.key
cat key cert >both
mkfifo tls.port proxy.port
/usr/bin/python3 "$tests/s3-server" --root "$s3_root" --tls both --clients client.pem >tls.port \
	</dev/null 2>/dev/null &
others+=($!)
read -r tls_port <tls.port
tls=https://127.0.0.1:$tls_port
tls_control()
{
	curl -s --noproxy '*' --cacert cert --cert client.pem --key client.key \
		--data-binary "$1" "$tls/.control"
}
tls_control "bearer tok-very-secret"
certificate=("[$tls]" "bearer_file = $PWD/token" "certificate = $PWD/client.pem")
conf "${certificate[@]}" "key = $PWD/client.key"
check "an unknown authority" says 1 "certificate" lazyframe verify "$tls/bucket/object"
check "--cafile" lazyframe --cafile cert verify "$tls/bucket/object"
check "LAZYFRAME_CAFILE" env LAZYFRAME_CAFILE=cert lazyframe verify "$tls/bucket/object"
check "no such file" says 1 "--cafile: nowhere: cannot read" \
	lazyframe --cafile nowhere verify "$tls/bucket/object"
check "a directory" says 1 "authorities: Is a directory" lazyframe --cafile . verify "$tls/bucket/object"
mkfifo fifo
check "a FIFO: nobody waits for its other end" says 1 "--cafile: fifo: cannot read" \
	timeout 20 lazyframe --cafile fifo verify "$tls/bucket/object"
export LAZYFRAME_CAFILE=$PWD/cert
cat client.pem client.key >client.both
chmod 600 client.both
conf "[$tls]" "bearer_file = $PWD/token" "certificate = $PWD/client.both"
check "certificate and key in one file" lazyframe verify "$tls/bucket/object"
chmod 644 client.both
check "others may read it" says 0 "client.both: holds secrets" lazyframe verify "$tls/bucket/object"
conf "[$tls]" "bearer_file = $PWD/token"
check "no certificate" says 1 "$tls/bucket/object: " lazyframe verify "$tls/bucket/object"
conf "[$tls]" "key = $PWD/client.key"
check "a key without its certificate" says 1 "give both" lazyframe verify "$tls/bucket/object"
conf "[$tls]" "certificate = $PWD/cert" "key = $PWD/key"
check "another's certificate" says 1 "$tls/bucket/object: " lazyframe verify "$tls/bucket/object"

# Proxies

conf "${certificate[@]}" "key = $PWD/client.key" "[$s3]" "bearer_file = $PWD/token"
"$tests/proxy" proxied >proxy.port </dev/null 2>/dev/null &
others+=($!)
read -r proxy_port <proxy.port
proxy=http://127.0.0.1:$proxy_port
asked() { grep -a -e "$@" proxied; }
check "http_proxy" eval 'http_proxy=$proxy lazyframe verify "$at" && asked "^GET $at HTTP"'
: >proxied
check "https_proxy, by CONNECT" eval 'https_proxy=$proxy lazyframe verify "$tls/bucket/object" &&
	asked "^CONNECT 127.0.0.1:$tls_port"'
check "which sees neither token nor request" eval '! grep -a -e "^GET" -e tok- proxied'
check "no_proxy" eval 'http_proxy=http://127.0.0.1:1 no_proxy=127.0.0.1 lazyframe verify "$at"'
check "a proxy that is not there" says 1 "connect" \
	env http_proxy=http://me:tok-1@127.0.0.1:1 lazyframe verify "$at"
check "its password is not shown" hidden

tap_end

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# https and HTTP/2 with nginx: several ranges at a time over one connection, and
# no byte from a server whose certificate nobody vouches for.
. "$(dirname "$0")/remote.sh"

faults=$images/image/faults
url=$(url_of faults-zstd-128K)
tls=https://localhost:8443
system=/etc/ssl/certs/ca-certificates.crt

check "a certificate" openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 \
	-nodes -keyout "$tap_dir/key.pem" -out "$tap_dir/cert.pem" -days 30 \
	-subj /CN=localhost -addext "subjectAltName=DNS:localhost,IP:127.0.0.1"
check "nginx with TLS and HTTP/2" nginx_start "server {
		listen 127.0.0.1:8443 ssl http2;
		ssl_certificate $tap_dir/cert.pem;
		ssl_certificate_key $tap_dir/key.pem;
	}"

# attach reads headers with the system's authorities: make this one of them
check "attach refuses an unknown certificate" says 1 "certificate" \
	lazyframe attach t "$tls/$url"
cp "$system" "$tap_dir/system.crt" 2>/dev/null || : >"$tap_dir/system.crt"
plain_cleanup=$(declare -f cleanup)
eval "plain_${plain_cleanup}"
cleanup()
{
	plain_cleanup
	cp "$tap_dir/system.crt" "$system"
}
cat "$tap_dir/system.crt" "$tap_dir/cert.pem" >"$tap_dir/both.crt"
cp "$tap_dir/both.crt" "$system"
check "attach with it among the system's" attach t "$tls/$url"
cp "$tap_dir/system.crt" "$system"

block() { dd if=/dev/mapper/t bs=4k count=1 skip="$1" iflag=direct status=none; }
helper_start
dmsetup message t 0 fetch_timeout 20
check "without --cafile, reads fail" says 1 "error reading" block 5
check "and the log says why" eval 'cat "$tap_dir/helper.log"
	grep -i -E "layer .* attempt [0-9]+ stopped at .*certificate" "$tap_dir/helper.log"'
helper_kill
dmsetup message t 0 fetch_timeout 60
check "--cafile without the file is refused" says 1 "/nowhere.pem" \
	lazyframed --cafile /nowhere.pem
check "--cafile" helper_start --cafile "$tap_dir/cert.pem"
forget
check "the device equals the image" same t "$faults" iflag=direct
requests >"$tap_dir/log"
cat "$tap_dir/log" | sed 's/^/# /'
check "all by HTTP/2" eval '! grep -v "HTTP/2" "$tap_dir/log"'
check "several ranges over one connection" eval '[ "$(wc -l <"$tap_dir/log")" -ge 2 ] &&
	[ "$(awk "{ print \$6 }" "$tap_dir/log" | sort -u | wc -l)" = 1 ]'

# Many at once: frames that are no neighbours, while no helper runs
helper_kill
cp "$tap_dir/both.crt" "$system"
check "attach again" fresh t "$tls/$url"
cp "$tap_dir/system.crt" "$system"
pids=()
for i in 0 1 2 3 4 5 6 7; do
	block $((i * 256 + 3)) >"$tap_dir/block.$i" &
	pids+=($!)
done
until_true waiting_is t 8
forget
helper_start --cafile "$tap_dir/cert.pem"
all_done() { local pid; for pid; do wait "$pid" || return 1; done; }
check "8 readers of 8 frames" all_done "${pids[@]}"
check "8 ranges, one connection" eval 'requests | tee "$tap_dir/log"
	[ "$(wc -l <"$tap_dir/log")" = 8 ] &&
	[ "$(awk "{ print \$6 }" "$tap_dir/log" | sort -u | wc -l)" = 1 ]'
check "the right bytes" eval '(for i in 0 1 2 3 4 5 6 7; do
	cmp "$tap_dir/block.$i" <(dd if="$faults" bs=4k count=1 skip=$((i * 256 + 3)) status=none) ||
		exit 1
done)'
finish

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# A service starts from a root file system far away; it is recorded. The next time,
# attach --prefetch fetches that before it is read: in long ranges, nothing else, with
# the link full. What is asserted are counts, and one ratio of two times of one link.
. "$(dirname "$0")/replay.sh"

url=$(url_of root-zstd-128K)
files=40
nginx_start
helper_start

check "a trace of a device that is not there" says 1 "lazyframe trace: " \
	lazyframe trace nobody --start
check "attach, with nothing to fetch ahead" says 0 "there is no $nginx/$url.trace" \
	lazyframe attach first "$nginx/$url" --prefetch
attached+=(first)
check "record" lazyframe trace first --start
check "one recording at a time" says 1 "a recording is made already" \
	lazyframe trace first --seconds 1 -o "$tap_dir/none"
check "the service starts" service_start first
service_stop
check "the recording is stored" says 0 "frames of 1 layers" \
	lazyframe trace first --stop -o "$tap_dir/trace"
check "and is over" says 1 "nothing is recorded" lazyframe trace first --stop
demanded=$(counter first frames_demanded)
frames=$(lazyframe trace --show "$tap_dir/trace" | sed -n 's/^frames //p')
check "it has each frame that was read" eval 'echo $frames $demanded; [ $frames -ge $demanded ]'
detach first
cold

# As it is after a while: the trace is at hand, the reader comes later.
forget
check "attach with the trace" attach again "$nginx/$url" --prefetch="$tap_dir/trace"
check "all of it comes" until_true prefetch_done again
asked=$(prefetch_asked again)
requests >"$tap_dir/requests"
check "in fewer requests than frames" eval 'wc -l <"$tap_dir/requests"; echo $frames
	[ $(wc -l <"$tap_dir/requests") -lt $frames ]'
check "nothing that was not asked for" eval 'range_bytes <"$tap_dir/requests" |
	awk -v asked=$asked "{ n += \$3 } END { print n, asked; exit n > asked * 1.02 }"'
check "the service starts" service_start again
service_stop
check "from memory" eval '[ $(counter again reads_fetched) -le $(($(counter again reads) / 20)) ]'
check "most of it was useful" eval 'echo $(counter again prefetch_useful_bytes) of $asked
	[ $(counter again prefetch_useful_bytes) -ge $((asked * 9 / 10)) ]'
check "and nothing wasted" test "$(counter again prefetch_wasted_bytes)" = 0
detach again
cold

# At the same time, over a link of 25 Mbit/s
dd if=/dev/zero of="$tap_dir/plain" bs=$asked count=1 status=none
check "a plain server of so many bytes" eval 'mkdir "$tap_dir/web" && mv "$tap_dir/plain" "$tap_dir/web/" &&
	/usr/bin/python3 "$tests/server" --root "$tap_dir/web" >"$tap_dir/web.port" </dev/null & web=$!
	until_true test -s "$tap_dir/web.port"'
# The image and its trace are asked for side by side: no answer ends before. What is
# held for 30 seconds is asked for anew.
control() { ask "$(cat "$tap_dir/web.port")" POST /.control "" "$1"; }
unused() { [ -z "$(control faults)" ]; }
at_once()
{
	mkdir "$tap_dir/web/u"
	echo none | tee "$tap_dir/web/u/x.header" >"$tap_dir/web/u/x.header.trace"
	control "fault hold path=/u/x.header
fault hold path=/u/x.header.trace"
	says 1 "lazyframe attach: http" lazyframe attach none \
		"http://127.0.0.1:$(cat "$tap_dir/web.port")/u/x.header" --prefetch &
	patience=25 until_true unused || { control release; return 1; }
	control release
	wait $!
}
check "header and trace are asked for at once" at_once
check "a link of 25 Mbit/s" link 25 25
begun=${EPOCHREALTIME/./}
check "a plain download" eval 'curl -s -o /dev/null "http://127.0.0.1:$(cat "$tap_dir/web.port")/plain"'
plain=$((${EPOCHREALTIME/./} - begun))
begun=${EPOCHREALTIME/./}
attach now "$nginx/$url" --prefetch="$tap_dir/trace"
until_true prefetch_done now
took=$((${EPOCHREALTIME/./} - begun))
check "prefetch fills the link" eval 'echo "$took us for $plain us"; [ $took -lt $((plain * 2)) ]'
detach now
cold
before=$(module fill_bytes)
check "attach" attach now "$nginx/$url" --prefetch="$tap_dir/trace"
check "the service starts, while it is fetched" service_start now
service_stop
check "for few frames it had to ask by itself" eval 'echo $(counter now frames_demanded) of $frames
	[ $(counter now frames_demanded) -le $((frames / 8)) ]'
check "no byte came twice" eval 'echo $(($(module fill_bytes) - before)) of $asked
	[ $(($(module fill_bytes) - before)) -le $((asked * 21 / 20)) ]'
check "the device goes in the middle" eval 'detach now && attach now "$nginx/$url" --prefetch="$tap_dir/trace" && detach now'
check "with it all that was to come" eval 'sleep 0.5; n=$(module requests); sleep 1; [ $(module requests) = $n ]'
link_off
kill $web

check "another image is not fetched by this trace" eval 'lazyframe attach other "$nginx/$(url_of ext4-zstd-128K)" \
	--prefetch="$tap_dir/trace" 2>&1 | grep "none of its layers"'
attached+=(other)
check "a trace that was named has to be there" says 1 "no-such" \
	lazyframe attach third "$nginx/$url" --prefetch="$tap_dir/no-such"
check "no store, nothing to hydrate" says 1 "attach it with --store" lazyframe hydrate other
truncate -s 128M "$tap_dir/store"
loop=$(losetup -f --show "$tap_dir/store")
check "a store" lazyframe store-format "$loop"
url=$(url_of ext4-zstd-128K)
check "attach with it" attach kept "$nginx/$url" --store "$loop"
check "paused" eval 'lazyframe hydrate kept --rate 1M && lazyframe hydrate kept --pause &&
	lazyframe hydrate kept --status | grep -w paused'
check "go on, without limit" eval 'lazyframe hydrate kept --resume && lazyframe hydrate kept --rate 0'
check "all of the image comes" until_true prefetch_done kept
check "status says so" eval 'lazyframe hydrate kept --status | grep -w done'
helper_kill
detach kept
attach kept "$nginx/$url" --store "$loop" --error-if-no-helper
check "and is there without a helper" same kept "$images/image/ext4"
detach kept
dmsetup remove $(dmsetup ls --target lazyframe-store | cut -f 1)
losetup -d "$loop"
finish

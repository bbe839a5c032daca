#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# A server that does everything wrong, once and always: each read ends with the
# right bytes after another attempt, or with an error within fetch_timeout. No
# wrong byte ever comes through, the device works afterwards, and the helper's
# log names layer, range, attempt and cause.
. "$(dirname "$0")/remote.sh"

# Seconds: where a second attempt helps, and where nothing does
patient=30
timeout=10
[ -z "$slow" ] || timeout=25
# How late an error may be. The kernel's timer is not, but up to 17 readers start
# and end at once here, on an emulated processor of a machine that may be busy.
# What must not happen is to wait for ever, or for one limit after the other.
late=15
faults=$images/image/faults
url=$(url_of faults-zstd-128K)
layer=${url%/*}
stored=$(stat -c %s "$images/store/${url%.header}.zstd")

server_start
check "lazyframed" helper_start --connections 32
check "attach" attach b "$server/$url" --fetch-timeout $patient
fetch() { dd if=/dev/mapper/b bs=4k count=1 skip=$1 iflag=direct status=none; }
expected() { dd if="$faults" bs=4k count=1 skip=$1 status=none; }

# All frames hold noise and are of one size in C space, too
control forget
check "a good answer" eval 'cmp <(fetch 5) <(expected 5)'
cframe=$(served | awk '{ split($3, r, "-"); print r[2] + 1 }')
check "frames are $cframe bytes" test $((cframe * 64)) -le "$stored"

# read_right BLOCK: the right bytes
read_right()
{
	fetch $1 >"$tap_dir/got" && cmp "$tap_dir/got" <(expected $1)
}

# read_fails BLOCK SECONDS: an I/O error and not a byte, in that time
read_fails()
{
	local start=$SECONDS

	! fetch $1 >"$tap_dir/got" 2>"$tap_dir/dd.err" || { echo "it worked"; return 1; }
	cat "$tap_dir/dd.err"
	grep -q "error reading" "$tap_dir/dd.err" &&
		[ ! -s "$tap_dir/got" ] || return 1
	[ $((SECONDS - start)) -le $(($2 + late)) ] || { echo "after $((SECONDS - start)) s"; return 1; }
}

used_up() { [ -z "$(control faults)" ]; }

# logged CAUSE: since the last case, with layer, range and attempt
logged()
{
	tail -n +$((log_lines + 1)) "$tap_dir/helper.log" >"$tap_dir/new.log"
	grep -E "layer $layer: (bytes [0-9]+-[0-9]+ from $server: attempt [0-9]+ stopped at [0-9]+|frame at [0-9]+\+$cframe fails with .* after [0-9]+ attempts, [0-9]+ bytes had come): .*($1)" \
		"$tap_dir/new.log" && return
	tail -n 40 "$tap_dir/new.log"
	return 1
}

# once FAULT CAUSE: it goes wrong once, and nobody notices
frame=0
once()
{
	frame=$((frame + 1))
	log_lines=$(wc -l <"$tap_dir/helper.log")
	control "fault $1" || return 1
	check "once: $1: the right bytes" read_right $((frame * 32 + 7))
	check "once: $1: it did go wrong" used_up
	[ -z "$2" ] || check "once: $1: logged: $2" logged "$2"
	control clear
}
once "status" "HTTP status 500"
once "status code=429" "HTTP status 429"
once "unavailable after=1" "HTTP status 503"
once "status code=200" "HTTP status 200"
once "whole" "the server ignores ranges"
once "short" ""
once "short at=50000" "closed|outstanding"
once "reset at=50000" "reset"
once "stall at=1000" "no byte|stall|stopped|seconds|slow"
once "range" "Content-Range is"
once "norange" "Content-Range is missing"
once "length" "Content-Length is"
once "empty" "Content-Length is 0"
once "encoding" "Content-Encoding is gzip"
once "redirect" ""
once "chunked" ""
once "noetag" ""
once "corrupt at=70000" ""
check "the corrupt byte was counted" test "$(counter b frames_bad)" = 1
check "no read has failed so far" test "$(counter b reads_failed)" = 0

# refused FAULT CAUSE: another attempt could not help, so the error comes at once
refused()
{
	cause=$2
	frame=$((frame + 1))
	log_lines=$(wc -l <"$tap_dir/helper.log")
	control "fault $1" || return 1
	check "refused: $1: an error at once" read_fails $((frame * 32 + 9)) 0
	check "refused: $1: logged: $2" eval 'logged "$cause" &&
		grep -E "after 1 attempts, 0 bytes had come: .*($cause)" "$tap_dir/new.log"'
	control clear
	check "refused: $1: the next read works" read_right $((frame * 32 + 9))
}
refused "status code=404" "HTTP status 404"
refused "status code=403" "HTTP status 403"
refused "status code=416" "HTTP status 416"
refused "etag" "changed|entity tag|ETag"
refused "total" "the object has [0-9]+ bytes, not [0-9]+"

# What never ends well, all at the same time: each on a frame of its own, with
# one between them, as neighbours would travel in one range. A part that came
# makes the next request begin later but end the same.
always=("status" "status code=503" "unavailable after=100" "whole" "short"
	"reset" "reset at=1" "stall" "hold" "hold at=1000" "loris" "range" "norange" "empty"
	"length" "encoding" "redirect")
# A frame that is wrong each time is asked for twice, not for ever
bad=$(counter b frames_bad)
control forget "fault corrupt at=70000 count=0"
check "always: corrupt at=70000: an error" read_fails $((62 * 32)) 0
check "always: corrupt at=70000: counted twice" test "$(counter b frames_bad)" = $((bad + 2))
check "always: corrupt at=70000: two requests" test "$(served | wc -l)" = 2
control clear
check "always: corrupt at=70000: the next read works" read_right $((62 * 32))

check "patience is over" dmsetup message b 0 fetch_timeout $timeout
control forget
log_lines=$(wc -l <"$tap_dir/helper.log")
frame=26
for fault in "${always[@]}"; do
	last=$(((frame + 1) * cframe - 1))
	control "fault $fault last=$last count=0"
	(
		tap_dir=$tap_dir/$frame
		mkdir "$tap_dir"
		read_fails $((frame * 32 + 31)) $timeout >"$tap_dir/out" 2>&1
		echo $? >"$tap_dir/status"
	) &
	pids[frame]=$!
	frame=$((frame + 2))
done
# meanwhile, others are served
check "meanwhile, a good frame is served" read_right $((24 * 32))
wait "${pids[@]}"
frame=26
for fault in "${always[@]}"; do
	check "always: $fault: an error within $timeout s" eval 'cat "$tap_dir/$frame/out"
		[ "$(cat "$tap_dir/$frame/status")" = 0 ]'
	frame=$((frame + 2))
done
check "the log tells of attempts and causes" logged "HTTP status 500"
check "and of what failed in the end" grep -E \
	"layer $layer: frame at [0-9]+\+$cframe fails with \"[^\"]+\" after [0-9]+ attempts, [0-9]+ bytes had come: [^ ]" \
	"$tap_dir/new.log"
check "nothing waits" waiting_is b 0
control clear
check "afterwards the device works" same b "$faults" iflag=direct

# An object that changes while its device is there: never a mix of both
fresh b "$server/$url" --fetch-timeout $patient
check "before it changed" read_right 1
log_lines=$(wc -l <"$tap_dir/helper.log")
control "etag other"
check "another object in its place: an error" read_fails 1000 0
check "the log says so" logged "HTTP status 412"
check "what is in memory stays right" read_right 2
control clear
check "the first object is back" read_right 1000

# No server at all
kill $server_pid
wait $server_pid 2>/dev/null
server_pid=
dmsetup message b 0 fetch_timeout $timeout
log_lines=$(wc -l <"$tap_dir/helper.log")
check "no server: an error within $timeout s" read_fails 1500 $timeout
check "the log says so" logged "refused|connect"
echo "# $(counter b reads_failed) reads failed, $(module fill_errors) requests did"
finish

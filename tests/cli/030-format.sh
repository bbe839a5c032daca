#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# lazyframe format on files: same bytes each time, refusals change nothing, a
# run that is killed leaves nothing that would be taken for a meta device.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
cd "$tap_dir" || exit 1

image()
{
	head -c "$2" /dev/urandom >"$1"
	lazyframe build "$1" "file://$PWD/store" 2>/dev/null | tail -n 1
}

absent()
{
	local file=$1

	shift
	"$@" && [ ! -e "$file" ]
}

mkdir store
a=$(image a 1000000)
b=$(image b 1234567)
c=$(image c 5000)

check "there are images to work with" test "$a" -a "$b" -a "$c"
check "a file is made, private" \
	eval 'lazyframe format m "$a" && [ "$(stat -c %a m)" = 600 ]'
check "stdout is the table line alone" \
	eval '[ "$(lazyframe format m "$a" 2>/dev/null)" = "0 1954 lazyframe m - -" ]'
check "the size is rounded up to sectors" \
	eval '[ "$(lazyframe format mc "$c" 2>/dev/null)" = "0 10 lazyframe mc - -" ]'
check "stderr has the summary" says 0 "1000000 bytes" lazyframe format m "$a"
cp m m.first
check "the same image gives the same bytes" \
	eval 'rm m && lazyframe format m "$a" && cmp m m.first'
check "in whole blocks" eval '[ $(($(stat -c %s m) % 4096)) -eq 0 ]'

check "another image's meta file is refused, unchanged" \
	unchanged m says 1 "--force" lazyframe format m "$b"
check "--force replaces it" \
	eval 'lazyframe format --force m "$b" && ! cmp -s m m.first'
check "and back" eval 'lazyframe format m "$a" --force && cmp m m.first'

head -c 10000 /dev/urandom >foreign
check "foreign data is refused, unchanged" \
	unchanged foreign says 1 "no meta device" lazyframe format foreign "$a"
check "an image as META is refused, unchanged" \
	unchanged a says 1 "no meta device" lazyframe format a "$b"
echo short >short
check "a short file is refused, unchanged" \
	unchanged short says 1 "no meta device" lazyframe format short "$a"
: >empty
check "an empty file is used" lazyframe format empty "$a"
truncate -s 8192 zeros
check "a file of zeros is grown and used" \
	eval 'lazyframe format zeros "$a" && cmp zeros m.first'
truncate -s 1M big
check "a bigger file keeps its size" eval 'lazyframe format big "$a" &&
	[ "$(stat -c %s big)" = 1048576 ] && cmp -n "$(stat -c %s m)" big m'
cp m damaged
printf X | dd of=damaged bs=1 seek=60 conv=notrunc status=none
check "a damaged meta file is written anew" \
	eval 'lazyframe format damaged "$b"'

check "no image: nothing is made" \
	absent new says 1 "nowhere" lazyframe format new "file://$PWD/store/nowhere"
check "a folder that is not there" \
	says 1 "no/new" lazyframe format no/new "$a"
check "a folder as META" says 1 "neither" lazyframe format store "$a"
check "a character device as META" \
	says 1 "neither" lazyframe format /dev/null "$a"
limited()
{
	# a file size limit stands in for a full disk
	(ulimit -f 8; trap '' XFSZ
	 says 1 "limited" lazyframe format limited "$a")
}
check "what cannot be written to its end is removed" absent limited limited
check "wrong use: no URL" says 2 "Usage" lazyframe format m
check "wrong use: an unknown option" says 2 "Usage" lazyframe format m "$a" --frce
check "--help" eval 'lazyframe format --help | grep -q Usage'

# kill -9 at each write: strace ends the run in place of the call
if ! command -v strace >/dev/null; then
	check "strace is installed: run tests/setup" false
	tap_end
fi
truncate -s 64K ma mb
lazyframe format ma "$a" >/dev/null 2>&1
lazyframe format mb "$b" >/dev/null 2>&1
cp mb k
writes=$(strace -e trace=pwrite64,fsync lazyframe format k "$a" --force 2>&1 |
	grep -c -E '^(pwrite64|fsync)')
check "there are writes to cut off" test "$writes" -ge 6
killed()
{
	local i call kills=0 wiped=0

	for call in pwrite64 fsync; do
		for ((i = 1; ; i++)); do
			cp mb k
			strace -qqq -o trace -e trace=$call \
				-e inject=$call:signal=KILL:when=$i \
				lazyframe format k "$a" --force
			[ $? -eq 137 ] || break
			kills=$((kills + 1))
			if [ "$(head -c 8 k | tr '\0' 0)" = 00000000 ]; then
				wiped=$((wiped + 1))
			else
				cmp k ma || cmp k mb || return 1
			fi
		done
	done
	echo "$kills kills, $wiped times wiped"
	[ $kills -eq "$writes" ] && [ $wiped -gt 4 ]
}
check "killed at any write or sync, nothing wrong is valid" killed
lazyframe format k "$a" >/dev/null 2>&1
check "a run after that completes without --force" cmp k ma
tap_end

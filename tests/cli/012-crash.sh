#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# lazyframe build, ended in the middle: nothing half-written is ever visible,
# and the next run works.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
image_py="$tests/cli/image.py"
cd "$tap_dir" || exit 1

mkdir store
head -c 24M /dev/urandom >image
truncate -s 30M image

# What is there is complete: headers verify, objects have their end.
sane()
{
	local header data

	for header in $(find store -name '*.header'); do
		lazyframe verify -q "file://$PWD/$header" || return 1
	done
	for data in $(find store -name '*.zstd'); do
		zstd -tq "$data" || return 1
	done
	# No temporary names on a file system that can do without.
	[ -z "$(find store -name '.*')" ]
}

# kill_after SIGNAL SECONDS: status 0 where it was ended, 1 where it was done
kill_after()
{
	local pid

	# A script's background job ignores SIGINT unless told otherwise.
	env --default-signal=INT,TERM,HUP lazyframe build -q -l 15 -f 64K \
		image "file://$PWD/store" >url 2>err &
	pid=$!
	sleep "$2"
	kill -"$1" $pid 2>/dev/null
	wait $pid 2>/dev/null
	[ $? -ne 0 ]
}

killed()
{
	local i ended=0

	for i in 0.01 0.05 0.1 0.2 0.3 0.5 0.8 1.2; do
		kill_after KILL $i && ended=$((ended + 1))
		sane || { echo "after $i s:"; find store; return 1; }
	done
	echo "$ended of 8 were killed in time"
	[ $ended -ge 4 ]
}
check "kill -9 at eight moments leaves nothing wrong" killed

# Every system call that changes the store is a moment of its own.
each_call()
{
	local n=1 calls=0 call

	head -c 300K /dev/urandom >small
	for call in openat,open pwrite64 fsync mkdir linkat rename,renameat2; do
		for n in 1 2 3 4 5 6; do
			rm -rf store/*
			strace -f -o /dev/null -e trace=$call \
				-e inject=$call:signal=KILL:when=$n \
				lazyframe build -q small "file://$PWD/store" \
				>url 2>/dev/null && break
			calls=$((calls + 1))
			sane || { echo "$call $n:"; find store; return 1; }
		done
	done
	echo "killed at $calls calls"
	[ $calls -ge 15 ]
}
check "kill -9 at each call that changes the store" each_call
rm -rf store/*

failing()
{
	local call n fails=0

	for call in pwrite64 fsync mkdir linkat; do
		for n in 1 2 3 4 5 6; do
			strace -f -o /dev/null -e trace=$call \
				-e inject=$call:error=EIO:when=$n \
				lazyframe build -q small "file://$PWD/store" \
				>url 2>err && { rm -rf store/*; break; }
			fails=$((fails + 1))
			grep -q 'Input/output error' err || { cat err; return 1; }
			[ -z "$(ls -A store)" ] ||
				{ echo "$call $n:"; find store; return 1; }
		done
	done
	echo "failed at $fails calls"
	[ $fails -ge 10 ]
}
check "an error of each such call leaves nothing at all" failing

without_tmpfile()
{
	strace -f -o /dev/null -e trace=openat \
		-e inject=openat:error=EOPNOTSUPP:when="$1" \
		lazyframe build -q small "file://$PWD/store"
}
old_fs()
{
	local n found=0

	# Which openat() is the one for O_TMPFILE differs by machine.
	for n in $(strace -f -e trace=openat lazyframe build -q small \
			"file://$PWD/store" 2>&1 >/dev/null | grep 'openat(' |
			grep -n O_TMPFILE | cut -d: -f1); do
		rm -rf store/*
		without_tmpfile "$n" >url || return 1
		found=1
		python3 "$image_py" check small \
			"$(sed 's,file://,,' url)" 131072 && sane || return 1
	done
	[ $found = 1 ]
}
check "a file system without O_TMPFILE" old_fs
rm -rf store/*

for sig in INT TERM HUP; do
	stopped()
	{
		local i

		# Under load the program may not have begun: try later moments.
		for i in 0.1 0.3 0.6; do
			kill_after $sig $i || return 1
			[ -z "$(ls -A store)" ] || { find store; return 1; }
			grep -q "stopped by signal" err && return 0
		done
		cat err
		return 1
	}
	check "SIG$sig ends it, and nothing is left" stopped
done

# change_while_read CMD: with @changing as its last argument
change_while_read()
{
	local pid

	cp image changing
	lazyframe build -q -l 15 -f 64K changing "file://$PWD/store" 2>err &
	pid=$!
	until ls -l /proc/$pid/fd 2>/dev/null | grep -q changing; do
		kill -0 $pid 2>/dev/null || break
	done
	"$@" changing
	wait $pid && return 1
	grep -q "size changed from\|became shorter" err && [ -z "$(ls -A store)" ]
}
check "an image that grows meanwhile is refused" \
	change_while_read truncate -s +5
check "an image that shrinks meanwhile is refused" \
	change_while_read truncate -s 20M

nohup_works()
{
	local out

	out=$(
		sh -c 'trap "" HUP; exec lazyframe build -q image "$0"' \
			"file://$PWD/store" &
		pid=$!
		until ls -l /proc/$pid/fd 2>/dev/null | grep -q /image; do
			kill -0 $pid 2>/dev/null || break
		done
		kill -HUP $pid
		wait $pid
		echo "status $?"
	)
	[ "$(echo "$out" | tail -n 1)" = "status 0" ]
}
check "a signal that was ignored stays ignored" nohup_works

again()
{
	lazyframe build -q -f 64K image "file://$PWD/store" >url &&
		python3 "$image_py" check image "$(sed 's,file://,,' url)" 65536
}
check "the next run works" again

tap_end

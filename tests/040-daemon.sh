#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# lazyframed and the module together: what it tells the service manager, who may
# attach, servers that misbehave, and being killed. Runs in tests/vm.
. "$(dirname "$0")/common.sh"
cd "$tap_dir" || exit 1
unset http_proxy https_proxy all_proxy

modprobe -a loop dm_mod
mkdir store
truncate -s 9000001 img
dd if=/dev/urandom of=img bs=1M seek=1 count=6 conv=notrunc status=none
cp img padded && truncate -s %512 padded
want=$(sha256sum <padded)
url=$(lazyframe build img "file://$PWD/store" 2>/dev/null | tail -n 1)
python3 "$tests/server" --root store --log log >port </dev/null &
until [ -s port ]; do kill -0 $! || exit 1; sleep 0.1; done
http=http://127.0.0.1:$(cat port)
object=${url#"file://$PWD/store"}
fill_bytes=/sys/class/misc/lazyframe/fill_bytes

# tell COMMANDS: to the server; prints its answer
tell() { curl -sS --data-binary "$*" "$http/.control"; }
# a device without anything in memory
fresh() { lazyframe detach x 2>/dev/null; lazyframe attach x "$1" >/dev/null 2>&1; }
same() { [ "$(dd if=/dev/mapper/x iflag=direct bs=1M status=none | sha256sum)" = "$want" ]; }
ready() { timeout 60 sh -c "until grep -q attached $1; do sleep 0.1; done"; }

python3 - <<'PY' &
import os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind('notify')
out = open('notified', 'w')
while True:
    out.write(s.recv(4096).decode() + '\n')
    out.flush()
PY
until [ -S notify ]; do sleep 0.1; done

check "options are checked" says 2 "from 1 to 64" lazyframed --connections 0
check "a share is checked" says 2 "from 0 to 100" lazyframed --hedge 101
check "a device that is not ours is named" \
	says 1 "not a device of the lazyframe module" lazyframed --device /dev/null
check "a missing device: how to get it" \
	says 1 "modprobe lazyframe" lazyframed --device /dev/nothing

# requests are counted below: none twice
NOTIFY_SOCKET=$PWD/notify WATCHDOG_USEC=2000000 lazyframed --verbose --hedge 0 2>first &
first=$!
check "it attaches" ready first
check "and says so" timeout 60 sh -c 'until grep -x READY=1 notified; do sleep 0.1; done'
check "all its memory is locked" sh -c \
	"awk '/^VmRSS/ { r = \$2 } /^VmLck/ { l = \$2 } END { exit l < r / 2 }' /proc/$first/status"
# PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE
check "reclaim will not wait for it" sh -c \
	"[ \$((\$(cut -d ' ' -f 9 /proc/$first/stat) & 0x180000)) -eq \$((0x180000)) ]"
check "it kept one capability: to read files" \
	grep -x 'CapEff:.0000000000000004' /proc/$first/status
check "there is one helper" says 1 "another helper is attached" lazyframed

check "attach by http" fresh "$http$object"
check "device and image are equal by http" same
check "in few requests" sh -c '[ "$(grep -c img.zstd log)" -le 8 ]'
check "detach" lazyframe detach x
check "attach by file" fresh "$url"
check "device and image are equal by file" same
check "the watchdog is fed" timeout 60 sh -c 'until grep -x WATCHDOG=1 notified; do sleep 0.1; done'
check "with a status" grep 'STATUS=.*requests open' notified

# helper/fetch_test has the whole list
for fault in "unavailable after=0" whole "short at=300000" "reset at=200000" \
	"stall at=100000" range "corrupt at=5000"; do
	fresh "$http$object"
	# a frame that is wrong twice is an error
	case $fault in
	corrupt*) count=1 ;;
	*) count=2 ;;
	esac
	tell "fault $fault path=${object%/*}/img.zstd count=$count" >fault
	check "right bytes after: $fault" same
	check "it did happen" eval '[ -z "$(tell faults)" ]'
done
# a server that does not answer: the status and the log tell
fresh "$http$object"
tell "fault drop path=${object%/*}/img.zstd count=0" >fault
same &
reader=$!
status_is() { timeout 60 sh -c "until tail -n 1 notified | grep ' $1 servers do not answer'; do sleep 0.1; done"; }
check "a server that is away shows in the status" status_is 1
tell clear
check "and is no error when it comes back" wait $reader
check "which shows, too" status_is 0
check "the log tells when it went" [ "$(grep -c "http://.* does not answer, 5 attempts" first)" = 1 ]
check "and when it came back" [ "$(grep -c "http://.* answers again" first)" = 1 ]
# an error and nothing else, at once, and the next attach is fine
for fault in "status code=404" etag; do
	fresh "$http$object"
	tell "fault $fault path=${object%/*}/img.zstd count=0" >fault
	check "an error after: $fault" eval '! dd if=/dev/mapper/x of=read \
		iflag=direct bs=4096 count=1 skip=512 status=none 2>error'
	check "without a byte" [ ! -s read ]
	tell clear
done

# a second one waits for its turn; the first dies while the server stalls
fresh "$http$object"
tell "fault stall path=${object%/*}/img.zstd at=50000" >fault
before=$(cat $fill_bytes)
: >log
lazyframed --wait 2>second &
second=$!
dd if=/dev/mapper/x of=read iflag=direct bs=128K skip=16 count=1 status=none &
reader=$!
until [ "$(cat $fill_bytes)" -ge $((before + 50000)) ]; do sleep 0.1; done
kill -9 $first
check "the next helper takes over" ready second
check "the reader waits for it" wait $reader
check "and has the right bytes" cmp -n 131072 -i 0:2097152 read img
# the request that stalled began at F; the next one begins where it had got to
check "what had arrived was not fetched again" eval 'tell settle; cat log
	awk "/img.zstd/ { split(\$3, r, \"-\"); first[n++] = r[1]; last[n] = r[2] }
		END { exit !(n == 2 && first[1] == first[0] + 50000 &&
			last[1] == last[2]) }" log'

fresh "$http$object"
tell "shape rate=2000000" >fault
same &
reader=$!
for i in 1 2 3 4 5; do
	bytes=$(cat $fill_bytes)
	while [ "$(cat $fill_bytes)" = "$bytes" ] && kill -0 $reader 2>/dev/null; do
		:
	done
	kill -9 $second
	wait $second 2>/dev/null
	lazyframed --wait 2>second &
	second=$!
	ready second
done
check "killed five times, the reader has every byte and no error" wait $reader
tell clear

# As a user of its own, who cannot read what only root can
bare()
{
	cat /proc/$1/status >status
	grep -x "Uid:.65534.65534.65534.65534" status &&
		grep -x "Gid:.65534.65534.65534.65534" status &&
		grep -x "Groups:.65534 " status && grep -x "NoNewPrivs:.1" status &&
		[ "$(grep -c "^Cap\(Inh\|Prm\|Eff\|Amb\):.0*$" status)" = 4 ] ||
		{ cat status; return 1; }
}
check "no user of that name: how to make one" says 1 "systemd-sysusers" \
	lazyframed --user not-there
check "only root can become another user" says 1 "run as root" \
	setpriv --reuid 65534 lazyframed --user nobody
# Processes that change their user may leave a core file again
echo 2 >/proc/sys/fs/suid_dumpable
echo "$PWD/core" >/proc/sys/kernel/core_pattern
ulimit -c unlimited
sh -c 'kill -ABRT $$' 2>/dev/null
check "another program would leave a core file" eval "ls core* && rm core*"
tell "fault drop count=0" >fault
lazyframe verify "$http$object" >fault 2>&1 &
pid=$!
check "a command waits for a server" timeout 60 sh -c \
	"until grep -q lazyframe /proc/$pid/comm && ls -l /proc/$pid/fd | grep socket; do sleep 0.1; done"
kill -ABRT $pid
wait $pid 2>/dev/null
check "killed, it leaves none" eval "! ls core*"
tell clear
lazyframed --replace --user nobody 2>third &
third=$!
check "another one takes over, as a user of its own" ready third
wait $second
check "who is nobody, and can become nobody else" bare $third
check "its memory is locked, too" sh -c \
	"awk '/^VmRSS/ { r = \$2 } /^VmLck/ { l = \$2 } END { exit l < r / 2 }' /proc/$third/status"
check "reclaim will not wait for it, either" sh -c \
	"[ \$((\$(cut -d ' ' -f 9 /proc/$third/stat) & 0x180000)) -eq \$((0x180000)) ]"
fresh "$http$object"
check "the device and the image are equal" same
fresh "$url"
check "what only root can read is an error" eval '! dd if=/dev/mapper/x of=read \
	iflag=direct bs=4096 count=1 skip=512 status=none 2>error'
check "and the log says why" grep "open: Permission denied" third
chmod -R a+rX . "$tap_dir"
check "until others can" same
fresh "$url"
kill -ABRT $third
wait $third 2>/dev/null
lazyframed --user nobody 2>second &
second=$!
check "killed, the next one goes on" same
check "as nobody" bare $second
check "no core file was left" eval "! ls core*"

lazyframe detach x
kill $second
check "SIGTERM ends it" wait $second
check "with a word" grep "stopping: Terminated" second
check "without the module it says what to do" eval 'module_unload &&
	says 1 "modprobe lazyframe" lazyframed; status=$?
	modprobe lazyframe; [ $status -eq 0 ]'
finish

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# The unit as it is installed, run by systemd: process 1 of a PID namespace of
# its own, with its own /run and control groups. Started, restarted while fio
# reads, killed, hung, replaced by hand, stopped; no reader sees any of it.
. "$(dirname "$0")/remote.sh"
. "$tests/s3.sh"
# Keys that only root can read: the commands as they are, the daemon a copy
s3_start "$images"
(umask 077; cat >"$tap_dir/keys") <<END
[default]
aws_access_key_id = AKIATEST
aws_secret_access_key = very/secret+key
END
export AWS_SHARED_CREDENTIALS_FILE=$tap_dir/keys

# As make install does it
prefix=/usr/local
install -D -m 755 "$tests/../helper/lazyframed" $prefix/sbin/lazyframed
install -D -m 644 "$tests/../helper/lazyframed.service" \
	$prefix/lib/systemd/system/lazyframed.service
systemd-sysusers "$tests/../helper/lazyframe.sysusers" >"$tap_dir/sysusers" 2>&1
root=$tap_dir/root
mkdir -p "$root/units/lazyframed.service.d" "$root/generators"
cat >"$root/units/test.target" <<END
[Unit]
DefaultDependencies=no
Requires=first.service
After=first.service lazyframed.service
END
# The first control group with a device policy makes the kernel patch its code.
# That is better done before other processors run it: emulators trip over it.
cat >"$root/units/first.service" <<END
[Unit]
DefaultDependencies=no
[Service]
DevicePolicy=closed
ExecStart=sleep infinity
END
# What a test wants to see, and does not want to wait for
cat >"$root/units/lazyframed.service.d/test.conf" <<END
[Service]
StandardError=append:$tap_dir/helper.log
WatchdogSec=8
LoadCredential=keys:$tap_dir/keys
Environment=AWS_SHARED_CREDENTIALS_FILE=%d/keys
Environment=AWS_ENDPOINT_URL_S3=$s3
END

cat >"$root/start" <<END
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --make-rshared /
exec env -i container=lazyframe LANG=C PATH="\$PATH" \
	SYSTEMD_UNIT_PATH=$root/units:$prefix/lib/systemd/system:/lib/systemd/system \
	SYSTEMD_GENERATOR_PATH=$root/generators \
	/lib/systemd/systemd --system --unit=test.target --show-status=no \
	--log-target=kmsg --log-level=notice
END
mkdir -p /sys/fs/cgroup/lazyframe
manager=
manager_start()
{
	(
		echo $BASHPID >/sys/fs/cgroup/lazyframe/cgroup.procs
		exec unshare --pid --fork --kill-child --mount --mount-proc --cgroup \
			sh "$root/start"
	) >"$tap_dir/manager.log" 2>&1 &
	manager=$!
	until_true eval 'init=$(pgrep -P $manager) && ctl is-active test.target'
}
ctl() { nsenter -t $init -p -m -C systemctl --no-pager "$@"; }
property() { ctl show --value -p "$1" lazyframed; }
# main: the daemon's process, as it is known here
main() { pgrep -x lazyframed | grep -v -x "${hand:-0}"; }
state_is() { [ "$(ctl is-active lazyframed)" = "$1" ]; }

eval "plain_$(declare -f cleanup)"
cleanup()
{
	touch "$tap_dir/stop"
	echo $limit >/sys/module/lazyframe/parameters/cache_mib
	[ -z "$manager" ] || kill -9 $init $manager
	[ -z "$hand" ] || kill -9 $hand
	plain_cleanup
	s3_stop
	rm -rf "$public"
	rm $prefix/sbin/lazyframed $prefix/lib/systemd/system/lazyframed.service
}

log_has() { grep -a -e "$1" "$tap_dir/helper.log"; }
image=$images/image/fio
hand= public=
limit=$(cat /sys/module/lazyframe/parameters/cache_mib)
check "systemd runs" eval 'manager_start || ! cat "$tap_dir/manager.log"'
check "systemctl start" ctl start lazyframed
check "it is active, and attached" eval 'state_is active && helper_is 1'
check "it says what it does" until_true eval \
	'property StatusText | grep -e attached -e "requests open"'
check "the unit is the installed one, and systemd knows each line of it" eval '
	[ "$(property FragmentPath)" = $prefix/lib/systemd/system/lazyframed.service ] &&
	! log_since_start | grep -F lazyframed.service:'
pid=$(main)
fed=$(property WatchdogTimestampMonotonic)
# bare: the daemon is its own user, without a capability, for good
bare()
{
	local uid gid

	uid=$(id -u lazyframe) gid=$(id -g lazyframe)
	cat /proc/$pid/status | tee "$tap_dir/status"
	[ "$uid" -gt 0 ] && grep -x "Uid:.$uid.$uid.$uid.$uid" "$tap_dir/status" &&
		grep -x "Gid:.$gid.$gid.$gid.$gid" "$tap_dir/status" &&
		grep -x "NoNewPrivs:.1" "$tap_dir/status" &&
		[ "$(grep -c "^Cap\(Inh\|Prm\|Eff\|Amb\):.0*$" "$tap_dir/status")" = 4 ]
}
check "it is its own user, without a capability, for good" bare
check "its system calls are filtered" grep -x "Seccomp:.2" /proc/$pid/status
check "its memory is locked" eval \
	'[ "$(awk "/^VmLck/ { print \$2 }" /proc/$pid/status)" -gt 1000 ]'
check "it sees a file system that it cannot write" eval \
	'! nsenter -t $pid -m touch /usr/local/written'

server_start
check "attach" attach u "$server/$(url_of fio-zstd-128K)"
check "a device is read" same u "$image" iflag=direct
# where others than root can read it
public=$(mktemp -d)
chmod 755 "$public"
odd=$(url_of odd-zstd-128K)
cp -r "$images/store/${odd%/*}" "$public"
check "through file URLs, too" eval '
	attach f "file://$public/$odd" && same f "$images/image/odd" && detach f'
chmod 700 "$public"
check "unless they are only root's" eval '
	attach f "file://$public/$odd" && ! same f "$images/image/odd" && detach f &&
	log_has "open: Permission denied"'
check "through S3, with a copy of root's keys" eval '
	attach f "s3://store/$odd" && same f "$images/image/odd" && detach f ||
	! tail "$tap_dir/helper.log"'
check "nothing is said against the copy" eval '! log_has "holds secrets"'

feeds() { [ "$(property WatchdogTimestampMonotonic)" -gt "$fed" ] && [ "$(main)" = "$pid" ]; }
check "the watchdog hears of it, and leaves it alone" until_true feeds

echo 1 >/sys/module/lazyframe/parameters/cache_mib
control "shape rate=4000000"
read_on u &
fio=$!
# goes_on: there is a later session than number $1, and it gets requests
goes_on()
{
	until_true session_over $1 &&
		until_true requests_over $(($(module requests) + 5)) && kill -0 $fio
}
patience=120
restarts()
{
	local i sessions

	for i in $(seq $RESTARTS); do
		sessions=$(module sessions)
		ctl restart lazyframed && goes_on $sessions || return 1
	done
}
check "systemctl restart, $RESTARTS times while fio reads" restarts
crash()
{
	local sessions pid

	sessions=$(module sessions)
	pid=$(main)
	kill -$1 $pid
	goes_on $sessions
}
check "killed: it is started again" crash KILL
check "hung: the watchdog ends it" crash STOP
check "as often as it was lost" test "$(property NRestarts)" = 2

# from here to there no moment without a helper
dmsetup message u 0 error_if_no_helper
sessions=$(module sessions)
lazyframed --replace 2>"$tap_dir/hand.log" &
hand=$!
check "another one, by hand, replaces it" goes_on $sessions
check "the unit stays ended, without a failure" eval 'until_true state_is inactive &&
	[ "$(property Result) $(property ExecMainStatus)" = "success 3" ] &&
	helper_is 1'
sessions=$(module sessions)
check "systemctl restart replaces that" eval 'ctl restart lazyframed &&
	goes_on $sessions && state_is active'
check "which ends, too" eval 'wait $hand; [ $? = 3 ]'
hand=
dmsetup message u 0 queue_if_no_helper
check "systemctl stop" eval 'ctl stop lazyframed && helper_is 0 && state_is inactive'
check "reads wait" until_true waiting_over u 0
sessions=$(module sessions)
check "systemctl start" ctl start lazyframed
check "they go on" goes_on $sessions
touch "$tap_dir/stop"
check "fio saw no error and no wrong byte" wait $fio
check "no read failed" test "$(counter u reads_failed)" = 0
control clear
finish

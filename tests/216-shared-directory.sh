#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Daemons that share a directory: what one has fetched no server is asked for
# again, what the module refuses does not come twice; on NFS, too, whose server
# then dies while devices are read.
. "$(dirname "$0")/remote.sh"

image=$images/image/mixed
url=$(url_of mixed-zstd-128K)
dir=$tap_dir/nfs/frames
mkdir -p "$tap_dir/export" "$tap_dir/nfs"
eval "plain_$(declare -f cleanup)"
cleanup()
{
	plain_cleanup
	# -c: it is not to be looked at, as it does not answer any more
	timeout -s KILL 10 umount -c -f -l "$tap_dir/nfs"
	echo 0 >/proc/fs/nfsd/threads
	umount "$tap_dir/export"
}

# An NFS server without its programs: the kernel is told what it would ask them.
nfs_start()
{
	local root=$tap_dir/export rpc=/proc/net/rpc forever=2147483647

	modprobe -a nfsd nfsv4 && mount -t nfsd nfsd /proc/fs/nfsd &&
		mount -t tmpfs export "$root" || return 1
	# for clients of a server that ran before: there are none
	echo 10 >/proc/fs/nfsd/nfsv4leasetime
	echo 10 >/proc/fs/nfsd/nfsv4gracetime
	echo "-3 +4 +4.2" >/proc/fs/nfsd/versions &&
	echo "nfsd 127.0.0.1 $forever local" >$rpc/auth.unix.ip/channel &&
	echo "local $root $forever 9234 0 0 0" >$rpc/nfsd.export/channel &&
	echo "local 1 \\x00000000 $forever $root" >$rpc/nfsd.fh/channel &&
	echo "tcp 2049" >/proc/fs/nfsd/portlist &&
	echo 2 >/proc/fs/nfsd/threads &&
	mount -i -t nfs4 -o addr=127.0.0.1,clientaddr=127.0.0.1,vers=4.2,hard \
		127.0.0.1:/ "$tap_dir/nfs" && : >"$tap_dir/nfs/open"
}
if nfs_start >"$tap_dir/nfs.log" 2>&1; then
	on=NFS
else
	sed 's/^/# /' "$tap_dir/nfs.log"
	on="a plain directory"
fi
echo "# on $on"
mkdir "$dir"

entries() { find "$dir" -name '*.frame' | wc -l; }
entries_are() { [ "$(entries)" = "$1" ]; }
# stop: as a service is, and then what it said of the directory
stop()
{
	kill $helper_pid
	wait $helper_pid
	helper_pid=
	said=$(sed -n 's/.*frames; shared directory[^:]*: //p' "$tap_dir/helper.log" | tail -n 1)
	echo "$said"
}
nginx_start
frames=$(lazyframe inspect --json "$nginx/$url" | /usr/bin/python3 -c '
import json, sys
print(json.load(sys.stdin)["layers"][0]["frames"]["count"])')
share() { helper_start --shared "$dir" --shared-patience 20000 "$@"; }
# read_cold: the device anew, all of it
read_cold() { fresh s "$nginx/$url" && forget && same s "$image" iflag=direct; }

share --range-max 4096
check "one device is read" read_cold
cold=$(requests | wc -l)
check "its frames are stored: $frames" until_true entries_are "$frames"
check "the daemon ends, and tells" eval 'stop && [[ $said = *" $frames stored, 0 skipped"* ]]'
check "nothing half written is left" eval '! find "$dir" -name "*.part" -o -name "*.room" | grep .'
share --range-max 4096
check "another daemon, nothing in memory: the same bytes" read_cold
check "no request to the server" eval '[ -z "$(requests)" ]'
check "it counts hits alone" eval 'stop &&
	[[ $said = "$frames hits, 0 misses, 0 late, 0 not asked, 0 stored"* ]]'
echo "# result: $on, $frames frames: $cold requests for the first daemon, 0 for the second"

image=$images/image/odd
url=$(url_of odd-zstd-128K)
# Wrong, though whole: so the server answered, and so it was stored
server_start
object=/${url%.header}.zstd
rm -r "${dir:?}"/*
share
check "attach by the other server" fresh s "$server/$url"
control "fault corrupt path=$object count=2 at=10"
first() { dd if=/dev/mapper/s bs=4k count=1 iflag=direct status=none; }
check "a frame that is wrong twice is an error" says 1 "error reading" first
control clear
entry() { ls "$dir"/*/*-0-*.frame; }
check "it was stored" until_true entry
stop
check "attached again, another daemon" eval 'share && fresh s "$server/$url"'
control forget
before=$(stat -c %i "$(entry)")
check "what is wrong in the directory is no error" eval 'cmp -n 4096 <(first) "$image"'
check "it was refused, removed and fetched" eval '
	grep -a "the module refused it; removed" "$tap_dir/helper.log" &&
	served | grep -E " 0-[0-9]+ " && [ "$(counter s frames_bad)" = 1 ]'
changed() { [ "$(stat -c %i "$(entry)")" != "$before" ]; }
check "and stored anew" until_true changed
stop
check "attached once more, another daemon" eval 'share && fresh s "$server/$url"'
control forget
check "it is right, and no server was asked for it" eval 'cmp -n 4096 <(first) "$image" &&
	! served | grep -E " 0-[0-9]+ " && [ "$(counter s frames_bad)" = 0 ]'
check "all of it is read, and stored" eval 'same s "$image" iflag=direct &&
	until_true entries_are 9'
stop

if [ "$on" = NFS ]; then
	# Entries are there, and nobody gives them.
	helper_start --shared "$dir" --shared-patience 200
	check "attached once more" fresh s "$nginx/$url"
	echo 0 >/proc/fs/nfsd/threads
	start=$(date +%s%N)
	check "its server dies: all of it is read" same s "$image" iflag=direct
	echo "# result: all of it with a dead NFS server: $((($(date +%s%N) - start) / 1000000)) ms"
	check "lazyframed says so" grep -a "shared directory .* does not answer" "$tap_dir/helper.log"
	check "it is replaced meanwhile" eval '
		lazyframed --verbose --hedge 0 --replace --shared "$dir" --shared-patience 200 \
			>>"$tap_dir/helper.log" 2>&1 & new=$!
		wait $helper_pid; [ $? = 3 ] && helper_pid=$new'
	check "and read from again" eval 'fresh s "$nginx/$url" && same s "$image" iflag=direct'
	check "it stops at once" eval 'start=$SECONDS; stop; [ $((SECONDS - start)) -lt 10 ]'
	helper_start --shared "$dir" --shared-patience 200
	check "another one starts, and serves" eval 'fresh s "$nginx/$url" && same s "$image" iflag=direct'
else
	skip "NFS" "no NFS server in this kernel"
fi
check "detach" detach s
echo "# $SECONDS s"
finish

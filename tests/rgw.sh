# SPDX-License-Identifier: GPL-2.0-only
#
# A Ceph object gateway on this machine, with all its daemons, without root's help.
# Sourced after tap.sh.
#
#	rgw_missing		true, and says what, if Ceph is not installed
#	rgw_start		monitor, manager, OSD in memory and gateway;
#				$rgw is its endpoint
#	rgw_admin WORD...	radosgw-admin
#	rgw_user ID KEY SECRET	somebody who may make buckets
#	rgw_may_session USER	who has the keys in the environment may begin sessions
#	rgw_session		ID, secret and token of one, for a quarter of an hour
#	rgw_again [ENV]...	another gateway in the place of the first
#	$rgw_sts		that gives sessions; it says AccessDenied to wrong keys, too
#	rgw_stop

PATH=$PATH:/usr/sbin

rgw_missing()
{
	local program

	for program in ceph-mon ceph-mgr ceph-osd radosgw radosgw-admin \
		ceph-authtool monmaptool ceph; do
		command -v $program >/dev/null || { echo "no $program"; return 0; }
	done
	return 1
}

free_port()
{
	python3 -c 'import socket
s = socket.socket()
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])'
}

rgw_sts=CEPH_ARGS=--rgw_s3_auth_use_sts=true
rgw_pids=()
# in_background NAME CMD...: a daemon that stays ours
in_background()
{
	local name=$1

	shift
	"$@" -f >"$rgw_dir/$name.out" 2>&1 </dev/null &
	rgw_pids+=($!)
}

ceph_do() { ceph -c "$rgw_dir/ceph.conf" --connect-timeout 60 "$@"; }
rgw_admin() { radosgw-admin -c "$rgw_dir/ceph.conf" "$@"; }

rgw_start()
{
	local fsid osd port mon rgw_port

	rgw_dir=$tap_dir/ceph
	mkdir -p "$rgw_dir"/{mon,osd,mgr,run} || return 1
	fsid=$(cat /proc/sys/kernel/random/uuid)
	osd=$(cat /proc/sys/kernel/random/uuid)
	port=$(free_port)
	rgw_port=$(free_port)
	mon="[v2:127.0.0.1:$port]"
	rgw=http://127.0.0.1:$rgw_port
	cat >"$rgw_dir/ceph.conf" <<-END
	[global]
	fsid = $fsid
	mon host = $mon
	keyring = $rgw_dir/admin.keyring
	run dir = $rgw_dir/run
	admin socket = $rgw_dir/run/\$name.asok
	log file = $rgw_dir/\$name.log
	pid file =
	crash dir = $rgw_dir
	auth cluster required = cephx
	auth service required = cephx
	auth client required = cephx
	osd pool default size = 1
	osd pool default min size = 1
	osd pool default pg num = 1
	osd crush chooseleaf type = 0
	mon allow pool size one = true
	ms bind ipv6 = false
	[mon]
	mon data = $rgw_dir/mon
	keyring = $rgw_dir/mon.keyring
	mon data avail crit = 1
	[mgr]
	mgr data = $rgw_dir/mgr
	keyring = $rgw_dir/mgr.keyring
	mgr initial modules =
	[osd]
	osd data = $rgw_dir/osd
	osd objectstore = memstore
	memstore device bytes = 4294967296
	osd class load list = *
	osd class default list = *
	keyring = $rgw_dir/osd/keyring
	[client.rgw]
	keyring = $rgw_dir/rgw.keyring
	rgw frontends = beast endpoint=127.0.0.1:$rgw_port
	rgw enable usage log = false
	rgw run sync thread = false
	rgw data = $rgw_dir
	rgw sts key = sixteen-letters.
	END
	ceph-authtool -C "$rgw_dir/mon.keyring" -g -n mon. --cap mon 'allow *' &&
		ceph-authtool -C "$rgw_dir/admin.keyring" -g -n client.admin \
			--cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' &&
		ceph-authtool "$rgw_dir/mon.keyring" \
			--import-keyring "$rgw_dir/admin.keyring" &&
		monmaptool --create --fsid "$fsid" --addv a "$mon" \
			"$rgw_dir/monmap" >/dev/null &&
		ceph-mon -c "$rgw_dir/ceph.conf" --mkfs -i a \
			--monmap "$rgw_dir/monmap" -k "$rgw_dir/mon.keyring" || return 1
	in_background mon ceph-mon -c "$rgw_dir/ceph.conf" -i a
	ceph_do auth get-or-create mgr.a mon 'allow profile mgr' osd 'allow *' \
		mds 'allow *' -o "$rgw_dir/mgr.keyring" &&
		ceph_do auth get-or-create client.rgw mon 'allow rw' \
			osd 'allow rwx' -o "$rgw_dir/rgw.keyring" >/dev/null &&
		ceph_do osd new "$osd" >/dev/null &&
		ceph-authtool -C "$rgw_dir/osd/keyring" -g -n osd.0 &&
		ceph_do auth add osd.0 mon 'allow profile osd' osd 'allow *' \
			mgr 'allow profile osd' -i "$rgw_dir/osd/keyring" &&
		ceph-osd -c "$rgw_dir/ceph.conf" -i 0 --mkfs --osd-uuid "$osd" \
			>"$rgw_dir/mkfs.out" 2>&1 &&
		ceph_do osd crush add osd.0 1 root=default host=here || return 1
	in_background mgr ceph-mgr -c "$rgw_dir/ceph.conf" -i a
	in_background osd ceph-osd -c "$rgw_dir/ceph.conf" -i 0
	rgw_gateway
}

# The last of rgw_pids
rgw_gateway()
{
	in_background rgw "$@" radosgw -c "$rgw_dir/ceph.conf" -n client.rgw
	curl -s -o /dev/null --retry 60 --retry-delay 1 --retry-all-errors \
		--retry-max-time 90 "$rgw/"
}

rgw_user()
{
	rgw_admin user create --uid="$1" --display-name="$1" --access-key="$2" \
		--secret-key="$3" >/dev/null 2>&1
}

# A policy has to allow them, and somebody to write policies.
rgw_may_session()
{
	rgw_admin caps add --uid="$1" --caps="user-policy=*" >/dev/null &&
		python3 "$tests/lib/s3.py" ask iam Action=PutUserPolicy UserName="$1" \
			PolicyName=sessions 'PolicyDocument={"Version": "2012-10-17",
			"Statement": [{"Effect": "Allow", "Action": ["sts:*"], "Resource": ["*"]}]}'
}

rgw_session()
{
	python3 "$tests/lib/s3.py" ask sts Action=GetSessionToken DurationSeconds=900 |
		sed -n -E 's,.*<AccessKeyId>(.*)</AccessKeyId>.*<SecretAccessKey>(.*)</SecretAccessKey>.*<SessionToken>(.*)</SessionToken>.*,\1 \2 \3,p'
}

rgw_again()
{
	local last=${#rgw_pids[@]}

	kill -9 "${rgw_pids[last - 1]}"
	unset "rgw_pids[last - 1]"
	rgw_gateway env "$@"
}

rgw_stop()
{
	local pid

	for pid in "${rgw_pids[@]}"; do
		kill -9 "$pid"
		wait "$pid"
	done 2>/dev/null
	rgw_pids=()
}

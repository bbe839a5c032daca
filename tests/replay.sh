# SPDX-License-Identifier: GPL-2.0-only
#
# A root file system from which a service starts, over a link that is shaped, for
# 217-*.sh and bench/replay.sh. Sourced instead of remote.sh, which it includes.
#
#	link RATE DELAY		loopback: so many Mbit/s, so many ms each way
#	link_off
#	service_start NAME	mount the device, start a web server in a chroot of it,
#				and have it answer for $files files; fails if it does not
#	service_stop
#	cold			nothing of a file system is in the page cache

. "$(dirname "${BASH_SOURCE[0]}")/remote.sh"

root=$tap_dir/root
modprobe sch_netem
mkdir -p "$root"

link()
{
	tc qdisc replace dev lo root netem rate "$1mbit" delay "$2ms" limit 10000
}

link_off()
{
	tc qdisc del dev lo root
}

# What a boot would make is there as memory: the device is read-only.
service_mount()
{
	local dir

	mount -t ext4 -o ro,noload "/dev/mapper/$1" "$root" || return 1
	for dir in tmp run; do
		mount -t tmpfs none "$root/$dir" || return 1
	done
	mount -t proc none "$root/proc"
	mount --bind /dev "$root/dev"
}

# A shell, a script, a web server, and its answers, which do not use the link
service_start()
{
	service_mount "$1" || return 1
	cat >"$root/run/start" <<-'END'
	set -e
	cat >/run/nginx.conf <<-CONF
	user root; pid /run/pid; error_log /run/error;
	events { }
	http {
		access_log off;
		client_body_temp_path /run/a; proxy_temp_path /run/b;
		fastcgi_temp_path /run/c; uwsgi_temp_path /run/d; scgi_temp_path /run/e;
		server { listen unix:/run/web; root /usr/share; }
	}
	CONF
	nginx -e /run/error -c /run/nginx.conf
	perl -MPOSIX -MEncode -MSocket -e '
		foreach my $dir ("/usr/share/site") {
			opendir my $d, $dir or die; @names = sort grep { /^\w/ } readdir $d;
		}
		$#names = $ARGV[0] - 1 if @names > $ARGV[0];
		foreach my $name (@names) {
			socket my $s, PF_UNIX, SOCK_STREAM, 0 or die;
			connect $s, sockaddr_un("/run/web") or die $!;
			syswrite $s, "GET /site/$name HTTP/1.0\r\n\r\n";
			my ($all, $part) = ("", "");
			$all .= $part while sysread $s, $part, 1 << 20;
			$all =~ m,^HTTP/1.1 200, or die "$name: $all";
			$bytes += length $all;
		}
		print "$bytes bytes of ", scalar @names, " files\n"' "$1"
	END
	timeout "${patience:-60}" chroot "$root" /usr/bin/env -i \
		PATH=/usr/sbin:/usr/bin:/sbin:/bin /bin/bash /run/start "${files:-1000}"
}

service_stop()
{
	local dir pid

	[ ! -s "$root/run/pid" ] || {
		read -r pid <"$root/run/pid"
		kill "$pid"
		until_true not_there "$pid"
	}
	for dir in tmp run proc dev; do
		umount "$root/$dir"
	done
	until_true umount "$root"
}

not_there() { [ ! -e "/proc/$1" ]; }

cold()
{
	sync
	echo 3 >/proc/sys/vm/drop_caches
}

# prefetch NAME: what, state, next, count, asked, left, unread, chunk, rate
prefetch() { dmsetup message "$1" 0 "prefetch status"; }
prefetch_done() { [[ $(prefetch "$1") = *" done "* ]]; }
prefetch_asked() { prefetch "$1" | cut -d ' ' -f 5; }

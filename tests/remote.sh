# SPDX-License-Identifier: GPL-2.0-only
#
# For the scripts 2NN-*.sh: real servers, the real helper, and images that
# tests/prepare-images made. Sourced instead of common.sh, which it includes.
#
#	nginx_start		nginx on $nginx (a URL) serves $images/store and
#				/foreign; its log is read by "requests"
#	server_start		tests/server does the same on $server
#	helper_start [OPTION]	lazyframed, attached; log in $tap_dir/helper.log;
#				as requests are counted, it asks for nothing twice
#	attach NAME URL [OPTION]	detach NAME
#	fresh NAME URL [OPTION]	detached and attached: nothing in memory
#	same NAME IMAGE [dd option]...	the device has IMAGE's bytes, then zeros
#	read_on DEVICE		fio verifies it until $tap_dir/stop is there
#	module NAME, counter DEVICE NAME	one number of sysfs

export DM_DISABLE_UDEV=1
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
. "$tests/http.sh"

images=$(dirname "$tests")/build/images
"$tests/prepare-images" >"$tap_dir/prepare" 2>&1 || {
	sed 's/^/# /' "$tap_dir/prepare"
	echo "Bail out! tests/prepare-images fails"
	exit 1
}
# The debug kernel is ten times slower: fewer rounds, the same cases.
case $(uname -r) in
*-debug) slow=y ;;
*) slow= ;;
esac
modprobe -a loop >/dev/null 2>&1

# Processes are what costs most in a virtual machine: what is done often is done
# by the shell itself.
mkfifo "$tap_dir/never"
exec 6<>"$tap_dir/never"

# until_true CMD: polls for what has no event; fails after 60 seconds
until_true()
{
	local end=$((SECONDS + ${patience:-60}))

	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || { echo "never: $*"; return 1; }
		read -r -t 0.02 -u 6
	done
	return 0
}

module() { local n; read -r n <"/sys/class/misc/lazyframe/$1" && echo "$n"; }
counter()
{
	local disk n

	for disk in /sys/block/dm-*; do
		read -r n <"$disk/dm/name"
		[ "$n" != "$1" ] || break
	done
	[ "$n" = "$1" ] && read -r n <"$disk/lazyframe/$2" && echo "$n"
}
session_over() { [ "$(module sessions)" -gt "$1" ]; }
requests_over() { [ "$(module requests)" -gt "$1" ]; }
helper_is() { [ "$(module helper)" = "$1" ]; }
waiting_is() { [ "$(counter "$1" waiting)" = "$2" ]; }
waiting_over() { [ "$(counter "$1" waiting)" -gt "$2" ]; }
url_of() { cat "$images/$1"; }

# The helper

helper_pid=
helper_start()
{
	lazyframed --verbose --hedge 0 "$@" >>"$tap_dir/helper.log" 2>&1 &
	helper_pid=$!
	until_true helper_is 1
}

helper_kill()
{
	kill "-${1:-KILL}" $helper_pid
	wait $helper_pid 2>/dev/null
	helper_pid=
	until_true helper_is 0
}

# nginx

nginx_start()
{
	local dir=$tap_dir/nginx

	nginx=http://127.0.0.1:8080
	mkdir -p "$dir"
	cat >"$dir/nginx.conf" <<-END
	user root;
	worker_processes 1;
	pid $dir/pid;
	error_log $dir/error.log;
	events { worker_connections 512; }
	http {
		log_format ranges '\$request_method \$uri \$http_range \$status \$body_bytes_sent \$connection \$server_protocol';
		access_log $dir/access.log ranges;
		client_body_temp_path $dir/body;
		proxy_temp_path $dir/proxy;
		fastcgi_temp_path $dir/fastcgi;
		uwsgi_temp_path $dir/uwsgi;
		scgi_temp_path $dir/scgi;
		keepalive_requests 100000;
		root $images/store;
		server {
			listen 127.0.0.1:8080;
			location /foreign/ { root $images; }
			location = /.mark { access_log $dir/access.log ranges; return 204; }
		}
		${1:-}
	}
	END
	/usr/sbin/nginx -p "$dir" -c "$dir/nginx.conf" -e "$dir/error.log" &&
		until_true ask 8080 GET /.mark
}

nginx_stop()
{
	[ ! -s "$tap_dir/nginx/pid" ] || kill "$(cat "$tap_dir/nginx/pid")"
}

# requests [PATTERN]: ranges of data objects that nginx answered since "forget", a
# line each, but for those by which an attach finds seek tables. The one worker logs
# a request before it looks at the next one, so behind the mark nothing is missing.
marks=0
forget()
{
	mark
	: >"$tap_dir/nginx/access.log"
}

mark()
{
	marks=$((marks + 1))
	ask 8080 GET /.mark "$marks-$marks" &&
		until_true grep -q "/.mark bytes=$marks-$marks " "$tap_dir/nginx/access.log"
}

requests()
{
	mark
	grep -v -e ' /.mark ' -e '\.header' -e ' bytes=-' "$tap_dir/nginx/access.log" |
		grep -e "${1:-.}"
}

# range_bytes: of lines of "requests", first, last and size of each range
range_bytes()
{
	sed -E 's/.* bytes=([0-9]+)-([0-9]+) .*/\1 \2/' |
		while read -r first last; do
			echo "$first $last $((last - first + 1))"
		done
}

# The scripted server

server_pid=
server_start()
{
	[ -e "$tap_dir/server.port" ] || mkfifo "$tap_dir/server.port"
	/usr/bin/python3 "$tests/server" --root "$images/store" \
		>"$tap_dir/server.port" </dev/null 2>"$tap_dir/server.err" &
	server_pid=$!
	read -r port <"$tap_dir/server.port"
	server=http://127.0.0.1:$port
}

control()
{
	local commands

	printf -v commands '%s\n' "$@"
	ask "$port" POST /.control "" "$commands"
}

# served: what the scripted server answered since "control forget"
served() { control settle log | grep '^GET ' | grep -v '\.header '; }

# Devices

attached=()
attach()
{
	lazyframe attach "$@" >/dev/null && attached+=("$1")
}

detach()
{
	lazyframe detach "$@"
}

# fresh NAME URL [OPTION]...: attached anew, and so with nothing in memory
fresh()
{
	! dmsetup info "$1" >/dev/null 2>&1 || lazyframe detach "$1" || return 1
	attach "$@"
}

# Through a file, as a pipe costs more in a virtual machine than all else
same()
{
	local name=$1 image=$2 size bytes

	shift 2
	size=$(stat -c %s "$image")
	dd if="/dev/mapper/$name" of="$tap_dir/same" bs=1M status=none "$@" ||
		return 1
	bytes=$(stat -c %s "$tap_dir/same")
	[ "$bytes" -eq $(((size + 511) / 512 * 512)) ] ||
		{ echo "$bytes bytes for $size"; return 1; }
	cmp -n "$size" "$tap_dir/same" "$image" &&
		cmp -i "$size:0" -n $((bytes - size)) "$tap_dir/same" /dev/zero
}

# read_on DEVICE: fio reads an image that knows its own content, and verifies it,
# until $tap_dir/stop is there. In rounds, so that each round's end is an event and
# its status is seen; each other one through the page cache.
read_on()
{
	local round=0

	while [ ! -e "$tap_dir/stop" ]; do
		round=$((round + 1))
		fio --name=verify --filename="/dev/mapper/$1" --readonly \
			--rw=randread --bs=4k --verify=crc32c --verify_fatal=1 \
			--ioengine=libaio --iodepth=16 --direct=$((round % 2)) \
			--norandommap --io_size=2M --randseed=$round \
			--aux-path="$tap_dir" --output="$tap_dir/fio.$round" || return 1
		echo $round >"$tap_dir/rounds"
	done
}

# What a script leaves behind, whatever happens to it
cleanup()
{
	local name

	for name in "${attached[@]}"; do
		lazyframe detach --force "$name"
	done
	[ -z "$helper_pid" ] || kill -9 $helper_pid
	[ -z "$server_pid" ] || kill $server_pid
	nginx_stop
	wait $helper_pid $server_pid
}

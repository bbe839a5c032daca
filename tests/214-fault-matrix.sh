#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Everything that a network does, to images of each codec, while the helper lives,
# is killed and started again, or is replaced by another one: what another
# attempt can bring comes, right and before the deadline; what no attempt can
# bring is an error. Prints the table.
. "$(dirname "$0")/remote.sh"

codecs=(zstd lz4 none)
states=(alive killed replaced)
# Seconds: far more than the faults take, and what a read may take at most
deadline=60
[ -z "$slow" ] || deadline=150
tls=https://localhost:8443 gone=http://127.0.0.1:8444
host=lazyframe-matrix.test
system=/etc/ssl/certs/ca-certificates.crt
# Rows: name, and how it is done by the scripted server, twice: an attempt of each
# of two helpers meets it
faults=(
	"reset-before-head:drop count=2"
	"reset-in-body:reset at=50000 count=2"
	"silence-before-head:mute count=2"
	"silence-in-body:stall at=50000 count=2"
	"short-body:short at=40000 count=2"
	"wrong-range:range count=2"
	"status-200:whole count=2"
	"status-500:status count=2"
	"503-retry-after:unavailable after=1 count=2"
	"slow-trickle:trickle count=2"
	"corrupt-bytes:corrupt at=70000 count=1"
	"status-404:status code=404 count=0"
	"changed-object:etag count=0"
)
rows=("${faults[@]%%:*}" refused tls-broken dns-failure)
# expected ROW CODEC: sets want. Some cannot end well, and what changed on its way into a
# layer that has no checksums can be told by nobody
expected()
{
	case $1/$2 in
	status-404/* | changed-object/*) want=error ;;
	corrupt-bytes/none) want=- ;;
	*) want=right ;;
	esac
}

certificate()
{
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
		-keyout "$tap_dir/$1.key" -out "$tap_dir/$1.pem" -subj "/CN=$1" \
		-addext "subjectAltName=DNS:$1"
}
tls_server()
{
	echo "server { listen 127.0.0.1:8443 ssl;" \
		"ssl_certificate $tap_dir/$1.pem; ssl_certificate_key $tap_dir/$1.key; }"
}
settled() { [ "$(pgrep -c -f 'nginx: worker')" = 1 ]; }

# network right|broken
network()
{
	cp "$tap_dir/hosts" /etc/hosts
	if [ "$1" = right ]; then
		echo "127.0.0.1 $host" >>/etc/hosts
		tls_server localhost
		echo "server { listen 127.0.0.1:8444; location = /.mark { return 204; } }"
	else
		tls_server elsewhere
	fi >"$tap_dir/extra.conf"
	[ -s "$tap_dir/nginx/pid" ] || return 0
	kill -HUP "$(cat "$tap_dir/nginx/pid")"
	if [ "$1" = right ]; then
		until_true ask 8444 GET /.mark
	else
		until_true eval '! ask 8444 GET /.mark' && until_true settled
	fi
}

cp /etc/hosts "$tap_dir/hosts"
cp "$system" "$tap_dir/system.crt" 2>/dev/null || : >"$tap_dir/system.crt"
plain_cleanup=$(declare -f cleanup)
eval "plain_${plain_cleanup}"
cleanup()
{
	plain_cleanup
	cp "$tap_dir/hosts" /etc/hosts
	cp "$tap_dir/system.crt" "$system"
}

check "certificates" eval 'certificate localhost && certificate elsewhere'
network right
server_start
check "servers" nginx_start "include $tap_dir/extra.conf;"
# attach reads headers with the system's authorities
cat "$tap_dir/system.crt" "$tap_dir/localhost.pem" >"$system"
options=(--hedge 5 --stall-timeout 1 --connect-timeout 2 --cafile "$tap_dir/localhost.pem")
helper_start "${options[@]}"

# Frames of "faults" are noise, and so of one size in C space
declare -A object size
for codec in "${codecs[@]}"; do
	url=$(url_of faults-$codec-128K)
	object[$codec]=/${url%.header}.$codec
	object[$codec]=${object[$codec]%.none}
	attach s-$codec "$server/$url" --fetch-timeout $deadline &&
		attach r-$codec "$gone/$(url_of random-$codec-128K)" \
			--fetch-timeout $deadline &&
		attach t-$codec "$tls/$(url_of mixed-$codec-128K)" \
			--fetch-timeout $deadline &&
		attach d-$codec "http://$host:8080/$(url_of odd-$codec-128K)" \
			--fetch-timeout $deadline
	check "$codec: attach by four servers" test $? = 0
	control forget
	check "$codec: a good answer" eval 'cmp -n 4096 /dev/mapper/s-$codec "$images/image/faults"'
	size[$codec]=$(served | awk '{ split($3, r, "-"); print r[2] + 1; exit }')
done
cp "$tap_dir/system.crt" "$system"

# blocks IMAGE: one of each frame of 128 KiB, where it is not zero
blocks()
{
	/usr/bin/python3 -c '
import sys
data = open(sys.argv[1], "rb").read()
print(*(i // 4096 for i in range(0, len(data) - 131072, 131072)
        if data[i:i + 4096].strip(b"\0")))' "$images/image/$1"
}
for name in random mixed odd; do
	read -r -a "block_$name" <<<"$(blocks $name)"
done

# cells ROUND: what is read, for tests/lib/matrix.py, and how it goes wrong
cells()
{
	local round=$1 codec i frame commands=()

	for codec in "${codecs[@]}"; do
		for i in "${!faults[@]}"; do
			expected "${faults[i]%%:*}" $codec
			[ $want != - ] || continue
			# each with a frame between, as neighbours would travel in
			# one range
			frame=$((round < 2 ? round * 30 + 2 * i + 2 : 2 * i + 3))
			commands+=("fault ${faults[i]#*:} path=${object[$codec]} last=$(((frame + 1) * size[$codec] - 1))")
			echo "${faults[i]%%:*}/$codec /dev/mapper/s-$codec $images/image/faults $((frame * 32 + 5))"
		done
		echo "refused/$codec /dev/mapper/r-$codec $images/image/random ${block_random[2 * round + 1]}"
		echo "tls-broken/$codec /dev/mapper/t-$codec $images/image/mixed ${block_mixed[2 * round + 1]}"
		echo "dns-failure/$codec /dev/mapper/d-$codec $images/image/odd ${block_odd[2 * round + 1]}"
	done
	control "${commands[@]}" >&2
}

# logged WORDS: since this round began
logged()
{
	tail -n +$((log_lines + 1)) "$tap_dir/helper.log" | grep -E "$1" >/dev/null
}

# three fail to connect, and some of the others are still on their way
reads_wait()
{
	[ $(($(counter r-zstd waiting) + $(counter t-lz4 waiting) +
		$(counter d-none waiting))) = 3 ] && waiting_over s-zstd 2
}

attempts_fail()
{
	until_true logged "from $tls: attempt [0-9]+ stopped at" &&
		until_true logged "from $gone: attempt [0-9]+ stopped at" &&
		until_true logged "from http://$host:8080: attempt [0-9]+ stopped at"
}

# disturb STATE: what happens to the helper while it has all this on its hands
disturb()
{
	case $1 in
	killed)
		helper_kill && helper_start "${options[@]}" ;;
	replaced)
		lazyframed --verbose --replace "${options[@]}" \
			>>"$tap_dir/helper.log" 2>&1 &
		helper_pid=$!
		until_true logged "another helper has replaced this one" ;;
	esac
}

declare -A result
round=0
for state in "${states[@]}"; do
	# a helper without connections, nor names that it has looked up
	helper_kill
	check "$state: the network breaks" network broken
	log_lines=$(wc -l <"$tap_dir/helper.log")
	helper_start "${options[@]}"
	cells $round >"$tap_dir/cells"
	start=$SECONDS
	"$tests/lib/matrix.py" <"$tap_dir/cells" >"$tap_dir/results.$state" &
	reader=$!
	check "$state: reads wait" until_true reads_wait
	check "$state: the helper goes on" disturb $state
	check "$state: attempts fail" attempts_fail
	check "$state: the network is mended" network right
	check "$state: all reads end" wait $reader
	echo "# $state: $((SECONDS - start)) s"
	while read -r cell got seconds; do
		result[$state/$cell]=$got
		expected "${cell%/*}" "${cell#*/}"
		[ "$got" = "$want" ] ||
			echo "# $state: $cell: $got after $seconds s, not $want"
		[ "${seconds%.*}" -lt $deadline ] || late+=" $state/$cell"
	done <"$tap_dir/results.$state"
	control clear
	round=$((round + 1))
done

printf -v line '# %-20s' fault
for codec in "${codecs[@]}"; do
	for state in "${states[@]}"; do
		printf -v word ' %-14s' "${codec/none/raw}-$state"
		line+=$word
	done
done
echo "$line"
wrong=0 errors=0 hangs=0 cells=0
for row in "${rows[@]}"; do
	printf -v line '# %-20s' "$row"
	for codec in "${codecs[@]}"; do
		expected "$row" $codec
		for state in "${states[@]}"; do
			got=${result[$state/$row/$codec]:-hang}
			[ $want != - ] || got=-
			printf -v word ' %-14s' $got
			line+=$word
			case $got/$want in
			hang/*) hangs=$((hangs + 1)) ;;
			wrong/*) wrong=$((wrong + 1)) ;;
			error/right) errors=$((errors + 1)) ;;
			right/error) wrong=$((wrong + 1)) ;;
			-/*) cells=$((cells - 1)) ;;
			esac
			cells=$((cells + 1))
		done
	done
	echo "$line"
done
echo "# result: $cells cells: $wrong wrong, $hangs hang, $errors errors that an attempt could have avoided"
check "no wrong byte" test $wrong = 0
check "no read hangs" test $hangs = 0
check "no error that an attempt could have avoided" test $errors = 0
check "what cannot be had is an error" eval '[ "${result[alive/status-404/zstd]}${result[killed/changed-object/lz4]}" = errorerror ]'
check "each within its deadline" test -z "${late:-}"
check "afterwards devices work" same s-lz4 "$images/image/faults" iflag=direct
# Each costs time at the end, and one of a kind shows the counters
check "the others go" dmsetup remove {r,t,d}-{zstd,lz4,none}
finish

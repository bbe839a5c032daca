# SPDX-License-Identifier: GPL-2.0-only
#
# For the scripts of tables: what remote.sh gives, and
#
#	origin_start NAME DELAY-US BYTES	an origin that is so far away serves what
#				tests/bench/prepare made; its URL in ${origin[NAME]}
#	counts NAME		requests and bytes that it answered so far
#	header IMAGE-CODEC, object IMAGE-CODEC	paths there: of the header, and of
#				the data object beside it
#	table IMAGE-CODEC NAME	line of the device, its meta device attached
#	cell ROW COLUMN UNIT VALUE...	one cell of this script's table
. "$(dirname "${BASH_SOURCE[0]}")/../remote.sh"

# A second of an emulated processor that counts instructions (tests/vm -i) has a
# thousand million of them, one of a core of today about slow times as many. So
# all origins are slow times as far away, and all times are divided by it: slow
# motion. Without -i, slow is 1.
bench=$(dirname "$tests")/build/bench
slow=${BENCH_SLOW:-1}
declare -A origin
origins=()
loops=()

origin_start()
{
	local port

	mkfifo "$tap_dir/port"
	"$bench/origin" "$bench/store" $(($2 * slow)) $(($3 / slow)) >"$tap_dir/port" </dev/null &
	origins+=($!)
	read -r port <"$tap_dir/port"
	rm "$tap_dir/port"
	origin[$1]=http://127.0.0.1:$port
}

counts() { ask "${origin[$1]##*:}" GET /.counts; }
header() { cat "$bench/$1"; }
object()
{
	local path

	path=$(header "$1")
	path=${path%.header}
	for path in "$path" "$path.zstd" "$path.lz4"; do
		[ ! -f "$bench/store/$path" ] || echo "$path"
	done
}

table()
{
	local line loop meta

	meta=$(mktemp -u "$tap_dir/meta.XXXXXX")
	line=$(lazyframe format "$meta" "${origin[$2]}/$(header "$1")") || return 1
	loop=$(losetup -f --show -r "$meta")
	echo "${line/"$meta"/$loop}"
}

# What the kernel has times for is in slow motion, too.
echo $((800 * slow)) >/sys/module/lazyframe/parameters/prefetch_ms

cell()
{
	local row=$1 column=$2 unit=$3 values

	shift 3
	printf -v values ', %s' "$@"
	echo "# bench {\"row\": \"$row\", \"column\": \"$column\"," \
		"\"unit\": \"$unit\", \"values\": [${values:2}]}"
}

cleanup_remote=$(declare -f cleanup)
eval "remote_${cleanup_remote}"
cleanup()
{
	remote_cleanup
	[ ${#origins[@]} = 0 ] || kill "${origins[@]}"
	losetup -D
}

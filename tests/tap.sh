# SPDX-License-Identifier: GPL-2.0-only
# TAP output for shell tests. Sourced by bash; ends with tap_end.

. "$(dirname "${BASH_SOURCE[0]}")/counts.sh"
tap_count=0
tap_failed=0
tap_dir=$(mktemp -d)
trap 'rm -rf "$tap_dir"' EXIT
echo "TAP version 13"

# unchanged FILE CMD...: succeeds if CMD does, and leaves FILE as it is
unchanged()
{
	local file=$1 before after

	shift
	before=$(sha256sum "$file"; stat -c '%s %i' "$file")
	"$@" || return 1
	after=$(sha256sum "$file"; stat -c '%s %i' "$file")
	[ "$before" = "$after" ] || { echo "$file changed"; return 1; }
}

# check NAME CMD...: passes if CMD succeeds; shows its output if it does not
check()
{
	local name=$1 status

	shift
	tap_count=$((tap_count + 1))
	"$@" >"$tap_dir/check" 2>&1
	status=$?
	if [ $status -eq 0 ]; then
		echo "ok $tap_count $name"
	else
		echo "not ok $tap_count $name"
		echo "# status $status of: $*"
		sed 's/^/# /' "$tap_dir/check"
		tap_failed=$((tap_failed + 1))
	fi
}

# says STATUS WORDS CMD...: ends with STATUS and has WORDS on stderr
says()
{
	local want=$1 words=$2 got said

	shift 2
	"$@" >"$tap_dir/stdout" 2>"$tap_dir/stderr"
	got=$?
	# no process: where processors are emulated, each costs as much as a command
	IFS= read -r -d '' said <"$tap_dir/stderr"
	printf %s "$said"
	[ $got -eq "$want" ] || { echo "status $got, not $want"; return 1; }
	[[ $said == *"$words"* ]] || { echo "stderr lacks: $words"; return 1; }
}

# tap_take NAME CMD...: the points that CMD makes are this script's own; one more,
# NAME, is its status
tap_take()
{
	local name=$1 line status

	shift
	"$@" >"$tap_dir/take" 2>"$tap_dir/take.err"
	status=$?
	while IFS= read -r line; do
		case $line in
		"ok "* | "not ok "*)
			tap_count=$((tap_count + 1))
			sed -E "s/^(ok|not ok) [0-9]+/\\1 $tap_count/" <<<"$line"
			[ "${line%% *}" = ok ] || tap_failed=$((tap_failed + 1)) ;;
		"#"*)	echo "$line" ;;
		esac
	done <"$tap_dir/take"
	check "$name" eval 'cat "$tap_dir/take.err"; [ '$status' = 0 ]'
}

tap_end()
{
	echo "1..$tap_count"
	[ $tap_failed -eq 0 ]
	exit
}

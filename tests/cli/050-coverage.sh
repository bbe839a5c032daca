#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# COVERAGE.md: every number from F1 to F79 and L1 to L27, once, and each test that
# is named exists.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
cd "$tests" || exit 1

# numbers LETTER LAST
numbers()
{
	sed -n "s/^| \($1[0-9]*\) |.*/\1/p" COVERAGE.md |
		diff - <(seq -f "$1%.0f" "$2")
}
check "F1 to F79, in order" numbers F 79
check "L1 to L27, in order" numbers L 27

# A row without a test says which later part owns it, or why it cannot happen.
accounted()
{
	! grep '^| [FL]' COVERAGE.md | grep -v '`[^`]*\.\(c\|sh\)[:`]' |
		grep -v -e '[Ll]ater, ' -e 'cannot happen'
}
check "each has a test or a reason" accounted

exist()
{
	local test file name bad=0

	while read -r test; do
		file=${test%%: *} name=${test#*: }
		case $file in
		*_test.c|*/test_*.c)
			grep -q -z "TEST[A-Z_]*([^)]*\<$name[,)]" "$file" ;;
		*)	grep -qF "\"$name\"" "$file" ;;
		esac && continue
		echo "$test"
		bad=1
	done < <(grep -o '`[^`]*\.\(c\|sh\): [^`]*`' COVERAGE.md | tr -d '\140' |
		sort -u)
	return $bad
}
check "the tests that it names exist" exist

tap_end

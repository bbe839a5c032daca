# SPDX-License-Identifier: GPL-2.0-only
#
# Sourced where images are built into a store: $base, below the current directory.

mkdir store
base="file://$PWD/store"

build() { lazyframe build -q "$@" "$base"; }

# equal URL IMAGE: it verifies, and another reader agrees on every field and byte
equal()
{
	lazyframe verify -q "$1" &&
		python3 "$tests/lib/header.py" "${1#file://}" "$2"
}

# json URL EXPRESSION: true of what inspect says (j)
json()
{
	lazyframe inspect --json "$1" | python3 -c "import json, sys
j = json.load(sys.stdin)
sys.exit(not ($2))"
}

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Random generations of an image, by build --parent, by the layer writer, by
# flatten, against a flat model (lib/generations.py). GENERATIONS: how many,
# SEED: the first of three.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
writer=${LAZYFRAME_WRITER:-$tests/../build/tests/lib/write-layer}
count=$GENERATIONS
seed=${SEED:-1}
cd "$tap_dir" || exit 1

[ -n "$LAZYFRAME_WRITER" ] ||
	check "the layer writer builds" make -s -C "$tests" write-layer

generations()
{
	python3 "$tests/lib/generations.py" "$(command -v lazyframe)" "$writer" \
		"$PWD/$2" "$1" "$2" >log 2>&1
	local status=$?

	cat log
	[ $status = 0 ] && rm -rf "$2"
}

# A third each, so that sizes and codecs of the first image differ, too.
each=$(((count + 2) / 3))
for n in $seed $((seed + 1)) $((seed + 2)); do
	check "$each generations of random changes equal a flat model, seed $n" \
		generations "$each" "$n"
	sed 's/^/# /' log
done
tap_end

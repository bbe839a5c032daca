#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Each parser takes whatever libFuzzer makes of valid inputs: FUZZ_SECONDS for
# each, or FUZZ_RUNS executions. An input that breaks one stays in
# build/fuzz/ for the debugger: build/fuzz/fuzz_<name> <file>.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../tap.sh"
out=$here/../../build/fuzz

limit=-max_total_time=$FUZZ_SECONDS
[ -n "$FUZZ_RUNS" ] && limit=-runs=$FUZZ_RUNS

fuzz()
{
	mkdir -p "$out/found/$1" &&
	"$out/fuzz_$1" "$limit" -seed=1 -max_len=8192 -timeout=60 -rss_limit_mb=2048 \
		-artifact_prefix="$out/$1-" -print_final_stats=1 \
		"$out/found/$1" "$out/corpus/$1"
}

check "the fuzzers build" make -s -C "$here" OUT="$out"
check "first inputs are made" "$out/make-corpus" "$out/corpus"
for name in disk overlay store lz4frame seektable header fill mapping text shared tracefile; do
	check "no input breaks $name" fuzz $name
done
tap_end

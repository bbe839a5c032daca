#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# No hit costs more instructions than it may, and no image more memory, whatever
# else this machine does: tests/bench/counts.sh and scale.sh, as one test.
. "$(dirname "$0")/lib.sh"
. "$tests/counts.sh"
"$tests/prepare-images" >&2 && "$tests/bench/decoder/build" 6.12 >&2 || exit 1
"$tests/vm" -i -k 6.12 -t 1800 -- env BENCH_ONLY="$SCALE" \
	bash -c "bash '$tests/bench/counts.sh'; bash '$tests/bench/scale.sh'" |
	awk '/^TAP version/	{ next }
		/^1\.\.[0-9]/	{ plans++; next }
		/^(not )?ok /	{ sub(/ok [0-9]+/, "ok " ++n) }
				{ print; fflush() }
		END		{ print (plans == 2 ? "ok " : "not ok ") ++n " both ran to their end"
				  print "1.." n }'

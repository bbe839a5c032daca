#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# tests/bench/counts.sh: no hit costs more instructions than it may, whatever else
# this machine does.
. "$(dirname "$0")/lib.sh"
"$tests/prepare-images" >&2 && "$tests/bench/decoder/build" 6.12 >&2 || exit 1
exec "$tests/vm" -i -k 6.12 -- bash "$tests/bench/counts.sh"

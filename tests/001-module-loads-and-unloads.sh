#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# The module loads, registers its target and its device, and leaves no trace.
. "$(dirname "$0")/common.sh"

check "its target is registered" eval "dmsetup targets | grep '^lazyframe '"
check "the helper's device is there" test -c /dev/lazyframe
check "for root alone" eval '[ "$(stat -c "%a %U" /dev/lazyframe)" = "600 root" ]'
check "it unloads" rmmod lazyframe
check "without its target" eval "! dmsetup targets | grep '^lazyframe '"
check "and without the device" test ! -e /dev/lazyframe
check "it loads again" modprobe lazyframe
check "20 times" eval 'for i in $(seq 20); do
	rmmod lazyframe && modprobe lazyframe || exit 1; done'
finish

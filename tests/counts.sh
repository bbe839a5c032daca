# SPDX-License-Identifier: GPL-2.0-only
#
# How often a test does what could be done for ever. Sourced by bash (tap.sh does
# it), which exports each; what the environment has already stays.
#
# `make check` takes the first column, `make check-long` (LONG=1) the second; on
# the debug kernel, where all is ten times as slow, the third and fourth.

counts_column=2
[ "${LONG:-0}" = 0 ] || counts_column=3
case $(uname -r) in
*-debug) counts_column=$((counts_column + 2)) ;;
esac

# count NAME SHORT LONG DEBUG DEBUG-LONG
count()
{
	export "$1=${!1:-${!counts_column}}"
}

#	name		short	long	debug	and long
count	ROUNDS		1	10	1	3	# factor for tests with random numbers
count	DEVICES		80	500	40	100	# on one kernel, at once
count	MATRIX		turns	all	few	turns	# images for each codec and frame size
count	KILLS		8	100	4	20	# of the helper, below fio
count	REPLACES	4	100	2	20	# of the helper by another one, below fio
count	RESTARTS	2	50	2	10	# of it by systemd
count	LOSSES		6	1000	4	50	# of it below fio on cold, stored and dirty data
count	SHARERS		12	500	8	60	# devices of one image that read it all at once
count	FUZZ_SECONDS	3	600	5	600	# for each fuzzer
count	CHANNEL_SECONDS	8	600	10	600	# of random calls on /dev/lazyframe
count	POWER_CUTS	1	20	1	5	# of a machine that writes
count	GENERATIONS	60	500	5	50	# of random layers on layers
count	FSX_SECONDS	3	600	10	120	# of fsx on a device
count	SEAL_KILLS	3	60	2	10	# of seal, each at another moment
count	EXPORTS		6	500	2	20	# generations that a device writes and exports
count	EXPORT_KILLS	1	60	1	10	# of export
count	SCALE		'TiB|^1 l|2000'	.	.	.	# rows of what size costs
count	MEMORY_MIB	24	48	16	16	# of a machine's memory that many processes map
count	TRACE_SESSIONS	12	60	4	12	# of programs whose reads are replayed on a store
count	STORM_SECONDS	6	60	4	120	# of devices that come and go, for each kind of fault
count	STORM_KINDS	all	all	few	all	# of faults in that
count	STORE_CUTS	200	2000	50	200	# of a store that is filled and emptied
count	SEAL_MIB	64	1024	16	64	# dirty when the time of a seal is taken
count	OVERLAY_SECONDS	8	120	8	60	# of everything at once on an overlay
count	RGW_DEVICES	1	1	0	1	# machines with devices on Ceph's gateway
# these are multiplied by ROUNDS, too
count	CRASH_OPS	400	400	400	400	# of each workload whose crashes are looked at
count	FAULT_ROUNDS	12	12	12	12	# of a storm of errors

# SPDX-License-Identifier: GPL-2.0-only
#
# For scripts whose body is one Python program: sourced after common.sh.

# python_tests: runs the program on stdin with tests/lib on its path. It uses
# rig.py, whose checks count as the script's own.
python_tests()
{
	local counts="$tap_dir/counts" status

	cat >"$tap_dir/body.py"
	rm -f "$counts"
	modprobe -a loop dm_mod
	TAP_FIRST=$tap_count TAP_COUNTS=$counts PYTHONPATH=$tests/lib \
		PYTHONDONTWRITEBYTECODE=1 TMPDIR=$tap_dir DM_DISABLE_UDEV=1 \
		python3 -u "$tap_dir/body.py" </dev/null
	status=$?
	if [ -s "$counts" ]; then
		read -r tap_count failed <"$counts"
		tap_failed=$((tap_failed + failed))
	else
		check "the program ran to its end (status $status)" false
	fi
}

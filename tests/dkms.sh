#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# dkms add, build and install, in a tree of their own: nothing of this machine
# changes.
tests=$(cd "$(dirname "$0")" && pwd)
. "$tests/tap.sh"
. "$tests/lib.sh"
PATH=$PATH:/usr/sbin:/sbin

version=$(sed -n 's/^VERSION := //p' "$tree/Makefile")
source=$tap_dir/src/lazyframe-$version
mkdir -p "$tap_dir/dkms" "$tap_dir/modules" "$source"
cp -r "$tree"/{Kbuild,Makefile,dkms.conf,kmod,uapi} "$source/"
find "$source" -name '*.o' -delete

check "dkms.conf has the version of the Makefile" \
	grep -qx "PACKAGE_VERSION=\"$version\"" "$tree/dkms.conf"
for kernel in 6.1 6.12; do
	release=$(kernel_release $kernel)
	# what dkms wants to know of the kernel it installs for
	mkdir -p "$tap_dir/modules/$release"
	cp "$(kernel_modules "$release")"/modules.{order,builtin} "$tap_dir/modules/$release/"
	run_dkms()
	{
		local action=$1

		shift
		# depmod would not look into the install tree, but change this machine's
		dkms "$action" -m lazyframe -v "$version" "$@" --no-depmod \
			--dkmstree "$tap_dir/dkms" --sourcetree "$tap_dir/src" \
			--installtree "$tap_dir/modules"
	}
	if [ $kernel = 6.1 ]; then
		check "dkms add" run_dkms add
	fi
	check "dkms build for $release" run_dkms build -k "$release" \
		--kernelsourcedir "$(kernel_build "$release")"
	check "dkms install for $release" run_dkms install -k "$release" --force
	ko=$(find "$tap_dir/modules/$release" -name 'lazyframe.ko*')
	check "the module is there" test -f "$ko"
	check "it is for $release" eval \
		'modinfo -F vermagic "$ko" | grep -F "$release "'
	check "its version is $version" eval \
		'[ "$(modinfo -F version "$ko")" = "$version" ]'
done
check "dkms remove" run_dkms remove --all
check "nothing is left of it" eval '! find "$tap_dir/modules" -name "lazyframe.ko*" | grep .'
check "this machine's dkms does not know of it" eval '! dkms status | grep lazyframe'
tap_end

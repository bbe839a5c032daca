# SPDX-License-Identifier: GPL-2.0-only
# Where things are, for the scripts that run on the host. Sourced by bash.

tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tree=$(dirname "$tests")

# Kernels, the debug kernel's build and initramfs images outlive the checkout.
cache=${LAZYFRAME_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/lazyframe}

die()
{
	echo "${0##*/}: $*" >&2
	exit 1
}

# kernel_source: the folder of the unpacked linux-source-6.12 of the installed
# package version; unpacks it once.
kernel_source()
{
	local tar=/usr/src/linux-source-6.12.tar.xz dir version

	version=$(dpkg-query -W -f '${Version}' linux-source-6.12 2>/dev/null)
	[ -n "$version" ] && [ -f $tar ] ||
		die "no linux-source-6.12: run tests/setup"
	dir=$cache/src/linux-source-$version
	(
		flock 9
		if [ ! -f "$dir/.complete" ]; then
			rm -rf "$cache"/src/linux-source-*
			mkdir -p "$dir"
			tar -xJf $tar -C "$dir" --strip-components=1 &&
				touch "$dir/.complete"
		fi
	) 9>"$(mkdir -p "$cache/src" && echo "$cache/src/.lock")" ||
		die "cannot unpack $tar into $cache/src"
	echo "$dir"
}

# kernel_release NAME: the full release for 6.1, 6.12, debug or a full name: of
# the kernels in the cache and the installed ones the newest that modules can be
# built for, failing that the newest.
kernel_release()
{
	local want=$1 all found

	case $want in
	debug)	want='*-debug' ;;
	6.1|6.12) want="$want.[0-9]*-amd64" ;;
	esac
	all=$( { cd "$cache/kernels" && ls -d $want
		cd /boot && ls vmlinuz-$want; } 2>/dev/null |
		sed 's/^vmlinuz-//' | grep -v -e cloud -e -rt- | sort -rV)
	for found in $all; do
		kernel_build "$found" >/dev/null && echo "$found" && return
	done
	echo "$all" | head -n 1
}

# kernel_image RELEASE, kernel_modules RELEASE: its bzImage and modules folder.
kernel_image()
{
	local image=$cache/kernels/$1/vmlinuz

	[ -f "$image" ] || image=/boot/vmlinuz-$1
	[ -f "$image" ] && echo "$image"
}

kernel_modules()
{
	local dir=$cache/kernels/$1/modules

	[ -d "$dir" ] || dir=/lib/modules/$1
	[ -d "$dir" ] && echo "$dir"
}

# kernel_build RELEASE: the folder to build external modules against.
kernel_build()
{
	local dir

	for dir in "$cache/kernels/$1/modules/build" "/lib/modules/$1/build" \
		"/usr/src/linux-headers-$1"; do
		[ -f "$dir/Makefile" ] && echo "$dir" && return
	done
	return 1
}

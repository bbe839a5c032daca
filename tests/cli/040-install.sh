#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# make install, make dkms and make uninstall: exactly which files they make.
tests=$(cd "$(dirname "$0")/.." && pwd)
tree=$(dirname "$tests")
. "$tests/tap.sh"
. "$tests/lib.sh"
PATH=$PATH:/usr/sbin:/sbin
cd "$tap_dir" || exit 1
version=$(sed -n 's/^VERSION := //p' "$tree/Makefile")

files() { (cd "$1" && find . -type f -printf '%m %P\n' | sort -k 2); }
pages() { (cd "$tree/helper" && ls *.8); }
programs()
{
	echo "755 $1/bin/lazyframe"
	echo "644 $1/lib/systemd/system/lazyframed.service"
	echo "644 $1/lib/sysusers.d/lazyframe.conf"
	echo "755 $1/sbin/lazyframed"
	echo "644 $1/share/doc/lazyframe/grafana-dashboard.json"
	echo "644 $1/share/doc/lazyframe/nginx-cache.conf"
	pages | sed "s,^,644 $1/share/man/man8/,"
}
source_files()
{
	(cd "$tree" && git ls-files Kbuild Makefile dkms.conf COPYING \
		'kmod/*.[ch]' uapi/linux/lazyframe.h) |
		sed "s,^,644 usr/src/lazyframe-$version/,"
}
same() { diff <(sort -k 2 expected) <(files "$1"); }

check "every command has a man page" eval '
	for c in $("$tree/helper/lazyframe" --help | awk "/^  [a-z]/ { print \$1 }"); do
		pages | grep -x "lazyframe-$c.8" || exit 1
	done; pages | grep -x lazyframed.8'
check "no warnings in them" eval 'for p in "$tree"/helper/*.8; do
	man --warnings -l -Tutf8 "$p" 2>&1 >/dev/null; done | tee w; [ ! -s w ]'

check "make install" make -C "$tree" install DESTDIR="$PWD/a"
programs usr/local >expected
check "makes these files and no others" same a
check "the program runs there" a/usr/local/bin/lazyframe --version
check "and knows its version" \
	eval 'a/usr/local/bin/lazyframe --version | grep -F "$version"'
check "PREFIX is honoured" \
	make -C "$tree" install DESTDIR="$PWD/b" PREFIX=/usr
programs usr >expected
check "by each file" same b
check "by the unit" grep -E '^ExecStart=@?/usr/sbin/lazyframed' \
	b/usr/lib/systemd/system/lazyframed.service
check "the unit's program is where install put it" grep -E \
	'^ExecStart=@?/usr/local/sbin/lazyframed' \
	a/usr/local/lib/systemd/system/lazyframed.service

check "the unit's user is one that install makes" eval '
	mkdir a/etc && systemd-sysusers --root="$PWD/a" "$PWD/a/usr/local/lib/sysusers.d/lazyframe.conf" &&
	user=$(sed -n "s/^User=//p" a/usr/local/lib/systemd/system/lazyframed.service) &&
	grep "^$user:" a/etc/passwd; status=$?; rm -rf a/etc; [ $status = 0 ]'

check "make dkms" make -C "$tree" dkms DESTDIR="$PWD/c"
source_files >expected
check "copies what the module needs and no more" same c
check "a second time, too" make -C "$tree" dkms DESTDIR="$PWD/c"
check "dkms.conf has the same version" \
	grep -qx "PACKAGE_VERSION=\"$version\"" "$tree/dkms.conf"
check "the module has the same version" \
	grep -qF "MODULE_VERSION(\"$version\")" "$tree/kmod/target.c"

# DKMS itself, in folders of its own
krel=$(kernel_release 6.1)
mkdir -p dkms src "inst/$krel"
dkms="dkms --dkmstree $PWD/dkms --sourcetree $PWD/src --installtree $PWD/inst"
check "there is a kernel 6.1 to build for" test "$krel"
check "DKMS adds, builds and installs" make -C "$tree" dkms KREL="$krel" \
	KDIR="$(kernel_build "$krel")" DKMS="$dkms" DKMS_SRC="$PWD/src"
check "a module for that kernel" eval 'modinfo -F vermagic \
	inst/$krel/updates/dkms/lazyframe.ko | grep "^$krel "'
check "DKMS knows it" eval '$dkms status | grep "lazyframe/$version, $krel.*installed"'

check "make uninstall" eval 'make -C "$tree" uninstall DESTDIR="$PWD/a" &&
	make -C "$tree" uninstall DESTDIR="$PWD/b" PREFIX=/usr &&
	make -C "$tree" uninstall DESTDIR="$PWD/c"'
check "takes every file back" eval '[ -z "$(find a b c -type f)" ]'
check "and the module" eval 'make -C "$tree" dkms-remove DKMS="$dkms" \
	DKMS_SRC="$PWD/src" && [ -z "$(find inst src -type f)" ] &&
	[ -z "$($dkms status)" ]'
tap_end

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# lazyframe gc: what no header refers to, and never anything else.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
cd "$tap_dir" || exit 1
. "$tests/lib/store.sh"

folder() { dirname "${1#file://}"; }
uuid() { basename "$(folder "$1")"; }

# gc ARGUMENT...: of any age
gc() { lazyframe gc --min-age 0 "$@" "$base"; }

# lists UUID...: these and no others
lists()
{
	gc >out 2>err || { cat err; return 1; }
	cut -d' ' -f1 out | sort | diff - <(printf '%s\n' "$@" | sort | sed '/^$/d')
}

head -c 300000 /dev/urandom >image
cp image other
printf x | dd of=other bs=1 seek=100000 conv=notrunc status=none
a=$(build -n disk image)
b=$(build -n disk -p "$a" other)
c=$(build -n disk -p "$b" image)
d=$(build -n disk -c lz4 other)
e=$(build -n disk -c none other)

check "nothing, while every layer is in use" lists

parents()
{
	# Its layer is needed by the next generation, its header is not.
	rm "${a#file://}" && lists && rm "${b#file://}" &&
		lazyframe verify -q "$c"
}
check "layers of headers that are gone are in use by others" parents

listed()
{
	rm "${d#file://}" && lists "$(uuid "$b")" "$(uuid "$d")" &&
		grep -q "$(uuid "$d") *[0-9.]* KiB  disk.lz4$" out &&
		grep -q "^headers: 2, data objects: 5, in no header: 2 (297" err &&
		[ -e "$(folder "$d")/disk.lz4" ]
}
check "a layer that no header refers to: UUID, size, name" listed

young()
{
	lazyframe gc "$base" >out 2>err && [ ! -s out ] &&
		grep -q "kept, as they may .*: 2$" err &&
		lazyframe gc --delete "$base" >out && [ ! -s out ] &&
		touch -d "59 minutes ago" "$(folder "$d")/disk.lz4" &&
		lazyframe gc -q "$base" >out && [ ! -s out ] &&
		touch -d "61 minutes ago" "$(folder "$d")/disk.lz4" &&
		lazyframe gc -q "$base" >out && grep -q "^$(uuid "$d")" out &&
		[ "$(wc -l <out)" = 1 ] && lazyframe gc -q --min-age 2h "$base" >out &&
		[ ! -s out ] && touch -d "+1 day" "$(folder "$d")/disk.lz4" &&
		lazyframe gc -q --min-age 1s "$base" >out &&
		! grep -q "^$(uuid "$d")" out
}
check "what is younger than --min-age, an hour if not given, stays" young

# refuses WORDS: gc --delete ends with that, and deletes nothing
refuses()
{
	local before

	before=$(find store | sort)
	says 1 "$1" gc --delete && [ "$before" = "$(find store | sort)" ]
}

bad_header()
{
	local bytes bad=store/some-folder/disk.header

	mkdir store/some-folder
	for bytes in 0 63 70 200; do
		head -c $bytes "${c#file://}" >$bad
		refuses "some-folder/disk.header" || return 1
	done
	head -c 1000 /dev/urandom >$bad
	refuses "nothing is deleted"
	local status=$?

	rm -r store/some-folder
	return $status
}
check "a header that cannot be read: nothing is deleted" bad_header

in_flight()
{
	local h=${c#file://}

	cp "$h" saved
	printf '\001' | dd of="$h" bs=1 seek=64 conv=notrunc status=none
	lists "$(uuid "$b")" "$(uuid "$d")"
	local status=$?

	cp saved "$h"
	return $status
}
check "a header whose upload is not finished counts" in_flight

linked()
{
	local n

	# The newest image, which needs the first one's layer: its header, then its
	# folder, are there by a link.
	n=$(folder "$c")
	mv "$n/disk.header" moved && ln -s "$PWD/moved" "$n/disk.header" &&
		lists "$(uuid "$b")" "$(uuid "$d")" && rm "$n/disk.header" &&
		mv moved "$n/disk.header" && mv "$n" moved &&
		ln -s "$PWD/moved" "$n" && lists "$(uuid "$b")" "$(uuid "$d")" &&
		rm "$n" && mv moved "$n"
}
check "links are followed" linked

two_images()
{
	# One build with two images, of which the next build has changed one
	local f n g

	f=$(build -n memory image) && n=$(folder "$f") &&
		cp "$(folder "$e")"/disk "$n/disk" && lists "$(uuid "$b")" \
		"$(uuid "$d")" "$(uuid "$f")" && grep -q "^$(uuid "$f").* disk$" out &&
		! grep -q memory out || return 1
	cp "${e#file://}" "$n/disk.header"
	# It is of another layer, but it is where it is.
	lists "$(uuid "$b")" "$(uuid "$d")" "$(uuid "$f")" || return 1
	python3 - "$n/disk.header" "$(uuid "$f")" <<-'END'
	import sys, uuid
	data = open(sys.argv[1], "rb").read()
	raw = uuid.UUID(sys.argv[2]).bytes
	data = data[:32] + raw + raw + data[64:80] + raw + data[96:]
	open(sys.argv[1], "wb").write(data)
	END
	lists "$(uuid "$b")" "$(uuid "$d")" && rm -r "$n"
}
check "images of two names under one UUID" two_images

strangers()
{
	local n

	n=$(folder "$e")
	mkdir -p store/notes store/.hidden/x
	echo text >store/notes/disk.zstd
	echo text >"$n/metadata.json"
	echo text >"$n/.disk.zstd"
	echo text >store/disk.zstd
	lists "$(uuid "$b")" "$(uuid "$d")" &&
		grep -q "left alone, as they may be no data objects: 1$" err
}
check "files that are no layers are left alone" strangers

both_ways()
{
	local f

	# A raw image of the name disk.zstd
	f=$(build -n disk.zstd -c none image) && lists "$(uuid "$b")" \
		"$(uuid "$d")" && mv "$(folder "$f")/disk.zstd.header" saved &&
		lists "$(uuid "$b")" "$(uuid "$d")" "$(uuid "$f")" &&
		rm -r "$(folder "$f")"
}
check "a raw image with a codec's suffix in its name" both_ways

deleted()
{
	gc --delete >out 2>err || return 1
	[ "$(wc -l <out)" = 2 ] && grep -q "deleted: 2 (297" err &&
		[ ! -e "$(folder "$d")" ] && [ ! -e "$(folder "$b")" ] &&
		[ "$(find store -name '*.uncompressed-size' | wc -l)" = 2 ] &&
		[ "$(find store -name '*.header' | wc -l)" = 2 ] &&
		[ "$(find store -type f | wc -l)" = 11 ] ||
		{ cat out err; find store; return 1; }
	lazyframe verify -q "$c" && lazyframe verify -q "$e" && lists
}
check "--delete takes them, their sizes beside them, and empty folders" deleted

versions()
{
	local f g

	# A stack of version 3, whose middle header is gone; the last generation
	# hides the middle's layer.
	f=$(build -n raw -c none image) && g=$(build -n raw -c none -p "$f" other) &&
		rm "${f#file://}" && lists && rm "${g#file://}" &&
		lists
	# No header has the name any more: they might be anything.
	grep -q "no data objects: 3$" err
}
check "headers of version 3, and raw objects that no header has the name of" \
	versions

check "http cannot be listed" \
	says 1 "http:// cannot be listed" lazyframe gc http://127.0.0.1:1/
check "a folder that is not there" says 1 "No such file" \
	lazyframe gc "file://$PWD/nowhere"
check "an age that is none" says 2 "min-age" lazyframe gc --min-age 1x "$base"
check "no URL" says 2 "Usage" lazyframe gc
tap_end

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# An image of 10000 mappings over 2000 layers: opened in bounded time and
# memory, read, built on, and flattened. MANY_SECONDS of a processor (15) and
# MANY_KIB of memory (65536) are the limits.
tests=$(cd "$(dirname "$0")/.." && pwd)
. "$tests/tap.sh"
export PATH="${LAZYFRAME_BIN:-$tests/../helper}:$PATH"
cd "$tap_dir" || exit 1

header=$(python3 "$tests/lib/many-layers.py" . 2000 10000) || exit 1
header=$PWD/${header#./}
base="file://$PWD/store"

# measured CMD...: within the limits; says what it took
measured()
{
	python3 - "${MANY_SECONDS:-15}" "${MANY_KIB:-65536}" "$@" <<-'END'
	import resource, subprocess, sys
	code = subprocess.run(sys.argv[3:]).returncode
	u = resource.getrusage(resource.RUSAGE_CHILDREN)
	seconds = u.ru_utime + u.ru_stime
	print(f"{sys.argv[4]}: {seconds:.2f} s, {u.ru_maxrss} KiB",
	      file=open("measured", "w"))
	print(open("measured").read())
	sys.exit(code or seconds > float(sys.argv[1]) or
	         u.ru_maxrss > int(sys.argv[2]))
	END
	local status=$?

	grep -q . measured && sed 's/^/# /' measured >>figures
	return $status
}

json()
{
	measured lazyframe inspect --json "file://$header" >out || return 1
	python3 -c 'import json
j = json.loads(open("out").read().rsplit("}\n", 1)[0] + "}")
assert len(j["layers"]) == 2000, len(j["layers"])
assert j["mappings"]["count"] == 10000, j["mappings"]
assert sum(l["codec"] == "none" for l in j["layers"]) == 666'
}
check "inspect opens it" json

meta()
{
	measured lazyframe format meta "file://$header"
}
check "format makes a meta device of it" meta

check "all of it reads right, with another reader" \
	python3 "$tests/lib/header.py" "$header" image
check "verify" lazyframe verify -q "file://$header"

child()
{
	cp image changed
	printf '\377' | dd of=changed bs=1 seek=20000000 conv=notrunc status=none
	measured lazyframe build -q --parent "file://$header" changed "$base" >url
	local status=$?

	url=$(grep ^file url)
	[ $status = 0 ] && python3 "$tests/lib/header.py" "${url#file://}" changed
}
check "the next generation" child

flat()
{
	measured lazyframe flatten -q "$url" "$base" >flat
	local status=$?

	flat=$(grep ^file flat)
	[ $status = 0 ] &&
		python3 "$tests/lib/header.py" "${flat#file://}" changed
}
check "flatten to one layer" flat

bounded()
{
	measured lazyframe flatten -q --layers 10 "$url" "$base" >flat
	local status=$?

	flat=$(grep ^file flat)
	[ $status = 0 ] &&
		python3 "$tests/lib/header.py" "${flat#file://}" changed &&
		lazyframe inspect "$flat" | grep -q '^layers *10$'
}
check "flatten to ten layers" bounded

collected()
{
	rm "$header" "${url#file://}"
	measured lazyframe gc -q --min-age 0 --delete "$base" >gone
	local status=$?

	# all but those that the last ten need
	[ $status = 0 ] && [ "$(grep -c disk gone)" = 1992 ] &&
		lazyframe verify -q "$flat"
}
check "gc takes all the layers that are left" collected
cat figures
tap_end

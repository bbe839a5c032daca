# SPDX-License-Identifier: GPL-2.0-only
#
# A request to a server on this machine, by the shell alone: processes are dear in
# a virtual machine.

# ask PORT METHOD PATH [RANGE [BODY]]: the body of a server's answer on stdout
ask()
{
	local status= length=0 line body=${5:-}

	exec 7<>"/dev/tcp/127.0.0.1/$1" || return 1
	printf '%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n' "$2" "$3" >&7
	[ -z "${4:-}" ] || printf 'Range: bytes=%s\r\n' "$4" >&7
	printf 'Content-Length: %d\r\n\r\n%s' ${#body} "$body" >&7
	read -r _ status _ <&7
	while read -r line <&7 && [ "$line" != $'\r' ]; do
		line=${line%$'\r'}
		case ${line,,} in
		content-length:*) length=${line##* } ;;
		esac
	done
	line=
	[ "$length" = 0 ] || IFS= read -r -N "$length" line <&7
	exec 7>&-
	printf %s "$line"
	[[ $status = 2* ]]
}

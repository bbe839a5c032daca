# SPDX-License-Identifier: GPL-2.0-only
#
# For scripts with an S3 store: tests/s3-server below $s3_root, and an environment
# that knows of nothing else. Sourced after tap.sh.
#
#	s3_start [ROOT [OPTION]...]	it runs; $s3 is its endpoint, $s3_port its port
#	s3_control COMMAND...	see tests/s3-server
#	s3_log [PATTERN]	what it answered
#	s3_keys, s3_no_keys	the environment has keys, or not
#	s3_key_file ID SECRET [TOKEN]	~/.aws/credentials has them

. "$tests/http.sh"
unset "${!AWS_@}" "${!GOOGLE_@}" "${!CLOUDSDK_@}" "${!GS_@}" "${!GCE_@}" "${!LAZYFRAME_H@}"
unset BOTO_CONFIG LAZYFRAME_CAFILE http_proxy https_proxy all_proxy ALL_PROXY
export HOME=$tap_dir/home
export AWS_EC2_METADATA_DISABLED=true NO_GCE_CHECK=true
mkdir -p "$HOME"

s3_start()
{
	s3_root=${1:-$tap_dir/s3}
	shift $(($# > 0))
	mkdir -p "$s3_root/bucket"
	[ -e "$tap_dir/s3.port" ] || mkfifo "$tap_dir/s3.port"
	/usr/bin/python3 "$tests/s3-server" --root "$s3_root" "$@" \
		>"$tap_dir/s3.port" </dev/null 2>"$tap_dir/s3.err" &
	s3_pid=$!
	read -r s3_port <"$tap_dir/s3.port"
	s3=http://127.0.0.1:$s3_port
	export AWS_ENDPOINT_URL_S3=$s3
	s3_control "key AKIATEST very/secret+key"
}

s3_stop()
{
	kill $s3_pid && wait $s3_pid 2>/dev/null
	return 0
}

s3_control()
{
	local commands

	printf -v commands '%s\n' "$@"
	ask "$s3_port" POST /.control "" "$commands"
}

s3_log() { s3_control log | grep -e "${1:-.}"; }

# s3_keys [ID [SECRET [TOKEN]]]: the environment has them
s3_keys()
{
	export AWS_ACCESS_KEY_ID=${1:-AKIATEST}
	export AWS_SECRET_ACCESS_KEY=${2:-very/secret+key}
	unset AWS_SESSION_TOKEN
	[ -z "${3:-}" ] || export AWS_SESSION_TOKEN=$3
}

s3_no_keys() { unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN; }

# Whole at any time, as those who renew such files do it
s3_key_file()
{
	local file=$HOME/.aws/credentials

	mkdir -p "${file%/*}"
	printf '[default]\naws_access_key_id=%s\naws_secret_access_key=%s\n' "$1" "$2" \
		>"$file.new" || return 1
	[ -z "${3:-}" ] || echo "aws_session_token=$3" >>"$file.new"
	mv "$file.new" "$file"
}

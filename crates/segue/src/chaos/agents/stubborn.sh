# Ignores SIGTERM, and so does the child that it leaves behind.
trap '' TERM
. "${0%/*}/common.sh"
sleep 900 >/dev/null 2>&1 &
sleep "$(field seconds)"
result

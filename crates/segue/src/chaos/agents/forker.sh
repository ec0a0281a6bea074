# Leaves a child behind that forked twice, left the session, outlives its parent by far, and holds the standard output.
. "${0%/*}/common.sh"
(setsid sleep 900 2>/dev/null &)
sleep "$(field seconds)"
result

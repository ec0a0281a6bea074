# Takes a while: 20 to 150 ms, as the input says.
. "${0%/*}/common.sh"
sleep "$(field seconds)"
result

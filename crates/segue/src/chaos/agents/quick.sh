# Done at once.
. "${0%/*}/common.sh"
result

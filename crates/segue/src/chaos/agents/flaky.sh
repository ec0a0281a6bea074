# Fails at the first attempt, and does it at the next one.
. "${0%/*}/common.sh"
case $(cat) in
*'"number":1}'*)
    note fail
    echo 'not the first time' >&2
    exit 1
    ;;
*) result ;;
esac

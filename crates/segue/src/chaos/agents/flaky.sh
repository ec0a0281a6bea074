# Fails at the first attempt, in the words of the contract, and does it at the next one.
. "${0%/*}/common.sh"
case $(cat) in
*'"number":1}'*)
    note fail
    echo '{"segue":1,"outcome":"fail","class":"rate_limited","message":"not the first time","retry_after_ms":30}'
    ;;
*) result ;;
esac

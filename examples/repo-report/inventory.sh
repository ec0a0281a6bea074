#!/bin/sh
# What is tracked at HEAD: `commit`, `summary`, `files` and `languages`.
. "$(dirname -- "$0")/common.sh"
enter_work
open_repository

commit=$(g rev-parse --verify --quiet 'HEAD^{commit}') ||
    fail permanent "the repository at $SEGUE_PROJECT_DIR has no commit yet, so there is nothing to report on"
use_commit "$commit"
empty_tree=$(g hash-object -t tree /dev/null) || fail permanent 'git cannot name the empty tree'

run date g rev-list --max-count=1 --format=%cI "$commit"
run tree g ls-tree -r --long --full-tree "$commit"
# Against the empty tree every line of a text file is an added one, and a binary file shows "-".
run lines g diff-tree -r --numstat --no-renames --no-ext-diff --no-textconv --no-color "$empty_tree" "$commit"

# Programs without an ending say on their first line what runs them. Nothing found is exit code 1.
g grep -I -n --no-column --heading --break --full-name --no-textconv --no-recurse-submodules -e '^#!' "$commit" -- \
    >found 2>git.err
case $? in
    0 | 1) ;;
    *) fail permanent "git grep failed: $(head -n 1 git.err)" ;;
esac

# Past its first 8,000 bytes a text file may still hold a NUL, which awk need not understand.
tr -d '\000' <found >first_lines &&
    awk -v commit="$commit" -f "$here/text.awk" -f "$here/languages.awk" -f "$here/inventory.awk" first_lines tree lines ||
    fail transient 'awk could not read the list of files'
sort -t "$(printf '\t')" -k4,4nr -k1,1 -k2,2 -o languages languages || fail transient 'cannot sort the languages'
{
    printf 'commit\t%s\n' "$commit" &&
        awk 'NR == 2 { print "date\t" substr($0, 1, 10) }' date &&
        cat counts
} >summary || fail transient 'cannot write the summary'

give commit printf '%s' "$commit"
give summary table 'key value' summary
give files cat files
give languages table 'language kind files lines bytes' languages

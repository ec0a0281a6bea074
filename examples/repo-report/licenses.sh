#!/bin/sh
# A sixth agent, not in segue.toml: `licenses`, how many files carry which SPDX licence tag.
# README.md shows how to let the team use it; nothing else has to change.
. "$(dirname -- "$0")/common.sh"
input commit
enter_work
open_repository
use_commit "$(cat "$SEGUE_IN/commit")"

g grep -I -o -E --no-column --no-line-number --no-heading --full-name --no-recurse-submodules --no-textconv --no-color \
    -e 'SPDX-License-Identifier: [][A-Za-z0-9.+() -]*' "$commit" -- >found 2>git.err
case $? in
    0 | 1) ;;
    *) fail permanent "git grep failed: $(head -n 1 git.err)" ;;
esac
# A file counts once for each licence it names, however often it does.
sort -u -o found found && sed 's/^.*SPDX-License-Identifier: *//; s/ *$//' found >named &&
    awk '{ files[$0]++ } END { for (name in files) print name "\t" files[name] }' named >counted &&
    sort -t "$(printf '\t')" -k2,2nr -k1,1 -o counted counted || fail transient 'cannot count the tags'
give licenses table 'licence files' counted

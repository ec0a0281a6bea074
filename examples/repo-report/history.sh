#!/bin/sh
# What the history of the commit says: `history`, `hotspots` and `bus_factor`.
. "$(dirname -- "$0")/common.sh"
input commit
input files
enter_work
open_repository
use_commit "$(cat "$SEGUE_IN/commit")"

g rev-list --count "$commit" >count 2>git.err && g rev-list --no-merges "$commit" >commits 2>git.err ||
    fail permanent "the history of $commit cannot be read: $(head -n 1 git.err)"
# The oldest commits of a shallow clone look as if they had made every file; they are left out below.
shallow=$(g rev-parse --git-path shallow)
if [ -f "$shallow" ]; then cp "$shallow" shallow; else : >shallow; fi

# A merge repeats what its parents did, so merges are not asked. Renames are not followed: a renamed
# file starts anew, which is what keeps this linear in the history.
g diff-tree --stdin -r --root --always --name-only --no-renames --no-ext-diff --no-color --encoding=UTF-8 \
    --format='%x01%H%x09%ct%x09%cI%x09%aE%x09%aN' <commits >touched 2>git.err ||
    fail permanent "the history of $commit cannot be read: $(head -n 1 git.err)"

awk -f "$here/text.awk" -f "$here/history.awk" shallow "$SEGUE_IN/files" touched ||
    fail transient 'awk could not read the history'

tab=$(printf '\t')
sort -t "$tab" -k1,1nr -k2,2nr -k3,3 -o hotspots hotspots && head -n 100 hotspots | cut -f 2- >hottest &&
    sort -t "$tab" -k1,1 -k2,2nr -k3,3 -o shares shares &&
    awk -f "$here/bus_factor.awk" shares >factors && sort -t "$tab" -k4,4nr -k1,1 -o factors factors &&
    { printf 'commits\t%s\n' "$(cat count)" && cat totals; } >history ||
    fail transient 'cannot sort what was counted'

give history table 'key value' history
give hotspots table 'changes path authors lines language' hottest
give bus_factor table 'folder bus_factor authors commits factor_commits top_author top_commits' factors

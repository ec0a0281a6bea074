#!/bin/sh
# What people left to do: `marker_counts` per folder and `markers`, a list of at most 1,000.
. "$(dirname -- "$0")/common.sh"
input commit
input files
enter_work
open_repository
use_commit "$(cat "$SEGUE_IN/commit")"

# --heading keeps a path apart from its lines, whatever signs the path has. Nothing found is exit code 1.
g grep -I -n -w -F --no-column --heading --break --full-name --no-textconv --no-recurse-submodules --no-color \
    -e TODO -e FIXME -e XXX -e HACK "$commit" -- >found 2>git.err
case $? in
    0 | 1) ;;
    *) fail permanent "git grep failed: $(head -n 1 git.err)" ;;
esac

# Past its first 8,000 bytes a text file may still hold a NUL, which awk need not understand.
tr -d '\000' <found >matches &&
    awk -v commit="$commit" -f "$here/text.awk" -f "$here/markers.awk" "$SEGUE_IN/files" matches &&
    sort -o counts counts ||
    fail transient 'awk could not read the markers'

give marker_counts table 'folder TODO FIXME XXX HACK' counts
give markers table 'kind path line text' list

#!/bin/sh
# Draws what the others counted: repo-report/report.md and four charts in the project's folder.
# Its output is `report` (the Markdown) and `report_path`. Markers and licences are left out where nobody counted them.
. "$(dirname -- "$0")/common.sh"
for name in commit summary languages history hotspots bus_factor; do input "$name"; done
enter_work

# The report is made here first and moved file by file, the page after its charts: whoever looks sees a
# whole old file or a whole new one, and an attempt that dies leaves at most one hidden leftover.
target=$SEGUE_PROJECT_DIR/repo-report
if [ -L "$target" ] || { [ -e "$target" ] && [ ! -d "$target" ]; }; then
    fail permanent "repo-report in $SEGUE_PROJECT_DIR is not a plain folder; move it away"
fi

set -- "$SEGUE_IN/commit" "$SEGUE_IN/summary" "$SEGUE_IN/history" "$SEGUE_IN/languages" "$SEGUE_IN/hotspots" \
    "$SEGUE_IN/bus_factor"
for name in marker_counts markers licenses; do
    if [ -f "$SEGUE_IN/$name" ]; then set -- "$@" "$SEGUE_IN/$name"; fi
done
awk -f "$here/text.awk" -f "$here/charts.awk" -f "$here/report.awk" "$@" ||
    fail transient 'awk could not write the report'

mkdir -p "$target" || fail permanent "cannot make the folder $target"
rm -f "$target"/.*.segue-new
for name in languages.svg hotspots.svg markers.svg bus-factor.svg report.md; do
    new=$target/.$name.${SEGUE_ATTEMPT:-0}.segue-new
    if [ ! -f "$name" ]; then
        # A chart of an earlier report that is not part of this one.
        rm -f "$target/$name"
        continue
    fi
    if ! cp "$name" "$new" || ! mv -f "$new" "$target/$name"; then
        rm -f "$new"
        fail transient "cannot write $target/$name"
    fi
done

give report cat report.md
give report_path printf 'repo-report/report.md'

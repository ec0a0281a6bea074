#!/bin/sh
# Checks the programs of this team against a repository made here, whose numbers are known. Needs git
# and what the programs need, nothing else. Exits 0 when every check holds.
#     sh test.sh [FOLDER]      keep what was made in FOLDER
set -u
LC_ALL=C
export LC_ALL
team=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
if [ $# -gt 0 ]; then
    top=$1
    mkdir -p "$top"
else
    top=$(mktemp -d "${TMPDIR:-/tmp}/repo-report.XXXXXX") || exit 1
    trap 'rm -rf "$top"' EXIT
    trap 'exit 1' HUP INT TERM
fi
top=$(CDPATH= cd -- "$top" && pwd)
failures=0
checks=0
tab=$(printf '\t')

# Nothing of whoever runs this may matter.
unset $(git rev-parse --local-env-vars)
HOME=$top/home
mkdir -p "$HOME"
export HOME
unset XDG_CONFIG_HOME

bad() {
    failures=$((failures + 1))
    printf 'FAILED %s\n' "$*" >&2
}

# equal WHAT EXPECTED ACTUAL
equal() {
    checks=$((checks + 1))
    [ "$2" = "$3" ] || bad "$1
  expected: $2
  got:      $3"
}

# has WHAT FILE LINE: the file has exactly this line.
has() {
    checks=$((checks + 1))
    grep -F -x -q -e "$3" "$2" || bad "$1: no line '$3' in $2"
}

# contains WHAT FILE TEXT
contains() {
    checks=$((checks + 1))
    grep -F -q -e "$3" "$2" || bad "$1: '$3' is not in $2"
}

lacks() {
    checks=$((checks + 1))
    if grep -F -q -e "$3" "$2"; then bad "$1: '$3' is in $2"; fi
}

# agent RUN PROJECT NAME [INPUT FILE..]: run one program as Segue does: own folder, scrubbed environment.
agent() {
    run=$1 project=$2 name=$3
    shift 3
    place=$top/runs/$run/$name
    rm -rf "$place"
    mkdir -p "$place/cwd" "$place/in" "$place/out"
    for file in "$@"; do cp "$file" "$place/in/"; done
    (
        cd "$place/cwd" &&
            env -i PATH="$PATH" HOME="$HOME" SEGUE_PROJECT_DIR="$project" SEGUE_TASK_ID="$run-$name" \
                SEGUE_ATTEMPT="$run-$name-1" SEGUE_IN="$place/in" SEGUE_OUT="$place/out" \
                SEGUE_OUTCOME="$place/outcome" sh "$team/$name.sh" </dev/null >"$place/stdout" 2>"$place/stderr"
    )
}

# team RUN PROJECT: the four programs in the order the planner finds.
team() {
    runs=$top/runs/$1
    agent "$1" "$2" inventory || { bad "inventory of $1: $(cat "$place/stderr")"; return; }
    agent "$1" "$2" history "$runs/inventory/out/commit" "$runs/inventory/out/files" || bad "history of $1: $(cat "$place/stderr")"
    agent "$1" "$2" markers "$runs/inventory/out/commit" "$runs/inventory/out/files" || bad "markers of $1: $(cat "$place/stderr")"
    agent "$1" "$2" reporter "$runs"/inventory/out/* "$runs"/history/out/* "$runs"/markers/out/* || bad "reporter of $1: $(cat "$place/stderr")"
}

# ---- A repository with odd names, several authors and known numbers --------------------------------

repo=$top/repo
clock=1600000000
commit_as() {
    clock=$((clock + 86400))
    git -C "$repo" add -A &&
        GIT_AUTHOR_NAME=$1 GIT_AUTHOR_EMAIL=$2 GIT_COMMITTER_NAME=$1 GIT_COMMITTER_EMAIL=$2 \
            GIT_AUTHOR_DATE="$clock +0000" GIT_COMMITTER_DATE="$clock +0000" \
            git -C "$repo" commit -q --allow-empty -m "$3" || bad "git commit ($3)"
}

rm -rf "$repo"
git init -q "$repo"
git -C "$repo" symbolic-ref HEAD refs/heads/main
newline='
'
# Apart from their colons, so that a report on this file does not find them.
todo=TODO fixme=FIXME xxx=XXX
odd="a${tab}b${newline}\"q\" \\ <x>&|\`.py"
bytes=$(printf 'caf\351.txt')
mkdir -p "$repo/src" "$repo/docs" "$repo/--odd dir" "$repo/vendor/lib" "$repo/caf$(printf '\303\251')"

printf "fn main() {\n    // $todo: one\n}\n" >"$repo/src/main.rs"
printf 'pub fn a() {}\n' >"$repo/src/lib.rs"
printf "# Guide\n\nFIXME and $todo: on one line, $todo: twice\n\nTalks about $todo/FIXME, and of XXX as well\n" >"$repo/docs/guide.md"
printf 'x = 1  # %s here\ny = 2' "$xxx" >"$repo/--odd dir/$odd"
printf 'HACK\n' >"$repo/$bytes"
printf 'print(1)\n' >"$repo/caf$(printf '\303\251')/$(printf '\346\227\245\346\234\254').py"
printf "// $todo: not ours\n" >"$repo/vendor/lib/x.js"
printf 'TODO\n' >"$repo/Cargo.lock"
printf 'a\000TODO\n' >"$repo/blob.bin"
printf 'TODOS and XTODO and todo\n' >"$repo/a:1:b.c"
: >"$repo/empty.sh"
printf '#!/usr/bin/env -S LANG=C python3.11 -u\ndash\n' >"$repo/-n"
ln -s src/main.rs "$repo/link.rs"
commit_as Ann ann@example.org 'everything'

# Six commits to src: Ann 3 (with the first), Bob 2, Cy 1. Half is not more than half: it takes two.
printf 'pub fn b() {}\n' >>"$repo/src/lib.rs"
commit_as Ann ann@example.org 'lib 2'
printf 'pub fn c() {}\n' >>"$repo/src/lib.rs"
commit_as Bob bob@example.org 'lib 3'
printf 'pub fn d() {}\n' >>"$repo/src/lib.rs"
commit_as Robert BOB@example.org 'lib 4'
printf 'pub fn e() {}\n' >>"$repo/src/lib.rs"
commit_as Cy cy@example.org 'lib 5'
printf 'fn more() {}\n' >>"$repo/src/main.rs"
commit_as 'Ann at home' ann@home.example 'main 2'
# Docs: Bob makes 3 of 4.
for n in 1 2 3; do
    printf 'line %s\n' "$n" >>"$repo/docs/guide.md"
    commit_as Bob bob@example.org "guide $n"
done
printf 'lock\n' >>"$repo/Cargo.lock"
printf 'robot\n' >>"$repo/docs/guide.md"
commit_as 'dependabot[bot]' '1+dependabot[bot]@users.noreply.github.com' 'bump'
printf 'Ann <ann@example.org> <ann@home.example>\n' >"$repo/.mailmap"
commit_as '<b>"Eve" & | `x`</b>' eve@example.org 'mailmap'
head_commit=$(git -C "$repo" rev-parse HEAD)
# A merge that changes nothing of its own: counted as a commit, blamed on nobody.
git -C "$repo" checkout -q -b side HEAD~1
commit_as Cy cy@example.org 'empty'
git -C "$repo" checkout -q main
GIT_AUTHOR_NAME=Cy GIT_AUTHOR_EMAIL=cy@example.org GIT_COMMITTER_NAME=Cy GIT_COMMITTER_EMAIL=cy@example.org \
    GIT_AUTHOR_DATE="$clock +0000" GIT_COMMITTER_DATE="$clock +0000" git -C "$repo" merge -q --no-ff -m merge side
# A submodule, without another repository to clone.
clock=$((clock + 86400))
git -C "$repo" update-index --add --cacheinfo "160000,$head_commit,sub"
GIT_AUTHOR_NAME=Ann GIT_AUTHOR_EMAIL=ann@example.org GIT_COMMITTER_NAME=Ann GIT_COMMITTER_EMAIL=ann@example.org \
    GIT_AUTHOR_DATE="$clock +0000" GIT_COMMITTER_DATE="$clock +0000" git -C "$repo" commit -q -m submodule
# None of this is committed, so none of it may show.
printf "// $todo: not committed\n" >>"$repo/src/main.rs"
printf 'Zed <zed@example.org> <bob@example.org>\n' >"$repo/.mailmap"
printf '*.rs binary\n' >"$repo/.gitattributes"

team first "$repo"
# Where even this fails, everything below would only say so again.
[ "$failures" -eq 0 ] || exit 1
runs=$top/runs/first
out=$runs/inventory/out
quoted='"--odd dir/a\tb\n\"q\" \\ <x>&|`.py"'
has 'files: a Rust file' "$out/files" "src/main.rs${tab}Rust${tab}44${tab}4${tab}code"
has 'files: no newline at the end still counts a line' "$out/files" "$quoted${tab}Python${tab}23${tab}2${tab}code"
has 'files: a name that is not UTF-8' "$out/files" "\"caf\\351.txt\"${tab}Text${tab}5${tab}1${tab}data"
has 'files: an empty file' "$out/files" "empty.sh${tab}Shell${tab}0${tab}0${tab}code"
has 'files: a name like an option, a language by the first line' "$out/files" "-n${tab}Python${tab}44${tab}2${tab}code"
has 'files: vendored' "$out/files" "vendor/lib/x.js${tab}JavaScript${tab}18${tab}1${tab}vendored"
has 'files: lock file' "$out/files" "Cargo.lock${tab}Lock file${tab}10${tab}2${tab}generated"
has 'files: the committed .mailmap' "$out/files" ".mailmap${tab}Git settings${tab}41${tab}1${tab}config"
lacks 'files: no binary file' "$out/files" 'blob.bin'
lacks 'files: no symbolic link' "$out/files" 'link.rs'
has 'languages: Rust' "$out/languages" "Rust${tab}code${tab}2${tab}9${tab}114"
for line in 'tracked 15' 'text 12' 'binary 1' 'symlinks 1' 'submodules 1' 'date 2020-09-26'; do
    has "summary: $line" "$out/summary" "$(printf '%s' "$line" | tr ' ' '\t')"
done
equal 'commit' "$(git -C "$repo" rev-parse HEAD)" "$(cat "$out/commit")"

out=$runs/history/out
for line in 'commits 14' 'counted 13' 'authors 4' 'bot_commits 1' 'first 2020-09-14' 'last 2020-09-26' 'shallow no'; do
    has "history: $line" "$out/history" "$(printf '%s' "$line" | tr ' ' '\t')"
done
equal 'hot spots: changes x lines' "5${tab}src/lib.rs${tab}3${tab}5${tab}Rust" "$(sed -n 3p "$out/hotspots")"
equal 'hot spots: the longest of the most changed first' "5${tab}docs/guide.md${tab}3${tab}9${tab}Markdown" "$(sed -n 2p "$out/hotspots")"
has 'hot spots: main.rs' "$out/hotspots" "2${tab}src/main.rs${tab}1${tab}4${tab}Rust"
lacks 'hot spots: no lock file' "$out/hotspots" 'Cargo.lock'
has 'bus factor: exactly half is not more than half' "$out/bus_factor" "src${tab}2${tab}3${tab}6${tab}5${tab}Ann${tab}3"
has 'bus factor: one person' "$out/bus_factor" "docs${tab}1${tab}2${tab}4${tab}3${tab}Bob${tab}3"
has 'bus factor: quoted folder' "$out/bus_factor" "\"caf\\303\\251\"${tab}1${tab}1${tab}1${tab}1${tab}Ann${tab}1"
has 'bus factor: odd folder' "$out/bus_factor" "--odd dir${tab}1${tab}1${tab}1${tab}1${tab}Ann${tab}1"
has 'bus factor: files at the top' "$out/bus_factor" ".${tab}1${tab}2${tab}3${tab}2${tab}Ann${tab}2"
has 'bus factor: whole repository' "$out/bus_factor" "${tab}2${tab}4${tab}12${tab}9${tab}Bob${tab}5"

out=$runs/markers/out
has 'markers: src' "$out/marker_counts" "src${tab}1${tab}0${tab}0${tab}0"
has 'markers: two kinds on a line, each once' "$out/marker_counts" "docs${tab}1${tab}1${tab}0${tab}0"
has 'markers: odd folder' "$out/marker_counts" "--odd dir${tab}0${tab}0${tab}1${tab}0"
has 'markers: top' "$out/marker_counts" ".${tab}0${tab}0${tab}0${tab}1"
equal 'markers: no vendored or generated files, no parts of words' 5 "$(wc -l <"$out/marker_counts" | tr -d ' ')"
has 'markers: list' "$out/markers" "$todo${tab}src/main.rs${tab}2${tab}$todo: one"
has 'markers: list with an odd name' "$out/markers" "XXX${tab}$quoted${tab}1${tab}XXX here"

# ---- The report ------------------------------------------------------------------------------------

report=$repo/repo-report
contains 'report: head' "$report/report.md" "Commit \`$(git -C "$repo" rev-parse HEAD)\` of 2020-09-26: 12 text files"
contains 'report: a link to an odd file' "$report/report.md" \
    '../--odd%20dir/a%09b%0A%22q%22%20%5C%20%3Cx%3E%26%7C%60.py#L1)'
contains 'report: a name in its own characters' "$report/report.md" "\`caf$(printf '\303\251')/\`"
contains 'report: a pipe in a table' "$report/report.md" 'a\tb\n\"q\" \\ <x>&\|`.py'
lacks 'report: no author smuggles HTML in' "$report/report.md" '<b>'
for name in languages hotspots markers bus-factor; do
    contains "report: shows $name" "$report/report.md" "($name.svg)"
    equal "chart $name: whole" '</svg>' "$(tail -n 1 "$report/$name.svg")"
    lacks "chart $name: escaped" "$report/$name.svg" '<x>'
    if command -v xmllint >/dev/null 2>&1; then
        checks=$((checks + 1))
        xmllint --noout "$report/$name.svg" || bad "chart $name is not XML"
    fi
done
equal 'report: nothing left over' '5' "$(ls -A "$report" | wc -l | tr -d ' ')"
equal 'nothing is left to work with' '' "$(ls -A "$runs/reporter/cwd")"
equal 'report: given on as output' "$(cksum <"$report/report.md")" "$(cksum <"$runs/reporter/out/report")"

# ---- The same commit gives the same bytes, whatever stands around it ---------------------------------

sums() { (cd "$1" && cksum languages.svg hotspots.svg markers.svg bus-factor.svg report.md); }
before=$(sums "$report")
git -C "$repo" config core.quotePath false
git -C "$repo" config diff.renames copies
git -C "$repo" config diff.orderFile /nowhere
git -C "$repo" config diff.noprefix true
git -C "$repo" config log.showSignature true
git -C "$repo" config grep.lineNumber false
git -C "$repo" config grep.column true
git -C "$repo" config grep.patternType perl
git -C "$repo" config color.ui always
git -C "$repo" config mailmap.file "$repo/.mailmap"
git -C "$repo" config core.attributesFile "$repo/.gitattributes"
git config --file "$HOME/.gitconfig" log.date relative
git config --file "$HOME/.gitconfig" core.pager false
git -C "$repo" rm -q --cached src/lib.rs
git -C "$repo" update-ref "refs/replace/$head_commit" "$(git -C "$repo" rev-parse HEAD~1)" 2>/dev/null
team again "$repo"
equal 'same bytes with other settings, index and working tree' "$before" "$(sums "$report")"

rm -rf "$top/clone"
git clone -q --bare --no-local "$repo" "$top/clone"
team bare "$top/clone"
equal 'same bytes from a bare clone' "$before" "$(sums "$top/clone/repo-report")"

# ---- Less usual repositories ---------------------------------------------------------------------------

rm -rf "$top/shallow"
git clone -q --depth 2 "file://$repo" "$top/shallow"
team shallow "$top/shallow"
has 'shallow clone: said so' "$top/runs/shallow/history/out/history" "shallow${tab}yes"
lacks 'shallow clone: its oldest commit did not make every file' "$top/runs/shallow/history/out/hotspots" 'src/'
contains 'shallow clone: the report says so' "$top/shallow/repo-report/report.md" 'shallow clone'

# fails NAME CLASS TEXT: the last agent failed with this outcome.
fails() {
    checks=$((checks + 1))
    grep -F -q "\"class\":\"$2\"" "$place/outcome" 2>/dev/null && grep -F -q -e "$3" "$place/outcome" ||
        bad "$1: outcome is $(cat "$place/outcome" 2>/dev/null)"
}

rm -rf "$top/empty" "$top/none"
git init -q "$top/empty"
agent empty "$top/empty" inventory && bad 'an empty repository must fail'
fails 'empty repository' permanent 'has no commit yet'
mkdir "$top/none"
agent none "$top/none" inventory
fails 'no repository' permanent 'no git repository can be read'
agent nothing "$repo" history
fails 'no input' permanent "the task's input has no property commit"
printf -- '--output=elsewhere' >"$top/commit"
agent option "$repo" history "$top/commit" "$runs/inventory/out/files"
fails 'an option is no commit' permanent 'not a commit hash'
rm -rf "$top/linked"
git clone -q "$repo" "$top/linked"
ln -s "$top/none" "$top/linked/repo-report"
agent linked "$top/linked" reporter "$runs"/inventory/out/* "$runs"/history/out/* "$runs"/markers/out/*
fails 'a link is not followed' permanent 'is not a plain folder'
equal 'a link is not followed' '' "$(ls -A "$top/none")"

# A commit with nothing in it but an empty file, by nobody in particular.
repo=$top/bare-bones
rm -rf "$repo"
git init -q "$repo"
: >"$repo/x"
commit_as x x@example.org 'empty file'
team bones "$repo"
contains 'nearly empty: report' "$repo/repo-report/report.md" '**Left to do:** no markers'

# ---- What a marker is ------------------------------------------------------------------------------------

repo=$top/words
rm -rf "$repo"
git init -q "$repo"
{
    printf 'int x; // %s tidy up\n' "$todo"
    printf 'puts("%s");\n' "$todo"
    printf 'enum { %s, DONE };\n' "$todo"
    printf '/* %s(ann): why */\n' FIXME
    printf ' * %s around it\n' HACK
    printf 'url = "http://x//%s";\n' "$todo"
    printf 'a = b --%s;\n' XXX
    printf '// %s and %s and %s are words\n' "$todo" FIXME HACK
    printf 'f(x); // %s %s: a very long line that says %s\n' HACK "$todo" \
        'much more than what fits into the place that is there for it, and is therefore cut after some word, not in it'
} >"$repo/words.c"
commit_as x x@example.org 'words'
team words "$repo"
out=$top/runs/words/markers/out
has 'words: in comments, at the start of a line, before a colon' "$out/marker_counts" ".${tab}2${tab}1${tab}0${tab}2"
has 'words: without what ends the comment' "$out/markers" "FIXME${tab}words.c${tab}4${tab}$fixme(ann): why"
contains 'words: in the report' "$repo/repo-report/report.md" "[\`words.c:4\`](../words.c#L4) | **FIXME** | (ann): why |"
contains 'words: two kinds are one row' "$repo/repo-report/report.md" "[\`words.c:9\`](../words.c#L9) | **$todo, HACK** | a very long line"
contains 'words: cut after a word' "$repo/repo-report/report.md" "is therefore cut $(printf '\342\200\246') |"

# ---- The list of markers is bounded, the counts are not ------------------------------------------------

repo=$top/many
rm -rf "$repo"
git init -q "$repo"
awk -v word="$todo" 'BEGIN { for (i = 0; i < 1500; i++) print "# " word " " i; for (i = 0; i < 300000; i++) printf "x"; print " # " word " far" }' >"$repo/many.py"
printf '# SPDX-License-Identifier: Apache-2.0\n' >"$repo/tagged.py"
commit_as x x@example.org 'many'
team many "$repo"
has 'many markers: all counted' "$top/runs/many/markers/out/marker_counts" ".${tab}1501${tab}0${tab}0${tab}0"
equal 'many markers: 1,000 listed' 1001 "$(wc -l <"$top/runs/many/markers/out/markers" | tr -d ' ')"
contains 'many markers: the rest is named' "$repo/repo-report/report.md" 'And 1,471 more.'

# ---- Nobody counted markers ------------------------------------------------------------------------------

runs=$top/runs/many
agent many "$repo" reporter "$runs"/inventory/out/* "$runs"/history/out/* || bad "reporter without markers: $(cat "$place/stderr")"
lacks 'no markers: not in the report' "$repo/repo-report/report.md" 'arkers'
equal 'no markers: the old chart has gone' "" "$(ls "$repo/repo-report" | grep markers)"

# ---- The sixth agent -----------------------------------------------------------------------------------

agent many "$repo" licenses "$runs/inventory/out/commit" || bad "licenses: $(cat "$place/stderr")"
has 'licences' "$runs/licenses/out/licenses" "Apache-2.0${tab}1"
agent many "$repo" reporter "$runs"/inventory/out/* "$runs"/history/out/* "$runs"/markers/out/* "$runs"/licenses/out/* ||
    bad "reporter with licences: $(cat "$place/stderr")"
contains 'licences in the report' "$repo/repo-report/report.md" '| Apache-2.0 | 1 |'

printf '%s checks, %s failed\n' "$checks" "$failures"
[ "$failures" -eq 0 ]

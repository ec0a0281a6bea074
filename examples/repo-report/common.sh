# Sourced by every program of the team: where things are, how to fail, and a git that reads
# nothing but the commit. POSIX sh.
set -u
LC_ALL=C
export LC_ALL
unset CDPATH
here=$(cd -- "$(dirname -- "$0")" && pwd) || exit 70

# fail CLASS MESSAGE: leave an outcome that says why, and an exit code that says the same.
fail() {
    printf 'repo-report: %s\n' "$2" >&2
    if [ -n "${SEGUE_OUTCOME:-}" ]; then
        CLASS=$1 MESSAGE=$2 awk 'BEGIN {
            text = ENVIRON["MESSAGE"]
            gsub(/\\/, "\\\\", text); gsub(/"/, "\\\"", text)
            gsub(/[\001-\037\177]+/, " ", text); gsub(/[\200-\377]/, "?", text)
            printf "{\"segue\":1,\"outcome\":\"fail\",\"class\":\"%s\",\"message\":\"", ENVIRON["CLASS"]
            print text "\"}"
        }' > "$SEGUE_OUTCOME"
    fi
    if [ "$1" = transient ]; then exit 75; fi
    exit 65
}

# input NAME: stop clearly when the task did not bring a property this program needs.
input() {
    [ -f "${SEGUE_IN:-}/$1" ] || fail permanent "the task's input has no property $1"
}

# enter_work: everything below happens in an empty folder of this attempt. It stays where something
# went wrong, so that one can look at it.
enter_work() {
    [ -d "${SEGUE_PROJECT_DIR:-}" ] || fail permanent "SEGUE_PROJECT_DIR is not a folder: '${SEGUE_PROJECT_DIR:-}'"
    work=$(pwd)/work
    rm -rf "$work" && mkdir "$work" && cd "$work" || fail transient "cannot make a working folder in $(pwd)"
    trap 'status=$?; if [ "$status" -eq 0 ]; then cd "$work/.." && rm -rf "$work"; fi; exit "$status"' EXIT
}

# open_repository: after this, `g` reads the project's repository and only that. The user's and the
# system's git settings, replace refs, grafts, attributes, the index and the working tree are all
# out of the way, so that one commit gives one result on every machine.
open_repository() {
    command -v git >/dev/null 2>&1 || fail permanent 'git is not installed (or not on the PATH)'
    # A hook or an alias that started us may have left its own repository in the environment.
    unset $(git rev-parse --local-env-vars)
    # The one call that sees the user's settings: `safe.directory` decides here whether git may look.
    GIT_DIR=$(git -C "$SEGUE_PROJECT_DIR" rev-parse --absolute-git-dir 2>git.err) ||
        fail permanent "no git repository can be read at $SEGUE_PROJECT_DIR: $(head -n 1 git.err)"
    GIT_WORK_TREE=$work
    GIT_INDEX_FILE=$work/no-index
    GIT_CONFIG_GLOBAL=/dev/null
    GIT_CONFIG_SYSTEM=/dev/null
    GIT_CONFIG_NOSYSTEM=1
    GIT_ATTR_NOSYSTEM=1
    GIT_NO_REPLACE_OBJECTS=1
    GIT_GRAFT_FILE=/dev/null
    GIT_OPTIONAL_LOCKS=0
    GIT_NO_LAZY_FETCH=1
    GIT_TERMINAL_PROMPT=0
    export GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_CONFIG_GLOBAL GIT_CONFIG_SYSTEM GIT_CONFIG_NOSYSTEM \
        GIT_ATTR_NOSYSTEM GIT_NO_REPLACE_OBJECTS GIT_GRAFT_FILE GIT_OPTIONAL_LOCKS GIT_NO_LAZY_FETCH \
        GIT_TERMINAL_PROMPT
}

# use_commit HASH: the commit everything is read from. It comes as input, so it is checked first.
use_commit() {
    case $1 in
        '' | *[!0-9a-f]*) fail permanent "not a commit hash: '$1'" ;;
    esac
    commit=$1
    g cat-file -e "$commit^{commit}" 2>git.err ||
        fail permanent "commit $commit is not in the repository at $SEGUE_PROJECT_DIR"
}

# g: git with every setting pinned that could change what it prints. A repository's own settings
# cannot be switched off, so they are overruled one by one.
g() {
    git --no-pager -c core.quotePath=true -c core.attributesFile=/dev/null -c core.bigFileThreshold=512m \
        -c mailmap.file=/dev/null -c "mailmap.blob=${commit:-HEAD}:.mailmap" \
        -c advice.graftFileDeprecated=false -c diff.ignoreSubmodules=none -c submodule.recurse=false -c color.ui=false "$@"
}

# run OUTPUT COMMAND..: keep what git says on both sides; a failure names its first line.
run() {
    out=$1
    shift
    "$@" >"$out" 2>git.err || fail permanent "$(printf '%s failed: ' "git $2"; head -n 1 git.err)"
}

# give NAME COMMAND..: what the command prints becomes the property NAME of this task's output.
give() {
    name=$1
    shift
    "$@" >"$SEGUE_OUT/$name" || fail transient "cannot write the output property $name"
}

# table HEADER FILE: a table with its header line, as text/tab-separated-values wants it.
table() {
    printf '%s\n' "$1" | tr ' ' '\t' && cat "$2"
}

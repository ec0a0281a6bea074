# Reads the inventory's `files` and what `git grep --heading --break` found. A line counts once for each
# kind of marker it has. Writes `counts` (folder and the four kinds) and `list` (at most `limit` rows).
#
# The four words are also words that people write about. A marker is one of them standing alone
#   - before a colon, or before somebody's name in brackets, or
#   - in a comment, or as the first word of a line, with no sign of a list after it;
# and a line that names more than two of them talks about markers and has none.
BEGIN {
    FS = "\t"; OFS = "\t"
    limit = 1000
    kinds = split("TODO FIXME XXX HACK", kind, " ")
    # What begins a comment in the languages of languages.awk, where it can't be mistaken for an operator.
    comment = "(^|[ ;,(){}])//|(^|[ ;,(){}])/[*]|(^|[ {])#|^ *[*;%]|(^| );;|(^| )--[ -]|<!--|[(][*] |[{]-|\"\"\"|'''|^ *[.][.] |^dnl "
    heading = 1
    printf "" > "counts"
    printf "" > "list"
}

FILENAME != "matches" {
    if ($5 == "code" || $5 == "prose" || $5 == "config" || $5 == "data") wanted[$1] = 1
    next
}

$0 == "" { heading = 1; next }

heading {
    heading = 0
    # "hash:path", where the path alone is quoted.
    path = substr($0, length(commit) + 2)
    keep = (path in wanted)
    folder = top_folder(path)
    next
}

!keep { next }

{
    i = index($0, ":")
    line = substr($0, 1, i - 1)
    text = substr($0, i + 1)
    gsub(/[\t\r]/, " ", text)
    named = 0
    for (k = 1; k <= kinds; k++) named += (text ~ ("(^|[^A-Za-z0-9_])" kind[k] "([^A-Za-z0-9_]|$)"))
    if (named > 2) next
    for (k = 1; k <= kinds; k++)
        if ((at = find(text, kind[k])) > 0) {
            count[folder OFS kind[k]]++
            folders[folder] = 1
            if (listed++ < limit) print kind[k], path, line, excerpt(substr(text, at, 400)) > "list"
        }
}

END {
    for (folder in folders) {
        row = folder
        for (k = 1; k <= kinds; k++) row = row OFS (count[folder OFS kind[k]] + 0)
        print row > "counts"
    }
}

# Where in the line the marker is; 0 where the word is none. A line of a minified file may name it
# thousands of times: the first ones tell.
function find(text, word,    from, at, tries, before, after) {
    from = 1
    for (tries = 0; tries < 50 && (at = index(substr(text, from), word)) > 0; tries++) {
        at += from - 1
        from = at + length(word)
        after = substr(text, from, 80)
        # What is near enough to be a comment's beginning, and the line's.
        before = substr(text, at > 2000 ? at - 2000 : 1, at > 2000 ? 2000 : at - 1)
        if (before ~ /[A-Za-z0-9_]$/ || after ~ /^[A-Za-z0-9_]/) continue
        if (after ~ /^ ?:([^:]|$)/ || after ~ /^\([^()]*\)/) return at
        if (after ~ "^ ?[,/|\"'`=]") continue
        if (before ~ comment || before !~ /[A-Za-z0-9"'`]/) return at
    }
    return 0
}

# What the marker says, at most 120 columns, without what ends the comment.
function excerpt(text) {
    gsub(/ +/, " ", text)
    sub(/ *(\*\/|-->|"""|'''|\*\)|-\}|#\}) *$/, "", text)
    sub(/ $/, "", text)
    return cut_words(clean(text), 120)
}

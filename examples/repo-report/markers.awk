# Reads the inventory's `files` and what `git grep --heading --break` found. A line counts once for each
# kind of marker it has. Writes `counts` (folder and the four kinds) and `list` (at most `limit` rows).
BEGIN {
    FS = "\t"; OFS = "\t"
    limit = 1000
    kinds = split("TODO FIXME XXX HACK", kind, " ")
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
    for (k = 1; k <= kinds; k++)
        if (text ~ ("(^|[^A-Za-z0-9_])" kind[k] "([^A-Za-z0-9_]|$)")) {
            count[folder OFS kind[k]]++
            folders[folder] = 1
            if (listed++ < limit) print kind[k], path, line, excerpt(text, kind[k]) > "list"
        }
}

END {
    for (folder in folders) {
        row = folder
        for (k = 1; k <= kinds; k++) row = row OFS (count[folder OFS kind[k]] + 0)
        print row > "counts"
    }
}

# The line from its marker on (a little more of it when it is short), at most 120 columns.
function excerpt(text, word,    at) {
    gsub(/\r/, "", text)
    if (length(text) > 400) {
        at = index(text, word)
        text = substr(text, at > 40 ? at - 40 : 1, 400)
    }
    gsub(/[\t ]+/, " ", text)
    sub(/^ /, "", text)
    return cut_end(clean(text), 120)
}

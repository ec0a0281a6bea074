# Reads the commits a shallow clone was cut at, the inventory's `files`, and one block a commit:
# \001hash, time, date, author's address and name, then the paths it touched. Writes `totals`,
# `hotspots` (score, changes, path, authors, lines, language) and `shares` (folder, commits, author).
BEGIN { FS = "\t"; OFS = "\t" }

FILENAME == "shallow" { cut_at[$1] = 1; cut++; next }

FILENAME != "touched" {
    if ($1 == "path" && FNR == 1) next
    if ($4 > 0 && ($5 == "code" || $5 == "prose" || $5 == "config")) { lines[$1] = $4; language[$1] = $2 }
    here[top_folder($1)] = 1
    next
}

/^\001/ {
    skip = (substr($1, 2) in cut_at)
    if (skip) next
    commits++
    # The address tells who it is; names are spelled in many ways. Both went through .mailmap.
    author = tolower($4)
    name = $5
    if (author == "") author = tolower(name)
    bot = (author ~ /\[bot\]/ || name ~ /\[bot\]$/)
    if (!bot) { spelled[author OFS name]++; if (!(author in people)) { people[author] = 1; authors++ } }
    else bots++
    if (newest == "" || $2 + 0 > newest_time) { newest = $3; newest_time = $2 + 0 }
    if (oldest == "" || $2 + 0 < oldest_time) { oldest = $3; oldest_time = $2 + 0 }
    # The whole repository is the folder with no name.
    if (!bot) share["" OFS author]++
    next
}

skip || $0 == "" { next }

{
    folder = top_folder($0)
    if (!bot && (folder in here) && last_commit[folder] != commits) {
        last_commit[folder] = commits
        share[folder OFS author]++
    }
    if ($0 in lines) {
        changes[$0]++
        if (!(($0 OFS author) in touched_by)) { touched_by[$0 OFS author] = 1; file_authors[$0]++ }
    }
}

END {
    # Whoever is spelled in several ways is called what most commits say, then what sorts first.
    for (key in spelled) {
        i = index(key, OFS)
        author = substr(key, 1, i - 1)
        name = substr(key, i + 1)
        if (!(author in called) || spelled[key] > called_times[author] ||
            spelled[key] == called_times[author] && name < called[author]) {
            called[author] = name
            called_times[author] = spelled[key]
        }
    }
    printf "counted\t%d\nauthors\t%d\nbot_commits\t%d\nfirst\t%s\nlast\t%s\nshallow\t%s\n", commits, authors, bots, \
        substr(oldest, 1, 10), substr(newest, 1, 10), (cut ? "yes" : "no") > "totals"
    printf "" > "hotspots"
    printf "" > "shares"
    for (path in changes)
        printf "%.0f\t%d\t%s\t%d\t%d\t%s\n", changes[path] * lines[path], changes[path], path, file_authors[path], \
            lines[path], language[path] > "hotspots"
    for (key in share) {
        i = index(key, OFS)
        name = clean(called[substr(key, i + 1)])
        if (name == "") name = "(no name)"
        print substr(key, 1, i - 1), share[key], substr(key, i + 1), name > "shares"
    }
}

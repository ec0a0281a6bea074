# Reads the tables the other agents gave (told apart by their file's name), writes report.md and,
# through charts.awk, the charts. Tables have a header line; columns are documented in segue.toml.
BEGIN {
    FS = "\t"
    # Rows of a table, and markers that are listed: a page that is read, not a dump. The rest is counted.
    TABLE_ROWS = 15
    LISTED = 30
}

FNR == 1 { table = FILENAME; sub(/^.*\//, "", table) }
table == "commit" { commit = $1; next }
FNR == 1 { if (table == "marker_counts") counted_markers = 1; next }
table == "summary" { summary[$1] = $2; next }
table == "history" { history[$1] = $2; next }

table == "languages" {
    lang_n++
    # The same language may come once more, generated; what is always generated needs no such note.
    lang_name[lang_n] = ($2 == "vendored" || $2 == "generated" && $1 !~ /^(Lock file|Snapshot|Source map)$/) ? $1 " (" $2 ")" : $1
    lang_kind[lang_n] = $2; lang_files[lang_n] = $3; lang_lines[lang_n] = $4 + 0; lang_bytes[lang_n] = $5 + 0
    all_lines += $4
    next
}

table == "hotspots" {
    if ($1 < 1) next
    hot_n++
    hot_changes[hot_n] = $1 + 0; hot_path[hot_n] = $2; hot_authors[hot_n] = $3 + 0
    hot_lines[hot_n] = $4 + 0; hot_language[hot_n] = $5
    next
}

table == "bus_factor" {
    if ($1 == "") { whole_factor = $2; whole_top = clean($6); whole_share = percent($7, $4); next }
    if ($4 < 1) next
    bus_n++
    bus_folder[bus_n] = $1; bus_factor[bus_n] = $2 + 0; bus_people[bus_n] = $3 + 0; bus_commits[bus_n] = $4 + 0
    bus_reached[bus_n] = $5 + 0; bus_top[bus_n] = clean($6); bus_top_commits[bus_n] = $7 + 0
    next
}

table == "marker_counts" {
    # Kept sorted, most markers first: there are as many rows as top folders.
    all = $2 + $3 + $4 + $5
    if (all < 1) next
    at = ++mark_n
    while (at > 1 && mark_all[at - 1] < all) { copy_mark(at - 1, at); at-- }
    mark_folder[at] = $1; mark_all[at] = all
    for (k = 1; k <= 4; k++) { mark[at, marker_names[k]] = $(k + 1) + 0; mark_sum[marker_names[k]] += $(k + 1) }
    marks += all
    next
}

table == "markers" {
    # Two kinds on one line are one row.
    if (listed && $2 == list_path[listed] && $3 == list_line[listed]) {
        list_kind[listed] = list_kind[listed] ", " $1
        shown++
    } else if (listed < LISTED) {
        listed++; shown++
        list_kind[listed] = $1; list_path[listed] = $2; list_line[listed] = $3; list_text[listed] = $4
    }
    next
}

table == "licenses" { license_n++; license_name[license_n] = $1; license_files[license_n] = $2; next }

function copy_mark(from, to,    k) {
    mark_folder[to] = mark_folder[from]; mark_all[to] = mark_all[from]
    for (k = 1; k <= 4; k++) mark[to, marker_names[k]] = mark[from, marker_names[k]]
}

function say(text) { print text > "report.md" }

function link(path, fragment) { return "[" code(display(path), 1) "](../" url(path) fragment ")" }

function folder_cell(folder) { return folder == "." ? "(top level)" : code(display(folder) "/", 1) }

END {
    draw_languages(); draw_hotspots(); draw_bus_factor()
    if (counted_markers) draw_markers()

    say("# Repository report")
    say("")
    say("Commit `" commit "` of " md(summary["date"]) ": " many(summary["text"], "text file") " with " \
        many(summary["lines"], "line") ", " many(history["commits"], "commit") \
        (history["authors"] < 1 ? "" : history["authors"] == 1 ? " by 1 person" : " by " commas(history["authors"]) " people") \
        (history["first"] != "" ? " since " md(history["first"]) : "") ".")
    if (history["shallow"] == "yes") {
        say("")
        say("> **The history is cut off.** This is a shallow clone: hot spots and bus factors count only the " \
            "commits that are whole here: " commas(history["counted"]) ". `git fetch --unshallow` brings the rest.")
    }
    glance()
    languages_section(); hotspots_section()
    if (counted_markers) markers_section()
    bus_factor_section()
    if (license_n) licenses_section()
    method_section()
    close("report.md")
}

function glance(    i, lone, lone_n) {
    say("")
    if (lang_n) say("- **Largest language:** " md(lang_name[1]) ", " percent(lang_lines[1], all_lines) " of all lines")
    if (hot_n) say("- **Hottest file:** " link(hot_path[1], "") ", changed in " many(hot_changes[1], "commit") ", " \
        many(hot_lines[1], "line") " long")
    if (counted_markers) say("- **Left to do:** " (marks ? many(marks, "marker") " in " many(mark_n, "top folder") : "no markers"))
    if (whole_factor != "") say("- **Bus factor:** " whole_factor " (" md(whole_top) " made " whole_share " of the commits)")
    for (i = 1; i <= bus_n; i++)
        if (bus_factor[i] == 1 && bus_people[i] > 1 && lone_n++ < 8) lone = lone (lone == "" ? "" : ", ") folder_cell(bus_folder[i])
    if (lone_n) say("- **More than half by one of several people:** " lone (lone_n > 8 ? " and " lone_n - 8 " more" : ""))
}

# rows_of(n): how many rows a table of n has; one row more is no reason to leave one out.
function rows_of(n) { return n > TABLE_ROWS + 1 ? TABLE_ROWS : n }

function rest_of(n, word) { if (rows_of(n) < n) say("\nAnd " many(n - rows_of(n), word) ".") }

function languages_section(    i, left) {
    say("\n## Languages\n\n![Lines by language](languages.svg)")
    if (lang_n) {
        say("\n| language | kind | files | lines | share | size |\n|---|---|--:|--:|--:|--:|")
        for (i = 1; i <= rows_of(lang_n); i++)
            say("| " md(lang_name[i]) " | " lang_kind[i] " | " commas(lang_files[i]) " | " commas(lang_lines[i]) " | " \
                percent(lang_lines[i], all_lines) " | " in_bytes(lang_bytes[i]) " |")
        rest_of(lang_n, "other")
    }
    if (summary["binary"] > 0) left = many(summary["binary"], "binary file") " (" in_bytes(summary["binary_bytes"]) ")"
    if (summary["symlinks"] > 0) left = left (left == "" ? "" : ", ") many(summary["symlinks"], "symbolic link")
    if (summary["submodules"] > 0) left = left (left == "" ? "" : ", ") many(summary["submodules"], "submodule")
    if (left != "") say("\nLeft out: " left ".")
}

function hotspots_section(    i) {
    say("\n## Hot spots\n\n![Files changed most often and largest](hotspots.svg)")
    if (!hot_n) return
    say("\n| file | language | commits | people | lines |\n|---|---|--:|--:|--:|")
    for (i = 1; i <= hot_n && i <= TABLE_ROWS; i++)
        say("| " link(hot_path[i], "") " | " md(hot_language[i]) " | " commas(hot_changes[i]) " | " \
            commas(hot_authors[i]) " | " commas(hot_lines[i]) " |")
}

function markers_section(    i) {
    say("\n## Markers\n\n![Markers by folder](markers.svg)")
    if (!mark_n) return
    say("\n| folder | TODO | FIXME | XXX | HACK | all |\n|---|--:|--:|--:|--:|--:|")
    for (i = 1; i <= rows_of(mark_n); i++)
        say("| " folder_cell(mark_folder[i]) " | " commas(mark[i, "TODO"]) " | " commas(mark[i, "FIXME"]) " | " \
            commas(mark[i, "XXX"]) " | " commas(mark[i, "HACK"]) " | " commas(mark_all[i]) " |")
    rest_of(mark_n, "more folder")
    say("\n| where | marker | what it says |\n|---|---|---|")
    for (i = 1; i <= listed; i++)
        say("| [" code(display(list_path[i]) ":" list_line[i], 1) "](../" url(list_path[i]) "#L" list_line[i] ") | **" \
            list_kind[i] "** | " md(said(list_text[i])) " |")
    if (marks > shown) say("\nAnd " commas(marks - shown) " more.")
}

# What stands after the marker's own word.
function said(text) {
    text = clean(text)
    sub(/^[A-Z]+ *[:.-]* */, "", text)
    return text
}

function bus_factor_section(    i) {
    say("\n## Bus factor\n\n![Bus factor by folder](bus-factor.svg)")
    if (!bus_n) return
    say("\n| folder | bus factor | people | commits | most active | share |\n|---|--:|--:|--:|---|--:|")
    for (i = 1; i <= rows_of(bus_n); i++)
        say("| " folder_cell(bus_folder[i]) " | " commas(bus_factor[i]) " | " commas(bus_people[i]) " | " \
            commas(bus_commits[i]) " | " md(bus_top[i]) " | " percent(bus_top_commits[i], bus_commits[i]) " |")
    rest_of(bus_n, "more folder")
}

function licenses_section(    i) {
    say("\n## Licences\n\n| licence | files |\n|---|--:|")
    for (i = 1; i <= license_n && i <= 40; i++) say("| " md(clean(license_name[i])) " | " commas(license_files[i]) " |")
}

function method_section() {
    say("\n## How this was counted\n")
    say("Everything was read from the commit above, not from the working folder, and dates are those of commits: the same")
    say("commit gives the same report.")
    say("")
    say("- **Text** is what has no NUL in its first 8,000 bytes.")
    say("- **Hot spots** are ranked by commits \303\227 lines; data, generated and vendored files are not ranked, renames are not followed.")
    if (counted_markers) {
        say("- **Markers** are the four words standing alone in a comment, at the start of a line, or before a colon, counted once a line")
        say("  and kind, outside generated and vendored files. Lines that name more than two of them talk about markers and have none.")
    }
    say("- **Bus factor** of a top folder: the smallest number of people who together made more than half of the commits that touch it.")
    say("  Merges and commits by bots are not counted; people are told apart by e-mail address after `.mailmap`.")
}

# The four charts as SVG, 760 wide. They carry their own ground and colours for light and dark, so that
# they can be read on any page. Every text goes through xml(). Needs text.awk.

BEGIN {
    WIDTH = 760
    ROW = 26
    split("code prose config data generated vendored", kind_names, " ")
    split("TODO FIXME XXX HACK", marker_names, " ")
}

# chart_open(file, height, title, subtitle): the frame. `svg` is the file that is being written.
function chart_open(file, height, title, subtitle) {
    svg = file
    printf "" > svg
    print "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" WIDTH "\" height=\"" height "\" viewBox=\"0 0 " \
        WIDTH " " height "\" role=\"img\" aria-labelledby=\"title desc\">" > svg
    print "<title id=\"title\">" xml(title) "</title>" > svg
    print "<desc id=\"desc\">" xml(subtitle) "</desc>" > svg
    print "<style>" > svg
    print "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',Arial,sans-serif;font-size:13px;fill:#1f2328}" > svg
    print ".head{font-size:17px;font-weight:600}.num{paint-order:stroke;stroke:#ffffff;stroke-width:4px}.muted{font-size:12px;fill:#59636e}" > svg
    print ".path{font-family:ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:12px}" > svg
    print ".ground{fill:#ffffff;stroke:#d1d9e0}.grid{stroke:#d1d9e0}.half{stroke:#59636e;stroke-dasharray:3 3}.rest{fill:#d8dee4}" > svg
    print ".code,.TODO{fill:#0969da}.prose,.HACK{fill:#8250df}.config{fill:#1a7f37}.data,.XXX{fill:#bf8700}" > svg
    print ".generated,.vendored{fill:#818b98}.FIXME,.lone{fill:#d1242f}.shared{fill:#0969da}.second{opacity:.55}" > svg
    print "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.muted{fill:#9ea7b3}.num{stroke:#0d1117}" > svg
    print ".ground{fill:#0d1117;stroke:#3d444d}" > svg
    print ".grid{stroke:#30363d}.half{stroke:#9ea7b3}.rest{fill:#30363d}.code,.TODO,.shared{fill:#4493f8}.prose,.HACK{fill:#ab7df8}" > svg
    print ".config{fill:#3fb950}.data,.XXX{fill:#d29922}.FIXME,.lone{fill:#f85149}}" > svg
    print "</style>" > svg
    printf "<rect class=\"ground\" x=\".5\" y=\".5\" width=\"%d\" height=\"%d\" rx=\"8\"/>\n", WIDTH - 1, height - 1 > svg
    text_at(20, 32, "head", "start", title)
    text_at(20, 52, "muted", "start", subtitle)
}

function chart_close() { print "</svg>" > svg; close(svg) }

function text_at(x, y, class, anchor, text) {
    if (class != "") class = " class=\"" class "\""
    anchor = anchor == "start" ? "" : " text-anchor=\"" anchor "\""
    printf "<text x=\"%.1f\" y=\"%.1f\"%s%s>", x, y, class, anchor > svg
    print xml(text) "</text>" > svg
}

# A bar whose full text is its tooltip, since labels may be cut.
function bar(x, y, w, class, tip) {
    if (w < 1) w = 1
    printf "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"16\">", class, x, y, w > svg
    print "<title>" xml(tip) "</title></rect>" > svg
}

# At most `ticks` vertical lines after the one at 0, at round numbers up to max; their numbers below.
function axis(x, w, top, bottom, max, ticks, suffix,    step, tick) {
    step = 1
    while (max / step > ticks)
        if (max / (2 * step) <= ticks) step *= 2
        else if (max / (5 * step) <= ticks) step *= 5
        else step *= 10
    for (tick = 0; tick <= max; tick += step) {
        printf "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", \
            x + w * tick / max, top, x + w * tick / max, bottom > svg
        text_at(x + w * tick / max, bottom + 16, "muted", "middle", short_number(tick) suffix)
    }
}

# 1500 -> 1.5k, so that numbers under an axis stay apart.
function short_number(n) {
    if (n >= 1000000) return sprintf(n % 1000000 ? "%.1fM" : "%.0fM", n / 1000000)
    if (n >= 1000) return sprintf(n % 1000 ? "%.1fk" : "%.0fk", n / 1000)
    return sprintf("%.0f", n)
}

# One square and a word of a legend; returns where the next one starts.
function legend(x, y, class, text) {
    printf "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"11\" height=\"11\" rx=\"2\"/>\n", class, x, y - 10 > svg
    text_at(x + 16, y, "muted", "start", text)
    return x + 34 + width(text) * 6.6
}

function nothing(file, title, subtitle) {
    chart_open(file, 76, title, subtitle)
    chart_close()
}

# Rows come sorted: name, kind and lines in lang_name[], lang_kind[], lang_lines[] (1..lang_n).
function draw_languages(    rows, i, y, max, others, height, x, used, k) {
    if (lang_n == 0) { nothing("languages.svg", "Languages", "No text files"); return }
    rows = lang_n > 12 ? 11 : lang_n
    for (i = rows + 1; i <= lang_n; i++) others += lang_lines[i]
    max = lang_lines[1] > others ? lang_lines[1] : others
    if (max < 1) max = 1
    height = 96 + (rows + (rows < lang_n)) * ROW + 30
    chart_open("languages.svg", height, "Languages", "Lines in tracked text files, by language")
    for (i = 1; i <= lang_n; i++) used[lang_kind[i]] = 1
    x = 20
    for (k = 1; k <= 6; k++)
        if (kind_names[k] in used && kind_names[k] != "vendored") {
            if (kind_names[k] == "generated" && ("vendored" in used)) x = legend(x, 76, "generated", "generated or vendored")
            else x = legend(x, 76, kind_names[k], kind_names[k])
        }
    if (("vendored" in used) && !("generated" in used)) legend(x, 76, "vendored", "vendored")
    axis(190, 400, 90, height - 30, max, 5, "")
    for (i = 1; i <= rows; i++) {
        y = 94 + (i - 1) * ROW
        language_row(y, lang_name[i], lang_kind[i], lang_lines[i], max)
    }
    if (rows < lang_n) language_row(94 + rows * ROW, many(lang_n - rows, "other"), "rest", others, max)
    chart_close()
}

function language_row(y, name, kind, lines, max) {
    text_at(180, y + 13, "", "end", cut_end(name, 22))
    bar(190, y, 400 * lines / max, kind, name ": " many(lines, "line"))
    text_at(198 + 400 * lines / max, y + 13, "num", "start", commas(lines) " \302\267 " percent(lines, all_lines))
}

# hot_path[], hot_changes[], hot_lines[] (1..hot_n), hottest first.
function draw_hotspots(    rows, i, y, most, longest, height, path, w) {
    if (hot_n == 0) { nothing("hotspots.svg", "Hot spots", "No file was changed in the history that is here"); return }
    rows = hot_n > 15 ? 15 : hot_n
    for (i = 1; i <= rows; i++) {
        if (hot_changes[i] > most) most = hot_changes[i]
        if (hot_lines[i] > longest) longest = hot_lines[i]
    }
    if (longest < 1) longest = 1
    height = 92 + rows * ROW + 30
    chart_open("hotspots.svg", height, "Hot spots", "Files changed most often and largest, ranked by changes \303\227 lines")
    text_at(370, 78, "muted", "start", "commits that changed it")
    text_at(570, 78, "muted", "start", "lines now")
    axis(370, 120, 86, height - 30, most, 3, "")
    axis(570, 110, 86, height - 30, longest, 3, "")
    for (i = 1; i <= rows; i++) {
        y = 90 + (i - 1) * ROW
        path = display(hot_path[i])
        text_at(360, y + 13, "path", "end", cut_middle(path, 46))
        w = 120 * hot_changes[i] / most
        bar(370, y, w, "code", path ": " many(hot_changes[i], "change"))
        text_at(376 + w, y + 13, "num", "start", commas(hot_changes[i]))
        w = 110 * hot_lines[i] / longest
        bar(570, y, w, "prose", path ": " many(hot_lines[i], "line"))
        text_at(576 + w, y + 13, "num", "start", commas(hot_lines[i]))
    }
    chart_close()
}

# mark_folder[] with mark_all[] and mark[i, kind] (1..mark_n), most markers first; mark_sum[kind].
function draw_markers(    rows, i, k, y, x, w, most, height, name) {
    if (mark_n == 0) { nothing("markers.svg", "Markers", "No TODO, FIXME, XXX or HACK in tracked text files"); return }
    rows = mark_n > 15 ? 15 : mark_n
    most = mark_all[1]
    height = 96 + rows * ROW + 30
    chart_open("markers.svg", height, "Markers", "Lines with TODO, FIXME, XXX or HACK, by top folder")
    x = 20
    for (k = 1; k <= 4; k++)
        x = legend(x, 76, marker_names[k], marker_names[k] " " commas(mark_sum[marker_names[k]]))
    axis(190, 460, 90, height - 30, most, 5, "")
    for (i = 1; i <= rows; i++) {
        y = 94 + (i - 1) * ROW
        name = folder_name(mark_folder[i])
        text_at(180, y + 13, "", "end", cut_end(name, 22))
        x = 190
        for (k = 1; k <= 4; k++) {
            w = 460 * mark[i, marker_names[k]] / most
            if (w > 0) bar(x, y, w, marker_names[k], name ": " mark[i, marker_names[k]] " " marker_names[k])
            x += w
        }
        text_at(x + 8, y + 13, "num", "start", commas(mark_all[i]))
    }
    chart_close()
}

# bus_folder[], bus_factor[], bus_people[], bus_commits[], bus_reached[], bus_top[], bus_top_commits[] (1..bus_n).
function draw_bus_factor(    rows, i, y, first, others, height, name, class) {
    if (bus_n == 0) { nothing("bus-factor.svg", "Bus factor", "No commits by people in the history that is here"); return }
    rows = bus_n > 15 ? 15 : bus_n
    height = 96 + rows * ROW + 30
    chart_open("bus-factor.svg", height, "Bus factor", \
        "The fewest people who together made more than half of the commits that touch a folder")
    x = legend(20, 76, "lone", "one person made more than half")
    x = legend(x, 76, "shared", "most active of several")
    x = legend(x, 76, "shared second", "the others it takes")
    legend(x, 76, "rest", "everybody else")
    axis(190, 230, 90, height - 30, 100, 2, " %")
    for (i = 1; i <= rows; i++) {
        y = 94 + (i - 1) * ROW
        name = folder_name(bus_folder[i])
        text_at(180, y + 13, "", "end", cut_end(name, 22))
        bar(190, y, 230, "rest", name ": " many(bus_commits[i], "commit"))
        class = bus_factor[i] == 1 ? "lone" : "shared"
        first = 230 * bus_top_commits[i] / bus_commits[i]
        others = 230 * (bus_reached[i] - bus_top_commits[i]) / bus_commits[i]
        bar(190, y, first, class, bus_top[i] ": " many(bus_top_commits[i], "commit"))
        if (others > 0) bar(190 + first, y, others, class " second", many(bus_factor[i] - 1, "other") ": " \
            many(bus_reached[i] - bus_top_commits[i], "commit"))
        text_at(434, y + 13, "", "start", cut_end(commas(bus_factor[i]) " of " commas(bus_people[i]) " \302\267 " \
            cut_end(bus_top[i], 24) " " percent(bus_top_commits[i], bus_commits[i]), 46))
    }
    printf "<line class=\"half\" x1=\"305\" y1=\"90\" x2=\"305\" y2=\"%.1f\"/>\n", height - 30 > svg
    chart_close()
}

function folder_name(folder) { return folder == "." ? "(top level)" : display(folder) "/" }

# Text that comes from anybody's repository, made safe for the place it goes to. Bytes, not characters:
# run with LC_ALL=C. Written for POSIX awk as mawk 1.3.4 understands it.

BEGIN {
    for (text_i = 1; text_i < 256; text_i++) byte_of[sprintf("%c", text_i)] = text_i
    split("a b t n v f r", text_names, " ")
    for (text_i = 1; text_i <= 7; text_i++) escape_of[text_names[text_i]] = sprintf("%c", text_i + 6)
    digits = "0123456789ABCDEF"
}

# A path as git quotes it (core.quotePath=true) -> its bytes.
function unquote(path,    out, i, c) {
    if (path !~ /^"/) return path
    path = substr(path, 2, length(path) - 2)
    out = ""
    while ((i = index(path, "\\")) > 0) {
        out = out substr(path, 1, i - 1)
        c = substr(path, i + 1, 1)
        if (c ~ /[0-7]/) {
            out = out sprintf("%c", c * 64 + substr(path, i + 2, 1) * 8 + substr(path, i + 3, 1))
            path = substr(path, i + 4)
        } else {
            out = out ((c in escape_of) ? escape_of[c] : c)
            path = substr(path, i + 2)
        }
    }
    return out path
}

# The top folder of a quoted path, itself quoted as git would; "." for a file at the root.
function top_folder(path,    i, quoted) {
    i = index(path, "/")
    if (i == 0) return "."
    quoted = (path ~ /^"/)
    path = substr(path, 1 + quoted, i - 1 - quoted)
    return index(path, "\\") ? "\"" path "\"" : path
}

# How many bytes the character at position i of s takes; 0 where the bytes are not UTF-8 or the
# character must not be shown as it is (a control, a direction override, a non-character).
function char_bytes(s, i,    a, b, n, k) {
    a = byte_of[substr(s, i, 1)]
    if (a < 32 || a == 127) return 0
    if (a < 128) return 1
    if (a < 194 || a > 244) return 0
    n = a < 224 ? 2 : a < 240 ? 3 : 4
    if (i + n - 1 > length(s)) return 0
    for (k = 1; k < n; k++) {
        b = byte_of[substr(s, i + k, 1)]
        if (b < 128 || b > 191) return 0
    }
    b = byte_of[substr(s, i + 1, 1)]
    if (a == 224 && b < 160 || a == 237 && b > 159 || a == 240 && b < 144 || a == 244 && b > 143) return 0
    if (a == 194 && b < 160) return 0
    if (a == 226 && b == 128) { k = byte_of[substr(s, i + 2, 1)]; if (k > 167 && k < 175 || k > 141 && k < 144) return 0 }
    if (a == 226 && b == 129) { k = byte_of[substr(s, i + 2, 1)]; if (k > 164 && k < 170) return 0 }
    if (a == 239 && b == 191 && byte_of[substr(s, i + 2, 1)] > 189) return 0
    return n
}

# s with everything that cannot be shown replaced by "?", tabs by spaces.
function clean(s,    out, i, n) {
    gsub(/\t/, " ", s)
    if (s !~ /[\001-\037\177-\377]/) return s
    out = ""
    for (i = 1; i <= length(s); i += n ? n : 1) {
        n = char_bytes(s, i)
        out = out (n ? substr(s, i, n) : "?")
    }
    return out
}

# A quoted path as people read it: its real characters, or git's quoting where it has others.
function display(path,    plain) {
    plain = unquote(path)
    return clean(plain) == plain ? plain : path
}

# Columns a text takes; East Asian characters and emoji count two.
function width(s,    i, n, a, w) {
    if (s !~ /[\200-\377]/) return length(s)
    w = 0
    for (i = 1; i <= length(s); i += n) {
        n = char_bytes(s, i); a = byte_of[substr(s, i, 1)]
        if (!n) n = 1
        w += (a >= 227 && a != 239 || a == 239 && byte_of[substr(s, i + 1, 1)] >= 188) ? 2 : 1
    }
    return w
}

# s cut to at most w columns, at its end or at its start.
function cut_end(s, w,    i, n) {
    if (width(s) <= w) return s
    for (i = 1; i <= length(s); i += n) {
        n = char_bytes(s, i); if (!n) n = 1
        if (width(substr(s, 1, i + n - 1)) > w - 1) break
    }
    return substr(s, 1, i - 1) "\342\200\246"
}

function cut_start(s, w,    n) {
    if (width(s) <= w) return s
    while (s != "" && width(s) > w - 1) { n = char_bytes(s, 1); s = substr(s, n ? n + 1 : 2) }
    return "\342\200\246" s
}

# s cut to at most w columns after a word, where there is one that does not leave too little.
function cut_words(s, w,    at) {
    if (width(s) <= w) return s
    s = cut_end(s, w)
    sub(/\342\200\246$/, "", s)
    at = length(s)
    while (at > w * 2 / 3 && substr(s, at, 1) != " ") at--
    if (at > w * 2 / 3) s = substr(s, 1, at)
    sub(/[ ,;:]+$/, "", s)
    return s " \342\200\246"
}

# A path's two ends: where it is, and what it is called.
function cut_middle(s, w) {
    if (width(s) <= w) return s
    return cut_end(s, 15) substr(cut_start(s, w - 14), 4)
}

# Text for XML content and attributes.
function xml(s) {
    gsub(/&/, "\\&amp;", s); gsub(/</, "\\&lt;", s); gsub(/>/, "\\&gt;", s)
    gsub(/"/, "\\&quot;", s); gsub(/'/, "\\&#39;", s)
    return s
}

# Text for Markdown, none of it markup: every sign that could be is written as an entity. A colon before a
# blank is only a colon; elsewhere it could make a link or a picture.
function md(s,    out, i, c) {
    if (s !~ "[^A-Za-z0-9 .,()+#/;?!%='\"{}\200-\377-]") return s
    out = ""
    for (i = 1; i <= length(s); i++) {
        c = substr(s, i, 1)
        if (c == ":" && substr(s, i + 1, 1) ~ /^ ?$/) out = out c
        else out = out (c ~ "[A-Za-z0-9 .,()+#/;?!%='\"{}\200-\377-]" ? c : "&#" byte_of[c] ";")
    }
    return out
}

# A Markdown code span; the fence is longer than any run of backticks inside. `|` is escaped, since
# a table row is split before code spans are read; outside a table pass in_table = 0.
function code(s, in_table,    fence, pad) {
    fence = "`"
    while (index(s, fence)) fence = fence "`"
    pad = (s ~ /^[` ]/ || s ~ /[` ]$/) ? " " : ""
    if (in_table) gsub(/\|/, "\\|", s)
    return fence pad s pad fence
}

# A quoted path as a relative URL.
function url(path,    s, out, i, c) {
    s = unquote(path)
    if (s !~ "[^A-Za-z0-9_./-]") return s
    out = ""
    for (i = 1; i <= length(s); i++) {
        c = substr(s, i, 1)
        if (c ~ "[A-Za-z0-9_./-]") out = out c
        else out = out "%" substr(digits, int(byte_of[c] / 16) + 1, 1) substr(digits, byte_of[c] % 16 + 1, 1)
    }
    return out
}

# 1234567 -> 1,234,567
function commas(n,    s, out) {
    s = sprintf("%.0f", n)
    out = ""
    while (length(s) > 3) { out = "," substr(s, length(s) - 2) out; s = substr(s, 1, length(s) - 3) }
    return s out
}

# "1 file", "2 files"
function many(n, word) { return commas(n) " " word (n == 1 ? "" : "s") }

# A share as per cent with one decimal. What is there is never shown as nothing, and what is not all never as all.
function percent(part, whole) {
    if (whole <= 0 || part <= 0) return "0 %"
    if (part >= whole) return "100 %"
    if (part * 1000 < whole) return "< 0.1 %"
    return part * 1000 > whole * 999 ? "> 99.9 %" : sprintf("%.1f %%", part * 100 / whole)
}

# 1234567 -> 1.2 MB
function in_bytes(n) {
    if (n < 1000) return many(n, "byte")
    if (n < 1000000) return sprintf("%.1f kB", n / 1000)
    return n < 1000000000 ? sprintf("%.1f MB", n / 1000000) : sprintf("%.1f GB", n / 1000000000)
}

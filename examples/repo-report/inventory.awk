# Reads `git grep --heading --break` of lines that start with #!, `git ls-tree -r --long` and `git
# diff-tree --numstat` against the empty tree; writes the
# files `files`, `languages` and `counts` in the current folder. Paths stay as git quotes them.
BEGIN { FS = "\t"; OFS = "\t"; print "path", "language", "bytes", "lines", "kind" > "files" }

FILENAME == "first_lines" {
    # A heading is "hash:path" after an empty line; then come "number:text".
    if ($0 == "") { inside = 0; next }
    if (!inside) { inside = 1; path = substr($0, length(commit) + 2); next }
    if ($0 ~ /^1:/) first_line[path] = substr($0, 3, 200)
    next
}

FILENAME == "tree" {
    split($1, entry, " +")
    tracked++
    if (entry[2] == "commit") { submodules++; next }
    if (entry[1] == "120000") { symlinks++; next }
    size[$2] = entry[4]
    next
}

!($3 in size) { next }

$1 == "-" { binary++; binary_bytes += size[$3]; next }

{
    identify(unquote($3))
    if (language == "Other" && ($3 in first_line)) identify_by_first_line(first_line[$3])
    print $3, language, size[$3], $1, kind > "files"
    key = language OFS kind
    text++; bytes += size[$3]; lines += $1
    of_files[key]++; of_lines[key] += $1; of_bytes[key] += size[$3]
}

END {
    for (key in of_files)
        printf "%s\t%d\t%.0f\t%.0f\n", key, of_files[key], of_lines[key], of_bytes[key] > "languages"
    printf "" > "languages"
    printf "tracked\t%d\ntext\t%d\nbinary\t%d\nsymlinks\t%d\nsubmodules\t%d\n", \
        tracked, text, binary, symlinks, submodules > "counts"
    printf "bytes\t%.0f\nlines\t%.0f\nbinary_bytes\t%.0f\n", bytes, lines, binary_bytes > "counts"
}

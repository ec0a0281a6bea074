# Reads folder, commits, address, name (by folder, most commits first). The bus factor of a folder is
# the smallest number of people who together made more than half of the commits that touch it.
BEGIN { FS = "\t"; OFS = "\t" }
NR > 1 && $1 != folder { flush_folder() }
{ folder = $1; n++; commits[n] = $2; all += $2; if (n == 1) top = $4 }
END { if (NR) flush_folder() }

function flush_folder(    i, reached) {
    reached = 0
    for (i = 1; i <= n && reached * 2 <= all; i++) reached += commits[i]
    print folder, i - 1, n, all, reached, top, commits[1]
    n = 0; all = 0
}

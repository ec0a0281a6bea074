# What every agent of a chaos run does. Each sources this file first.
#
# The journal is written apart from Segue: one line when an attempt begins, one when it has done its work. Each line is
# one write in append mode, so the lines of several processes never mix, and stand in the order in which they happened.

note() {
    printf '%s %s %s\n' "$SEGUE_TASK_ID" "$SEGUE_ATTEMPT" "$1" >>"$SEGUE_CHAOS_JOURNAL"
}

# The property of the input with this name, or nothing.
field() {
    if [ -f "$SEGUE_IN/$1" ]; then
        cat "$SEGUE_IN/$1"
    fi
}

# Prints the output: which attempt made it, and as much padding as the input asks for.
result() {
    bytes=$(field bytes)
    padding=
    if [ -n "$bytes" ]; then
        padding=$(head -c "$bytes" /dev/zero | tr '\0' x)
    fi
    note end
    printf '{"attempt":"%s","padding":"%s"}\n' "$SEGUE_ATTEMPT" "$padding"
}

note start

# A workload that has nothing but a shell, for the scripts beside this file, which take as their first
# arguments: PAIR-FOLDER FRAMES-FOLDER FIFOGATE.
#
# What it says are prepared frames; `fifogate decode` turns what it is told into lines, and is only
# there to look at them. Nothing sleeps: each line is waited for.
set -eu
pair=$1 frames=$2 fifogate=$3

work=$(mktemp -d)
mkfifo "$work/told"
"$fifogate" decode < "$pair/input" > "$work/told" &
decoder=$!
trap 'kill "$decoder" 2> /dev/null || true; rm -r "$work"' EXIT
trap 'exit 1' HUP INT TERM
# Descriptor 3 is what we say, from now on without a break; 4 is what we are told.
exec 3> "$pair/output" 4< "$work/told"

# say FRAME...: writes prepared frames.
say() {
    for frame in "$@"; do
        cat "$frames/$frame.bin" >&3
    done
}

# expect WORD...: the next message holds all of these.
expect() {
    IFS= read -r line <&4
    printf '%s\n' "$line"
    for word in "$@"; do
        case $line in
        *"$word"*) ;;
        *)
            printf 'expected %s\n' "$word" >&2
            exit 1
            ;;
        esac
    done
}

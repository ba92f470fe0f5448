# A workload with nothing but a shell, for the scripts beside this file. Their first arguments are
# PAIR-FOLDER FRAMES-FOLDER FIFOGATE.
#
# It sends prepared frames. `fifogate decode` turns the received ones into lines, only to compare them.
# The scripts never sleep: they wait for each line.
set -eu
pair=$1 frames=$2 fifogate=$3

work=$(mktemp -d)
mkfifo "$work/told"
"$fifogate" decode < "$pair/input" > "$work/told" &
decoder=$!
trap 'kill "$decoder" 2> /dev/null || true; rm -r "$work"' EXIT
trap 'exit 1' HUP INT TERM
# Descriptor 3 is the open `output` from now on; 4 has the decoded messages.
exec 3> "$pair/output" 4< "$work/told"

# say FRAME...: writes prepared frames.
say() {
    for frame in "$@"; do
        cat "$frames/$frame.bin" >&3
    done
}

# expect WORD...: checks that the next message has all of these words.
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

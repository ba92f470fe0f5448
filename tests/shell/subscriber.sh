#!/bin/sh
# A workload that has nothing but a shell: it follows one config through prepared frames.
# Usage: subscriber.sh PAIR-FOLDER FRAMES-FOLDER FIFOGATE
#
# What comes back is only looked at, not needed: `fifogate decode` prints a line a message.
set -eu
pair=$1 frames=$2 fifogate=$3

# One process reads all the time; descriptor 3 writes all the time. Opening `input` first is right:
# fifogate holds the other end of both.
lines=$(mktemp -d)
mkfifo "$lines/decoded"
"$fifogate" decode < "$pair/input" > "$lines/decoded" &
reader=$!
trap 'kill "$reader" 2>/dev/null || true; rm -r "$lines"' EXIT
exec 3> "$pair/output" 4< "$lines/decoded"

expect() { # expect WORDS...: the next message holds all of them
    IFS= read -r line <&4
    printf '%s\n' "$line"
    for word in "$@"; do
        case $line in
        *"$word"*) ;;
        *) echo "expected $word" >&2; exit 1 ;;
        esac
    done
}

cat "$frames/hello.bin" >&3
expect controlInterfaceAccepted

cat "$frames/subscribe-speed.bin" >&3
expect '"requestId":"speed"' completeState '"String":"0"'

echo subscribed # whoever sends the event waits for this
expect '"requestId":"speed"' alteredFields desiredState.configs.speed '"String":"80"'

cat "$frames/cancel-speed.bin" >&3
expect '"requestId":"speed"' eventsCancelAccepted

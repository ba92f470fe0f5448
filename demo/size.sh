#!/bin/sh
# Prints the size of a fifogate, and its resident memory with 10 and with 1,000 idle workloads.
# Usage: size.sh PATH-TO-FIFOGATE
#
# The pipes are in memory, as they usually are (`/run`). On a disk, most of the time until readiness goes
# into making four names for each workload.
set -eu
fifogate=$1
# Five descriptors a workload.
ulimit -S -n "$(ulimit -H -n)"

memory=${XDG_RUNTIME_DIR:-/dev/shm}
work=$(mktemp -d -p "$memory" 2> /dev/null || mktemp -d)
child=
trap '[ -z "$child" ] || kill "$child"; wait; rm -r "$work"' EXIT
trap 'exit 1' HUP INT TERM

printf 'binary                    %6d KiB\n' "$(($(stat -c %s "$fifogate") / 1024))"
for count in 10 1000; do
    own=$work/$count
    mkdir "$own"
    {
        printf 'apiVersion: v1\nworkloads:\n'
        for n in $(seq "$count"); do
            printf '  w%s: { runtime: r, agent: a, runtimeConfig: "%s", controlInterfaceAccess: ' "$n" "$n"
            printf '{ allowRules: [{ type: StateRule, operation: Read, filterMasks: [agents] }] } }\n'
        done
    } > "$own/manifest.yaml"
    mkfifo "$own/ready"
    began=$(date +%s%N)
    "$fifogate" -q run --manifest "$own/manifest.yaml" --run-dir "$own/run" \
        --notification-fd 3 3> "$own/ready" 2> "$own/log" &
    child=$!
    if ! read -r _ < "$own/ready" || [ -s "$own/log" ]; then
        head -n 3 "$own/log" >&2
        exit 1
    fi
    ended=$(date +%s%N)
    resident=$(awk '/^VmRSS/ { print $2 }' "/proc/$child/status")
    printf '%5d workloads: resident %6d KiB, ready after %d ms\n' \
        "$count" "$resident" "$(((ended - began) / 1000000))"
    kill "$child"
    wait "$child"
    child=
done

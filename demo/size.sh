#!/bin/sh
# Prints the size of a fifogate binary, and what it holds in memory when it serves 10 and 1,000 idle
# workloads. Usage: size.sh PATH-TO-FIFOGATE
#
# The pipes are made where they usually are: in memory, as below /run. On a disk most of the time
# goes into making 4 names for each workload.
set -eu
fifogate=$1
memory=${XDG_RUNTIME_DIR:-/dev/shm}
work=$(mktemp -d -p "$memory" 2>/dev/null || mktemp -d)
trap 'kill "$child" 2>/dev/null || true; rm -rf "$work"' EXIT
child=
printf 'binary                      %6d KiB\n' "$(($(stat -c %s "$fifogate") / 1024))"
for count in 10 1000; do
    manifest=$work/$count.yaml
    {
        printf 'apiVersion: v1\nworkloads:\n'
        for n in $(seq "$count"); do
            printf '  w%s: { runtime: r, agent: a, runtimeConfig: "%s", controlInterfaceAccess: ' "$n" "$n"
            printf '{ allowRules: [{ type: StateRule, operation: Read, filterMasks: [agents] }] } }\n'
        done
    } > "$manifest"
    mkfifo "$work/$count"
    "$fifogate" -q run --manifest "$manifest" --run-dir "$work/run$count" \
        --notification-fd 3 3> "$work/$count" &
    child=$!
    began=$(date +%s%N)
    read -r _ < "$work/$count"
    ended=$(date +%s%N)
    resident=$(awk '/^VmRSS/ { print $2 }' "/proc/$child/status")
    printf '%5s workloads: resident   %6d KiB, ready after %d ms\n' \
        "$count" "$resident" "$(((ended - began) / 1000000))"
    kill "$child"
    wait "$child"
done

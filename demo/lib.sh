# What the demos share. They set `work`, a folder in which the agent has its run directory `run` and its
# `log`, and in which workloads leave files.
# shellcheck shell=sh disable=SC2034,SC2154

cd "$(dirname "$0")/.."
# Of the first argument of the demo.
folder=$(cd "${1:-target/debug}" && pwd)
fifogate=$folder/fifogate
demo=$PWD/demo
python=${PYTHON:-$PWD/target/sdk-venv/bin/python}

caption() { printf '\n%s\n\n' "$@"; }
typed() { printf '    $ %s\n' "$@"; }
shown() { sed -E "s/([0-9a-f]{8})[0-9a-f]{56}/\1…/g; s|$work|…|g; s|^|    ${1:-}|"; }

lines_of() { wc -l < "$work/$1" 2> /dev/null || echo 0; }
# Prints the first matching line of a file, after its first $3 lines. Fails if none comes.
await() {
    for _ in $(seq 200); do
        if tail -n "+$((${3:-0} + 1))" "$work/$1" 2> /dev/null | grep -m 1 -e "$2"; then return; fi
        sleep 0.1
    done
    echo "    $1 did not tell '$2'; the agent said:" >&2
    shown < "$work/log" >&2
    return 1
}
# Does the same with output on the terminal. In a pipeline a failure would be lost.
tells() {
    line=$(await "$@")
    printf '%s\n' "$line" | shown "${1##*/} < "
}

# The folder with the two pipes of a workload.
pair() {
    set -- "$work/run/$1".*
    printf '%s/control_interface' "$1"
}

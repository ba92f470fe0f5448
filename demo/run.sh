#!/bin/sh
# Shows in a minute what fifogate is for: three workloads of one node, none of which knows another, and
# what each of them is told. No container engine: a workload is whoever opens its pair of pipes.
#
# Runs as any user, in a folder of its own, and leaves nothing behind. Usage: run.sh [PATH-TO-FIFOGATE]
set -eu
cd "$(dirname "$0")/.."
fifogate=${1:-target/debug/fifogate}
manifest=fixtures/manifests/three-workloads.yaml
frames=fixtures/frames

work=$(mktemp -d)
children=
trap 'kill $children 2> /dev/null || true; wait; rm -r "$work"' EXIT
trap 'exit 1' HUP INT TERM

# The folder with the two pipes of a workload.
pair() {
    set -- "$work/run/$1".*
    printf '%s/control_interface' "$1"
}

caption() { printf '\n%s\n\n' "$@"; }
typed() { printf '    $ %s\n' "$@"; }

# Shows lines behind a prefix, with short ids.
shown() { sed -E "s/([0-9a-f]{8})[0-9a-f]{56}/\1…/g; s|$work|…|g; s/^/    ${1:-}/"; }
# Shows a JSON object that a workload was told, on several lines.
told() { sed -E 's/"completeStateResponse":\{|\},|\],/&\n/g' | shown "$1 < "; }

# What a workload is told next; waits for it.
dashboard_is_told() { IFS= read -r line <&4 && printf '%s\n' "$line" | told dashboard; }
shell_is_told() { IFS= read -r line <&5 && printf '%s\n' "$line" | told shell; }

caption '1. Each workload that may talk to the cluster has a pair of named pipes: into `output` it writes
   what it asks for, from `input` it reads answers and events. Who may what, the manifest says.'
typed "fifogate run --manifest $manifest"
mkfifo "$work/ready"
"$fifogate" -q run --manifest "$manifest" --run-dir "$work/run" \
    --notification-fd 3 3> "$work/ready" &
gate=$!
children=$gate
read -r _ < "$work/ready" # fails if it ended instead; then it said why
for workload in dashboard publisher shell; do
    printf '%s/{input,output}\n' "$(pair $workload)"
done | shown

caption '2. The dashboard follows the states of all workloads, and all configs. First it is told how
   things are.'
typed "fifogate watch 'workloadStates.*.*.*.state' desiredState.configs"
mkfifo "$work/dashboard"
"$fifogate" watch --count 3 --output json -d "$(pair dashboard)" \
    'workloadStates.*.*.*.state' desiredState.configs > "$work/dashboard" &
dashboard=$!
children="$children $dashboard"
exec 4< "$work/dashboard"
dashboard_is_told

caption '3. The workload called shell has nothing but `cat` and prepared messages. It follows one
   config; `fifogate decode` is there to show what comes.'
typed 'cat hello.bin subscribe-speed.bin > output' 'fifogate decode < input'
mkfifo "$work/shell"
"$fifogate" decode < "$(pair shell)/input" > "$work/shell" &
children="$children $!"
exec 5< "$work/shell"
cat "$frames/hello.bin" "$frames/subscribe-speed.bin" > "$(pair shell)/output"
shell_is_told
shell_is_told

caption '4. The publisher sends a custom event: it sets a config. Whoever follows it is told what is
   different, and the new value.'
typed 'fifogate set desiredState.configs.speed=80'
"$fifogate" set -d "$(pair publisher)" desiredState.configs.speed=80
dashboard_is_told
shell_is_told

caption '5. Shell has a message that would do the same, but its rules only let it read.'
typed 'cat set-speed-to-80.bin > output'
cat "$frames/set-speed-to-80.bin" > "$(pair shell)/output"
shell_is_told

caption '6. An event that shell does not follow, of a config that is a mapping.'
typed "fifogate set --yaml 'desiredState.configs.position={lat: \"48.20\", lon: \"11.62\"}'"
"$fifogate" set --yaml -d "$(pair publisher)" \
    'desiredState.configs.position={lat: "48.20", lon: "11.62"}'
dashboard_is_told

caption '7. The publisher may also add one more workload. Pending it stays: to start it is the business
   of an agent, and none is here.'
typed 'fifogate set desiredState.workloads.logger.{agent=node_a,runtime=process,runtimeConfig=}'
"$fifogate" set -d "$(pair publisher)" desiredState.workloads.logger.agent=node_a \
    desiredState.workloads.logger.runtime=process \
    desiredState.workloads.logger.runtimeConfig= | shown 'publisher < '
dashboard_is_told

caption '8. What fifogate counted. The dashboard has seen enough and has cancelled its subscription.'
wait "$dashboard"
typed 'fifogate status'
"$fifogate" status --run-dir "$work/run" | shown

caption '9. fifogate stops. The pipes stay for the next one, which will serve them again.'
typed 'kill %1'
kill "$gate"
status=0
wait "$gate" || status=$?
children=${children#"$gate"}
echo "    status $status"
exit "$status"

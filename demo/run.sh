#!/bin/sh
# Shows in a minute what fifogate is for: three workloads of one node, none of which knows another,
# and what each of them is told. No container engine: a workload is whoever opens its pair of pipes.
set -eu
cd "$(dirname "$0")/.."
fifogate=${FIFOGATE:-target/debug/fifogate}
work=$(mktemp -d)
run=$work/run
children=
trap 'kill $children 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { sed "s/^/  $1 | /"; }

say "1. fifogate serves the workloads of fixtures/manifests/three-workloads.yaml"
mkfifo "$work/ready"
"$fifogate" -q run --manifest fixtures/manifests/three-workloads.yaml --run-dir "$run" \
    --notification-fd 3 3> "$work/ready" &
children=$!
read -r _ < "$work/ready" || true
for pair in "$run"/*/control_interface; do
    name=$(basename "$(dirname "$pair")")
    echo "  ${name%%.*}: ${name%"${name#*.????????}"}…/control_interface/{input,output}"
done
pair() { echo "$run/$1".*/control_interface; }

say "2. The dashboard follows all workload states and two configs"
echo "  \$ fifogate watch 'workloadStates.*.*.*.state' desiredState.configs.speed …"
mkfifo "$work/dashboard"
"$fifogate" watch --count 3 --output json -d $(pair dashboard) \
    'workloadStates.*.*.*.state' desiredState.configs.speed desiredState.configs.position \
    > "$work/dashboard" &
dashboard=$!
children="$children $dashboard"
exec 4< "$work/dashboard"
read -r first <&4
echo "$first" | cut -c1-150 | show dashboard

say "3. A workload that has only cat and prepared frames follows one config"
echo "  \$ cat hello.bin subscribe-speed.bin > output;  fifogate decode < input"
mkfifo "$work/shell"
"$fifogate" decode < $(pair shell)/input > "$work/shell" &
children="$children $!"
exec 5< "$work/shell"
decoder=$!
cat fixtures/frames/hello.bin fixtures/frames/subscribe-speed.bin > $(pair shell)/output
read -r line <&5; echo "$line" | show shell
read -r line <&5; echo "$line" | show shell

say "4. The publisher sends a custom event: an update of a config"
echo "  \$ fifogate set desiredState.configs.speed=80"
"$fifogate" set -d $(pair publisher) desiredState.configs.speed=80 | show publisher
read -r line <&4; echo "$line" | show dashboard
read -r line <&5; echo "$line" | show shell

say "5. … and starts another workload, of which the dashboard hears too"
echo "  \$ fifogate set desiredState.workloads.logger.{agent,runtime,runtimeConfig}=…"
"$fifogate" set -d $(pair publisher) desiredState.workloads.logger.agent=node_a \
    desiredState.workloads.logger.runtime=process \
    desiredState.workloads.logger.runtimeConfig='command: logger' | show publisher
read -r line <&4; echo "$line" | show dashboard

kill "$decoder" "$dashboard"
wait "$decoder" "$dashboard" 2>/dev/null || true

say "6. What its rules do not allow, a workload is not told"
echo "  \$ fifogate get workloadStates      (as the workload shell)"
"$fifogate" get -d $(pair shell) workloadStates 2>&1 | sed 's/.*control_interface/…/' | show shell

say "7. fifogate stops; the pipes stay, and the next fifogate serves them again"
kill -TERM "${children%% *}"
wait "${children%% *}"
echo "  status $?"

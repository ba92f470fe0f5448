#!/bin/sh
# Shows the purpose of fifogate and its agent in half a minute: real processes of one node without knowledge
# of each other, the events of each, and the death of one. It needs no container engine.
#
# Runs as any user, in a folder of its own, and leaves nothing behind. Usage: run.sh [FOLDER]. The folder has
# `fifogate` and `fifogate-agent`. PYTHON names an interpreter with the Python SDK.
set -eu
. "$(dirname "$0")/lib.sh"

work=$(mktemp -d)
agent=
trap 'test -z "$agent" || kill "$agent" 2> /dev/null || true; wait; rm -r "$work"' EXIT
trap 'exit 1' HUP INT TERM

# Finds processes by the content of their command lines.
process_of() {
    for line in /proc/[0-9]*/cmdline; do
        if tr '\0' ' ' < "$line" 2> /dev/null | grep -q -e "$1"; then
            line=${line#/proc/} && echo "${line%/cmdline}"
        fi
    done
}

# The SDK looks for its pair in one place only, so it needs a mount namespace.
if "$python" -c 'import ankaios_sdk' 2> /dev/null && unshare --mount --map-root-user true 2> /dev/null
then
    dashboard=$python
    arguments="[\"$demo/dashboard.py\", \"$work/dashboard\"]"
    kind='a program with the Python SDK'
else
    dashboard=sh
    arguments="[\"$demo/dashboard.sh\", \"$fifogate\", \"$work/dashboard\"]"
    kind='a shell script, as the Python SDK is not installed (make setup does that)'
fi
cat "$demo/node.yaml" - > "$work/node.yaml" << END
configs:
  limit: "200"
  here:
    fifogate: "$fifogate"
    demo: "$demo"
    work: "$work"
    dashboard: "$dashboard"
    dashboardArgs: $arguments
END

caption '1. The agent starts fifogate, and the processes of its manifest. Each is in namespaces of its
   own where privileges allow, and finds a pair of named pipes where the SDKs look for it.'
typed 'fifogate-agent run --manifest demo/node.yaml'
"$folder/fifogate-agent" run --manifest "$work/node.yaml" --run-dir "$work/run" --grace 2 \
    --fifogate "$fifogate" 2> "$work/log" &
agent=$!

caption "2. The dashboard, $kind, follows the states of all its neighbours.
   The engine, a shell script, waited for it."
tells dashboard '^engine is R'
tells dashboard '^monitor is R'

caption '3. The engine tells its speed as a custom event: it sets a config, again and again. The monitor,
   a program in Rust, prints each change as it comes.'
for event in 1 2 3; do
    tells monitor '"alteredFields":{.*desiredState.configs.speed' "$event"
done
tells dashboard '^speed [3-9]0$'

caption '4. It also tried to set the limit, but its rules do not let it.'
tells engine denied

caption '5. Now the engine is killed. Its policy is ALWAYS: it is started again, and the dashboard is told
   of both.'
before=$(lines_of dashboard)
killed=$(process_of "$demo/engine.sh" | sort -n | tail -n 1)
typed "kill -KILL $killed"
kill -KILL "$killed"
tells dashboard '^engine is F' "$before"
tells dashboard '^engine is R' "$before"
tells dashboard '^speed [1-4]0$' "$before"

caption '6. The operator may add one workload, and take it away: a process comes and goes.'
typed "fifogate set desiredState.workloads.lamp.{agent=agent_A,runtime=process,runtimeConfig=…}"
"$fifogate" -q set -d "$(pair operator)" desiredState.workloads.lamp.agent=agent_A \
    desiredState.workloads.lamp.runtime=process \
    'desiredState.workloads.lamp.runtimeConfig={command: sleep, args: [98765]}' > "$work/operator"
tells operator added
tells dashboard '^lamp is R'
before=$(lines_of dashboard)
typed 'fifogate set desiredState.workloads.lamp-'
"$fifogate" -q set -d "$(pair operator)" desiredState.workloads.lamp- > "$work/operator"
tells operator deleted
tells dashboard '^lamp is S' "$before"

caption '7. What fifogate counted.'
typed 'fifogate status'
"$fifogate" status --run-dir "$work/run" | shown

caption '8. The agent is told to stop: it ends the workloads, and fifogate last.'
typed 'kill %1'
kill "$agent"
status=0
wait "$agent" || status=$?
agent=
echo "    status $status"
left=$(process_of "$work")
test -z "$left" || { echo "    left behind: $left" && exit 1; }
exit "$status"

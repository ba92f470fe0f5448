#!/bin/sh
# Shows containers and their events in less than a minute: a dashboard with the unmodified Python SDK runs in
# one, and sees another one come, die, come back and go.
#
# It asks no registry: the image is empty, and the programs of this machine are shown to the containers. The
# containers are in a storage of their own, which ends with the script; all else is podman as it is
# configured here. Usage: podman.sh [FOLDER]. The folder has `fifogate` and `fifogate-agent`. PYTHON names an
# interpreter with the Python SDK.
set -eu
. "$(dirname "$0")/lib.sh"
image=localhost/fifogate-demo

if ! command -v podman > /dev/null; then
    echo 'demo-podman needs podman, which is not installed (Debian: apt-get install podman)' >&2
    exit 1
fi
if ! "$python" -c 'import ankaios_sdk' 2> /dev/null; then
    echo 'demo-podman needs the Python SDK of Ankaios: tests/sdk/setup.sh installs it' >&2
    exit 1
fi

work=$(mktemp -d)
# A storage of its own, with the driver that works everywhere; an empty image costs nothing there.
printf '[storage]\ndriver = "vfs"\ngraphroot = "%s"\nrunroot = "%s"\n' "$work/graph" "$work/storage" \
    > "$work/storage.conf"
export CONTAINERS_STORAGE_CONF="$work/storage.conf"

agent=
label=fifogate.run-dir=$work/run
own() { podman ps --all --quiet --filter "label=$label"; }
# Only what bears the label of this agent: a podman that works on another machine has no storage of the demo.
clean() {
    test -z "$agent" || kill "$agent" 2> /dev/null || true
    wait
    for id in $(own 2> /dev/null); do podman rm --force --time 0 "$id" > /dev/null 2>&1 || true; done
    podman rmi --force "$image" > /dev/null 2>&1 || true
    # Without root, files may belong to users of the namespace of podman.
    rm -r "$work" 2> /dev/null || podman unshare rm -r "$work"
}
trap clean EXIT
trap 'exit 1' HUP INT TERM

# Folders of the system, to which the empty image has either an empty folder or the same link.
options='--network=none --security-opt=label=disable'
mkdir "$work/root" "$work/screen"
chmod 777 "$work/screen"
for name in etc proc dev sys run tmp screen; do mkdir "$work/root/$name"; done
for name in usr bin sbin lib lib32 lib64; do
    if [ -L "/$name" ]; then
        ln -s "$(readlink "/$name")" "$work/root/$name"
    elif [ -d "/$name" ]; then
        mkdir "$work/root/$name"
        options="$options --volume=/$name:/$name:ro"
    fi
done
# Python with the SDK, at the places where it is here: its packages, and the installation behind it.
for place in $("$python" -c 'import sys; print(sys.prefix, sys.base_prefix)') "$demo"; do
    case $place in
    /usr) ;;
    *)
        real=$(cd "$place" && pwd -P)
        options="$options --volume=$real:$place:ro"
        ;;
    esac
done
tar -C "$work/root" --owner=0 --group=0 -cf "$work/image.tar" .

# Whether podman starts a container; what it complains of is in `complaint`.
starts() {
    # Word splitting is intended: one word per option.
    # shellcheck disable=SC2086
    complaint=$({ podman import --quiet "$work/image.tar" "$image" &&
        podman run --rm --label="$label" $options "$image" true; } 2>&1 > /dev/null)
}
if ! starts; then
    first=$(echo "$complaint" | tail -n 1)
    # In a container or a small virtual machine: no systemd, no limits to be raised.
    runtime=$(command -v crun > /dev/null || command -v runc > /dev/null && echo 'runtime = "runc"')
    cat > "$work/containers.conf" << END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
$runtime
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "$work/tmp"
END
    export CONTAINERS_CONF="$work/containers.conf"
    if ! starts; then
        echo "demo-podman needs podman, which cannot start a container here: $first" >&2
        exit 1
    fi
fi

list=$(printf '"%s", ' $options)
cat "$demo/containers.yaml" - > "$work/node.yaml" << END
configs:
  here:
    image: "$image"
    python: "$python"
    demo: "$demo"
    screen: "$work/screen"
    options: [${list%, }]
END

operator() {
    typed "$(echo "fifogate set $*" | sed 's/, commandOptions: .*\], /, …, /')"
    "$fifogate" -q set -d "$(pair operator)" "$@" > "$work/operator"
}
listed() {
    typed "podman ps --all --format '{{.Names}} {{.Status}}'"
    podman ps --all --format '{{.Names}} {{.Status}}' | shown
}
sample() { podman ps --quiet --filter label=agent=agent_A --filter name='^sample\.'; }

caption '1. The agent starts the workloads of its manifest. One is a container with a dashboard: a program
   with the Python SDK of Ankaios, unmodified. It finds its pair of named pipes where the SDK looks.'
typed 'fifogate-agent run --manifest demo/containers.yaml --on-exit end'
"$folder/fifogate-agent" run --manifest "$work/node.yaml" --run-dir "$work/run" --on-exit end \
    --fifogate "$fifogate" 2> "$work/log" &
agent=$!

caption '2. It subscribed to the states of all workloads, and sees its own one, too.'
tells screen/dashboard '^operator is R'
tells screen/dashboard '^dashboard is R'
listed

caption '3. The operator adds a workload in a container.'
operator desiredState.workloads.sample.agent=agent_A \
    desiredState.workloads.sample.runtime=podman \
    desiredState.workloads.sample.restartPolicy=ALWAYS \
    "desiredState.workloads.sample.runtimeConfig={image: $image, commandOptions: [--stop-timeout=1, \
${list%, }], commandArgs: [sleep, \"98765\"]}"
tells screen/dashboard '^sample is P'
tells screen/dashboard '^sample is R'
listed

caption '4. Its process is killed. The policy is ALWAYS: the agent makes a new container.'
before=$(lines_of screen/dashboard)
typed 'podman kill sample.…'
podman kill "$(sample)" > /dev/null
tells screen/dashboard '^sample is F' "$before"
tells screen/dashboard '^sample is R' "$before"

caption '5. A custom event: the operator sets a config, and the dashboard is told.'
operator desiredState.configs.speed=50
tells screen/dashboard '^speed 50'

caption '6. The operator takes the workload away.'
before=$(lines_of screen/dashboard)
operator desiredState.workloads.sample-
tells screen/dashboard '^sample is S' "$before"
tells screen/dashboard '^sample is gone' "$before"
listed

caption '7. The agent is told to stop, and ends its containers: so --on-exit end says. Without it they go on,
   and the next agent takes them over.'
typed 'kill %1'
kill "$agent"
status=0
wait "$agent" || status=$?
agent=
echo "    status $status"
left=$(own)
test -z "$left" || { echo "    left behind: $left" && exit 1; }
exit "$status"

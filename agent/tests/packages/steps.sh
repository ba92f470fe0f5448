# The life of the packages, in a root of Debian. Run by `sh -eu`.

fail() {
    echo "FAILED: $*"
    cat /tmp/agent.log /tmp/systemctl 2>/dev/null
    exit 1
}
# Waits until a command succeeds.
until_true() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ "$tries" -lt 200 ] || fail "in time: $*"
        sleep 0.05
    done
}
# All files, but for the notes that dpkg makes of everything.
files() {
    find / -xdev \( -path /test -o -path /tmp -o -path /proc -o -path /dev \) -prune -o -print
    find /run
}
unnoted() { files | grep -v -e '^/var/lib/dpkg/.*-old$' -e '^/var/log/' | sort; }
pid_of() {
    for process in /proc/[0-9]*; do
        [ "$(tr '\0' ' ' <"$process/cmdline" 2>/dev/null || true)" != "$1 " ] || echo "${process#/proc/}"
    done
}
answers() { fifogate-agent get workloads >/tmp/workloads 2>&1; }
is_gone() { ! kill -0 "$1" 2>/dev/null; }
runs() { answers && grep -q 'lamp .*Running(Ok)' /tmp/workloads; }

install -m 755 /test/systemctl /usr/bin/systemctl
mkdir -p /run/systemd/system
unnoted >/tmp/before

# Installed: all files are as packed, and the agent runs, with nothing to do.
dpkg --install /test/1.0/*.deb || fail "install"
[ -z "$(dpkg --verify fifogate fifogate-agent)" ] || fail "files differ"
until_true answers
grep -q ' start fifogate-agent.service' /tmp/systemctl || fail "it is not started"
! grep -q 'start.* fifogate.service' /tmp/systemctl || fail "fifogate is started alone, too"
first=$(cat /tmp/agent.pid)
for file in /usr/share/fifogate/proto/agent_link.proto /usr/share/man/man1/fifogate-agent.1.gz \
    /usr/share/bash-completion/completions/fifogate-agent; do
    [ -s "$file" ] || fail "$file"
done

# A workload, by the command of an operator; and a change of the configuration.
cat >/tmp/lamp.yaml <<'YAML'
apiVersion: v1
workloads:
  lamp:
    runtime: process
    agent: agent_A
    runtimeConfig: |
      command: sleep
      args: ["86421"]
YAML
fifogate-agent apply /tmp/lamp.yaml || fail "apply"
until_true runs
lamp=$(pid_of "sleep 86421")
[ -n "$lamp" ] || fail "no process"
echo 'grace = 5' >>/etc/fifogate/agent.toml

# Upgraded: another agent, the same workload, and the changed configuration.
dpkg --install /test/1.1/*.deb || fail "upgrade"
grep -q 'restart.* fifogate-agent.service' /tmp/systemctl || fail "it is not restarted"
second=$(cat /tmp/agent.pid)
[ "$first" != "$second" ] && is_gone "$first" || fail "the old agent runs"
until_true runs
[ "$(pid_of "sleep 86421")" = "$lamp" ] || fail "another process"
[ "$(readlink "/proc/$second/exe")" = /usr/bin/fifogate-agent ] || fail "an old program"
grep -q '^grace = 5' /etc/fifogate/agent.toml || fail "the configuration is another one"
# Programs of one build belong together.
dpkg-query -W -f '${Depends}\n' fifogate-agent | grep -qF 'fifogate (= 1.1)' || fail "dependencies"

# Reloaded: the changed manifest counts beside what operators have made, and both workloads go on.
sed -e 's/lamp/bell/' -e 's/86421/86422/' /tmp/lamp.yaml >/etc/fifogate/manifest.yaml
systemctl reload fifogate-agent.service
until_true grep -q 'manifest.yaml was applied: added: workload bell' /tmp/agent.log
has_bell() { [ -n "$(pid_of "sleep 86422")" ]; }
until_true has_bell
[ "$(cat /tmp/agent.pid)" = "$second" ] || fail "another agent"
[ "$(pid_of "sleep 86421")" = "$lamp" ] || fail "another process after the reload"
fifogate-agent delete workload bell || fail "delete"

# Removed, with what docs/operations.md says before: workloads end.
systemctl stop fifogate-agent.service
FIFOGATE_ON_EXIT=end fifogate-agent run --config /etc/fifogate/agent.toml 2>>/tmp/agent.log &
last=$!
until_true runs
kill "$last"
wait "$last" || fail "the end of the workloads"
[ -z "$(pid_of "sleep 86421")" ] || fail "the workload runs"
dpkg --remove fifogate-agent fifogate || fail "remove"
[ ! -e /usr/bin/fifogate-agent ] || fail "the program is there"
for kept in /etc/fifogate/agent.toml /etc/fifogate/manifest.yaml /var/lib/fifogate-agent; do
    [ -e "$kept" ] || fail "$kept is gone"
done

# Purged: nothing is left.
dpkg --purge fifogate-agent fifogate || fail "purge"
unnoted >/tmp/after
diff /tmp/before /tmp/after || fail "files are left, or gone"
echo "done"

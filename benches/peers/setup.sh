#!/bin/sh
# Installs the peers for `make bench-peers`: other ways to tell an event to many processes. Repeated runs install
# only missing programs. The benchmark names and skips a peer that is still missing.
set -eu

wanted=
command -v mosquitto >/dev/null || wanted="$wanted mosquitto"
command -v dbus-daemon >/dev/null || wanted="$wanted dbus-daemon"
command -v dbus-broker >/dev/null || wanted="$wanted dbus-broker"
command -v nats-server >/dev/null || wanted="$wanted nats-server"
command -v etcd >/dev/null || wanted="$wanted etcd-server"
[ -n "$wanted" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "benches/peers/setup.sh: not measured without:$wanted" >&2
    exit 0
fi
echo "installing$wanted"
apt-get update -qq
# The packages must not start servers: the benchmark starts its own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
# One by one: a system may not have all of them.
for package in $wanted; do
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
        echo "benches/peers/setup.sh: $package cannot be installed" >&2
done

#!/bin/sh
# Installs the peers for `make bench-peers`: other ways to tell an event to many processes. Repeated runs install
# only missing programs. The benchmark names and skips a peer that is still missing.
set -eu
. "$(dirname "$0")/../../tests/packages.sh"

wanted=
command -v mosquitto >/dev/null || wanted="$wanted mosquitto"
command -v dbus-daemon >/dev/null || wanted="$wanted dbus-daemon"
command -v dbus-broker >/dev/null || wanted="$wanted dbus-broker"
command -v nats-server >/dev/null || wanted="$wanted nats-server"
command -v etcd >/dev/null || wanted="$wanted etcd-server"
[ -n "$wanted" ] || exit 0

if ! can_install; then
    echo "benches/peers/setup.sh: not measured without:$wanted" >&2
    exit 0
fi
# One by one: a system may not have all of them.
for package in $wanted; do
    install_packages "$package" || echo "benches/peers/setup.sh: $package cannot be installed" >&2
done

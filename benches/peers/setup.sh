#!/bin/sh
# Installs the peers for `make bench-peers`: other ways to tell an event to many processes. Repeated runs install
# only missing programs. The benchmark names and skips a peer that is still missing.
set -eu
. "$(dirname "$0")/../../tests/packages.sh"

# One by one: a system may not have all of them.
for package in $(package_of mosquitto mosquitto) $(package_of dbus-daemon dbus-daemon) \
    $(package_of dbus-broker dbus-broker) $(package_of nats-server nats-server) $(package_of etcd etcd-server); do
    install_or_skip 'one peer is not measured' "$package" || echo "$0: $package cannot be installed" >&2
done

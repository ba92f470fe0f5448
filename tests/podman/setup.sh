#!/bin/sh
# Installs podman with runc for the tests of containers, and busybox for their image. Repeated runs install
# only missing tools.
set -eu
. "$(dirname "$0")/../packages.sh"

# Word splitting is intended: one word per package.
# shellcheck disable=SC2046
install_or_skip 'the tests of containers are skipped' \
    $(package_of podman podman) $(package_of runc runc) $(package_of busybox busybox-static)

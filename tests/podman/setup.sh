#!/bin/sh
# Installs podman with runc for the tests of containers, and busybox for their image. Repeated runs install
# only missing tools.
set -eu
. "$(dirname "$0")/../packages.sh"

wanted=
command -v podman >/dev/null || wanted="$wanted podman"
command -v runc >/dev/null || wanted="$wanted runc"
command -v busybox >/dev/null || wanted="$wanted busybox-static"
[ -n "$wanted" ] || exit 0

if ! can_install; then
    # The tests of containers say that they are skipped; all others run.
    echo "tests/podman/setup.sh: without$wanted the tests of containers are skipped" >&2
    exit 0
fi
# Word splitting is intended: one word per package.
# shellcheck disable=SC2086
install_packages $wanted

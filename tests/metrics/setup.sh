#!/bin/sh
# Installs promtool for the test of metrics. Repeated runs install nothing.
set -eu
. "$(dirname "$0")/../packages.sh"

command -v promtool >/dev/null && exit 0
if ! can_install; then
    # The test says that this part of it is skipped; all others run.
    echo "tests/metrics/setup.sh: without promtool (Debian package prometheus) it does not check metrics" >&2
    exit 0
fi
install_packages prometheus

#!/bin/sh
# Installs promtool for the test of metrics. Repeated runs install nothing.
set -eu
. "$(dirname "$0")/../packages.sh"

# Word splitting is intended: one word per package.
# shellcheck disable=SC2046
install_or_skip 'metrics are not checked by promtool' $(package_of promtool prometheus)

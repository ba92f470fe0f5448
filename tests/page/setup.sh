#!/bin/sh
# Installs Chromium with its driver for the test of the live page. Repeated runs install only missing tools.
set -eu
. "$(dirname "$0")/../packages.sh"

wanted=
command -v chromium >/dev/null || wanted="$wanted chromium"
command -v chromedriver >/dev/null || wanted="$wanted chromium-driver"
[ -n "$wanted" ] || exit 0

if ! can_install; then
    # The test of the page says that it is skipped; all others run.
    echo "tests/page/setup.sh: without$wanted the test of the live page is skipped" >&2
    exit 0
fi
# Word splitting is intended: one word per package.
# shellcheck disable=SC2086
install_packages $wanted

#!/bin/sh
# Installs Chromium with its driver for the test of the live page. Repeated runs install only missing tools.
set -eu
. "$(dirname "$0")/../packages.sh"

# Word splitting is intended: one word per package.
# shellcheck disable=SC2046
install_or_skip 'the test of the live page is skipped' \
    $(package_of chromium chromium) $(package_of chromedriver chromium-driver)

#!/bin/sh
# Installs cargo-deb into the target folder, unless it is there or in PATH.
set -eu
tools=${CARGO_TARGET_DIR:-$(dirname "$0")/../../target}/tools
PATH=$tools/bin:$PATH
command -v cargo-deb >/dev/null || cargo install cargo-deb --version '^3.8' --locked --debug --quiet --root "$tools"

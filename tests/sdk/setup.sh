#!/bin/sh
# Installs the SDKs for `cargo test --test sdk`: the Python SDK in target/sdk-venv, and a workload with the
# Rust SDK in target/sdk. Repeated runs install only missing parts.
set -eu
cd "$(dirname "$0")/../.."
. tests/packages.sh

requirements=tests/sdk/python/requirements.txt
venv=target/sdk-venv
wanted=

# want PACKAGE COMMAND...: notes PACKAGE for installation unless the command succeeds.
want() {
    package=$1
    shift
    "$@" >/dev/null 2>&1 || wanted="$wanted $package"
}
# A venv gets its pip from ensurepip. Debian packages ensurepip apart from python3.
want "python3 python3-venv" python3 -c 'import ensurepip, venv'
want protobuf-compiler protoc --version
want util-linux unshare --version
want mount mount --version

if [ -n "$wanted" ]; then
    if ! can_install; then
        echo "tests/sdk/setup.sh: please install:$wanted" >&2
        exit 1
    fi
    # Word splitting is intended: one word per package.
    # shellcheck disable=SC2086
    install_packages $wanted
fi

# The copy comes last, so an interrupted installation does not look like a finished one. The import detects
# a venv without its interpreter.
if ! cmp -s "$requirements" "$venv/requirements.txt" ||
    ! "$venv/bin/python" -c 'import ankaios_sdk' 2>/dev/null; then
    echo "installing the Python SDK into $venv"
    python3 -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$venv/requirements.txt"
fi

cargo build --quiet --locked --manifest-path tests/sdk/rust/Cargo.toml --target-dir target/sdk
cargo build --quiet --locked --manifest-path tests/sdk/command/Cargo.toml --target-dir target/sdk

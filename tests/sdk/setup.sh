#!/bin/sh
# Gets what `cargo test --test sdk` needs: the Python SDK in target/sdk-venv, and the workload that
# uses the Rust SDK in target/sdk. Run it as often as you like; it does what is missing.
set -eu
cd "$(dirname "$0")/../.."

requirements=tests/sdk/python/requirements.txt
venv=target/sdk-venv
wanted=

# want PACKAGE COMMAND...: PACKAGE is wanted unless the command succeeds.
want() {
    package=$1
    shift
    "$@" >/dev/null 2>&1 || wanted="$wanted $package"
}
# Debian splits ensurepip, without which there is no pip in a venv, from python3.
want "python3 python3-venv" python3 -c 'import ensurepip, venv'
want protobuf-compiler protoc --version
want util-linux unshare --version
want mount mount --version

if [ -n "$wanted" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "tests/sdk/setup.sh: please install:$wanted" >&2
        exit 1
    fi
    echo "installing$wanted"
    apt-get update -qq
    # Word splitting is meant: one word per package.
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $wanted >/dev/null
fi

# The copy is made last, so an interrupted installation is not taken for a finished one; the import
# finds a venv whose interpreter has gone.
if ! cmp -s "$requirements" "$venv/requirements.txt" ||
    ! "$venv/bin/python" -c 'import ankaios_sdk' 2>/dev/null; then
    echo "installing the Python SDK into $venv"
    python3 -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$venv/requirements.txt"
fi

cargo build --quiet --locked --manifest-path tests/sdk/rust/Cargo.toml --target-dir target/sdk

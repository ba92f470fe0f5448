#!/bin/sh
# Installs the tools for etcd beside Rust. The build of its client needs protoc with its types; the tests need
# etcd, etcdctl, and `ip` for their networks. `setup.sh build` installs only the tools for the build.
# Repeated runs install only missing tools.
set -eu
. "$(dirname "$0")/../packages.sh"

# True if protoc is there and finds its own types. Debian has them in a separate package.
has_protoc() {
    command -v protoc >/dev/null || return 1
    dir=$(mktemp -d)
    printf 'syntax = "proto3"; import "google/protobuf/descriptor.proto";\n' >"$dir/types.proto"
    protoc -I"$dir" --descriptor_set_out=/dev/null "$dir/types.proto" 2>/dev/null && found=0 || found=1
    rm -r "$dir"
    return "$found"
}

wanted=
has_protoc || wanted="$wanted protobuf-compiler libprotobuf-dev"
if [ "${1:-}" != build ]; then
    command -v etcd >/dev/null || wanted="$wanted etcd-server"
    command -v etcdctl >/dev/null || wanted="$wanted etcd-client"
    command -v ip >/dev/null || wanted="$wanted iproute2"
fi
[ -n "$wanted" ] || exit 0

if ! can_install; then
    echo "tests/etcd/setup.sh: please install:$wanted" >&2
    exit 1
fi
# Word splitting is intended: one word per package.
# shellcheck disable=SC2086
install_packages $wanted

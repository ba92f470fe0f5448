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

# The packages that are missing for the build, and without `build` for the tests.
missing() {
    has_protoc || echo protobuf-compiler libprotobuf-dev
    [ "${1:-}" != build ] || return 0
    package_of etcd etcd-server
    package_of etcdctl etcd-client
    package_of ip iproute2
}

# Word splitting is intended: one word per package.
# shellcheck disable=SC2046
set -- $(missing "$@")
[ $# -gt 0 ] || exit 0
if ! can_install; then
    echo "$0: please install: $*" >&2
    exit 1
fi
install_packages "$@"

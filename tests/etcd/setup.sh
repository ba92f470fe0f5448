#!/bin/sh
# Gets what etcd wants beside Rust: protoc and the types that come with it, which build its client; and
# for the tests etcd itself, etcdctl and `ip`, which makes networks. `setup.sh build` gets only the first.
# Run it as often as you like; it does what is missing.
set -eu

# Whether protoc is there and finds its own types, which Debian has in a package of their own.
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

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "tests/etcd/setup.sh: please install:$wanted" >&2
    exit 1
fi
echo "installing$wanted"
apt-get update -qq
# A server of the package's own is not wanted: the tests start theirs.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
# Word splitting is meant: one word per package.
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $wanted >/dev/null

#!/bin/sh
# Gets what etcd wants beside Rust: protoc, which builds its client; and for the tests etcd itself,
# etcdctl and `ip`, which makes networks. `setup.sh build` gets only the first.
# Run it as often as you like; it does what is missing.
set -eu

wanted=
command -v protoc >/dev/null || wanted="$wanted protobuf-compiler"
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

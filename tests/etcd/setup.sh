#!/bin/sh
# Gets what the tests of many nodes need: etcd, `ip` to make networks, and protoc to build its client.
# Run it as often as you like; it does what is missing.
set -eu

wanted=
command -v etcd >/dev/null || wanted="$wanted etcd-server"
command -v ip >/dev/null || wanted="$wanted iproute2"
command -v protoc >/dev/null || wanted="$wanted protobuf-compiler"
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

# Sourced by the scripts that install tools from Debian, as `. "$(dirname "$0")/../packages.sh"`.

# Whether packages can be installed here.
can_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null
}

# Installs these packages; no server is started by that, as tests and benchmarks start their own.
install_packages() {
    echo "installing $*"
    apt-get update -qq
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

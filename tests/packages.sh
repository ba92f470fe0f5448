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

# The package of a tool, unless the tool is there.
package_of() {
    command -v "$1" >/dev/null || echo "$2"
}

# Installs these packages, if there are any. Where that is not possible, says which tests are skipped: they
# say so themselves, and all others run.
install_or_skip() {
    skipped=$1
    shift
    [ $# -gt 0 ] || return 0
    if can_install; then
        install_packages "$@"
    else
        echo "$0: without $* $skipped" >&2
    fi
}

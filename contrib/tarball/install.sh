#!/bin/sh
# Installs all files beside this script: PREFIX=/usr/local DESTDIR= SYSCONFDIR=/etc ./install.sh [uninstall]
# Configuration that is there already stays, also when the rest is removed.
set -eu
tree=$(cd "$(dirname "$0")" && pwd)
prefix=${PREFIX:-/usr/local} config=${SYSCONFDIR:-/etc}
to=${DESTDIR-}$prefix

cd "$tree"
files=$(find bin lib share -type f)
case ${1:-install} in
install)
    for file in $files; do
        mkdir -p "$to/$(dirname "$file")"
        mode=644
        case $file in
        bin/*) mode=755 ;;
        esac
        install -m "$mode" "$file" "$to/$file"
    done
    for unit in lib/systemd/system/*; do
        sed -i "s|=/usr/bin/|=$prefix/bin/|; s|/etc/fifogate/|$config/fifogate/|g" "$to/$unit"
    done
    mkdir -p "${DESTDIR-}$config/fifogate"
    for file in etc/fifogate/*; do
        own=${DESTDIR-}$config/fifogate/${file##*/}
        [ -e "$own" ] || install -m 644 "$file" "$own"
    done
    ;;
uninstall)
    for file in $files; do
        rm -f "$to/$file"
    done
    rmdir "$to/share/fifogate/proto" "$to/share/fifogate" "$to/share/doc/fifogate/docs/tutorials" \
        "$to/share/doc/fifogate/docs" "$to/share/doc/fifogate" 2>/dev/null || true
    ;;
*)
    sed -n 2p "$0" >&2
    exit 2
    ;;
esac

#!/bin/sh
# Makes the packages fifogate and fifogate-agent of built programs: build.sh PROFILE OUTPUT [VERSION]
# The programs are those of the target folder, and make their manual pages and completions.
set -eu
cd "$(dirname "$0")/../.."
profile=$1 output=$2 version=${3-}
target=${CARGO_TARGET_DIR:-$PWD/target}
PATH=$target/tools/bin:$PATH

contrib/debian/cargo-deb.sh

# cargo-deb finds what is made, beside what is built.
made=$target/$profile/package
rm -rf "$made"
mkdir -p "$made" "$output"
for name in fifogate fifogate-agent; do
    program=$target/$profile/$name
    "$program" man | gzip -9n >"$made/$name.1.gz"
    "$program" completions bash >"$made/$name"
    "$program" completions fish >"$made/$name.fish"
    "$program" completions zsh >"$made/_$name"
done
# A debug build is for tests, and soon made.
fast= compression=-Zxz
[ "$profile" = debug ] && profile=dev fast=--fast compression='-Zgzip -z1'

rm -f "$output"/fifogate_*.deb "$output"/fifogate-agent_*.deb
for package in fifogate fifogate-agent; do
    # Release builds are stripped already.
    cargo deb --quiet --package "$package" --profile "$profile" --no-build --no-strip --output "$output/" \
        $fast ${version:+--deb-version "$version"}
done

# Programs of one build belong together, and cargo-deb has no name for its own version among dependencies.
cd "$output"
agent=$(echo fifogate-agent_*.deb)
own=$(dpkg-deb --field "$agent" Version)
rm -rf unpacked
dpkg-deb --raw-extract "$agent" unpacked
sed -i "s/^\(Depends:.*\)fifogate (= [^)]*)/\1fifogate (= $own)/" unpacked/DEBIAN/control
# Word splitting is intended: one word per option.
# shellcheck disable=SC2086
dpkg-deb --root-owner-group $compression --build unpacked "$agent" >/dev/null
rm -r unpacked

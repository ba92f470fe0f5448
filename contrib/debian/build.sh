#!/bin/sh
# Makes the packages fifogate and fifogate-agent of built programs: build.sh PROFILE OUTPUT [VERSION]
# Their manual pages and completions are in the target folder (make man completions).
set -eu
cd "$(dirname "$0")/../.."
profile=$1 output=$2 version=${3-}
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
tools=$target/tools
PATH=$tools/bin:$PATH

if ! command -v cargo-deb >/dev/null; then
    cargo install cargo-deb --version '^3.8' --locked --quiet --root "$tools"
fi

# cargo-deb finds what is made, beside what is built.
made=$target/$profile/package
rm -rf "$made"
mkdir -p "$made" "$output"
cp "$target"/fifogate.1 "$target"/fifogate-agent.1 "$target"/completions/* "$made"
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

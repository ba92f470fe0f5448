#!/bin/sh
# Makes an archive for any distribution: build.sh OUTPUT. Static, if this machine can build for musl (`rustup target
# add x86_64-unknown-linux-musl`, and musl-gcc), or else for the C library here; it says which one is needed.
set -eu
cd "$(dirname "$0")/../.."
output=$1
target=${CARGO_TARGET_DIR:-$PWD/target}

host=$(rustc -vV | sed -n 's/^host: //p')
musl=${host%%-*}-unknown-linux-musl
if [ -d "$(rustc --print target-libdir --target "$musl")" ] && command -v musl-gcc >/dev/null; then
    # ring has parts in C.
    export "CC_$(echo "$musl" | tr - _)=musl-gcc"
    cargo build --release --quiet --workspace --bins --target "$musl"
    built=$target/$musl/release name=$musl needs="nothing else: they are static"
else
    cargo build --release --quiet --workspace --bins
    built=$target/release name=$host
    library=$(for program in fifogate fifogate-agent; do grep -ao 'GLIBC_2\.[0-9]*' "$built/$program"; done |
        sort -uV | tail -n 1)
    needs="$library or newer"
fi
version=$("$built/fifogate" --version | cut -d ' ' -f 2)
own=fifogate-$version-$name
contrib/tarball/tree.sh "$built" "$output/$own"
printf 'The programs need Linux, and %s. ./install.sh installs them below /usr/local, or PREFIX.\n' "$needs" \
    >"$output/$own/INSTALL"
tar --create --xz --sort=name --owner=0 --group=0 --numeric-owner --directory "$output" \
    --file "$output/$own.tar.xz" "$own"
rm -r "${output:?}/$own"
echo "$output/$own.tar.xz needs Linux, and $needs"

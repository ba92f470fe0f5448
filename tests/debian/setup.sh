#!/bin/sh
# Makes the root of a minimal Debian, for the test of the packages, from the mirror that this machine uses:
# target/debian-root.tar. Repeated runs keep it.
set -eu
here=$(dirname "$0")
. "$here/../packages.sh"
target=${CARGO_TARGET_DIR:-$here/../../target}
root=$target/debian-root.tar
new=$target/debian-root.new.tar

if ! can_install; then
    # The test says that it is skipped; all others run.
    echo "tests/debian/setup.sh: without root and apt the test of the packages is skipped" >&2
    exit 0
fi
# Word splitting is intended: one word per package.
# shellcheck disable=SC2046
install_or_skip 'the test of the packages is skipped' \
    $(package_of mmdebstrap mmdebstrap) $(package_of dpkg-shlibdeps dpkg-dev)

"$here/../../contrib/debian/cargo-deb.sh"
[ ! -e "$root" ] || exit 0

# As this machine has it, with its mirror; other sources have packages of others.
. /etc/os-release
mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' |
    awk -v release="$VERSION_CODENAME" '$2 == release && $3 == "main" { print $1; exit }')
mkdir -p "$target"
echo "making the root of a minimal Debian $VERSION_CODENAME"
mmdebstrap --quiet --variant=minbase --components=main "$VERSION_CODENAME" "$new" "$mirror" ||
    { echo "tests/debian/setup.sh: cannot make it, so the test of the packages is skipped" >&2; exit 0; }
mv "$new" "$root"

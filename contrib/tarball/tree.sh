#!/bin/sh
# Makes the tree of files to install, of the programs in a folder: tree.sh FOLDER TREE
set -eu
cd "$(dirname "$0")/../.."
built=$1 tree=$2

rm -rf "$tree"
put() {
    mode=$1 folder=$tree/$2
    shift 2
    mkdir -p "$folder"
    install -m "$mode" "$@" "$folder"
}
put 755 bin "$built/fifogate" "$built/fifogate-agent"
share=$tree/share
mkdir -p "$share/man/man1" "$share/bash-completion/completions" "$share/zsh/site-functions" \
    "$share/fish/vendor_completions.d"
for name in fifogate fifogate-agent; do
    program=$built/$name
    "$program" man >"$share/man/man1/$name.1"
    "$program" completions bash >"$share/bash-completion/completions/$name"
    "$program" completions zsh >"$share/zsh/site-functions/_$name"
    "$program" completions fish >"$share/fish/vendor_completions.d/$name.fish"
done
put 644 share/fifogate/proto proto/*.proto
put 644 share/doc/fifogate README.md ARCHITECTURE.md SECURITY.md CHANGELOG.md LICENSE
put 644 share/doc/fifogate/docs docs/*.md docs/*.svg docs/*.png
put 644 share/doc/fifogate/docs/tutorials docs/tutorials/*.md
put 644 lib/systemd/system contrib/fifogate.service contrib/fifogate-agent.service
put 644 etc/fifogate contrib/agent.toml contrib/manifest.yaml
put 755 . contrib/tarball/install.sh

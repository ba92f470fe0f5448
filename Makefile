# `make` alone lists what can be made.

CARGO ?= cargo
TARGET ?= $(or $(CARGO_TARGET_DIR),target)
SEEDS ?= 2000
SECONDS_EACH ?= 60
SCHEDULES ?= 1000
CLUSTER_SCHEDULES ?= 100
SEED ?= 1
SEARCH_SECONDS ?= 600
SEARCH_STATE ?= 4000000
NESTING_CASES ?= 2000
PREFIX ?= /usr/local
DESTDIR ?=

.PHONY: help
help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# A debug build: from nothing it takes less than half the time of a release build.
.PHONY: demo
demo: protoc  ## processes of one node, what they see of each other, and one that is killed
	$(CARGO) build --workspace
	@timeout --foreground 60 demo/run.sh $(TARGET)/debug

# One summary at the end where cargo-nextest is installed; it knows no doctests.
.PHONY: demo-podman
demo-podman: protoc  ## containers of one node, seen by a dashboard with the Python SDK in one of them; needs podman
	tests/sdk/setup.sh
	$(CARGO) build --workspace
	@timeout --foreground 60 demo/podman.sh $(TARGET)/debug

.PHONY: test
test: setup  ## all tests, with the real SDKs in mount namespaces
	$(CARGO) build --workspace --bins --examples
	$(CARGO) test --workspace --doc
	$(if $(shell $(CARGO) nextest --version 2> /dev/null),\
		$(CARGO) nextest run --workspace --all-targets --no-fail-fast,\
		$(CARGO) test --workspace --all-targets --no-fail-fast)
	$(if $(ANK_BIN_DIR),,@echo 'SKIPPED tests/ankaios: ANK_BIN_DIR is not set, the folder of ank, ank-server and ank-agent')

# Chosen by measured time: no suite here takes more than a few seconds on two idle cores.
FAST_TESTS = cli embed fuzz_seeds layering links nesting shell sim soak vectors

.PHONY: test-fast
test-fast: protoc  ## the half of the tests that takes under a minute when warm, with a short simulation
	$(CARGO) test --workspace --lib
	SEEDS=20 $(CARGO) test --package fifogate $(FAST_TESTS:%=--test %)

# Their folder is ANK_BIN_DIR: nothing of Ankaios is in this repository.
.PHONY: interop interop-figures ank-bin-dir
interop: ank-bin-dir setup  ## our agent beside real programs of Ankaios: make interop ANK_BIN_DIR=FOLDER
	$(CARGO) build --workspace --bins
	ANK_BIN_DIR=$(ANK_BIN_DIR) $(CARGO) test --package fifogate --test ankaios

interop-figures: ank-bin-dir setup  ## the figures of docs/ankaios.md, by the same programs
	$(CARGO) build --workspace --bins
	ANK_BIN_DIR=$(ANK_BIN_DIR) $(CARGO) test --package fifogate --test ankaios -- --ignored --nocapture --test-threads 1

ank-bin-dir:
	$(if $(ANK_BIN_DIR),,$(error ANK_BIN_DIR is not set, the folder of ank, ank-server and ank-agent))

.PHONY: setup
setup:  ## what the tests need beside Rust: SDKs, etcd, podman, promtool, Chromium, a root of Debian (as root it installs their packages)
	tests/sdk/setup.sh
	tests/etcd/setup.sh
	tests/podman/setup.sh
	tests/metrics/setup.sh
	tests/page/setup.sh
	tests/debian/setup.sh

# The client of etcd, which the agent has, is built with it.
.PHONY: protoc
protoc:
	tests/etcd/setup.sh build

.PHONY: check
check: protoc  ## format, lints, documentation, unit tests, layering, links: under a minute when warm
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --no-default-features --lib --example embed_server --example embed_core -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps
	$(CARGO) test --workspace --lib --test layering --test links

# Subcommands of cargo that are not installed are built into the target folder: `$(call tool,NAME@VERSION)`.
TOOLS = $(abspath $(TARGET))/tools
tool = command -v $(firstword $(subst @, ,$(1))) > /dev/null || $(CARGO) install --quiet --locked --debug --root $(TOOLS) $(1)

.PHONY: deny
deny: export PATH := $(TOOLS)/bin:$(PATH)
deny:  ## licences, sources and double versions of dependencies (deny.toml), and advisories where their database is reached
	$(call tool,cargo-deny@0.20.2)
	tests/deny.sh

.PHONY: sbom
sbom: export PATH := $(TOOLS)/bin:$(PATH)
sbom:  ## what is inside of both programs, as CycloneDX, in the target folder
	$(call tool,cargo-cyclonedx@0.5.9)
	$(CARGO) cyclonedx --format json --all-features --override-filename sbom.cdx
	mv sbom.cdx.json $(TARGET)/fifogate.cdx.json
	mv agent/sbom.cdx.json $(TARGET)/fifogate-agent.cdx.json
	rm testkit/sbom.cdx.json

.PHONY: api
api:  ## whether the public API is that of tests/layering/public.txt; WRITE=1: writes it
	$(if $(WRITE),WRITE_PUBLIC_API=1) $(CARGO) test --quiet --test layering public_items

.PHONY: publish-check
publish-check:  ## packages both crates as for crates.io, and builds what is in the packages
	$(CARGO) publish --dry-run --workspace --locked

.PHONY: sim
sim:  ## the seeded simulation: SEEDS=how-many or SEEDS=from..to
	SEEDS=$(SEEDS) $(CARGO) test --release --test sim

.PHONY: soak
soak:  ## killed processes, clusters, rules, nested values, expensive inputs at random: SCHEDULES CLUSTER_SCHEDULES SEEDS NESTING_CASES SEARCH_SECONDS SEED
	SCHEDULES=$(SCHEDULES) SEED=$(SEED) $(CARGO) test --test soak --test torn -- --nocapture whatever
	SCHEDULES=$(CLUSTER_SCHEDULES) SEED=$(SEED) $(CARGO) test -p fifogate-agent --test schedule -- --nocapture
	SEEDS=$(SEEDS) $(CARGO) test --release --test sim
	NESTING_CASES=$(NESTING_CASES) $(CARGO) test --workspace --test nesting
	SEED=$(SEED) CASES=$(NESTING_CASES) $(CARGO) test --package fifogate-agent --test doors
	SEARCH_SECONDS=$(SEARCH_SECONDS) SEARCH_STATE=$(SEARCH_STATE) SEARCH_SEED=$(SEED) \
		$(CARGO) test --test search -- --nocapture --test-threads 1
	SEARCH_SECONDS=$(SEARCH_SECONDS) SEED=$(SEED) $(CARGO) test --release -p fifogate-agent --lib search

.PHONY: soak-podman
soak-podman:  ## 200 operations at random on workloads of all runtimes, while containers, podman and the agent are killed: SEED
	$(CARGO) build --workspace --bins
	SEED=$(SEED) OPERATIONS=200 $(CARGO) test -p fifogate-agent --test podman -- --nocapture random

# Coverage by what the stable compiler can do; for the crate and its dependencies, not for what runs
# while they are built, hence --target. Each folder of seeds is named for its program.
COVERAGE = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares
HOST = $(shell rustc -vV | sed -n 's/^host: //p')

.PHONY: fuzz
fuzz:  ## each fuzz target for SECONDS_EACH=60
	$(if $(wildcard fuzz/seeds/*),,$(error there is no fuzz target: fuzz/seeds/ has no folder))
	set -e; for target in $(notdir $(wildcard fuzz/seeds/*)); do \
		mkdir -p fuzz/corpus/$$target; \
		RUSTFLAGS='$(COVERAGE)' $(CARGO) run --release --manifest-path fuzz/Cargo.toml \
			--target $(HOST) --bin $$target -- fuzz/corpus/$$target fuzz/seeds/$$target \
			-max_total_time=$(SECONDS_EACH); done

.PHONY: fixtures
fixtures:  ## makes the prepared frames anew
	$(CARGO) build --quiet
	fixtures/rebuild.sh $(TARGET)/debug/fifogate

.PHONY: man
man: protoc  ## the manual pages, as fifogate.1 and fifogate-agent.1 in the target folder
	$(CARGO) build --quiet --workspace --bins
	for name in fifogate fifogate-agent; do \
		$(TARGET)/debug/$$name man > $(TARGET)/$$name.1 || exit 1; done

.PHONY: completions
completions: protoc  ## of both programs for bash, fish and zsh, into completions/ in the target folder
	$(CARGO) build --quiet --workspace --bins
	mkdir -p $(TARGET)/completions
	for name in fifogate fifogate-agent; do \
		$(TARGET)/debug/$$name completions bash > $(TARGET)/completions/$$name && \
		$(TARGET)/debug/$$name completions fish > $(TARGET)/completions/$$name.fish && \
		$(TARGET)/debug/$$name completions zsh > $(TARGET)/completions/_$$name || exit 1; done

.PHONY: deb
deb: protoc  ## the packages fifogate and fifogate-agent for Debian, into debian/ in the target folder; needs dpkg-dev
	$(CARGO) build --release --quiet --workspace --bins
	contrib/debian/build.sh release $(TARGET)/debian $(VERSION)
	@ls $(TARGET)/debian/*.deb

.PHONY: size
size:  ## size of the binary, and resident memory with 10 and 1,000 workloads
	$(CARGO) build --release --quiet
	@demo/size.sh $(TARGET)/release/fifogate

.PHONY: bench
bench:  ## fifogate beside the floor under it, in under six minutes; WRITE=1: also docs/benchmarks.md, and the peers
	$(CARGO) bench --quiet --bench gate -- $(if $(WRITE),--write) $(SCENARIOS)
	$(if $(WRITE),$(MAKE) --no-print-directory bench-peers)

# As root, it installs what it needs.
.PHONY: bench-peers
bench-peers:  ## fifogate beside MQTT, D-Bus, NATS and etcd, in under six minutes; WRITE=1: also docs/benchmarks.md
	benches/peers/setup.sh
	$(CARGO) bench --quiet --bench peers -- $(if $(WRITE),--write) $(PEERS)

.PHONY: bench-cluster
bench-cluster: setup  ## an event from node to node through etcd, beside etcd's own put; UNPINNED=1: nodes move
	$(CARGO) build --release --quiet --workspace --bins
	$(CARGO) bench --quiet --package fifogate-agent --bench cluster -- $(if $(UNPINNED),--unpinned)

.PHONY: bench-commanders
bench-commanders: protoc  ## an update to 1,000 commanders beside 1,000 workloads, and their memory
	$(CARGO) build --release --quiet --workspace --bins
	$(CARGO) bench --quiet --package fifogate-agent --bench commanders

.PHONY: bench-containers
bench-containers: setup  ## 100 containers by podman: their start, a minute in which nothing happens, their removal
	$(CARGO) build --release --quiet --workspace --bins
	$(CARGO) bench --quiet --package fifogate-agent --bench containers

.PHONY: bench-quick
bench-quick:  ## whether the benchmark works, in small numbers: no measurement
	$(CARGO) bench --quiet --bench gate -- --quick

# As root, it installs what it needs.
.PHONY: instructions
instructions:  ## instructions of fixed pieces of work, against those before; WRITE=1: notes them
	@command -v valgrind > /dev/null || [ "$$(id -u)" != 0 ] || \
		(apt-get update && apt-get install -y --no-install-recommends valgrind)
	@command -v valgrind > /dev/null || { echo 'valgrind is missing: install it first'; exit 1; }
	$(CARGO) bench --quiet --bench instructions -- $(if $(WRITE),--write)

.PHONY: tarball
tarball: protoc  ## all files for any distribution, with a script that installs them, into tarball/ in the target folder
	mkdir -p $(TARGET)/tarball
	contrib/tarball/build.sh $(TARGET)/tarball

.PHONY: tree install uninstall
tree: protoc
	$(CARGO) build --release --quiet --workspace --bins
	contrib/tarball/tree.sh $(TARGET)/release $(TARGET)/tree

install: tree  ## both programs with all their files to PREFIX=/usr/local, below DESTDIR; their configuration to /etc
	PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' $(TARGET)/tree/install.sh

uninstall: tree  ## removes them, but no configuration and no state
	PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' $(TARGET)/tree/install.sh uninstall

# `make` alone lists what can be made.

CARGO ?= cargo
SEEDS ?= 200
SECONDS_EACH ?= 60

.PHONY: help
help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 16

.PHONY: demo
demo:  ## starts fifogate with three workloads and shows what they see of each other
	$(CARGO) build --quiet
	@demo/run.sh

.PHONY: test
test: setup  ## all tests, with the real SDKs in mount namespaces
	$(CARGO) test --workspace --all-targets
	$(CARGO) test --workspace --doc

.PHONY: setup
setup:  ## what the tests need beside Rust: the SDKs
	tests/sdk/setup.sh

.PHONY: check
check:  ## formatting, lints, documentation, unit tests, layering: quick
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --quiet
	$(CARGO) test --lib --test layering

.PHONY: sim
sim:  ## more of the seeded simulation: SEEDS=how-many or SEEDS=from..to
	SEEDS=$(SEEDS) $(CARGO) test --release --test sim -- --nocapture

.PHONY: fixtures
fixtures:  ## makes the prepared frames anew from their JSON
	$(CARGO) build --quiet
	for json in fixtures/frames/*.json; do \
		target/debug/fifogate encode < $$json > $${json%.json}.bin || exit 1; done

.PHONY: man
man:  ## the manual page, to target/fifogate.1
	$(CARGO) run --quiet -- man > target/fifogate.1

.PHONY: size
size:  ## size of the binary, and resident memory with 10 and 1,000 workloads
	$(CARGO) build --release --quiet
	@demo/size.sh target/release/fifogate

.PHONY: install
install:  ## fifogate to where cargo installs programs
	$(CARGO) install --path . --locked

# Coverage for libFuzzer by flags of the stable compiler.
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
	-Ccodegen-units=1 -Clink-dead-code

.PHONY: fuzz
fuzz: fuzz-frames fuzz-requests  ## each fuzz target for SECONDS_EACH=60 seconds

fuzz-%:
	mkdir -p fuzz/corpus/$*
	RUSTFLAGS='$(FUZZ_FLAGS)' $(CARGO) run --release --manifest-path fuzz/Cargo.toml \
		--target $$(rustc -vV | sed -n 's/host: //p') --bin $* -- \
		fuzz/corpus/$* fuzz/seeds/$* -max_total_time=$(SECONDS_EACH) -print_final_stats=1

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

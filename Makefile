# Every command that we use. `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash

TARGET := x86_64-unknown-linux-gnu
# The programs' profile: `make PROFILE=release …` for what you would ship.
PROFILE ?= dev
PROFILE_DIR := $(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
# HOOKS=armed compiles the fail points and sabotage switches of hooks/ into them: for tests, never to ship.
HOOKS ?=
FEATURES := $(if $(HOOKS),--features invoke-hooks/$(HOOKS))
export INVOKE_BIN_DIR := $(CURDIR)/target/$(PROFILE_DIR)

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

# ---- the two that a new user needs ----

.PHONY: demo demo-down demo-env
demo: ## A private cluster behind a wall, the whole system, one command through it (root)
	@tests/testbed/demo up

demo-down: ## Remove everything that `make demo` started, and only that
	@tests/testbed/demo down

demo-env: ## Print what makes `invoke …` work in your shell: eval "$(make -s demo-env)"
	@tests/testbed/demo env

.PHONY: test test-long
test: ## All checks and all tests on real parts, which it starts and stops (root)
	@tests/run

test-long: ## The tests that take many minutes, such as a connection that idles for ten
	@tests/run --long

.PHONY: faults chaos
faults: ## Every row of the matrix of faults, with its negative control; writes docs/faults.md (root, well over an hour)
	@tests/run --faults

MINUTES ?= 10
SEED ?= 1
chaos: ## A storm of random faults: make chaos MINUTES=10 SEED="1 2" (root); the same seed is the same storm
	@tests/run --chaos $(MINUTES) $(SEED)

.PHONY: bench
bench: ## How fast it is, beside what others need for the like; writes docs/bench.md (root, a quiet machine)
	@tests/run --bench

# ---- parts ----

.PHONY: build shim images
build: shim ## The programs, and the shim as a static binary
	@cargo build --workspace --locked --profile $(PROFILE) $(FEATURES)

# Always with --release: it is copied into every job pod. An explicit target keeps the static
# flags away from build scripts and procedural macros, which must stay dynamic.
shim: ## Only the shim
	@RUSTFLAGS='-C target-feature=+crt-static' \
	  cargo build --package invoke-shim --locked --release --target $(TARGET) $(FEATURES)

images: build ## The job's and the runner's image, as OCI archives in target/images
	@deploy/images/build --shim target/$(TARGET)/release/invoke-shim --runner $(INVOKE_BIN_DIR)/invoke-runner

.PHONY: fmt lint doc snapshots
fmt: ## Format the Rust code
	@cargo fmt --all

lint: one-crypto ## rustfmt, clippy and shellcheck, warnings denied
	@cargo fmt --all -- --check
	@cargo clippy --workspace --all-targets --locked -- -D warnings
	@shellcheck -x tests/run tests/testbed/testbed tests/testbed/demo tests/testbed/lib/*.sh deploy/images/build deploy/images/debian-root .ci/run

# One provider of TLS and cryptography, aws-lc-rs, in everything that we ship: a second one is a second
# thing to patch at night, and is pulled in by a single careless feature.
.PHONY: one-crypto
one-crypto:
	@found=$$(cargo tree --workspace --locked --edges normal,build --prefix none \
	  | grep -E '^(ring|openssl|openssl-sys|native-tls|rsa) ' | sort -u); \
	if [ -n "$$found" ]; then echo "a second crypto provider is in the tree:"; echo "$$found"; exit 1; fi

doc: ## The crates' documentation
	@RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked

snapshots: ## Accept what the snapshot tests see now; then read the diff
	@INSTA_UPDATE=always tests/run

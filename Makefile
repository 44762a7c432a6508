# Every task a person runs. `make help` lists them.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS   += --no-builtin-rules

CARGO   ?= cargo
DESTDIR ?=
BINDIR  ?= /opt/cni/bin
SBINDIR ?= /usr/local/sbin
UNITDIR ?= /etc/systemd/system
BIN     := bin
# One of the plugins that are wanted (PLUGINS='bridge host-local'; all, if it is not given).
FIRST   := $(firstword $(PLUGINS) bridge)

.DEFAULT_GOAL := build
.PHONY: bench bench-instructions build overlayd overlayd-etcd install-overlayd demo demo-overlay bench-overlay test test-uml survival fuzz e2e e2e-kubelet install uninstall lint fmt doc conformance conformance-proof clean help

build: ## Build every plugin, release, static, into bin/
	@tools/build $(BIN)

overlayd: ## Build the node agent of overlay networks into bin/, with etcd where protoc is there
	@tools/build-overlayd $(BIN)

overlayd-etcd: ## The same; installs protoc, or fails saying what is missing
	@tools/build-overlayd --etcd $(BIN)

demo: $(if $(CNI_BIN),,build) ## The main job on real input: two containers, a bridge, a published port. No root, nothing left behind
	@demo/run

demo-overlay: $(if $(CNI_BIN),,build overlayd) ## One network over three hosts: containers, a crash, a renumbering. No root, nothing left behind
	@demo/run-overlay

bench: $(if $(CNI_BIN),,build) ## Speed against the Go suite and against the kernel's own part, with targets. SHORT=1: a minute; OPTIONS='--explain …'
	@tools/bench '$(or $(CNI_BIN),$(BIN))' $(if $(SHORT),--short) $(if $(ONLY),--only '$(ONLY)') $(OPTIONS)

bench-instructions: ## Instructions of the pure parts (callgrind), against crates/bench/instructions.tsv. OPTIONS=--write writes that
	@tools/bench-instructions $(OPTIONS)

bench-overlay: overlayd ## What an overlay of 5,000 nodes costs one of them (NODES=…), and a tunnel against plain routes
	@tools/bench-overlay $(BIN) $(NODES)

test: ## Everything that needs a Rust toolchain and a kernel. Installs or names what is missing
	@tools/test

test-uml: ## What takes another kernel (VLANs of bridges), or two (an overlay between them): User Mode Linux (Debian package)
	@tools/test-uml

survival: $(if $(CNI_BIN),,build) ## Kills and errors at every system call, storms, churn, damage. SHORT=1: two minutes; WRITE=1: docs/survival.md
	@tools/survival '$(or $(CNI_BIN),$(BIN))' $(if $(SHORT),--short) $(if $(WRITE),--write docs/survival.md) $(OPTIONS)

fuzz: ## Fuzz targets of what others write, 30 minutes each. SHORT=1: some seconds; SECONDS=…; ONLY='TARGET…'
	@tools/fuzz $(if $(SHORT),--short) $(if $(SECONDS),--seconds $(SECONDS)) $(ONLY)

e2e: build ## Real runtimes: podman, containerd, cnitool (Debian packages, as root)
	@e2e/run

e2e-kubelet: build ## A real kubelet with containerd (builds the kubelet once, minutes)
	@e2e/run kubelet

conformance: $(if $(CNI_BIN),,build) ## Plugins against the specification, item by item: ours, or CNI_BIN=DIR. Report in target/conformance
	@tools/conformance '$(or $(CNI_BIN),$(BIN))' $(OPTIONS)

conformance-proof: $(if $(CNI_BIN),,build) ## The proof of the conformance harness: does each check notice a plugin that is wrong on purpose?
	@$(CARGO) run --quiet --package conformance -- prove --bin '$(or $(CNI_BIN),$(BIN))' \
	    $(if $(ONLY),--only '$(ONLY)') $(if $(WRITE),--write)

install: | $(BIN)/$(if $(MULTICALL),ferrule,$(FIRST)) ## Install the plugins into $(DESTDIR)$(BINDIR), each replaced in one step. MULTICALL=1: one file by their names
	@tools/install-plugins $(if $(MULTICALL),--multicall) $(BIN) '$(DESTDIR)$(BINDIR)'

# So that `make && sudo make install` needs no cargo as root: what is built already is installed as it is.
$(BIN)/$(FIRST) $(BIN)/ferrule:
	@tools/build $(BIN)

install-overlayd: | $(BIN)/overlayd ## Install the node agent into $(DESTDIR)$(SBINDIR), and its systemd unit
	install -D -m 0755 $(BIN)/overlayd '$(DESTDIR)$(SBINDIR)/overlayd'
	install -D -m 0644 crates/overlayd/overlayd@.service '$(DESTDIR)$(UNITDIR)/overlayd@.service'
	sed -i 's,^ExecStart=[^ ]*,ExecStart=$(SBINDIR)/overlayd,' '$(DESTDIR)$(UNITDIR)/overlayd@.service'

$(BIN)/overlayd:
	@tools/build-overlayd $(BIN)

uninstall: ## Remove the plugins from $(DESTDIR)$(BINDIR)
	@tools/install-plugins --remove $(BIN) '$(DESTDIR)$(BINDIR)'

lint: ## Formatting, and clippy with warnings as errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

fmt: ## Format the sources
	$(CARGO) fmt --all

doc: ## The API documentation, into target/doc
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps

clean: ## Remove what was built
	$(CARGO) clean
	rm -rf $(BIN)

help: ## This list
	@sed -nE 's/^([a-z0-9-]+):[^#]*## (.*)/\1|\2/p' Makefile | while IFS='|' read -r target text; do \
	    printf '  make %-18s %s\n' "$$target" "$$text"; done

# Tools and plugins that only exist as Go modules, built once into the cache. They are built before become_host, which
# takes the network away; without Go they are missing, and what needs them is skipped.
# shellcheck shell=bash

CNITOOL_VERSION=v1.3.0
REFERENCE_VERSION=v1.9.1

# Why a Go program is missing.
NO_GO="it is built with Go, which is not installed"

# Prints the path of libcni's cnitool, or nothing.
cnitool_program() {
    local dir=$CACHE_DIR/cnitool-$CNITOOL_VERSION
    go_install "$dir" "github.com/containernetworking/cni/cnitool@$CNITOOL_VERSION" && echo "$dir/cnitool"
}

# Prints the directory of the newest Go plugins, or nothing.
reference_plugins() {
    local dir=$CACHE_DIR/plugins-$REFERENCE_VERSION packages=() plugin
    for plugin in main/bridge main/loopback ipam/host-local meta/portmap meta/firewall meta/tuning; do
        packages+=("github.com/containernetworking/plugins/plugins/$plugin@$REFERENCE_VERSION")
    done
    go_install "$dir" "${packages[@]}" && echo "$dir"
}

# go_install DIR PACKAGE...: installs packages into DIR, all or nothing.
go_install() {
    local dir=$1
    shift
    [[ ! -d $dir ]] || return 0
    [[ ! ${E2E_INSIDE:-} ]] && command -v go >/dev/null || return 1
    mkdir -p "$CACHE_DIR"
    GOBIN=$dir.$$ CGO_ENABLED=0 timeout 600 go install -trimpath "$@" >&2 && mv -T "$dir.$$" "$dir"
}

# The library of the end-to-end tests. A test script sources it and calls become_host first.
#
#   lib/host.sh       become_host: the rest of the script runs in a host made of namespaces
#   lib/check.sh      check, is, fails, skip, known: say what a user notices, and count it
#   lib/snapshot.sh   snapshot, same_host: what a host looks like, and the proof that nothing was left on it
#   lib/container.sh  a root file system and an image for containers, and clients for the servers in them
#   lib/cni.sh        a runtime of a few lines, for what no packaged runtime does
#   lib/go.sh         tools and plugins that only exist as Go modules, built once into a cache
#   lib/containerd.sh a containerd of the test's own, and a client for its Container Runtime Interface
#
# Every script prints "ok N - ...", "not ok N - ..." or "skip N - ...", and closes with one line of counts.
# shellcheck shell=bash

set -uo pipefail

E2E_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO_DIR=$(dirname "$E2E_DIR")
TEST_NAME=$(basename "$0" .sh)
CACHE_DIR=${FERRULE_CACHE:-$HOME/.cache/ferrule}
# The directory of plugins under test.
CNI_BIN=${CNI_BIN:-$REPO_DIR/bin}
# REFERENCE=1: CNI_BIN holds the Go suite, and what it is known not to do is listed, not failed.
REFERENCE=${REFERENCE:-}
# Seconds a script may take altogether, and seconds it waits for one thing to happen.
E2E_TIMEOUT=${E2E_TIMEOUT:-300}
PATIENCE=${PATIENCE:-20}

for part in host check snapshot container cni go containerd; do
    # shellcheck source=/dev/null
    . "$E2E_DIR/lib/$part.sh"
done
unset part

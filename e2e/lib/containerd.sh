# A containerd of the test's own, and a client for its Container Runtime Interface.
# shellcheck shell=bash

CONTAINERD_SOCKET=

# start_containerd: starts it with its files below $WORK, and waits until it answers. Pods get the pause image made here,
# whose program is the server: `pause`, on TCP and UDP port 8080.
start_containerd() {
    local dir=$WORK/containerd
    CONTAINERD_SOCKET=$dir/containerd.sock
    mkdir -p "$dir"
    # restrict_oom_score_adj: without CAP_SYS_RESOURCE the kernel refuses the score that pods are given.
    cat >"$dir/config.toml" <<END
version = 2
root = "$dir/root"
state = "$dir/state"
[grpc]
  address = "$CONTAINERD_SOCKET"
[plugins."io.containerd.internal.v1.opt"]
  path = "$dir/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:test"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$CNI_BIN"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
END
    containerd --config "$dir/config.toml" >"$dir/log" 2>&1 &
    within ctr version >/dev/null
    image localhost/pause:test "$dir/pause.tar" '["/bin/answer"]' '["pause", "8080"]'
    ctr -n k8s.io images import --snapshotter native "$dir/pause.tar" >/dev/null
}

ctr() {
    timeout 60 ctr --address "$CONTAINERD_SOCKET" "$@"
}

# cri METHOD REQUEST: calls the CRI with a request in protobuf's text format, and prints the answer in the same format.
# The frame around a gRPC message is a zero byte (not compressed) and its length in four bytes.
cri() {
    local method=$1 request=$2 dir status
    dir=$(mktemp -d "$WORK/cri.XXXXXX")
    protoc_cri --encode="runtime.v1.${method}Request" <<<"$request" >"$dir/message" || return
    {
        printf '\0'
        printf "\\x$(printf '%08x' "$(stat -c %s "$dir/message")" | sed 's/../&\\x/g; s/\\x$//')"
        cat "$dir/message"
    } >"$dir/request"
    curl --silent --show-error --max-time 60 --http2-prior-knowledge --unix-socket "$CONTAINERD_SOCKET" \
        --header 'content-type: application/grpc' --header 'te: trailers' --data-binary "@$dir/request" \
        --dump-header "$dir/headers" --output "$dir/response" "http://localhost/runtime.v1.RuntimeService/$method" || return
    status=$(tr -d '\r' <"$dir/headers" | sed -n 's/^grpc-status: //p')
    if [[ $status != 0 ]]; then
        tr -d '\r' <"$dir/headers" | sed -n 's/^grpc-message: //p'
        return 1
    fi
    tail -c +6 "$dir/response" | protoc_cri --decode="runtime.v1.${method}Response"
}

protoc_cri() {
    protoc --proto_path="$E2E_DIR" "$1" cri.proto
}

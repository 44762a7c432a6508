# Root file systems and images made of static programs, so that no image registry is needed, and clients for the
# servers that run in them.
# shellcheck shell=bash

# Prints the path of the server of answer.rs, compiled when the source or the compiler is new.
build_answer() {
    local source=$E2E_DIR/answer.rs program
    program=$CACHE_DIR/answer-$(cat "$source" <(rustc --version) | sha256sum | cut -c1-16)
    if [[ ! -x $program ]]; then
        mkdir -p "$CACHE_DIR"
        rustc --edition 2024 -O -C target-feature=+crt-static -C strip=symbols "$source" -o "$program.$$" >&2 || return
        mv "$program.$$" "$program"
    fi
    echo "$program"
}

# rootfs DIR: fills DIR with a root file system: busybox and the server.
rootfs() {
    mkdir -p "$1"/{bin,dev,etc,proc,sys,tmp,run}
    cp "$(command -v busybox)" "$1/bin/busybox"
    busybox --list | while read -r applet; do
        [[ -e $1/bin/$applet ]] || ln -s busybox "$1/bin/$applet"
    done
    cp "$E2E_ANSWER" "$1/bin/answer"
    echo root:x:0:0:root:/:/bin/sh >"$1/etc/passwd"
    echo root:x:0: >"$1/etc/group"
}

# image NAME ARCHIVE ENTRYPOINT_JSON CMD_JSON: writes a docker archive of one layer with that root file system.
image() {
    local name=$1 archive=$2 entrypoint=$3 cmd=$4 dir=$WORK/image layer
    rm -rf "$dir"
    rootfs "$dir/rootfs"
    tar -C "$dir/rootfs" -cf "$dir/layer.tar" .
    layer=$(sha256sum <"$dir/layer.tar" | cut -d' ' -f1)
    jq -n --arg layer "sha256:$layer" --arg architecture "$(dpkg --print-architecture)" \
        --argjson entrypoint "$entrypoint" --argjson cmd "$cmd" '{
            $architecture, os: "linux",
            config: {Entrypoint: $entrypoint, Cmd: $cmd, Env: ["PATH=/bin"]},
            rootfs: {type: "layers", diff_ids: [$layer]}
        }' >"$dir/config.json"
    jq -n --arg name "$name" '[{Config: "config.json", RepoTags: [$name], Layers: ["layer.tar"]}]' >"$dir/manifest.json"
    tar -C "$dir" -cf "$archive" manifest.json config.json layer.tar
    rm -rf "$dir"
}

# ask_tcp ADDRESS PORT: prints what the server there answers, and fails when nothing does.
ask_tcp() {
    answered nsenter --net="$PLACE" timeout 5 nc -N -w 3 "$1" "$2" </dev/null
}

# ask_udp ADDRESS PORT [OPTION...]: the same with a datagram; it leaves after the first answer.
ask_udp() {
    answered nsenter --net="$PLACE" timeout 5 nc -u -W 1 -w 2 "${@:3}" "$1" "$2" <<<hello
}

# Fails where a client "succeeds" without a word from the server.
answered() {
    local answer
    answer=$("$@") || true
    [[ $answer ]] && echo "$answer"
}

# said WHO ask_...: succeeds when the answer comes from the server of that name.
said() {
    local answer
    answer=$("${@:2}") || return
    echo "$answer"
    [[ $answer == "$1 saw "* ]]
}

# at PLACE ask_...: asks from another network namespace, by name or by a process in it.
PLACE=/proc/self/ns/net
at() {
    local PLACE=/run/netns/$1
    [[ -e $PLACE ]] || PLACE=/proc/$1/ns/net
    "${@:2}"
}

# The names in the output of "ip -o link", in one line.
link_names() {
    sed -E 's/^[0-9]+: ([^:@]+).*/\1/' | sort | paste -sd' '
}

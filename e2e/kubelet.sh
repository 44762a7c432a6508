#!/usr/bin/env bash
# A real kubelet with containerd: static pods with host ports run, are reached, are restarted, and go.
. "$(dirname "$0")/lib.sh"
E2E_TIMEOUT=600
KUBELET=$("$E2E_DIR/kubelet-build") || true
become_host "$@"
if [[ ! $KUBELET ]]; then
    skip "the kubelet" "$NO_GO"
    exit
fi

PATIENCE=60
MANIFESTS=$WORK/manifests
mkdir "$MANIFESTS" "$WORK/kubelet"
cp "$REPO_DIR/testdata/net.d/20-apps.conflist" /etc/cni/net.d/
outside "$E2E_ANSWER" world 7000 &

# The kubelet wants some sysctls of the whole machine to have certain values. Here it finds them so, in files of our
# own, and with protectKernelDefaults it would rather end than write one.
pretend_sysctl() {
    mkdir -p "$WORK/sysctl"
    echo "$2" >"$WORK/sysctl/${1//\//.}"
    mount --bind "$WORK/sysctl/${1//\//.}" "/proc/sys/$1"
}
pretend_sysctl vm/overcommit_memory 1
pretend_sysctl vm/panic_on_oom 0
pretend_sysctl kernel/panic 10
pretend_sysctl kernel/panic_on_oops 1
pretend_sysctl kernel/keys/root_maxkeys 1000000
pretend_sysctl kernel/keys/root_maxbytes 25000000

start_containerd
image localhost/web:test "$WORK/web.tar" '["/bin/answer"]' '["web", "80"]'
ctr -n k8s.io images import --snapshotter native "$WORK/web.tar" >/dev/null

cat >"$WORK/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: { anonymous: { enabled: true }, webhook: { enabled: false } }
authorization: { mode: AlwaysAllow }
cgroupDriver: cgroupfs
cgroupsPerQOS: false
containerRuntimeEndpoint: "unix://$CONTAINERD_SOCKET"
enforceNodeAllocatable: []
evictionHard: { memory.available: "1Mi", nodefs.available: "1%", nodefs.inodesFree: "1%", imagefs.available: "1%" }
failCgroupV1: false
failSwapOn: false
fileCheckFrequency: 1s
localStorageCapacityIsolation: false
protectKernelDefaults: true
readOnlyPort: 10255
resolvConf: ""
staticPodPath: "$MANIFESTS"
END
"$KUBELET" --config "$WORK/kubelet.yaml" --root-dir "$WORK/kubelet" --hostname-override e2e-host \
    --node-ip 198.51.100.10 >"$WORK/kubelet.log" 2>&1 &
KUBELET_PID=$!

tear_down() {
    if ((FAILED)); then grep -E '^[EF]' "$WORK/kubelet.log" | tail -n 15 | sed 's/^/# kubelet: /'; fi
}

# Its own chains are part of the host before the first pod.
kubelet_is_ready() {
    kill -0 "$KUBELET_PID" && curl -sf --max-time 5 http://127.0.0.1:10248/healthz &&
        nft list chain ip mangle KUBE-KUBELET-CANARY
}

# pods FILTER: what the kubelet says of its pods.
pods() {
    curl -sf --max-time 5 http://127.0.0.1:10255/pods | jq -re "$1"
}

# pod NAME PORTS: a manifest.
pod() {
    cat >"$MANIFESTS/$1.yaml" <<END
apiVersion: v1
kind: Pod
metadata: { name: $1, namespace: default }
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: $1
      image: localhost/web:test
      imagePullPolicy: Never
      args: [$1, "80"]
      ports: $2
END
}

# The pause process in the same network namespace as a container's process.
pause_of() {
    local pause
    for pause in $(pgrep -xf '/bin/answer pause 8080'); do
        if [[ /proc/$pause/ns/net -ef /proc/$1/ns/net ]]; then echo "$pause"; fi
    done
}

web() {
    pods ".items[] | select(.metadata.name == \"web-e2e-host\") | $1"
}

check "the kubelet runs" within kubelet_is_ready
snapshot "$WORK/before"

pod web '[{ containerPort: 80, hostPort: 8080 }, { containerPort: 80, hostPort: 8080, protocol: UDP },
                { containerPort: 80, hostPort: 8081, hostIP: 127.0.0.1 }]'
check "a static pod runs" within web 'select(.status.phase == "Running")'
IP=$(within web '.status.podIPs[0].ip')
IP6=$(web '.status.podIPs[1].ip')
is "the pod has an address of the network" 10.91.0. sed 's/[0-9]*$//' <<<"$IP"
check "the pod is reached by its address" within said web ask_tcp "$IP" 80
check "the pod is reached by its IPv6 address" within said web ask_tcp "$IP6" 80
check "the pod's TCP host port answers on the host's address" said web ask_tcp 198.51.100.10 8080
check "the pod's TCP host port answers on 127.0.0.1" said web ask_tcp 127.0.0.1 8080
check "the pod's UDP host port answers on the host's address" said web ask_udp 198.51.100.10 8080
is "another machine reaches the host port, and is seen by its own address" "web saw 198.51.100.1" \
    at outside ask_tcp 198.51.100.10 8080
check "a host port on 127.0.0.1 answers there" said web ask_tcp 127.0.0.1 8081
fails "a host port on 127.0.0.1 does not answer on the host's address" ask_tcp 198.51.100.10 8081

pod other '[]'
OTHER=$(within pgrep -xf '/bin/answer other 80')
OTHER_IP=$(nsenter --net --target "$OTHER" ip -j -4 address show dev eth0 | jq -r '.[0].addr_info[0].local')
is "another pod reaches it by its address" "web saw $OTHER_IP" at "$OTHER" ask_tcp "$IP" 80
check "another pod reaches it by its host port" said web at "$OTHER" ask_tcp 198.51.100.10 8080
is "the world sees a pod with the host's address" "world saw 198.51.100.10" at "$OTHER" ask_tcp 198.51.100.1 7000

kill -KILL "$(pgrep -xf '/bin/answer web 80')"
check "when its container dies, it is restarted" within \
    web '.status.containerStatuses[0] | select(.restartCount == 1 and .ready)'
is "it keeps its address" "$IP" web '.status.podIP'
check "its host port answers again" within said web ask_tcp 198.51.100.10 8080

kill -KILL "$(pause_of "$(pgrep -xf '/bin/answer web 80')")"
check "when its sandbox dies, it is made anew" within \
    web '.status.containerStatuses[0] | select(.restartCount == 2 and .ready)'
IP=$(web '.status.podIP')
check "it is reached by its new address" within said web ask_tcp "$IP" 80
check "its host port leads to the new address" within said web ask_tcp 198.51.100.10 8080
check "its UDP host port leads to the new address" within said web ask_udp 198.51.100.10 8080

rm "$MANIFESTS"/*.yaml
check "when their manifests go, the pods go" within pods 'select(.items | length == 0)'
check "the host port is closed" within gone ask_tcp 198.51.100.10 8080
same_host "$WORK/before"

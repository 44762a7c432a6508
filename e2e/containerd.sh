#!/usr/bin/env bash
# containerd: "ctr run --cni", and pod sandboxes with host ports through its Container Runtime Interface.
. "$(dirname "$0")/lib.sh"
become_host "$@"

cp "$REPO_DIR/testdata/net.d/20-apps.conflist" /etc/cni/net.d/
start_containerd
rootfs "$WORK/rootfs"
outside "$E2E_ANSWER" world 7000 &
# As on a host with Docker, what nobody allows is not forwarded.
iptables -P FORWARD DROP
ip6tables -P FORWARD DROP
snapshot "$WORK/before"

# ---- ctr waits in the foreground, and removes the network when the container has ended. By then there is no netns.

run() {
    ctr run --rm --cni --env PATH=/bin --rootfs "$WORK/rootfs" "$1" answer "$1" 80
}

inside() {
    ctr task exec --exec-id "exec$RANDOM" "$@"
}

pid_of() {
    ctr task list | awk -v id="$1" '$1 == id && $3 == "RUNNING" { pid = $2 } END { print pid; exit !pid }'
}

address_in() {
    inside "$1" ip -o "$2" address show dev eth0 scope global | awk '{ sub("/.*", "", $4); print $4 }'
}

# The network is there when the process runs. One after the other: when the first two ADDs of a host meet, one of them
# fails in the Go suite.
run web &
WEB_CTR=$!
within pid_of web >/dev/null
run client &
CLIENT_CTR=$!
within pid_of client >/dev/null
WEB=$(address_in web -4)
within ask_tcp "$WEB" 80 >/dev/null
is "ctr run --cni: the host reaches the container by its address" "web saw 10.91.0.1" ask_tcp "$WEB" 80
check "ctr run --cni: the host reaches the container by its IPv6 address" \
    within said web ask_tcp "$(address_in web -6)" 80
is "ctr run --cni: the container has a loopback interface that is up" "web saw 127.0.0.1" inside web nc -w 3 127.0.0.1 80
is "ctr run --cni: a neighbour reaches the container" "web saw $(address_in client -4)" inside client nc -w 3 "$WEB" 80
is "ctr run --cni: the world sees the container with the host's address" "world saw 198.51.100.10" \
    inside web nc -w 3 198.51.100.1 7000
is "ctr run --cni: what tuning was asked for holds in the container" 80 \
    inside web cat /proc/sys/net/ipv4/ip_unprivileged_port_start

ctr task kill --signal KILL web
wait "$WEB_CTR" || true
check "ctr run --cni: an ended container's address is free again" test ! -e "/var/lib/cni/networks/apps/$WEB"
ctr task kill --signal KILL client
wait "$CLIENT_CTR" || true

# "ctr run --detach --cni" never calls DEL: it is what garbage collection is for.
ctr run --detach --cni --env PATH=/bin --rootfs "$WORK/rootfs" forgotten /bin/answer forgotten 80
FORGOTTEN=$(address_in forgotten -4)
ctr task delete --force forgotten >/dev/null 2>&1
ctr container delete forgotten
check "a container that ctr forgot keeps its address" test -e "/var/lib/cni/networks/apps/$FORGOTTEN"
known "host-local has no GC" check "GC succeeds" cni_gc "$REPO_DIR/testdata/net.d/20-apps.conflist"
known "host-local has no GC" check "GC frees that address" test ! -e "/var/lib/cni/networks/apps/$FORGOTTEN"
rm -f /var/lib/cni/results/apps-default-forgotten-eth0
[[ ! $REFERENCE ]] || rm -f /var/lib/cni/networks/apps/*[:.]*

# ---- the Container Runtime Interface

# pod NAME PORTS: runs a pod, and prints its id, or the error.
pod() {
    cri RunPodSandbox "config {
        metadata { name: '$1' uid: '$1' namespace: 'test' }
        hostname: '$1'
        log_directory: '$WORK/log/$1'
        linux { cgroup_parent: '/pods' }
        $2
    }" | sed 's/^pod_sandbox_id: "\(.*\)"$/\1/'
}

pod_ip() {
    cri PodSandboxStatus "pod_sandbox_id: '$1'" | sed -n 's/.* ip: "\(.*\)"$/\1/p' | grep "$2"
}

network_ready() {
    cri Status "" | grep -A1 'type: "NetworkReady"' | grep -q 'status: true'
}

check "CRI: the network is reported as ready" network_ready
POD=$(pod first 'port_mappings { container_port: 8080 host_port: 8080 }
    port_mappings { protocol: 1 container_port: 8080 host_port: 8080 }
    port_mappings { container_port: 8080 host_port: 8081 host_ip: "127.0.0.1" }')
IP=$(pod_ip "$POD" '\.') IP6=$(pod_ip "$POD" :)
is "CRI: the pod answers on its address" "pause saw 10.91.0.1" within ask_tcp "$IP" 8080
check "CRI: the pod answers on its IPv6 address" within said pause ask_tcp "$IP6" 8080
check "CRI: a TCP host port answers on the host's address" said pause ask_tcp 198.51.100.10 8080
check "CRI: a TCP host port answers on 127.0.0.1" said pause ask_tcp 127.0.0.1 8080
check "CRI: a TCP host port answers on the host's IPv6 address" said pause ask_tcp 2001:db8::10 8080
check "CRI: a UDP host port answers on the host's address" said pause ask_udp 198.51.100.10 8080
known "its firewall lets only answers in" check "CRI: another machine reaches the host port by IPv6" \
    said pause at outside ask_tcp 2001:db8::10 8080
known "its firewall lets only answers in" is "CRI: another machine reaches the host port, and is seen by its own address" \
    "pause saw 198.51.100.1" at outside ask_tcp 198.51.100.10 8080
check "CRI: a host port on 127.0.0.1 answers there" said pause ask_tcp 127.0.0.1 8081
fails "CRI: a host port on 127.0.0.1 does not answer on the host's address" ask_tcp 198.51.100.10 8081

OTHER=$(pod other '')
OTHER_IP=$(pod_ip "$OTHER" '\.')
within ask_tcp "$OTHER_IP" 8080 >/dev/null
OTHER_PID=$(pgrep -f "^/bin/answer pause" --newest)
is "CRI: a pod reaches another by its address" "pause saw $OTHER_IP" at "$OTHER_PID" ask_tcp "$IP" 8080
check "CRI: a pod reaches another's host port" said pause at "$OTHER_PID" ask_tcp 198.51.100.10 8080

THIEF=$(pod thief 'port_mappings { container_port: 8080 host_port: 8080 }') || true
known "it publishes a port twice" check "CRI: a host port that is taken is refused, and the error names who has it" \
    grep "$POD" <<<"$THIEF"
check "CRI: and the pod that has it keeps it" said pause ask_tcp 198.51.100.10 8080
[[ ! $REFERENCE ]] || cri RemovePodSandbox "pod_sandbox_id: '$THIEF'"

check "CRI: a pod is stopped" cri StopPodSandbox "pod_sandbox_id: '$POD'"
fails "CRI: a stopped pod's host port is closed" ask_tcp 198.51.100.10 8080
check "CRI: stopping it again succeeds" cri StopPodSandbox "pod_sandbox_id: '$POD'"
check "CRI: a stopped pod is removed" cri RemovePodSandbox "pod_sandbox_id: '$POD'"
check "CRI: a running pod is removed" cri RemovePodSandbox "pod_sandbox_id: '$OTHER'"

# Many at once, as on a node that has just started.
for n in {1..8}; do
    pod "crowd$n" "port_mappings { container_port: 8080 host_port: $((9000 + n)) }" >"$WORK/crowd$n" &
    CROWD[n]=$!
done
STARTED=0
for n in {1..8}; do
    if wait "${CROWD[n]}"; then STARTED=$((STARTED + 1)); fi
done
is "CRI: eight pods started at once all run" 8 echo "$STARTED"
for n in {1..8}; do
    pod_ip "$(<"$WORK/crowd$n")" '\.'
done | sort -u >"$WORK/crowd-addresses"
is "CRI: they have eight addresses" 8 wc -l <"$WORK/crowd-addresses"
for n in {1..8}; do
    check "CRI: pod $n of eight answers on its host port" within said pause ask_tcp 198.51.100.10 "$((9000 + n))"
done
for n in {1..8}; do
    cri RemovePodSandbox "pod_sandbox_id: '$(<"$WORK/crowd$n")'" &
    CROWD[n]=$!
done
wait "${CROWD[@]}"
same_host "$WORK/before"

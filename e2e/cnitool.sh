#!/usr/bin/env bash
# cnitool, the command line of libcni, at version 1.1.0 of the specification: add, check, status, gc and del.
. "$(dirname "$0")/lib.sh"
CNITOOL=$(cnitool_program) || true
become_host "$@"
if [[ ! $CNITOOL ]]; then
    skip "cnitool" "$NO_GO"
    exit
fi

export NETCONFPATH=/etc/cni/net.d CNI_PATH=$CNI_BIN
jq '.cniVersion = "1.1.0"' "$REPO_DIR/testdata/net.d/20-apps.conflist" >/etc/cni/net.d/20-apps.conflist

# cnitool VERB CONTAINER [PORTS]
cnitool() {
    local verb=$1 container=$2 ports=${3:-}
    CAP_ARGS=${ports:+"{\"portMappings\": [$ports]}"} timeout 60 "$CNITOOL" "$verb" apps "/run/netns/$container"
}

# How many addresses are leased.
held() {
    find /var/lib/cni/networks/apps -name '*[.:]*' ! -name 'last_reserved_ip.*' ! -name '.*' | wc -l
}

in_container() {
    nsenter --net="/run/netns/$1" -- "${@:2}"
}

addresses_in() {
    in_container "$1" ip -j address show dev eth0 scope global |
        jq -r '.[].addr_info[]? | select(.local) | "\(.local)/\(.prefixlen)"'
}

for container in web client gone; do
    ip netns add "$container"
done
outside "$E2E_ANSWER" world 7000 &
snapshot "$WORK/before"

check "status: the network is ready" cnitool status web

PORTS='{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
       {"hostPort": 8080, "containerPort": 80, "protocol": "udp"}'
check "add succeeds" cnitool add web "$PORTS"
RESULT=$(jq .result /var/lib/cni/results/apps-cnitool-*-eth0)
is "add: the result has the version of the configuration" 1.1.0 jq -r .cniVersion <<<"$RESULT"
is "add: the result names bridge, host end and container end" 'cni-apps0 veth eth0' \
    jq -r '[.interfaces[].name | sub("^veth.*"; "veth")] | join(" ")' <<<"$RESULT"
is "add: the result's addresses are those of the interface" "$(jq -r '.ips[].address' <<<"$RESULT")" addresses_in web
check "check: what add built is as it should be" cnitool check web
fails "add: the same attachment a second time is refused" cnitool add web "$PORTS"
check "add: and the first is untouched" cnitool check web

cnitool add client >/dev/null
in_container web "$E2E_ANSWER" web 80 &
WEB=$(jq -r '.ips[0].address | sub("/.*"; "")' <<<"$RESULT")
check "the host reaches the container" within said web ask_tcp "$WEB" 80
check "a neighbour reaches the container" said web at client ask_tcp "$WEB" 80
check "a published TCP port answers" said web ask_tcp 198.51.100.10 8080
check "a published UDP port answers" said web ask_udp 198.51.100.10 8080
is "the world sees the container with the host's address" "world saw 198.51.100.10" at client ask_tcp 198.51.100.1 7000

# What CHECK is for: somebody else's hands.
in_container web ip address del "$WEB/24" dev eth0
fails "check: a missing address is noticed" cnitool check web
in_container web ip address add "$WEB/24" brd + dev eth0
in_container web ip route add default via 10.91.0.1
check "check: it is fine again once the address is back" cnitool check web
in_container web ip route del default
fails "check: a missing route is noticed" cnitool check web
in_container web ip route add default via 10.91.0.1
PORT=$(ip -j link show master cni-apps0 | jq -r '.[0].ifname')
ip link set "$PORT" nomaster
fails "check: a host end that left the bridge is noticed" eval 'cnitool check web && cnitool check client'
ip link set "$PORT" master cni-apps0
# DEL converges, whatever happened in between.
check "del succeeds" cnitool del web
fails "del: the published port is closed" ask_tcp 198.51.100.10 8080
check "del a second time succeeds" cnitool del web
cnitool add web "$PORTS" >/dev/null
nft flush ruleset
fails "check: a flushed firewall is noticed" cnitool check web
check "del succeeds when the firewall was flushed" cnitool del web
cnitool add gone "$PORTS" >/dev/null
ip netns del gone
check "del succeeds when the network namespace is gone" cnitool del gone
is "del: only the other container's two addresses are held" 2 held

# GC: for libcni every attachment it remembers is stale when it is told of no valid one.
ip netns add gone
cnitool add gone "$PORTS" >/dev/null
known "its DEL without a netns leaves masquerading behind, and GC stumbles over it" check "gc succeeds" cnitool gc client
is "gc: no address is held" 0 held
check "gc: nothing else answers on the published port" gone ask_tcp 198.51.100.10 8080
check "gc: the containers are off the bridge" test -z "$(ip link show type veth master cni-apps0 2>/dev/null)"
for container in web client gone; do
    cnitool del "$container"
done
same_host "$WORK/before"

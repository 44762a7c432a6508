#!/usr/bin/env bash
# podman 4 with its CNI backend: the four container models, published ports, dual stack, two networks, restart, removal.
. "$(dirname "$0")/lib.sh"
become_host "$@"

cat >"$WORK/containers.conf" <<END
[network]
network_backend = "cni"
cni_plugin_dirs = ["$CNI_BIN"]
network_config_dir = "/etc/cni/net.d"
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=1000:1000"]
log_driver = "none"
END
cat >"$WORK/storage.conf" <<END
[storage]
driver = "overlay"
graphroot = "$WORK/podman/root"
runroot = "$WORK/podman/run"
END
export CONTAINERS_CONF=$WORK/containers.conf CONTAINERS_STORAGE_CONF=$WORK/storage.conf
cp "$REPO_DIR"/testdata/net.d/{20-apps,30-data}.conflist /etc/cni/net.d/
rootfs "$WORK/rootfs"

# run NAME OPTION... -- CMD...: a container in the background.
run() {
    local name=$1 options=()
    shift
    while [[ $1 != -- ]]; do
        options+=("$1")
        shift
    done
    shift
    timeout 60 podman run --detach --name "$name" "${options[@]}" --rootfs "$WORK/rootfs:O" "$@" >/dev/null
}

inside() {
    timeout 30 podman exec "$@"
}

pid_of() {
    podman inspect --format '{{.State.Pid}}' "$1"
}

# address CONTAINER NETWORK [6]: its address on that network.
address() {
    podman inspect "$1" | jq -r --arg network "$2" --arg family "${3:-}" '
        .[0].NetworkSettings.Networks[$network] | if $family == "6" then .GlobalIPv6Address else .IPAddress end'
}

links_in() {
    inside "$1" ip -o link | link_names
}

remove() {
    timeout 60 podman rm --force --ignore --time 0 "$@" >/dev/null
}

snapshot "$WORK/before"

# The four container models: closed, bridged, joined, host.
run closed --network none -- answer closed
is "--network none: the container has only lo" "lo" links_in closed
check "--network none: lo is up" inside closed ping -c1 -W2 127.0.0.1

run web --network apps -p 8080:80 -p 8080:80/udp -p 127.0.0.1:8081:80 -- answer web 80
is "a bridge: the container has lo and eth0" "eth0 lo" links_in web
check "a bridge: the container reaches its gateway" inside web ping -c1 -W2 10.91.0.1
check "a bridge: the container reaches the world" inside web ping -c1 -W2 198.51.100.1
check "a bridge: the container reaches the world by IPv6" inside web ping -6 -c1 -W2 2001:db8::1

run joined --network container:web -- answer joined 90
is "container:web: the interfaces are those of web" "$(links_in web)" links_in joined
is "container:web: web is reached on 127.0.0.1" "web saw 127.0.0.1" inside joined nc -w 3 127.0.0.1 80

run onhost --network host -- answer onhost
is "--network host: the interfaces are those of the host" "$(ip -o link | link_names)" links_in onhost

# Published ports, from every side.
WEB=$(address web apps) WEB6=$(address web apps 6)
is "the host reaches the container by its address" "web saw 10.91.0.1" within ask_tcp "$WEB" 80
check "the host reaches the container by its IPv6 address" within said web ask_tcp "$WEB6" 80
check "a published TCP port answers on the host's address" said web ask_tcp 198.51.100.10 8080
check "a published TCP port answers on 127.0.0.1" said web ask_tcp 127.0.0.1 8080
check "a published UDP port answers on the host's address" said web ask_udp 198.51.100.10 8080
check "a published UDP port answers on 127.0.0.1" said web ask_udp 127.0.0.1 8080
check "a published TCP port answers on the host's IPv6 address" said web ask_tcp 2001:db8::10 8080
check "a published UDP port answers on the host's IPv6 address" said web ask_udp 2001:db8::10 8080
is "another machine reaches the published TCP port, and is seen by its own address" "web saw 198.51.100.1" \
    at outside ask_tcp 198.51.100.10 8080
is "another machine reaches the published UDP port, and is seen by its own address" "web saw 198.51.100.1" \
    at outside ask_udp 198.51.100.10 8080
is "another machine reaches the published TCP port by IPv6" "web saw 2001:db8::1" at outside ask_tcp 2001:db8::10 8080
check "a port published on 127.0.0.1 answers there" said web ask_tcp 127.0.0.1 8081
fails "a port published on 127.0.0.1 does not answer on the host's address" ask_tcp 198.51.100.10 8081

run client --network apps -- answer client 80
CLIENT=$(address client apps)
is "a neighbour reaches the container by its address" "web saw $CLIENT" inside client nc -w 3 "$WEB" 80
check "a neighbour reaches the published TCP port on the host's address" said web inside client nc -w 3 198.51.100.10 8080
check "a neighbour reaches the published UDP port on the host's address" \
    said web at "$(pid_of client)" ask_udp 198.51.100.10 8080
check "the container reaches its own published port on the host's address" said web inside web nc -w 3 198.51.100.10 8080
outside "$E2E_ANSWER" world 7000 &
is "the world sees the container with the host's address" "world saw 198.51.100.10" \
    within inside client nc -w 3 198.51.100.1 7000

# Two networks on one container, on two bridges.
check "two networks: a container with a published port starts, which podman asks of both networks" \
    run both --network apps --network data -p 8082:80 -- answer both 80
run neighbour --network data -- answer neighbour 80
is "two networks: the container has two interfaces" "eth0 eth1 lo" links_in both
is "two networks: it is reached on the first" "both saw 10.91.0.1" within ask_tcp "$(address both apps)" 80
is "two networks: it is reached on the second" "both saw 10.92.0.1" within ask_tcp "$(address both data)" 80
is "two networks: it reaches a neighbour on the second" "neighbour saw $(address both data)" \
    inside both nc -w 3 "$(address neighbour data)" 80
check "two networks: the published port answers" said both ask_tcp 198.51.100.10 8082

# A network that podman itself describes.
podman network create --subnet 10.93.0.0/24 --ipv6 --subnet fd00:93::/64 own >/dev/null
run mine --network own --mac-address 02:00:00:00:93:05 --ip 10.93.0.5 -p 8083:80 -- answer mine 80
is "podman network create: the container has the address asked for" "10.93.0.5" address mine own
is "podman network create: the container has the MAC address asked for" "02:00:00:00:93:05" \
    inside mine cat /sys/class/net/eth0/address
check "podman network create: the published port answers" within said mine ask_tcp 127.0.0.1 8083
fails "an address that is taken is refused" run thief --network own --ip 10.93.0.5 -- answer thief
is "and the one who has it keeps it" "mine saw 10.93.0.1" ask_tcp 10.93.0.5 80

# Restart: the same container, reached again in the same ways, also by a client that never stopped talking.
check "before the restart a UDP client gets answers" said web ask_udp 198.51.100.10 8080 -p 40000
timeout 60 podman restart --time 0 web >/dev/null
check "after a restart the published TCP port answers" within said web ask_tcp 198.51.100.10 8080
check "after a restart the published TCP port answers on 127.0.0.1" said web ask_tcp 127.0.0.1 8080
check "after a restart the published UDP port answers the same client" said web ask_udp 198.51.100.10 8080 -p 40000
check "after a restart a neighbour reaches it" said web inside client nc -w 3 "$(address web apps)" 80

# Removal.
remove joined onhost
remove web
fails "after removal the published TCP port is closed" ask_tcp 198.51.100.10 8080
fails "after removal the published UDP port is closed" ask_udp 198.51.100.10 8080
check "another container's published port still answers" said both ask_tcp 198.51.100.10 8082
remove closed client both neighbour mine thief
podman network rm own >/dev/null
same_host "$WORK/before"

#!/usr/bin/env bash
# Two suites on one host: what the Go suite added, ours checks, deletes and collects; what ours added in the formats both
# share (host-local's store, the iptables backends), the Go suite checks and deletes. There is no runtime here: the verbs
# are called one by one, each with the plugins of one suite.
. "$(dirname "$0")/lib.sh"
NEWEST=$(reference_plugins) || true
become_host "$@"

IPTABLES=$REPO_DIR/testdata/net.d/50-iptables.conflist
outside "$E2E_ANSWER" world 7000 &

# ours VERB CONTAINER [PORT], theirs VERB CONTAINER [PORT]: one verb, with the plugins of one suite. PORT is published, for
# TCP and UDP. A container that is lost has no network namespace.
ours() {
    attach "$CNI_BIN" "$@"
}

theirs() {
    attach "$THEIRS" "$@"
}

# The portmap of Debian's suite looks for an IPv4 port's rule in ip6tables too when a container has addresses of both
# families, whoever added it. It is left out.
theirs_check() {
    local LIST=$LIST
    if [[ $TAG == debian ]]; then
        jq 'del(.plugins[] | select(.type == "portmap"))' "$LIST" >"$WORK/checked.conflist"
        LIST=$WORK/checked.conflist
    fi
    theirs CHECK "$1"
}

attach() {
    local CNI_BIN=$1 verb=$2 container=$3 port=${4:-} netns=/run/netns/$3 ports='{}'
    [[ -e $netns ]] || netns=
    if [[ $port ]]; then
        ports=$(jq -n --argjson port "$port" '
            {portMappings: [("tcp", "udp") | {hostPort: $port, containerPort: 80, protocol: .}]}')
    fi
    cni_list "$verb" "$LIST" "$container" "$netns" "$ports"
}

# A container: a network namespace, and in it a server that answers with the container's name.
declare -A PROCESS
container() {
    ip netns add "$1"
    nsenter --net="/run/netns/$1" "$E2E_ANSWER" "$1" 80 &
    PROCESS[$1]=$!
}

end() {
    kill -KILL "${PROCESS[$1]}"
    wait "${PROCESS[$1]}" 2>/dev/null || true
    ip netns del "$1"
}

# lose CONTAINER: the container goes, and so does what the runtime remembers of it.
lose() {
    end "$1"
    rm "$(cni_memory "$LIST" "$1")"
}

# The addresses in a result.
addresses() {
    jq -r '.ips[].address | sub("/.*"; "")'
}

firewall() {
    {
        nft list ruleset
        iptables-save
        ip6tables-save
        iptables-legacy-save
        ip6tables-legacy-save
    } 2>/dev/null
}

# traces CONTAINER: what is on the host in the name of a container and this network: leases, and in the firewall the
# Go suite's comments with both, and the chains that carry the hash of both (the first characters of the SHA-512).
traces() {
    local container=$1 hash
    hash=$(printf '%s' "shared$container" | sha512sum)
    grep -rlw -- "$container" /var/lib/cni/networks || true
    firewall | grep -E "id: .?$container|CNI-${hash:0:24}|CNI-DN-${hash:0:21}" || true
}

# all_traces CONTAINER: those, and what bears the container's name alone: the ports of the nftables backend, and the file
# in which tuning keeps what it changed. A DEL knows whose they are; a GC can't, as they may be another network's.
all_traces() {
    traces "$1"
    firewall | grep -E "comment \"?$1\"?" || true
    mkdir -p /run/cni /run/ferrule
    find /run/cni /run/ferrule -type f -name "*$1*"
}

# rules_for ADDRESS...: what is in the firewall about addresses. The rules that let a container's packets through bear no
# name at all, so these are found where the address is known. Left out is the rule with which ours lets published ports
# through on hosts that drop what they forward: the Go suite has none, and its DEL leaves it; our GC does not.
rules_for() {
    local address pattern=
    for address; do
        pattern+="${pattern:+|}(^|[^0-9a-f.:])${address//./\\.}([^0-9a-f.:]|$)"
    done
    firewall | grep -E "$pattern" | grep -vE 'ctstate DNAT|ct status dnat' || true
}

links_of() {
    ip -n "$1" -o link | link_names
}

world_sees() {
    for place in "$@"; do
        at "$place" ask_tcp 198.51.100.1 7000
    done | paste -sd,
}

# take_over SUITE: what the Go suite added, ours takes over. SUITE is its name to a reader, TAG its short form in names;
# PORTS is the base of the ports to publish, for a rule that stays behind must not answer for the next suite.
take_over() {
    local suite=$1 ip c=moved-$TAG
    container "$c"
    mapfile -t ip < <(theirs ADD "$c" "$((PORTS + 1))" | addresses)
    within ask_tcp 198.51.100.10 "$((PORTS + 1))" >/dev/null
    # Ours verifies no rules in the tables of the Go suite's nftables backend; it only removes them.
    if [[ $TAG != nftables ]]; then
        check "$suite adds, ours checks" ours CHECK "$c"
        ip -n "$c" address del "${ip[0]}/24" dev eth0
        fails "$suite adds, ours notices a missing address" ours CHECK "$c"
        ip -n "$c" address add "${ip[0]}/24" brd + dev eth0
    fi
    check "$suite adds, ours deletes" ours DEL "$c"
    is "... the container's interface is gone" lo links_of "$c"
    fails "... the published port is closed" ask_tcp 198.51.100.10 "$((PORTS + 1))"
    is "... nothing of the container is left on the host" "" all_traces "$c"
    is "... and nothing is left about its addresses" "" rules_for "${ip[@]}"
    end "$c"

    c=lost-$TAG
    container "$c"
    theirs ADD "$c" "$((PORTS + 2))" >/dev/null
    lose "$c"
    check "$suite adds, the container and all memory of it are lost, ours deletes" ours DEL "$c"
    known "it needs the previous result" is "... nothing of the container is left on the host" "" all_traces "$c"

    c=stale-$TAG
    container "$c"
    container "alive-$TAG"
    theirs ADD "$c" "$((PORTS + 3))" >/dev/null
    theirs ADD "alive-$TAG" "$((PORTS + 4))" >/dev/null
    lose "$c"
    check "$suite adds two, one is lost, ours collects garbage" cni_gc "$LIST" "alive-$TAG"
    known "it has no GC" is "... nothing of the lost one is left on the host" "" traces "$c"
    check "... the other one is as it was" theirs_check "alive-$TAG"
    check "... and answers on its published port" within said "alive-$TAG" ask_tcp 198.51.100.10 "$((PORTS + 4))"
}

# give_back SUITE: ours adds a container beside one of the Go suite's, and the Go suite deletes it.
give_back() {
    local suite=$1 ip c=own-$TAG other=alive-$TAG
    container "$c"
    mapfile -t ip < <(ours ADD "$c" "$((PORTS + 5))" | addresses)
    check "ours adds beside a container of $suite: they reach each other" \
        within said "$c" at "$other" ask_tcp "${ip[0]}" 80
    check "... by IPv6" within said "$c" at "$other" ask_tcp "${ip[1]}" 80
    check "... by the other's published port" said "$other" at "$c" ask_tcp 198.51.100.10 "$((PORTS + 4))"
    is "... and the world sees both with the host's address" "world saw 198.51.100.10,world saw 198.51.100.10" \
        world_sees "$c" "$other"
    check "ours adds, $suite checks" theirs_check "$c"
    check "ours adds, $suite deletes" theirs DEL "$c"
    is "... the container's interface is gone" lo links_of "$c"
    fails "... the published port is closed" ask_tcp 198.51.100.10 "$((PORTS + 5))"
    is "... nothing of the container is left on the host" "" all_traces "$c"
    is "... and nothing is left about its addresses" "" rules_for "${ip[@]}"
    end "$c"
}

# The next suite starts on a host without containers.
clear_away() {
    theirs DEL "alive-$TAG" || true
    end "alive-$TAG"
}

# Someone who puts our plugins in the place of Debian's changes no configuration: Debian's suite takes its only backend,
# iptables, where ours takes its own default.
THEIRS=/usr/lib/cni TAG=debian PORTS=8000
LIST=$WORK/defaults.conflist
jq 'del(.plugins[].backend, .plugins[].ipMasqBackend)' "$IPTABLES" >"$LIST"
take_over "Debian's suite"
LIST=$IPTABLES
give_back "Debian's suite"
clear_away

if [[ $NEWEST ]]; then
    THEIRS=$NEWEST TAG=newest PORTS=8100
    take_over "the Go suite $REFERENCE_VERSION"
    give_back "the Go suite $REFERENCE_VERSION"
    clear_away

    # With nftables the two suites share no format, but ours knows the other's.
    TAG=nftables PORTS=8200
    LIST=$WORK/nftables.conflist
    jq '.plugins[0].ipMasqBackend = "nftables" | .plugins[1].backend = "nftables"' "$IPTABLES" >"$LIST"
    take_over "the Go suite $REFERENCE_VERSION with nftables"
    clear_away
else
    skip "exchanges with the Go suite $REFERENCE_VERSION" "$NO_GO"
fi

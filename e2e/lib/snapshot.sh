# What a host looks like to those who use it, and the proof that nothing was left on it.
# shellcheck shell=bash

# snapshot DIR: writes the state of the host to DIR, one file per aspect, free of what changes by itself.
snapshot() {
    local dir=$1 family
    mkdir -p "$dir"
    ip -j -details link | jq -S '[.[] | {ifname, link_type, mtu, flags, operstate, address, master, promiscuity, ifalias,
        kind: .linkinfo.info_kind, netns: .link_netnsid}] | sort_by(.ifname)' >"$dir/links"
    ip -j address | jq -S '[.[] | {ifname, addresses: [.addr_info[] | {family, local, prefixlen, scope, "label": .label}]}]
        | sort_by(.ifname)' >"$dir/addresses"
    for family in -4 -6; do
        ip "$family" route show table all
        ip "$family" rule
        ip "$family" neighbor show proxy
    done | sort >"$dir/routes"
    # Counters move by themselves.
    {
        nft list ruleset
        iptables-legacy-save
        ip6tables-legacy-save
    } 2>/dev/null | sed -E '/^#/d; s/counter packets [0-9]+ bytes [0-9]+/counter/; s/\[[0-9]+:[0-9]+\]//' >"$dir/firewall"
    # The count of tracked connections, keys made by chance, and what the kernel tunes by load.
    { grep -rs . /proc/sys/net/{ipv4,ipv6,core,bridge,netfilter} || true; } |
        grep -vE '/(nf_conntrack_count|tcp_fastopen_key|netdev_rss_key|stable_secret|flush):' | sort >"$dir/sysctls"
    awk '$2 !~ "^/proc/" { print $2, $3 }' /proc/self/mounts | sort >"$dir/mounts"
    # Directories may stay, and so may what host-local keeps of a network without leases: its lock, the cursor that
    # makes it hand out another address than the last one, and its index.
    mkdir -p /run/ferrule /run/cni
    find /run/ferrule /run/cni /run/netns /var/lib/cni ! -type d ! -name lock ! -name 'last_reserved_ip.*' \
        ! -path '*/.ferrule/*/index' | sort >"$dir/files"
}

# same_host BEFORE: checks that every aspect of the host is as it was in snapshot BEFORE.
same_host() {
    local before=$1 after=$WORK/after
    # The kernel takes network namespaces apart in the background.
    PATIENCE=3 within looks_like "$before" "$after" >/dev/null || true
    known "its bridges stay" same links
    known "its bridges stay" same addresses
    known "its bridges stay" same routes
    known "its chains stay" same firewall
    known "forwarding stays on" same sysctls
    same mounts
    same files
}

looks_like() {
    snapshot "$2"
    diff -r "$1" "$2"
}

same() {
    check "nothing left, $1" diff -U0 "$before/$1" "$after/$1"
}

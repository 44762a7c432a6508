# A host made of namespaces.
# shellcheck shell=bash

# Runs the calling script again in namespaces of its own, where everything a runtime touches is private: network, mounts,
# processes, host name, its part of the cgroup tree. The machine keeps its interfaces, firewall, sysctls and files, and
# because the script is process 1 of its PID namespace, the kernel ends all it started when it ends, however it ends.
become_host() {
    if [[ ${E2E_INSIDE:-} ]]; then
        set_up_host
        return
    fi
    if [[ $(id -u) != 0 ]]; then
        echo "$TEST_NAME: needs root: real runtimes mount file systems and make cgroups" >&2
        exit 2
    fi
    if ! CNI_BIN=$(realpath -e "$CNI_BIN"); then
        echo "$TEST_NAME: build the plugins first (make), or set CNI_BIN to a directory of plugins" >&2
        exit 2
    fi
    E2E_ANSWER=$(build_answer) || exit 2
    E2E_CGROUP=ferrule-e2e-$$
    export E2E_INSIDE=1 E2E_ANSWER E2E_CGROUP CNI_BIN REFERENCE

    local host status=0
    (
        join_own_cgroup || exit 2
        exec setpriv --pdeathsig KILL timeout --foreground --signal KILL "$E2E_TIMEOUT" setpriv --pdeathsig KILL \
            unshare --net --mount --uts --ipc --pid --cgroup --fork --kill-child --mount-proc --propagation private \
            "$BASH" "$0" "$@"
    ) </dev/null &
    host=$!
    trap 'kill -KILL "$host"' INT TERM
    wait "$host" || status=$?
    trap - INT TERM
    leave_own_cgroup
    if ((status > 128)); then
        echo "not ok - $TEST_NAME was ended, or took longer than $E2E_TIMEOUT seconds"
        echo "0 passed, 1 failed, 0 skipped"
    fi
    exit "$status"
}

cgroup_mounts() {
    awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/self/mounts
}

join_own_cgroup() {
    local mount file
    for mount in $(cgroup_mounts); do
        mkdir "$mount/$E2E_CGROUP"
        # A v1 cpuset takes no process before it has processors and memory nodes.
        for file in cpuset.cpus cpuset.mems; do
            if [[ -e $mount/$file ]]; then cat "$mount/$file" >"$mount/$E2E_CGROUP/$file"; fi
        done
        echo "$BASHPID" >"$mount/$E2E_CGROUP/cgroup.procs" || return
    done
}

leave_own_cgroup() {
    local mount try
    for mount in $(cgroup_mounts); do
        # The kernel may still be ending the last process.
        for try in {1..50}; do
            [[ -d $mount/$E2E_CGROUP ]] || break
            ((try == 1)) || sleep 0.1
            find "$mount/$E2E_CGROUP" -depth -type d -exec rmdir {} \; 2>/dev/null
        done
    done
}

# Turns fresh namespaces into a host with an uplink, eth0, to a machine called "outside":
#
#   outside 198.51.100.1 ------ eth0 198.51.100.10 host
#           2001:db8::1              2001:db8::10
#
# From here on a command that fails outside a check ends the script as failed: what follows would prove nothing.
set_up_host() {
    set -eE
    exec {STDOUT}>&1
    trap 'stopped_at "${BASH_SOURCE[0]##*/}:$LINENO" "$BASH_COMMAND"' ERR
    trap close EXIT
    mount -t tmpfs -o mode=755 tmpfs /run
    WORK=/run/e2e
    mkdir -p /run/lock /run/netns "$WORK"
    set_up_files
    set_up_cgroups
    set_up_uplink
    hostname e2e-host
}

# Runtimes write below /etc, /var and /opt; here these writes go to memory.
set_up_files() {
    local dir
    for dir in etc var opt; do
        mkdir -p "$WORK/host/$dir" "$WORK/host/$dir.work"
        mount -t overlay -o "lowerdir=/$dir,upperdir=$WORK/host/$dir,workdir=$WORK/host/$dir.work" overlay "/$dir"
    done
    mkdir "$WORK/cni-bin"
    mount --bind "$CNI_BIN" "$WORK/cni-bin"
    rm -rf /opt/cni /etc/cni /var/lib/cni /etc/containers/containers.conf
    mkdir -p /opt/cni/bin /etc/cni/net.d /var/lib/cni
    mount --bind "$WORK/cni-bin" /opt/cni/bin
    CNI_BIN=/opt/cni/bin
}

# A new /sys, because it shows the interfaces of the network namespace it was mounted in, and below it, instead of each
# cgroup hierarchy, only our own part of it.
set_up_cgroups() {
    local mount mounts
    mounts=$(cgroup_mounts)
    mkdir "$WORK/cgroup"
    mount --rbind /sys/fs/cgroup "$WORK/cgroup"
    mount -t sysfs sysfs /sys
    [[ $mounts == /sys/fs/cgroup ]] || mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    for mount in $mounts; do
        mkdir -p "$mount"
        mount --bind "$WORK/cgroup${mount#/sys/fs/cgroup}/$E2E_CGROUP" "$mount"
    done
    umount --recursive --lazy "$WORK/cgroup"
    if [[ $mounts == /sys/fs/cgroup ]]; then
        # Version 2 alone: a cgroup that holds processes cannot hand controllers down, so ours move to a leaf.
        mkdir /sys/fs/cgroup/host
        echo $$ >/sys/fs/cgroup/host/cgroup.procs
    fi
}

set_up_uplink() {
    ip link set lo up
    ip netns add outside
    ip link add eth0 type veth peer name eth0 netns outside
    # No link-local addresses: they would come up at a moment of their own, between two snapshots.
    ip link set eth0 addrgenmode none
    outside ip link set eth0 addrgenmode none
    ip address add 198.51.100.10/24 dev eth0
    ip address add 2001:db8::10/64 dev eth0 nodad
    ip link set eth0 up
    outside ip link set lo up
    outside ip address add 198.51.100.1/24 dev eth0
    outside ip address add 2001:db8::1/64 dev eth0 nodad
    outside ip link set eth0 up
    ip route add default via 198.51.100.1
    ip -6 route add default via 2001:db8::1
}

# outside CMD...: runs a command on the machine at the other end of the uplink.
outside() {
    nsenter --net=/run/netns/outside -- "$@"
}

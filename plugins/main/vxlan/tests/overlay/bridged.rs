//! Bridged mode: one subnet on all hosts.

use std::fs;
use std::net::IpAddr;

use serde_json::{Value, json};
use testkit::{Attachment, Fabric, Netns, ping};

use crate::lab::{
    Connected, Inside, all_reach_all, check_and_leave, connect, connect_all, explain, link, list, peers_with,
    refusal, run, state,
};

fn network(fabric: &Fabric, inside: Inside, ipv4_underneath: bool, keys: Value) -> Value {
    let peers = peers_with(fabric, ipv4_underneath, |number| inside.slices(number));
    let mut all = json!({ "vni": 200, "mode": "bridged", "subnet": inside.subnets(), "peers": peers });
    all.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    list(&all)
}

fn life(fabric: &Fabric, inside: Inside, ipv4_underneath: bool, keys: Value) {
    let before: Vec<_> = fabric.hosts().iter().map(|host| state(host)).collect();
    let list = network(fabric, inside, ipv4_underneath, keys);
    let mut connected = connect_all(fabric, &list);
    connected.push(connect(fabric, 1, &list, "c1b"));
    all_reach_all(&connected);
    // One subnet: no router between them, so nothing has lowered the hop limit.
    for address in connected[1].addresses() {
        let reply = run(&connected[0].container, &format!("ping -n -c 1 -t 1 {address}"));
        assert!(reply.contains("ttl=64"), "{reply}");
    }
    check_and_leave(fabric, &connected, before);
}

#[test]
fn two_hosts_share_a_subnet() {
    life(&Fabric::switched(2), Inside::V4, true, json!({}));
}

#[test]
fn three_hosts_behind_a_router_share_subnets_of_both_families() {
    life(&Fabric::routed(3), Inside::Dual, true, json!({ "ipMasq": true }));
}

#[test]
fn ipv6_alone_inside_and_underneath() {
    life(&Fabric::switched(2), Inside::V6, false, json!({}));
}

#[test]
fn broadcasts_reach_other_hosts_only_where_asked_for() {
    for (bum, answered) in [(false, false), (true, true)] {
        let fabric = Fabric::switched(2);
        let list = network(&fabric, Inside::V4, true, json!({ "bum": bum }));
        let connected = connect_all(&fabric, &list);
        let sent = {
            run(&connected[1].container, "sysctl -q -w net.ipv4.icmp_echo_ignore_broadcasts=0");
            let words = ["-n", "-b", "-c", "2", "-W", "1", "10.50.255.255"];
            connected[0].container.run("ping", &words)
        };
        let from_other = connected[1].addresses()[0].to_string();
        assert_eq!(
            sent.stdout.contains(&from_other),
            answered,
            "bum {bum}: {}\n{}",
            sent.stdout,
            explain(connected[0].host)
        );
    }
}

/// A container that sends as another must not get that one's packets, nor get any through.
#[test]
fn a_container_can_not_take_the_traffic_of_another() {
    let fabric = Fabric::switched(2);
    let list = network(&fabric, Inside::V4, true, json!({}));
    let victim = connect(&fabric, 1, &list, "victim");
    let thief = connect(&fabric, 1, &list, "thief");
    let far = connect(&fabric, 2, &list, "far");
    let mac = |one: &Connected<'_>| link(&one.container, "eth0")["address"].as_str().unwrap().to_owned();
    let address = far.addresses()[0];
    assert!(ping(&thief.container, address), "as itself it may");
    // It needs no answer to send, nor to ask who is where.
    run(&thief.container, &format!("ip link set eth0 address {}", mac(&victim)));
    run(&thief.container, &format!("ip neigh replace {address} lladdr {} dev eth0 nud permanent", mac(&far)));
    let before = echoes_seen(&far.container);
    assert!(!ping(&thief.container, address));
    assert_eq!(echoes_seen(&far.container), before, "frames from another's hardware address are dropped");
    assert!(ping(&far.container, victim.addresses()[0]), "{}", explain(victim.host));
    assert!(ping(&victim.container, address));
    assert!(echoes_seen(&far.container) > before);
}

/// How many echo requests of both families a container has had.
fn echoes_seen(container: &Netns) -> u64 {
    let read =
        |file: &str| container.enter(|| fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap());
    let text = read("snmp");
    let mut lines = text.lines().filter(|line| line.starts_with("Icmp:")).map(str::split_whitespace);
    let (names, mut values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.into_iter().position(|name| name == "InEchos").unwrap();
    let ipv4: u64 = values.nth(at).unwrap().parse().unwrap();
    let text = read("snmp6");
    let ipv6 = text.lines().find_map(|line| line.strip_prefix("Icmp6InEchos")).unwrap();
    ipv4 + ipv6.trim().parse::<u64>().unwrap()
}

/// A container that announces another's addresses as its own gets what is sent there, and one that says that it is a router gets what is sent anywhere:
/// unless ports speak for their own addresses only. The same attack, with the check and without.
#[test]
fn a_container_speaks_for_its_own_addresses_only() {
    for checked in [true, false] {
        let fabric = Fabric::switched(2);
        let before = state(&fabric.hosts()[0]);
        let keys = if checked { json!({}) } else { json!({ "spoofchk": false }) };
        let list = network(&fabric, Inside::Dual, true, keys);
        let victim = connect(&fabric, 1, &list, "victim");
        let thief = connect(&fabric, 1, &list, "thief");
        let bystanders = [connect(&fabric, 1, &list, "near"), connect(&fabric, 2, &list, "far")];
        let near = &bystanders[0];
        all_reach_all(&bystanders);
        let reach_victim = || victim.addresses().iter().all(|address| ping(&near.container, *address));
        assert!(reach_victim());
        // A neighbour's entry is not replaced within a second of its making (`locktime`, arp(7)).
        std::thread::sleep(std::time::Duration::from_millis(1100));
        run(&near.container, "sysctl -qw net.ipv6.conf.eth0.accept_ra=1");
        let (ipv4, ipv6): (Vec<IpAddr>, Vec<IpAddr>) =
            victim.addresses().into_iter().partition(IpAddr::is_ipv4);
        run(&thief.container, &format!("ip addr add {}/16 dev eth0", ipv4[0]));
        run(&thief.container, &format!("busybox arping -q -U -c 2 -I eth0 -s {0} {0}", ipv4[0]));
        // Announced when it is added.
        run(&thief.container, "sysctl -qw net.ipv6.conf.eth0.ndisc_notify=1");
        run(&thief.container, &format!("ip addr add {}/64 dev eth0", ipv6[0]));
        thief.container.enter(|| testkit::advertise_router("eth0", "fd00:bad::".parse().unwrap()));
        std::thread::sleep(std::time::Duration::from_millis(300));
        let seen = echoes_seen(&thief.container);
        let reached = reach_victim();
        let stolen = echoes_seen(&thief.container) > seen;
        let routed = run(&near.container, "ip -6 route show proto ra");
        let neighbours = run(&near.container, "ip neigh show");
        assert_eq!(stolen, !checked, "spoofchk {checked}: {neighbours}\n{}", explain(thief.host));
        assert_eq!(routed.is_empty(), checked, "spoofchk {checked}: {routed}");
        assert!(reached || !checked, "{neighbours}");
        assert!(
            victim.addresses().iter().all(|address| ping(&bystanders[1].container, *address)) || !checked
        );
        if checked {
            victim.check().unwrap();
        }
        for one in [&victim, &thief, &bystanders[0], &bystanders[1]] {
            one.del();
        }
        before.assert_same(&state(&fabric.hosts()[0]));
    }
}

#[test]
fn a_container_whose_port_was_altered_is_told_of_by_check() {
    let fabric = Fabric::switched(2);
    let one = connect(&fabric, 1, &network(&fabric, Inside::V4, true, json!({})), "c1");
    let port = one.result["interfaces"][2]["name"].as_str().unwrap();
    let mac = link(&one.container, "eth0")["address"].as_str().unwrap().to_owned();
    one.check().unwrap();
    for (damage, repair, message) in [
        (
            format!("/sbin/bridge link set dev {port} locked off"),
            format!("/sbin/bridge link set dev {port} locked on"),
            format!("lock of port {port}: expected true"),
        ),
        (
            format!("/sbin/bridge link set dev {port} learning on"),
            format!("/sbin/bridge link set dev {port} learning off"),
            format!("learning of port {port}: expected false"),
        ),
        (
            format!("/sbin/bridge fdb del {mac} dev {port} master"),
            format!("/sbin/bridge fdb add {mac} dev {port} master static"),
            format!("entry for {mac} at port {port}: expected present"),
        ),
        (
            format!("ip link set {port} nomaster"),
            String::new(),
            format!("bridge of port {port}: expected vb-blue, found none"),
        ),
    ] {
        run(one.host, &damage);
        let (code, text) = refusal(one.check());
        assert!(code == 102 && text.contains(&message), "{damage}: {code} {text}");
        if !repair.is_empty() {
            run(one.host, &repair);
            one.check().unwrap_or_else(|failure| panic!("{repair}: {failure}"));
        }
    }
    one.del();
}

/// Hardware addresses follow from IP addresses, so an address that moves to another node is reachable there at once.
#[test]
fn hardware_addresses_follow_from_ip_addresses() {
    let fabric = Fabric::switched(2);
    let list = network(&fabric, Inside::Dual, true, json!({}));
    let one = connect(&fabric, 1, &list, "c1");
    let far = connect(&fabric, 2, &list, "c2");
    let neighbours = run(one.host, "ip neigh show dev vb-blue");
    let mac = link(&far.container, "eth0")["address"].as_str().unwrap().to_owned();
    for address in far.addresses() {
        let entry = format!("{address} lladdr {mac} PERMANENT proto 70");
        assert!(neighbours.lines().any(|line| line.trim() == entry), "{entry}\n{neighbours}");
    }
    let gateway: IpAddr = "10.50.0.1".parse().unwrap();
    assert!(ping(&far.container, gateway), "each host is the gateway of its own containers");
}

/// Nobody can list the addresses of a /64; containers get those that others look for.
#[test]
fn of_a_64_the_first_addresses_are_used() {
    let fabric = Fabric::switched(2);
    let peers = peers_with(&fabric, true, |number| vec![format!("fd00:50:0:{number}::/64")]);
    let keys = json!({ "vni": 200, "mode": "bridged", "subnet": "fd00:50::/48", "peers": peers });
    let connected = connect_all(&fabric, &list(&keys));
    all_reach_all(&connected);
    connected[0].check().unwrap();
    let neighbours = run(connected[0].host, "ip -6 neigh show dev vb-blue nud permanent");
    assert_eq!(neighbours.lines().count(), 256, "{neighbours}");
    // An address that the operator gives out, and that nobody would look for here.
    let mut elsewhere = keys.clone();
    elsewhere["ipam"] = json!({ "type": "host-local",
        "ranges": [[{ "subnet": "fd00:50::/48", "rangeStart": "fd00:50:0:1:1::", "rangeEnd": "fd00:50:0:1:1::9" }]] });
    let chain = fabric.hosts()[0].runtime().chain(&list(&elsewhere));
    let container = fabric.container("far");
    let (code, text) = refusal(chain.add(&Attachment::new("far", &container, "eth0")));
    assert!(code == 7 && text.contains("fd00:50:0:1:1:"), "{code} {text}");
}

//! Routed mode with a subnet: containers see one subnet, and packets between nodes are routed.

use std::net::IpAddr;

use serde_json::{Value, json};
use testkit::{Attachment, Fabric, Netns, ping};

use crate::lab::{
    Connected, Inside, all_reach_all, check_and_leave, connect, connect_all, explain, link, list, peers_with,
    refusal, run, state,
};

fn network(fabric: &Fabric, inside: Inside, ipv4_underneath: bool, keys: Value) -> Value {
    let subnets = match inside {
        Inside::V4 => json!("10.40.0.0/16"),
        Inside::V6 => json!("fd00:40::/32"),
        Inside::Dual => json!(["10.40.0.0/16", "fd00:40::/32"]),
    };
    let peers = peers_with(fabric, ipv4_underneath, |number| inside.blocks(number));
    let mut all = json!({ "vni": 100, "mode": "routed", "subnet": subnets, "peers": peers });
    all.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    list(&all)
}

/// Who a container believes to have an address, after it has tried to reach it: a hardware address, or nobody.
fn asked(container: &Netns, address: &str) -> Option<String> {
    container.run("ping", &["-n", "-q", "-c", "1", "-W", "1", address]);
    let shown = run(container, &format!("ip neigh show to {address} dev eth0"));
    let mut words = shown.split_whitespace();
    words.find(|word| *word == "lladdr")?;
    words.next().map(str::to_owned)
}

fn life(fabric: &Fabric, inside: Inside, ipv4_underneath: bool, keys: Value) {
    let before: Vec<_> = fabric.hosts().iter().map(|host| state(host)).collect();
    let list = network(fabric, inside, ipv4_underneath, keys);
    let mut connected = connect_all(fabric, &list);
    connected.push(connect(fabric, 1, &list, "c1b"));
    all_reach_all(&connected);
    let (one, far, near) = (&connected[0], &connected[1], connected.last().unwrap());
    let hops = |to: &Connected<'_>, ttl: &str| {
        for address in to.addresses() {
            let reply = run(&one.container, &format!("ping -n -c 1 {address}"));
            assert!(reply.contains(ttl), "{reply}");
        }
    };
    hops(near, "ttl=64");
    hops(far, "ttl=62");
    if inside != Inside::V6 {
        let own: IpAddr = "10.40.1.2".parse().unwrap();
        assert!(one.addresses().contains(&own));
        let routes = run(&one.container, "ip -4 route show");
        assert!(routes.contains("10.40.0.0/16 dev eth0 proto kernel scope link src 10.40.1.2"), "{routes}");
        // The host stands for those of other nodes, and for nobody else.
        let bridge = link(one.host, "vb-blue")["address"].as_str().unwrap().to_owned();
        assert_eq!(asked(&one.container, "10.40.2.2"), Some(bridge));
        assert_eq!(asked(&one.container, &near.addresses()[0].to_string()), Some(mac(&near.container)));
        assert_eq!(
            asked(&one.container, "10.40.1.77"),
            None,
            "of this node, and free\n{}",
            explain(one.host)
        );
        assert_eq!(asked(&one.container, "10.40.99.9"), None, "of no node\n{}", explain(one.host));
        let free = one.container.run("ping", &["-n", "-c", "1", "-W", "5", "10.40.2.77"]);
        assert!(
            free.stdout.contains("Destination Host Unreachable"),
            "of another node, and free: {}",
            free.stdout
        );
    }
    check_and_leave(fabric, &connected, before);
}

fn mac(netns: &Netns) -> String {
    link(netns, "eth0")["address"].as_str().unwrap().to_owned()
}

#[test]
fn two_hosts_see_one_subnet() {
    life(&Fabric::switched(2), Inside::V4, true, json!({}));
}

#[test]
fn three_hosts_behind_a_router_see_one_subnet_of_each_family() {
    life(&Fabric::routed(3), Inside::Dual, true, json!({ "ipMasq": true }));
}

#[test]
fn one_subnet_over_ipv6_and_without_a_tunnel() {
    life(&Fabric::switched(2), Inside::Dual, false, json!({}));
    life(&Fabric::switched(2), Inside::V6, true, json!({}));
    let fabric = Fabric::switched(2);
    let connected =
        connect_all(&fabric, &network(&fabric, Inside::V4, true, json!({ "directRouting": true })));
    let route = run(connected[0].host, "ip route get 10.40.2.2");
    assert!(route.contains("via 192.0.2.2 dev eth0"), "{route}");
    for (from, to) in [(0, 1), (1, 0)] {
        assert!(ping(&connected[from].container, connected[to].addresses()[0]));
    }
}

/// Of one family there may be a subnet, and of the other none.
#[test]
fn a_subnet_of_one_family_leaves_the_other_as_it_is() {
    let fabric = Fabric::switched(2);
    let connected =
        connect_all(&fabric, &network(&fabric, Inside::Dual, true, json!({ "subnet": "10.40.0.0/16" })));
    all_reach_all(&connected);
    for one in &connected {
        one.check().unwrap();
    }
}

/// What a container of another node is reached by is this host's answers.
#[test]
fn a_bridge_that_answers_no_more_is_told_of_by_check_and_put_right() {
    let fabric = Fabric::switched(2);
    let list = network(&fabric, Inside::V4, true, json!({}));
    let connected = connect_all(&fabric, &list);
    let host = connected[0].host;
    for (number, (key, found)) in
        [("conf/vb-blue/proxy_arp", 0), ("neigh/vb-blue/proxy_delay", 80)].into_iter().enumerate()
    {
        run(host, &format!("sysctl -qw net/ipv4/{key}={found}"));
        let (code, text) = refusal(connected[0].check());
        assert!(code == 102 && text.contains(&format!("sysctl net/ipv4/{key}")), "{code} {text}");
        connect(&fabric, 1, &list, &format!("d{number}")).del();
        connected[0].check().unwrap();
    }
    run(&connected[0].container, "ip neigh flush dev eth0");
    assert!(ping(&connected[0].container, connected[1].addresses()[0]), "{}", explain(host));
    run(host, "sysctl -qw net/ipv4/conf/vb-blue/proxy_arp=0");
    run(&connected[0].container, "ip neigh flush dev eth0");
    assert!(!ping(&connected[0].container, connected[1].addresses()[0]), "this is what it is for");
}

/// A bridge that is the operator's goes on as it was.
#[test]
fn a_bridge_that_was_there_is_as_it_was_when_the_last_container_is_gone() {
    let fabric = Fabric::switched(2);
    let host = &fabric.hosts()[0];
    // One without an address of its own would be left with none.
    run(host, "ip link add pods address 02:00:00:00:00:0a type bridge");
    run(host, "ip link set pods up");
    run(host, "sysctl -qw net/ipv4/neigh/pods/proxy_delay=33");
    let settings = || run(host, "sysctl net/ipv4/conf/pods/proxy_arp net/ipv4/neigh/pods/proxy_delay");
    let (before, was) = (settings(), state(host));
    let list = network(&fabric, Inside::V4, true, json!({ "bridge": "pods" }));
    let connected = [connect(&fabric, 1, &list, "c1"), connect(&fabric, 1, &list, "c2")];
    let far = connect(&fabric, 2, &list, "far");
    connected[0].del();
    assert!(ping(&connected[1].container, far.addresses()[0]));
    assert_ne!(settings(), before);
    connected[1].del();
    assert_eq!(settings(), before);
    was.assert_same(&state(host));
}

#[test]
fn a_subnet_that_does_not_fit_is_refused() {
    let fabric = Fabric::switched(2);
    let host = &fabric.hosts()[0];
    let before = state(host);
    for (subnet, message) in [
        (
            "10.40.2.0/23",
            "peers[0].blocks[0]: it is not within the subnet of the network, 10.40.2.0/23 (value: 10.40.1.0/24)",
        ),
        (
            "10.40.0.0/23",
            "peers[1].blocks[0]: it is not within the subnet of the network, 10.40.0.0/23 (value: 10.40.2.0/24)",
        ),
        (
            "10.40.1.0/24",
            "peers[1].blocks[0]: it is not within the subnet of the network, 10.40.1.0/24 (value: 10.40.2.0/24)",
        ),
        (
            "0.0.0.0/0",
            "peers[0].underlay: it is within 0.0.0.0/0, the subnet of the network, whose addresses are inside the tunnels (value: 192.0.2.1)",
        ),
    ] {
        let chain = host.runtime().chain(&network(&fabric, Inside::V4, true, json!({ "subnet": subnet })));
        let container = fabric.container("c1");
        let (code, text) = refusal(chain.add(&Attachment::new("c1", &container, "eth0")));
        assert_eq!((code, text.as_str()), (7, format!("invalid configuration: {message}").as_str()));
        drop(container);
        before.assert_same(&state(host));
    }
}

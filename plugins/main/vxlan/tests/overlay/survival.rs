//! Many calls at once, and calls that are killed.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use testkit::{
    Attachment, Chain, Container, End, Fabric, Host, Plugin, Runtime, Snapshot, kill_every, kill_everywhere,
    may_trace, ping, plugin_dir, skip,
};

use crate::lab::{list, peers_with, state};

const CONTAINERS: usize = 300;
const AT_ONCE: usize = 16;

/// Does something for each container, sixteen at a time.
fn for_each(containers: &[Container], work: impl Fn(&Container) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(container) = containers.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(container);
                }
            });
        }
    });
}

fn eth0(container: &Container) -> Attachment {
    Attachment::new(container.name(), container, "eth0")
}

#[test]
fn three_hundred_at_once_come_and_go_and_leave_nothing() {
    let fabric = Fabric::switched(2);
    let before = state(&fabric.hosts()[0]);
    let peers = peers_with(&fabric, true, |number| vec![format!("10.{}.0.0/16", 40 + number)]);
    let list = list(&json!({ "vni": 100, "ipMasq": true, "ipMasqBackend": "nftables", "peers": peers }));
    let far = crate::lab::connect(&fabric, 2, &list, "far");
    let containers: Vec<Container> =
        (0..CONTAINERS).map(|number| fabric.container(&format!("c{number}"))).collect();
    let chain = fabric.hosts()[0].runtime().chain(&list);
    for_each(&containers, |container| {
        chain.add(&eth0(container)).unwrap();
    });
    for container in [&containers[0], &containers[CONTAINERS / 2], &containers[CONTAINERS - 1]] {
        chain.check(&eth0(container)).unwrap();
        assert!(ping(container, far.addresses()[0]));
    }
    for_each(&containers, |container| chain.del(&eth0(container)).unwrap());
    drop(containers);
    before.assert_same(&state(&fabric.hosts()[0]));
}

#[test]
fn first_and_last_containers_meet_without_harm() {
    let fabric = Fabric::switched(2);
    let before = state(&fabric.hosts()[0]);
    let peers = peers_with(&fabric, true, |number| crate::lab::Inside::Dual.slices(number));
    let subnets = crate::lab::Inside::Dual.subnets();
    let list = list(&json!({ "vni": 100, "mode": "bridged", "subnet": subnets, "peers": peers }));
    let containers: Vec<Container> = (0..8).map(|number| fabric.container(&format!("c{number}"))).collect();
    let chain = fabric.hosts()[0].runtime().chain(&list);
    // With few containers, the device is made and removed again all the time.
    for_each(&containers, |container| {
        for _ in 0..5 {
            // What others have half made or half removed is no reason to call the node unready.
            chain.status().unwrap();
            chain.add(&eth0(container)).unwrap();
            chain.check(&eth0(container)).unwrap();
            chain.del(&eth0(container)).unwrap();
        }
    });
    drop(containers);
    before.assert_same(&state(&fabric.hosts()[0]));
}

/// A network of a host that really is, and of one that is not.
fn network(mode: &str) -> Value {
    let mut keys = json!({
        "vni": 100, "mode": mode, "ipMasq": true, "ipMasqBackend": "nftables",
        "peers": [
            { "node": "a", "underlay": "192.0.2.1", "blocks": ["10.40.1.0/29", "fd00:40::10:0/124"] },
            { "node": "b", "underlay": "192.0.2.9", "blocks": ["10.40.2.0/29", "fd00:40::20:0/124"] }
        ]
    });
    if mode == "bridged" {
        keys["subnet"] = json!(["10.40.0.0/16", "fd00:40::/64"]);
    }
    list(&keys)
}

fn snapshot() -> Snapshot {
    Snapshot::take().without(&["/last_reserved_ip", "/networks/.ferrule/", "/lock "])
}

/// Kills `verb` at every so many system calls; what it leaves is put right by DEL.
fn sweep(mode: &str, verb: &str, every: usize, prepare: impl Fn(&Chain, &Container)) {
    let host = Host::new();
    let _uplink = host.uplink();
    // The host's own local routes come a moment after its addresses.
    testkit::eventually("the host's IPv6 address", || {
        ping(host.netns(), testkit::Uplink::HOST_IPV6).then_some(())
    });
    let before = snapshot();
    kill_everywhere(every, |nth| {
        let container = host.container("c1");
        let chain = Runtime::new().chain(&network(mode));
        prepare(&chain, &container);
        let config = chain.stdin(0, &eth0(&container), None);
        let plugin = Plugin::new("vxlan").verb(verb).attachment("c1", container.path(), "eth0");
        let end: End = plugin.path(&[plugin_dir()]).config(&config).kill_at(nth);
        chain.forget();
        chain
            .del(&eth0(&container))
            .unwrap_or_else(|failure| panic!("DEL after call {nth} of {verb}: {failure}"));
        drop(container);
        let difference = before.difference(&snapshot());
        assert!(difference.is_empty(), "killed at call {nth} of {verb}, then DEL:\n{difference}");
        end
    });
}

#[test]
fn add_killed_anywhere_leaves_nothing_that_del_does_not_remove() {
    if !may_trace() {
        skip!("ptrace(2) is not permitted here");
    }
    sweep("routed", "ADD", kill_every(29), |_, _| {});
}

#[test]
fn add_to_a_bridged_network_killed_anywhere_leaves_nothing_that_del_does_not_remove() {
    if !may_trace() {
        skip!("ptrace(2) is not permitted here");
    }
    sweep("bridged", "ADD", kill_every(37), |_, _| {});
}

#[test]
fn del_killed_anywhere_is_finished_by_the_next() {
    if !may_trace() {
        skip!("ptrace(2) is not permitted here");
    }
    sweep("routed", "DEL", kill_every(23), |chain, container| {
        chain.add(&eth0(container)).unwrap();
    });
}

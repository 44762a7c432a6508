//! Many calls at once, on a host that had nothing.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use testkit::{Chain, Container, Host};

use crate::support::*;

const CONTAINERS: usize = 100;
const AT_ONCE: usize = 16;

fn network() -> Chain {
    net(json!({
        "isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "macspoofchk": true, "ipam": dual()
    }))
}

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

#[test]
fn a_hundred_at_once_come_and_go_and_leave_nothing() {
    let host = Host::new();
    let before = state();
    let containers: Vec<Container> =
        (0..CONTAINERS).map(|number| host.container(&format!("c{number}"))).collect();
    let chain = network();
    for_each(&containers, |container| {
        chain.add(&eth0(container)).unwrap();
    });

    let mut given: HashSet<String> = HashSet::new();
    for container in &containers {
        let result = chain.result(&eth0(container)).unwrap();
        for ip in result["ips"].as_array().unwrap() {
            let address = ip["address"].as_str().unwrap().to_owned();
            assert!(given.insert(address.clone()), "{address} was given twice");
        }
    }
    assert_eq!(given.len(), 2 * CONTAINERS);
    for container in [&containers[0], &containers[CONTAINERS / 2], &containers[CONTAINERS - 1]] {
        chain.check(&eth0(container)).unwrap();
        assert!(testkit::ping(container, [10, 77, 0, 1]));
    }

    for_each(&containers, |container| chain.del(&eth0(container)).unwrap());
    drop(containers);
    before.assert_same(&state());
}

#[test]
fn first_and_last_containers_meet_without_harm() {
    let host = Host::new();
    let before = state();
    let containers: Vec<Container> =
        (0..AT_ONCE).map(|number| host.container(&format!("c{number}"))).collect();
    let chain = network();
    // With few containers, the bridge and the tables are made and removed again all the time.
    for_each(&containers, |container| {
        for _ in 0..6 {
            chain.add(&eth0(container)).unwrap();
            chain.check(&eth0(container)).unwrap();
            chain.del(&eth0(container)).unwrap();
        }
    });
    drop(containers);
    before.assert_same(&state());
}

#[test]
fn interfaces_of_one_container_can_be_added_at_once() {
    let host = Host::new();
    let container = host.container("c1");
    let before = state();
    let chain = network();
    let attachments: Vec<testkit::Attachment> =
        (0..8).map(|number| testkit::Attachment::new("c1", &container, &format!("eth{number}"))).collect();
    std::thread::scope(|scope| {
        for attachment in &attachments {
            scope.spawn(|| chain.add(attachment).unwrap());
        }
    });
    for attachment in &attachments {
        chain.check(attachment).unwrap();
    }
    std::thread::scope(|scope| {
        for attachment in &attachments {
            scope.spawn(|| chain.del(attachment).unwrap());
        }
    });
    before.assert_same(&state());
}

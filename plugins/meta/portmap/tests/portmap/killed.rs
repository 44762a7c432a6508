//! The plugin killed at any system call, and the call after it.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use testkit::{Invocation, Plugin, Snapshot, kill_every, kill_everywhere, may_trace, plugin_dir, skip, tool};

use crate::lab::{Lab, port, port_at};

/// A call for a container whose subnet is on the host's `br0`, with ports of each kind.
fn call(verb: &str, backend: &str) -> Invocation {
    let config = json!({
        "cniVersion": "1.1.0", "name": "net", "type": "portmap", "backend": backend,
        "prevResult": {
            "cniVersion": "1.1.0",
            "interfaces": [{ "name": "eth0", "sandbox": "/run/netns/c1" }],
            "ips": [{ "address": "10.9.0.2/24", "interface": 0 }, { "address": "fd00:9::2/64", "interface": 0 }]
        },
        "runtimeConfig": { "portMappings": [
            port("tcp", 8080, 80), port("udp", 5353, 53), port_at("192.0.2.1", "tcp", 8081, 80)
        ] }
    });
    Plugin::new("portmap")
        .verb(verb)
        .attachment("c1", "/run/netns/c1", "eth0")
        .path(&[plugin_dir()])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .config(&config)
}

fn host() -> Lab {
    let lab = Lab::new();
    for words in ["link add br0 type bridge", "addr add 10.9.0.1/24 dev br0", "link set br0 up"] {
        tool("ip", &words.split(' ').collect::<Vec<_>>());
    }
    lab
}

fn killed_anywhere(backend: &str, every: usize) {
    let lab = host();
    if !may_trace() {
        skip!("ptrace(2) is not permitted here");
    }
    let container = lab.container("c1");
    let before = Snapshot::take();
    let gone = |what: &str, nth: usize| {
        let difference = before.difference(&Snapshot::take());
        assert!(difference.is_empty(), "{what} killed at call {nth}, then DEL:\n{difference}");
        assert!(
            !Path::new("/run/ferrule").exists(),
            "{what} killed at call {nth}, then DEL: empty directories"
        );
    };
    kill_everywhere(kill_every(every), |nth| {
        let end = call("ADD", backend).kill_at(nth);
        call("DEL", backend).run().success();
        gone("ADD", nth);
        end
    });
    kill_everywhere(kill_every(every), |nth| {
        call("ADD", backend).run().success();
        let end = call("DEL", backend).kill_at(nth);
        call("DEL", backend).run().success();
        gone("DEL", nth);
        end
    });
    // Nothing is in the way of the next one.
    call("ADD", backend).run().success();
    call("CHECK", backend).run().success();
    drop(container);
}

#[test]
fn killed_anywhere_with_nftables() {
    killed_anywhere("nftables", 11);
}

#[test]
fn killed_anywhere_with_iptables() {
    killed_anywhere("iptables", 37);
}

#[test]
fn gc_finishes_what_a_killed_add_has_begun() {
    let lab = host();
    if !may_trace() {
        skip!("ptrace(2) is not permitted here");
    }
    let _container = lab.container("c1");
    let before = Snapshot::take();
    let gc: Value = json!({
        "cniVersion": "1.1.0", "name": "net", "type": "portmap", "cni.dev/valid-attachments": []
    });
    kill_everywhere(kill_every(23), |nth| {
        let end = call("ADD", "nftables").kill_at(nth);
        Plugin::new("portmap").verb("GC").path(&[plugin_dir()]).config(&gc).run().success();
        let difference = before.difference(&Snapshot::take());
        assert!(difference.is_empty(), "ADD killed at call {nth}, then GC:\n{difference}");
        assert!(!Path::new("/run/ferrule").exists(), "ADD killed at call {nth}, then GC: empty directories");
        end
    });
}

#[test]
fn del_finds_what_a_damaged_record_does_not_say() {
    let lab = host();
    let container = lab.container("c1");
    let before = Snapshot::take();
    for content in ["", "{\"format\": 99}\n", "\u{0}{garbage"] {
        call("ADD", "nftables").run().success();
        fs::write("/run/ferrule/attachments/net/portmap/c1/eth0", content).unwrap();
        call("DEL", "nftables").run().success();
        let difference = before.difference(&Snapshot::take());
        assert!(difference.is_empty(), "with {content:?} as record, after DEL:\n{difference}");
    }
    drop(container);
}

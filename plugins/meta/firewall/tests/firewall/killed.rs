//! The plugin killed at any system call, and the call after it.

use serde_json::json;
use testkit::{Invocation, Plugin, Snapshot, kill_every, kill_everywhere, may_trace, plugin_dir, skip, tool};

use crate::lab::Lab;

fn call(verb: &str, backend: &str) -> Invocation {
    let config = json!({
        "cniVersion": "1.1.0", "name": "net", "type": "firewall", "backend": backend, "ingressPolicy": "isolated",
        "prevResult": {
            "cniVersion": "1.1.0",
            "interfaces": [{ "name": "br0" }, { "name": "port0" }, { "name": "eth0", "sandbox": "/run/netns/c1" }],
            "ips": [{ "address": "10.9.0.2/24", "interface": 2 }, { "address": "fd00:9::2/64", "interface": 2 }]
        }
    });
    Plugin::new("firewall")
        .verb(verb)
        .attachment("c1", "/run/netns/c1", "eth0")
        .path(&[plugin_dir()])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .config(&config)
}

fn killed_anywhere(backend: &str, every: usize) {
    let lab = Lab::new();
    if !may_trace() {
        skip!("ptrace(2) is not permitted here");
    }
    let _container = lab.host.container("c1");
    for words in [
        "link add br0 type bridge",
        "link add port0 type veth peer name eth0 netns c1",
        "link set port0 alias ferrule:net/c1/eth0",
        "link set port0 master br0",
    ] {
        tool("ip", &words.split(' ').collect::<Vec<_>>());
    }
    let before = Snapshot::take();
    let gone = |what: &str, nth: usize| {
        let difference = before.difference(&Snapshot::take());
        assert!(difference.is_empty(), "{what} killed at call {nth}, then DEL:\n{difference}");
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
    call("ADD", backend).run().success();
    call("CHECK", backend).run().success();
}

#[test]
fn killed_anywhere_with_nftables() {
    killed_anywhere("nftables", 11);
}

#[test]
fn killed_anywhere_with_iptables() {
    killed_anywhere("iptables", 37);
}

//! The plugin killed at any system call, and the DEL after it.

use serde_json::{Value, json};
use testkit::{Invocation, Plugin, Snapshot, kill_every, kill_everywhere, may_trace, skip};

use crate::lab::{Lab, config};

fn call(lab: &Lab, verb: &str) -> Invocation {
    let config: Value = config(&json!({
        "mac": "c2:11:22:33:44:55", "mtu": 1400, "promisc": true,
        "sysctl": { "net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "500" }
    }));
    Plugin::new("tuning").verb(verb).attachment("c1", lab.container.path(), "eth0").config(&config)
}

#[test]
fn killed_anywhere_it_is_restored() {
    let lab = Lab::new();
    if !may_trace() {
        skip!("ptrace(2) is not permitted here");
    }
    let state = || (Snapshot::take(), lab.container.enter(Snapshot::take), lab.sysctl("net/core/somaxconn"));
    let before = state();
    let restored = |what: &str, nth: usize| {
        let now = state();
        let difference = before.0.difference(&now.0) + &before.1.difference(&now.1);
        assert!(difference.is_empty(), "{what} killed at call {nth}, then DEL:\n{difference}");
        assert_eq!(before.2, now.2, "{what} killed at call {nth}, then DEL");
    };
    kill_everywhere(kill_every(13), |nth| {
        let end = call(&lab, "ADD").kill_at(nth);
        call(&lab, "DEL").run().success();
        restored("ADD", nth);
        end
    });
    kill_everywhere(kill_every(13), |nth| {
        call(&lab, "ADD").run().success();
        let end = call(&lab, "DEL").kill_at(nth);
        call(&lab, "DEL").run().success();
        restored("DEL", nth);
        end
    });
    call(&lab, "ADD").run().success();
    call(&lab, "CHECK").run().success();
}

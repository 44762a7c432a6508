//! A plugin killed at any system call, and the DEL after it.

use serde_json::{Value, json};
use testkit::{
    Chain, Container, End, Host, Plugin, kill_every, kill_everywhere, may_trace, plugin_dir, skip,
};

use crate::support::*;

fn network() -> Chain {
    net(json!({
        "isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "macspoofchk": true, "ipam": dual()
    }))
}

/// Runs `bridge` for `eth0` of a container, and kills it at a system call.
fn run(verb: &str, container: &Container, config: &Value, nth: usize) -> End {
    let plugin = Plugin::new("bridge").verb(verb).attachment(container.name(), container.path(), "eth0");
    plugin.path(&[plugin_dir()]).config(config).kill_at(nth)
}

/// Kills `verb` at every so many calls, until it is over before it comes to that; `prepare` makes the state that it starts from, and what
/// it leaves is put right by DEL.
fn sweep(host: &Host, verb: &str, every: usize, prepare: impl Fn(&Chain, &Container)) {
    let before = state();
    let chain = network();
    kill_everywhere(every, |nth| {
        let container = host.container("c1");
        prepare(&chain, &container);
        let attachment = eth0(&container);
        let config: Value = chain.stdin(0, &attachment, None);
        let end = run(verb, &container, &config, nth);
        chain.forget();
        chain.del(&attachment).unwrap_or_else(|failure| panic!("DEL after call {nth} of {verb}: {failure}"));
        assert_eq!(links(&container), ["lo"], "after call {nth} of {verb}");
        drop(container);
        let difference = before.difference(&state());
        assert!(difference.is_empty(), "killed at call {nth} of {verb}, then DEL:\n{difference}");
        end
    });
}

#[test]
fn add_killed_anywhere_leaves_nothing_that_del_does_not_remove() {
    let host = Host::new();
    if !may_trace() {
        skip!("ptrace(2) is not permitted here");
    }
    sweep(&host, "ADD", kill_every(19), |_, _| {});
    let container = host.container("c1");
    let chain = network();
    chain.add(&eth0(&container)).unwrap();
    chain.check(&eth0(&container)).unwrap();
}

#[test]
fn del_killed_anywhere_is_finished_by_the_next() {
    let host = Host::new();
    if !may_trace() {
        skip!("ptrace(2) is not permitted here");
    }
    sweep(&host, "DEL", kill_every(23), |chain, container| {
        chain.add(&eth0(container)).unwrap();
    });
}

#[test]
fn add_killed_beside_another_container_leaves_that_one_alone() {
    let host = Host::new();
    if !may_trace() {
        skip!("ptrace(2) is not permitted here");
    }
    let neighbour = host.container("neighbour");
    let chain = network();
    chain.add(&eth0(&neighbour)).unwrap();
    sweep(&host, "ADD", kill_every(61), |_, _| {});
    chain.check(&eth0(&neighbour)).unwrap();
    assert!(testkit::ping(&neighbour, [10, 77, 0, 1]));
}

#[test]
fn gc_finishes_what_a_killed_add_has_begun() {
    let host = Host::new();
    if !may_trace() {
        skip!("ptrace(2) is not permitted here");
    }
    let before = state();
    kill_everywhere(kill_every(61), |nth| {
        let container = host.container("c1");
        let chain = network();
        let config = chain.stdin(0, &eth0(&container), None);
        let end = run("ADD", &container, &config, nth);
        drop(container);
        chain.gc(&[]).unwrap();
        let difference = before.difference(&state());
        assert!(difference.is_empty(), "killed at call {nth} of ADD, then GC:\n{difference}");
        end
    });
}

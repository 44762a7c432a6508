//! A plugin killed at any system call, and the DEL after it.

use serde_json::{Value, json};
use testkit::{Chain, Container, Host, skip};

use crate::support::*;
use crate::tracer::{self, End};

fn network() -> Chain {
    net(json!({
        "isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "macspoofchk": true, "ipam": dual()
    }))
}

/// Every how many system calls a plugin is killed: `FERRULE_KILL_EVERY`, which takes minutes with 1.
fn stride(default: usize) -> usize {
    let given = std::env::var("FERRULE_KILL_EVERY").ok().and_then(|text| text.parse().ok());
    given.unwrap_or(default).max(1)
}

/// Kills `verb` at every so many calls, until it is over before it comes to that; `prepare` makes the state that it starts from, and what
/// it leaves is put right by DEL.
fn sweep(host: &Host, verb: &str, every: usize, prepare: impl Fn(&Chain, &Container)) {
    let before = state();
    let chain = network();
    let mut nth = 1;
    let mut kills = 0;
    loop {
        let container = host.container("c1");
        prepare(&chain, &container);
        let attachment = eth0(&container);
        let config: Value = chain.stdin(0, &attachment, None);
        let end = tracer::run(verb, &container, &config, nth);
        chain.forget();
        chain.del(&attachment).unwrap_or_else(|failure| panic!("DEL after call {nth} of {verb}: {failure}"));
        assert_eq!(links(&container), ["lo"], "after call {nth} of {verb}");
        drop(container);
        let difference = before.difference(&state());
        assert!(difference.is_empty(), "killed at call {nth} of {verb}, then DEL:\n{difference}");
        match end {
            End::Killed => kills += 1,
            End::Exited { code, calls } => {
                assert_eq!(code, 0);
                assert!(calls < nth && kills > 5, "{calls} calls, {kills} kills");
                eprintln!("{verb}: {calls} system calls, killed at {kills} of them");
                return;
            }
        }
        nth += every;
    }
}

#[test]
fn add_killed_anywhere_leaves_nothing_that_del_does_not_remove() {
    let host = Host::new();
    if !tracer::is_allowed() {
        skip!("ptrace(2) is not permitted here");
    }
    sweep(&host, "ADD", stride(19), |_, _| {});
    let container = host.container("c1");
    let chain = network();
    chain.add(&eth0(&container)).unwrap();
    chain.check(&eth0(&container)).unwrap();
}

#[test]
fn del_killed_anywhere_is_finished_by_the_next() {
    let host = Host::new();
    if !tracer::is_allowed() {
        skip!("ptrace(2) is not permitted here");
    }
    sweep(&host, "DEL", stride(23), |chain, container| {
        chain.add(&eth0(container)).unwrap();
    });
}

#[test]
fn add_killed_beside_another_container_leaves_that_one_alone() {
    let host = Host::new();
    if !tracer::is_allowed() {
        skip!("ptrace(2) is not permitted here");
    }
    let neighbour = host.container("neighbour");
    let chain = network();
    chain.add(&eth0(&neighbour)).unwrap();
    sweep(&host, "ADD", stride(61), |_, _| {});
    chain.check(&eth0(&neighbour)).unwrap();
    assert!(testkit::ping(&neighbour, [10, 77, 0, 1]));
}

#[test]
fn gc_finishes_what_a_killed_add_has_begun() {
    let host = Host::new();
    if !tracer::is_allowed() {
        skip!("ptrace(2) is not permitted here");
    }
    let before = state();
    let every = stride(61);
    for nth in (1..).step_by(every) {
        let container = host.container("c1");
        let chain = network();
        let config = chain.stdin(0, &eth0(&container), None);
        let end = tracer::run("ADD", &container, &config, nth);
        drop(container);
        chain.gc(&[]).unwrap();
        let difference = before.difference(&state());
        assert!(difference.is_empty(), "killed at call {nth} of ADD, then GC:\n{difference}");
        if matches!(end, End::Exited { .. }) {
            break;
        }
    }
}

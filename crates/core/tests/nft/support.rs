//! What the tests share: a connection, a transaction in one call, and `nft` as it lists.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ferrule_core::nft::{Connection, Family, Rule, Table, Transaction};
use nix::sched::{CloneFlags, unshare};

pub(crate) const TABLE: Table = Table::new(Family::Inet, "ferrule");

pub(crate) fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Does `work` in a new network namespace on a thread of its own: for tests that need more than one.
pub(crate) fn in_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            work()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub(crate) fn connect() -> Connection {
    Connection::open(deadline()).unwrap()
}

/// Commits what `fill` puts into a transaction.
pub(crate) fn commit(fill: impl FnOnce(&mut Transaction)) {
    let mut transaction = Transaction::new();
    fill(&mut transaction);
    connect().commit(&transaction).unwrap();
}

pub(crate) fn rule() -> Rule {
    Rule::new(Family::Inet)
}

/// Types `ruleset` into `nft`.
pub(crate) fn nft(ruleset: &str) {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(ruleset.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "nft did not take {ruleset}");
}

/// What `nft` shows of the whole ruleset.
pub(crate) fn listing() -> String {
    testkit::tool("nft", &["list", "ruleset"])
}

pub(crate) fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub(crate) fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

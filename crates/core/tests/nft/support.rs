//! Namespaces to work in, and the programs that judge the outcome.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ferrule_core::nft::{Connection, Family, Rule, Table, Transaction};
use nix::sched::{CloneFlags, unshare};

pub(crate) const TABLE: Table = Table::new(Family::Inet, "ferrule");

pub(crate) fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Does `work` in a new network namespace, with the loopback interface up, on a thread of its own.
pub(crate) fn in_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .expect("run the tests inside `unshare -rnm --propagation private`");
            run("ip", &["link", "set", "lo", "up"]);
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

/// Runs a program with `input`, whatever comes of it.
pub(crate) fn attempt(program: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    // A program that does not read its input closes the pipe; that is not what is tested.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Runs a program that must succeed, and gives its standard output.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    run_with(program, arguments, "")
}

pub(crate) fn run_with(program: &str, arguments: &[&str], input: &str) -> String {
    let output = attempt(program, arguments, input);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} < {input}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// What `nft` shows of the whole ruleset.
pub(crate) fn listing() -> String {
    run("nft", &["list", "ruleset"])
}

/// A program that runs until the test ends.
pub(crate) struct Background(Child);

impl Background {
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Self {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        Self(child)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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

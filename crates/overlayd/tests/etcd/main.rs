//! The agent with a real etcd, of one member and of three, inside the test's own hosts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests of a binary: a panic is how one fails, and what was measured is printed"
)]

mod access;
mod blocks;
mod cluster;
#[path = "../agent/lab.rs"]
#[expect(dead_code, reason = "made for the tests of files, too")]
mod lab;
mod outage;
mod server;

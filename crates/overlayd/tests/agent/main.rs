//! The agent on hosts made of namespaces, with peers from a file.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests of a binary: a panic is how one fails, and what was measured is printed"
)]

mod damage;
mod file;
mod lab;
mod mesh;
mod service;

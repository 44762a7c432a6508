//! The `tuning` plugin as a runtime runs it, on a container's veth.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where it fails")]

mod example;
mod failing;
mod interop;
mod killed;
mod lab;
mod refusals;
mod settings;
mod verbs;

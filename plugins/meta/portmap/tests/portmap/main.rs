//! The `portmap` plugin as a runtime runs it, behind `bridge`, with real packets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where it fails")]

mod conntrack;
mod example;
mod guards;
mod interop;
mod killed;
mod lab;
mod reach;
mod sctp;
mod verbs;

//! The `firewall` plugin as a runtime runs it, behind `bridge`, with real packets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where it fails")]

mod example;
mod forward;
mod interop;
mod isolation;
mod killed;
mod lab;
mod verbs;

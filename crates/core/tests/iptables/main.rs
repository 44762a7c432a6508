//! The iptables backend, in both variants of iptables, against `iptables-save`, real packets and the Go suite's plugins.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod interop;
mod layout;
mod lifecycle;
mod packets;
mod support;
mod trouble;

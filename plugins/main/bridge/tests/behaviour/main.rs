//! What `bridge` does to a host, with real packets, judged by other people's tools.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(unreachable_pub, reason = "modules of a test")]
#![allow(clippy::needless_pass_by_value, reason = "what `json!` makes is passed on")]

mod bridge;
mod check;
mod collection;
mod contained;
mod example;
mod firewall;
mod ipv6;
mod layer3;
mod port;
mod privilege;
mod refusal;
mod removal;
mod support;
mod threats;

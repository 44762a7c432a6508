//! Container networks across hosts made of namespaces: real packets both ways, `ip`, `bridge` and `nft` as oracles.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on panics")]
#![allow(clippy::needless_pass_by_value, reason = "what `json!` makes is passed on")]

mod bridged;
mod example;
mod keys;
mod lab;
mod living;
mod refusals;
mod result;
mod routed;
mod sources;
mod stretched;
mod survival;

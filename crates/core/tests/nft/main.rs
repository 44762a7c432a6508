//! The `nf_tables` and conntrack transports, against `nft`, `conntrack`, `nc` and `ping` as oracles.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where it fails")]

mod conntrack;
mod printing;
mod reading;
mod support;
mod traffic;
mod transactions;

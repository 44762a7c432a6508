//! Container networking on Linux.

pub mod conntrack;
pub mod nfnetlink;
pub mod nft;

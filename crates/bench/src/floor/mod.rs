//! The floor: what the kernel's own part of an attachment costs.
//!
//! One process makes the same kernel changes as a chain of plugins does, with as few netlink messages as they take, and nothing else: it parses no
//! configuration, allocates no address, keeps no record, looks at nothing twice, tells no neighbour, answers nothing. It can't undo what it made half of.
//! Nobody can be quicker by doing the same things better; only by doing less, or by not waiting for it.

mod attach;
pub mod message;
mod program;
mod request;

pub use attach::{add, del};
pub use program::main;
pub use request::{Family, Port, Request};

/// The tables and chains of the floor, made once for each host; an attachment is a few elements in them.
pub const RULESET: &str = include_str!("ruleset.nft");

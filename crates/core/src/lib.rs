//! Container networking on Linux: namespaces, links, addresses, routes, firewall, sysctl, and attachments as data.
//!
//! A plugin turns its configuration into a list of resources ([`resources!`] names the kinds it makes); [`attachment`] writes the list down, makes it so, verifies
//! it and removes it. See `ARCHITECTURE.md` for the map.
#![deny(unsafe_code)]

// What `resources!` expands to is the same here as in a plugin.
extern crate self as ferrule_core;

pub mod announce;
pub mod attachment;
pub mod conntrack;
pub mod dbus;
mod error;
pub mod firewall;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod host;
pub mod marks;
pub mod netlink;
pub mod netns;
pub mod nfnetlink;
pub mod nft;
pub mod owner;
pub mod privilege;
pub mod resource;
pub mod shared;
pub mod state;
mod sys;
pub mod sysctl;
pub mod udp;

pub use error::Error;
pub use host::Host;
pub use owner::Owner;
#[doc(hidden)]
pub use serde; // for what `resources!` derives

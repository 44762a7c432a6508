//! Container networking on Linux: namespaces, links, addresses, routes, firewall, sysctl, and attachments as data.
//!
//! A plugin turns its configuration into a list of [`resource::Resource`]s; [`attachment`] writes the list down, makes it so, verifies
//! it and removes it. See `ARCHITECTURE.md` for the map.
#![deny(unsafe_code)]

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

pub use error::Error;
pub use host::Host;
pub use owner::Owner;
